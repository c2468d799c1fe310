"""Towers to SavedModels that need nothing but TensorFlow."""

import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import tensorflow as tf

from avts_tf.config import UserError
from avts_tf.towers.audio import embed_waveform

TOLERANCE = 1e-4  # greatest difference of an output, relative to the greatest output, between Keras and the reloaded tower


class AudioTower(tf.Module):
    """What is exported of the audio tower: waveforms of any length to embeddings.

    A sound shorter than a window is padded with silence at its end; a longer one is cut into windows end to end, the last one
    padded likewise, and their outputs are averaged.
    """

    name_of_input = 'waveform'

    def __init__(self, tower, config):
        super().__init__(name='audio_tower')
        self._tower, self._samples, self._normalize = tower, config.clip.window_samples, config.towers.normalize == 'length'
        self.specification = tf.TensorSpec([None, None], tf.float32, self.name_of_input)

    def embed(self, waveform):
        """float32 [batch, samples] in [-1, 1] -> dict of `embedding` [batch, D] and `conv5` [batch, C], float32."""
        windows = tf.maximum(-(-tf.shape(waveform)[1] // self._samples), 1)
        waveform = tf.pad(waveform, [[0, 0], [0, windows * self._samples - tf.shape(waveform)[1]]])
        outputs = embed_waveform(self._tower, tf.reshape(waveform, [-1, self._samples]))
        return mean_over_windows(outputs, windows, self._normalize)

    def example(self, rng):
        """A batch of two sounds, one and a half windows long."""
        return rng.uniform(-1, 1, [2, self._samples * 3 // 2]).astype(np.float32)


class VideoTower(tf.Module):
    """What is exported of the video tower: frames of any number and size to embeddings.

    Fewer frames than a window holds are padded by repeating the last one; more are cut into windows end to end, the last one
    padded likewise, and their outputs are averaged. Frames are cropped to the largest centred square and resized, as in
    evaluation; the frame rate is that of training.
    """

    name_of_input = 'frames'

    def __init__(self, tower, config):
        super().__init__(name='video_tower')
        self._tower, self._normalize = tower, config.towers.normalize == 'length'
        self._frames, self._size = config.clip.frames, config.clip.frame_size
        self.specification = tf.TensorSpec([None, None, None, None, 3], tf.uint8, self.name_of_input)

    def embed(self, frames):
        """uint8 [batch, frames, height, width, 3] -> dict of `embedding` [batch, D] and `features` [batch, C], float32."""
        count, height, width = tf.unstack(tf.shape(frames)[1:4])
        side = tf.minimum(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        windows = tf.maximum(-(-count // self._frames), 1)
        index = tf.minimum(tf.range(windows * self._frames), count - 1)
        frames = tf.gather(frames[:, :, top:top + side, left:left + side], index, axis=1)
        frames = tf.image.resize(tf.reshape(frames, [-1, side, side, 3]), [self._size, self._size])
        frames = tf.cast(tf.round(frames), tf.uint8)
        outputs = self._tower(tf.reshape(frames, [-1, self._frames, self._size, self._size, 3]), training=False)
        return mean_over_windows(outputs, windows, self._normalize)

    def example(self, rng):
        """A batch of two, one and a half windows long, of frames that must be cropped and resized."""
        return rng.integers(0, 256, [2, self._frames * 3 // 2, self._size + 9, self._size + 20, 3], dtype=np.uint8)


def mean_over_windows(outputs, windows, normalize):
    """Dict of [batch * windows, size] -> dict of [batch, size]; `embedding` is brought back to length 1 if `normalize`."""
    means = {name: tf.reduce_mean(tf.reshape(value, [-1, windows, value.shape[-1]]), 1) for name, value in outputs.items()}
    if normalize:
        means['embedding'] = tf.math.l2_normalize(means['embedding'], -1)
    return means


def export_towers(model, export_dir, say=print):
    """Exports both towers, each as `EXPORT_DIR/<tower>/<version>/`.

    The version is one higher than the highest there. A tower is written aside, loaded in a fresh process that imports only
    TensorFlow, compared with the Keras tower, and only then renamed.

    Args:
        model: `TwoTower`.
        export_dir: folder.
        say: function that shows a line of text.

    Returns:
        Dict from 'audio_tower' and 'video_tower' to the folder of the new version.

    Raises:
        UserError: the folder cannot be written.
        RuntimeError: the reloaded tower gives other values than the Keras tower.
    """
    paths = {}
    for tower in (AudioTower(model.audio_tower, model.config), VideoTower(model.video_tower, model.config)):
        folder = os.path.join(export_dir, tower.name)
        try:
            os.makedirs(folder, exist_ok=True)
            aside = tempfile.mkdtemp(prefix='.writing-', dir=folder)
        except OSError as error:
            raise UserError(f'--export_dir={export_dir}: cannot be written: {error.strerror}.') from None
        try:
            difference = _save_and_compare(tower, aside)
            os.chmod(aside, 0o755)  # mkdtemp makes it private; a server runs as somebody else
            path = os.path.join(folder, str(_next_version(folder)))
            os.rename(aside, path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        say(f'{path}: written, loaded in a fresh process, and its outputs equal those of the Keras tower '
            f'(greatest relative difference {difference:.1e}).')
        paths[tower.name] = path
    return paths


def _next_version(folder):
    return max((int(name) for name in os.listdir(folder) if name.isdigit()), default=0) + 1


def _save_and_compare(tower, path):
    """Saves a tower and returns the greatest relative difference of its outputs after reloading."""
    signature = tf.function(tower.embed, input_signature=[tower.specification])
    tf.saved_model.save(tower, path, signatures={'serving_default': signature})
    example = tower.example(np.random.default_rng(0))
    expected = {name: value.numpy() for name, value in tower.embed(tf.constant(example)).items()}
    with tempfile.TemporaryDirectory() as folder:
        example_path, output_path = os.path.join(folder, 'example.npy'), os.path.join(folder, 'outputs.npz')
        np.save(example_path, example)
        process = subprocess.run(
            [sys.executable, '-c', _RELOAD, os.path.abspath(path), tower.name_of_input, example_path, output_path],
            check=False, capture_output=True, text=True, cwd=folder)
        if process.returncode:
            raise RuntimeError(f'{path}: does not load in a process with only TensorFlow:\n{process.stderr[-2000:]}')
        with np.load(output_path) as outputs:
            differences = [np.abs(outputs[name] - value).max() / np.abs(value).max() for name, value in expected.items()]
    if not max(differences) < TOLERANCE:
        raise RuntimeError(f'{path}: outputs differ from the Keras tower by {max(differences):.1e} (relative).')
    return max(differences)


_RELOAD = '''
import sys
import numpy as np
import tensorflow as tf
path, name, example, output = sys.argv[1:]
signature = tf.saved_model.load(path).signatures['serving_default']
np.savez(output, **{key: value.numpy() for key, value in signature(**{name: tf.constant(np.load(example))}).items()})
'''
