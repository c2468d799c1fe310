"""Files whose video and audio show the time are decoded aligned, whole, in part and in blocks."""

import contextlib
import math
import time

import numpy as np
import pytest

from avts_tf.data import media
from tests.media_files import (
    CFR,
    KEEP_ALL,
    TICK_SECONDS,
    VFR,
    audio_offset_ms,
    chirp,
    make_file,
    reason,
    retime,
    shown_seconds,
    slow_but,
    time_frame,
)

SECONDS = 2.0
CASES = {
    'constant rate': ('a.mp4', {}),
    'late audio': ('a.mp4', {'audio_start': 0.33}),
    'late audio, pcm': ('a.mov', {'audio_start': 0.33, 'audio': 'pcm_s16le'}),
    'early audio': (
        'a.mkv', {'audio_start': 0.0, 'frame_seconds': [t + 0.215 for t in CFR], 'audio': 'flac'}),
    'late video': ('a.mp4', {'frame_seconds': [t + 0.215 for t in CFR]}),
    'short audio': ('a.mp4', {'audio_seconds': 1.1}),
    'short video': ('a.mp4', {'frame_seconds': CFR[:30]}),
    'variable rate': ('a.mp4', {'frame_seconds': VFR}),
    'variable rate, late audio': (
        'a.mkv', {'frame_seconds': VFR, 'audio_start': 0.1, 'audio': 'libopus', 'rate': 48000}),
    'other rate': (
        'a.mkv', {'frame_seconds': [i / 40 for i in range(80)], 'audio': 'libmp3lame',
                  'rate': 32000}),
    'hole in the audio': ('a.mkv', {'audio': 'pcm_s16le', 'hole': (0.6, 0.9)}),
    'mpeg-ts': ('a.ts', {'audio': 'mp2', 'audio_start': 0.2}),
    'avi': ('a.avi', {'audio': 'pcm_s16le', 'rate': 16000}),
    'avi, frames out of order': ('a.avi', {'audio': 'pcm_s16le', 'b_frames': 2}),
    'frames out of order': (
        'a.mp4', {'video': 'libx264', 'b_frames': 2, 'options': {'crf': '15'}}),
    'wmv': ('a.wmv', {'video': 'wmv2', 'audio': 'pcm_s16le'}),
    'flv': ('a.flv', {'video': 'flv', 'audio': 'pcm_s16le'}),
    'webm': ('a.webm', {'video': 'libvpx', 'audio': 'libopus', 'rate': 48000,
                        'options': {'deadline': 'realtime', 'cpu-used': '8'}}),
    'intra only': ('a.mov', {'video': 'mjpeg', 'audio': 'pcm_s24le', 'pixel_format': 'yuvj420p',
                             'sample_format': 's32'}),
}
EVERY_DAY = [list(CASES).index(name) for name in (
    'late audio', 'late video', 'short audio', 'variable rate, late audio', 'hole in the audio',
    'mpeg-ts', 'avi, frames out of order', 'frames out of order', 'wmv', 'webm')]


@pytest.mark.parametrize('case', slow_but(EVERY_DAY, CASES))
def test_aligned(case, tmp_path):
    name, options = CASES[case]
    path = make_file(tmp_path / name, **options)
    result = media.read_media(path, KEEP_ALL._replace(short_side=0))
    shown = np.array([shown_seconds(frame) for frame in result.frames])
    frame_seconds = np.array(options.get('frame_seconds', CFR))
    starts = frame_seconds[0], options.get('audio_start', 0.0)
    # What a lossy codec puts before the first sample is audio to the file, up to a frame of it.
    assert max(starts) - 0.03 < result.start_seconds < max(starts) + 0.0015

    nominal = result.start_seconds + np.arange(len(result.frames)) / 25
    nearest = frame_seconds[np.abs(frame_seconds - nominal[:, None]).argmin(1)]
    errors = np.abs(shown - nominal)
    assert np.all(np.abs(errors - np.abs(nearest - nominal)) <= TICK_SECONDS)  # is the nearest, ...
    gaps = np.diff(frame_seconds)
    assert errors.max() <= max(gaps) / 2 + TICK_SECONDS  # ... hence off by half a frame at most

    assert len(result.waveform) == round(len(result.frames) / 25 * 16000)
    quarter = len(result.waveform) // 4
    for part in (slice(0, quarter), slice(-quarter, None)):
        assert abs(audio_offset_ms(result.waveform, result.start_seconds, part=part)) <= 1.0
    ends = frame_seconds[-1] + gaps[-1], starts[1] + options.get('audio_seconds', SECONDS)
    assert abs(len(result.frames) - 25 * (min(ends) - max(starts))) <= 2
    assert result.source_fps == pytest.approx(1 / np.mean(gaps), rel=0.05)
    assert result.note == ''


