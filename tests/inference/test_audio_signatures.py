"""The exported audio tower against the Keras tower, window by window."""

import math

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.inference.audio_signatures import AudioSignatures
from tests.graphs import copies_to_host
from tests.inference.small import (
    WINDOW,
    average,
    call,
    check,
    floats,
    formula_sounds,
    keras_outputs,
    random_sounds,
    relative_error,
    small_model,
)

RATE = 16000


@pytest.fixture(scope='module')
def signatures(loaded):
    return loaded['audio_tower'].signatures


def test_one_window_equals_keras(signatures, model):
    # What the Keras tower makes of integers is the oracle of the floats.
    sounds = random_sounds(3, WINDOW)
    expected = keras_outputs(model.audio_tower, sounds)
    check(call(signatures['serving_default'], waveform=floats(sounds)), expected)
    check(call(signatures['pcm'], waveform=sounds), expected)
    check(call(signatures['pcm'], waveform=sounds[:1]),
          {name: value[:1] for name, value in expected.items()})
    # Three inputs give three outputs, further apart than the tolerance by far.
    for value in expected.values():
        assert relative_error(value[0], value[1]) > 1e-2
        assert relative_error(value[1], value[2]) > 1e-2


@pytest.mark.parametrize('samples', [1, WINDOW // 3])
def test_short_sounds_are_padded_with_silence(signatures, model, samples):
    sounds = random_sounds(3, samples)
    padded = np.pad(sounds, [[0, 0], [0, WINDOW - samples]])
    check(call(signatures['serving_default'], waveform=floats(sounds)),
          keras_outputs(model.audio_tower, padded))


@pytest.mark.parametrize('samples', [3 * WINDOW, 2 * WINDOW + 1000])
def test_long_sounds_are_averaged_over_windows(signatures, model, samples):
    sounds = random_sounds(3, samples)
    padded = np.pad(sounds, [[0, 0], [0, 3 * WINDOW - samples]])
    parts = np.split(padded, 3, axis=1)
    expected = average([keras_outputs(model.audio_tower, part) for part in parts])
    check(call(signatures['serving_default'], waveform=floats(sounds)), expected)
    check(call(signatures['pcm'], waveform=sounds), expected)


def test_many_examples_are_each_what_they_are_alone(signatures):
    # More windows than go through the network at once, two of each example, the second one short.
    sounds = random_sounds(45, WINDOW + 700)
    outputs = call(signatures['pcm'], waveform=sounds)
    for i in (0, 31, 32, 44):
        check({name: value[i:i + 1] for name, value in outputs.items()},
              call(signatures['pcm'], waveform=sounds[i:i + 1]))


@pytest.mark.parametrize('batch', [1, 20])
def test_window_has_the_same_outputs_by_other_operations(signatures, batch):
    waveform = floats(random_sounds(batch, WINDOW))
    check(call(signatures['window'], waveform=waveform),
          call(signatures['serving_default'], waveform=waveform), tolerance=1e-5)


@pytest.mark.parametrize(('batch', 'samples', 'hop_seconds'), [
    (2, 48001, 0.02),                   # more windows than go through the network at once
    (3, 3 * WINDOW, 1 / 3),             # no whole number of samples
    (3, 2 * WINDOW + 1000, 0.1),
    (1, 5 * WINDOW, 0.7),               # windows apart
    (3, WINDOW + 5, 2.0),               # a second window would start after the end
    (3, 99, 0.1),                       # shorter than a window
])
def test_windows_lie_where_they_should(signatures, model, batch, samples, hop_seconds):
    sounds = random_sounds(batch, samples)
    hop = round(float(np.float32(hop_seconds)), 6) * RATE
    count = 1 + math.ceil(max(0, samples - WINDOW) / hop) if hop_seconds < 2 else 1
    starts = [round(i * hop) for i in range(count)]
    padded = np.pad(sounds, [[0, 0], [0, starts[-1] + WINDOW]])
    cut = np.stack([padded[:, start:start + WINDOW] for start in starts], 1)
    expected = keras_outputs(model.audio_tower, cut.reshape(-1, WINDOW))
    expected = {name: value.reshape(batch, count, -1) for name, value in expected.items()}
    expected['timestamps'] = np.array([(start + WINDOW / 2) / RATE for start in starts])
    check(call(signatures['windows'], waveform=floats(sounds), hop_seconds=np.float32(hop_seconds)),
          expected)


def test_awkward_sounds_have_a_defined_answer(signatures):
    sounds = formula_sounds(9000)
    outputs = call(signatures['serving_default'], waveform=np.stack(list(sounds.values())))
    lengths = np.linalg.norm(outputs['embedding'], axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)
    assert np.isfinite(outputs['conv5']).all()
    clipped = list(sounds).index('clipped')
    check({name: value[clipped:] for name, value in outputs.items()},
          call(signatures['serving_default'], waveform=np.clip(sounds['clipped'], -1, 1)[None]))


ONE_HOP = {'hop_seconds': np.float32(1)}


@pytest.mark.parametrize(('signature', 'inputs', 'words'), [
    ('serving_default', {'waveform': np.zeros([2, 0], np.float32)}, 'waveform: no samples'),
    ('serving_default', {'waveform': np.zeros([0, 9], np.float32)}, 'waveform: an empty batch'),
    ('pcm', {'waveform': np.zeros([1, 0], np.int16)}, 'waveform: no samples'),
    ('serving_default', {'waveform': np.array([[0.1, np.nan]], np.float32)}, 'NaN or infinite'),
    ('windows', {'waveform': np.array([[0.1, -np.inf]], np.float32), **ONE_HOP}, 'NaN or infinite'),
    ('serving_default', {'waveform': np.array([[1000, -2000]], np.float32)},
     r'\[-1, 1\], these reach 2000.*pcm'),
    *(('windows', {'waveform': np.zeros([1, 9000], np.float32), 'hop_seconds': np.float32(hop)},
       'hop_seconds: must lie between') for hop in (0.0, -1.0, 6e-5, 3601.0, np.nan, np.inf)),
    ('serving_default', {'waveform': np.zeros([16385, 1], np.float32)},
     'waveform: 16385 windows in one request, .* at most 16384'),
    ('pcm', {'waveform': np.zeros([2**21, 1], np.int16)}, 'waveform: 2097152 windows'),
    ('windows', {'waveform': np.zeros([1, 2**20], np.float32), 'hop_seconds': np.float32(1 / RATE)},
     'waveform: 1032636 windows'),
    ('window', {'waveform': np.zeros([65, WINDOW], np.float32)}, 'with at most 64 examples'),
])
def test_inputs_that_are_refused(signatures, signature, inputs, words):
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        call(signatures[signature], **inputs)


@pytest.mark.parametrize(('bfloat16', 'tolerance'), [
    (False, 1e-4), pytest.param(True, 2e-2, marks=pytest.mark.slow)])
def test_other_towers_have_float32_signatures(bfloat16, tolerance):
    """Without unit length, embeddings are averaged as they are; outputs are float32 always."""
    model = small_model(normalize='none', bfloat16=bfloat16)
    sounds = random_sounds(2, 2 * WINDOW)
    got = call(AudioSignatures(model.audio_tower, model.config).pcm, waveform=sounds)
    parts = [keras_outputs(model.audio_tower, part) for part in np.split(sounds, 2, axis=1)]
    check(got, {name: np.mean([part[name] for part in parts], axis=0) for name in got}, tolerance)


def test_samples_stay_on_a_gpu(model):
    pcm = AudioSignatures(model.audio_tower, model.config).pcm
    graph = tf.function(pcm, autograph=False).get_concrete_function(
        tf.TensorSpec([None, None], tf.int16)).graph
    copied = copies_to_host(graph)
    # Places and shapes are copied, which are few numbers.
    assert copied and [line for line in copied if '(int16)' in line] == []
