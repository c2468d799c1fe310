"""I3D-RGB: Inception-v1 with its kernels inflated to three dimensions (Carreira and Zisserman 2017)."""

import keras

from avts_tf.models.layers import BatchNorm
from avts_tf.models.mcx import scaled

# Channels of the four branches: 1x1 | 1x1 then 3x3 | 1x1 then 3x3 | pool then 1x1.
MIXED = {
    '3b': (64, 96, 128, 16, 32, 32), '3c': (128, 128, 192, 32, 96, 64),
    '4b': (192, 96, 208, 16, 48, 64), '4c': (160, 112, 224, 24, 64, 64), '4d': (128, 128, 256, 24, 64, 64),
    '4e': (112, 144, 288, 32, 64, 64), '4f': (256, 160, 320, 32, 128, 128),
    '5b': (256, 160, 320, 32, 128, 128), '5c': (384, 192, 384, 48, 128, 128),
}


def i3d(x, width=1.0, synchronized=True):
    """The convolutions of I3D.

    Args:
        x: float [batch, frames, height, width, 3], in [-1, 1].
        width: multiplier of the channels.
        synchronized: batch-norm statistics over all replicas.

    Returns:
        float [batch, ceil(frames / 8), ceil(height / 32), ceil(width / 32), 1024 * width].
    """
    def unit(x, channels, kernel, stride, name):
        x = keras.layers.Conv3D(scaled(channels, width), kernel, strides=stride, padding='same', use_bias=False,
                                kernel_initializer='he_normal', name=name)(x)
        # Inception's batch norm has no scale: the ReLU that follows makes it redundant.
        x = BatchNorm(scale=False, synchronized=synchronized, name=f'{name}_bn')(x)
        return keras.layers.ReLU(name=f'{name}_relu')(x)

    def pool(x, size, stride, name):
        return keras.layers.MaxPooling3D(size, stride, padding='same', name=name)(x)

    def mixed(x, name):
        c = MIXED[name]
        branches = [
            unit(x, c[0], 1, 1, f'mixed_{name}_0a'),
            unit(unit(x, c[1], 1, 1, f'mixed_{name}_1a'), c[2], 3, 1, f'mixed_{name}_1b'),
            unit(unit(x, c[3], 1, 1, f'mixed_{name}_2a'), c[4], 3, 1, f'mixed_{name}_2b'),
            unit(pool(x, 3, 1, f'mixed_{name}_pool'), c[5], 1, 1, f'mixed_{name}_3b'),
        ]
        return keras.layers.Concatenate(name=f'mixed_{name}')(branches)

    x = unit(x, 64, 7, 2, 'conv1a')
    x = pool(x, (1, 3, 3), (1, 2, 2), 'pool2a')
    x = unit(x, 64, 1, 1, 'conv2b')
    x = unit(x, 192, 3, 1, 'conv2c')
    x = pool(x, (1, 3, 3), (1, 2, 2), 'pool3a')
    for name in MIXED:
        if name == '4b':
            x = pool(x, 3, 2, 'pool4a')
        if name == '5b':
            x = pool(x, 2, 2, 'pool5a')
        x = mixed(x, name)
    return x
