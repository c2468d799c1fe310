"""Frames: decoded, cropped, resized and augmented, in one way for all."""

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.data.images import LUMA, centred_square, decode_square, decode_window, jitter
from tests.data.truth import PLAIN, config_of


def noise_frame(number, height, width):
    """A JPEG without symmetry, and its pixels."""
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3)).astype(np.uint8)
    # Colours at full resolution: at half of it a decoder blurs them over the edge of a crop.
    jpeg = tf.io.encode_jpeg(pixels, quality=95, chroma_downsampling=False).numpy()
    return jpeg, tf.io.decode_jpeg(jpeg).numpy()


@pytest.fixture(scope='module')
def stills():
    return [noise_frame(clip, *((48, 32) if clip % 2 else (32, 48))) for clip in range(4)]


def augmented_clips(stills, config, times, augment=True):
    """(original pixels, clip that stands still) pairs."""
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string), tf.TensorSpec([2], tf.int32)],
                 autograph=False)
    def decode(frames, seed):
        return decode_window(frames, config, seed if augment else None)

    for number in range(times):
        for clip, (jpeg, pixels) in enumerate(stills):
            yield pixels, decode([jpeg] * config.clip.frames, [number, clip]).numpy()


@pytest.mark.parametrize('augment', [True, False])
def test_without_augmentation_it_is_the_centre_crop(augment, stills):
    # Evaluation takes it whatever the augmentation.
    flags = PLAIN if augment else {'crop_scale_min': 0.3, 'flip': True, 'colour_jitter': 0.5}
    for picture, video in augmented_clips(stills, config_of(**flags), 1, augment):
        centre = picture[8:40] if picture.shape[0] == 48 else picture[:, 8:40]
        np.testing.assert_array_equal(video, np.repeat(centre[None], 12, 0))


def test_flip_mirrors_half_of_the_clips_whole(stills):
    mirrored = 0
    for picture, video in augmented_clips(stills, config_of(flip=True), 20):
        centre = picture[8:40] if picture.shape[0] == 48 else picture[:, 8:40]
        flipped = (video[0] == centre[:, ::-1]).all()
        np.testing.assert_array_equal(video, np.repeat((centre[:, ::-1] if flipped
                                                        else centre)[None], 12, 0))
        mirrored += flipped
    assert 22 <= mirrored <= 58


def test_frames_are_augmented_alike_and_clips_are_not(stills):
    config, first_frames = config_of(crop_scale_min=0.5, flip=True, colour_jitter=0.4), set()
    for _, video in augmented_clips(stills, config, 4):
        np.testing.assert_array_equal(video, np.repeat(video[:1], 12, 0))
        first_frames.add(video[0].tobytes())
    assert len(first_frames) == 16


def test_crops_lie_inside_and_reach_every_size_and_edge():
    # Red tells the column, green the row: a crop tells its place.
    rows, columns = np.meshgrid(np.arange(64), np.arange(96), indexing='ij')
    picture = np.stack([columns * 2 + 20, rows * 3 + 20, np.full_like(rows, 128)],
                       -1).astype(np.uint8)
    jpeg = tf.io.encode_jpeg(picture, quality=100, chroma_downsampling=False).numpy()
    sides, lefts, tops = [], [], []
    for _, clip in augmented_clips([(jpeg, picture)], config_of(frame_size=16, crop_scale_min=0.5),
                                   100):
        along, down = (clip[0, :, :, 0].mean(0) - 20) / 2, (clip[0, :, :, 1].mean(1) - 20) / 3
        side = (along[-1] - along[0]) * 16 / 15
        assert abs((down[-1] - down[0]) * 16 / 15 - side) < 1.5, 'the crop is a square'
        sides.append(side)
        lefts.append((along.mean() - side / 2 + 0.5, 96 - side))
        tops.append((down.mean() - side / 2 + 0.5, 64 - side))
    assert {round(side / 64 * 6) for side in sides} == {3, 4, 5, 6}
    np.testing.assert_allclose([side / 64 * 6 for side in sides],
                               np.round([side / 64 * 6 for side in sides]), atol=0.1)
    for place, room in (np.array(lefts).T, np.array(tops).T):
        assert (place > -1).all() and (place < room + 1).all()
        roomy = room > 8
        part = place[roomy] / room[roomy]
        assert part.min() < 0.15 and part.max() > 0.85 and 0.4 < part.mean() < 0.6


