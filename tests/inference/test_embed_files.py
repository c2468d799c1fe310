"""Finding files, and reading them in advance."""

import time

import numpy as np
import pytest

from avts_tf.errors import UserError
from avts_tf.inference import embed_files
from tests.helpers import noise, write_sound, write_video
from tests.media_files import audio_offset_ms, make_file


def test_inputs_that_are_refused(tmp_path):
    for folder in 'xy':
        (tmp_path / folder).mkdir()
        write_sound(tmp_path / folder / 'a.wav', noise(100))
    (tmp_path / 'silent').mkdir()
    (tmp_path / 'silent' / 'notes.txt').write_text('no sound')
    for inputs, message in [
        (['x', 'y'], 'input: a is in two of the inputs'), (['nowhere'], 'nowhere'),
        (['silent'], 'silent: '), ([], 'input: give files'),
    ]:
        with pytest.raises(UserError, match=message):
            embed_files.find_inputs([str(tmp_path / name) for name in inputs])


def test_an_input_may_be_repeated(tmp_path):
    write_sound(tmp_path / 'a.wav', noise(100))
    [source] = embed_files.find_inputs([str(tmp_path / 'a.wav')] * 2)
    assert source.example_id == 'a' and not embed_files.is_video(source)


@pytest.mark.parametrize(('height', 'width'), [(16, 40), (48, 16), (64, 96), (8, 12)])
def test_frames_are_cropped_to_the_centred_square(tmp_path, height, width):
    """Wide, tall, large and small frames, no larger than a tower of 16 pixels needs."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, [12, 2, 2, 3], np.uint8)
    side = min(height, width)
    frames = rng.integers(0, 256, [12, height, width, 3], np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    frames[:, top:top + side, left:left + side] = enlarged(blocks, side)
    write_video(tmp_path / 'a.mkv', frames)
    [source] = embed_files.find_inputs([str(tmp_path / 'a.mkv')])
    got = np.concatenate(list(embed_files.read_blocks(('video_tower', source, 25.0, 16))))
    expected = enlarged(blocks, min(side, 16)).astype(int)
    # RGB to YUV and back is off by a level or two.
    np.testing.assert_allclose(got, expected, atol=3)


def test_a_stretch_of_late_audio_is_cut_where_the_player_hears_it(tmp_path):
    path = make_file(tmp_path / 'a.mkv', audio='pcm_s16le', rate=16000, audio_start=0.5)
    [source] = embed_files.find_inputs([path])
    stretch = source._replace(start_seconds=0.7, end_seconds=1.2)
    got = np.concatenate(list(embed_files.read_blocks(('audio_tower', stretch, 16000.0, 0))))
    assert len(got) == 8000
    assert audio_offset_ms(got, 0.7) == pytest.approx(0.0, abs=0.1)


def enlarged(blocks, side):
    return np.kron(blocks, np.ones([1, side // 2, side // 2, 1], np.uint8))


def test_reading_ahead_is_bounded_and_passes_errors_on():
    taken = []

    def items():
        for number in range(20):
            taken.append(number)
            yield number
        raise RuntimeError('at the end')

    stream = embed_files.read_ahead(items(), 3)
    assert next(stream) == 0
    time.sleep(0.3)
    assert len(taken) <= 6      # one passed on, three in line, one at the door
    with pytest.raises(RuntimeError, match='at the end'):
        list(stream)
