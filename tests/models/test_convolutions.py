"""Every kind of convolution that a network here uses, against NumPy: the kernels of some processors are wrong.

oneDNN chooses its kernels by the processor, and TensorFlow does not check them: its gradient of a strided 1 x 1 kernel with
fewer than 8 channels is wrong on processors that know AVX2 alone, and another one each time.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from avts_tf.config import PRESETS, make_config
from avts_tf.models.audio import build_audio_network
from avts_tf.models.build import build_model
from avts_tf.models.mcx import PictureConv3D
from avts_tf.models.video import build_video_tower

SMALLEST = {'video_width': 0.05, 'audio_width': 0.05}
BATCH, FRAMES = 2, 2
WIDE = 2**12  # inputs times outputs of a kernel from which pictures are smaller, to spare time


def convolve(x, kernel, gradient, strides, padding):
    """A convolution and its gradients in float64, by the definition.

    Args:
        x: float [batch, *space, inputs].
        kernel: float [*sizes, inputs, outputs].
        gradient: function from the output to its gradient, float of the same shape.
        strides: int per axis of space.
        padding: 'same' or 'valid', as TensorFlow means them.

    Returns:
        The output, the gradient of `x`, the gradient of `kernel`.
    """
    sizes, space = kernel.shape[:-2], x.shape[1:-1]
    missing = [max((-(-length // stride) - 1) * stride + size - length, 0) if padding == 'same' else 0
               for length, size, stride in zip(space, sizes, strides, strict=True)]
    padded = np.pad(x.astype(np.float64), [(0, 0), *[(m // 2, m - m // 2) for m in missing], (0, 0)])
    counts = [(length - size) // stride + 1 for length, size, stride in zip(padded.shape[1:-1], sizes, strides, strict=True)]
    places = {offset: (slice(None), *[slice(o, o + (n - 1) * s + 1, s) for o, n, s in zip(offset, counts, strides, strict=True)])
              for offset in np.ndindex(*sizes)}
    kernel = kernel.astype(np.float64)
    output = sum(padded[place] @ kernel[offset] for offset, place in places.items())
    gradient = gradient(output).astype(np.float64)
    to_kernel, to_padded = np.zeros(kernel.shape), np.zeros(padded.shape)
    axes = list(range(x.ndim - 1))
    for offset, place in places.items():
        to_kernel[offset] = np.tensordot(padded[place], gradient, axes=(axes, axes))
        to_padded[place] += gradient @ kernel[offset].T
    inner = [slice(m // 2, m // 2 + length) for m, length in zip(missing, space, strict=True)]
    return output, to_padded[(slice(None), *inner)], to_kernel


def layers_of(model):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from layers_of(layer)
        elif hasattr(layer, 'kernel') and hasattr(layer, 'strides'):
            yield layer


def networks():
    """The towers at the widths of every preset and at the smallest, and there the systems that they are compared with."""
    for values in [*PRESETS.values(), SMALLEST]:
        widths = {name: value for name, value in values.items() if name.endswith('_width')}
        small = {**widths, 'frames': 8, 'frame_size': 16}
        yield build_audio_network(make_config('large', bfloat16=False, **small), 46)
        for tower in ('mc2', 'mc3', 'i3d'):
            yield build_video_tower(make_config('large', bfloat16=False, video_tower=tower, **small))
    for system, regime in (('multisensory', 'hard'), ('l3', 'easy')):
        yield build_model(make_config('large', bfloat16=False, system=system, regime=regime, **small))


@pytest.fixture(scope='module')
def convolutions():
    """Dict from what tells convolutions apart to a layer of that kind."""
    return {(type(layer).__name__, tuple(layer.kernel.shape), layer.strides, layer.padding): layer
            for model in networks() for layer in layers_of(model)}


def test_convolutions_and_their_gradients_are_those_of_numpy_each_time(convolutions):
    kinds = {(name, shape[:-2], strides) for name, shape, strides, _ in convolutions}
    assert len(kinds) >= 14 and ('PictureConv3D', (1, 1, 1), (1, 2, 2)) in kinds, kinds
    wrong = []
    for (name, shape, strides, padding), layer in convolutions.items():
        rng = np.random.default_rng(0)
        size = 10 if shape[-2] * shape[-1] < WIDE else 4
        space = {1: (40,), 2: (size, size), 3: (FRAMES, size, size)}[len(shape) - 2]
        space = [max(length, kernel_size) for length, kernel_size in zip(space, shape, strict=False)]
        x = rng.normal(size=[BATCH, *space, shape[-2]]).astype(np.float32)
        kernel = rng.normal(size=shape).astype(np.float32)
        layer.kernel.assign(kernel)
        weights = {}

        def gradient(output, weights=weights, rng=rng):
            return weights.setdefault(output.shape, rng.normal(size=output.shape).astype(np.float32))

        expected = convolve(x, kernel, gradient, strides, padding)
        bias = layer.bias.numpy() if layer.use_bias else 0.0
        for _ in range(2):
            inputs = tf.constant(x)
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                output = layer(inputs, training=True) if name == 'WinogradConv3D' else layer(inputs)
            found = output - bias, *tape.gradient(output, [inputs, layer.kernel.value], gradient(output))
            for part, ours, truth in zip(('output', 'gradient of the input', 'gradient of the kernel'), found, expected,
                                         strict=True):
                error = np.abs(ours.numpy() - truth).max() / np.abs(truth).max()
                if not error < 1e-4:
                    wrong.append(f'{name} {shape} strides {strides} {padding}: {part} is off by {error:.1e}')
    assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize('size', [9, 10])
@pytest.mark.parametrize('kernel', [(1, 3, 3), (1, 1, 1)])
def test_a_strided_convolution_by_pictures_is_the_one_of_numpy(kernel, size):
    rng = np.random.default_rng(0)
    x = rng.normal(size=[2, 5, size, size + 3, 3]).astype(np.float32)
    layer = PictureConv3D(4, kernel, strides=(1, 2, 2), padding='valid', use_bias=False)
    layer.build(x.shape)
    output = layer(x)
    assert layer.compute_output_shape(x.shape) == output.shape
    expected, _, _ = convolve(x, layer.kernel.numpy(), np.ones_like, layer.strides, 'valid')
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
