"""MC2 and MC3: ResNet-18 with 3-D convolutions first and 2-D ones after.

Tran et al. 2018, "mixed" convolutions.
"""

import keras

from avts_tf.models.batch_norm import BatchNorm
from avts_tf.models.convolutions import FramewiseConv3D, WinogradConv3D
from avts_tf.models.layers import scaled

STAGE_WIDTHS = (64, 128, 256, 512)
# Temporal size of the kernels of each stage. conv1 has 3 in both.
TEMPORAL_KERNEL = {'mc2': (1, 1, 1, 1), 'mc3': (3, 1, 1, 1)}
SYMMETRIC_PIXELS = False  # standardised by channel, as the published nets were trained


def mc2(x: keras.KerasTensor, width: float = 1.0, synchronized: bool = True) -> keras.KerasTensor:
    """The convolutions of MC2, as `mcx`."""
    return mcx(x, 'mc2', width, synchronized)


def mc3(x: keras.KerasTensor, width: float = 1.0, synchronized: bool = True) -> keras.KerasTensor:
    """The convolutions of MC3, as `mcx`."""
    return mcx(x, 'mc3', width, synchronized)


def mcx(
    x: keras.KerasTensor, name: str, width: float = 1.0, synchronized: bool = True,
) -> keras.KerasTensor:
    """The convolutions of MC2 or MC3.

    Args:
        x: float [batch, frames, height, width, 3], standardised by channel.
        name: 'mc2' or 'mc3'.
        width: multiplier of the channels.
        synchronized: batch-norm statistics over all replicas.

    Returns:
        float [batch, frames, height / 16, width / 16, 512 * width]; time is not strided.

    Example:
        >>> mcx(keras.Input([25, 112, 112, 3]), 'mc3').shape
        (None, 25, 7, 7, 512)
    """
    def conv_bn(x: keras.KerasTensor, channels: int, kernel: tuple, stride: int, name: str):
        if stride > 1 and max(kernel) > 1:
            # "same" would pad a strided convolution on one side only, unlike the published nets.
            x = keras.layers.ZeroPadding3D(tuple(k // 2 for k in kernel), name=f'{name}_pad')(x)
            padding = 'valid'
        else:
            padding = 'same'
        layer = keras.layers.Conv3D
        if stride > 1 and kernel[0] == 1:
            layer = FramewiseConv3D
        elif stride == 1 and max(kernel) > 1:
            layer = WinogradConv3D
        x = layer(channels, kernel, strides=(1, stride, stride), padding=padding, use_bias=False,
                  kernel_initializer='he_normal', name=name)(x)
        return BatchNorm(synchronized=synchronized, name=f'{name}_bn')(x)

    def block(x: keras.KerasTensor, channels: int, kernel: tuple, stride: int, name: str):
        shortcut = x
        if stride != 1 or x.shape[-1] != channels:
            shortcut = conv_bn(x, channels, (1, 1, 1), stride, f'{name}_shortcut')
        x = conv_bn(x, channels, kernel, stride, f'{name}_conv1')
        x = keras.layers.ReLU(name=f'{name}_relu1')(x)
        x = conv_bn(x, channels, kernel, 1, f'{name}_conv2')
        x = keras.layers.Add(name=f'{name}_add')([x, shortcut])
        return keras.layers.ReLU(name=f'{name}_relu2')(x)

    x = conv_bn(x, scaled(64, width), (3, 7, 7), 2, 'conv1')        # [batch, frames, h/2, w/2, 64]
    x = keras.layers.ReLU(name='conv1_relu')(x)
    stages = zip(STAGE_WIDTHS, TEMPORAL_KERNEL[name], strict=True)
    for stage, (channels, temporal) in enumerate(stages):
        for index in range(2):
            stride = 2 if stage > 0 and index == 0 else 1
            x = block(x, scaled(channels, width), (temporal, 3, 3), stride,
                      f'conv{stage + 2}_{index + 1}')
        # Stage 0: [batch, frames, h/2, w/2, 64], then half of height and width each time, down to
        # [batch, frames, h/16, w/16, 512].
    return x
