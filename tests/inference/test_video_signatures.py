"""The exported video tower against the Keras tower, window by window."""

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.data import images
from tests.inference.small import (
    FRAMES,
    SIZE,
    as_jpegs,
    average,
    call,
    check,
    keras_outputs,
    random_frames,
    relative_error,
)


@pytest.fixture(scope='module')
def signatures(loaded):
    return loaded['video_tower'].signatures


def test_one_window_equals_keras(signatures, model):
    frames = random_frames(3, FRAMES)
    expected = keras_outputs(model.video_tower, frames)
    check(call(signatures['serving_default'], frames=frames), expected)
    check(call(signatures['serving_default'], frames=frames[:1]),
          {name: value[:1] for name, value in expected.items()})
    check(call(signatures['window'], frames=frames), expected, tolerance=1e-5)
    check(call(signatures['window'], frames=frames[:1]),
          {name: value[:1] for name, value in expected.items()}, tolerance=1e-5)
    # Three inputs give three outputs, further apart than the tolerance by far.
    for value in expected.values():
        assert relative_error(value[0], value[1]) > 1e-2
        assert relative_error(value[1], value[2]) > 1e-2


@pytest.mark.parametrize('count', [1, 5])
def test_few_frames_are_padded_with_the_last(signatures, model, count):
    frames = random_frames(3, count)
    padded = np.concatenate([frames, *[frames[:, -1:]] * (FRAMES - count)], axis=1)
    check(call(signatures['serving_default'], frames=frames),
          keras_outputs(model.video_tower, padded))


@pytest.mark.parametrize('count', [3 * FRAMES, 2 * FRAMES + 3, 9 * FRAMES])
def test_many_frames_are_averaged_over_windows(signatures, model, count):
    # 9 windows are more than go through the network at once.
    frames = random_frames(1, count)
    padded = np.concatenate([frames, *[frames[:, -1:]] * (-count % FRAMES)], axis=1)
    parts = np.split(padded, padded.shape[1] // FRAMES, axis=1)
    check(call(signatures['serving_default'], frames=frames),
          average([keras_outputs(model.video_tower, part) for part in parts]))


def test_many_examples_are_each_what_they_are_alone(signatures):
    frames = random_frames(1, FRAMES + 2)[0]
    clips = np.stack([np.roll(frames, i, 0) for i in range(6)])
    outputs = call(signatures['serving_default'], frames=clips)
    for i in (0, 3, 4, 5):
        check({name: value[i:i + 1] for name, value in outputs.items()},
              call(signatures['serving_default'], frames=clips[i:i + 1]))


@pytest.mark.parametrize(('height', 'width', 'square'), [
    (24, 41, np.s_[:, :, :, 8:32]), (37, 12, np.s_[:, :, 12:24])])
def test_frames_of_other_sizes_are_cropped_and_resized(signatures, model, height, width, square):
    frames = random_frames(2, FRAMES, height, width)
    cropped = frames[square]
    resized = tf.image.resize(cropped.reshape(-1, *cropped.shape[2:]), [SIZE, SIZE]).numpy()
    resized = np.round(resized).astype(np.uint8).reshape(2, FRAMES, SIZE, SIZE, 3)
    check(call(signatures['serving_default'], frames=frames),
          keras_outputs(model.video_tower, resized))


@pytest.mark.parametrize('count', [1, 2 * FRAMES + 3])
def test_jpegs_equal_their_pixels(signatures, count):
    jpegs = as_jpegs(random_frames(2, count))
    frames = np.array([[tf.io.decode_jpeg(jpeg, channels=3).numpy() for jpeg in clip]
                       for clip in jpegs])
    check(call(signatures['jpeg'], frames=jpegs),
          call(signatures['serving_default'], frames=frames))


def test_jpegs_are_cropped_as_in_evaluation(signatures, model):
    jpegs = as_jpegs(random_frames(2, FRAMES, 24, 41))
    clips = [images.decode_window(tf.constant(clip), model.config, seed=None) for clip in jpegs]
    check(call(signatures['jpeg'], frames=jpegs), keras_outputs(model.video_tower, tf.stack(clips)))


def test_clips_of_a_batch_may_differ_in_size(signatures):
    jpegs = np.concatenate([as_jpegs(random_frames(1, 3, 40, 20)), as_jpegs(random_frames(1, 3))])
    parts = [call(signatures['jpeg'], frames=jpegs[i:i + 1]) for i in range(2)]
    check(call(signatures['jpeg'], frames=jpegs),
          {name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def claim(jpeg, height, width):
    """A JPEG file whose header states another size."""
    place = jpeg.index(b'\xff\xc0') + 5
    return jpeg[:place] + height.to_bytes(2) + width.to_bytes(2) + jpeg[place + 4:]


BLACK = as_jpegs(np.zeros([1, 1, 64, 64, 3], np.uint8))[0, 0]
PNG = tf.io.encode_png(np.zeros([9, 9, 3], np.uint8)).numpy()


@pytest.mark.parametrize(('signature', 'frames', 'words'), [
    ('serving_default', np.zeros([2049, 1, 1, 1, 3], np.uint8),
     'frames: 2049 windows in one request, .* at most 2048'),
    ('serving_default', np.zeros([1, 10**6, 1, 1, 3], np.uint8), 'frames: 83334 windows'),
    ('window', np.zeros([9, FRAMES, SIZE, SIZE, 3], np.uint8), 'with at most 8 examples'),
    ('jpeg', np.full([2, 12 * 1025], b'\xff\xd8'), 'frames: 2050 windows'),
    ('jpeg', np.array([[claim(BLACK, 8193, 8192)]], object),
     f'frames: a JPEG has more than {images.MAX_PIXELS} pixels'),
    ('serving_default', np.zeros([1, 0, 9, 9, 3], np.uint8), 'frames: no frames'),
    ('serving_default', np.zeros([0, 3, 9, 9, 3], np.uint8), 'frames: an empty batch'),
    ('serving_default', np.zeros([1, 3, 0, 9, 3], np.uint8), 'frames: height or width is 0'),
    ('jpeg', np.zeros([1, 0], 'S1'), 'frames: no frames'),
    ('jpeg', np.array([[b'']]), 'frames: each must be the bytes of a JPEG file'),
    ('jpeg', np.array([[PNG]], object), 'frames: each must be the bytes of a JPEG file'),
    ('jpeg', np.array([[BLACK[:300]]], object), 'Invalid JPEG data'),
], ids=range(12))
def test_inputs_that_are_refused(signatures, signature, frames, words):
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        call(signatures[signature], frames=frames)
