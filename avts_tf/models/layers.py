"""Layers that both towers use: batch norm, and the head that makes features an embedding."""

import math

import keras
import numpy as np
import tensorflow as tf

from avts_tf.config import TowerConfig


def scaled(channels: int, width: float) -> int:
    """Channels under a width multiplier, at least 4.

    Example:
        >>> scaled(64, 0.25), scaled(64, 0.01)
        (16, 4)
    """
    return max(4, round(channels * width))


@keras.saving.register_keras_serializable('avts_tf')
class BatchNorm(keras.layers.BatchNormalization):
    """Batch norm over all axes but the last, by TensorFlow's fused operation.

    Keras 3 does not use that operation. The arithmetic is that of
    `keras.layers.BatchNormalization`: the biased variance enters the moving average as well. With
    several replicas and `synchronized=True` the statistics are those of the global batch, so that
    a step does not depend on the number of replicas.

    Input and output: float [..., channels] of any rank from 2, in the layer's compute dtype.

    Args:
        momentum: float. How much of a moving statistic stays at each step.
        epsilon: float. Added to the variance.
        **kwargs: as in Keras; `axis` is always the last.

    Example:
        >>> BatchNorm()(tf.constant([[1.0], [3.0]]), training=True).numpy().round(3).tolist()
        [[-1.0], [1.0]]
    """

    def __init__(self, momentum: float = 0.9, epsilon: float = 1e-5, **kwargs) -> None:
        super().__init__(momentum=momentum, epsilon=epsilon, **{**kwargs, 'axis': -1})

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: None = None,
    ) -> tf.Tensor:
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        channels = inputs.shape[-1]
        gamma = self.gamma if self.scale else tf.ones([channels])
        beta = self.beta if self.center else tf.zeros([channels])
        # Not tf.shape, where it can be helped: behind a padded 3-D convolution TensorFlow 2.21
        # with oneDNN may get it wrong.
        known = inputs.shape[1:].is_fully_defined()
        shape = [-1, *inputs.shape[1:]] if known else tf.shape(inputs)
        # The fused operation wants rank 4. The first axis stays the batch: cuDNN takes 65,535 of
        # it at most.
        inner = math.prod(inputs.shape[1:-1]) if known else tf.reduce_prod(shape[1:-1])
        flat = tf.reshape(inputs, [-1, inner, 1, channels])           # [batch, inner, 1, channels]
        if not (training and self.trainable):
            outputs = _fused(flat, gamma, beta, self.epsilon, self.moving_mean,
                             self.moving_variance)
            return tf.reshape(outputs, shape)
        if self.synchronized and replicas > 1:
            outputs, mean, variance = _synchronized(flat, gamma, beta, self.epsilon)
        else:
            outputs, mean, variance = _fused(flat, gamma, beta, self.epsilon)
            if replicas > 1:  # each normalises by its own part; what is kept is the mean over all
                mean, variance = tf.distribute.get_replica_context().all_reduce(
                    tf.distribute.ReduceOp.MEAN, [mean, variance])
        self._keep(mean, variance)
        return tf.reshape(outputs, shape)

    def _keep(self, mean: tf.Tensor, variance: tf.Tensor):
        """Moves the moving statistics towards those of a batch, float32 [channels] each."""
        old, new = self.momentum, 1.0 - self.momentum
        self.moving_mean.assign(self.moving_mean * old + mean * new)
        self.moving_variance.assign(self.moving_variance * old + variance * new)


def _fused(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float,
    mean: tf.Tensor | None = None, variance: tf.Tensor | None = None,
) -> tf.Tensor | tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """TensorFlow's fused batch norm of [batch, inner, 1, channels].

    Args:
        x: in the compute dtype; all others float32 [channels].
        gamma, beta, epsilon: as of `BatchNorm`.
        mean, variance: given statistics; None takes those of `x`.

    Returns:
        As x; where the statistics are those of `x`, also its mean and biased variance.
    """
    if mean is not None:
        return tf.compat.v1.nn.fused_batch_norm(
            x, gamma, beta, mean, variance, epsilon=epsilon, is_training=False)[0]
    outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, epsilon=epsilon)
    # The fused operation returns the unbiased variance; Keras keeps the biased one.
    count = _count(x)
    return outputs, mean, variance * ((count - 1.0) / count)


def _count(x: tf.Tensor) -> tf.Tensor:
    """Values per channel, float32 scalar."""
    return tf.cast(tf.size(x) // x.shape[-1], tf.float32)


def _synchronized(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Batch norm by the statistics of all replicas, which have equally large parts.

    Each replica takes its own mean and variance by the fused operation. One exchange averages the
    means and the mean squares; the fused operation then scales and shifts. Backwards, one exchange
    averages the sums over the gradient.

    Returns:
        Outputs as x, and mean and biased variance of the global batch, float32 [channels].
    """
    context = tf.distribute.get_replica_context()

    def mean_over_replicas(*values):
        return context.all_reduce(tf.distribute.ReduceOp.MEAN, list(values))

    @tf.custom_gradient
    def normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor):
        _, mean, variance = _fused(x, tf.ones_like(gamma), tf.zeros_like(beta), epsilon)
        mean, square = mean_over_replicas(mean, variance + mean**2)
        variance = tf.maximum(square - mean**2, 0.0)
        with tf.GradientTape() as tape:
            tape.watch([x, gamma, beta])
            outputs = _fused(x, gamma, beta, epsilon, mean, variance)

        def gradient(upstream: tf.Tensor, *_):
            # As if mean and variance were constants, which they are not: they follow x.
            to_x, to_gamma, to_beta = tape.gradient(outputs, [x, gamma, beta], upstream)
            mean_gamma, mean_beta = mean_over_replicas(to_gamma, to_beta)
            factor = gamma * tf.math.rsqrt(variance + epsilon) / _count(x)
            slope = factor * mean_gamma * tf.math.rsqrt(variance + epsilon)
            shift = factor * mean_beta - slope * mean
            to_x -= tf.cast(tf.cast(x, tf.float32) * slope + shift, x.dtype)
            return to_x, to_gamma, to_beta

        return (outputs, mean, variance), gradient

    return normalize(x, tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta))


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
