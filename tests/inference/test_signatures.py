"""What both exported towers have in common: goldens, ranks, training, memory."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from avts_tf.inference.video_signatures import VideoSignatures
from avts_tf.models.batch_norm import BatchNorm
from avts_tf.models.video import build_video_tower
from tests.graphs import batch_norm_shapes, operations
from tests.helpers import ROOT
from tests.inference.small import (
    FRAMES,
    WINDOW,
    as_jpegs,
    call,
    check,
    floats,
    formula_frames,
    formula_sounds,
    random_frames,
    random_sounds,
    small_config,
)

GOLDENS = ROOT / 'tests' / 'goldens'


def golden_inputs():
    """Dict from the name of a tower and of a signature to a dict of inputs."""
    frames = formula_frames(FRAMES + 3, 24, 36)
    sounds = np.stack(list(formula_sounds(WINDOW * 3 // 2).values()))
    chirp = formula_sounds(16000)['chirp'][None]
    return {
        ('audio_tower', 'serving_default'): {'waveform': sounds},
        ('audio_tower', 'windows'): {'waveform': chirp, 'hop_seconds': np.float32(0.1)},
        ('video_tower', 'serving_default'): {'frames': frames},
        ('video_tower', 'jpeg'): {'frames': as_jpegs(frames)},
    }


def test_goldens(loaded, request):
    """Values of other processes, threads and versions; renewed by `pytest --update_goldens`.

    The tolerance is for another order of float32 sums: 1e-4 of the greatest value of each output.
    """
    for (tower, signature), inputs in golden_inputs().items():
        got = call(loaded[tower].signatures[signature], **inputs)
        path = GOLDENS / f'{tower}-{signature}.npz'
        if request.config.getoption('update_goldens'):
            GOLDENS.mkdir(exist_ok=True)
            np.savez_compressed(path, **got)
        with np.load(path) as golden:
            check(got, dict(golden))


def test_exported_graphs_are_plain_and_keep_clips_as_the_first_axis(loaded, model):
    """They may be served on a GPU: no ways of this CPU, and cuDNN's limit of the first axis."""
    for name, tower in loaded.items():
        norms = [layer for layer in getattr(model, name)._flatten_layers()
                 if isinstance(layer, BatchNorm)]
        inner = sorted(math.prod(layer.input.shape[1:-1]) for layer in norms)
        for function in [*tower.signatures.values(), *tower.call_training.concrete_functions]:
            shapes = batch_norm_shapes(function.graph)
            assert sorted(shape[1] for shape in shapes) == inner
            assert all(shape[2] == 1 for shape in shapes)
            found = {op.type for op in operations(function.graph)}
            assert name == 'audio_tower' or ('Conv3D' in found and 'Conv2D' not in found)


@pytest.mark.slow
def test_a_wide_tower_is_exported_without_winograd():
    """Nor is it in the graph by which an exported tower is trained further."""
    config = small_config(video_width=1.0)
    tower = VideoSignatures(build_video_tower(config), config)
    frames = tower.inputs['serving_default'][0]
    graph = tower.call_training.get_concrete_function(frames).graph
    found = operations(graph)
    assert sum(op.type == 'Conv3D' for op in found) == 20
    assert not any(op.type == 'Conv2D' or op.node_def.attr['_XlaMustCompile'].b for op in found)


# Imports of the project must fail here; one thread, while the tests use all.
FOREIGN = '''
import json, os, sys
import numpy as np
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
assert not any(os.path.exists(os.path.join(path, 'avts_tf')) for path in sys.path)
for tower, signature, inputs, outputs in json.loads(sys.argv[2]):
    loaded = tf.saved_model.load(os.path.join(sys.argv[1], tower, '1'))
    with np.load(inputs, allow_pickle=True) as values:
        values = {key: tf.constant(value) for key, value in values.items()}
    np.savez(outputs, **loaded.signatures[signature](**values))
assert 'avts_tf' not in sys.modules and 'tensorflow_serving' not in sys.modules
'''


@pytest.mark.slow
def test_goldens_in_a_process_that_has_only_tensorflow(towers, tmp_path):
    tasks = []
    for (tower, signature), inputs in golden_inputs().items():
        base = tmp_path / f'{tower}-{signature}'
        np.savez(f'{base}.npz', **inputs)
        tasks.append((tower, signature, f'{base}.npz', f'{base}-outputs.npz'))
    process = subprocess.run([sys.executable, '-c', FOREIGN, str(towers), json.dumps(tasks)],
                             capture_output=True, text=True, check=False, cwd=tmp_path)
    assert process.returncode == 0, process.stderr[-3000:]
    for tower, signature, _, path in tasks:
        with np.load(path) as got, np.load(GOLDENS / f'{tower}-{signature}.npz') as golden:
            check(dict(got), dict(golden))


