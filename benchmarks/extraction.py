"""How fast audio files are embedded to .npz files, beside the audio net that openl3 publishes.

    python benchmarks/extraction.py

Both go through the code of --mode=features, at the same hop, on the same files, in turns: a
full-width audio tower of the default configuration (16 kHz, 1 s windows), and openl3's net of Look,
Listen and Learn (48 kHz, 1 s windows, a 257 x 199 log spectrogram, four blocks of two convolutions
with 64, 128, 256 and 512 channels), rebuilt here without its weights, which do not change the time.
A third side runs the tower alone, on windows that lie ready in memory: the difference is what
decoding, cutting and writing add.

Printed and written are medians over the rounds: hours of audio embedded per minute, the ratio of
both nets, and the part of the time that is not the model.
"""

import argparse
import math
import os
import statistics
import tempfile
import wave

import side_by_side

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import keras
import numpy as np
import tensorflow as tf

from avts_tf import build_two_tower, make_config
from avts_tf.inference.embed_files import find_inputs
from avts_tf.inference.export import export_towers
from avts_tf.inference.extract import extract_features
from avts_tf.inference.saved_towers import AudioFeatures, AudioTower, load_tower


class OpenL3Tower:
    """Has what `extract_features` needs of a tower, around openl3's net."""

    name, path, rate, window = AudioTower.name, 'openl3', 48000, 48000
    repeat_ends, result = False, AudioFeatures
    metadata = {'clip': {'frame_size': 0}, 'checksum': None}

    def __init__(self) -> None:
        net = openl3_net()
        self._call = tf.function(lambda pcm: net(openl3_spectrogram(pcm), training=False),
                                 input_signature=[tf.TensorSpec([None, self.window], tf.int16)])

    def run(self, windows: np.ndarray) -> dict[str, np.ndarray]:
        embedding = self._call(windows).numpy()
        return {'embedding': embedding, 'conv5': embedding}


def openl3_spectrogram(pcm: tf.Tensor) -> tf.Tensor:
    """int16 [batch, 48000] -> decibels below each window's greatest, [batch, 257, 199, 1]."""
    waveform = tf.pad(tf.cast(pcm, tf.float32) / 32768, [[0, 0], [214, 214]])
    # [batch, 199, 257]
    magnitude = tf.abs(tf.signal.stft(waveform, 512, 242, 512))
    decibels = 10 / math.log(10) * tf.math.log(tf.maximum(magnitude, 1e-10))
    decibels = tf.maximum(decibels - tf.reduce_max(decibels, [1, 2], keepdims=True), -80.0)
    return tf.transpose(decibels, [0, 2, 1])[..., None]


def openl3_net() -> keras.Model:
    """float32 [batch, 257, 199, 1] -> float32 [batch, 512]."""
    x = inputs = keras.Input([257, 199, 1])
    x = keras.layers.BatchNormalization()(x)
    for block, channels in enumerate((64, 128, 256, 512)):
        for part in range(2):
            x = keras.layers.Conv2D(channels, 3, padding='same')(x)
            if (block, part) != (3, 1):  # the last convolution is the embedding's
                x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
        if block < 3:
            x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.MaxPooling2D((32, 24), padding='same')(x)
    return keras.Model(inputs, keras.layers.Flatten()(x)[:, :512])


def make_sounds(folder: str, files: int, seconds: float) -> None:
    """Writes files of noise."""
    rng = np.random.default_rng(0)
    for i in range(files):
        with wave.open(os.path.join(folder, f'{i:03d}.wav'), 'wb') as file:
            file.setparams((1, 2, 44100, 0, 'NONE', ''))
            file.writeframes(rng.integers(-8000, 8000, round(seconds * 44100), np.int16).tobytes())


def measure(
    towers: dict, sources: list, hop_seconds: float, folder: str, values: argparse.Namespace
) -> dict:
    """Times both nets from files to files, and the tower alone."""
    # Rates are compared, so the slow side needs no more files than make its rate steady.
    inputs, seconds = {'avts': sources, 'openl3': sources[:values.openl3_files]}, {}

    def extract(name: str) -> None:
        seconds[name] = extract_features(
            inputs[name], os.path.join(folder, name), [towers[name]], hop_seconds=hop_seconds,
            batch_size=values.batch_size, overwrite=True)['seconds']

    extract('avts')  # warms up
    if 'openl3' in towers:
        towers['openl3'].run(np.zeros([values.batch_size, OpenL3Tower.window], np.int16))
    count = 0
    for source in sources:
        with np.load(os.path.join(folder, 'avts', f'{source.example_id}.npz')) as features:
            count += len(features['timestamps'])
    # As many windows as were cut from the files, from a pool that fits into memory; their content
    # does not matter.
    pool = np.random.default_rng(0).integers(
        -8000, 8000, [values.batch_size, towers['avts'].window], np.int16)

    def run_alone() -> None:
        for first in range(0, count, values.batch_size):
            towers['avts'].run(pool[:count - first])

    sides = {name: (lambda name=name: extract(name)) for name in towers}
    times = side_by_side.time_in_turns({**sides, 'model alone': run_alone}, values.rounds)
    medians = {name: statistics.median(found) for name, found in times.items()}
    rates = {name: seconds[name] / medians[name] / 60 for name in towers}
    figures = {
        'hop_seconds': hop_seconds, 'input_seconds': seconds, 'windows': count, 'seconds': times,
        'hours_per_minute': rates, 'not_the_model': 1 - medians['model alone'] / medians['avts'],
    }
    line = f'hop {hop_seconds:g} s, {count} windows: {rates["avts"]:.2f} h/min'
    if 'openl3' in towers:
        figures['ratio'] = rates['avts'] / rates['openl3']
        line += f'; openl3 {rates["openl3"]:.3f} h/min; ratio {figures["ratio"]:.1f}'
    print(f'{line}; not the model {100 * figures["not_the_model"]:.1f} %')
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--input', default='', help='folder of sounds; empty makes noise')
    parser.add_argument('--files', type=int, default=60, help='files to make')
    parser.add_argument('--seconds', type=float, default=60.0, help='length of each')
    parser.add_argument('--hop_seconds', type=float, nargs='+', default=[1.0],
                        help='steps between windows')
    parser.add_argument('--batch_size', type=int, default=32, help='windows in one call of a net')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--openl3_files', type=int, default=5,
                        help="files that openl3's net, which "
                        'is much slower, is timed on; 0 leaves it out')
    parser.add_argument('--json', default='benchmarks/extraction.json')
    values = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # The video tower goes unused: as small as it can be.
        model = build_two_tower(make_config('large', bfloat16=False, video_width=0.05,
                                            frame_size=16))
        path = export_towers(model, os.path.join(folder, 'models'))['audio_tower']
        towers = {'avts': load_tower(path)}
        if values.openl3_files:
            towers['openl3'] = OpenL3Tower()
        sounds = values.input
        if not sounds:
            sounds = os.path.join(folder, 'sounds')
            os.makedirs(sounds)
            make_sounds(sounds, values.files, values.seconds)
        sources = find_inputs([sounds])
        results = [measure(towers, sources, hop, folder, values) for hop in values.hop_seconds]
    side_by_side.write_json(values.json, {'extraction': results})


if __name__ == '__main__':
    main()
