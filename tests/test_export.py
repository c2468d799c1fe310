"""What is exported, seen from a process that knows nothing of this project."""

import contextlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from avts_tf import UserError, build_two_tower, export, make_config

# Loads both towers and calls every input file with its tower's signature; imports of the project must fail here.
CLIENT = '''
import json, os, sys
import numpy as np
import tensorflow as tf
folder, paths = sys.argv[1], json.loads(sys.argv[2])
assert not any(os.path.exists(os.path.join(path, 'avts_tf')) for path in sys.path)
for tower, path in paths.items():
    signatures = tf.saved_model.load(path).signatures
    assert list(signatures) == ['serving_default'], list(signatures)
    signature = signatures['serving_default']
    names = {'input': list(signature.structured_input_signature[1]), 'output': sorted(signature.structured_outputs)}
    print(json.dumps({tower: names}))
    for name in sorted(os.listdir(folder)):
        if name.startswith(tower) and name.endswith('.npy'):
            inputs = {names['input'][0]: tf.constant(np.load(os.path.join(folder, name)))}
            outputs = {key: value.numpy() for key, value in signature(**inputs).items()}
            np.savez(os.path.join(folder, name[:-4] + '-out.npz'), **outputs)
assert 'avts_tf' not in sys.modules
'''


def small_model(**overrides):
    """A tower pair with statistics that are not the initial ones."""
    config = make_config('tiny', **{
        'frames': 12, 'fps': 25.0, 'frame_size': 16, 'sample_rate': 16000, 'video_tower': 'mc3', 'video_width': 0.0625,
        'audio_width': 0.0625, 'embedding_size': 16, 'head': 'spans', 'head_spans': 4, 'normalize': 'length',
        'audio_windows': 2, 'bfloat16': False, **overrides})
    model = build_two_tower(config)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.path.endswith(('moving_variance', 'gamma')):
            variable.assign(rng.uniform(0.5, 2.0, variable.shape))
        elif variable.path.endswith(('moving_mean', 'beta')):
            variable.assign(rng.normal(0, 0.3, variable.shape))
    model.audio_tower.get_layer('log_mel').adapt([random_sounds(3, config.clip.window_samples)])
    return model