@pytest.mark.parametrize('delay', [-0.137, 0.123])
@pytest.mark.parametrize('source, target, options, within_ms', [
    # An MP4 states the delay in its edit list, in whole milliseconds.
    ('a.mp4', 'b.mp4', {'video': 'libx264', 'b_frames': 2}, 1.0),
    ('a.mp4', 'b.mkv', {'video': 'libx264', 'b_frames': 2}, 0.05),
    ('a.webm', 'b.webm', {'video': 'libvpx', 'audio': 'libopus', 'rate': 48000,
                          'options': {'deadline': 'realtime', 'cpu-used': '8'}}, 0.05),
])
def test_a_delay_of_the_audio_is_kept_to_the_sample(
    source, target, options, within_ms, delay, tmp_path,
):
    path = make_file(tmp_path / source, **options)
    path = retime(path, tmp_path / target, lambda i, seconds: seconds + delay)
    found = media.read_streams(path, KEEP_ALL._replace(short_side=0), SECONDS, 1.0)
    # A file's clock begins with its first stream, so both may be later by the same time.
    later = found.frame_seconds - [shown_seconds(frame) for frame in found.frames]
    np.testing.assert_allclose(later, later[0], atol=1e-6)
    start = found.waveform_seconds - later[0] - delay
    quarter = len(found.waveform) // 4
    part = slice(quarter, -quarter)
    assert abs(audio_offset_ms(found.waveform, start, part=part, steps=8)) <= within_ms


@pytest.mark.parametrize('name, options', slow_but((1, 2, 3), [
    ('a.mp4', {}), ('a.mkv', {'video': 'libx264', 'b_frames': 2, 'group': 50}),
    ('a.ts', {'audio': 'mp2', 'group': 50}), ('a.avi', {'audio': 'pcm_s16le', 'group': 500}),
    ('a.mov', {'audio': 'pcm_s16le', 'video': 'libx264', 'b_frames': 2}),
    ('a.wmv', {'video': 'wmv2', 'audio': 'pcm_s16le'}),
]))
def test_a_stretch_is_what_the_whole_has_there(name, options, tmp_path):
    late = 0.0 if name.endswith('.avi') else 0.32  # what an AVI cannot say
    frame_seconds = [late + i / 25 for i in range(115)]
    path = make_file(tmp_path / name, frame_seconds, audio_seconds=5.0, **options)
    keep_size = KEEP_ALL._replace(short_side=0)
    whole = media.read_media(path, keep_size)
    shift = whole.start_seconds - late
    # What a codec puts before the audio moves the clock of an MPEG-TS.
    assert abs(shift) < 0.002 or (name.endswith('.ts') and 0 < shift < 0.03)
    for begin, end in ((1.0, 2.0), (3.48, 4.2), (3.5, None), (0.0, 1.1)):
        part = media.read_media(path, keep_size._replace(start_seconds=begin, end_seconds=end))
        start = part.start_seconds
        assert start == pytest.approx(max(begin, whole.start_seconds), abs=1e-4)
        if end:
            assert len(part.frames) == math.floor((end - start) * 25 + 1e-3)
        nominal = start - shift + np.arange(len(part.frames)) / 25
        shown = [shown_seconds(frame) for frame in part.frames]
        assert np.abs(shown - nominal).max() <= 0.5 / 25 + TICK_SECONDS
        if begin > 2:
            late_ms = audio_offset_ms(part.waveform, start - shift, part=slice(0, 11000), steps=4)
            assert abs(late_ms) <= 0.1
    with pytest.raises(media.Unsuitable, match='too_short.*in this stretch'):
        media.read_media(path, KEEP_ALL._replace(start_seconds=6.0))


def test_size_rate_and_channels_may_change_in_mid_stream(tmp_path):
    first = make_file(tmp_path / 'a.ts', audio='mp2', audio_start=0.1, audio_seconds=1.9)
    second = make_file(
        tmp_path / 'b.ts', [2 + t for t in CFR], audio='mp2', audio_start=2.0, rate=32000,
        layout='stereo', draw=lambda t: np.repeat(np.repeat(time_frame(t), 2, 0), 2, 1),
        wave=lambda t: np.stack([chirp(t)] * 2))
    path = tmp_path / 'c.ts'
    with open(path, 'wb') as file:
        for part in (first, second):
            with open(part, 'rb') as source:
                file.write(source.read())
    result = media.read_media(str(path), KEEP_ALL)
    assert (result.height, result.width) == (64, 160) and 97 <= len(result.frames) <= 100
    nominal = result.start_seconds + np.arange(len(result.frames)) / 25
    shown = [shown_seconds(frame) for frame in result.frames]
    assert np.abs(shown - nominal).max() <= 0.02 + TICK_SECONDS
    for part in (slice(0, 24000), slice(40000, 60000)):
        assert abs(audio_offset_ms(result.waveform, result.start_seconds, part=part)) <= 1.0


def test_audio_that_begins_late(tmp_path):
    path = make_file(tmp_path / 'a.mkv', [i / 5 for i in range(175)], audio_start=30.0)
    begin = time.process_time()
    result = media.read_media(path, KEEP_ALL)
    assert time.process_time() - begin < 5
    assert result.start_seconds == pytest.approx(30.0, abs=0.03)
    assert len(result.frames) == pytest.approx(50, abs=1)
    late = make_file(tmp_path / 'b.mkv', audio_start=30.0)
    assert reason(late) == 'too_short'


