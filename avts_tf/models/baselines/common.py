"""What the other systems share: a pair's logit as its distance, and front ends other than log-mel."""

import keras
import tensorflow as tf

from avts_tf.data.records import PCM_SCALE
from avts_tf.data.sampling import NO_PAIR
from avts_tf.models.frontend import LOG_OFFSET, LogMel
from avts_tf.models.two_tower import TwoTower

# The trainer finds the front end of an audio tower, which `adapt`s to the training sounds, by this name.
FRONTEND = 'log_mel'


class PairClassifier(TwoTower):
    """Tells pairs in sync from others by a logit each, which the model gives as `logit` float32 [B, K].

    The distance of a pair is minus the logarithm of the probability that it is in sync.
    """

    def embed(self, batch):
        return self(self._model_inputs(batch), training=False)

    def distances(self, outputs):
        return tf.nn.softplus(-outputs['logit'])

    def _batch_loss(self, outputs, batch):
        losses = tf.nn.sigmoid_cross_entropy_with_logits(batch['label'], outputs['logit'])
        return tf.reduce_mean(tf.where(batch['kind'] == NO_PAIR, 0.0, losses))


@keras.saving.register_keras_serializable('avts_tf')
class LogSpectrogram(LogMel):
    """Log spectrogram on all the bins of the FFT, normalised bin by bin: as `LogMel`, with bins for bands."""

    def __init__(self, sample_rate, stft_window_seconds, stft_hop_seconds, fft_size, **kwargs):
        # The base class only needs some mel bands to be built with; no mel filter is used.
        super().__init__(sample_rate, stft_window_seconds, stft_hop_seconds, fft_size, 4, 0.0, sample_rate / 2, **kwargs)
        self.mel_bands = fft_size // 2 + 1
        self._config = {'sample_rate': sample_rate, 'stft_window_seconds': stft_window_seconds,
                        'stft_hop_seconds': stft_hop_seconds, 'fft_size': fft_size}

    def log_mel(self, waveform):
        """The spectrogram before normalisation: [batch, samples] -> float32 [batch, steps, fft_size / 2 + 1]."""
        waveform = as_float(waveform)
        return tf.math.log(tf.abs(tf.signal.stft(waveform, self.window, self.hop, self.fft_size)) + LOG_OFFSET)


@keras.saving.register_keras_serializable('avts_tf')
class Waveform(keras.layers.Layer):
    """The sound itself as a front end: int16 or float [batch, samples] -> float32 [batch, samples, 1] in [-1, 1]."""

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **{**kwargs, 'dtype': 'float32'})

    def call(self, waveform):
        return as_float(waveform)[..., None]

    def compute_output_spec(self, waveform):
        return keras.KerasTensor((*waveform.shape, 1), 'float32')

    def adapt(self, waveforms):
        """Nothing: there is no scale to take from the training sounds."""


def as_float(waveform):
    """int16 or float [..., samples] -> float32 [..., samples] in [-1, 1]."""
    return tf.cast(waveform, tf.float32) * (1.0 / PCM_SCALE if waveform.dtype == tf.int16 else 1.0)


@keras.saving.register_keras_serializable('avts_tf')
class MiddleFrame(keras.layers.Layer):
    """[batch, frames, height, width, 3] -> [batch, height, width, 3], the frame in the middle."""

    def call(self, frames):
        return frames[:, frames.shape[1] // 2]

    def compute_output_spec(self, frames):
        return keras.KerasTensor((frames.shape[0], *frames.shape[2:]), frames.dtype)


@keras.saving.register_keras_serializable('avts_tf')
class RepeatClips(keras.layers.Layer):
    """[B, ...] and the audio windows [B, K, samples] -> [B * K, ...]: a clip beside each of its windows."""

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def call(self, inputs):
        clips, audio = inputs
        return tf.repeat(clips, tf.shape(audio)[1], axis=0)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((None, *inputs[0].shape[1:]), inputs[0].dtype)


@keras.saving.register_keras_serializable('avts_tf')
class SplitLike(keras.layers.Layer):
    """[B * K, ...] and the audio windows [B, K, samples] -> [B, K, ...]."""

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def call(self, inputs):
        values, audio = inputs
        return tf.reshape(values, [-1, tf.shape(audio)[1], *values.shape[1:]])

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((None, None, *inputs[0].shape[1:]), inputs[0].dtype)


def batch_inputs(config):
    """The inputs of a model of pairs, for any K: a dict of `video` uint8 [B, T, S, S, 3] and `audio` int16 [B, K, samples]."""
    clip = config.clip
    return {
        'video': keras.Input([clip.frames, clip.frame_size, clip.frame_size, 3], dtype='uint8', name='video'),
        'audio': keras.Input([None, clip.window_samples], dtype='int16', name='audio'),
    }
