"""A record that is played back is in sync."""

import io

import av
import numpy as np
import pytest
from PIL import Image

from avts_tf.data import media, records
from avts_tf.errors import UserError
from tests.helpers import edit_record, write_records
from tests.tfrecords_tools.record_files import audio_record, plain_video
from tfrecords_tools.play import play


@pytest.mark.parametrize('frame_rate, sample_rate, size, encoder', [
    (25.0, 16000, (48, 32), 'libx264'), (29.97, 44100, (47, 33), 'libx264'),
    (12.5, 48000, (48, 32), 'mpeg4'),
])
def test_a_record_played_back_is_in_sync(frame_rate, sample_rate, size, encoder, tmp_path,
                                         monkeypatch):
    # Each frame has a brightness of its own, and the sound is noise: both show exactly where they
    # are.
    monkeypatch.setattr(av, 'codecs_available', {encoder, 'aac'})
    frames = []
    for i in range(30):
        buffer = io.BytesIO()
        Image.fromarray(np.full((size[1], size[0], 3), 20 + 7 * i, np.uint8)).save(buffer, 'JPEG')
        frames.append(buffer.getvalue())
    samples = round(30 / frame_rate * sample_rate)
    noise = np.convolve(np.random.default_rng(0).normal(size=samples), np.ones(8) / 8, 'same')
    video = records.Video(
        example_id='clap/one', frames=frames, frame_rate=frame_rate, height=size[1], width=size[0],
        waveform=(8000 * noise).astype(np.int16), sample_rate=sample_rate,
    )
    path = write_records(tmp_path / 'x',
                         [records.encode(plain_video('a', 5, 5.0, (16, 16), 16000, 16000)),
                          records.encode(video)])
    output = str(tmp_path / 'clip.mp4')
    play([path], 'clap/one', output)
    options = media.MediaOptions(frame_rate, 0, sample_rate, silent_below_db=None, still_below=None)
    played = media.read_media(output, options)
    assert played.start_seconds == 0.0 and 29 <= len(played.frames) <= 30
    assert (played.width, played.height) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    shown = [np.asarray(Image.open(io.BytesIO(frame)).convert('L')).mean()
             for frame in played.frames]
    np.testing.assert_allclose(shown, 20 + 7 * np.arange(len(shown)), atol=3)
    heard = played.waveform.astype(float)
    scores = [np.dot(np.roll(heard, shift), video.waveform[:len(heard)].astype(float))
              for shift in range(-5, 6)]
    assert int(np.argmax(scores)) == 5  # not one sample off


def test_audio_that_begins_before_the_frames_is_played_so(tmp_path):
    def begin_earlier(example):
        time, = example.feature_lists.feature_list[records.AUDIO_TIME].feature
        time.int64_list.value[0] = -1_000_000

    whole = records.encode(plain_video('a', 25, 25.0, (32, 32), 32000, 16000))
    path = write_records(tmp_path / 'x', [edit_record(whole, begin_earlier)])
    output = str(tmp_path / 'clip.mp4')
    play([path], 'a', output)
    streams = media.read_streams(output, media.MediaOptions(25.0, 0, 16000), 5.0, 5.0)
    assert streams.frame_seconds[0] - streams.waveform_seconds == pytest.approx(1.0, abs=1e-3)
    assert len(streams.waveform) == pytest.approx(32000, abs=1024)


def test_play_explains_what_it_cannot_do(tmp_path, mixed):
    with pytest.raises(UserError, match='^play=z: no record has this id; there are 3, such as a, '
                                        'b, c'):
        play([mixed], 'z', str(tmp_path / 'clip.mp4'))
    with pytest.raises(UserError, match='^play=a: .*`output`=clip.mp4'):
        play([mixed], 'a', None)
    with pytest.raises(UserError, match='^output=.*cannot be written'):
        play([mixed], 'a', str(tmp_path / 'none' / 'clip.mp4'))
    sound = write_records(tmp_path / 'y', [audio_record('s', 16000)])
    play([sound], 's', str(tmp_path / 'sound.mp4'))
    options = media.MediaOptions(audio_only=True, silent_below_db=None)
    assert len(media.read_media(str(tmp_path / 'sound.mp4'),
                                options).waveform) == pytest.approx(16000, abs=1)
