"""Layers that both towers use: TensorFlow's fused batch norm, and the head that turns features into an embedding."""

import keras
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
        super().__init__(axis=-1, momentum=momentum, epsilon=epsilon, **kwargs)

    def call(self, inputs, training=None, mask=None):
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if training and self.trainable and self.synchronized and replicas > 1:
            return super().call(inputs, training=training)
        channels = inputs.shape[-1]
        gamma = self.gamma if self.scale else tf.ones([channels])
        beta = self.beta if self.center else tf.zeros([channels])
        shape = tf.shape(inputs)
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
            self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1.0 - self.momentum))
            self.moving_variance.assign(self.moving_variance * self.momentum + variance * (1.0 - self.momentum))
        return tf.reshape(outputs, shape)


@keras.saving.register_keras_serializable('avts_tf')
class L2Normalize(keras.layers.Layer):
    """Scales vectors to length 1, in float32: float [..., size] -> float32 [..., size]."""

    def __init__(self, **kwargs):
        super().__init__(dtype='float32', **kwargs)

    def call(self, inputs):
        return tf.math.l2_normalize(tf.cast(inputs, tf.float32), axis=-1, epsilon=1e-12)


def embedding_head(x, towers):
    """From the vector that a tower has come to, to the embedding.

    Args:
        x: float [batch, size], a Keras tensor.
        towers: `TowerConfig`.

    Returns:
        float32 [batch, towers.embedding_size], of length 1 if towers.normalize.
    """
    x = keras.layers.Dense(towers.embedding_size, use_bias=not towers.embedding_batchnorm, dtype='float32', name='projection')(x)
    if towers.embedding_batchnorm:
        x = BatchNorm(center=False, scale=False, synchronized=towers.sync_batchnorm, dtype='float32', name='spread')(x)
    return L2Normalize(name='unit_length')(x) if towers.normalize else x


def pool_time(x, towers):
    """Brings time to a vector: float [batch, time, channels] -> [batch, size], averaged or kept in order."""
    if towers.head == 'average':
        return keras.layers.GlobalAveragePooling1D(name='average_time')(x)
    return keras.layers.Flatten(name='keep_time')(x)
