"""Convolutions that compute what Keras's do, faster on CPUs.

How they compute it is chosen when a graph is built: for a CPU of this machine in ways that its
kernels are faster with; for a GPU, whose library chooses by itself, and for graphs that are taken
to other machines, by the plain operation.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from avts_tf.models.target import is_for_cpu
from avts_tf.processor import instructions


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
        if not is_for_cpu():
            return tf.nn.conv3d(inputs, kernel, [1, 1, *strides, 1], padding)
        batch, frames = tf.shape(inputs)[0], inputs.shape[1]
        images = tf.reshape(inputs, [-1, *inputs.shape[2:]])        # [batch * frames, h, w, c]
        images = tf.nn.conv2d(images, tf.squeeze(kernel, 0), strides, padding)
        return tf.reshape(images, [batch, frames, *images.shape[1:]])


def _positions(x: tf.Tensor, strides: tuple[int, int]) -> tf.Tensor:
    """The positions that strides leave: [batch, frames, h, w, c] -> the same with smaller h, w."""
    if not is_for_cpu():
        return x[:, :, ::strides[0], ::strides[1]]
    # A pool of single positions: on a CPU a slice and its gradient take up to five times as long.
    images = tf.nn.max_pool2d(tf.reshape(x, [-1, *x.shape[2:]]), 1, strides, 'VALID')
    return tf.reshape(images, [tf.shape(x)[0], x.shape[1], *images.shape[1:]])


# With fewer channels the passes over memory take longer than the multiplications that they save.
WINOGRAD_CHANNELS = 64
AVX2_WINOGRAD_CHANNELS = 16  # the same in time, in float32, on processors with AVX2 but no AVX-512
WINOGRAD_ROWS = 7  # of fewer rows, what makes them a multiple of four takes too much


# Winograd's F(2, 3) and F(4, 3): matrices of the positions that go in, of the kernel, and of what
# comes out (Lavin and Gray 2016, sections 4.1 and 4.3).
_F23 = ([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, -1]])
_F43 = ([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
         [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]],
        [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
         [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]],
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])


@keras.saving.register_keras_serializable('avts_tf')
class WinogradConv3D(keras.layers.Conv3D):
    """A `keras.layers.Conv3D` that is trained by Winograd's algorithm along one axis, on CPUs.

    It has size 3 or 1 in time and 3 in height, stride 1, padding "same" and no bias. The axis is
    time where the kernel reaches over frames, else height. In float32 four positions along it are
    made by six convolutions without it instead of twelve, in bfloat16 two by four instead of six,
    because the larger step would round too much. Each is of a sum of neighbouring positions with a
    sum of the kernel's three, and what comes out are sums of their products. The result is the same
    to rounding: in float32 within 1e-5 of the largest value; in bfloat16 the error is 2.6 times
    that of the plain convolution. Sums are taken in float32 and by XLA, which makes one pass over
    memory of them.

    Zeros, as the padding has anyway, make the number of positions a multiple of four or two, and
    those that come of them are left out. Where it is not faster, not trained, on GPUs and in
    exported graphs it is the plain convolution.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not (training and self.trainable and is_for_cpu() and self._is_faster(inputs)):
            return super().call(inputs)
        tile, combine, join = _F43 if inputs.dtype == tf.float32 else _F23
        kernel, axis = tf.cast(self.kernel, tf.float32), 1
        if self.kernel_size[0] == 1:
            kernel, axis = tf.transpose(kernel, [1, 0, 2, 3, 4]), 2
        kernels = tf.tensordot(tf.constant(combine), kernel, 1)  # of two sizes, in and out
        products = []
        for term, kernel in zip(_tiles(inputs, tile, axis), tf.unstack(kernels), strict=True):
            images = tf.reshape(term, [-1, *term.shape[2:]])     # [batch * …, h or tiles, w, c]
            product = _convolution(images, tf.cast(kernel, inputs.dtype))
            products.append(tf.reshape(product, [-1, *term.shape[1:-1], product.shape[-1]]))
        return _join_tiles(products, join, axis, inputs.shape[axis])

    def _is_faster(self, inputs: tf.Tensor | keras.KerasTensor) -> bool:
        float32 = inputs.dtype == tf.float32
        if self.kernel_size[0] == 1:
            return (float32 and self.filters >= WINOGRAD_CHANNELS
                    and inputs.shape[2] >= WINOGRAD_ROWS)
        few = float32 and _has_avx2_alone()
        return self.filters >= (AVX2_WINOGRAD_CHANNELS if few else WINOGRAD_CHANNELS)


