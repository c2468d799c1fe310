"""Layers that both towers use: TensorFlow's fused batch norm, and the head that turns features into an embedding."""

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable('avts_tf')
class BatchNorm(keras.layers.BatchNormalization):
    """Batch norm over all axes but the last, by TensorFlow's fused operation, which Keras 3 does not use.

    The arithmetic is that of `keras.layers.BatchNormalization`: the biased variance enters the moving average as well. With
    several replicas and `synchronized=True` the statistics are those of the global batch, so that a step does not depend on
    the number of replicas.

    Input and output: float [..., channels] of any rank from 2, in the layer's compute dtype.
    """

    def __init__(self, momentum=0.9, epsilon=1e-5, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **{**kwargs, 'axis': -1})

    def call(self, inputs, training=None, mask=None):
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if training and self.trainable and self.synchronized and replicas > 1:
            return super().call(inputs, training=training)
        channels = inputs.shape[-1]
        gamma = self.gamma if self.scale else tf.ones([channels])
        beta = self.beta if self.center else tf.zeros([channels])
        # Not tf.shape, where it can be helped: behind a padded 3-D convolution TensorFlow 2.21 with oneDNN may get it wrong.
        shape = [-1, *inputs.shape[1:]] if inputs.shape[1:].is_fully_defined() else tf.shape(inputs)
        # The fused operation wants rank 4; only the channels matter to it.
        flat = tf.reshape(inputs, [-1, 1, 1, channels])
        if not (training and self.trainable):
            outputs, _, _ = tf.compat.v1.nn.fused_batch_norm(
                flat, gamma, beta, self.moving_mean, self.moving_variance, epsilon=self.epsilon, is_training=False)
        else:
            outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(flat, gamma, beta, epsilon=self.epsilon)
            # The fused operation returns the unbiased variance; Keras keeps the biased one.
            count = tf.cast(tf.size(inputs) // channels, tf.float32)
            variance *= (count - 1.0) / count
            if replicas > 1:  # each normalises by its own part; what is kept is the mean over all
                mean, variance = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, [mean, variance])
            self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1.0 - self.momentum))
            self.moving_variance.assign(self.moving_variance * self.momentum + variance * (1.0 - self.momentum))
        return tf.reshape(outputs, shape)


@keras.saving.register_keras_serializable('avts_tf')
class L2Normalize(keras.layers.Layer):
    """Scales vectors to length 1, in float32: float [..., size] -> float32 [..., size]."""

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, 'dtype': 'float32'})

    def call(self, inputs):
        return tf.math.l2_normalize(tf.cast(inputs, tf.float32), axis=-1, epsilon=1e-12)


@keras.saving.register_keras_serializable('avts_tf')
class ResampleTime(keras.layers.Layer):
    """Averages time into a number of equal spans: float [batch, time, channels] -> [batch, spans, channels].

    Step t of T covers [t / T, (t + 1) / T] of the window; a span is the mean of the steps that it overlaps, weighted by the
    overlap. So both towers come to the same spans of the same window, however many steps each has.
    """

    def __init__(self, spans, **kwargs):
        super().__init__(**kwargs)
        self.spans = spans

    def call(self, inputs):
        return tf.einsum('btc,ts->bsc', inputs, tf.cast(overlap_weights(inputs.shape[1], self.spans), inputs.dtype))

    def get_config(self):
        return {**super().get_config(), 'spans': self.spans}


def overlap_weights(steps, spans):
    """Weights of `steps` equal intervals in each of `spans` equal ones: float32 [steps, spans], columns add up to 1."""
    starts, ends = np.arange(steps) / steps, (np.arange(steps) + 1) / steps
    lows, highs = np.arange(spans) / spans, (np.arange(spans) + 1) / spans
    overlap = np.maximum(np.minimum(ends[:, None], highs) - np.maximum(starts[:, None], lows), 0.0)
    return (overlap / overlap.sum(0)).astype(np.float32)


# Root mean square length of whitened embeddings: those of unrelated clips then lie at distance 1, about the margin.
WHITENED_LENGTH = 0.5**0.5


def embedding_head(x, towers):
    """From features over time to the embedding.

    Args:
        x: float [batch, time, channels], a Keras tensor.
        towers: `TowerConfig`. Its `head` says how time enters: "average" pools it away; "flatten" gives each step weights of
            its own; "spans" projects `head_spans` spans of the window with the same weights and puts them side by side, so that
            the distance of two embeddings compares moment with moment.

    Returns:
        float32 [batch, towers.embedding_size]; its scale is what `normalize` says.
    """
    size = towers.embedding_size
    if towers.head == 'spans':
        x = ResampleTime(towers.head_spans, dtype='float32', name='spans')(x)
        size //= towers.head_spans
    elif towers.head == 'average':
        x = keras.layers.GlobalAveragePooling1D(name='average_time')(x)
    else:
        x = keras.layers.Flatten(name='keep_time')(x)
    whiten = towers.normalize == 'whiten'
    x = keras.layers.Dense(size, use_bias=not whiten, dtype='float32', name='projection')(x)
    if towers.head == 'spans':
        x = keras.layers.Flatten(dtype='float32', name='join_spans')(x)
    if whiten:
        # Over clips only: with statistics over the spans as well, the variance could lie between the spans of every clip alike.
        x = BatchNorm(center=False, scale=False, synchronized=towers.sync_batchnorm, dtype='float32', name='whiten')(x)
        x = keras.layers.Rescaling(WHITENED_LENGTH / towers.embedding_size**0.5, dtype='float32', name='length')(x)
    return L2Normalize(name='unit_length')(x) if towers.normalize == 'length' else x
