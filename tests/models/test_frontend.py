"""The log-mel front end against an oracle written with NumPy alone."""

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.errors import UserError
from avts_tf.models.frontend import LogMel

RATE, WINDOW, HOP, FFT, BANDS, LOW, HIGH = 16000, 320, 160, 1024, 40, 60.0, 7800.0

PCM = 32768.0


def make_layer():
    layer = LogMel(RATE, WINDOW / RATE, HOP / RATE, FFT, BANDS, LOW, HIGH)
    layer.build((None, None))
    return layer


def to_mel(hz):
    return 2595.0 * np.log10(1.0 + np.asarray(hz) / 700.0)  # HTK's own form of the scale


def band_edges():
    """Edges in Hz: band k rises from edge k to k + 1 and falls to k + 2."""
    return 700.0 * (10.0 ** (np.linspace(to_mel(LOW), to_mel(HIGH), BANDS + 2) / 2595.0) - 1.0)


def oracle(waveform):
    """Log-mel of float64 [samples], frame by frame and band by band."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)  # periodic Hann
    edges, bins = to_mel(band_edges()), to_mel(np.arange(FFT // 2 + 1) * RATE / FFT)
    matrix = np.zeros([FFT // 2 + 1, BANDS])
    for band in range(BANDS):
        low, centre, high = edges[band:band + 3]
        matrix[:, band] = np.maximum(np.minimum((bins - low) / (centre - low),
                                                (high - bins) / (high - centre)), 0.0)
    rows = []
    for start in range(0, len(waveform) - WINDOW + 1, HOP):
        spectrum = np.abs(np.fft.rfft(waveform[start:start + WINDOW] * window, FFT))
        rows.append(np.log(spectrum @ matrix + 1e-3))
    return np.array(rows)


def noise(batch, samples, seed=0):
    """int16 noise whose loudness changes over time, so that a shift in time shows."""
    rng = np.random.default_rng(seed)
    loudness = np.repeat(rng.uniform(0.01, 0.9, [batch, -(-samples // 400)]), 400,
                         axis=1)[:, :samples]
    return (rng.uniform(-1, 1, [batch, samples]) * loudness * (PCM - 1)).astype(np.int16)


@pytest.mark.parametrize('samples', [320, 479, 480, 7680])
def test_log_mel_equals_the_oracle(samples):
    sound = noise(2, samples)
    layer = make_layer()
    outputs = layer(sound)
    assert outputs.dtype == tf.float32
    expected_shape = (2, 1 + (samples - 320) // 160, 40)
    assert tuple(outputs.shape) == expected_shape
    assert tuple(layer.compute_output_shape((2, samples))) == expected_shape
    expected = np.stack([oracle(row / PCM) for row in sound])
    # float32 leaves 1e-3 here: the logarithm of the faintest bands magnifies the rounding of the
    # transform.
    np.testing.assert_allclose(outputs, expected, atol=1e-3)


def test_integers_and_floats_give_the_same():
    sound, layer = noise(2, 4000), make_layer()
    integers = layer(tf.constant(sound)).numpy()
    np.testing.assert_allclose(layer(tf.constant(sound / PCM, tf.float32)), integers, atol=1e-6)
    np.testing.assert_allclose(layer(tf.constant(sound / PCM, tf.float64)), integers, atol=1e-6)


def test_a_tone_peaks_in_its_band():
    # From band 15 on a band is wider than the window's main lobe of 100 Hz, and the peak is
    # unambiguous.
    layer, time = make_layer(), np.arange(8000) / RATE
    for band in range(15, BANDS):
        tone = 0.5 * np.sin(2 * np.pi * band_edges()[band + 1] * time)
        peaks = layer(tf.constant(tone[None], tf.float32)).numpy()[0].argmax(1)
        assert (peaks == band).all(), (band, peaks)


def test_adapt_standardises_every_band():
    layer = make_layer()
    sounds = [noise(3, 8000, seed) for seed in range(3)] + [noise(1, 3000, 9)]
    layer.adapt(iter(sounds))
    values = np.concatenate([layer(sound).numpy().reshape(-1, BANDS) for sound in sounds])
    np.testing.assert_allclose(values.mean(0), 0.0, atol=1e-4)
    np.testing.assert_allclose(values.std(0), 1.0, atol=1e-4)
    before = layer.mean.numpy()
    layer.adapt([sound / np.float32(PCM) for sound in sounds])
    np.testing.assert_allclose(layer.mean, before, atol=1e-5)


def test_adapt_to_silence_and_to_nothing():
    layer = make_layer()
    layer.adapt([np.zeros([2, 4000], np.int16)])
    assert np.isfinite(layer(noise(1, 4000))).all()
    np.testing.assert_allclose(layer(np.zeros([1, 4000], np.int16)), 0.0, atol=1e-2)
    with pytest.raises(UserError, match='^waveforms: no audio'):
        layer.adapt([])


def test_configuration_survives():
    layer = make_layer()
    sound = noise(1, 4000)
    np.testing.assert_array_equal(LogMel.from_config(layer.get_config())(sound), layer(sound))
