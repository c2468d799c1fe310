"""The published features by another route."""

import numpy as np
import scipy.fft
import scipy.signal

from avts_tf.evaluation import mfcc
from tests.evaluation.sounds import sound


def mfcc_by_another_route(samples):
    """The recipe at the head of mfcc.py with scipy, and loops in place of arrays."""
    x = (np.asarray(samples, np.float64) + 0.5) / 32767.5
    _, _, spectrum = scipy.signal.stft(np.pad(x, 1024, mode='reflect'), window='hann', nperseg=2048,
                                       noverlap=2048 - 512,
                                       boundary=None, padded=False)
    power = np.abs(spectrum * 1024) ** 2  # scipy divides by the sum of the window

    def to_mel(hz):
        return hz / (200 / 3) if hz < 1000 else 15 + np.log(hz / 1000) / (np.log(6.4) / 27)

    def to_hz(mel):
        return mel * 200 / 3 if mel < 15 else 1000 * np.exp((mel - 15) * np.log(6.4) / 27)

    edges = [to_hz(to_mel(22050) * i / 129) for i in range(130)]
    mel = np.zeros([128, power.shape[1]])
    for band, (low, centre,
               high) in enumerate(zip(edges[:-2], edges[1:-1], edges[2:], strict=True)):
        for k in range(1025):
            hz = k * 44100 / 2048
            weight = (hz - low) / (centre - low) if hz <= centre else (high - hz) / (high - centre)
            mel[band] += max(0.0, weight) * 2 / (high - low) * power[k]
    decibels = 10 * np.log10(np.maximum(mel, 1e-10))
    decibels = np.maximum(decibels, decibels.max() - 80)
    coefficients = scipy.fft.dct(decibels, axis=0, norm='ortho')[1:13]
    rates = []
    for first in range(0, len(x), 512):
        frame = x[first:first + 512]
        rates.append(sum((frame[i] > 0) != (frame[i + 1] > 0)
                         for i in range(len(frame) - 1)) / (len(frame) - 1))
    return np.concatenate([coefficients.mean(1), coefficients.std(1),
                           [np.mean(rates), np.std(rates)]])


def test_clip_features_by_another_route():
    rng = np.random.default_rng(1)
    samples = np.concatenate([sound('high', 0.3, rng, 44100), np.zeros(5000, np.int16),
                              sound('noise', 0.2, rng, 44100)])
    np.testing.assert_allclose(mfcc.clip_features(samples), mfcc_by_another_route(samples),
                               rtol=1e-7, atol=1e-9)


def test_long_sounds_go_through_in_blocks(monkeypatch):
    samples = sound('low', 1.0, np.random.default_rng(2), 44100)
    whole = mfcc.clip_features(samples)
    monkeypatch.setattr(mfcc, '_FRAMES_AT_ONCE', 7)
    np.testing.assert_allclose(mfcc.clip_features(samples), whole, rtol=1e-9)


def test_zero_crossings_by_hand():
    # a change of sign every 4 samples
    square = np.where(np.arange(5120) // 4 % 2, -1000, 1000).astype(np.int16)
    crossings = mfcc.zero_crossings((square + 0.5) / 32767.5)
    # 128 stretches in a frame
    np.testing.assert_allclose(crossings, 127 / 511)
    silent = mfcc.clip_features(np.zeros(44100, np.int16))
    assert silent[24] == 0 and silent[25] == 0 and np.isfinite(silent).all()


def test_filters():
    filters = mfcc.mel_filters()
    frequencies = np.arange(1025) * 44100 / 2048
    # Up to 1 kHz the centres are as far from each other as they are from 0.
    centres = (filters * frequencies[:, None]).sum(0) / filters.sum(0)
    assert np.all(np.diff(centres) > 0)
    # Area 1 each, as far as bins 21.5 Hz apart can show it.
    np.testing.assert_allclose(filters[:, 60:].sum(0) * 44100 / 2048, 1, atol=0.03)
    matrix = mfcc.dct_matrix()
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(12), atol=1e-12)
