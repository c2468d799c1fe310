"""MC2 and MC3: ResNet-18 with 3-D convolutions in its first layers and 2-D ones after (Tran et al. 2018, "mixed")."""

import keras
import tensorflow as tf

from avts_tf.models.layers import BatchNorm

STAGE_WIDTHS = (64, 128, 256, 512)
# Per stage, the temporal size of its kernels: MC2 mixes time in conv1 alone, MC3 also in the first stage.
TEMPORAL_KERNEL = {'mc2': (1, 1, 1, 1), 'mc3': (3, 1, 1, 1)}


@keras.saving.register_keras_serializable('avts_tf')
class PictureConv3D(keras.layers.Conv3D):
    """A strided `keras.layers.Conv3D` of temporal size 1 and without bias, run on each frame as a picture.

    The result is the same; on a CPU the gradients of TensorFlow's strided 3-D convolutions take up to three times as long as
    those of its 2-D ones.

    A 1 x 1 kernel first takes the positions that its stride leaves, then convolves without one: oneDNN's gradient of a strided
    1 x 1 kernel with fewer than 8 channels is wrong on processors that know AVX2 alone, and another one each time
    (TensorFlow 2.21).
    """

    def call(self, inputs):
        batch, frames, strides = tf.shape(inputs)[0], inputs.shape[1], self.strides[1:]
        if self.kernel_size == (1, 1, 1):
            inputs = inputs[:, :, ::strides[0], ::strides[1]]
            strides = 1
        pictures = tf.reshape(inputs, [-1, *inputs.shape[2:]])
        pictures = tf.nn.conv2d(pictures, tf.squeeze(tf.convert_to_tensor(self.kernel), 0), strides, self.padding.upper())
        return tf.reshape(pictures, [batch, frames, *pictures.shape[1:]])


@keras.saving.register_keras_serializable('avts_tf')
class WinogradConv3D(keras.layers.Conv3D):
    """A `keras.layers.Conv3D` of temporal size 3 and stride 1, "same" and without bias, in training by Winograd's F(2, 3) in time.

    Two frames are then made by four 2-D convolutions instead of six (Lavin and Gray 2016, section 4.1): with kernels g0, g1, g2 of
    one frame each, * their 2-D convolution, and neighbouring frames d0 to d3,

        m1 = (d0 - d2) * g0    m2 = (d1 + d2) * (g0 + g1 + g2) / 2    m3 = (d2 - d1) * (g0 - g1 + g2) / 2    m4 = (d1 - d3) * g2

    give the frames m1 + m2 + m3 and m2 - m3 - m4. The result is the same to rounding: in float32 within 1e-5 of the largest value;
    in bfloat16 the error is 2.6 times that of the plain convolution. Sums are taken in float32 and by XLA, which makes one pass
    over memory of them. What is not trained, an odd number of frames, and GPUs, whose libraries choose by themselves, take the
    plain convolution.
    """

    def call(self, inputs, training=None):
        if not (training and self.trainable) or inputs.shape[1] % 2 or tf.config.list_logical_devices('GPU'):
            return super().call(inputs)
        first, middle, last = tf.unstack(tf.cast(self.kernel, tf.float32))
        kernels = first, (first + middle + last) / 2, (first - middle + last) / 2, last
        products = []
        for tile, kernel in zip(_time_tiles(inputs), kernels, strict=True):
            pictures = tf.reshape(tile, [-1, *inputs.shape[2:]])
            product = tf.nn.conv2d(pictures, tf.cast(kernel, inputs.dtype), 1, 'SAME')
            products.append(tf.reshape(product, [-1, inputs.shape[1] // 2, *product.shape[1:]]))
        return _join_tiles(products)


@tf.function(jit_compile=True, autograph=False)
def _time_tiles(x):
    """The four terms of each two frames: [batch, frames, height, width, channels] -> 4 times [batch, frames / 2, ...]."""
    padded = tf.pad(tf.cast(x, tf.float32), [[0, 0], [1, 1], [0, 0], [0, 0], [0, 0]])
    d0, d1, d2, d3 = padded[:, :-2:2], padded[:, 1:-1:2], padded[:, 2::2], padded[:, 3::2]
    return [tf.cast(term, x.dtype) for term in (d0 - d2, d1 + d2, d2 - d1, d1 - d3)]


@tf.function(jit_compile=True, autograph=False)
def _join_tiles(products):
    """Two frames from each four products: 4 times [batch, frames / 2, ...] -> [batch, frames, height, width, channels]."""
    m1, m2, m3, m4 = (tf.cast(product, tf.float32) for product in products)
    frames = tf.stack([m1 + m2 + m3, m2 - m3 - m4], axis=2)  # [batch, frames / 2, 2, ...]
    return tf.cast(tf.reshape(frames, [-1, 2 * m1.shape[1], *m1.shape[2:]]), products[0].dtype)


# With fewer channels the passes over memory take longer than the multiplications that they save.
WINOGRAD_CHANNELS = 64


def mcx(x, name, width=1.0, synchronized=True):
    """The convolutions of MC2 or MC3.

    Args:
        x: float [batch, frames, height, width, 3], normalised.
        name: 'mc2' or 'mc3'.
        width: multiplier of the channels.
        synchronized: batch-norm statistics over all replicas.

    Returns:
        float [batch, frames, height / 16, width / 16, 512 * width]; time is not strided.
    """
    def conv_bn(x, channels, kernel, stride, name):
        if stride > 1 and max(kernel) > 1:
            # "same" would pad a strided convolution on one side only, unlike the published nets.
            x = keras.layers.ZeroPadding3D(tuple(k // 2 for k in kernel), name=f'{name}_pad')(x)
            padding = 'valid'
        else:
            padding = 'same'
        layer = keras.layers.Conv3D
        if stride > 1 and kernel[0] == 1:
            layer = PictureConv3D
        elif stride == 1 and kernel[0] == 3 and channels >= WINOGRAD_CHANNELS:
            layer = WinogradConv3D
        x = layer(channels, kernel, strides=(1, stride, stride), padding=padding, use_bias=False, kernel_initializer='he_normal',
                  name=name)(x)
        return BatchNorm(synchronized=synchronized, name=f'{name}_bn')(x)

    def block(x, channels, kernel, stride, name):
        shortcut = x
        if stride != 1 or x.shape[-1] != channels:
            shortcut = conv_bn(x, channels, (1, 1, 1), stride, f'{name}_shortcut')
        x = keras.layers.ReLU(name=f'{name}_relu1')(conv_bn(x, channels, kernel, stride, f'{name}_conv1'))
        x = conv_bn(x, channels, kernel, 1, f'{name}_conv2')
        return keras.layers.ReLU(name=f'{name}_relu2')(keras.layers.Add(name=f'{name}_add')([x, shortcut]))

    x = keras.layers.ReLU(name='conv1_relu')(conv_bn(x, scaled(64, width), (3, 7, 7), 2, 'conv1'))
    for stage, (channels, temporal) in enumerate(zip(STAGE_WIDTHS, TEMPORAL_KERNEL[name], strict=True)):
        for index in range(2):
            stride = 2 if stage > 0 and index == 0 else 1
            x = block(x, scaled(channels, width), (temporal, 3, 3), stride, f'conv{stage + 2}_{index + 1}')
    return x


def scaled(channels, width):
    """Channels under a width multiplier, at least 4."""
    return max(4, round(channels * width))