def test_the_aspect_changes_within_its_limits_and_inside_the_frame():
    rows, columns = np.meshgrid(np.arange(64), np.arange(96), indexing='ij')
    picture = np.stack([columns * 2 + 20, rows * 3 + 20, np.full_like(rows, 128)],
                       -1).astype(np.uint8)
    jpeg = tf.io.encode_jpeg(picture, quality=100, chroma_downsampling=False).numpy()
    aspects = []
    config = config_of(frame_size=16, crop_scale_min=0.5, aspect_change=0.5)
    for _, clip in augmented_clips([(jpeg, picture)], config, 100):
        along, down = (clip[0, :, :, 0].mean(0) - 20) / 2, (clip[0, :, :, 1].mean(1) - 20) / 3
        aspects.append((down[-1] - down[0]) / (along[-1] - along[0]))
        assert along.min() > -1 and along.max() < 96 and down.min() > -1 and down.max() < 64
    assert 0.62 < min(aspects) < 0.75 and 1.35 < max(aspects) < 1.6


@pytest.mark.parametrize(('strength', 'share'), [(1.0, 0.5), (0.5, 0.25), (0.0, 0.0)])
def test_a_share_of_the_clips_is_grey_and_as_bright_as_before(strength, share, stills):
    config, grey = config_of(grey_share=0.5), 0
    for number in range(60):
        jpeg, pixels = stills[0]
        frames = tf.constant([jpeg] * 12)
        video = decode_window(frames, config, [number, 3], strength).numpy().astype(int)
        centre = pixels[:, 8:40]
        if abs(video[..., 0] - video[..., 1]).max() <= 1:  # products are rounded
            grey += 1
            np.testing.assert_allclose(video[0, ..., 0], centre @ np.array(LUMA), atol=1)
        else:
            np.testing.assert_allclose(video[0], centre, atol=1)
    assert abs(grey / 60 - share) < 0.2 and (grey > 0) == (share > 0)


@pytest.mark.parametrize(('seed', 'width'), [([1, 2], 6), ([3, 4], 16), ([5, 6], 7)])
def test_jitter_is_contrast_then_saturation_then_brightness(seed, width):
    pixels = np.random.default_rng(0).uniform(0, 255, [4, 5, width, 3]).astype(np.float32)
    brightness, contrast, saturation = tf.random.stateless_uniform([3], seed, -0.4, 0.4).numpy()
    mean = (pixels[::4].mean((0, 1, 2)) * LUMA).sum()
    expected = (pixels - mean) * (1 + contrast) + mean
    grey = (expected * LUMA).sum(-1, keepdims=True)
    expected = grey + (expected - grey) * (1 + saturation) + 255 * brightness
    np.testing.assert_allclose(jitter(tf.constant(pixels), 0.4, seed).numpy().reshape(pixels.shape),
                               expected, atol=1e-3)
    np.testing.assert_allclose(jitter(tf.constant(pixels), 0.0, seed).numpy().reshape(pixels.shape),
                               pixels, atol=1e-3)


@pytest.mark.parametrize('shape', [(48, 64), (65, 48), (40, 40)])
@pytest.mark.parametrize('size', [32, 48])
def test_evaluation_export_and_offset_see_the_same_pixels(shape, size):
    pictures = np.random.default_rng(0).integers(0, 256, (12, *shape, 3)).astype(np.uint8)
    jpegs = [tf.io.encode_jpeg(picture, chroma_downsampling=False).numpy() for picture in pictures]
    window = decode_window(tf.constant(jpegs), config_of(frame_size=size), None).numpy()
    decoded = np.stack([tf.io.decode_jpeg(jpeg).numpy() for jpeg in jpegs])
    resized = tf.image.resize(centred_square(decoded), [size, size])
    np.testing.assert_array_equal(window, np.round(resized).astype(np.uint8))
    np.testing.assert_array_equal(
        window, [decode_square(jpeg, tf.constant(shape), size).numpy() for jpeg in jpegs])
