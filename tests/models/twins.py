"""The networks once more, with TensorFlow's own operations, and what their tests share."""

import keras
import numpy as np
import tensorflow as tf

from avts_tf.models.i3d import i3d
from avts_tf.models.mcx import mcx

SMALL = {'frames': 12, 'fps': 25.0, 'frame_size': 16, 'sample_rate': 16000, 'video_width': 0.0625,
         'audio_width': 0.0625, 'embedding_size': 16, 'head': 'spans', 'head_spans': 4,
         'normalize': 'none', 'bfloat16': False}


def backbone(name, shape, width=1.0):
    inputs = keras.Input(shape)
    return keras.Model(inputs, i3d(inputs, width) if name == 'i3d' else mcx(inputs, name, width))


def randomize(model, seed=0):
    """Gives every batch norm its own statistics, scale and shift, so that a misplaced one shows."""
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
    return tf.nn.batch_normalization(x, layer.moving_mean.value, layer.moving_variance.value, shift,
                                     scale, 1e-5)


def mcx_twin(x, model, name):
    """MC2 or MC3, every convolution padded by half its kernel on both sides, as in PyTorch."""
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


def i3d_twin(x, model):
    """I3D in TensorFlow's own padding, in which it was published."""
    def unit(x, layer, stride=1):
        x = tf.nn.conv3d(x, model.get_layer(layer).kernel.value, [1, stride, stride, stride, 1],
                         'SAME')
        return tf.nn.relu(batch_norm(x, model.get_layer(f'{layer}_bn')))

    def pool(x, size, stride):
        return tf.nn.max_pool3d(x, size, stride, 'SAME')

    def mixed(x, name):
        name = f'mixed_{name}'
        return tf.concat([unit(x, f'{name}_0a'), unit(unit(x, f'{name}_1a'), f'{name}_1b'),
                          unit(unit(x, f'{name}_2a'), f'{name}_2b'),
                          unit(pool(x, 3, 1), f'{name}_3b')], -1)

    x = pool(unit(x, 'conv1a', 2), [1, 3, 3], [1, 2, 2])
    x = pool(unit(unit(x, 'conv2b'), 'conv2c'), [1, 3, 3], [1, 2, 2])
    x = pool(mixed(mixed(x, '3b'), '3c'), 3, 2)
    for name in ('4b', '4c', '4d', '4e', '4f'):
        x = mixed(x, name)
    return mixed(mixed(pool(x, 2, 2), '5b'), '5c')


def sounds(config, batch=2):
    """int16 [batch, window_samples]: two windows of noise, one loud and one soft."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, [batch, config.clip.window_samples])
    return (noise * [[1.0], [0.05]] * 32768).astype(np.int16)