def random_sounds(batch, samples):
    rng = np.random.default_rng(batch)
    loudness = np.repeat(rng.uniform(0.01, 0.9, [batch, -(-samples // 800)]), 800, axis=1)[:, :samples]
    return (rng.uniform(-32768, 32767, [batch, samples]) * loudness).astype(np.int16)


def random_frames(batch, frames, height, width):
    rng = np.random.default_rng(frames)
    brightness = rng.uniform(0.2, 1.0, [batch, frames, 1, 1, 1])
    return (rng.integers(0, 256, [batch, frames, height, width, 3]) * brightness).astype(np.uint8)


@pytest.fixture(scope='module')
def served(tmp_path_factory):
    """(model, dict of inputs, dict of the outputs that a client got, the client's words, paths of the towers)."""
    folder, export_dir, model = tmp_path_factory.mktemp('client'), tmp_path_factory.mktemp('saved_models'), small_model()
    lines = []
    with contextlib.chdir(export_dir.parent):               # a relative folder, as the command line has it
        exported = export.export_towers(model, export_dir.name, say=lines.append)
    paths = {name: str(export_dir.parent / path) for name, path in exported.items()}
    assert len(lines) == 2
    window, frames = model.config.clip.window_samples, model.config.clip.frames
    sounds, pictures = random_sounds(3, 3 * window), random_frames(3, 3 * frames, 16, 16)
    inputs = {
        'audio_tower-window': sounds[:, :window], 'audio_tower-one': sounds[:1, :window],
        'audio_tower-short': sounds[:, :window // 3], 'audio_tower-empty': sounds[:, :0],
        'audio_tower-long': sounds, 'audio_tower-ragged': sounds[:, :window * 2 + 1000],
        'video_tower-window': pictures[:, :frames], 'video_tower-one': pictures[:1, :frames],
        'video_tower-short': pictures[:, :5], 'video_tower-single': pictures[:, :1],
        'video_tower-long': pictures, 'video_tower-ragged': pictures[:, :frames * 2 + 3],
        'video_tower-wide': random_frames(2, frames, 24, 41), 'video_tower-tall': random_frames(2, frames, 37, 12),
    }
    for name, value in inputs.items():
        # Every int16 sample is a float32 exactly: what the Keras tower makes of the integers is the oracle of the floats.
        np.save(folder / f'{name}.npy', value / np.float32(32768) if value.dtype == np.int16 else value)
    words = run_client(folder, paths)
    outputs = {name: dict(np.load(folder / f'{name}-out.npz')) for name in inputs}
    return model, inputs, outputs, words, paths


def run_client(folder, paths):
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    process = subprocess.run([sys.executable, '-c', CLIENT, str(folder), json.dumps(paths)], capture_output=True, text=True,
                             check=False, cwd=folder, env={**environment, 'TF_CPP_MIN_LOG_LEVEL': '3'})
    assert process.returncode == 0, process.stderr[-3000:]
    return {name: value for line in process.stdout.splitlines() for name, value in json.loads(line).items()}


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


def test_names(served):
    assert served[3] == {'audio_tower': {'input': ['waveform'], 'output': ['conv5', 'embedding']},
                         'video_tower': {'input': ['frames'], 'output': ['embedding', 'features']}}


@pytest.mark.parametrize('tower', ['audio_tower', 'video_tower'])
def test_one_window_equals_keras(served, tower):
    model, inputs, outputs, _, _ = served
    expected = keras_outputs(getattr(model, tower), inputs[f'{tower}-window'])
    check(outputs[f'{tower}-window'], expected)
    check(outputs[f'{tower}-one'], {name: value[:1] for name, value in expected.items()})
    # Three inputs give three outputs, further apart than the tolerance by far.
    for value in expected.values():
        assert relative_error(value[0], value[1]) > 1e-2 and relative_error(value[1], value[2]) > 1e-2


def test_short_sounds_are_padded_with_silence(served):
    model, inputs, outputs, _, _ = served
    for name in ('audio_tower-short', 'audio_tower-empty'):
        missing = model.config.clip.window_samples - inputs[name].shape[1]
        check(outputs[name], keras_outputs(model.audio_tower, np.pad(inputs[name], [[0, 0], [0, missing]])))


def test_long_sounds_are_averaged_over_windows(served):
    model, inputs, outputs, _, _ = served
    window = model.config.clip.window_samples
    for name in ('audio_tower-long', 'audio_tower-ragged'):
        padded = np.pad(inputs[name], [[0, 0], [0, -inputs[name].shape[1] % window]])
        assert padded.shape[1] == 3 * window
        check(outputs[name], average([keras_outputs(model.audio_tower, part) for part in np.split(padded, 3, axis=1)]))


def test_few_frames_are_padded_with_the_last(served):
    model, inputs, outputs, _, _ = served
    for name in ('video_tower-short', 'video_tower-single'):
        frames = inputs[name]
        padded = np.concatenate([frames, *[frames[:, -1:]] * (model.config.clip.frames - frames.shape[1])], axis=1)
        check(outputs[name], keras_outputs(model.video_tower, padded))


def test_many_frames_are_averaged_over_windows(served):
    model, inputs, outputs, _, _ = served
    for name in ('video_tower-long', 'video_tower-ragged'):
        frames = inputs[name]
        padded = np.concatenate([frames, *[frames[:, -1:]] * (-frames.shape[1] % model.config.clip.frames)], axis=1)
        check(outputs[name], average([keras_outputs(model.video_tower, part) for part in np.split(padded, 3, axis=1)]))


def test_frames_of_other_sizes_are_cropped_and_resized(served):
    model, inputs, outputs, _, _ = served
    wide, tall = inputs['video_tower-wide'], inputs['video_tower-tall']
    for name, square in (('wide', wide[:, :, :, 8:32]), ('tall', tall[:, :, 12:24])):
        side = square.shape[2]
        resized = tf.image.resize(square.reshape(-1, side, side, 3), [16, 16])
        frames = np.round(resized.numpy()).astype(np.uint8).reshape(2, -1, 16, 16, 3)
        check(outputs[f'video_tower-{name}'], keras_outputs(model.video_tower, frames))


def test_towers_can_be_fine_tuned(served):
    model, inputs, _, _, paths = served
    for name, path in paths.items():
        loaded = tf.saved_model.load(path)
        tower, signature = getattr(model, name), loaded.signatures['serving_default']
        assert len(signature.trainable_variables) == len(tower.trainable_variables)
        value = inputs[f'{name}-window']
        value = tf.constant(value / np.float32(32768) if value.dtype == np.int16 else value)
        argument = {'audio_tower': 'waveform', 'video_tower': 'frames'}[name]
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(signature(**{argument: value})['embedding'][:, 0])
        gradients = tape.gradient(loss, signature.trainable_variables)
        assert all(gradient is not None and np.isfinite(gradient).all() for gradient in gradients)
        assert sum(float(tf.norm(gradient)) > 0 for gradient in gradients) > 0.8 * len(gradients)


def test_whitened_embeddings_are_averaged_as_they_are():
    """Without unit length there is none to bring back; the module that is exported says so before it is saved."""
    model = small_model(normalize='whiten')
    window = model.config.clip.window_samples
    sounds = random_sounds(2, 2 * window)
    got = export.AudioTower(model.audio_tower, model.config).embed(tf.constant(sounds / np.float32(32768)))
    parts = [keras_outputs(model.audio_tower, part)['embedding'] for part in np.split(sounds, 2, axis=1)]
    assert relative_error(got['embedding'].numpy(), np.mean(parts, axis=0)) < 1e-4


def write_nothing(tower, path):
    """Takes the place of saving and comparing, which the fixture has done once for all."""
    with open(os.path.join(path, 'saved_model.pb'), 'w') as file:
        file.write(tower.name)
    return 0.0


@pytest.fixture(scope='module')
def untouched_model():
    return small_model()


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
    with pytest.raises(RuntimeError, match='does not load.*\n.*no such thing'):
        export.export_towers(untouched_model, str(tmp_path), say=pytest.fail)
    assert os.listdir(tmp_path / 'audio_tower') == [] and not (tmp_path / 'video_tower').exists()


def test_a_tower_that_came_back_changed_is_refused(untouched_model, tmp_path, monkeypatch):
    monkeypatch.setattr(export, '_RELOAD', export._RELOAD.replace('value.numpy()', '1.001 * value.numpy()'))
    with pytest.raises(RuntimeError, match='outputs differ'):
        export.export_towers(untouched_model, str(tmp_path), say=pytest.fail)
    assert os.listdir(tmp_path / 'audio_tower') == []


def test_a_folder_that_cannot_be_written(untouched_model, tmp_path):
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(UserError, match='--export_dir=.*file/models.*cannot be written'):
        export.export_towers(untouched_model, str(tmp_path / 'file' / 'models'), say=pytest.fail)
    assert (tmp_path / 'file').read_text() == 'in the way'
