"""What both towers share beside batch norm: from features over time to an embedding."""

import keras
import numpy as np
import tensorflow as tf

from avts_tf.config import TowerConfig
from avts_tf.models.batch_norm import BatchNorm


def scaled(channels: int, width: float) -> int:
    """Channels under a width multiplier, at least 4.

    Example:
        >>> scaled(64, 0.25), scaled(64, 0.01)
        (16, 4)
    """
    return max(4, round(channels * width))


@keras.saving.register_keras_serializable('avts_tf')
class L2Normalize(keras.layers.Layer):
    """Scales vectors to length 1, in float32: float [..., size] -> float32 [..., size].

    Example:
        >>> L2Normalize()(tf.constant([[0.0, -4.0]])).numpy().tolist()
        [[0.0, -1.0]]
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**{**kwargs, 'dtype': 'float32'})

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.math.l2_normalize(tf.cast(inputs, tf.float32), axis=-1, epsilon=1e-12)


@keras.saving.register_keras_serializable('avts_tf')
class ResampleTime(keras.layers.Layer):
    """Averages time into equal spans: float [batch, time, channels] -> [batch, spans, channels].

    Step t of T covers [t / T, (t + 1) / T] of the window; a span is the mean of the steps that it
    overlaps, weighted by the overlap. So both towers come to the same spans of the same window,
    however many steps each has.

    Args:
        spans: int. Their number.

    Example:
        >>> x = tf.constant([[[1.0], [2.0], [3.0], [4.0]]])
        >>> ResampleTime(2)(x).numpy().ravel().tolist()
        [1.5, 3.5]
    """

    def __init__(self, spans: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.spans = spans

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        weights = tf.cast(overlap_weights(inputs.shape[1], self.spans), inputs.dtype)
        return tf.einsum('btc,ts->bsc', inputs, weights)

    def get_config(self) -> dict:
        return {**super().get_config(), 'spans': self.spans}


def overlap_weights(steps: int, spans: int) -> np.ndarray:
    """Weights of `steps` equal intervals in each of `spans` equal ones.

    Returns:
        float32 [steps, spans]; columns add up to 1.

    Example:
        >>> overlap_weights(4, 2)[:, 0].tolist()
        [0.5, 0.5, 0.0, 0.0]
    """
    starts, ends = np.arange(steps) / steps, (np.arange(steps) + 1) / steps
    lows, highs = np.arange(spans) / spans, (np.arange(spans) + 1) / spans
    overlap = np.minimum(ends[:, None], highs) - np.maximum(starts[:, None], lows)
    overlap = np.maximum(overlap, 0.0)                                         # [steps, spans]
    return (overlap / overlap.sum(0)).astype(np.float32)


# Root mean square length of whitened embeddings: those of unrelated clips then lie at distance 1,
# about the margin.
WHITENED_LENGTH = 0.5**0.5


def embedding_head(x: keras.KerasTensor, towers: TowerConfig) -> keras.KerasTensor:
    """From features over time to the embedding.

    Args:
        x: float [batch, time, channels].
        towers: `TowerConfig`. Its `head` says how time enters: "average" pools it away; "spans"
            projects `head_spans` spans of the window
            with the same weights and puts them side by side, so that the distance of two
            embeddings compares moment with moment. Its `normalize` says how the embedding is
            scaled.

    Returns:
        float32 [batch, towers.embedding_size].
    """
    size = towers.embedding_size
    if towers.head == 'spans':
        x = ResampleTime(towers.head_spans, dtype='float32', name='spans')(x)  # [batch, spans, c]
        size //= towers.head_spans
    else:
        x = keras.layers.GlobalAveragePooling1D(name='average_time')(x)        # [batch, channels]
    whiten = towers.normalize == 'whiten'
    x = keras.layers.Dense(size, use_bias=not whiten, dtype='float32', name='projection')(x)
    if towers.head == 'spans':
        x = keras.layers.Flatten(dtype='float32', name='join_spans')(x)  # [batch, embedding_size]
    if whiten:
        # Over clips only: with statistics over the spans as well, the variance could lie between
        # the spans of every clip alike.
        x = BatchNorm(center=False, scale=False, synchronized=towers.sync_batchnorm,
                      dtype='float32', name='whiten')(x)
        length = WHITENED_LENGTH / towers.embedding_size**0.5
        x = keras.layers.Rescaling(length, dtype='float32', name='length')(x)
    return L2Normalize(name='unit_length')(x) if towers.normalize == 'length' else x
