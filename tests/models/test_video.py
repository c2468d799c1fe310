"""The video tower: pixels, network and head against plain twins."""

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.config import make_config
from avts_tf.models.video import PIXEL_DEVIATION, NormalizePixels, build_video_tower
from tests.models.twins import SMALL, i3d_twin, mcx_twin, randomize


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
    np.testing.assert_allclose(outputs['features'], tf.reduce_mean(x, [1, 2, 3]), rtol=1e-3,
                               atol=1e-4)
    # The head gets the mean over space alone.
    steps = tf.reduce_mean(x, [2, 3]).numpy()
    spans = np.stack([part.mean(1) for part in np.split(steps.repeat(4, 1), 4, axis=1)], 1)
    projection = tower.get_layer('projection')
    expected = spans @ projection.kernel.numpy() + projection.bias.numpy()
    np.testing.assert_allclose(outputs['embedding'], expected.reshape(2, 16), rtol=1e-3,
                               atol=1e-3 * np.abs(expected).max())


def test_pixels():
    black_white = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    np.testing.assert_allclose(NormalizePixels(True)(black_white), [[[-1] * 3, [1] * 3]])
    standard = NormalizePixels(False)(black_white).numpy()
    np.testing.assert_allclose(standard[0, 1] - standard[0, 0],
                               [1 / 0.22803, 1 / 0.22145, 1 / 0.216989], rtol=1e-5)


def test_without_what_is_static_a_constant_picture_changes_nothing():
    # The mean over the frames is taken from each pixel, whatever stands still behind the motion.
    layer = NormalizePixels(False, remove_static=True)
    rng = np.random.default_rng(0)
    moving = rng.integers(0, 100, (2, 6, 5, 5, 3))
    still = rng.integers(0, 150, (2, 1, 5, 5, 3))
    alone, behind = (layer(tf.constant(frames.astype(np.uint8))).numpy()
                     for frames in (moving, moving + still))
    np.testing.assert_allclose(alone, behind, atol=1e-5)
    np.testing.assert_allclose(alone.mean(1), 0, atol=1e-5)
    expected = (moving - moving.mean(1, keepdims=True)) / 255 / np.array(PIXEL_DEVIATION)
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    assert NormalizePixels.from_config(layer.get_config()).remove_static