@pytest.mark.parametrize(
    'tower', ['audio_tower', pytest.param('video_tower', marks=pytest.mark.slow)])
def test_wrong_ranks_are_named_by_a_server(towers, tower):
    """As a server runs it: in a session, which lets shapes pass that Python refuses."""
    zeros, frames = np.zeros([1, 9000], np.float32), np.zeros([1, 3, 9, 9, 1], np.uint8)
    cases = {
        'audio_tower': [
            ('serving_default', {'waveform': zeros[0]}, 'waveform: must be .* not of rank 1'),
            ('pcm', {'waveform': np.zeros([1, 9000, 1], np.int16)},
             'waveform: must be .* not of rank 3'),
            ('windows', {'waveform': zeros, 'hop_seconds': np.float32([1])},
             'hop_seconds: must be .* not of rank 1'),
            ('serving_default', {'waveform': np.full([1, 9000], np.nan, np.float32)}, 'NaN'),
            ('window', {'waveform': zeros}, r'waveform: must be \[batch, 7680\]'),
            ('window', {'waveform': zeros[0, :WINDOW]}, r'waveform: must be \[batch, 7680\]'),
        ],
        'video_tower': [
            ('window', {'frames': np.zeros([1, FRAMES, 9, 9, 3], np.uint8)},
             r'frames: must be \[batch, 12, 16, 16, 3\]'),
            ('serving_default', {'frames': np.zeros([3, 9, 9, 3], np.uint8)},
             'frames: must be .* not of rank 4'),
            ('serving_default', {'frames': frames}, 'frames: must have 3 channels'),
            ('jpeg', {'frames': np.array([b'x'], object)}, 'frames: must be .* not of rank 1'),
        ],
    }
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        path = str(towers / tower / '1')
        signatures = tf.compat.v1.saved_model.load(session, ['serve'], path).signature_def
        for signature, inputs, words in cases[tower]:
            definition = signatures[signature]
            options = config_pb2.CallableOptions(
                feed=[definition.inputs[key].name for key in inputs],
                fetch=[definition.outputs['embedding'].name])
            with pytest.raises(tf.errors.InvalidArgumentError, match=words):
                session._make_callable_from_options(options)(*inputs.values())


@pytest.mark.parametrize(('name', 'inputs'), [
    ('audio_tower', floats(random_sounds(3, 2 * WINDOW + 1000))),
    pytest.param('video_tower', random_frames(3, 2 * FRAMES + 3), marks=pytest.mark.slow),
])
def test_loaded_towers_are_called_and_trained(towers, model, name, inputs):
    """The convention of reusable SavedModels; batch norm follows the batch in training alone."""
    tower, value = tf.saved_model.load(str(towers / name / '1')), tf.constant(inputs)
    before = [variable.numpy() for variable in tower.variables]
    argument = tower.signatures['serving_default'].structured_input_signature[1]
    argument = next(iter(argument))
    outputs = call(tower, inputs=inputs)
    check(outputs, call(tower.signatures['serving_default'], **{argument: inputs}))
    for variable, old in zip(tower.variables, before, strict=True):
        np.testing.assert_array_equal(variable, old)
    keras_tower = getattr(model, name)
    assert len(tower.variables) == len(keras_tower.variables)
    assert len(tower.trainable_variables) == len(keras_tower.trainable_variables)

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tower(value, training=True)['embedding'][:, 0])
    gradients = tape.gradient(loss, tower.trainable_variables)
    assert all(gradient is not None and np.isfinite(gradient).all() for gradient in gradients)
    moved = sum(float(tf.norm(gradient)) > 0 for gradient in gradients)
    assert moved > 0.8 * len(gradients)
    changed = [not np.array_equal(variable, old)
               for variable, old in zip(tower.variables, before, strict=True)]
    moving = [variable.name in ('moving_mean', 'moving_variance')
              for variable in keras_tower.variables]
    assert changed == moving and any(moving)
    assert tower.call_training(value[:2])['embedding'].shape == [2, 16]


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'argument', 'window'), [
    ('audio_tower', 'waveform', floats(random_sounds(3, WINDOW))),
    ('video_tower', 'frames', random_frames(3, FRAMES)),
])
def test_signatures_have_the_same_gradient(loaded, name, argument, window):
    """Through the loop over windows, and through `window`."""
    tower, gradients = loaded[name], []
    for signature in ('serving_default', 'window'):
        with tf.GradientTape() as tape:
            outputs = tower.signatures[signature](**{argument: tf.constant(window)})
            loss = tf.reduce_sum(outputs['embedding'][:, :5])
        gradients.append(tape.gradient(loss, tower.trainable_variables))
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(one).max() + 1e-6)


