"""The audio tower as it is exported."""

import keras
import numpy as np
import tensorflow as tf

from avts_tf.config import Config
from avts_tf.data.records import PCM_SCALE
from avts_tf.inference.signatures import (
    Examples,
    Outputs,
    TowerSignatures,
    check_rank,
    check_sizes,
    check_window,
    in_float32,
)
from avts_tf.inference.windows import MICROSECONDS, Hop, count_windows, window_start
from avts_tf.models.audio import embed_waveform
from avts_tf.models.target import plain_operations

LONGEST_HOP_SECONDS = 3600.0
# No audio in [-1, 1] comes near it; integer samples that were only cast to float do.
LOUDEST = 100.0


class AudioSignatures(TowerSignatures):
    """The signatures of an exported audio tower.

    Audio shorter than a window is padded with silence at its end; longer audio is cut into
    windows, the last one padded likewise. Samples beyond 1 or -1 are clipped, as they would be in
    a 16-bit file. Audio is at the sample rate of training: callers resample it.

    Args:
        tower: Keras model.
        config: `Config` of the training.
    """

    windows_at_once, most_windows = 64, 16384

    def __init__(self, tower: keras.Model, config: Config) -> None:
        super().__init__(tower, config, 'audio_tower')
        self._window, self._rate = config.clip.window_samples, config.clip.sample_rate
        waveform = tf.TensorSpec([None, None], tf.float32, 'waveform')
        self.inputs = {
            'serving_default': [waveform],
            'windows': [waveform, tf.TensorSpec([], tf.float32, 'hop_seconds')],
            'pcm': [tf.TensorSpec([None, None], tf.int16, 'waveform')],
            'window': [tf.TensorSpec([None, self._window], tf.float32, 'waveform')],
        }

    def serving_default(self, waveform: tf.Tensor) -> Outputs:
        """Outputs averaged over windows end to end.

        Args:
            waveform: float32 [batch, samples] in [-1, 1].

        Returns:
            Dict of `embedding` [batch, D] and `conv5` [batch, C], float32.
        """
        return self(waveform)

    def pcm(self, waveform: tf.Tensor) -> Outputs:
        """As `serving_default`, of int16 [batch, samples]."""
        return self._average(waveform, False)

    def windows(self, waveform: tf.Tensor, hop_seconds: tf.Tensor) -> Outputs:
        """A window every `hop_seconds`, by the rule of `avts_tf.inference.windows`.

        Args:
            waveform: float32 [batch, samples] in [-1, 1].
            hop_seconds: float32 scalar, from one sample to an hour, taken to the nearest
                microsecond.

        Returns:
            Dict of `embedding` [batch, windows, D], `conv5` [batch, windows, C] and `timestamps`
            [windows], the centre of each window in seconds; float32.
        """
        micro = tf.cast(tf.round(tf.cast(hop_seconds, tf.float64) * MICROSECONDS), tf.int64)
        hop = (micro * self._rate, MICROSECONDS)
        message = tf.strings.format(
            f'hop_seconds: must lie between one sample, 1 / {self._rate} s, and '
            f'{LONGEST_HOP_SECONDS:g} s, not {{}} s', hop_seconds)
        allowed = (hop_seconds <= LONGEST_HOP_SECONDS) & (hop[0] >= hop[1])
        with tf.control_dependencies([
            *check_rank(hop_seconds, 0, 'hop_seconds', 'a single number'),
            tf.debugging.Assert(allowed, [message]),
        ]):
            waveform = tf.identity(waveform)
        outputs, windows = self._framed(waveform, hop, training=False)
        starts = window_start(tf.range(windows), hop)
        centres = (tf.cast(starts, tf.float64) + self._window / 2) / self._rate
        return {**outputs, 'timestamps': tf.cast(centres, tf.float32)}

    def window(self, waveform: tf.Tensor) -> Outputs:
        """One window, without loops, in float32, by operations that other formats have.

        Args:
            waveform: float32 [batch, window_samples] in [-1, 1].

        Returns:
            As `serving_default`.
        """
        waveform = check_window(waveform, self.inputs['window'][0], self.windows_at_once)
        tower = self._keras_tower()
        clipped = tf.clip_by_value(waveform, -1.0, 1.0)
        spectrogram = tower.get_layer('log_mel').by_convolution(clipped)
        with in_float32(tower):
            return tower.get_layer('audio_network')(spectrogram, training=False)

    def examples(self, rng: np.random.Generator) -> Examples:
        """An input for each signature: two waveforms, one and a half windows long."""
        waveform = rng.uniform(-1, 1, [2, self._window * 3 // 2]).astype(np.float32)
        hop_seconds = np.float32(self._window / self._rate / 4)
        return {
            'serving_default': {'waveform': waveform},
            'windows': {'waveform': waveform, 'hop_seconds': hop_seconds},
            'pcm': {'waveform': np.round(waveform * 32767).astype(np.int16)},
            'window': {'waveform': waveform[:, :self._window]},
        }

    def _end_to_end(self, waveform: tf.Tensor, training: bool):
        return self._framed(waveform, (self._window, 1), training)[0]

    def _framed(self, waveform: tf.Tensor, hop: Hop, training: bool):
        """Outputs of windows that lie a hop apart, and the number of windows.

        Args:
            waveform: float32 or int16 [batch, samples].
            hop: numerator and denominator, in samples.
            training: bool.

        Returns:
            (dict of [batch, windows, size], int64 scalar).
        """
        waveform = _checked(waveform)
        batch, samples = tf.unstack(tf.shape(waveform, tf.int64))
        windows = count_windows(samples, self._window, hop, tf.minimum, tf.maximum)
        windows = self._limited(batch, windows)

        def outputs_of(examples: tf.Tensor, numbers: tf.Tensor):
            cut = _read_samples(waveform, examples, window_start(numbers, hop), self._window)
            return self._network(tf.clip_by_value(cut, -1.0, 1.0), training)

        return self._over_windows(outputs_of, batch, windows, training), windows

    @tf.function(autograph=False)
    def _network(self, waveform: tf.Tensor, training: bool):
        with plain_operations():
            return embed_waveform(self._keras_tower(), waveform, training)


def _checked(waveform: tf.Tensor):
    """The waveform, where its samples are fit to be embedded."""
    with tf.control_dependencies(check_rank(waveform, 2, 'waveform', '[batch, samples]')):
        waveform = tf.identity(waveform)
    checks = check_sizes(waveform, 'waveform', 'samples')
    if waveform.dtype.is_floating:
        with tf.control_dependencies(checks):
            waveform = tf.identity(waveform)
        finite = tf.reduce_all(tf.math.is_finite(waveform))
        peak = tf.maximum(tf.reduce_max(waveform), -tf.reduce_min(waveform))
        message = tf.strings.format(
            'waveform: samples must lie in [-1, 1], these reach {}; give 16-bit integers to the '
            f'signature pcm, or divide them by {PCM_SCALE:.0f}', peak)
        checks = [tf.debugging.Assert(finite, ['waveform: NaN or infinite samples']),
                  tf.debugging.Assert(peak <= LOUDEST, [message])]
    with tf.control_dependencies(checks):
        return tf.identity(waveform)


def _read_samples(waveform: tf.Tensor, examples: tf.Tensor, starts: tf.Tensor, size: int):
    """Pieces of waveforms.

    Args:
        waveform: float32 or int16 [batch, samples].
        examples: int64 [number], which waveform.
        starts: int64 [number], the first sample of each piece; pieces are ordered by waveform and
            start, and there is one at least.
        size: length of a piece.

    Returns:
        float32 [number, size], full scale 1; silence where a piece lies outside of its waveform.
    """
    samples = tf.shape(waveform, tf.int64)[1]
    places = starts[:, None] + tf.range(size, dtype=tf.int64)
    inside = (places >= 0) & (places < samples)
    index = examples[:, None] * samples + tf.clip_by_value(places, 0, samples - 1)
    low, high = index[0, 0], index[-1, -1] + 1  # all of these pieces lie between them
    stretch = tf.reshape(waveform, [-1])[low:high]
    if stretch.dtype == tf.int16:  # before they are gathered, for which a GPU needs float32
        stretch = tf.cast(stretch, tf.float32) / PCM_SCALE
    pieces = tf.gather(stretch, index - low)
    return tf.where(inside, pieces, 0.0)
