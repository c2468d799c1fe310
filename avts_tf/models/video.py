"""The video tower: uint8 frames in, embedding and features out, around one of the networks beside this file."""

import keras
import tensorflow as tf

from avts_tf.models.i3d import i3d
from avts_tf.models.layers import embedding_head
from avts_tf.models.mcx import mcx

# Mean and deviation of Kinetics' pixels in [0, 1], with which the MCx nets were published.
PIXEL_MEAN = (0.43216, 0.394666, 0.37645)
PIXEL_DEVIATION = (0.22803, 0.22145, 0.216989)


@keras.saving.register_keras_serializable('avts_tf')
class NormalizePixels(keras.layers.Layer):
    """uint8 [..., 3] -> float [..., 3]: standardised by channel (MCx), or in [-1, 1] (I3D)."""

    def __init__(self, symmetric, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.symmetric = symmetric

    def call(self, frames):
        pixels = tf.cast(frames, tf.float32) / 255.0
        pixels = 2.0 * pixels - 1.0 if self.symmetric else (pixels - tf.constant(PIXEL_MEAN)) / tf.constant(PIXEL_DEVIATION)
        return tf.cast(pixels, self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), 'symmetric': self.symmetric}


def build_video_tower(config):
    """The video tower as a functional model.

    Args:
        config: `Config`.

    Returns:
        `keras.Model` from uint8 [batch, frames, size, size, 3] to a dict: `embedding` float32 [batch, embedding_size] and
        `features` float32 [batch, channels], the last convolution averaged over time and space.
    """
    towers, clip = config.towers, config.clip
    frames = keras.Input([clip.frames, clip.frame_size, clip.frame_size, 3], dtype='uint8', name='frames')
    pixels = NormalizePixels(towers.video_tower == 'i3d', name='normalize_pixels')(frames)
    if towers.video_tower == 'i3d':
        x = i3d(pixels, towers.video_width, towers.sync_batchnorm)
    else:
        x = mcx(pixels, towers.video_tower, towers.video_width, towers.sync_batchnorm)
    time, channels = x.shape[1], x.shape[-1]
    x = keras.layers.Reshape([time, -1, channels], name='join_space')(x)
    x = keras.ops.mean(x, axis=2)                                                  # [batch, time, channels]
    features = keras.layers.GlobalAveragePooling1D(name='features', dtype='float32')(x)
    return keras.Model(frames, {'embedding': embedding_head(x, towers), 'features': features}, name='video_tower')