def test_regularization_has_the_gradient_of_the_weight_decay(model, loaded):
    decay = model.config.train.weight_decay
    for tower_name, tower in loaded.items():
        with tf.GradientTape() as tape:
            loss = tf.add_n([loss() for loss in tower.regularization_losses])
        gradients = tape.gradient(loss, tower.trainable_variables)
        names = [variable.name for variable in getattr(model, tower_name).trainable_variables]
        for variable, gradient, name in zip(
                tower.trainable_variables, gradients, names, strict=True):
            assert (gradient is not None) == (name == 'kernel')
            if gradient is not None:
                np.testing.assert_allclose(gradient, decay * variable.numpy(), rtol=1e-5)


# Asks for ordinary answers first and then for hostile ones, all of at most 4 MB; prints the peaks
# of memory, in MB.
MEMORY = '''
import io, json, resource, sys
sys.path.insert(0, sys.argv[1])
from tests.inference.small import small_model
import numpy as np
import tensorflow as tf
from PIL import Image
from avts_tf.inference.audio_signatures import AudioSignatures
from avts_tf.inference.video_signatures import VideoSignatures
model = small_model()
towers = {'audio': AudioSignatures(model.audio_tower, model.config),
          'video': VideoSignatures(model.video_tower, model.config)}
functions = {
    (kind, name): tf.function(getattr(tower, name), input_signature=tower.inputs[name])
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
ask('ordinary', 'audio', 'window', np.ones([64, window], np.float32))
ask('ordinary', 'video', 'serving_default', np.ones([40, 12, 48, 48, 3], np.uint8))
ask('ordinary', 'video', 'window', np.ones([8, 12, 16, 16, 3], np.uint8))
ask('tiny examples', 'audio', 'pcm', np.ones([3000, 1], np.int16))
ask('tiny examples', 'audio', 'serving_default', np.ones([20000, 1], np.float32))
ask('tiny examples', 'audio', 'window', np.ones([136, window], np.float32))
ask('tiny hop', 'audio', 'windows', np.ones([1, 2**20], np.float32), 1 / 15000)
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
    """Peaks of a process, each the highest so far; small towers hide little of them."""
    process = subprocess.run([sys.executable, '-c', MEMORY, str(ROOT)], capture_output=True,
                             text=True, check=False)
    assert process.returncode == 0, process.stderr[-2000:]
    peaks = json.loads(process.stdout)
    nothing, ordinary = peaks.pop('nothing'), peaks['ordinary']
    refused = {'tiny examples (refused)', 'tiny hop (refused)', 'tiny frames (refused)'}
    assert refused <= peaks.keys()
    assert max(peaks.values()) < 1.5 * ordinary
    # A frame of 9 million pixels has to be held as a whole.
    peaks.pop('giant files')
    assert max(peaks.values()) - nothing < 1.5 * (ordinary - nothing) + 30, peaks


HOUR = '''
import resource, sys
import tensorflow as tf
signature = tf.saved_model.load(sys.argv[1]).signatures[sys.argv[2]]
extra = {'hop_seconds': tf.constant(0.48)} if sys.argv[2] == 'windows' else {}
for minutes in (1, 60):
    waveform = tf.fill([1, minutes * 60 * 16000], 0.25)     # made without a copy
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outputs = signature(waveform=waveform, **extra)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
print(outputs['embedding'].shape[1])
'''


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'size'), [('serving_default', 16), ('windows', 7500)])
def test_an_hour_in_one_call_needs_no_more_memory_than_itself(towers, name, size):
    """Beside the input, 230 MB; all short-time Fourier transforms at once would be 1.4 GB."""
    path = str(towers / 'audio_tower' / '1')
    process = subprocess.run([sys.executable, '-c', HOUR, path, name], capture_output=True,
                             text=True, check=False)
    assert process.returncode == 0, process.stderr[-2000:]
    _, hour, got = (int(line) for line in process.stdout.split())
    assert hour / 1024 < 200 and got == size
