"""SoundNet (Aytar, Vondrick and Torralba 2016) with its published weights.

Eight 1-D convolutions on the waveform, as its authors trained them on two million videos: each but
the last is padded by half its kernel on both sides, moves by 2, and has batch norm and a ReLU. The
weights are those of `sound8.npy` in the Python package `soundnet` 0.1.2. That package's own net
leaves the padding out and moves by less from conv5's pool on, for more outputs; padding, strides
and the batch norm's epsilon here are those of the training.
"""

from typing import NamedTuple

import keras

from avts_tf.errors import UserError
from avts_tf.models.published.weights import read_npy_dict

SAMPLE_RATE = 22050
INT16_SCALE = 128.0  # the net takes samples in [-256, 256]
HEADS = {'conv8': 1000, 'conv8_2': 401}  # classes of ImageNet and of Places
HEAD_KERNEL = 8
STRIDE = 2  # of each convolution
EPSILON = 1e-5  # of the batch norm, the default of Torch
SOURCE = 'sound8.npy of the Python package soundnet 0.1.2'


class Convolution(NamedTuple):
    """One of the net's convolutions: its channels and kernel, and the size of the pool after it."""

    channels: int
    kernel: int
    pool: int


# Also the convolutions of the student in baselines/soundnet.py.
CONVOLUTIONS = {
    'conv1': Convolution(16, 64, 8), 'conv2': Convolution(32, 32, 8),
    'conv3': Convolution(64, 16, 0), 'conv4': Convolution(128, 8, 0),
    'conv5': Convolution(256, 4, 4), 'conv6': Convolution(512, 4, 0),
    'conv7': Convolution(1024, 4, 0),
}


def build_soundnet(heads: bool = False) -> keras.Model:
    """SoundNet with random weights.

    Args:
        heads: whether it has conv8 too, which needs about 5 s.

    Returns:
        A model int16 [batch, samples] at 22,050 Hz -> dict from `conv1` to `conv7` of float32
        [batch, steps, channels], after the ReLU; with `heads` also the logits `conv8` [batch,
        steps, 1000] (ImageNet's classes) and `conv8_2` [batch, steps, 401] (Places').

    Example:
        >>> net = build_soundnet()
        >>> net(np.zeros([1, 44100], np.int16))['conv5'].shape
        TensorShape([1, 23, 256])
    """
    waveform = keras.Input([None], dtype='int16', name='waveform')
    x = keras.layers.Rescaling(1 / INT16_SCALE, name='rescaling')(waveform)
    x = keras.layers.Reshape([-1, 1], name='one_channel')(x)
    outputs = {}
    for name, (channels, kernel, pool) in CONVOLUTIONS.items():
        x = keras.layers.ZeroPadding1D(kernel // 2, name=f'{name}_pad')(x)
        x = keras.layers.Conv1D(channels, kernel, STRIDE, kernel_initializer='he_normal',
                                name=name)(x)
        x = keras.layers.BatchNormalization(epsilon=EPSILON, name=f'{name}_bn')(x)
        x = outputs[name] = keras.layers.ReLU(name=f'{name}_relu')(x)
        if pool:
            x = keras.layers.MaxPooling1D(pool, name=f'{name}_pool')(x)
    if heads:
        for name, classes in HEADS.items():
            outputs[name] = keras.layers.Conv1D(classes, HEAD_KERNEL, STRIDE, name=name)(x)
    return keras.Model(waveform, outputs, name='soundnet')


def load_soundnet(path: str, heads: bool = False) -> keras.Model:
    """SoundNet with its published weights.

    Args:
        path: `sound8.npy`.
        heads: as of `build_soundnet`.

    Returns:
        As `build_soundnet`.

    Raises:
        UserError: the file is missing or holds other weights; the parameter is `weights`.

    Example:
        >>> net = load_soundnet('sound8.npy', heads=True)
        >>> places = net(waveforms)['conv8_2']
    """
    layers = read_npy_dict(path, 'weights')
    net = build_soundnet(heads)
    for layer in net.layers:
        if not layer.weights:
            continue
        name, is_norm = layer.name.removesuffix('_bn'), layer.name.endswith('_bn')
        names = ('gamma', 'beta', 'mean', 'var') if is_norm else ('weights', 'biases')
        weights = []
        for key, wanted in zip(names, layer.weights, strict=True):
            value = layers.get(name, {}).get(key)
            if value is not None and value.ndim == 4 and value.shape[1] == 1:
                value = value[:, 0]  # the file has [kernel, 1, in, out]
            if value is None or value.shape != tuple(wanted.shape):
                found = 'missing' if value is None else f'of shape {list(value.shape)}'
                raise UserError('weights', path, f'is not {SOURCE}: {key} of {name} is {found}, '
                                f'not {list(wanted.shape)}.')
            weights.append(value)
        layer.set_weights(weights)
    return net
