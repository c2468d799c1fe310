"""The video tower as it is exported."""

import keras
import numpy as np
import tensorflow as tf

from avts_tf.config import Config
from avts_tf.data import images
from avts_tf.inference.signatures import (
    Examples,
    Outputs,
    TowerSignatures,
    check_rank,
    check_sizes,
    check_window,
    in_float32,
)
from avts_tf.inference.windows import count_windows
from avts_tf.models.target import plain_operations

DECODED_AT_ONCE = 10    # JPEGs


class VideoSignatures(TowerSignatures):
    """The signatures of an exported video tower.

    Fewer frames than a window holds are padded by repeating the last one; more are cut into
    windows end to end, the last one padded likewise, and their outputs are averaged. Frames are
    cropped to the largest centred square and resized, as in evaluation; the frame rate is that of
    training.

    Args:
        tower: Keras model.
        config: `Config` of the training.
    """

    windows_at_once, most_windows = 8, 2048

    def __init__(self, tower: keras.Model, config: Config) -> None:
        super().__init__(tower, config, 'video_tower')
        self._frames, self._size = config.clip.frames, config.clip.frame_size
        window = [None, self._frames, self._size, self._size, 3]
        self.inputs = {
            'serving_default': [tf.TensorSpec([None, None, None, None, 3], tf.uint8, 'frames')],
            'jpeg': [tf.TensorSpec([None, None], tf.string, 'frames')],
            'window': [tf.TensorSpec(window, tf.uint8, 'frames')],
        }

    def serving_default(self, frames: tf.Tensor) -> Outputs:
        """Outputs averaged over windows end to end.

        Args:
            frames: uint8 [batch, frames, height, width, 3], RGB.

        Returns:
            Dict of `embedding` [batch, D] and `features` [batch, C], float32.
        """
        return self(frames)

    def jpeg(self, frames: tf.Tensor) -> Outputs:
        """As `serving_default`, of JPEG files as string [batch, frames]."""
        return self._average(frames, False)

    def window(self, frames: tf.Tensor) -> Outputs:
        """One window, without loops, in float32, by operations that other formats have.

        Args:
            frames: uint8 [batch, frames of a window, size, size, 3], RGB.

        Returns:
            As `serving_default`.
        """
        frames = check_window(frames, self.inputs['window'][0], self.windows_at_once)
        tower = self._keras_tower()
        with in_float32(tower), plain_operations():
            return tower(frames, training=False)

    def examples(self, rng: np.random.Generator) -> Examples:
        """An input for each signature: two clips that must be padded, cropped and resized."""
        shape = [2, self._frames * 3 // 2, self._size + 9, self._size + 20, 3]
        frames = rng.integers(0, 256, shape, dtype=np.uint8)
        jpegs = [[tf.io.encode_jpeg(frame).numpy() for frame in clip] for clip in frames]
        window = frames[:, :self._frames, :self._size, :self._size]
        return {'serving_default': {'frames': frames}, 'jpeg': {'frames': np.array(jpegs, object)},
                'window': {'frames': window}}

    def _end_to_end(self, frames: tf.Tensor, training: bool):
        frames = _checked(frames)
        shape = tf.shape(frames, tf.int64)
        batch, count = shape[0], shape[1]
        hop = (self._frames, 1)
        windows = count_windows(count, self._frames, hop, tf.minimum, tf.maximum)
        windows = self._limited(batch, windows)
        frames = tf.reshape(frames, tf.concat([[-1], shape[2:]], 0))
        prepare = self._decode if frames.dtype == tf.string else self._crop

        def outputs_of(examples: tf.Tensor, numbers: tf.Tensor):
            places = numbers[:, None] * self._frames + tf.range(self._frames, dtype=tf.int64)
            places = examples[:, None] * count + tf.minimum(places, count - 1)
            low, high = places[0, 0], places[-1, -1] + 1  # all between them are of these windows
            prepared = prepare(frames[low:high])
            return self._network(tf.gather(prepared, places - low), training)

        return self._over_windows(outputs_of, batch, windows, training)

    @tf.function(autograph=False)
    def _network(self, frames: tf.Tensor, training: bool):
        with plain_operations():
            return self._keras_tower()(frames, training=training)

    def _crop(self, frames: tf.Tensor):
        """uint8 [frames, height, width, 3] -> uint8 [frames, size, size, 3]."""
        _, height, width, _ = tf.unstack(tf.shape(frames))
        top, left, side, _ = tf.unstack(images.centred_window(height, width))
        pixels = images.resize(frames[:, top:top + side, left:left + side], self._size)
        return images.to_uint8(pixels)

    def _decode(self, frames: tf.Tensor):
        """string [frames] -> uint8 [frames, size, size, 3]; each frame may have its own size."""
        shapes = tf.map_fn(images.jpeg_size, frames,
                           fn_output_signature=tf.TensorSpec([2], tf.int32))
        fits = images.is_frame_size(shapes[:, 0], shapes[:, 1])
        message = f'frames: a JPEG has more than {images.MAX_PIXELS} pixels'
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(fits), [message])]):
            shapes = tf.identity(shapes)

        def one(frame: tuple[tf.Tensor, tf.Tensor]):
            return images.decode_square(*frame, self._size)

        def decode(at_once: int):
            frame = tf.TensorSpec([self._size, self._size, 3], tf.uint8)
            return tf.map_fn(one, (frames, shapes), parallel_iterations=at_once,
                             fn_output_signature=frame)

        # Side by side as long as they are together no larger than a single frame may be.
        few = images.is_frame_size(DECODED_AT_ONCE * shapes[:, 0], shapes[:, 1])
        return tf.cond(tf.reduce_all(few), lambda: decode(DECODED_AT_ONCE), lambda: decode(1))


def _checked(frames: tf.Tensor):
    """The frames, where they are fit to be embedded."""
    jpeg = frames.dtype == tf.string
    rank, layout = (2, '[batch, frames]') if jpeg else (5, '[batch, frames, height, width, 3]')
    with tf.control_dependencies(check_rank(frames, rank, 'frames', layout)):
        frames = tf.identity(frames)
    checks = check_sizes(frames, 'frames', 'frames')
    if jpeg:
        # The decoder would take an image of another format, and decode it unlike training.
        is_jpeg = tf.equal(tf.strings.substr(frames, 0, 2), b'\xff\xd8')
        checks.append(tf.debugging.Assert(
            tf.reduce_all(is_jpeg), ['frames: each must be the bytes of a JPEG file']))
    else:
        shape = tf.raw_ops.Shape(input=frames)
        checks += [
            tf.debugging.Assert(tf.reduce_all(shape[2:4] > 0), ['frames: height or width is 0']),
            tf.debugging.Assert(tf.equal(shape[4], 3), ['frames: must have 3 channels, RGB'])]
    with tf.control_dependencies(checks):
        return tf.identity(frames)
