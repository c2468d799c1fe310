"""What is exported, seen from a process that knows nothing of this project, and from one that trains it further."""

import contextlib
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import types

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import scipy.signal
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from avts_tf import UserError, build_two_tower, make_config
from avts_tf.data import images
from avts_tf.inference import export
from avts_tf.models.audio import build_audio_tower
from avts_tf.training.checkpoints import write_checkpoint
from tests.helpers import ROOT

GOLDENS = ROOT / 'tests' / 'goldens'
README = ROOT / 'saved_models' / 'README.md'

# Calls every input file with its signature, on one thread, while tests in this process use all; imports of the project must
# fail here. At last it replays the warm-up requests, for which alone the serving protocol is imported.
CLIENT = '''
import json, os, sys
import numpy as np
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
folder, paths = sys.argv[1], json.loads(sys.argv[2])
assert not any(os.path.exists(os.path.join(path, 'avts_tf')) for path in sys.path)
towers = {name: tf.saved_model.load(path) for name, path in paths.items()}
words = {'signatures': {}, 'warmup': {}}
for tower, loaded in towers.items():
    words['signatures'][tower] = {
        name: {kind: {key: [item.dtype.name, item.shape.as_list()] for key, item in items.items()}
               for kind, items in (('inputs', function.structured_input_signature[1]), ('outputs', function.structured_outputs))}
        for name, function in loaded.signatures.items()}
for name in sorted(os.listdir(folder)):
    tower, signature, _ = name.split('-', 2)
    with np.load(os.path.join(folder, name), allow_pickle=True) as inputs:
        outputs = towers[tower].signatures[signature](**{key: tf.constant(value) for key, value in inputs.items()})
    np.savez(os.path.join(folder, name[:-4] + '-out.npz'), **outputs)
assert 'avts_tf' not in sys.modules and 'tensorflow_serving' not in sys.modules

from tensorflow_serving.apis import prediction_log_pb2
for tower, path in paths.items():
    for record in tf.data.TFRecordDataset(os.path.join(path, 'assets.extra', 'tf_serving_warmup_requests')):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        assert request.model_spec.name == tower
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        outputs = towers[tower].signatures[request.model_spec.signature_name](**inputs)
        finite = all(bool(tf.reduce_all(tf.math.is_finite(value))) for value in outputs.values())
        words['warmup'].setdefault(tower, {})[request.model_spec.signature_name] = finite
print(json.dumps(words))
'''


def small_model(**overrides):
    """A pair of towers whose variables come from a generator that never changes: the same on every machine, for good."""
    model = build_two_tower(small_config(**overrides))
    fill(model.audio_tower)
    fill(model.video_tower)
    return model


def small_config(**overrides):
    return make_config('tiny', **{
        'frames': 12, 'fps': 25.0, 'frame_size': 16, 'sample_rate': 16000, 'video_tower': 'mc3', 'video_width': 0.0625,
        'audio_width': 0.0625, 'embedding_size': 16, 'head': 'spans', 'head_spans': 4, 'normalize': 'length',
        'audio_windows': 2, 'bfloat16': False, **overrides})


def fill(tower):
    """Gives every variable a value that it might have after training."""
    rng = np.random.RandomState(0)
    for variable in tower.variables:
        if variable.name in ('moving_variance', 'gamma'):
            value = rng.uniform(0.5, 2.0, variable.shape)
        elif variable.name == 'mean':
            value = rng.uniform(-4.0, -2.0, variable.shape)
        elif variable.name == 'deviation':
            value = rng.uniform(1.0, 2.0, variable.shape)
        elif variable.name in ('moving_mean', 'beta', 'bias'):
            value = rng.normal(0.0, 0.3, variable.shape)
        else:
            value = rng.normal(0.0, (2.0 / math.prod(variable.shape[:-1]))**0.5, variable.shape)
        variable.assign(value)


def small_audio_tower(config):
    tower = build_audio_tower(config)
    fill(tower)
    return tower