def test_audio_only(tmp_path):
    video = make_file(tmp_path / 'a.mp4', audio_start=0.25)
    result = media.read_media(video, media.MediaOptions(audio_only=True))
    assert result.frames == [] and result.height == result.width == 0
    assert result.motion is None and result.source_fps == 0.0
    # the edit list is in milliseconds
    assert abs(audio_offset_ms(result.waveform, result.start_seconds)) <= 1.0
    sound = make_file(tmp_path / 'a.flac', video=None, audio='flac', audio_seconds=6.0)
    assert reason(sound) == 'no_video'
    stretch = KEEP_ALL._replace(audio_only=True, start_seconds=3.2, end_seconds=4.7)
    part = media.read_media(sound, stretch)
    assert len(part.waveform) == 24000 and part.start_seconds == pytest.approx(3.2, abs=1e-4)
    assert abs(audio_offset_ms(part.waveform, part.start_seconds)) <= 0.1
    assert reason(sound, audio_only=True, start_seconds=7.0) == 'too_short'


def test_many_tiny_frames(tmp_path):
    path = make_file(
        tmp_path / 'a.mkv', [i / 1000 for i in range(3000)], audio_seconds=3.0,
        draw=lambda _: np.zeros((16, 16, 3), np.uint8))
    result = media.read_media(path, KEEP_ALL)
    assert len(result.frames) == 75 and result.source_fps == pytest.approx(1000)


def test_one_frame(tmp_path):
    one = media.read_media(make_file(tmp_path / 'one.mkv', CFR[:1]), KEEP_ALL)
    assert len(one.frames) == 1 and one.motion == 0 and one.source_fps == 0
    assert len(one.waveform) == 640


def test_a_name_that_looks_like_an_address_is_a_name(tmp_path):
    make_file(tmp_path / 'a.mp4', CFR[:5])
    (tmp_path / 'a.mp4').rename(tmp_path / 'concat:a b:c.mp4')
    with contextlib.chdir(tmp_path):
        assert len(media.read_media('concat:a b:c.mp4', KEEP_ALL).frames) == 5


def test_blocks_are_the_whole(tmp_path):
    path = make_file(tmp_path / 'a.mp4', VFR, audio_start=0.2, audio_seconds=1.5)
    audio = np.concatenate(list(media.audio_blocks(path, 16000)))
    whole = media.read_media(path, KEEP_ALL._replace(audio_only=True)).waveform
    late = len(audio) - len(whole)
    assert late / 16000 == pytest.approx(0.2, abs=0.025)  # a packet of priming samples
    assert not audio[:late].any()
    np.testing.assert_array_equal(audio[late:], whole)
    frames = [frame for block in media.video_blocks(path, 25, 0) for frame in block]
    assert len(frames) == math.floor((VFR[-1] + 0.0405) * 25 + 1e-6)
    assert frames[0].dtype == np.uint8
    nominal = np.arange(len(frames)) / 25
    nearest = np.abs(np.array(VFR)[:, None] - nominal).min(0)
    errors = np.abs([shown_seconds(frame) for frame in frames] - nominal)
    np.testing.assert_allclose(errors, nearest, atol=TICK_SECONDS)
    with pytest.raises(media.Unsuitable, match='missing'):
        next(media.audio_blocks(str(tmp_path / 'none'), 16000))
    sound = make_file(tmp_path / 'a.wav', video=None, audio='pcm_s16le')
    with pytest.raises(media.Unsuitable, match='no_video'):
        next(media.video_blocks(sound, 25, 0))


def test_blocks_of_late_video_show_its_first_frame(tmp_path):
    path = make_file(tmp_path / 'a.mkv', [0.5 + seconds for seconds in CFR], audio='pcm_s16le')
    frames = [frame for block in media.video_blocks(path, 25, 0) for frame in block]
    expected = [max(0.5, i / 25) for i in range(len(frames))]
    np.testing.assert_allclose([shown_seconds(frame) for frame in frames], expected,
                               atol=0.021 + TICK_SECONDS)
    assert len(frames) == math.floor((0.5 + 2.0) * 25)


def test_long_audio_comes_in_blocks(tmp_path):
    # Longer than a run's settling, with a gap; each block is small and together they are exact.
    def tone(seconds):
        return 0.4 * np.sin(2 * np.pi * 200 * seconds)

    path = make_file(
        tmp_path / 'a.mkv', video=None, audio='pcm_s16le', rate=8000, audio_seconds=47.0,
        hole=(20.0, 26.0), wave=tone)
    blocks = list(media.audio_blocks(path, 16000))
    assert len(blocks) > 3 and max(map(len, blocks)) <= 11 * 16000
    audio = np.concatenate(blocks) / 32768
    assert len(audio) == pytest.approx(47 * 16000, abs=2100)
    times = np.arange(len(audio)) / 16000
    heard = (times > 0.01) & ((times < 19.9) | (times > 26.2))
    np.testing.assert_allclose(audio[heard], tone(times[heard]), atol=0.01)
    assert not audio[(times > 20.2) & (times < 25.9)].any()
