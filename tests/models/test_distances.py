"""Distances against NumPy, above all where they are small."""

import numpy as np
import tensorflow as tf

from avts_tf.models.distances import safe_sqrt, squared_distances, squared_distances_of_all


def test_distances_of_clips_to_their_own_windows():
    rng = np.random.default_rng(0)
    video, audio = (rng.normal(size=size).astype(np.float32) for size in ([3, 4], [3, 2, 4]))
    expected = [[np.sum((video[i] - audio[i, k]) ** 2) for k in range(2)] for i in range(3)]
    np.testing.assert_allclose(squared_distances(video, audio), expected, rtol=1e-5)


def test_distances_of_all_are_exact_where_rows_are_nearly_equal():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=[7, 64])
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    others = (rows[:5] + 1e-5 * rng.normal(size=[5, 64])).astype(np.float32)
    expected = np.square(rows[:, None].astype(np.float64) - others[None]).sum(-1)
    np.testing.assert_allclose(squared_distances_of_all(rows, others), expected, rtol=1e-5)


def test_safe_sqrt():
    value = tf.constant([4.0, 0.0, -1e-9])
    with tf.GradientTape() as tape:
        tape.watch(value)
        roots = safe_sqrt(value)
    np.testing.assert_allclose(roots, [2.0, 1e-6, 1e-6])
    assert np.isfinite(tape.gradient(roots, value)).all()