def random_sounds(batch, samples):
    rng = np.random.default_rng(batch)
    loudness = np.repeat(rng.uniform(0.01, 0.9, [batch, -(-samples // 800)]), 800, axis=1)[:, :samples]
    return (rng.uniform(-32768, 32767, [batch, samples]) * loudness).astype(np.int16)


def floats(sounds):
    """Every int16 sample is a float32 exactly."""
    return (sounds / 32768).astype(np.float32)


def random_frames(batch, frames, height, width):
    rng = np.random.default_rng(frames)
    brightness = rng.uniform(0.2, 1.0, [batch, frames, 1, 1, 1])
    return (rng.integers(0, 256, [batch, frames, height, width, 3]) * brightness).astype(np.uint8)


def formula_sounds(samples, rate=16000):
    """Sounds that formulas make: dict from a name to float32 [samples]."""
    seconds = np.arange(samples) / rate
    sounds = {
        'tone': 0.5 * np.sin(2 * np.pi * 440 * seconds),
        'chord': sum(0.2 * np.sin(2 * np.pi * hertz * seconds) for hertz in (220, 1320, 5000)),
        'clicks': np.where(np.arange(samples) % 1601 == 0, 0.9, 0.0),
        'noise': np.random.RandomState(1).uniform(-0.3, 0.3, samples),
        'chirp': 0.7 * np.sin(2 * np.pi * (100 * seconds + 4000 * seconds**2)),
        'silence': np.zeros(samples),
        'constant': np.full(samples, 0.5),
        'clipped': 3.0 * np.sin(2 * np.pi * 300 * seconds),
    }
    return {name: sound.astype(np.float32) for name, sound in sounds.items()}


def formula_frames(frames, height, width):
    """A bright disc on its way over coloured ground, and a chequerboard that blinks: uint8 [2, frames, height, width, 3]."""
    time, y, x = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing='ij')
    disc = (y - height / 2)**2 + (x - 2 * time)**2 < (height / 4)**2
    moving = np.where(disc[..., None], [250, 200, 40], np.stack([10 * y % 90, 5 * x % 70, 60 + 0 * x], -1))
    blinking = np.stack([((y // 4 + x // 4 + time // 3) % 2) * level for level in (255, 120, 30)], -1)
    return np.stack([moving, blinking]).astype(np.uint8)


def as_jpegs(frames):
    """uint8 [batch, frames, height, width, 3] -> array of bytes [batch, frames]."""
    return np.array([[tf.io.encode_jpeg(frame, quality=95).numpy() for frame in clip] for clip in frames], object)


@pytest.fixture(scope='module')
def served(tmp_path_factory):
    """(model, inputs, outputs that a client got of them, the client's words, paths of the towers).

    Inputs and outputs are dicts from `tower-signature-case` to dicts of arrays.
    """
    folder, export_dir = tmp_path_factory.mktemp('client'), tmp_path_factory.mktemp('exported') / 'saved_models'
    model = small_model()
    lines = []
    with contextlib.chdir(export_dir.parent):               # a relative folder, as the command line has it
        exported = export.export_towers(model, export_dir.name, say=lines.append, training={'epochs': 3})
    paths = {name: str(export_dir.parent / path) for name, path in exported.items()}
    assert len(lines) == 2
    window, frames = model.config.clip.window_samples, model.config.clip.frames
    sounds, pictures = random_sounds(3, 3 * window), random_frames(3, 3 * frames, 16, 16)
    cases = {'window': window, 'short': window // 3, 'sample': 1, 'long': 3 * window, 'ragged': 2 * window + 1000}
    inputs = {f'audio_tower-serving_default-{name}': {'waveform': floats(sounds[:, :samples])} for name, samples in cases.items()}
    inputs |= {f'audio_tower-pcm-{name}': {'waveform': sounds[:, :samples]} for name, samples in cases.items()}
    inputs['audio_tower-serving_default-one'] = {'waveform': floats(sounds[:1, :window])}
    # More examples than go through the network at once, of two windows each, the second one short.
    inputs['audio_tower-pcm-crowd'] = {'waveform': random_sounds(45, window + 700)}
    inputs['audio_tower-window-many'] = {'waveform': floats(random_sounds(20, window))}
    inputs['audio_tower-window-one'] = {'waveform': floats(sounds[:1, :window])}
    inputs['audio_tower-at_rate-long'] = {'waveform': floats(sounds), 'sample_rate': np.int32(16000)}
    # 0.02 s over 3 s are more windows than go through the network at once, 1 / 3 s is no number of samples.
    hops = {'often': (random_sounds(2, 48001), 0.02), 'thirds': (sounds, 1 / 3), 'tenths': (sounds[:, :window * 2 + 1000], 0.1),
            'apart': (random_sounds(1, 5 * window), 0.7), 'beyond': (sounds[:, :window + 5], 2.0), 'short': (sounds[:, :99], 0.1)}
    inputs |= {f'audio_tower-windows-{name}': {'waveform': floats(sound), 'hop_seconds': np.float32(hop)}
               for name, (sound, hop) in hops.items()}
    inputs['audio_tower-serving_default-golden'] = {'waveform': np.stack(list(formula_sounds(window * 3 // 2).values()))}
    inputs['audio_tower-windows-golden'] = {'waveform': formula_sounds(16000)['chirp'][None], 'hop_seconds': np.float32(0.1)}
    cases = {'window': pictures[:, :frames], 'one': pictures[:1, :frames], 'short': pictures[:, :5], 'single': pictures[:, :1],
             'long': pictures, 'ragged': pictures[:, :frames * 2 + 3], 'many': random_frames(1, 9 * frames, 16, 16),
             'wide': random_frames(2, frames, 24, 41), 'tall': random_frames(2, frames, 37, 12),
             'golden': formula_frames(frames + 3, 24, 36)}
    inputs |= {f'video_tower-serving_default-{name}': {'frames': value} for name, value in cases.items()}
    inputs['video_tower-serving_default-crowd'] = {'frames': np.stack([np.roll(pictures[0, :frames + 2], i, 0) for i in range(6)])}
    inputs['video_tower-window-many'] = {'frames': random_frames(6, frames, 16, 16)}
    inputs['video_tower-window-one'] = {'frames': pictures[:1, :frames]}
    inputs |= {f'video_tower-jpeg-{name}': {'frames': as_jpegs(cases[name])} for name in ('single', 'ragged', 'wide', 'golden')}
    mixed = np.concatenate([as_jpegs(random_frames(1, 3, 40, 20)), as_jpegs(random_frames(1, 3, 16, 16))])
    inputs['video_tower-jpeg-mixed'] = {'frames': mixed}
    for name, value in inputs.items():
        np.savez(folder / f'{name}.npz', **value)
    words = run_client(folder, paths)
    outputs = {name: dict(np.load(folder / f'{name}-out.npz')) for name in inputs}
    return model, inputs, outputs, words, paths


@pytest.fixture(scope='module')
def loaded(served):
    """Dict from 'audio_tower' and 'video_tower' to the loaded object, which no test changes."""
    return {name: tf.saved_model.load(path) for name, path in served[4].items()}


def run_client(folder, paths):
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    process = subprocess.run([sys.executable, '-c', CLIENT, str(folder), json.dumps(paths)], capture_output=True, text=True,
                             check=False, cwd=folder, env={**environment, 'TF_CPP_MIN_LOG_LEVEL': '3'})
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout)


def relative_error(got, expected):
    assert got.shape == expected.shape and got.dtype == np.float32
    return np.abs(got - expected).max() / np.abs(expected).max()


def check(got, expected):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        # Another batch size may take another order of sums: float32 rounding through some twenty layers.
        assert relative_error(got[name], np.asarray(value)) < 1e-4, name


def keras_outputs(tower, windows):
    return {name: value.numpy() for name, value in tower(windows).items()}


def average(outputs):
    """Mean of the outputs of several windows; embeddings back to length 1."""
    means = {name: np.mean([output[name] for output in outputs], axis=0) for name in outputs[0]}
    means['embedding'] /= np.linalg.norm(means['embedding'], axis=-1, keepdims=True)
    return means


def test_signatures_are_what_the_metadata_states(served, loaded):
    words = served[3]['signatures']
    assert {tower: list(names) for tower, names in words.items()} == {
        'audio_tower': ['serving_default', 'windows', 'pcm', 'at_rate', 'window'],
        'video_tower': ['serving_default', 'jpeg', 'window']}
    for tower, signatures in words.items():
        stated = read_metadata(loaded[tower])['signatures']
        assert stated.keys() == signatures.keys()
        for name, signature in signatures.items():
            for kind, items in signature.items():
                assert {key: [item['dtype'], item['shape']] for key, item in stated[name][kind].items()} == items
    assert words['audio_tower']['window']['inputs'] == {'waveform': ['float32', [None, 7680]]}
    assert words['video_tower']['window']['inputs'] == {'frames': ['uint8', [None, 12, 16, 16, 3]]}
    assert words['audio_tower']['windows']['outputs'] == {
        'embedding': ['float32', [None, None, 16]], 'conv5': ['float32', [None, None, 16]], 'timestamps': ['float32', [None]]}


def test_warmup_requests_are_answered(served):
    assert served[3]['warmup'] == {'audio_tower': dict.fromkeys(['serving_default', 'windows', 'pcm', 'at_rate', 'window'], True),
                                   'video_tower': dict.fromkeys(['serving_default', 'jpeg', 'window'], True)}


def test_goldens(served, request):
    """Values of other processes, threads and versions; renewed by `pytest --update_goldens`.

    The tolerance is for another order of float32 sums: 1e-4 of the greatest value of each output.
    """
    _, _, outputs, _, _ = served
    cases = {name: outputs[name] for name in outputs if name.endswith('-golden')}
    if request.config.getoption('update_goldens'):
        GOLDENS.mkdir(exist_ok=True)
        for name, value in cases.items():
            np.savez_compressed(GOLDENS / f'{name.removesuffix("-golden")}.npz', **value)
    for name, value in cases.items():
        with np.load(GOLDENS / f'{name.removesuffix("-golden")}.npz') as golden:
            check(value, dict(golden))


def test_all_threads_give_the_goldens_too(served, loaded):
    for name, inputs in served[1].items():
        if name.endswith('-golden'):
            tower, signature, _ = name.split('-')
            with np.load(GOLDENS / f'{tower}-{signature}.npz') as golden:
                check(call(loaded[tower].signatures[signature], **inputs), dict(golden))


def call(function, **inputs):
    return {name: value.numpy() for name, value in function(**{key: tf.constant(item) for key, item in inputs.items()}).items()}


@pytest.mark.parametrize('tower', ['audio_tower', 'video_tower'])
def test_one_window_equals_keras(served, tower):
    model, inputs, outputs, _, _ = served
    name = f'{tower}-serving_default'
    # What the Keras tower makes of integers is the oracle of the floats.
    window = inputs['audio_tower-pcm-window']['waveform'] if tower == 'audio_tower' else inputs[f'{name}-window']['frames']
    expected = keras_outputs(getattr(model, tower), window)
    check(outputs[f'{name}-window'], expected)
    check(outputs[f'{name}-one'], {name: value[:1] for name, value in expected.items()})
    # Three inputs give three outputs, further apart than the tolerance by far.
    for value in expected.values():
        assert relative_error(value[0], value[1]) > 1e-2 and relative_error(value[1], value[2]) > 1e-2


def test_short_sounds_are_padded_with_silence(served):
    model, inputs, outputs, _, _ = served
    for case in ('short', 'sample'):
        sounds = inputs[f'audio_tower-pcm-{case}']['waveform']
        padded = np.pad(sounds, [[0, 0], [0, model.config.clip.window_samples - sounds.shape[1]]])
        check(outputs[f'audio_tower-serving_default-{case}'], keras_outputs(model.audio_tower, padded))


def test_long_sounds_are_averaged_over_windows(served):
    model, inputs, outputs, _, _ = served
    window = model.config.clip.window_samples
    for case in ('long', 'ragged'):
        sounds = inputs[f'audio_tower-pcm-{case}']['waveform']
        padded = np.pad(sounds, [[0, 0], [0, -sounds.shape[1] % window]])
        assert padded.shape[1] == 3 * window
        check(outputs[f'audio_tower-serving_default-{case}'],
              average([keras_outputs(model.audio_tower, part) for part in np.split(padded, 3, axis=1)]))


def test_many_examples_are_each_what_they_are_alone(served, loaded):
    for name, argument in (('audio_tower-pcm-crowd', 'waveform'), ('video_tower-serving_default-crowd', 'frames')):
        tower, signature, _ = name.split('-')
        inputs, outputs = served[1][name][argument], served[2][name]
        for i in (0, 3, len(inputs) - 1):
            alone = call(loaded[tower].signatures[signature], **{argument: inputs[i:i + 1]})
            check({key: value[i:i + 1] for key, value in outputs.items()}, alone)


def test_a_window_has_the_same_outputs_by_other_operations(served, loaded):
    for name, argument in (('audio_tower', 'waveform'), ('video_tower', 'frames')):
        for case in ('many', 'one'):
            windows, got = served[1][f'{name}-window-{case}'][argument], served[2][f'{name}-window-{case}']
            expected = call(loaded[name].signatures['serving_default'], **{argument: windows})
            assert got.keys() == expected.keys()
            for key, value in expected.items():
                assert relative_error(got[key], value) < 1e-5, (name, case, key)


def test_integers_and_the_own_rate_give_the_same(served):
    _, _, outputs, _, _ = served
    for case in ('window', 'short', 'sample', 'long', 'ragged'):
        check(outputs[f'audio_tower-pcm-{case}'], outputs[f'audio_tower-serving_default-{case}'])
    check(outputs['audio_tower-at_rate-long'], outputs['audio_tower-serving_default-long'])


@pytest.mark.parametrize('case', ['often', 'thirds', 'tenths', 'apart', 'beyond', 'short'])
def test_windows_lie_where_they_should(served, case):
    model, inputs, outputs, _, _ = served
    window, rate = model.config.clip.window_samples, model.config.clip.sample_rate
    waveform, hop = inputs[f'audio_tower-windows-{case}']['waveform'], float(inputs[f'audio_tower-windows-{case}']['hop_seconds'])
    samples, hop = waveform.shape[1], round(hop, 6) * rate
    count = 1 + math.ceil(max(0, samples - window) / hop)
    count = 1 if case == 'beyond' else count                # a second window would start after the end
    starts = [round(i * hop) for i in range(count)]
    padded = np.pad(waveform, [[0, 0], [0, starts[-1] + window]])
    cut = np.stack([padded[:, start:start + window] for start in starts], 1)         # [batch, windows, samples]
    expected = keras_outputs(model.audio_tower, np.round(cut.reshape(-1, window) * 32768).astype(np.int16))
    expected = {name: value.reshape(*cut.shape[:2], -1) for name, value in expected.items()}
    expected['timestamps'] = np.array([(start + window / 2) / rate for start in starts])
    check(outputs[f'audio_tower-windows-{case}'], expected)
    assert starts[-1] < samples and (case == 'beyond' or starts[-1] + window >= samples)


def test_few_frames_are_padded_with_the_last(served):
    model, inputs, outputs, _, _ = served
    for case in ('short', 'single'):
        frames = inputs[f'video_tower-serving_default-{case}']['frames']
        padded = np.concatenate([frames, *[frames[:, -1:]] * (model.config.clip.frames - frames.shape[1])], axis=1)
        check(outputs[f'video_tower-serving_default-{case}'], keras_outputs(model.video_tower, padded))


def test_many_frames_are_averaged_over_windows(served):
    model, inputs, outputs, _, _ = served
    for case in ('long', 'ragged', 'many'):                 # 9 windows are more than go through the network at once
        frames = inputs[f'video_tower-serving_default-{case}']['frames']
        padded = np.concatenate([frames, *[frames[:, -1:]] * (-frames.shape[1] % model.config.clip.frames)], axis=1)
        parts = np.split(padded, 9 if case == 'many' else 3, axis=1)
        check(outputs[f'video_tower-serving_default-{case}'], average([keras_outputs(model.video_tower, part) for part in parts]))


def test_frames_of_other_sizes_are_cropped_and_resized(served):
    model, inputs, outputs, _, _ = served
    wide, tall = (inputs[f'video_tower-serving_default-{name}']['frames'] for name in ('wide', 'tall'))
    for name, square in (('wide', wide[:, :, :, 8:32]), ('tall', tall[:, :, 12:24])):
        side = square.shape[2]
        resized = tf.image.resize(square.reshape(-1, side, side, 3), [16, 16])
        frames = np.round(resized.numpy()).astype(np.uint8).reshape(2, -1, 16, 16, 3)
        check(outputs[f'video_tower-serving_default-{name}'], keras_outputs(model.video_tower, frames))


def test_jpegs_equal_their_pixels(served, loaded):
    """The oracle of JPEGs is the signature of pixels; of those that must be cropped, the pipeline of evaluation."""
    model, inputs, outputs, _, _ = served
    for case in ('single', 'ragged'):
        jpegs = inputs[f'video_tower-jpeg-{case}']['frames']
        frames = np.array([[tf.io.decode_jpeg(jpeg, channels=3).numpy() for jpeg in clip] for clip in jpegs])
        check(outputs[f'video_tower-jpeg-{case}'], call(loaded['video_tower'].signatures['serving_default'], frames=frames))
    clips = [images.decode_window(tf.constant(clip), model.config, seed=None) for clip in inputs['video_tower-jpeg-wide']['frames']]
    check(outputs['video_tower-jpeg-wide'], keras_outputs(model.video_tower, tf.stack(clips)))
    jpegs = inputs['video_tower-jpeg-mixed']['frames']       # the clips of a batch may differ in size
    parts = [call(loaded['video_tower'].signatures['jpeg'], frames=jpegs[i:i + 1]) for i in range(2)]
    check(outputs['video_tower-jpeg-mixed'], {name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def test_awkward_sounds_have_a_defined_answer(served, loaded):
    signature = loaded['audio_tower'].signatures['serving_default']
    sounds = formula_sounds(9000)
    outputs = {name: call(signature, waveform=sound[None]) for name, sound in sounds.items()}
    for value in outputs.values():
        assert np.linalg.norm(value['embedding'][0]) == pytest.approx(1.0, abs=1e-5) and np.isfinite(value['conv5']).all()
    check(outputs['clipped'], call(signature, waveform=np.clip(sounds['clipped'], -1, 1)[None]))


def claim(jpeg, height, width):
    """A JPEG file whose header states another size."""
    place = jpeg.index(b'\xff\xc0') + 5
    return jpeg[:place] + height.to_bytes(2) + width.to_bytes(2) + jpeg[place + 4:]


ERRORS = [
    ('audio_tower', 'serving_default', {'waveform': np.zeros([2, 0], np.float32)}, 'waveform: no samples'),
    ('audio_tower', 'serving_default', {'waveform': np.zeros([0, 9000], np.float32)}, 'waveform: an empty batch'),
    ('audio_tower', 'pcm', {'waveform': np.zeros([1, 0], np.int16)}, 'waveform: no samples'),
    ('audio_tower', 'serving_default', {'waveform': np.array([[0.1, np.nan, 0.2]], np.float32)}, 'waveform: NaN or infinite'),
    ('audio_tower', 'windows', {'waveform': np.array([[0.1, -np.inf]], np.float32), 'hop_seconds': np.float32(1)},
     'waveform: NaN or infinite'),
    ('audio_tower', 'serving_default', {'waveform': np.array([[1000, -2000]], np.float32)}, r'\[-1, 1\], these reach 2000.*pcm'),
    ('audio_tower', 'at_rate', {'waveform': np.zeros([1, 9000], np.float32), 'sample_rate': np.int32(44100)},
     'this tower takes sound of 16000 Hz, not 44100 Hz'),
    *(('audio_tower', 'windows', {'waveform': np.zeros([1, 9000], np.float32), 'hop_seconds': np.float32(hop)},
       'hop_seconds: must lie between') for hop in (0.0, -1.0, 6e-5, 3601.0, np.nan, np.inf)),
    ('audio_tower', 'serving_default', {'waveform': np.zeros([16385, 1], np.float32)},
     'waveform: 16385 windows in one request, .* at most 16384'),
    ('audio_tower', 'pcm', {'waveform': np.zeros([2**21, 1], np.int16)}, 'waveform: 2097152 windows'),
    ('audio_tower', 'windows', {'waveform': np.zeros([1, 2**20], np.float32), 'hop_seconds': np.float32(1 / 16000)},
     'waveform: 1032636 windows'),
    ('audio_tower', 'window', {'waveform': np.zeros([65, 7680], np.float32)}, 'with at most 64 examples'),
    ('video_tower', 'serving_default', {'frames': np.zeros([2049, 1, 1, 1, 3], np.uint8)},
     'frames: 2049 windows in one request, .* at most 2048'),
    ('video_tower', 'serving_default', {'frames': np.zeros([1, 10**6, 1, 1, 3], np.uint8)}, 'frames: 83334 windows'),
    ('video_tower', 'window', {'frames': np.zeros([9, 12, 16, 16, 3], np.uint8)}, 'with at most 8 examples'),
    ('video_tower', 'jpeg', {'frames': np.full([2, 12 * 1025], b'\xff\xd8')}, 'frames: 2050 windows'),
    ('video_tower', 'jpeg', {'frames': [[claim(as_jpegs(np.zeros([1, 1, 8, 8, 3], np.uint8))[0, 0], 8193, 8192)]]},
     f'frames: a JPEG has more than {images.MAX_PIXELS} pixels'),
    ('video_tower', 'serving_default', {'frames': np.zeros([1, 0, 9, 9, 3], np.uint8)}, 'frames: no frames'),
    ('video_tower', 'serving_default', {'frames': np.zeros([0, 3, 9, 9, 3], np.uint8)}, 'frames: an empty batch'),
    ('video_tower', 'serving_default', {'frames': np.zeros([1, 3, 0, 9, 3], np.uint8)}, 'frames: height or width is 0'),
    ('video_tower', 'jpeg', {'frames': np.zeros([1, 0], 'S1')}, 'frames: no frames'),
    ('video_tower', 'jpeg', {'frames': np.array([[b'']])}, 'frames: each must be the bytes of a JPEG file'),
    ('video_tower', 'jpeg', {'frames': np.array([[tf.io.encode_png(np.zeros([9, 9, 3], np.uint8)).numpy()]], object)},
     'frames: each must be the bytes of a JPEG file'),
    ('video_tower', 'jpeg', {'frames': np.array([[as_jpegs(np.zeros([1, 1, 64, 64, 3], np.uint8))[0, 0][:300]]], object)},
     'Invalid JPEG data'),
]


@pytest.mark.parametrize(('tower', 'signature', 'inputs', 'words'), ERRORS)
def test_mistakes_are_named(loaded, tower, signature, inputs, words):
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        call(loaded[tower].signatures[signature], **inputs)


def test_wrong_ranks_are_named_by_a_server(served):
    """As a server runs it: in a session, which lets shapes pass that Python refuses."""
    cases = [
        ('audio_tower', 'serving_default', {'waveform': np.zeros([9000], np.float32)}, 'waveform: must be .* not of rank 1'),
        ('audio_tower', 'pcm', {'waveform': np.zeros([1, 9000, 1], np.int16)}, 'waveform: must be .* not of rank 3'),
        ('audio_tower', 'windows', {'waveform': np.zeros([1, 9000], np.float32), 'hop_seconds': np.float32([1])},
         'hop_seconds: must be .* not of rank 1'),
        ('audio_tower', 'at_rate', {'waveform': np.zeros([1, 9000], np.float32), 'sample_rate': np.int32([1])},
         'sample_rate: must be .* not of rank 1'),
        ('audio_tower', 'serving_default', {'waveform': np.full([1, 9000], np.nan, np.float32)}, 'NaN'),
        ('audio_tower', 'window', {'waveform': np.zeros([1, 9000], np.float32)}, r'waveform: must be \[batch, 7680\]'),
        ('audio_tower', 'window', {'waveform': np.zeros([7680], np.float32)}, r'waveform: must be \[batch, 7680\]'),
        ('video_tower', 'window', {'frames': np.zeros([1, 12, 9, 9, 3], np.uint8)}, r'frames: must be \[batch, 12, 16, 16, 3\]'),
        ('video_tower', 'serving_default', {'frames': np.zeros([3, 9, 9, 3], np.uint8)}, 'frames: must be .* not of rank 4'),
        ('video_tower', 'serving_default', {'frames': np.zeros([1, 3, 9, 9, 1], np.uint8)}, 'frames: must have 3 channels'),
        ('video_tower', 'jpeg', {'frames': np.array([b'x'], object)}, 'frames: must be .* not of rank 1'),
    ]
    for tower, path in served[4].items():
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            signatures = tf.compat.v1.saved_model.load(session, ['serve'], path).signature_def
            for name, signature, inputs, words in cases:
                if name == tower:
                    definition = signatures[signature]
                    options = config_pb2.CallableOptions(feed=[definition.inputs[key].name for key in inputs],
                                                         fetch=[definition.outputs['embedding'].name])
                    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
                        session._make_callable_from_options(options)(*inputs.values())


def read_metadata(tower):
    with open(tower.metadata.asset_path.numpy()) as file:
        return json.load(file)


def test_metadata_and_checksum(served, loaded, tmp_path):
    model, _, _, _, paths = served
    metadata = {name: read_metadata(tower) for name, tower in loaded.items()}
    for name, values in metadata.items():
        assert values['tower'] == name and values['tensorflow_version'] == tf.__version__
        assert values['clip']['window_samples'] == 7680 and values['clip']['window_seconds'] == 0.48
        assert values['sample_rate'] == 16000 and values['embedding_size'] == 16 and values['unit_length'] is True
        assert values['config'] == json.loads(model.config.to_json()) and values['training'] == {'epochs': 3}
        assert values['resampling'] is None
        # The same weights have the same checksum, before and after; others have another.
        assert export.checksum(loaded[name].variables) == values['checksum']
        assert export.checksum([variable.value for variable in getattr(model, name).variables]) == values['checksum']
        assert export.checksum(loaded[name].variables[::-1]) != values['checksum']
    assert metadata['audio_tower']['feature_sizes'] == {'conv5': 16}
    assert metadata['video_tower']['feature_sizes'] == {'features': 32}
    shutil.copytree(paths['audio_tower'], tmp_path / 'moved')
    moved = tf.saved_model.load(str(tmp_path / 'moved'))
    assert os.path.dirname(moved.metadata.asset_path.numpy().decode()) == str(tmp_path / 'moved' / 'assets')
    assert read_metadata(moved) == metadata['audio_tower']


def test_a_run_is_described_without_the_paths_of_this_machine(tmp_path):
    run, data = tmp_path / 'run', tmp_path / 'private' / 'data'
    (run / 'checkpoints').mkdir(parents=True)
    data.mkdir(parents=True)
    write_checkpoint(str(run / 'checkpoints' / 'epoch-0007-step-000000.npz'), {}, {})
    inputs = {'records': f'{data}/a-*-of-*, {data}/b-*', 'eval_records': f'{data}/gone-*'}
    (run / 'config.json').write_text(json.dumps({**json.loads(make_config('tiny').to_json()), 'inputs': inputs}))
    results = {'sync': {'threshold': 0.8, 'measured_on': f'{data}/gone-*'}, 'exported': {'audio_tower': f'{run}/1'},
               'training': {'skipped_records': {'lost': {'times': 1, 'first': [f'{data}/a-00000-of-00001', 'folder/clip']}}}}
    (run / 'result.json').write_text(json.dumps(results))
    for name, count in (('a-00000-of-00002', 2), ('a-00001-of-00002', 1), ('b-00000-of-00001', 4)):
        with tf.io.TFRecordWriter(str(data / name)) as writer:
            for _ in range(count):
                writer.write(b'record')
    (data / 'a.json').write_text('{"dataset_name": "first"}')
    description = export.describe_training(str(run), 7)
    assert description == {
        'epochs': 7, 'records': {'glob': 'a-*-of-*,b-*', 'records': 7, 'datasets': ['first']},
        'eval_records': {'glob': 'gone-*', 'records': None, 'datasets': []},
        'results': {'sync': {'threshold': 0.8, 'measured_on': 'gone-*'},
                    'training': {'skipped_records': {'lost': {'times': 1, 'first': ['a-00000-of-00001', 'folder/clip']}}}}}
    assert str(tmp_path) not in json.dumps(description)
    # What was measured on the weights of another epoch is not told of these.
    results['sync']['epochs'] = 7
    (run / 'result.json').write_text(json.dumps(results))
    assert ['sync' in export.describe_training(str(run), epochs)['results'] for epochs in (7, 3)] == [True, False]


def test_loaded_towers_are_called_and_trained(served):
    """The convention of reusable SavedModels, batch free, and batch norm that follows the batch in training alone."""
    model, inputs, outputs, _, paths = served
    for name, path in paths.items():
        tower, argument = tf.saved_model.load(path), {'audio_tower': 'waveform', 'video_tower': 'frames'}[name]
        value = tf.constant(inputs[f'{name}-serving_default-ragged'][argument])
        before = [variable.numpy() for variable in tower.variables]
        check({key: output.numpy() for key, output in tower(value).items()}, outputs[f'{name}-serving_default-ragged'])
        assert all(np.array_equal(variable, old) for variable, old in zip(tower.variables, before, strict=True))
        keras_tower = getattr(model, name)
        assert len(tower.variables) == len(keras_tower.variables)
        assert len(tower.trainable_variables) == len(keras_tower.trainable_variables)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tower(value, training=True)['embedding'][:, 0])
        gradients = tape.gradient(loss, tower.trainable_variables)
        assert all(gradient is not None and np.isfinite(gradient).all() for gradient in gradients)
        assert sum(float(tf.norm(gradient)) > 0 for gradient in gradients) > 0.8 * len(gradients)
        changed = [not np.array_equal(variable, old) for variable, old in zip(tower.variables, before, strict=True)]
        moving = [variable.name in ('moving_mean', 'moving_variance') for variable in keras_tower.variables]
        assert changed == moving and any(moving)
        assert tower.call_training(value[:2])['embedding'].shape == [2, 16]
        with tf.GradientTape() as tape:                     # with averages as they are; through the loop over windows, too
            loss = tf.reduce_sum(tower.signatures['serving_default'](value)['embedding'][:, 0])
        assert all(gradient is not None for gradient in tape.gradient(loss, tower.trainable_variables))
        gradients = []                                      # of one window, whichever way it goes
        for signature in ('serving_default', 'window'):
            window = tf.constant(inputs[f'{name}-window-many'][argument][:3])
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tower.signatures[signature](**{argument: window})['embedding'][:, :5])
            gradients.append(tape.gradient(loss, tower.trainable_variables))
        for one, other in zip(*gradients, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(one).max() + 1e-6)


def test_regularization_has_the_gradient_of_the_weight_decay(served, loaded):
    model, decay = served[0], served[0].config.train.weight_decay
    for name, tower in loaded.items():
        with tf.GradientTape() as tape:
            loss = tf.add_n([loss() for loss in tower.regularization_losses])
        variables = tower.trainable_variables
        names = [variable.name for variable in getattr(model, name).trainable_variables]
        for variable, gradient, name in zip(variables, tape.gradient(loss, variables), names, strict=True):
            assert (gradient is not None) == (name == 'kernel')
            if gradient is not None:
                np.testing.assert_allclose(gradient, decay * variable.numpy(), rtol=1e-5)


@pytest.fixture(scope='module')
def readme(served, tmp_path_factory):
    """Runs every block of saved_models/README.md as it stands: (its text, the names that it made, the folder it ran in)."""
    folder = tmp_path_factory.mktemp('readme')
    shutil.copytree(pathlib.Path(served[4]['audio_tower']).parent.parent, folder / 'saved_models')
    text, names = README.read_text(), {}
    keras.utils.set_random_seed(0)
    with contextlib.chdir(folder):
        for language, block in re.findall(r'^```(python|sh)\n(.*?)^```', text, re.MULTILINE | re.DOTALL):
            if language == 'python':
                exec(compile(block, str(README), 'exec'), names)
            for line in block.splitlines() if language == 'sh' else ():
                if not line.startswith('pip install'):
                    process = subprocess.run([sys.executable, *line.split()[1:]], capture_output=True, text=True, check=False)
                    assert process.returncode == 0, process.stderr[-3000:]
    return text, names, folder


def test_the_readme_is_true(served, readme):
    """Both ways of training further bring the loss down, and the tables name all signatures."""
    text, names, _ = readme
    assert names['losses'][-1] < 0.9 * names['losses'][0]
    assert names['history'].history['loss'][-1] < names['history'].history['loss'][0]
    assert isinstance(names['tower'], keras.layers.TFSMLayer)
    stated = set(re.findall(r'^\| `(\w+)` \|', text[:text.index('### Errors')], re.MULTILINE))
    assert stated == {name for signatures in served[3]['signatures'].values() for name in signatures}


def run_tflite(path, **inputs):
    """Outputs of the signature `window` of a TensorFlow Lite model, all of whose operations are built in."""
    interpreter = tf.lite.Interpreter(str(path), experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN)
    return interpreter.get_signature_runner('window')(**inputs)


def run_onnx(path, **inputs):
    model = onnx.load(str(path))
    assert [(opset.domain, opset.version) for opset in model.opset_import if opset.domain in ('', 'ai.onnx')] == [('', 17)]
    assert {node.domain for node in model.graph.node} == {''}
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


@pytest.mark.parametrize('tower', ['audio_tower', 'video_tower'])
@pytest.mark.parametrize(('extension', 'run'), [('tflite', run_tflite), ('onnx', run_onnx)])
def test_converted_windows_have_the_same_outputs(served, loaded, readme, tower, extension, run):
    cases = [served[1][f'{tower}-window-{name}'] for name in ('many', 'one')]
    if tower == 'audio_tower':                              # tones, silence and clipped sound too
        cases.append({'waveform': np.stack(list(formula_sounds(7680).values()))})
    for inputs in cases:                                    # the batch is free: 20 or 6, 1, 8
        got, expected = run(readme[2] / f'{tower}.{extension}', **inputs), call(loaded[tower].signatures['window'], **inputs)
        assert got.keys() == expected.keys()
        for name, value in expected.items():
            assert relative_error(got[name], value) < 1e-5, name


@pytest.mark.parametrize('rate', [100, 8000, 11025, 22050, 24000, 32000, 44100, 48000, 192000, 768000])
def test_resampling_is_that_of_scipy(rate):
    divisor = math.gcd(rate, 16000)
    for samples in (1, 777, 30001):
        sounds = floats(random_sounds(2, samples))
        expected = scipy.signal.resample_poly(sounds.astype(np.float64), 16000 // divisor, rate // divisor, axis=1)
        read, up, down = export.resampler(tf.constant(rate), 16000)
        assert -(-samples * up // down) == expected.shape[1]
        both, zeros = tf.constant([0, 1], tf.int64), tf.zeros(2, tf.int64)
        got = read(tf.constant(sounds), both, zeros, expected.shape[1])
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, atol=2e-6)
        # A piece is what it is of the whole, and beyond the end there is silence.
        starts = tf.constant([expected.shape[1] // 3, max(expected.shape[1] - 5, 0)], tf.int64)
        padded = np.pad(expected, [[0, 0], [0, 999]])
        pieces = [padded[1 - i, start:start + 999] for i, start in enumerate(starts.numpy())]
        np.testing.assert_allclose(read(tf.constant(sounds), both[::-1], starts, 999), pieces, atol=2e-6)


def test_a_tower_exported_to_resample():
    config = small_config()
    tower = export.AudioTower(small_audio_tower(config), config, resample=True)
    signature = tf.function(tower.at_rate, input_signature=tower.inputs['at_rate'])
    sounds = floats(random_sounds(2, 30000))
    resampled = scipy.signal.resample_poly(sounds, 160, 441, axis=1).astype(np.float32)
    check(call(signature, waveform=sounds, sample_rate=44100), call(tower.serving_default, waveform=resampled))
    check(call(signature, waveform=sounds, sample_rate=16000), call(tower.serving_default, waveform=sounds))
    for rate, words in ((0, 'cannot resample 0 Hz'), (-8000, 'cannot resample -8000 Hz'), (44101, 'cannot resample 44101 Hz'),
                        (8, 'cannot resample 8 Hz'), (32_000_000, 'cannot resample 32000000 Hz'),
                        (2**31 - 1, 'cannot resample 2147483647 Hz'), (-2**31, 'cannot resample -2147483648 Hz')):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f'sample_rate: {words}'):
            call(signature, waveform=sounds, sample_rate=rate)
    with pytest.raises(tf.errors.InvalidArgumentError, match='waveform: NaN'):
        call(signature, waveform=sounds * np.nan, sample_rate=44100)
    assert export.make_metadata(tower)['resampling']


# Asks for ordinary answers first and then for hostile ones, all of at most 4 MB; prints the peaks of memory, in MB.
MEMORY = '''
import io, json, resource, sys
sys.path.insert(0, sys.argv[1])
from tests.inference import test_export as tests
import numpy as np
import tensorflow as tf
from PIL import Image
from avts_tf.inference import export
model = tests.small_model()
towers = {'audio': export.AudioTower(model.audio_tower, model.config, resample=True),
          'video': export.VideoTower(model.video_tower, model.config)}
functions = {(kind, name): tf.function(getattr(tower, name), input_signature=tower.inputs[name])
             for kind, tower in towers.items() for name in tower.inputs}
peaks = {}
def ask(title, kind, signature, value, *more):
    try:
        functions[kind, signature](tf.constant(value), *map(tf.constant, more))
    except tf.errors.InvalidArgumentError:
        title += ' (refused)'
    peaks[title] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def jpeg(size, mode='L', **options):
    file = io.BytesIO()
    Image.new(mode, (size, size)).save(file, 'JPEG', quality=1, **options)
    return file.getvalue()
window = model.config.clip.window_samples
giant, frame = jpeg(3000, 'RGB', progressive=True), jpeg(8)
ask('nothing', 'audio', 'pcm', np.zeros([1, 1], np.int16))
ask('nothing', 'video', 'serving_default', np.zeros([1, 1, 1, 1, 3], np.uint8))
ask('nothing', 'video', 'jpeg', [[frame]])
ask('ordinary', 'audio', 'pcm', np.ones([2**21 // window, window], np.int16))
ask('ordinary', 'audio', 'windows', np.ones([1, 2**20], np.float32), 0.2)
ask('ordinary', 'audio', 'at_rate', np.ones([1, 2**20], np.float32), 44100)
ask('ordinary', 'audio', 'window', np.ones([64, window], np.float32))
ask('ordinary', 'video', 'serving_default', np.ones([40, 12, 48, 48, 3], np.uint8))
ask('ordinary', 'video', 'window', np.ones([8, 12, 16, 16, 3], np.uint8))
ask('tiny examples', 'audio', 'pcm', np.ones([3000, 1], np.int16))
ask('tiny examples', 'audio', 'serving_default', np.ones([20000, 1], np.float32))
ask('tiny examples', 'audio', 'window', np.ones([136, window], np.float32))
ask('tiny hop', 'audio', 'windows', np.ones([1, 2**20], np.float32), 1 / 15000)
ask('slow sound', 'audio', 'at_rate', np.ones([1, 2**17], np.float32), 100)
ask('slow sound', 'audio', 'at_rate', np.ones([1, 2**20], np.float32), 100)
ask('odd sound', 'audio', 'at_rate', np.ones([500, 2000], np.float32), 31984)
ask('fast sound', 'audio', 'at_rate', np.ones([2, 2**19], np.float32), 768000)
ask('tiny frames', 'video', 'serving_default', np.ones([200, 1, 1, 1, 3], np.uint8))
ask('tiny frames', 'video', 'serving_default', np.ones([2**20, 1, 1, 1, 3], np.uint8))
ask('one large frame', 'video', 'serving_default', np.ones([1, 1, 1100, 1200, 3], np.uint8))
ask('many windows', 'video', 'window', np.ones([400, 12, 16, 16, 3], np.uint8))
ask('tiny files', 'video', 'jpeg', [[frame]] * 200)
ask('giant files', 'video', 'jpeg', [[giant] * 12])
print(json.dumps(peaks))
'''


@pytest.mark.slow
def test_no_request_needs_much_more_memory_than_an_ordinary_one():
    """Peaks of a process of its own, each the highest so far; small towers, of which little hides what the requests need."""
    process = subprocess.run([sys.executable, '-c', MEMORY, str(ROOT)], capture_output=True, text=True,
                             check=False)
    assert process.returncode == 0, process.stderr[-2000:]
    peaks = json.loads(process.stdout)
    nothing, ordinary = peaks.pop('nothing'), peaks['ordinary']
    assert {'tiny examples (refused)', 'tiny hop (refused)', 'slow sound (refused)', 'tiny frames (refused)'} <= peaks.keys()
    assert max(peaks.values()) < 1.5 * ordinary
    # What TensorFlow itself takes hides nothing; a picture of 9 million pixels has to be held as a whole.
    peaks.pop('giant files')
    assert max(peaks.values()) - nothing < 1.5 * (ordinary - nothing) + 30, peaks


HOUR = '''
import resource, sys
import tensorflow as tf
signature = tf.saved_model.load(sys.argv[1]).signatures[sys.argv[2]]
extra = {'hop_seconds': tf.constant(0.48)} if sys.argv[2] == 'windows' else {}
for minutes in (1, 60):
    waveform = tf.fill([1, minutes * 60 * 16000], 0.25)     # made without a copy, which would raise the peak by itself
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outputs = signature(waveform=waveform, **extra)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
print(outputs['embedding'].shape[1])
'''


@pytest.mark.slow
@pytest.mark.parametrize('name', ['serving_default', 'windows'])
def test_an_hour_in_one_call_needs_no_more_memory_than_itself(served, name):
    """What is needed beside the input, 230 MB of float32; short-time Fourier transforms alone, held at once, would be 1.4 GB."""
    process = subprocess.run([sys.executable, '-c', HOUR, served[4]['audio_tower'], name], capture_output=True, text=True,
                             check=False)
    assert process.returncode == 0, process.stderr[-2000:]
    _, hour, size = (int(line) for line in process.stdout.split())
    assert hour / 1024 < 200
    assert size == (7500 if name == 'windows' else 16)


def test_whitened_embeddings_are_averaged_as_they_are():
    """Without unit length there is none to bring back; the module that is exported says so before it is saved."""
    config = small_config(normalize='whiten')
    tower = small_audio_tower(config)
    sounds = random_sounds(2, 2 * config.clip.window_samples)
    got = export.AudioTower(tower, config).pcm(tf.constant(sounds))
    parts = [keras_outputs(tower, part)['embedding'] for part in np.split(sounds, 2, axis=1)]
    assert relative_error(got['embedding'].numpy(), np.mean(parts, axis=0)) < 1e-4


def write_nothing(towers, paths, training):
    """Takes the place of saving and comparing, which the fixture has done once for all."""
    for tower, path in zip(towers, paths, strict=True):
        with open(os.path.join(path, 'saved_model.pb'), 'w') as file:
            file.write(tower.name)
    return [0.0] * len(paths)


class Doubler(export.ExportedTower):
    """The smallest thing that can be exported."""

    def __init__(self, name):
        numbers = keras.Input([1], name='numbers')
        model = keras.Model(numbers, {'embedding': keras.layers.Dense(1, kernel_initializer='ones', name='dense')(numbers)})
        super().__init__(model, small_config(normalize='none'), name)
        self.inputs = {'serving_default': [tf.TensorSpec([None, 1], tf.float32, 'waveform')]}

    def _end_to_end(self, inputs, training):
        return {'embedding': 2.0 * self._keras_tower()(inputs)['embedding'][:, None]}

    def serving_default(self, waveform):
        return self(waveform)

    def examples(self, rng):
        return {'serving_default': {'waveform': rng.uniform(size=[3, 1]).astype(np.float32)}}


@pytest.fixture
def untouched_model(monkeypatch):
    """A stand-in for a model, of whose towers only the names are real: these tests are about folders."""
    monkeypatch.setattr(export, 'AudioTower', lambda tower, config, resample: Doubler('audio_tower'))
    monkeypatch.setattr(export, 'VideoTower', lambda tower, config: Doubler('video_tower'))
    return types.SimpleNamespace(audio_tower=None, video_tower=None, config=None)


def test_versions_count_up(untouched_model, tmp_path, monkeypatch):
    monkeypatch.setattr(export, '_save_and_compare', write_nothing)
    (tmp_path / 'video_tower' / '9').mkdir(parents=True)
    (tmp_path / 'video_tower' / 'notes').mkdir()
    first = export.export_towers(untouched_model, str(tmp_path), say=lambda line: None)
    second = export.export_towers(untouched_model, str(tmp_path), say=lambda line: None)
    assert [os.path.relpath(paths[name], tmp_path) for paths in (first, second) for name in ('audio_tower', 'video_tower')] == [
        'audio_tower/1', 'video_tower/10', 'audio_tower/2', 'video_tower/11']
    assert sorted(os.listdir(tmp_path / 'audio_tower')) == ['1', '2']
    assert os.stat(first['audio_tower']).st_mode & 0o777 == 0o755
    assert (tmp_path / 'audio_tower' / '1' / 'saved_model.pb').read_text() == 'audio_tower'


def test_nothing_is_left_of_a_failed_export(untouched_model, tmp_path, monkeypatch):
    monkeypatch.setattr(export, '_RELOAD', 'raise SystemExit("no such thing")')
    with pytest.raises(RuntimeError, match='cannot be used.*\n.*no such thing'):
        export.export_towers(untouched_model, str(tmp_path), say=pytest.fail)
    assert os.listdir(tmp_path / 'audio_tower') == os.listdir(tmp_path / 'video_tower') == []


def test_a_tower_that_came_back_changed_is_refused(untouched_model, tmp_path, monkeypatch):
    monkeypatch.setattr(export, '_RELOAD', export._RELOAD.replace('value.numpy()', '1.001 * value.numpy()'))
    with pytest.raises(RuntimeError, match='outputs differ'):
        export.export_towers(untouched_model, str(tmp_path), say=pytest.fail)
    assert os.listdir(tmp_path / 'audio_tower') == os.listdir(tmp_path / 'video_tower') == []


def test_a_folder_that_cannot_be_written(untouched_model, tmp_path):
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(UserError, match='--export_dir=.*file/models.*cannot be written'):
        export.export_towers(untouched_model, str(tmp_path / 'file' / 'models'), say=pytest.fail)
    assert (tmp_path / 'file').read_text() == 'in the way'
