"""The video tower: uint8 frames in, embedding and features out."""

import keras
import tensorflow as tf

from avts_tf.config import Config
from avts_tf.models.build import find_video_network
from avts_tf.models.layers import embedding_head

# Mean and deviation of Kinetics' pixels in [0, 1], with which the MCx nets were published.
PIXEL_MEAN = (0.43216, 0.394666, 0.37645)
PIXEL_DEVIATION = (0.22803, 0.22145, 0.216989)


@keras.saving.register_keras_serializable('avts_tf')
class NormalizePixels(keras.layers.Layer):
    """uint8 [..., frames, height, width, 3] -> float of the same shape.

    Args:
        symmetric: bool. Whether pixels come to lie in [-1, 1], or are standardised by channel.
        remove_static: bool. Whether each pixel's mean over the frames is taken from it.

    Example:
        >>> NormalizePixels(True)(tf.constant([[0, 0, 255]], tf.uint8)).numpy().tolist()
        [[-1.0, -1.0, 1.0]]
    """

    def __init__(self, symmetric: bool, remove_static: bool = False, **kwargs) -> None:
        super().__init__(autocast=False, **kwargs)
        self.symmetric, self.remove_static = symmetric, remove_static

    def call(self, frames: tf.Tensor) -> tf.Tensor:
        pixels = tf.cast(frames, tf.float32) / 255.0
        if self.symmetric:
            pixels = 2.0 * pixels - 1.0
        else:
            pixels = (pixels - tf.constant(PIXEL_MEAN)) / tf.constant(PIXEL_DEVIATION)
        if self.remove_static:
            pixels -= tf.reduce_mean(pixels, -4, keepdims=True)
        return tf.cast(pixels, self.compute_dtype)

    def get_config(self) -> dict:
        return {**super().get_config(), 'symmetric': self.symmetric,
                'remove_static': self.remove_static}


def build_video_tower(config: Config) -> keras.Model:
    """The video tower as a functional model, around the network that `video_tower` names.

    Args:
        config: `Config`.

    Returns:
        Functional model from uint8 [batch, frames, size, size, 3] to a dict: `embedding` float32
        [batch, embedding_size] and `features` float32 [batch, channels], the last convolution
        averaged over time and space.

    Example:
        >>> import avts_tf
        >>> build_video_tower(avts_tf.make_config('tiny')).output['embedding'].shape
        (None, 64)
    """
    towers, clip = config.towers, config.clip
    network, symmetric = find_video_network(towers.video_tower)
    size = clip.frame_size
    frames = keras.Input([clip.frames, size, size, 3], dtype='uint8', name='frames')
    normalize = NormalizePixels(
        symmetric, towers.remove_static in ('video', 'both'), name='normalize_pixels')
    pixels = normalize(frames)                                                # as frames, floats
    x = network(pixels, towers.video_width, towers.sync_batchnorm)   # [batch, time, h, w, channels]
    time, channels = x.shape[1], x.shape[-1]
    x = keras.layers.Reshape([time, -1, channels], name='join_space')(x)  # [batch, time, h * w, c]
    x = keras.ops.mean(x, axis=2)                                         # [batch, time, channels]
    features = keras.layers.GlobalAveragePooling1D(name='features', dtype='float32')(x)
    outputs = {'embedding': embedding_head(x, towers), 'features': features}
    return keras.Model(frames, outputs, name='video_tower')
