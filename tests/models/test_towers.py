"""The towers against published parameter counts and against plain twins written here with TensorFlow's own operations."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from avts_tf.config import TowerConfig, make_config
from avts_tf.models.audio import build_audio_network, build_audio_tower, embed_waveform
from avts_tf.models.i3d import i3d
from avts_tf.models.layers import embedding_head
from avts_tf.models.mcx import WinogradConv3D, mcx
from avts_tf.models.two_tower import build_two_tower
from avts_tf.models.video import NormalizePixels, build_video_tower

SMALL = {'frames': 12, 'fps': 25.0, 'frame_size': 16, 'sample_rate': 16000, 'video_width': 0.0625, 'audio_width': 0.0625,
         'embedding_size': 16, 'head': 'spans', 'head_spans': 4, 'normalize': 'none', 'bfloat16': False}


def backbone(name, shape, width=1.0):
    inputs = keras.Input(shape)
    return keras.Model(inputs, i3d(inputs, width) if name == 'i3d' else mcx(inputs, name, width))


def randomize(model, seed=0):
    """Gives every batch norm its own mean, variance, scale and shift, so that a misplaced one shows."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.path.endswith(('gamma', 'moving_variance')):
            variable.assign(rng.uniform(0.5, 2.0, variable.shape))
        elif variable.path.endswith(('beta', 'moving_mean')):
            variable.assign(rng.normal(0.0, 0.3, variable.shape))
    return model


