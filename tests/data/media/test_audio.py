"""Audio: gaps and jitter of its times, clocks that run apart, formats, rates and channels."""

import fractions

import av
import numpy as np
import pytest

from avts_tf.data import media
from avts_tf.data.media.audio import audio_pieces
from tests.media_files import (
    CFR,
    JITTERS,
    KEEP_ALL,
    SECONDS,
    chirp,
    make_file,
    plain_decode,
    retime,
    slow_but,
    without_video,
)

AUDIO_ONLY = KEEP_ALL._replace(audio_only=True)


def test_hole_in_the_audio_is_silent(tmp_path):
    path = make_file(tmp_path / 'a.mkv', audio='pcm_s16le', hole=(0.6, 0.9))
    loudness = np.abs(media.read_media(path, KEEP_ALL).waveform.astype(int))
    silent = np.flatnonzero(np.convolve(loudness, np.ones(80), 'valid') == 0) / 16000
    assert 0.6 <= silent.min() < 0.63 and 0.88 < silent.max() <= 0.92  # packets of 23 ms are whole


def test_a_page_of_ogg_vorbis_that_begins_with_a_short_block_leaves_no_hole():
    # Of such a frame libavformat states too short a duration and, as it counts back from the page's
    # end, too late a time.
    count = np.arange(1024 + 576 + 128 + 1024, dtype=np.int16)
    frames, first = [], 0
    for samples, late in ((1024, 0), (576, 448), (128, 0), (1024, 0)):
        frame = av.AudioFrame.from_ndarray(count[None, first:first + samples], 's16', 'mono')
        frame.sample_rate, frame.time_base = 44100, fractions.Fraction(1, 44100)
        frame.pts, frame.duration = first + late, samples - late
        frames.append((frame.pts / 44100, frame))
        first += samples
    [(start, read)] = audio_pieces(frames, 44100)
    assert start == pytest.approx(0)
    np.testing.assert_array_equal(read, count)


def test_times_that_count_something_else_are_no_clock():
    # As of DTS and E-AC-3 in AVI files by ffmpeg: each packet is said to last as many packets as it
    # has samples.
    frames, count = [], np.arange(40 * 512, dtype=np.int16)
    for i in range(40):
        frame = av.AudioFrame.from_ndarray(count[None, 512 * i:512 * (i + 1)], 's16', 'mono')
        frame.sample_rate, frame.time_base = 48000, fractions.Fraction(512, 48000)
        frame.pts = 512 * i
        frames.append((frame.pts * 512 / 48000, frame))
    [(start, read)] = audio_pieces(frames, 48000)
    assert start == pytest.approx(0)
    np.testing.assert_array_equal(read, count)


CODECS = [
    ('aac', 44100, 'b.mkv'), ('libopus', 48000, 'b.webm'), ('libmp3lame', 44100, 'b.mkv'),
    ('ac3', 44100, 'b.mkv'), ('pcm_s16le', 44100, 'b.mkv'), ('aac', 44100, 'b.mov'),
    ('libmp3lame', 44100, 'b.ts'),
]


@pytest.mark.parametrize('audio, rate, name, jitter', slow_but(
    (1, 3, 6, 9, 15, 18, 24), [(*codec, jitter) for codec in CODECS for jitter in JITTERS]))
def test_jitter_in_the_times_leaves_no_hole(audio, rate, name, jitter, tmp_path):
    path = make_file(tmp_path / 'a.mkv', video=None, audio=audio, rate=rate, audio_seconds=4.0)
    first, shift = 0.1, JITTERS[jitter]  # no time below zero
    path = retime(path, tmp_path / name, lambda i, seconds: first + seconds + shift(i))
    expected = plain_decode(path)
    read = media.read_media(path, AUDIO_ONLY).waveform
    # What the container puts before time 0 or after its stated end may be missing, less than a
    # packet; the rest is the same.
    assert -1 <= len(expected) - len(read) <= 420
    length = len(read) - 420
    assert any(np.array_equal(read[:length], expected[lag:lag + length]) for lag in range(200))


@pytest.mark.parametrize('lost, jitter', slow_but(
    (3, 4, 10), [(lost, jitter) for lost in (1, 3, 20) for jitter in JITTERS]))
def test_packets_that_are_missing_are_silent_whatever_the_jitter(lost, jitter, tmp_path):
    # Packets of 32 ms, so that one of them is more than the noise.
    path = make_file(tmp_path / 'a.mkv', audio='ac3', rate=48000, audio_seconds=SECONDS)
    shift = JITTERS[jitter]
    cut = retime(path, tmp_path / 'b.mkv', lambda i, seconds: (
        None if 30 <= i < 30 + lost else max(0, seconds + shift(i))))
    result = media.read_media(cut, AUDIO_ONLY)
    whole = plain_decode(path)
    assert abs(len(result.waveform) - len(whole)) <= 16 * 9
    loudness = np.abs(result.waveform[:-1000].astype(int))
    quiet = np.flatnonzero(np.convolve(loudness, np.ones(200), 'valid') == 0) / 16000
    first = 30 * 0.032 - 0.0053  # less what the codec puts before
    assert abs(quiet.min() - first) < 0.036
    assert abs(quiet.max() + 200 / 16000 - first - 0.032 * lost) < 0.036
    times = result.start_seconds + np.arange(len(result.waveform)) / 16000
    offsets = np.arange(-0.03, 0.03, 0.0005)
    for part in (slice(0, 12000), slice(-6000, -1000)):
        scores = [np.dot(result.waveform[part], chirp(times[part] - offset)) for offset in offsets]
        assert abs(offsets[np.argmax(scores)]) <= 0.01  # as the jitter has it


