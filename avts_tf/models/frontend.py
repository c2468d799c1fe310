"""Waveform to normalised log-mel spectrogram, inside the audio tower, so that what is served is what was trained."""

import warnings

import keras
import numpy as np
import tensorflow as tf

from avts_tf.data.records import PCM_SCALE

LOG_OFFSET = 1e-3  # added to mel energies before the logarithm: silence becomes log(0.001) rather than -inf


@keras.saving.register_keras_serializable('avts_tf')
class LogMel(keras.layers.Layer):
    """Log-mel spectrogram, normalised band by band with statistics that `adapt` takes from training data.

    Input: float [batch, samples] in [-1, 1], or int16 [batch, samples].
    Output: float32 [batch, steps, mel_bands] with steps = 1 + (samples - window) // hop.

    Args:
        sample_rate: Hz.
        stft_window_seconds, stft_hop_seconds: seconds.
        fft_size: samples.
        mel_bands: number of bands, evenly spaced on the HTK mel scale.
        mel_min_hz, mel_max_hz: edges of the lowest and the highest band, in Hz.
    """

    def __init__(self, sample_rate, stft_window_seconds, stft_hop_seconds, fft_size, mel_bands, mel_min_hz, mel_max_hz, **kwargs):
        super().__init__(autocast=False, **{**kwargs, 'dtype': 'float32'})
        self._config = {
            'sample_rate': sample_rate, 'stft_window_seconds': stft_window_seconds, 'stft_hop_seconds': stft_hop_seconds,
            'fft_size': fft_size, 'mel_bands': mel_bands, 'mel_min_hz': mel_min_hz, 'mel_max_hz': mel_max_hz,
        }
        self.window = round(stft_window_seconds * sample_rate)
        self.hop = round(stft_hop_seconds * sample_rate)
        self.fft_size = fft_size
        self.mel_bands = mel_bands
        self._mel_matrix = mel_matrix(mel_bands, fft_size, sample_rate, mel_min_hz, mel_max_hz)

    def build(self, input_shape):
        self.mean = self.add_weight(name='mean', shape=[self.mel_bands], initializer='zeros', trainable=False)
        self.deviation = self.add_weight(name='deviation', shape=[self.mel_bands], initializer='ones', trainable=False)

    def log_mel(self, waveform):
        """The spectrogram before normalisation: [batch, samples] -> float32 [batch, steps, mel_bands]."""
        scale = 1.0 / PCM_SCALE if waveform.dtype == tf.int16 else 1.0
        waveform = tf.cast(waveform, tf.float32) * scale
        return self._log_of_bands(tf.abs(tf.signal.stft(waveform, self.window, self.hop, self.fft_size)))

    def _log_of_bands(self, spectrum):
        """float32 [batch, steps, fft_size / 2 + 1] -> [batch, steps, mel_bands]."""
        return tf.math.log(tf.tensordot(spectrum, tf.constant(self._mel_matrix), 1) + LOG_OFFSET)

    def call(self, waveform):
        return self._normalized(self.log_mel(waveform))

    def _normalized(self, spectrogram):
        return (spectrogram - self.mean) / self.deviation

    def by_convolution(self, waveform):
        """As the layer, of float32 [batch, samples], by operations that TensorFlow Lite and ONNX have too.

        They have no complex numbers in common: each frequency's cosine and sine, under the Hann window, are two kernels of a
        convolution, which takes a little longer than the fast transform.
        """
        with tf.init_scope():
            window = tf.signal.hann_window(self.window).numpy().astype(np.float64)
        angles = 2 * np.pi * np.outer(np.arange(self.window), np.arange(self.fft_size // 2 + 1)) / self.fft_size
        kernel = (window[:, None] * np.concatenate([np.cos(angles), np.sin(angles)], 1)).astype(np.float32)
        parts = tf.nn.conv1d(waveform[..., None], kernel[:, None], self.hop, 'VALID')
        spectrum = tf.sqrt(tf.add_n([tf.square(part) for part in tf.split(parts, 2, -1)]))
        return self._normalized(self._log_of_bands(spectrum))

    def compute_output_shape(self, input_shape):
        batch, samples = input_shape
        steps = None if samples is None else 1 + (samples - self.window) // self.hop
        return (batch, steps, self.mel_bands)

    def compute_output_spec(self, waveform):
        return keras.KerasTensor(self.compute_output_shape(waveform.shape), 'float32')

    def adapt(self, waveforms):
        """Sets mean and deviation of every band from sounds.

        Args:
            waveforms: iterable of int16 or float [batch, samples].
        """
        count, total, squares = 0, np.zeros(self.mel_bands), np.zeros(self.mel_bands)
        for waveform in waveforms:
            values = self.log_mel(tf.convert_to_tensor(waveform)).numpy().reshape(-1, self.mel_bands).astype(np.float64)
            count += len(values)
            total += values.sum(0)
            squares += np.square(values).sum(0)
        if not count:
            raise ValueError('LogMel.adapt was given no sound.')
        mean = total / count
        self.mean.assign(mean)
        # A band that never changes would divide by zero.
        self.deviation.assign(np.maximum(np.sqrt(np.maximum(squares / count - mean**2, 0.0)), 1e-3))

    def get_config(self):
        return {**super().get_config(), **self._config}


def mel_matrix(bands, fft_size, sample_rate, min_hz, max_hz):
    """Triangular mel filters.

    Centres are evenly spaced on the HTK scale, mel = 1127 ln(1 + f / 700), and triangles are straight in mel; TensorFlow's
    own `linear_to_mel_weight_matrix` is what computes them.

    Returns:
        float32 [fft_size / 2 + 1, bands].
    """
    return tf.signal.linear_to_mel_weight_matrix(bands, fft_size // 2 + 1, sample_rate, min_hz, max_hz).numpy()


@keras.saving.register_keras_serializable('avts_tf')
class SpecAugment(keras.layers.Layer):
    """Multiplies spectrograms by masks out of a bank, so that which mask is drawn is the pipeline's business.

    Inputs: float32 [batch, steps, mel_bands] and int32 [batch], a number that picks a mask (modulo the size of the bank).
    Output: float32 [batch, steps, mel_bands]; masked places are 0, the mean of the training data.
    """

    def __init__(self, bank, **kwargs):
        super().__init__(autocast=False, **{**kwargs, 'dtype': 'float32'})
        self._bank = np.asarray(bank, np.float32)

    def call(self, spectrogram, index):
        return spectrogram * tf.gather(tf.constant(self._bank), index % len(self._bank))

    def get_config(self):
        return {**super().get_config(), 'bank': self._bank.tolist()}


def spec_augment_bank(steps, bands, max_steps, max_bands, seed, size=512):
    """Masks of tensorflow-io's SpecAugment, drawn once: its operations draw from a global state, a pair must not.

    Args:
        steps, bands: shape of the spectrogram.
        max_steps, max_bands: masked steps and bands, fewer than these.
        seed: seed of the draw.
        size: number of masks.

    Returns:
        float32 [size, steps, bands] of zeros and ones.

    Raises:
        ImportError: tensorflow-io is not installed.
    """
    with warnings.catch_warnings():
        # Its compiled readers do not load beside this TensorFlow; what is used here needs none of them.
        warnings.simplefilter('ignore')
        import tensorflow_io as tfio  # only needed with --spec_augment, and slow and loud to import

    @tf.function(autograph=False)
    def draw():
        mask = tf.ones([steps, bands])
        return tfio.audio.time_mask(tfio.audio.freq_mask(mask, param=max_bands), param=max_steps)

    tf.random.set_seed(seed)
    return np.stack([draw().numpy() for _ in range(size)])
