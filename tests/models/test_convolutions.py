"""Every kind of convolution that a network here uses, against NumPy: some kernels are wrong.

oneDNN chooses its kernels by the processor, and TensorFlow does not check them: its gradient of a
strided 1 x 1 kernel with fewer than 8 channels is wrong on processors that have AVX2 but no
AVX-512, and differs from run to run.
"""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from avts_tf.config import PRESETS, make_config
from avts_tf.models import convolutions as convolutions_module
from avts_tf.models.audio import build_audio_network
from avts_tf.models.build import build_model
from avts_tf.models.convolutions import FramewiseConv3D, WinogradConv3D
from avts_tf.models.mcx import mcx
from avts_tf.models.target import plain_operations
from avts_tf.models.video import build_video_tower
from tests.graphs import built_for_gpu, called_by, operations

SMALLEST = 0.05, 0.05  # widths of the video and the audio network

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
    missing = [max((-(-length // stride) - 1) * stride + size - length, 0) if padding == 'same'
               else 0
               for length, size, stride in zip(space, sizes, strides, strict=True)]
    padded = np.pad(x.astype(np.float64), [(0, 0), *[(m // 2, m - m // 2) for m in missing],
                                           (0, 0)])
    counts = [(length - size) // stride + 1 for length, size,
              stride in zip(padded.shape[1:-1], sizes, strides, strict=True)]
    places = {offset: (slice(None), *[slice(o, o + (n - 1) * s + 1, s) for o, n,
                                      s in zip(offset, counts, strides, strict=True)])
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


def networks(widths):
    """The towers at some widths, and the systems that they are compared with at the last of them.
    """
    for width in widths:
        small = {'video_width': width[0], 'audio_width': width[1], 'frames': 8, 'frame_size': 16}
        yield build_audio_network(make_config('tiny', **small), 46)
        for tower in ('mc2', 'mc3', 'i3d'):
            yield build_video_tower(make_config('tiny', video_tower=tower, **small))
    for system, regime in (('multisensory', 'hard'), ('l3', 'easy')):
        yield build_model(make_config('tiny', system=system, regime=regime, **small))


def convolutions(widths, of_each):
    """Layers of the networks, one of each kind: `of_each` gives what tells kinds apart."""
    return {of_each(layer): layer for model in networks(widths) for layer in layers_of(model)}


def kind_of(layer):
    """What kernels differ in, but for their channels."""
    return type(layer).__name__, layer.kernel.shape[:-2], layer.strides, layer.padding


def test_convolutions_and_their_gradients_are_those_of_numpy_each_time():
    """One of each kind, with the fewest channels: where the kernels went wrong."""
    layers = convolutions([SMALLEST], kind_of)
    assert len(layers) >= 13 and ('FramewiseConv3D', (1, 1, 1), (1, 2, 2), 'same') in layers, layers
    check(layers.values())


@pytest.mark.slow
def test_all_convolutions_of_all_presets():
    widths = [(values.get('video_width', 1.0), values.get('audio_width', 1.0))
              for values in PRESETS.values()]
    layers = convolutions([*widths, SMALLEST],
                          lambda layer: (kind_of(layer), tuple(layer.kernel.shape)))
    assert any(isinstance(layer, WinogradConv3D) for layer in layers.values())
    check(layers.values())


def check(layers):
    """Compares layers and their gradients with `convolve`, twice: a wrong kernel may vary."""
    wrong = []
    for layer in layers:
        name, shape = type(layer).__name__, tuple(layer.kernel.shape)
        rng = np.random.default_rng(0)
        size = 10 if shape[-2] * shape[-1] < WIDE else 4
        space = {1: (40,), 2: (size, size), 3: (FRAMES, size, size)}[len(shape) - 2]
        space = [max(length, kernel_size) for length,
                 kernel_size in zip(space, shape, strict=False)]
        x = rng.normal(size=[BATCH, *space, shape[-2]]).astype(np.float32)
        kernel = rng.normal(size=shape).astype(np.float32)
        layer.kernel.assign(kernel)
        weights = {}

        def gradient(output, weights=weights, rng=rng):
            return weights.setdefault(output.shape,
                                      rng.normal(size=output.shape).astype(np.float32))

        expected = convolve(x, kernel, gradient, layer.strides, layer.padding)
        bias = layer.bias.numpy() if layer.use_bias else 0.0
        for _ in range(2):
            inputs = tf.constant(x)
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                output = layer(inputs, training=True) if name == 'WinogradConv3D' else layer(inputs)
            gradients = tape.gradient(output, [inputs, layer.kernel.value], gradient(output))
            parts = zip(('output', 'gradient of the input', 'gradient of the kernel'),
                        (output - bias, *gradients), expected, strict=True)
            for part, found, truth in parts:
                error = np.abs(found.numpy() - truth).max() / np.abs(truth).max()
                if not error < 1e-4:
                    wrong.append(f'{name} {shape} strides {layer.strides} {layer.padding}: {part} '
                                 f'is off by {error:.1e}')
    assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize('plain', [False, True])
@pytest.mark.parametrize('size', [9, 10])
@pytest.mark.parametrize('kernel', [(1, 3, 3), (1, 1, 1)])
def test_a_strided_convolution_is_the_one_of_numpy_by_pictures_or_plain(kernel, size, plain):
    rng = np.random.default_rng(0)
    x = rng.normal(size=[2, 5, size, size + 3, 3]).astype(np.float32)
    layer = FramewiseConv3D(4, kernel, strides=(1, 2, 2), padding='valid', use_bias=False)
    layer.build(x.shape)
    with plain_operations() if plain else contextlib.nullcontext():
        output = layer(x)
    assert layer.compute_output_shape(x.shape) == output.shape
    expected, _, _ = convolve(x, layer.kernel.numpy(), np.ones_like, layer.strides, 'valid')
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def always_winograd(monkeypatch):
    """Winograd's algorithm with few channels too, where it would not be faster."""
    monkeypatch.setattr(WinogradConv3D, '_is_faster', lambda *_: True)


def winograd_and_plain(frames, kind, kernel=(3, 3, 3), **call):
    """Outputs and gradients of `WinogradConv3D` and of Keras's layer as float32 arrays.

    bfloat16 holds what goes in exactly.
    """
    rng, results = np.random.default_rng(0), []
    inputs, weights, values = (
        tf.cast(tf.cast(rng.normal(size=shape), tf.bfloat16), kind)
        for shape in ([2, frames, 7, 6, 5], [2, frames, 7, 6, 4], [*kernel, 5, 4]))
    for layer in (WinogradConv3D, keras.layers.Conv3D):
        layer = layer(4, kernel, padding='same', use_bias=False, dtype='mixed_bfloat16'
                      if kind == tf.bfloat16 else 'float32')
        layer.build(inputs.shape)
        layer.kernel.assign(tf.cast(values, tf.float32))
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, **call) if isinstance(layer, WinogradConv3D) else layer(inputs)
            total = tf.reduce_sum(outputs * weights)
        found = [outputs, *tape.gradient(total, [inputs, layer.kernel.value])]
        results.append([tf.cast(value, tf.float32).numpy() for value in found])
    return results


@pytest.mark.parametrize('frames', [1, 6, 7])
@pytest.mark.parametrize('kernel', [(3, 3, 3), (1, 3, 3), (3, 3, 5)])
@pytest.mark.parametrize('by_matmul', [False, True])
def test_winograd_equals_the_plain_convolution(
        frames, kernel, by_matmul, always_winograd, monkeypatch):
    monkeypatch.setattr(convolutions_module, '_has_avx2_alone', lambda: by_matmul)
    monkeypatch.setattr(convolutions_module, 'WINOGRAD_CHANNELS', 1)
    pairs = list(zip(*winograd_and_plain(frames, tf.float32, kernel, training=True), strict=True))
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
    assert any((ours != theirs).any() for ours, theirs in pairs)  # computed in another way


@pytest.mark.parametrize(('where', 'expected'), [
    ('CPU', {'Conv2D'}), ('GPU', {'Conv3D'}), ('anywhere', {'Conv3D'})])
def test_ways_for_cpus_are_for_graphs_of_this_cpu_alone(
        where, expected, always_winograd):
    layers = [FramewiseConv3D(4, (1, 3, 3), strides=(1, 2, 2), use_bias=False),
              FramewiseConv3D(4, 1, strides=(1, 2, 2), use_bias=False),
              WinogradConv3D(4, 3, padding='same', use_bias=False)]
    contexts = {'CPU': contextlib.nullcontext, 'GPU': built_for_gpu, 'anywhere': plain_operations}
    for layer in layers:
        layer.build([None, 4, 8, 8, 3])
        training = {'training': True} if isinstance(layer, WinogradConv3D) else {}
        function = tf.function(lambda x, layer=layer, given=training: layer(x, **given))
        with contexts[where]():
            graph = function.get_concrete_function(tf.TensorSpec([None, 4, 8, 8, 3])).graph
        found = operations(graph)
        assert {op.type for op in found if op.type.startswith('Conv')} == expected
        assert where == 'CPU' or not any(called_by(op) for op in found)  # nothing that XLA must do


def test_winograd_in_bfloat16_is_as_exact_as_it_says(always_winograd):
    exact = winograd_and_plain(6, tf.float32, training=True)[1]
    ours, plain = winograd_and_plain(6, tf.bfloat16, training=True)
    for values, others, truth in zip(ours, plain, exact, strict=True):
        assert np.std(values - truth) < 4 * np.std(others - truth)


def test_winograd_is_for_training_alone(always_winograd):
    ours, plain = winograd_and_plain(6, tf.float32, training=False)
    np.testing.assert_array_equal(ours[0], plain[0])


@pytest.mark.parametrize(('flags', 'width', 'size', 'expected'), [
    ('avx2', 1.0, 112, (13, 4)), ('avx2', 1.0, 80, (10, 4)), ('avx2', 0.25, 112, (10, 0)),
    ('avx2', 0.25, 48, (4, 0)), ('avx2', 0.125, 32, (0, 0)),
    ('avx2 avx512f', 1.0, 112, (13, 4)), ('avx2 avx512f', 0.25, 48, (0, 0)),
    ('asimd', 0.25, 112, (6, 0))])
def test_winograd_is_used_where_it_is_faster(flags, width, size, expected, monkeypatch):
    """Number of layers in float32 and in bfloat16."""
    monkeypatch.setattr(convolutions_module, 'instructions', lambda: frozenset(flags.split()))
    inputs = keras.Input([4, size, size, 3])
    layers = [layer for layer in keras.Model(inputs, mcx(inputs, 'mc3', width)).layers
              if isinstance(layer, WinogradConv3D)]
    assert len(layers) == 13
    found = [sum(layer._is_faster(keras.KerasTensor(layer.input.shape, dtype))
                 for layer in layers) for dtype in ('float32', 'bfloat16')]
    assert tuple(found) == expected
