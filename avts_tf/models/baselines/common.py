"""What the other systems share: a pair's logit as its distance, and other front ends."""

import keras
import numpy as np
import tensorflow as tf

from avts_tf.config import Config
from avts_tf.data.sampling import NO_PAIR
from avts_tf.errors import UserError
from avts_tf.models.frontend import LOG_OFFSET, LogMel, as_float
from avts_tf.models.sync_model import Batch, SyncModel

# The trainer finds the front end of an audio tower, to adapt it to training audio, by this name.
FRONTEND = 'log_mel'


def need_regime(config: Config, regime: str, task: str) -> None:
    """Refuses a configuration whose negatives are not those that a system learns from.

    Raises:
        UserError: its regime is another one.
    """
    if config.train.regime.split(':')[0] != regime or ',' in config.train.regime:
        raise UserError('regime', config.train.regime, f'`system={config.towers.system}` learns '
                        f'{task}; give `regime={regime}`.')


class PairClassifier(SyncModel):
    """Classifies pairs as in sync or not, by a logit each: the output `logit` float32 [B, K].

    The distance of a pair is minus the logarithm of the probability that it is in sync.
    """

    def distances(self, outputs: dict[str, tf.Tensor]) -> tf.Tensor:
        return tf.nn.softplus(-outputs['logit'])                                          # [B, K]

    def batch_loss(self, outputs: dict[str, tf.Tensor], batch: Batch) -> tf.Tensor:
        losses = tf.nn.sigmoid_cross_entropy_with_logits(batch['label'], outputs['logit'])
        return tf.reduce_mean(tf.where(batch['kind'] == NO_PAIR, 0.0, losses))


@keras.saving.register_keras_serializable('avts_tf')
class LogSpectrogram(LogMel):
    """Log spectrogram on all the bins of the FFT, normalised bin by bin.

    As `LogMel`, with bins for bands: float or int16 [batch, samples] -> float32
    [batch, steps, fft_size / 2 + 1].

    Args:
        sample_rate, stft_window_seconds, stft_hop_seconds, fft_size: as of `LogMel`.
    """

    def __init__(
        self, sample_rate: int, stft_window_seconds: float, stft_hop_seconds: float,
        fft_size: int, **kwargs,
    ) -> None:
        # The base class only needs some mel bands to be built with; no mel filter is used.
        super().__init__(sample_rate, stft_window_seconds, stft_hop_seconds, fft_size, 4, 0.0,
                         sample_rate / 2, **kwargs)
        self.mel_bands = fft_size // 2 + 1
        self._config = {
            'sample_rate': sample_rate, 'stft_window_seconds': stft_window_seconds,
            'stft_hop_seconds': stft_hop_seconds, 'fft_size': fft_size,
        }

    def log_mel(self, waveform: tf.Tensor) -> tf.Tensor:
        """The spectrogram before normalisation.

        Args:
            waveform: int16 or float [batch, samples].

        Returns:
            float32 [batch, steps, fft_size / 2 + 1].
        """
        spectrum = tf.signal.stft(as_float(waveform), self.window, self.hop, self.fft_size)
        return tf.math.log(tf.abs(spectrum) + LOG_OFFSET)


@keras.saving.register_keras_serializable('avts_tf')
class Waveform(keras.layers.Layer):
    """The audio itself as a front end.

    int16 or float [batch, samples] -> float32 [batch, samples, 1] in [-1, 1].
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(autocast=False, **{**kwargs, 'dtype': 'float32'})

    def call(self, waveform: tf.Tensor) -> tf.Tensor:
        return as_float(waveform)[..., None]

    def compute_output_spec(self, waveform: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor((*waveform.shape, 1), 'float32')

    def adapt(self, waveforms: list[np.ndarray]) -> None:
        """Does nothing: there is no scale to take from training audio."""


@keras.saving.register_keras_serializable('avts_tf')
class MiddleFrame(keras.layers.Layer):
    """[batch, frames, height, width, 3] -> [batch, height, width, 3], the frame in the middle."""

    def call(self, frames: tf.Tensor) -> tf.Tensor:
        return frames[:, frames.shape[1] // 2]

    def compute_output_spec(self, frames: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor((frames.shape[0], *frames.shape[2:]), frames.dtype)


@keras.saving.register_keras_serializable('avts_tf')
class RepeatClips(keras.layers.Layer):
    """[B, ...] and the audio windows [B, K, samples] -> [B * K, ...]: a clip beside each window."""

    def __init__(self, **kwargs) -> None:
        super().__init__(autocast=False, **kwargs)

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        clips, audio = inputs
        # TensorFlow has no kernel for GPUs that repeats uint8: it would go by way of the host.
        values = tf.cast(clips, tf.int16) if clips.dtype == tf.uint8 else clips
        return tf.cast(tf.repeat(values, tf.shape(audio)[1], axis=0), clips.dtype)

    def compute_output_spec(self, inputs: list[keras.KerasTensor]) -> keras.KerasTensor:
        return keras.KerasTensor((None, *inputs[0].shape[1:]), inputs[0].dtype)


@keras.saving.register_keras_serializable('avts_tf')
class SplitLike(keras.layers.Layer):
    """[B * K, ...] and the audio windows [B, K, samples] -> [B, K, ...]."""

    def __init__(self, **kwargs) -> None:
        super().__init__(autocast=False, **kwargs)

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        values, audio = inputs
        return tf.reshape(values, [-1, tf.shape(audio)[1], *values.shape[1:]])

    def compute_output_spec(self, inputs: list[keras.KerasTensor]) -> keras.KerasTensor:
        return keras.KerasTensor((None, None, *inputs[0].shape[1:]), inputs[0].dtype)


def batch_inputs(config: Config) -> dict[str, keras.KerasTensor]:
    """The inputs of a model of pairs, for any K.

    Returns:
        Dict of `video` uint8 [B, T, S, S, 3] and `audio` int16 [B, K, samples].
    """
    clip = config.clip
    frames = [clip.frames, clip.frame_size, clip.frame_size, 3]
    return {
        'video': keras.Input(frames, dtype='uint8', name='video'),
        'audio': keras.Input([None, clip.window_samples], dtype='int16', name='audio'),
    }
