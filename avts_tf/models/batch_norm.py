"""Batch norm, over all replicas where wanted, computed in the way that is fastest on a device."""

import math

import keras
import tensorflow as tf

from avts_tf.models.target import is_for_gpu


@keras.saving.register_keras_serializable('avts_tf')
class BatchNorm(keras.layers.BatchNormalization):
    """Batch norm over all axes but the last, in few passes over memory.

    On CPUs, where it is not trained and in exported graphs it is TensorFlow's fused operation,
    which Keras 3 does not use; trained on a GPU, functions that XLA compiles. The arithmetic is
    that of `keras.layers.BatchNormalization`: the biased variance enters the moving average as
    well. With several replicas and `synchronized=True` the statistics are those of the global
    batch, so that a step does not depend on the number of replicas.

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
        synchronized = self.synchronized and replicas > 1
        if is_for_gpu():
            outputs, mean, variance = _by_xla(flat, gamma, beta, self.epsilon, synchronized)
        elif synchronized:
            outputs, mean, variance = _synchronized(flat, gamma, beta, self.epsilon)
        else:
            outputs, mean, variance = _fused(flat, gamma, beta, self.epsilon)
        if replicas > 1 and not synchronized:
            # Each normalises by its own part; what is kept is the mean over all.
            mean, variance = _mean_over_replicas(mean, variance)
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


def _mean_over_replicas(*values: tf.Tensor) -> list[tf.Tensor]:
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, list(values))


def _synchronized(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Batch norm by the statistics of all replicas, which have equally large parts, on CPUs.

    Each replica takes its own mean and variance by the fused operation. One exchange averages the
    means and the mean squares; the fused operation then scales and shifts. Backwards, one exchange
    averages the sums over the gradient.

    Returns:
        Outputs as x, and mean and biased variance of the global batch, float32 [channels].
    """
    @tf.custom_gradient
    def normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor):
        _, mean, variance = _fused(x, tf.ones_like(gamma), tf.zeros_like(beta), epsilon)
        mean, variance = _joined(mean, variance)
        with tf.GradientTape() as tape:
            tape.watch([x, gamma, beta])
            outputs = _fused(x, gamma, beta, epsilon, mean, variance)

        def gradient(upstream: tf.Tensor, *_):
            # As if mean and variance were constants, which they are not: they follow x.
            to_x, to_gamma, to_beta = tape.gradient(outputs, [x, gamma, beta], upstream)
            mean_gamma, mean_beta = _mean_over_replicas(to_gamma, to_beta)
            factor = gamma * tf.math.rsqrt(variance + epsilon) / _count(x)
            slope = factor * mean_gamma * tf.math.rsqrt(variance + epsilon)
            shift = factor * mean_beta - slope * mean
            to_x -= tf.cast(tf.cast(x, tf.float32) * slope + shift, x.dtype)
            return to_x, to_gamma, to_beta

        return (outputs, mean, variance), gradient

    return normalize(x, tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta))


def _joined(mean: tf.Tensor, variance: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and biased variance over all replicas, from those of each."""
    mean, square = _mean_over_replicas(mean, variance + mean**2)
    return mean, tf.maximum(square - mean**2, 0.0)


def _by_xla(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float, synchronized: bool,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Batch norm on GPUs, in nine passes over memory forwards and backwards.

    There the fused operation takes 18: it copies its input and output into the layout
    [batch, channels, ...] and back, in training (fused_batch_norm_op.cc of TensorFlow). The
    gradient for given statistics, which `_synchronized` needs, takes more, in any order of sums.

    Returns:
        As `_synchronized`, or with the statistics of this replica alone.
    """
    @tf.custom_gradient
    def normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor):
        mean, variance = _statistics(x)
        if synchronized:
            mean, variance = _joined(mean, variance)
        scale = tf.math.rsqrt(variance + epsilon)
        outputs = _normalized(x, mean, gamma * scale, beta)

        def gradient(upstream: tf.Tensor, *_):
            to_beta, centred = _gradient_sums(x, mean, upstream)
            to_gamma = centred * scale
            mean_gamma, mean_beta = to_gamma, to_beta
            if synchronized:
                mean_gamma, mean_beta = _mean_over_replicas(to_gamma, to_beta)
            slope = mean_gamma * scale / _count(x)
            to_x = _gradient_of_x(x, mean, upstream, gamma * scale, slope, mean_beta / _count(x))
            return to_x, to_gamma, to_beta

        return (outputs, mean, variance), gradient

    return normalize(x, tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta))


# XLA makes as few passes over memory of these as it can; sums are in float32.

@tf.function(jit_compile=True, autograph=False)
def _statistics(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and biased variance of each channel, float32 [channels]."""
    x = tf.cast(x, tf.float32)
    mean = tf.reduce_mean(x, [0, 1, 2])
    return mean, tf.reduce_mean((x - mean)**2, [0, 1, 2])


@tf.function(jit_compile=True, autograph=False)
def _normalized(
    x: tf.Tensor, mean: tf.Tensor, scale: tf.Tensor, beta: tf.Tensor,
) -> tf.Tensor:
    """(x - mean) * scale + beta as x."""
    return tf.cast((tf.cast(x, tf.float32) - mean) * scale + beta, x.dtype)


@tf.function(jit_compile=True, autograph=False)
def _gradient_sums(
    x: tf.Tensor, mean: tf.Tensor, upstream: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Sums of the gradient and of its product with x - mean, float32 [channels]."""
    upstream = tf.cast(upstream, tf.float32)
    product = upstream * (tf.cast(x, tf.float32) - mean)
    return tf.reduce_sum(upstream, [0, 1, 2]), tf.reduce_sum(product, [0, 1, 2])


@tf.function(jit_compile=True, autograph=False)
def _gradient_of_x(
    x: tf.Tensor, mean: tf.Tensor, upstream: tf.Tensor, scale: tf.Tensor, slope: tf.Tensor,
    mean_upstream: tf.Tensor,
) -> tf.Tensor:
    """(upstream - mean_upstream - (x - mean) * slope) * scale as x."""
    centred, upstream = tf.cast(x, tf.float32) - mean, tf.cast(upstream, tf.float32)
    return tf.cast((upstream - mean_upstream - centred * slope) * scale, x.dtype)
