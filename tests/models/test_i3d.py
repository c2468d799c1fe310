"""I3D against published channels and a plain twin."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from avts_tf.models.i3d import i3d
from tests.models.twins import backbone, i3d_twin, randomize, trainable_count


def test_i3d_parameter_count():
    # Channels as printed for Inception-v1 (Szegedy et al. 2015, table 1): #1x1, #3x3 reduce, #3x3,
    # #5x5 reduce, #5x5, pool proj.
    table = [(64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), (192, 96, 208, 16, 48, 64),
             (160, 112, 224, 24, 64, 64),
             (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64),
             (256, 160, 320, 32, 128, 128),
             (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)]

    def unit(before, channels, kernel):
        nonlocal channel_count
        channel_count += channels
        return before * channels * kernel**3 + channels  # one shift per channel

    channel_count = 0
    count, before = unit(3, 64, 7) + unit(64, 64, 1) + unit(64, 192, 3), 192
    for one, reduce3, three, reduce5, five, pool in table:
        count += unit(before, one, 1) + unit(before, reduce3, 1) + unit(reduce3, three, 3)
        count += unit(before, reduce5, 1) + unit(reduce5, five, 3) + unit(before, pool, 1)
        before = one + three + five + pool
    # The figure that goes around, 12.29 M, is that of ports whose batch norm has a scale per
    # channel too; the original has none.
    assert (count, channel_count, count + channel_count) == (12_279_984, 7_280, 12_287_264)
    assert trainable_count(backbone('i3d', [8, 32, 32, 3])) == count


@pytest.mark.parametrize('shape', [
    pytest.param((25, 224, 224, 3), marks=pytest.mark.slow), (64, 224, 224, 3)])
def test_output_shape_at_full_width(shape):
    assert i3d(keras.Input(shape)).shape[1:] == (-(-shape[0] // 8), 7, 7, 1024)


@pytest.mark.parametrize('shape', [
    pytest.param((16, 64, 64), marks=pytest.mark.slow), (9, 40, 33)])
def test_i3d_equals_its_twin(shape):
    model = randomize(backbone('i3d', [*shape, 3], 0.0625))
    x = tf.constant(np.random.default_rng(0).normal(size=[2, *shape, 3]), tf.float32)
    expected = i3d_twin(x, model).numpy()
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize('frames', [3, 5, 7, 8, 25])
def test_the_first_kernel_has_its_gradient_with_short_windows_too(frames):
    inputs = keras.Input([frames, 32, 32, 3])
    network = randomize(keras.Model(inputs, i3d(inputs, 0.0625)))
    layer = network.get_layer('conv1a')
    padded = keras.Model(inputs, layer.input)
    rng = np.random.default_rng(frames)
    x = padded(rng.standard_normal([2, frames, 32, 32, 3]).astype(np.float32))
    with tf.GradientTape() as tape:
        output = layer(x)
        direction = rng.standard_normal(output.shape).astype(np.float32)
        total = tf.reduce_sum(output * direction)
    found = tape.gradient(total, layer.kernel.value).numpy()
    # A convolution is linear in its kernel: the gradient gives the change along any step.
    step = rng.standard_normal(found.shape).astype(np.float32)
    layer.kernel.assign(step)
    assert np.sum(found * step) == pytest.approx(float(tf.reduce_sum(layer(x) * direction)),
                                                 rel=1e-3, abs=1.0)
