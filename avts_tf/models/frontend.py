"""Waveform to normalised log-mel spectrogram.

It is part of the audio tower, so that what is served is what was trained.
"""

from collections.abc import Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf

from avts_tf.data.records import PCM_SCALE
from avts_tf.errors import UserError

# Added to mel energies before the logarithm: silence becomes log(0.001) rather than -inf.
LOG_OFFSET = 1e-3


def as_float(waveform: tf.Tensor) -> tf.Tensor:
    """int16 or float [..., samples] -> float32 [..., samples] in [-1, 1]."""
    scale = 1.0 / PCM_SCALE if waveform.dtype == tf.int16 else 1.0
    return tf.cast(waveform, tf.float32) * scale


@keras.saving.register_keras_serializable('avts_tf')
class LogMel(keras.layers.Layer):
    """Log-mel spectrogram, normalised band by band.

    The statistics are those of training audio, which `adapt` takes; before that, mean 0 and
    deviation 1.

    Input: float [batch, samples] in [-1, 1], or int16 [batch, samples].
    Output: float32 [batch, steps, mel_bands] with steps = 1 + (samples - window) // hop.

    Args:
        sample_rate: int. Hz.
        stft_window_seconds: float. Length of a window.
        stft_hop_seconds: float. Step between windows.
        fft_size: int. Samples; at least a window.
        mel_bands: int. Number of bands, evenly spaced on the HTK mel scale.
        mel_min_hz: float. Lower edge of the lowest band.
        mel_max_hz: float. Upper edge of the highest band.

    Example:
        >>> layer = LogMel(16000, 0.020, 0.010, 1024, 40, 60.0, 7800.0)
        >>> layer(tf.zeros([2, 16000])).shape.as_list()
        [2, 99, 40]
    """

    def __init__(
        self, sample_rate: int, stft_window_seconds: float, stft_hop_seconds: float,
        fft_size: int, mel_bands: int, mel_min_hz: float, mel_max_hz: float, **kwargs,
    ) -> None:
        super().__init__(autocast=False, **{**kwargs, 'dtype': 'float32'})
        self._config = {
            'sample_rate': sample_rate, 'stft_window_seconds': stft_window_seconds,
            'stft_hop_seconds': stft_hop_seconds, 'fft_size': fft_size, 'mel_bands': mel_bands,
            'mel_min_hz': mel_min_hz, 'mel_max_hz': mel_max_hz,
        }
        self.window = round(stft_window_seconds * sample_rate)
        self.hop = round(stft_hop_seconds * sample_rate)
        self.fft_size = fft_size
        self.mel_bands = mel_bands
        self._mel_matrix = mel_matrix(mel_bands, fft_size, sample_rate, mel_min_hz, mel_max_hz)

    def build(self, input_shape: Sequence[int | None]) -> None:
        shape = [self.mel_bands]
        self.mean = self.add_weight(
            name='mean', shape=shape, initializer='zeros', trainable=False)
        self.deviation = self.add_weight(
            name='deviation', shape=shape, initializer='ones', trainable=False)

    def log_mel(self, waveform: tf.Tensor) -> tf.Tensor:
        """The spectrogram before normalisation.

        Args:
            waveform: int16 or float [batch, samples].

        Returns:
            float32 [batch, steps, mel_bands].
        """
        waveform = as_float(waveform)                                   # [batch, samples]
        spectrum = tf.abs(tf.signal.stft(waveform, self.window, self.hop, self.fft_size))
        return self._log_of_bands(spectrum)                             # [batch, steps, mel_bands]

    def _log_of_bands(self, spectrum: tf.Tensor) -> tf.Tensor:
        """float32 [batch, steps, fft_size / 2 + 1] -> [batch, steps, mel_bands]."""
        return tf.math.log(tf.tensordot(spectrum, tf.constant(self._mel_matrix), 1) + LOG_OFFSET)

    def call(self, waveform: tf.Tensor) -> tf.Tensor:
        return self._normalized(self.log_mel(waveform))

    def _normalized(self, spectrogram: tf.Tensor) -> tf.Tensor:
        return (spectrogram - self.mean) / self.deviation

    def by_convolution(self, waveform: tf.Tensor) -> tf.Tensor:
        """As the layer, by operations that TensorFlow Lite and ONNX have too.

        They have no complex numbers in common: each frequency's cosine and sine, under the Hann
        window, are two kernels of a convolution, which takes a little longer than the fast
        transform.

        Args:
            waveform: float32 [batch, samples].

        Returns:
            float32 [batch, steps, mel_bands].
        """
        with tf.init_scope():
            window = tf.signal.hann_window(self.window).numpy().astype(np.float64)
        bins = np.arange(self.fft_size // 2 + 1)
        angles = 2 * np.pi * np.outer(np.arange(self.window), bins) / self.fft_size
        kernel = window[:, None] * np.concatenate([np.cos(angles), np.sin(angles)], 1)
        kernel = kernel.astype(np.float32)[:, None]                     # [window, 1, 2 * bins]
        parts = tf.nn.conv1d(waveform[..., None], kernel, self.hop, 'VALID')
        spectrum = tf.sqrt(tf.add_n([tf.square(part) for part in tf.split(parts, 2, -1)]))
        return self._normalized(self._log_of_bands(spectrum))           # [batch, steps, mel_bands]

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple:
        batch, samples = input_shape
        steps = None if samples is None else 1 + (samples - self.window) // self.hop
        return (batch, steps, self.mel_bands)

    def compute_output_spec(self, waveform: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(waveform.shape), 'float32')

    def adapt(self, waveforms: Iterable[np.ndarray]) -> None:
        """Sets mean and deviation of every band to those of audio.

        Args:
            waveforms: iterable of int16 or float [batch, samples].

        Raises:
            UserError: there is none.
        """
        count, total, squares = 0, np.zeros(self.mel_bands), np.zeros(self.mel_bands)
        for waveform in waveforms:
            values = self.log_mel(tf.convert_to_tensor(waveform)).numpy()
            values = values.reshape(-1, self.mel_bands).astype(np.float64)  # [batch * steps, bands]
            count += len(values)
            total += values.sum(0)
            squares += np.square(values).sum(0)
        if not count:
            raise UserError('waveforms', None, 'no audio to adapt to; give at least one batch.')
        mean = total / count
        self.mean.assign(mean)
        # A band that never changes would divide by zero.
        variance = np.maximum(squares / count - mean**2, 0.0)
        self.deviation.assign(np.maximum(np.sqrt(variance), 1e-3))

    def get_config(self) -> dict:
        return {**super().get_config(), **self._config}


def mel_matrix(
    bands: int, fft_size: int, sample_rate: int, min_hz: float, max_hz: float,
) -> np.ndarray:
    """Triangular mel filters.

    Centres are evenly spaced on the HTK scale, mel = 1127 ln(1 + f / 700), and triangles are
    straight in mel; TensorFlow's own `linear_to_mel_weight_matrix` computes them.

    Args:
        bands: number of filters.
        fft_size: samples.
        sample_rate: Hz.
        min_hz, max_hz: edges of the lowest and the highest filter.

    Returns:
        float32 [fft_size / 2 + 1, bands].

    Example:
        >>> mel_matrix(40, 1024, 16000, 60.0, 7800.0).shape
        (513, 40)
    """
    return tf.signal.linear_to_mel_weight_matrix(
        bands, fft_size // 2 + 1, sample_rate, min_hz, max_hz).numpy()
