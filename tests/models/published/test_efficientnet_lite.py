"""EfficientNet-Lite0 from PyTorch's file."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_sample_image

from avts_tf.errors import UserError
from avts_tf.models.baselines.soundnet import load_teacher
from avts_tf.models.published.efficientnet_lite import (
    build_efficientnet_lite0,
    load_efficientnet_lite0,
)
from tests.models.published.torch_files import write_torch


def tensors_of(net):
    """The weights of a Keras net by the names and with the axes of PyTorch."""
    found = {}
    for layer in net.layers:
        arrays = layer.get_weights()
        if isinstance(layer, keras.layers.DepthwiseConv2D):      # [height, width, channels, 1]
            arrays = [np.moveaxis(arrays[0], [0, 1], [2, 3])]
        elif isinstance(layer, keras.layers.Conv2D):             # [height, width, in, out]
            arrays = [np.moveaxis(arrays[0], [0, 1, 2, 3], [2, 3, 1, 0])]
        elif isinstance(layer, keras.layers.Dense):
            arrays[0] = arrays[0].T
        names = ('weight', 'bias', 'running_mean', 'running_var')
        for name, array in zip(names, arrays, strict=False):
            found[f'{layer.name}.{name}'] = np.array(array, order='C')
    return found


@pytest.mark.slow
def test_the_teacher_has_the_weights_of_the_file(tmp_path):
    keras.utils.set_random_seed(3)
    net, rng = build_efficientnet_lite0(), np.random.default_rng(4)
    for layer in net.layers:  # statistics that are not all 0 and 1
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.weights])
    assert sum(int(tf.size(weight)) for weight in net.trainable_weights) == 4652008
    tensors = tensors_of(net)
    write_torch(tmp_path / 'net.pth', tensors)
    teacher = load_teacher(str(tmp_path / 'net.pth'), 48)
    frames = rng.integers(0, 256, [2, 48, 48, 3]).astype(np.uint8)
    expected = keras.ops.softmax(net(tf.image.resize(frames, [224, 224])))
    np.testing.assert_allclose(teacher(frames), expected, rtol=1e-4, atol=1e-7)
    assert teacher.classes == 1000 and float(tf.reduce_max(expected)) > 2e-3
    del tensors['_blocks.3._bn1.running_var']
    write_torch(tmp_path / 'other.pth', tensors)
    with pytest.raises(UserError, match=r'^teacher=.*_blocks.3._bn1.running_var is missing'):
        load_teacher(str(tmp_path / 'other.pth'), 48)


@pytest.mark.slow
@pytest.mark.skipif('AVTS_EFFICIENTNET' not in os.environ, reason='needs the path of the .pth file')
def test_the_published_weights_give_what_pytorch_gives():
    """The logits are those of PyTorch 2.13 with the net of the package for PyTorch."""
    path = os.environ['AVTS_EFFICIENTNET']
    pictures = [load_sample_image(name)[100:324, 200:424] for name in ('china.jpg', 'flower.jpg')]
    net, images = load_efficientnet_lite0(path), np.stack(pictures).astype(np.float32)
    logits = net(images).numpy()
    # A palace and a daisy.
    np.testing.assert_allclose(logits[[0, 1], [698, 985]], [7.140933, 6.283869], rtol=1e-4)
    assert load_teacher(path, 224)(images).numpy().argmax(-1).tolist() == logits.argmax(-1).tolist()
    # Its pixels are those that it was trained with: the variances are those of the batch norm.
    first = keras.Model(net.input, net.get_layer('_conv_stem').output)(images).numpy()
    held = net.get_layer('_bn0').moving_variance.numpy()
    assert 0.5 < np.median(first.var((0, 1, 2)) / held) < 2.0