def _has_avx2_alone() -> bool:
    return 'avx2' in instructions() and 'avx512f' not in instructions()


def _convolution(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """A convolution with padding "same": [batch, h, w, c] by [odd, odd, c, filters]."""
    # There oneDNN's gradient of the kernel takes two to three times as long as the convolution;
    # with fewer channels matmuls take longer still.
    if _has_avx2_alone() and kernel.shape[-1] >= WINOGRAD_CHANNELS:
        return _trained_by_matmul(images, kernel)
    return tf.nn.conv2d(images, kernel, 1, 'SAME')


@tf.custom_gradient
def _trained_by_matmul(images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """As `_convolution`; the gradient of the kernel is made by matmuls."""
    height, width, channels, filters = kernel.shape

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        of_images = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(images), filter=kernel, out_backprop=upstream,
            strides=[1, 1, 1, 1], padding='SAME')
        above, left, columns = height // 2, width // 2, images.shape[2]
        padded = tf.pad(images, [[0, 0], [above, above], [left, left], [0, 0]])
        # The places in a row of the kernel side by side as channels, and a matmul for each row. As
        # the upstream has rows of zeros where the images have padding, its rows are those of the
        # images some places later, without a copy.
        places = tf.reshape(tf.concat(
            [padded[:, :, place:place + columns] for place in range(width)], -1),
            [-1, width * channels])
        upstream = tf.reshape(tf.pad(upstream, [[0, 0], [0, 2 * above], [0, 0], [0, 0]]),
                              [-1, filters])
        count = tf.shape(places)[0] - 2 * above * columns
        of_kernel = [tf.matmul(places[row * columns:row * columns + count], upstream[:count],
                               transpose_a=True) for row in range(height)]
        return of_images, tf.reshape(tf.stack(of_kernel), kernel.shape)

    return tf.nn.conv2d(images, kernel, 1, 'SAME'), gradient


@tf.function(jit_compile=True, autograph=False)
def _tiles(x: tf.Tensor, matrix: list[list[float]], axis: int) -> list[tf.Tensor]:
    """The terms of each tile, one by row of a matrix: as x, but with tiles along the axis.

    Tiles overlap by two positions, and begin with one of padding.
    """
    size, count = len(matrix[0]), x.shape[axis]
    step = size - 2
    padding = [[0, 0] for _ in x.shape]
    padding[axis] = [1, 1 + -count % step]
    padded = tf.pad(tf.cast(x, tf.float32), padding)
    last = step * ((count - 1) // step) + 1
    where = (slice(None),) * axis
    positions = [padded[*where, place:place + last:step] for place in range(size)]
    return [tf.cast(_weighted_sum(row, positions), x.dtype) for row in matrix]


@tf.function(jit_compile=True, autograph=False)
def _join_tiles(
    products: list[tf.Tensor], matrix: list[list[float]], axis: int, count: int,
) -> tf.Tensor:
    """The first positions along an axis that come of the products of each tile."""
    products32 = [tf.cast(product, tf.float32) for product in products]
    shape = products[0].shape
    joined = tf.stack([_weighted_sum(row, products32) for row in matrix], axis=axis + 1)
    joined = tf.reshape(joined, [-1, *shape[1:axis], len(matrix) * shape[axis], *shape[axis + 1:]])
    where = (slice(None),) * axis
    return tf.cast(joined[*where, :count], products[0].dtype)


def _weighted_sum(weights: list[float], tensors: list[tf.Tensor]) -> tf.Tensor:
    return tf.add_n([tensor if weight == 1 else weight * tensor
                     for weight, tensor in zip(weights, tensors, strict=True) if weight])
