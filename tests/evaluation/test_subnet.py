"""Augmentation of the windows that the audio network is trained on from scratch."""

import numpy as np

from avts_tf.evaluation import subnet


def test_augmentation_keeps_what_it_should():
    rng = np.random.default_rng(11)
    windows = rng.standard_normal([8, 500]).astype(np.float32) / 10
    targets = np.eye(8, dtype=np.float32)
    changed, mixed = subnet.augment(windows, targets, rng)
    assert changed.shape == windows.shape and changed.dtype == mixed.dtype == np.float32
    np.testing.assert_allclose(mixed.sum(1), 1, rtol=1e-5)
    assert np.all(mixed.argmax(1) == np.arange(8))      # a window outweighs what is mixed into it
    assert (np.sort(mixed, 1)[:, -2] > 0.1).any()       # and something is
    # in other loudness
    gain = np.linalg.norm(changed, axis=1) / np.linalg.norm(windows, axis=1)
    assert np.ptp(20 * np.log10(gain)) > 3
    for row, target in zip(changed, mixed, strict=True):
        # The parts of the two windows, found by least squares, agree with those of their labels.
        weights = np.linalg.lstsq(windows.T, row, rcond=None)[0]
        of_label = np.flatnonzero(target > subnet.LABEL_SMOOTHING / 8 + 1e-4)
        assert set(np.flatnonzero(weights > 0.05)) <= set(of_label)


def test_windows_that_are_all_silence_are_drawn_again():
    waveform = np.zeros(1000, np.int16)
    waveform[600:] = 100
    rng = np.random.default_rng(12)
    assert np.mean([subnet.draw_window(waveform, 100, rng).any() for _ in range(200)]) > 0.95
    assert not subnet.draw_window(np.zeros(1000, np.int16), 100, rng).any()