def trainable_count(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def batch_norm(x, layer):
    scale = layer.gamma.value if layer.scale else None
    shift = layer.beta.value if layer.center else None
    return tf.nn.batch_normalization(x, layer.moving_mean.value, layer.moving_variance.value, shift, scale, 1e-5)


# --- published sizes


def test_mcx_parameter_counts():
    # torchvision's mc3_18 has 11,695,440 parameters, its fc 512 x 400 + 400 of them.
    assert trainable_count(backbone('mc3', [4, 32, 32, 3])) == 11_695_440 - 205_200 == 11_490_240
    # MC2 by its definition: ResNet-18's kernels, 3 x 7 x 7 in conv1 alone, two parameters per channel of batch norm.
    count, before = 3 * 3 * 7 * 7 * 64 + 2 * 64, 64
    for channels in (64, 128, 256, 512):
        count += 9 * before * channels + 3 * 9 * channels * channels + 4 * 2 * channels
        count += before * channels + 2 * channels if before != channels else 0
        before = channels
    assert trainable_count(backbone('mc2', [4, 32, 32, 3])) == count


def test_i3d_parameter_count():
    # Channels as printed for Inception-v1 (Szegedy et al. 2015, table 1): #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj.
    table = [(64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), (192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64),
             (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128),
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
    # The figure that goes around, 12.29 M, is that of ports whose batch norm has a scale per channel too; the original has none.
    assert (count, channel_count, count + channel_count) == (12_279_984, 7_280, 12_287_264)
    assert trainable_count(backbone('i3d', [8, 32, 32, 3])) == count


@pytest.mark.parametrize(('name', 'shape', 'expected'), [
    ('mc2', (25, 112, 112, 3), (25, 7, 7, 512)),
    ('mc3', (25, 112, 112, 3), (25, 7, 7, 512)),
    ('mc3', (3, 56, 40, 3), (3, 4, 3, 512)),
    ('i3d', (25, 224, 224, 3), (4, 7, 7, 1024)),
    ('i3d', (64, 224, 224, 3), (8, 7, 7, 1024)),
])
def test_output_shapes_at_full_width(name, shape, expected):
    inputs = keras.Input(shape)
    outputs = i3d(inputs) if name == 'i3d' else mcx(inputs, name)
    assert outputs.shape[1:] == expected


def test_audio_network_at_full_width():
    config = make_config('paper', audio_width=1.0, embedding_size=128, head='average', normalize='length')
    network = build_audio_network(config, 99)
    kernels = [tuple(network.get_layer(f'conv{number}').kernel.shape) for number in range(1, 6)]
    assert kernels == [(3, 3, 1, 64), (3, 3, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256), (3, 3, 256, 256)]
    # Two pools by 2 in time, three in frequency: 99 steps of 10 ms -> 25 of 40 ms, 40 bands -> 5.
    assert network.get_layer('pool5').output.shape[1:] == (25, 5, 256)
    assert tuple(network.get_layer('fc6').kernel.shape) == (5 * 256, 512)
    assert {name: output.shape[1:] for name, output in network.output.items()} == {'embedding': (128,), 'conv5': (256,)}


# --- plain twins


def mcx_twin(x, model, name):
    """MC2 or MC3 as the papers tell it, every convolution padded by half its kernel on both sides, as PyTorch does."""
    def conv_bn(x, layer, stride):
        kernel = model.get_layer(layer).kernel.value
        half = [size // 2 for size in kernel.shape[:3]]
        x = tf.pad(x, [[0, 0], *[[h, h] for h in half], [0, 0]])
        x = tf.nn.conv3d(x, kernel, [1, 1, stride, stride, 1], 'VALID')
        return batch_norm(x, model.get_layer(f'{layer}_bn'))

    x = tf.nn.relu(conv_bn(x, 'conv1', 2))
    for stage in (2, 3, 4, 5):
        for block in (1, 2):
            prefix, stride = f'conv{stage}_{block}', 2 if stage > 2 and block == 1 else 1
            shortcut = conv_bn(x, f'{prefix}_shortcut', stride) if stride == 2 else x
            y = tf.nn.relu(conv_bn(x, f'{prefix}_conv1', stride))
            x = tf.nn.relu(conv_bn(y, f'{prefix}_conv2', 1) + shortcut)
    return x


@pytest.mark.parametrize('name', ['mc2', 'mc3'])
@pytest.mark.parametrize('size', [(32, 48), (33, 21)])
def test_mcx_equals_its_twin(name, size):
    model = randomize(backbone(name, [5, *size, 3], 0.125))
    x = tf.constant(np.random.default_rng(0).normal(size=[2, 5, *size, 3]), tf.float32)
    expected = mcx_twin(x, model, name).numpy()
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def i3d_twin(x, model):
    """I3D in TensorFlow's own padding, in which it was published."""
    def unit(x, layer, stride=1):
        x = tf.nn.conv3d(x, model.get_layer(layer).kernel.value, [1, stride, stride, stride, 1], 'SAME')
        return tf.nn.relu(batch_norm(x, model.get_layer(f'{layer}_bn')))

    def pool(x, size, stride):
        return tf.nn.max_pool3d(x, size, stride, 'SAME')

    def mixed(x, name):
        name = f'mixed_{name}'
        return tf.concat([unit(x, f'{name}_0a'), unit(unit(x, f'{name}_1a'), f'{name}_1b'),
                          unit(unit(x, f'{name}_2a'), f'{name}_2b'), unit(pool(x, 3, 1), f'{name}_3b')], -1)

    x = pool(unit(x, 'conv1a', 2), [1, 3, 3], [1, 2, 2])
    x = pool(unit(unit(x, 'conv2b'), 'conv2c'), [1, 3, 3], [1, 2, 2])
    x = pool(mixed(mixed(x, '3b'), '3c'), 3, 2)
    for name in ('4b', '4c', '4d', '4e', '4f'):
        x = mixed(x, name)
    return mixed(mixed(pool(x, 2, 2), '5b'), '5c')


@pytest.mark.parametrize('shape', [(16, 64, 64), (9, 40, 33)])
def test_i3d_equals_its_twin(shape):
    model = randomize(backbone('i3d', [*shape, 3], 0.0625))
    x = tf.constant(np.random.default_rng(0).normal(size=[2, *shape, 3]), tf.float32)
    expected = i3d_twin(x, model).numpy()
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_audio_network_equals_its_twin():
    config = make_config('tiny', **{**SMALL, 'head': 'average'})
    network = randomize(build_audio_network(config, 46))
    x = tf.constant(np.random.default_rng(0).normal(size=[2, 46, 40]), tf.float32)
    outputs = network(x)
    y = x[..., None]
    for number, stride in ((1, (2, 2)), (2, (2, 2)), (3, None), (4, None), (5, (1, 2))):
        y = tf.nn.conv2d(y, network.get_layer(f'conv{number}').kernel.value, 1, 'SAME')
        y = conv5 = tf.nn.relu(batch_norm(y, network.get_layer(f'conv{number}_bn')))
        y = tf.nn.max_pool2d(y, 3, stride, 'SAME') if stride else y
    y = tf.reshape(y, [2, y.shape[1], -1]) @ network.get_layer('fc6').kernel.value
    y = tf.reduce_mean(tf.nn.relu(batch_norm(y, network.get_layer('fc6_bn'))), 1)
    projection = network.get_layer('projection')
    np.testing.assert_allclose(outputs['conv5'], tf.reduce_mean(conv5, [1, 2]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs['embedding'], y @ projection.kernel.value + projection.bias.value, rtol=1e-4, atol=1e-5)


def test_mc2_and_mc3_differ_in_the_first_stage_alone():
    kernels = {name: {layer.name: tuple(layer.kernel.shape) for layer in backbone(name, [4, 16, 16, 3], 0.0625).layers
                      if hasattr(layer, 'kernel')} for name in ('mc2', 'mc3')}
    assert kernels['mc2'].keys() == kernels['mc3'].keys()
    for name, shape in kernels['mc3'].items():
        first_stage = name.startswith('conv2_')
        assert shape[0] == (3 if first_stage or name == 'conv1' else 1), name
        assert kernels['mc2'][name] == ((1, *shape[1:]) if first_stage else shape), name


@pytest.mark.parametrize(('name', 'reach'), [('mc2', 1), ('mc3', 5)])
def test_reach_in_time(name, reach):
    """A frame is felt as far as the temporal kernels reach, conv1 and in MC3 four more, and at its own place: no stride."""
    model = randomize(backbone(name, [16, 16, 16, 3], 0.125))
    x = np.random.default_rng(0).normal(size=[1, 16, 16, 16, 3]).astype(np.float32)
    other = x.copy()
    other[:, 8] += 3.0
    changed = np.abs(model(x) - model(other)).max((0, 2, 3, 4)) > 1e-4
    np.testing.assert_array_equal(np.flatnonzero(changed), np.arange(8 - reach, 8 + reach + 1))


@pytest.mark.parametrize('name', ['mc3', 'i3d'])
def test_width_scales_every_layer(name):
    full, half = backbone(name, [8, 16, 16, 3]), backbone(name, [8, 16, 16, 3], 0.5)
    for layer in full.layers:
        if hasattr(layer, 'kernel'):
            assert half.get_layer(layer.name).kernel.shape[-1] * 2 == layer.kernel.shape[-1], layer.name
    least = min(layer.kernel.shape[-1] for layer in backbone(name, [8, 16, 16, 3], 0.05).layers if hasattr(layer, 'kernel'))
    assert least == 4


# --- heads


def head_model(steps=6, channels=5, **towers):
    inputs = keras.Input([steps, channels])
    defaults = {'embedding_size': 8, 'head': 'average', 'head_spans': 4, 'normalize': 'none'}
    return keras.Model(inputs, embedding_head(inputs, TowerConfig(**{**defaults, **towers})))


def head_inputs(batch=3, steps=6, channels=5):
    return np.random.default_rng(3).normal(0.5, 1.0, [batch, steps, channels]).astype(np.float32)


def test_heads():
    x = head_inputs()
    spans = np.stack([x[:, :2].mean(1), x[:, 2:4].mean(1), x[:, 4:].mean(1)], 1)
    cases = {'average': x.mean(1), 'flatten': x.reshape(3, -1), 'spans': spans}
    for head, features in cases.items():
        model = head_model(head=head, head_spans=3, embedding_size=9)
        projection = model.get_layer('projection')
        projection.bias.assign(np.arange(projection.bias.shape[0]))
        expected = (features @ projection.kernel.numpy() + projection.bias.numpy()).reshape(3, -1)
        assert expected.shape == (3, 9)
        np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-5)


def test_only_average_forgets_the_order():
    x = head_inputs()
    for head in ('average', 'flatten', 'spans'):
        model = head_model(head=head)
        same = np.allclose(model(x), model(x[:, ::-1]), atol=1e-5)
        assert same == (head == 'average')


@pytest.mark.parametrize('head', ['average', 'flatten', 'spans'])
def test_scale_of_embeddings(head):
    x = head_inputs(batch=32)
    lengths = np.linalg.norm(head_model(head=head, normalize='length')(x), axis=1)
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)
    model = head_model(head=head, normalize='whiten')
    whitened = model(x, training=True).numpy()
    np.testing.assert_allclose(whitened.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(whitened.var(0), 0.5 / 8, rtol=1e-2)
    # Unrelated clips then lie at distance 1, root mean square.
    np.testing.assert_allclose(2 * whitened.var(0).sum(), 1.0, rtol=1e-2)
    for _ in range(200):
        model(x, training=True)
    np.testing.assert_allclose(model(x), whitened, atol=1e-3)  # the moving statistics have come to those of the batch


# --- whole towers


@pytest.mark.parametrize('name', ['mc2', 'mc3', 'i3d'])
def test_video_tower(name):
    config = make_config('tiny', **{**SMALL, 'video_tower': name, 'frame_size': 32})
    tower = randomize(build_video_tower(config))
    frames = np.random.default_rng(0).integers(0, 256, [2, 12, 32, 32, 3], dtype=np.uint8)
    outputs = tower(frames)
    assert tuple(outputs['embedding'].shape) == (2, 16)
    pixels = frames / 255.0
    if name == 'i3d':
        x = i3d_twin(tf.constant(pixels * 2 - 1, tf.float32), tower)
    else:
        standard = (pixels - [0.43216, 0.394666, 0.37645]) / [0.22803, 0.22145, 0.216989]
        x = mcx_twin(tf.constant(standard, tf.float32), tower, name)
    np.testing.assert_allclose(outputs['features'], tf.reduce_mean(x, [1, 2, 3]), rtol=1e-3, atol=1e-4)
    # The head gets the mean over space alone.
    steps = tf.reduce_mean(x, [2, 3]).numpy()
    spans = np.stack([part.mean(1) for part in np.split(steps.repeat(4, 1), 4, axis=1)], 1)
    expected = spans @ tower.get_layer('projection').kernel.numpy() + tower.get_layer('projection').bias.numpy()
    np.testing.assert_allclose(outputs['embedding'], expected.reshape(2, 16), rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_pixels():
    black_white = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    np.testing.assert_allclose(NormalizePixels(True)(black_white), [[[-1] * 3, [1] * 3]])
    standard = NormalizePixels(False)(black_white).numpy()
    np.testing.assert_allclose(standard[0, 1] - standard[0, 0], [1 / 0.22803, 1 / 0.22145, 1 / 0.216989], rtol=1e-5)


def sounds(config, batch=2):
    rng = np.random.default_rng(0)
    return (rng.uniform(-0.5, 0.5, [batch, config.clip.window_samples]) * [[1.0], [0.05]] * 32768).astype(np.int16)


def test_audio_tower_takes_integers_and_floats():
    config = make_config('tiny', **SMALL)
    tower, waveform = randomize(build_audio_tower(config)), sounds(make_config('tiny', **SMALL))
    outputs = tower(waveform)
    assert np.abs(outputs['embedding'][0] - outputs['embedding'][1]).max() > 1e-2  # it hears at all
    for sound in (waveform, (waveform / np.float32(32768))):
        for name, value in embed_waveform(tower, tf.constant(sound)).items():
            np.testing.assert_allclose(value, outputs[name], rtol=1e-4, atol=1e-5)


def rounding_of_bfloat16_convolutions():
    """Relative error of a 3-D convolution of bfloat16 numbers: 0.002 where its sums are taken in float32, as they should be.

    Without AVX-512 they are taken in bfloat16: oneDNN knows no bfloat16 there, and TensorFlow falls back to kernels whose error
    grows with the number of terms.
    """
    rng = np.random.default_rng(0)
    x, kernel = (tf.cast(rng.normal(size=shape), tf.bfloat16) for shape in ([1, 4, 8, 8, 256], [1, 1, 1, 256, 16]))
    exact = tf.reshape(tf.cast(x, tf.float64), [-1, 256]) @ tf.cast(kernel[0, 0, 0], tf.float64)
    found = tf.cast(tf.reshape(tf.nn.conv3d(x, kernel, [1] * 5, 'SAME'), [-1, 16]), tf.float64)
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize('tower', ['mc3', 'i3d', 'audio'])
def test_bfloat16_is_close_to_float32(tower):
    results = {}
    for policy in ('float32', 'mixed_bfloat16'):
        config = make_config('tiny', **{**SMALL, 'video_tower': 'mc3' if tower == 'audio' else tower, 'frame_size': 32})
        keras.utils.set_random_seed(1)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            model = randomize(build_audio_tower(config) if tower == 'audio' else build_video_tower(config))
        finally:
            keras.config.set_dtype_policy(before)
        assert {variable.dtype for variable in model.variables} == {'float32'}
        rng = np.random.default_rng(0)
        # Two clips as unlike as noise and near darkness.
        frames = (rng.integers(0, 256, [2, 12, 32, 32, 3]) * np.array([1.0, 0.2]).reshape(2, 1, 1, 1, 1)).astype(np.uint8)
        results[policy] = {name: value.numpy() for name, value in model(sounds(config) if tower == 'audio' else frames).items()}
    sums_in_float32 = tower == 'audio' or rounding_of_bfloat16_convolutions() < 0.003
    for name, exact in results['float32'].items():
        rounded = results['mixed_bfloat16'][name]
        assert rounded.dtype == np.float32
        error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
        # A number keeps 8 bits (0.4 %), over some twenty layers; far less than what tells the two clips apart.
        assert 0 < error < (0.03 if sums_in_float32 else 0.1), (name, error)
        if sums_in_float32:
            assert np.linalg.norm(rounded - exact) < 0.2 * np.linalg.norm(exact[0] - exact[1]), name


def winograd_and_plain(frames, kind, **call):
    """Outputs and gradients of `WinogradConv3D` and of Keras's layer as float32 arrays; bfloat16 holds what goes in exactly."""
    rng, results = np.random.default_rng(0), []
    inputs, weights, kernel = (
        tf.cast(tf.cast(rng.normal(size=shape), tf.bfloat16), kind)
        for shape in ([2, frames, 7, 6, 5], [2, frames, 7, 6, 4], [3, 3, 3, 5, 4]))
    for layer in (WinogradConv3D, keras.layers.Conv3D):
        layer = layer(4, 3, padding='same', use_bias=False, dtype='mixed_bfloat16' if kind == tf.bfloat16 else 'float32')
        layer.build(inputs.shape)
        layer.kernel.assign(tf.cast(kernel, tf.float32))
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, **call) if isinstance(layer, WinogradConv3D) else layer(inputs)
            total = tf.reduce_sum(outputs * weights)
        values = [outputs, *tape.gradient(total, [inputs, layer.kernel.value])]
        results.append([tf.cast(value, tf.float32).numpy() for value in values])
    return results


@pytest.mark.parametrize('frames', [2, 6, 7])
def test_winograd_equals_the_plain_convolution(frames):
    for ours, theirs in zip(*winograd_and_plain(frames, tf.float32, training=True), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def test_winograd_in_bfloat16_is_as_exact_as_it_says():
    exact = winograd_and_plain(6, tf.float32, training=True)[1]
    ours, plain = winograd_and_plain(6, tf.bfloat16, training=True)
    for values, others, truth in zip(ours, plain, exact, strict=True):
        assert np.std(values - truth) < 4 * np.std(others - truth)


def test_winograd_is_for_training_and_wide_towers_alone():
    ours, plain = winograd_and_plain(6, tf.float32, training=False)
    np.testing.assert_array_equal(ours[0], plain[0])
    inputs = keras.Input([4, 16, 16, 3])
    for width, used in ((1.0, 4), (0.25, 0)):
        layers = keras.Model(inputs, mcx(inputs, 'mc3', width)).layers
        assert sum(isinstance(layer, WinogradConv3D) for layer in layers) == used


def test_bfloat16_is_for_the_networks_alone():
    model = build_two_tower(make_config('tiny', **{**SMALL, 'bfloat16': True}))
    audio = model.audio_tower
    assert model.video_tower.get_layer('conv1').compute_dtype == 'bfloat16'
    assert audio.get_layer('audio_network').get_layer('conv1').compute_dtype == 'bfloat16'
    assert audio.get_layer('log_mel').compute_dtype == 'float32' and {value.dtype for value in model.weights} == {'float32'}
    assert {output.dtype for output in model.output.values()} == {'float32'} and keras.config.dtype_policy().name == 'float32'
