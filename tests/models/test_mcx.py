"""MC2 and MC3 against published parameter counts and a plain twin."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from avts_tf.models.mcx import mc2, mc3
from tests.models.twins import backbone, mcx_twin, randomize, trainable_count


def test_mcx_parameter_counts():
    # torchvision's mc3_18 has 11,695,440 parameters, its fc 512 x 400 + 400 of them.
    assert trainable_count(backbone('mc3', [4, 32, 32, 3])) == 11_695_440 - 205_200 == 11_490_240
    # MC2 by its definition: ResNet-18's kernels, 3 x 7 x 7 in conv1 alone, two parameters per
    # channel of batch norm.
    count, before = 3 * 3 * 7 * 7 * 64 + 2 * 64, 64
    for channels in (64, 128, 256, 512):
        count += 9 * before * channels + 3 * 9 * channels * channels + 4 * 2 * channels
        count += before * channels + 2 * channels if before != channels else 0
        before = channels
    assert trainable_count(backbone('mc2', [4, 32, 32, 3])) == count


@pytest.mark.parametrize(('network', 'shape', 'expected'), [
    (mc2, (25, 112, 112, 3), (25, 7, 7, 512)),
    (mc3, (3, 56, 40, 3), (3, 4, 3, 512)),
])
def test_output_shapes_at_full_width(network, shape, expected):
    assert network(keras.Input(shape)).shape[1:] == expected


@pytest.mark.parametrize('name', ['mc2', 'mc3'])
@pytest.mark.parametrize('size', [(32, 48), (33, 21)])
def test_mcx_equals_its_twin(name, size):
    model = randomize(backbone(name, [5, *size, 3], 0.125))
    x = tf.constant(np.random.default_rng(0).normal(size=[2, 5, *size, 3]), tf.float32)
    expected = mcx_twin(x, model, name).numpy()
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_mc2_and_mc3_differ_in_the_first_stage_alone():
    kernels = {name: {layer.name: tuple(layer.kernel.shape)
                      for layer in backbone(name, [4, 16, 16, 3], 0.0625).layers
                      if hasattr(layer, 'kernel')} for name in ('mc2', 'mc3')}
    assert kernels['mc2'].keys() == kernels['mc3'].keys()
    for name, shape in kernels['mc3'].items():
        first_stage = name.startswith('conv2_')
        assert shape[0] == (3 if first_stage or name == 'conv1' else 1), name
        assert kernels['mc2'][name] == ((1, *shape[1:]) if first_stage else shape), name


@pytest.mark.parametrize(('name', 'reach'), [('mc2', 1), ('mc3', 5)])
def test_reach_in_time(name, reach):
    """A frame counts as far as the temporal kernels reach, conv1 and in MC3 four more."""
    model = randomize(backbone(name, [16, 16, 16, 3], 0.125))
    x = np.random.default_rng(0).normal(size=[1, 16, 16, 16, 3]).astype(np.float32)
    other = x.copy()
    other[:, 8] += 3.0
    changed = np.abs(model(x) - model(other)).max((0, 2, 3, 4)) > 1e-4
    np.testing.assert_array_equal(np.flatnonzero(changed), np.arange(8 - reach, 8 + reach + 1))


@pytest.mark.parametrize('name', ['mc3', pytest.param('i3d', marks=pytest.mark.slow)])
def test_width_scales_every_layer(name):
    full, half = backbone(name, [8, 16, 16, 3]), backbone(name, [8, 16, 16, 3], 0.5)
    for layer in full.layers:
        if hasattr(layer, 'kernel'):
            narrow = half.get_layer(layer.name).kernel.shape[-1]
            assert narrow * 2 == layer.kernel.shape[-1], layer.name
    least = min(layer.kernel.shape[-1] for layer in backbone(name, [8, 16, 16, 3], 0.05).layers
                if hasattr(layer, 'kernel'))
    assert least == 4
