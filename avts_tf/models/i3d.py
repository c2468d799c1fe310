"""I3D-RGB: Inception-v1 with its kernels inflated to three dimensions.

Carreira and Zisserman 2017.
"""

import keras

from avts_tf.models.batch_norm import BatchNorm
from avts_tf.models.layers import scaled

# Channels of the four branches: 1x1 | 1x1 then 3x3 | 1x1 then 3x3 | pool then 1x1.
MIXED = {
    '3b': (64, 96, 128, 16, 32, 32), '3c': (128, 128, 192, 32, 96, 64),
    '4b': (192, 96, 208, 16, 48, 64), '4c': (160, 112, 224, 24, 64, 64),
    '4d': (128, 128, 256, 24, 64, 64), '4e': (112, 144, 288, 32, 64, 64),
    '4f': (256, 160, 320, 32, 128, 128), '5b': (256, 160, 320, 32, 128, 128),
    '5c': (384, 192, 384, 48, 128, 128),
}
SYMMETRIC_PIXELS = True  # in [-1, 1], as the published net was trained


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """What padding "same" adds before and behind an axis.

    Example:
        >>> same_padding(25, 7, 2), same_padding(224, 7, 2)
        ((3, 3), (2, 3))
    """
    total = max(0, (-(-length // stride) - 1) * stride + kernel - length)
    return total // 2, total - total // 2


def i3d(x: keras.KerasTensor, width: float = 1.0, synchronized: bool = True) -> keras.KerasTensor:
    """The convolutions of I3D.

    Args:
        x: float [batch, frames, height, width, 3], in [-1, 1].
        width: multiplier of the channels.
        synchronized: batch-norm statistics over all replicas.

    Returns:
        float [batch, ceil(frames / 8), ceil(height / 32), ceil(width / 32), 1024 * width].

    Example:
        >>> i3d(keras.Input([25, 224, 224, 3])).shape
        (None, 4, 7, 7, 1024)
    """
    def unit(x: keras.KerasTensor, channels: int, kernel: int, stride: int, name: str):
        padding = 'same'
        if stride > 1:
            # Said beforehand and not by the operation: oneDNN's gradient of a strided kernel is
            # wrong, or ends the process, where the window has an odd number of frames not above
            # the kernel's, on processors with AVX-512 (TensorFlow 2.21).
            beside = [same_padding(length, kernel, stride) for length in x.shape[1:-1]]
            x = keras.layers.ZeroPadding3D(beside, name=f'{name}_pad')(x)
            padding = 'valid'
        x = keras.layers.Conv3D(scaled(channels, width), kernel, strides=stride, padding=padding,
                                use_bias=False, kernel_initializer='he_normal', name=name)(x)
        # Inception's batch norm has no scale: the ReLU that follows makes it redundant.
        x = BatchNorm(scale=False, synchronized=synchronized, name=f'{name}_bn')(x)
        return keras.layers.ReLU(name=f'{name}_relu')(x)

    def pool(x: keras.KerasTensor, size: int | tuple, stride: int | tuple, name: str):
        return keras.layers.MaxPooling3D(size, stride, padding='same', name=name)(x)

    def mixed(x: keras.KerasTensor, name: str):
        c = MIXED[name]
        branches = [
            unit(x, c[0], 1, 1, f'mixed_{name}_0a'),
            unit(unit(x, c[1], 1, 1, f'mixed_{name}_1a'), c[2], 3, 1, f'mixed_{name}_1b'),
            unit(unit(x, c[3], 1, 1, f'mixed_{name}_2a'), c[4], 3, 1, f'mixed_{name}_2b'),
            unit(pool(x, 3, 1, f'mixed_{name}_pool'), c[5], 1, 1, f'mixed_{name}_3b'),
        ]
        return keras.layers.Concatenate(name=f'mixed_{name}')(branches)

    x = unit(x, 64, 7, 2, 'conv1a')                          # [batch, t/2, h/2, w/2, 64]
    x = pool(x, (1, 3, 3), (1, 2, 2), 'pool2a')              # [batch, t/2, h/4, w/4, 64]
    x = unit(x, 64, 1, 1, 'conv2b')
    x = unit(x, 192, 3, 1, 'conv2c')                         # [batch, t/2, h/4, w/4, 192]
    x = pool(x, (1, 3, 3), (1, 2, 2), 'pool3a')              # [batch, t/2, h/8, w/8, 192]
    for name in MIXED:
        if name == '4b':
            x = pool(x, 3, 2, 'pool4a')                      # [batch, t/4, h/16, w/16, 480]
        if name == '5b':
            x = pool(x, 2, 2, 'pool5a')                      # [batch, t/8, h/32, w/32, 832]
        x = mixed(x, name)
    return x                                                 # [batch, t/8, h/32, w/32, 1024]
