"""How fast sound is embedded from files to .npz files, beside the audio net that openl3 publishes.

    python -m benchmarks.extraction --json=extraction.json

Both go through the code of --mode=features, at the same hop, on the same files, in turns: a full-width audio tower of the default
configuration (16 kHz, 1 s windows), and openl3's net of Look, Listen and Learn (48 kHz, 1 s windows, a 257 x 199 log spectrogram,
four blocks of two convolutions with 64, 128, 256 and 512 channels), rebuilt here without its weights, which do not change the
time. A third side runs the tower alone, on windows that lie ready in memory, to tell what decoding, cutting and writing add.

Printed and written are medians over the rounds: hours of sound embedded per minute, the ratio of both nets, and the part of the
time that is not the model.
"""

import json
import math
import os
import statistics
import tempfile
import time
import wave

import avts_tf  # noqa: F401  first, because it sets how TensorFlow runs

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging

from avts_tf import build_two_tower, make_config
from avts_tf.inference.export import export_towers
from avts_tf.inference.extraction import extract_features, find_inputs
from avts_tf.inference.features import AudioFeatures, AudioTower, load_tower

FLAGS = flags.FLAGS
flags.DEFINE_string('input', '', 'folder of sounds; empty makes noise in 44.1 kHz WAV files')
flags.DEFINE_integer('files', 60, 'files to make')
flags.DEFINE_float('seconds', 60.0, 'length of each, in seconds')
flags.DEFINE_list('hop_seconds', ['1.0'], 'steps between windows')
flags.DEFINE_integer('batch_size', 32, 'windows that go through a net at once')
flags.DEFINE_integer('rounds', 3, 'how often each side is timed')
flags.DEFINE_integer('openl3_files', 5, "files that openl3's net, which is so much slower, is timed on; 0 leaves it out")
flags.DEFINE_string('json', '', 'file to write the figures to')


class OpenL3Tower:
    """Has what `extract_features` needs of a tower, around openl3's net."""

    name, path, rate, window, repeat_ends, result = AudioTower.name, 'openl3', 48000, 48000, False, AudioFeatures
    metadata = {'clip': {'frame_size': 0}, 'checksum': None}

    def __init__(self):
        net = openl3_net()
        self._call = tf.function(lambda pcm: net(openl3_spectrogram(pcm), training=False),
                                 input_signature=[tf.TensorSpec([None, self.window], tf.int16)])

    def run(self, windows):
        embedding = self._call(windows).numpy()
        return {'embedding': embedding, 'conv5': embedding}


def openl3_spectrogram(pcm):
    """int16 [batch, 48000] -> float32 [batch, 257, 199, 1], in decibels below the greatest value of each window."""
    waveform = tf.pad(tf.cast(pcm, tf.float32) / 32768, [[0, 0], [214, 214]])
    magnitude = tf.abs(tf.signal.stft(waveform, 512, 242, 512))                    # [batch, 199, 257]
    decibels = 10 / math.log(10) * tf.math.log(tf.maximum(magnitude, 1e-10))
    decibels = tf.maximum(decibels - tf.reduce_max(decibels, [1, 2], keepdims=True), -80.0)
    return tf.transpose(decibels, [0, 2, 1])[..., None]


def openl3_net():
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


def make_sounds(folder, files, seconds):
    rng = np.random.default_rng(0)
    for i in range(files):
        with wave.open(os.path.join(folder, f'{i:03d}.wav'), 'wb') as file:
            file.setparams((1, 2, 44100, 0, 'NONE', ''))
            file.writeframes(rng.integers(-8000, 8000, round(seconds * 44100), np.int16).tobytes())


def timed(function):
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def measure(towers, sources, hop_seconds, folder):
    """Times both nets from files to files, and the tower alone; returns a dict of figures."""
    # Rates are compared, so the slow side needs no more files than make its rate steady.
    inputs = {'avts': sources, 'openl3': sources[:FLAGS.openl3_files]}
    sides, seconds = {name: [] for name in [*towers, 'model alone']}, {}

    def extract(name):
        seconds[name] = extract_features(inputs[name], os.path.join(folder, name), [towers[name]], hop_seconds=hop_seconds,
                                         batch_size=FLAGS.batch_size, overwrite=True)['seconds']

    extract('avts')  # warms up
    if 'openl3' in towers:
        towers['openl3'].run(np.zeros([FLAGS.batch_size, OpenL3Tower.window], np.int16))
    count = 0
    for source in sources:
        with np.load(os.path.join(folder, 'avts', f'{source.example_id}.npz')) as features:
            count += len(features['timestamps'])
    # As many windows as were cut from the files, from a pool that fits into memory; their content does not matter.
    pool = np.random.default_rng(0).integers(-8000, 8000, [FLAGS.batch_size, towers['avts'].window], np.int16)

    def run_alone():
        for first in range(0, count, FLAGS.batch_size):
            towers['avts'].run(pool[:count - first])

    for _ in range(FLAGS.rounds):
        for name in towers:
            sides[name].append(timed(lambda name=name: extract(name)))
        sides['model alone'].append(timed(run_alone))
    medians = {name: statistics.median(times) for name, times in sides.items()}
    hours_per_minute = {name: seconds[name] / medians[name] / 60 for name in towers}
    figures = {
        'hop_seconds': hop_seconds, 'input_seconds': seconds, 'windows': count, 'seconds': sides,
        'hours_per_minute': hours_per_minute, 'not_the_model': 1 - medians['model alone'] / medians['avts'],
    }
    if 'openl3' in towers:
        figures['ratio'] = hours_per_minute['avts'] / hours_per_minute['openl3']
    return figures


def main(argv):
    del argv
    logging.set_verbosity(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        # The video tower goes unused: as small as it can be.
        model = build_two_tower(make_config('large', bfloat16=False, video_width=0.05, frame_size=16))
        towers = {'avts': load_tower(export_towers(model, os.path.join(folder, 'models'), say=lambda line: None)['audio_tower'])}
        if FLAGS.openl3_files:
            towers['openl3'] = OpenL3Tower()
        sounds = FLAGS.input
        if not sounds:
            sounds = os.path.join(folder, 'sounds')
            os.makedirs(sounds)
            make_sounds(sounds, FLAGS.files, FLAGS.seconds)
        sources = find_inputs([sounds])
        results = []
        for hop_seconds in map(float, FLAGS.hop_seconds):
            results.append(measure(towers, sources, hop_seconds, folder))
            figures = results[-1]
            line = f'hop {hop_seconds:g} s, {figures["windows"]} windows: {figures["hours_per_minute"]["avts"]:.2f} h/min'
            if 'ratio' in figures:
                line += f'; openl3 {figures["hours_per_minute"]["openl3"]:.3f} h/min; ratio {figures["ratio"]:.1f}'
            print(f'{line}; not the model {100 * figures["not_the_model"]:.1f} %')
        if FLAGS.json:
            with open(FLAGS.json, 'w') as file:
                json.dump({'processors': os.cpu_count(), 'results': results}, file, indent=2)


if __name__ == '__main__':
    app.run(main)
