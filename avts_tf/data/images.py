"""JPEG frames to squares of pixels: the one way for training, evaluation, export and offset.

A frame is decoded, cropped to a square and resized, bilinearly and without antialiasing, to the
size that the video tower takes. Evaluation crops the largest centred square. Training draws the
square, mirrors and colours it, all frames of a clip alike.
"""

from __future__ import annotations

import math

import numpy as np

from avts_tf.config import Config
from avts_tf.data.records import require
from avts_tf.lazy import tf

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the grey of an RGB pixel
PIXELS_BESIDE = 8  # that are coloured by one product
CROP_SCALES = 4  # the multi-scale crop draws among this many sizes, evenly spaced
MAX_PIXELS = 2**25  # of a frame, a little more than 8K video: one that claims more takes all memory


def is_frame_size(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Whether frames have at most `MAX_PIXELS`: int32 of any shape, twice -> bool of the same."""
    return height <= MAX_PIXELS // tf.maximum(width, 1)


def jpeg_size(jpeg: tf.Tensor) -> tf.Tensor:
    """Height and width that a JPEG states: string scalar -> int32 [2]."""
    return tf.io.extract_jpeg_shape(jpeg)[:2]


def centred_window(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """The largest centred square of a frame: int32 scalars -> int32 [4], (top, left, side, side).
    """
    side = tf.minimum(height, width)
    return tf.stack([(height - side) // 2, (width - side) // 2, side, side])


def centred_square(frames: np.ndarray) -> np.ndarray:
    """The part of frames that a video tower sees: [..., height, width, 3] -> [..., side, side, 3].
    """
    height, width = frames.shape[-3:-1]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return frames[..., top:top + side, left:left + side, :]


def resize(pixels: tf.Tensor, size: int) -> tf.Tensor:
    """Squares to another size: uint8 [..., side, side, 3] -> float32 [..., size, size, 3] in [0,
    255].
    """
    return tf.image.resize(pixels, [size, size])


def to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    """The nearest whole numbers: float32 in [0, 255] -> uint8 of the same shape."""
    return tf.cast(tf.round(pixels), tf.uint8)


def decode_square(jpeg: tf.Tensor, shape: tf.Tensor, size: int) -> tf.Tensor:
    """The largest centred square of one JPEG.

    Args:
        jpeg: string scalar.
        shape: int32 [2], its height and width (see `jpeg_size`).
        size: pixels of the result, each way.

    Returns:
        uint8 [size, size, 3].
    """
    pixels = tf.io.decode_and_crop_jpeg(jpeg, centred_window(shape[0], shape[1]), channels=3)
    return to_uint8(resize(pixels, size))


def decode_window(frames: tf.Tensor, config: Config, seed: tf.Tensor | None,
                  strength: tf.Tensor | float = 1.0) -> tf.Tensor:
    """Decodes, crops and, for training, augments the frames of a window.

    All frames of a window are cropped, mirrored and coloured alike.

    Args:
        frames: string [frames], JPEGs.
        config: `Config`.
        seed: int32 [2] of the augmentation; None takes the largest centred square as it is.
        strength: of the augmentation, float32 scalar in [0, 1] (see `augment.strength_at`).

    Returns:
        uint8 [frames, size, size, 3].

    Raises:
        tf.errors.InvalidArgumentError: when it runs, where a frame is no JPEG, is not of the size
        of
            the first, or has more than `MAX_PIXELS`.
    """
    augment, size = config.augment, config.clip.frame_size
    shape = jpeg_size(frames[0])
    height, width = tf.unstack(shape)
    if seed is None:
        window = centred_window(height, width)
    else:
        seeds = tf.random.split(seed, 4)
        window = _random_window(seeds[0], height, width, augment.crop_scale_min,
                                augment.aspect_change, strength)
    with tf.control_dependencies([require(is_frame_size(height, width))]):
        window = tf.identity(window)
    pixels, shapes = tf.map_fn(
        lambda jpeg: (tf.io.decode_and_crop_jpeg(jpeg, window, channels=3), jpeg_size(jpeg)),
        frames,
        fn_output_signature=(tf.TensorSpec([None, None, 3], tf.uint8),
                             tf.TensorSpec([2], tf.int32)))
    with tf.control_dependencies([require(tf.reduce_all(shapes == shape))]):
        pixels = tf.identity(pixels)
    pixels = resize(pixels, size)
    if seed is not None and augment.flip:
        mirrored = tf.random.stateless_uniform([], seeds[1]) < 0.5
        # As one tall image, whose rows TensorFlow mirrors fast.
        tall = tf.reshape(pixels, [-1, size, 3])
        tall = tf.cond(mirrored, lambda: tf.reverse(tall, [1]), lambda: tall)
        pixels = tf.reshape(tall, tf.shape(pixels))
    if seed is not None and (augment.colour_jitter or augment.grey_share):
        grey = tf.random.stateless_uniform([], seeds[3]) < augment.grey_share * strength
        pixels = jitter(pixels, augment.colour_jitter * strength, seeds[2], grey)
        pixels = tf.clip_by_value(pixels, 0.0, 255.0)
    return tf.ensure_shape(to_uint8(pixels), [config.clip.frames, size, size, 3])


def _random_window(seed: tf.Tensor, height: tf.Tensor, width: tf.Tensor, scale_min: float,
                   aspect_change: float, strength: tf.Tensor | float) -> tf.Tensor:
    """A rectangle, a square of one of `CROP_SCALES` sizes but for the change of its aspect: int32
    [4], (top, left, height, width).
    """
    seeds = tf.random.split(seed, 4)
    shorter = tf.cast(tf.minimum(height, width), tf.float32)
    step = tf.random.stateless_uniform([], seeds[0], 0, CROP_SCALES, tf.int32)
    part = tf.cast(step, tf.float32) / (CROP_SCALES - 1)
    side = shorter * (1.0 - (1.0 - scale_min) * strength * part)
    stretch = tf.random.stateless_uniform([], seeds[1], -0.5, 0.5) * strength
    stretch = tf.pow(1.0 + aspect_change, stretch)  # height / stretch ** 2 is the width

    def length(side: tf.Tensor, whole: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(tf.cast(tf.round(side), tf.int32), 1, whole)

    def place(seed: tf.Tensor, spare: tf.Tensor) -> tf.Tensor:
        if scale_min == 1.0 and not aspect_change:
            return spare // 2
        return tf.random.stateless_uniform([], seed, 0, spare + 1, tf.int32)

    rows, columns = length(side * stretch, height), length(side / stretch, width)
    return tf.stack([place(seeds[2], height - rows), place(seeds[3], width - columns), rows,
                     columns])


def jitter(pixels: tf.Tensor, most: tf.Tensor | float, seed: tf.Tensor,
           grey: tf.Tensor | bool = False) -> tf.Tensor:
    """Changes brightness, contrast and saturation, of all frames alike.

    Brightness is moved by up to `most` of the full range. Contrast, the distance from the clip's
    mean grey, and saturation, that from the pixel's own grey, are multiplied by up to 1 +- `most`.

    Args:
        pixels: float32 [frames, height, width, 3] in [0, 255].
        most: in [0, 1].
        seed: int32 [2].
        grey: bool scalar, whether the saturation becomes 0.

    Returns:
        float32 [frames, height, width, 3], which may leave [0, 255].
    """
    brightness, contrast, saturation = tf.unstack(
        tf.random.stateless_uniform([3], seed, -1.0, 1.0) * most)
    saturation = tf.where(grey, -1.0, saturation)
    luma = tf.constant([[weight] * 3 for weight in LUMA])  # pixels @ luma: as bright, no colour
    # Every fourth frame is enough: frames of a clip are alike. A strided slice would take several
    # times as long.
    some = tf.gather(pixels, tf.range(0, tf.shape(pixels)[0], 4))
    mean = tf.linalg.matvec(luma, tf.reduce_mean(some, [0, 1, 2]), transpose_a=True)
    # All three are linear: one matrix for the colours of a pixel.
    factor = (1.0 + contrast) * (1.0 + saturation)
    matrix = factor * tf.eye(3) + (1.0 + contrast - factor) * luma
    moved = 255.0 * brightness - contrast * mean
    # Several pixels of a row go through it side by side: the product of so narrow a matrix is slow,
    # and what the wider one adds is zeros.
    beside = math.gcd(pixels.shape[2], PIXELS_BESIDE)
    blocks = tf.eye(beside)[:, None, :, None] * matrix[None, :, None, :]
    wide = tf.linalg.matmul(tf.reshape(pixels, [-1, 3 * beside]),
                            tf.reshape(blocks, [3 * beside, 3 * beside]))
    return tf.reshape(wide + tf.tile(moved, [beside]), tf.shape(pixels))
