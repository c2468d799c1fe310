"""Convolutions that compute what Keras's do, faster on CPUs.

How they compute it is chosen when a graph is built: for a CPU of this machine in ways that its
kernels are faster with; for a GPU, whose library chooses by itself, and for graphs that are taken
to other machines, by the plain operation.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import keras
import tensorflow as tf

_for_any_device = contextvars.ContextVar('for_any_device', default=False)


@contextlib.contextmanager
def plain_convolutions() -> Iterator[None]:
    """Within it graphs are built of plain operations, because they will run anywhere.

    Example:
        >>> layer = FramewiseConv3D(4, (1, 3, 3), strides=(1, 2, 2), use_bias=False)
        >>> with plain_convolutions():
        ...     graph = tf.function(layer).get_concrete_function(tf.zeros([2, 5, 9, 9, 3])).graph
        >>> {op.type for op in graph.get_operations() if op.type.startswith('Conv')}
        {'Conv3D'}
    """
    token = _for_any_device.set(True)
    try:
        yield
    finally:
        _for_any_device.reset(token)


def _is_for_cpu() -> bool:
    """Whether the graph that is being built will run on a CPU of this machine."""
    return not (_for_any_device.get() or tf.config.list_logical_devices('GPU'))


@keras.saving.register_keras_serializable('avts_tf')
class FramewiseConv3D(keras.layers.Conv3D):
    """A strided `keras.layers.Conv3D` of temporal size 1, padding "valid" or "same" and no bias.

    The result is the same. On a CPU it runs on each frame as a picture: the gradients of
    TensorFlow's strided 3-D convolutions take up to three times as long as those of its 2-D ones.

    On all devices a 1 x 1 kernel first takes the positions that its stride leaves, then convolves
    without one: oneDNN's gradient of a strided 1 x 1 kernel with fewer than 8 channels is wrong on
    processors that have AVX2 but no AVX-512, and differs from run to run (TensorFlow 2.21).

    Example:
        >>> layer = FramewiseConv3D(4, (1, 3, 3), strides=(1, 2, 2), use_bias=False)
        >>> layer(tf.zeros([2, 5, 9, 9, 3])).shape.as_list()
        [2, 5, 4, 4, 4]
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        kernel, padding = tf.convert_to_tensor(self.kernel), self.padding.upper()
        strides = self.strides[1:]
        if self.kernel_size == (1, 1, 1):
            inputs, strides = _positions(inputs, strides), (1, 1)
        if not _is_for_cpu():
            return tf.nn.conv3d(inputs, kernel, [1, 1, *strides, 1], padding)
        batch, frames = tf.shape(inputs)[0], inputs.shape[1]
        images = tf.reshape(inputs, [-1, *inputs.shape[2:]])        # [batch * frames, h, w, c]
        images = tf.nn.conv2d(images, tf.squeeze(kernel, 0), strides, padding)
        return tf.reshape(images, [batch, frames, *images.shape[1:]])


def _positions(x: tf.Tensor, strides: tuple[int, int]) -> tf.Tensor:
    """The positions that strides leave: [batch, frames, h, w, c] -> the same with smaller h, w."""
    if not _is_for_cpu():
        return x[:, :, ::strides[0], ::strides[1]]
    # A pool of single positions: on a CPU a slice and its gradient take up to five times as long.
    images = tf.nn.max_pool2d(tf.reshape(x, [-1, *x.shape[2:]]), 1, strides, 'VALID')
    return tf.reshape(images, [tf.shape(x)[0], x.shape[1], *images.shape[1:]])


# With fewer channels the passes over memory take longer than the multiplications that they save.
WINOGRAD_CHANNELS = 64


@keras.saving.register_keras_serializable('avts_tf')
class WinogradConv3D(keras.layers.Conv3D):
    """A `keras.layers.Conv3D` that is trained by Winograd's F(2, 3) in time, on CPUs.

    It has temporal size 3, stride 1, padding "same" and no bias. Two frames are made by four 2-D
    convolutions instead of six (Lavin and Gray 2016, section 4.1): with kernels g0, g1, g2 of one
    frame each, * their 2-D convolution, and neighbouring frames d0 to d3,

        m1 = (d0 - d2) * g0
        m2 = (d1 + d2) * (g0 + g1 + g2) / 2
        m3 = (d2 - d1) * (g0 - g1 + g2) / 2
        m4 = (d1 - d3) * g2

    give the frames m1 + m2 + m3 and m2 - m3 - m4. The result is the same to rounding: in float32
    within 1e-5 of the largest value; in bfloat16 the error is 2.6 times that of the plain
    convolution. Sums are taken in float32 and by XLA, which makes one pass over memory of them.

    An odd number of frames gets one of zeros, as the padding has anyway, and the frame that comes
    of it is left out. Where it is not trained, on GPUs and in exported graphs it is the plain
    convolution.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not (training and self.trainable and _is_for_cpu()):
            return super().call(inputs)
        frames = inputs.shape[1]
        first, middle, last = tf.unstack(tf.cast(self.kernel, tf.float32))
        kernels = first, (first + middle + last) / 2, (first - middle + last) / 2, last
        products = []
        for tile, kernel in zip(_time_tiles(inputs), kernels, strict=True):
            images = tf.reshape(tile, [-1, *inputs.shape[2:]])  # [batch * frames / 2, h, w, c]
            product = tf.nn.conv2d(images, tf.cast(kernel, inputs.dtype), 1, 'SAME')
            products.append(tf.reshape(product, [-1, (frames + 1) // 2, *product.shape[1:]]))
        return _join_tiles(products, frames)                     # [batch, frames, h, w, filters]


@tf.function(jit_compile=True, autograph=False)
def _time_tiles(x: tf.Tensor) -> list[tf.Tensor]:
    """The four terms of each two frames: [batch, frames, …] -> 4 of [batch, frames / 2, …]."""
    after = 1 + x.shape[1] % 2
    padded = tf.pad(tf.cast(x, tf.float32), [[0, 0], [1, after], [0, 0], [0, 0], [0, 0]])
    d0, d1, d2, d3 = padded[:, :-2:2], padded[:, 1:-1:2], padded[:, 2::2], padded[:, 3::2]
    return [tf.cast(term, x.dtype) for term in (d0 - d2, d1 + d2, d2 - d1, d1 - d3)]


@tf.function(jit_compile=True, autograph=False)
def _join_tiles(products: list[tf.Tensor], count: int) -> tf.Tensor:
    """Two frames from each four products: 4 of [batch, frames / 2, …] -> [batch, frames, …]."""
    m1, m2, m3, m4 = (tf.cast(product, tf.float32) for product in products)
    frames = tf.stack([m1 + m2 + m3, m2 - m3 - m4], axis=2)      # [batch, frames / 2, 2, …]
    frames = tf.reshape(frames, [-1, 2 * m1.shape[1], *m1.shape[2:]])[:, :count]
    return tf.cast(frames, products[0].dtype)