@pytest.mark.parametrize('factor', [1.002, 0.998])
def test_audio_follows_the_clock_of_the_video_without_a_break(factor, tmp_path):
    def ticking(seconds):
        ticks = 0.7 * np.exp(-((seconds - np.round(seconds)) / 0.004) ** 2)
        return (0.05 + ticks) * np.sin(2 * np.pi * 500 * seconds)

    # The recorder's clock wins or loses two thousandths: 60 ms in half a minute.
    path = make_file(
        tmp_path / 'a.mkv', [i / 2 for i in range(60)], audio='pcm_s16le', rate=32000,
        audio_seconds=30.0, wave=lambda seconds: ticking(seconds * factor))
    path = retime(path, tmp_path / 'b.mkv', lambda i, seconds: seconds * factor)
    result = media.read_media(path, KEEP_ALL)
    loudness = np.abs(result.waveform.astype(float))
    late = []
    for second in range(1, 29):
        first = round((second - 0.3 - result.start_seconds) * 16000)
        power = loudness[first:first + 9600] ** 4
        late.append((power @ np.arange(9600)) / power.sum() - 4800)
    assert np.abs(late).max() < 0.03 * 16000
    assert np.convolve(loudness, np.ones(32), 'valid').min() > 0
    alone = media.read_media(without_video(path, tmp_path / 'c.mka'), AUDIO_ONLY).waveform
    np.testing.assert_array_equal(alone, plain_decode(path))


@pytest.mark.parametrize('rate, sample_format, audio', slow_but((0, 3, 7), [
    (8000, 'u8', 'pcm_u8'), (11025, 's16', 'pcm_s16be'), (22050, 's16', 'flac'),
    (44100, 's32', 'pcm_s24le'), (48000, 's32', 'pcm_s32le'), (96000, 'flt', 'pcm_f32le'),
    (96000, 's32', 'flac'), (192000, 'dbl', 'pcm_f64le'),
]))
def test_any_rate_and_format_to_the_sample(rate, sample_format, audio, tmp_path):
    # A short burst of 1 kHz around 0.5 s: the middle of its energy is where it is heard.
    def burst(seconds):
        loud = np.exp(-((seconds - 0.5) / 0.002) ** 2)
        return 0.7 * loud * np.sin(2 * np.pi * 1000 * seconds)

    path = make_file(tmp_path / 'a.mkv', CFR[:25], wave=burst, audio_seconds=1.5, audio=audio,
                     rate=rate, sample_format=sample_format)
    for sample_rate in (16000, 22050, 48000):
        result = media.read_media(path, KEEP_ALL._replace(sample_rate=sample_rate))
        times = result.start_seconds + np.arange(len(result.waveform)) / sample_rate
        wanted = burst(times) * 32768
        waveform = result.waveform.astype(float)
        scores = [np.dot(np.roll(waveform, shift), wanted) for shift in range(-3, 4)]
        assert int(np.argmax(scores)) == 3
        assert max(scores) == pytest.approx(np.dot(wanted, wanted), rel=0.03)  # as loud as it was


@pytest.mark.parametrize('layout, weights', [
    ('mono', [1]), ('stereo', [1, 1]), ('3.0', [0.7071, 0.7071, 1]), ('quad', [1, 1, 1, 1]),
    ('5.1', [0.7071, 0.7071, 1, 0, 0.5, 0.5]),
    ('7.1', [0.7071, 0.7071, 1, 0, 0.5, 0.5, 0.5, 0.5]),
    ('5 channels', [1] * 5), ('12 channels', [1] * 12),
])
def test_channels_are_mixed_without_clipping(layout, weights, tmp_path):
    weights = np.array(weights) / sum(weights)
    if layout == 'quad':
        weights = np.array([1, 1, 0.7071, 0.7071]) / 3.4142
    tones = 300 + 50 * np.arange(len(weights))
    path = make_file(
        tmp_path / 'a.wav', video=None, audio='pcm_s16le', rate=16000, layout=layout,
        wave=lambda seconds: 0.99 * np.sin(2 * np.pi * tones[:, None] * seconds))
    waveform = media.read_media(path, AUDIO_ONLY).waveform[:16000] / 32768
    spectrum = 2 * np.abs(np.fft.rfft(waveform)) / len(waveform)
    np.testing.assert_allclose(spectrum[tones], 0.99 * weights, atol=0.005)
