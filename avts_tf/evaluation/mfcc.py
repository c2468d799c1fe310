"""The 26 numbers of a clip that Piczak classified ESC-10 and ESC-50 with (ESC, 2015).

Means and standard deviations of 12 MFCCs and of the zero-crossing rate. The recipe is that of his
published notebook, which used librosa 0.3.1 with its defaults, written out:

    samples     16-bit at 44.1 kHz, (value + 0.5) / 32767.5, so that digital silence is a constant
                above 0, not 0
    spectrum    power of frames of 2048 samples, periodic Hann window, every 512 samples, the first
                one centred on sample 0 (the ends are mirrored)
    mel         128 triangles over 0 to 22,050 Hz on Slaney's mel scale, each of the same area
    decibels    10 log10, not below 1e-10, and at most 80 dB below the clip's maximum
    MFCC        orthonormal DCT-II over the bands, coefficients 1 to 12; coefficient 0, the
                loudness, is left out
    crossings   in consecutive frames of 512 samples, the last one shorter: changes of sign per step
                from sample to sample
"""

import functools

import numpy as np

SAMPLE_RATE = 44100
FRAME = 512
FFT_SIZE = 2048
BANDS = 128
COEFFICIENTS = 12
LEAST_POWER = 1e-10
RANGE_DB = 80.0
_FRAMES_AT_ONCE = 1024  # 16 MB of samples, however long the sound


def clip_features(waveform: np.ndarray) -> np.ndarray:
    """The 26 numbers of a clip.

    Args:
        waveform: int16 [samples] at 44.1 kHz, not empty.

    Returns:
        float64 [26]: 12 means and 12 standard deviations of the MFCCs, both of the zero crossings.

    Example:
        >>> clip_features(np.zeros(44100, np.int16)).shape
        (26,)
    """
    samples = (waveform.astype(np.float64) + 0.5) / 32767.5
    coefficients, crossings = mfcc(samples), zero_crossings(samples)
    return np.concatenate([
        coefficients.mean(0), coefficients.std(0), [crossings.mean(), crossings.std()]])


def mfcc(samples: np.ndarray) -> np.ndarray:
    """MFCCs 1 to 12: float64 [samples] -> float64 [1 + samples // 512, 12]."""
    padded = np.pad(samples, FFT_SIZE // 2, mode='reflect')
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SIZE)[::FRAME]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT_SIZE) / FFT_SIZE)
    mel = np.concatenate([
        np.abs(np.fft.rfft(frames[first:first + _FRAMES_AT_ONCE] * window)) ** 2 @ mel_filters()
        for first in range(0, len(frames), _FRAMES_AT_ONCE)
    ])  # [frames, BANDS]
    decibels = 10 * np.log10(np.maximum(mel, LEAST_POWER))
    return np.maximum(decibels, decibels.max() - RANGE_DB) @ dct_matrix()


@functools.cache
def mel_filters() -> np.ndarray:
    """Triangles of area 1 on Slaney's mel scale: float64 [FFT_SIZE / 2 + 1, BANDS]."""
    # Slaney's scale is linear up to 1 kHz, which is 15 mel, and logarithmic above: 27 mel for a
    # factor of 6.4.
    highest = 15 + 27 * np.log(SAMPLE_RATE / 2 / 1000) / np.log(6.4)
    mels = np.linspace(0, highest, BANDS + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))
    frequencies = np.arange(FFT_SIZE // 2 + 1)[:, None] * SAMPLE_RATE / FFT_SIZE
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)


@functools.cache
def dct_matrix() -> np.ndarray:
    """Columns 1 to 12 of the orthonormal DCT-II: float64 [BANDS, COEFFICIENTS]."""
    band, coefficient = np.arange(BANDS)[:, None], np.arange(1, COEFFICIENTS + 1)
    return np.sqrt(2 / BANDS) * np.cos(np.pi / BANDS * (band + 0.5) * coefficient)


def zero_crossings(samples: np.ndarray) -> np.ndarray:
    """Changes of sign per step in each frame of 512 samples: float64 [N] -> float64 [frames]."""
    frames = [samples[first:first + FRAME] for first in range(0, len(samples), FRAME)]
    # A last frame of one sample has no step.
    return np.array([np.abs(np.diff(np.sign(frame))).mean() / 2 if len(frame) > 1 else 0.0
                     for frame in frames])
