"""Files whose picture and sound tell the time are decoded aligned, and awkward ones are named with a reason."""

import contextlib
import fractions
import io
import math
import os
import random
import time

import av
import numpy as np
import pytest
from PIL import Image

from avts_tf.data import media, workers
from avts_tf.data.media import read, video
from avts_tf.data.media.audio import audio_pieces
from avts_tf.data.media.container import own_formats

SECONDS = 2.0
BARS = 10  # the picture tells its time in bars, black or white: a binary number of ticks
TICK_SECONDS = 0.005
CFR = [i / 25 for i in range(50)]
# From 50 to 12.5 frames per second.
VFR = list(np.cumsum([0.0, *np.tile([0.02, 0.08, 0.03, 0.05, 0.02], 9)]))
KEEP_ALL = media.MediaOptions(silent_below_db=None, still_below=None)


def chirp(seconds):
    """A tone whose pitch tells the time: 400 Hz at time 0, 800 Hz more each second."""
    return 0.5 * np.sin(2 * np.pi * (400 * seconds + 400 * seconds**2))


def time_picture(seconds):
    """uint8 [64, 160, 3]."""
    ticks = round(seconds / TICK_SECONDS)
    bits = [255 if ticks >> bar & 1 else 0 for bar in range(BARS)]
    return np.repeat(np.broadcast_to(np.repeat(np.array(bits, np.uint8), 16), (64, 160))[..., None], 3, -1).copy()


def read_picture(image):
    """The time that a frame tells, in seconds: JPEG bytes or uint8 [H, W, 3]."""
    image = np.asarray(Image.open(io.BytesIO(image)).convert('L')) if isinstance(image, bytes) else image[..., 0]
    height, width = image.shape
    means = image[height // 4:-height // 4].reshape(-1, BARS, width // BARS)[:, :, width // BARS // 4:-width // BARS // 4]
    return sum(int(mean > 127) << bar for bar, mean in enumerate(means.mean((0, 2)))) * TICK_SECONDS


def read_pixels(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert('RGB')).astype(int)


def make_file(
    path, frame_seconds=tuple(CFR), picture=time_picture, sound=chirp, audio_start=0.0, audio_seconds=SECONDS, video='mpeg4',
    audio='aac', rate=44100, hole=None, aspect=None, sample_format='s16', layout='mono', pixel_format='yuv420p', b_frames=0,
    group=12, options=None,
):
    """Writes a file: frames at the given times, sound from `audio_start` on, both showing the time of the file.

    `hole` is (start, end) in seconds of a stretch without audio packets. `sound` gives [n] or [channels, n] in [-1, 1].
    """
    with av.open(str(path), 'w') as container:
        video_stream = None
        if video:
            video_stream = container.add_stream(video, rate=25, options=options or {})
            first = picture(0.0)
            video_stream.height, video_stream.width = first.shape[:2]
            video_stream.pix_fmt, video_stream.bit_rate = pixel_format, 4_000_000
            codec = video_stream.codec_context
            codec.max_b_frames, codec.gop_size = b_frames, group
            # mpeg4 with B-frames needs a constant rate
            codec.time_base = video_stream.time_base = fractions.Fraction(1, 25 if b_frames else 1000)
            if aspect:
                codec.sample_aspect_ratio = aspect
        audio_stream = container.add_stream(audio, rate=rate, layout=layout) if audio else None
        for seconds in frame_seconds if video else ():
            frame = av.VideoFrame.from_ndarray(picture(seconds), 'rgb24')
            frame.pts, frame.time_base = round(seconds / codec.time_base), codec.time_base
            container.mux(video_stream.encode(frame))
        if video:
            container.mux(video_stream.encode(None))
        if audio_stream:
            size = 960 if rate == 48000 else 1024
            for start in range(round(audio_start * rate), round((audio_start + audio_seconds) * rate), size):
                if hole and hole[0] <= start / rate < hole[1]:
                    continue
                samples = np.atleast_2d(sound((start + np.arange(size)) / rate))
                container.mux(audio_stream.encode(audio_frame(samples, sample_format, layout, rate, start)))
            container.mux(audio_stream.encode(None))
    return str(path)


def audio_frame(samples, sample_format, layout, rate, pts):
    """An `av.AudioFrame` of float samples [channels, n] in [-1, 1], in a packed format."""
    kind = {'u8': np.uint8, 's16': np.int16, 's32': np.int32, 'flt': np.float32, 'dbl': np.float64}[sample_format]
    if kind in (np.float32, np.float64):
        samples = samples.astype(kind)
    else:
        full = 2.0 ** (8 * np.dtype(kind).itemsize - 1)
        samples = (np.clip(np.round(samples * full), -full, full - 1) + (full if kind is np.uint8 else 0)).astype(kind)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T.reshape(1, -1)), sample_format, layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, pts, fractions.Fraction(1, rate)
    return frame


def sound_offset_ms(waveform, start_seconds, sample_rate=16000, part=slice(None), steps=2):
    """How much later the sound is than the time of the file says, by correlation with the chirp."""
    times = start_seconds + np.arange(len(waveform)) / sample_rate
    sound = (waveform / 32768)[part]
    offsets = np.arange(-40 * steps, 40 * steps + 1) / (steps * sample_rate)
    scores = [(sound * chirp(times[part] - offset)).sum() for offset in offsets]
    assert max(scores) > 0.8 * (sound**2).sum()  # it is the chirp
    return 1000 * offsets[int(np.argmax(scores))]


CASES = {
    'constant rate': ('a.mp4', {}),
    'late sound': ('a.mp4', {'audio_start': 0.33}),
    'late sound, pcm': ('a.mov', {'audio_start': 0.33, 'audio': 'pcm_s16le'}),
    'early sound': ('a.mkv', {'audio_start': 0.0, 'frame_seconds': [t + 0.215 for t in CFR], 'audio': 'flac'}),
    'late picture': ('a.mp4', {'frame_seconds': [t + 0.215 for t in CFR]}),
    'short sound': ('a.mp4', {'audio_seconds': 1.1}),
    'short picture': ('a.mp4', {'frame_seconds': CFR[:30]}),
    'variable rate': ('a.mp4', {'frame_seconds': VFR}),
    'variable rate, late sound': ('a.mkv', {'frame_seconds': VFR, 'audio_start': 0.1, 'audio': 'libopus', 'rate': 48000}),
    'other rate': ('a.mkv', {'frame_seconds': [i / 40 for i in range(80)], 'audio': 'libmp3lame', 'rate': 32000}),
    'hole in the sound': ('a.mkv', {'audio': 'pcm_s16le', 'hole': (0.6, 0.9)}),
    'mpeg-ts': ('a.ts', {'audio': 'mp2', 'audio_start': 0.2}),
    'avi': ('a.avi', {'audio': 'pcm_s16le', 'rate': 16000}),
    'avi, frames out of order': ('a.avi', {'audio': 'pcm_s16le', 'b_frames': 2}),
    'frames out of order': ('a.mp4', {'video': 'libx264', 'b_frames': 2, 'options': {'crf': '15'}}),
    'wmv': ('a.wmv', {'video': 'wmv2', 'audio': 'pcm_s16le'}),
    'flv': ('a.flv', {'video': 'flv', 'audio': 'pcm_s16le'}),
    'webm': ('a.webm', {
        'video': 'libvpx', 'audio': 'libopus', 'rate': 48000, 'options': {'deadline': 'realtime', 'cpu-used': '8'},
    }),
    'intra only': ('a.mov', {'video': 'mjpeg', 'audio': 'pcm_s24le', 'pixel_format': 'yuvj420p', 'sample_format': 's32'}),
}


@pytest.mark.parametrize('case', CASES)
def test_aligned(case, tmp_path):
    name, options = CASES[case]
    path = make_file(tmp_path / name, **options)
    result = media.read_media(path, KEEP_ALL._replace(short_side=0))
    shown = np.array([read_picture(frame) for frame in result.frames])
    frame_seconds = np.array(options.get('frame_seconds', CFR))
    starts = frame_seconds[0], options.get('audio_start', 0.0)
    # What a lossy coder puts before the first sample is sound to the file, up to a frame of it.
    assert max(starts) - 0.03 < result.start_seconds < max(starts) + 0.0015

    nominal = result.start_seconds + np.arange(len(result.frames)) / 25
    nearest = frame_seconds[np.abs(frame_seconds - nominal[:, None]).argmin(1)]
    assert np.all(np.abs(np.abs(shown - nominal) - np.abs(nearest - nominal)) <= TICK_SECONDS)  # each is the nearest, ...
    gaps = np.diff(frame_seconds)
    assert np.abs(shown - nominal).max() <= max(gaps) / 2 + TICK_SECONDS  # ... hence off by half a frame at most

    assert len(result.waveform) == round(len(result.frames) / 25 * 16000)
    quarter = len(result.waveform) // 4
    for part in (slice(0, quarter), slice(-quarter, None)):
        assert abs(sound_offset_ms(result.waveform, result.start_seconds, part=part)) <= 1.0
    common = min(frame_seconds[-1] + gaps[-1], starts[1] + options.get('audio_seconds', SECONDS)) - max(starts)
    assert abs(len(result.frames) - 25 * common) <= 2
    assert result.source_fps == pytest.approx(1 / np.mean(gaps), rel=0.05)
    assert result.note == ''


def test_hole_in_the_sound_is_silent(tmp_path):
    path = make_file(tmp_path / 'a.mkv', audio='pcm_s16le', hole=(0.6, 0.9))
    waveform = media.read_media(path, KEEP_ALL).waveform
    silent = np.flatnonzero(np.convolve(np.abs(waveform.astype(int)), np.ones(80), 'valid') == 0) / 16000
    assert 0.6 <= silent.min() < 0.63 and 0.88 < silent.max() <= 0.92  # packets of 23 ms are whole


def test_a_page_of_ogg_vorbis_that_begins_with_a_short_block_leaves_no_hole():
    # Of such a frame libavformat states too short a duration and, as it counts back from the page's end, too late a time.
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


# How times of packets may be off without a gap: seconds, of the number of the packet.
JITTERS = {
    'none': lambda i: 0.0,
    'rounded down in each block of eight': lambda i: -0.0007 * (i % 8),
    'blocks of five late': lambda i: 0.009 * (i // 5 % 2),
    'noise': lambda i: random.Random(i).uniform(-0.007, 0.007),
}


def retime(source, target, change):
    """Copies a file; `change(number, seconds)` gives a new time for each audio packet, or None to leave the packet out."""
    with av.open(str(source)) as given, av.open(str(target), 'w') as container:
        streams = {stream.index: container.add_stream_from_template(stream) for stream in given.streams}
        number = 0
        for packet in given.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == 'audio':
                seconds = change(number, packet.pts * float(packet.time_base))
                number += 1
                if seconds is None:
                    continue
                packet.pts = packet.dts = round(seconds / packet.time_base)
            packet.stream = streams[packet.stream.index]
            container.mux(packet)
    return str(target)


def plain_decode(path, rate=16000):
    """int16 [samples]: the audio as libavcodec decodes it, packet after packet, whatever their times."""
    resampler, pieces = av.AudioResampler('s16', 'mono', rate), []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            frame.pts = None
            pieces += resampler.resample(frame)
    return np.concatenate([piece.to_ndarray().reshape(-1) for piece in pieces + resampler.resample(None)])


@pytest.mark.parametrize('jitter', JITTERS)
@pytest.mark.parametrize('audio, rate, name', [
    ('aac', 44100, 'b.mkv'), ('libopus', 48000, 'b.webm'), ('libmp3lame', 44100, 'b.mkv'), ('ac3', 44100, 'b.mkv'),
    ('pcm_s16le', 44100, 'b.mkv'), ('aac', 44100, 'b.mov'), ('libmp3lame', 44100, 'b.ts'),
])
def test_jitter_in_the_times_leaves_no_hole(audio, rate, name, jitter, tmp_path):
    path = make_file(tmp_path / 'a.mkv', video=None, audio=audio, rate=rate, audio_seconds=4.0)
    first, shift = 0.1, JITTERS[jitter]  # no time below zero
    path = retime(path, tmp_path / name, lambda i, seconds: first + seconds + shift(i))
    expected = plain_decode(path)
    read = media.read_media(path, KEEP_ALL._replace(audio_only=True)).waveform
    # What the container puts before time 0 or behind its stated end may be missing, less than a packet; the rest is the same.
    assert -1 <= len(expected) - len(read) <= 420
    length = len(read) - 420
    assert any(np.array_equal(read[:length], expected[lag:lag + length]) for lag in range(200))


@pytest.mark.parametrize('jitter', JITTERS)
@pytest.mark.parametrize('lost', [1, 3, 20])
def test_packets_that_are_missing_are_silent_whatever_the_jitter(lost, jitter, tmp_path):
    # Packets of 32 ms, so that one of them is more than the noise.
    path = make_file(tmp_path / 'a.mkv', audio='ac3', rate=48000, audio_seconds=SECONDS)
    shift = JITTERS[jitter]
    cut = retime(path, tmp_path / 'b.mkv', lambda i, seconds: None if 30 <= i < 30 + lost else max(0, seconds + shift(i)))
    result = media.read_media(cut, KEEP_ALL._replace(audio_only=True))
    whole = plain_decode(path)
    assert abs(len(result.waveform) - len(whole)) <= 16 * 9
    quiet = np.flatnonzero(np.convolve(np.abs(result.waveform[:-1000].astype(int)), np.ones(200), 'valid') == 0) / 16000
    first = 30 * 0.032 - 0.0053  # less the run-in of the coder
    assert abs(quiet.min() - first) < 0.036 and abs(quiet.max() + 200 / 16000 - first - 0.032 * lost) < 0.036
    times = result.start_seconds + np.arange(len(result.waveform)) / 16000
    offsets = np.arange(-0.03, 0.03, 0.0005)
    for part in (slice(0, 12000), slice(-6000, -1000)):
        scores = [np.dot(result.waveform[part], chirp(times[part] - offset)) for offset in offsets]
        assert abs(offsets[np.argmax(scores)]) <= 0.01  # as the jitter has it


def test_audio_follows_the_clock_of_the_video_without_a_break(tmp_path):
    def ticking(seconds):
        return (0.05 + 0.7 * np.exp(-((seconds - np.round(seconds)) / 0.004) ** 2)) * np.sin(2 * np.pi * 500 * seconds)

    # The recorder's clock wins or loses two thousandths: 60 ms in half a minute.
    for factor in (1.002, 0.998):
        path = make_file(
            tmp_path / 'a.mkv', [i / 2 for i in range(60)], audio='pcm_s16le', rate=32000, audio_seconds=30.0,
            sound=lambda t, factor=factor: ticking(t * factor),
        )
        path = retime(path, tmp_path / 'b.mkv', lambda i, seconds, factor=factor: seconds * factor)
        result = media.read_media(path, KEEP_ALL)
        loudness = np.abs(result.waveform.astype(float))
        late = []
        for second in range(1, 29):
            first = round((second - 0.3 - result.start_seconds) * 16000)
            late.append((loudness[first:first + 9600] ** 4 @ np.arange(9600)) / (loudness[first:first + 9600] ** 4).sum() - 4800)
        assert np.abs(late).max() < 0.03 * 16000
        assert np.convolve(loudness, np.ones(32), 'valid').min() > 0
        alone = media.read_media(without_video(path, tmp_path / 'c.mka'), KEEP_ALL._replace(audio_only=True)).waveform
        np.testing.assert_array_equal(alone, plain_decode(path))


def without_video(source, target):
    """Copies a file's audio."""
    with av.open(str(source)) as given, av.open(str(target), 'w', format='matroska') as container:
        stream = container.add_stream_from_template(given.streams.audio[0])
        for packet in given.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return str(target)


def test_times_that_count_something_else_are_no_clock():
    # As of DTS and E-AC-3 in AVI files by ffmpeg: each packet is said to last as many packets as it has samples.
    frames, count = [], np.arange(40 * 512, dtype=np.int16)
    for i in range(40):
        frame = av.AudioFrame.from_ndarray(count[None, 512 * i:512 * (i + 1)], 's16', 'mono')
        frame.sample_rate, frame.time_base, frame.pts = 48000, fractions.Fraction(512, 48000), 512 * i
        frames.append((frame.pts * 512 / 48000, frame))
    [(start, read)] = audio_pieces(frames, 48000)
    assert start == pytest.approx(0)
    np.testing.assert_array_equal(read, count)


@pytest.mark.parametrize('name, options', [
    ('a.mp4', {}), ('a.mkv', {'video': 'libx264', 'b_frames': 2, 'group': 50}), ('a.ts', {'audio': 'mp2', 'group': 50}),
    ('a.avi', {'audio': 'pcm_s16le', 'group': 500}), ('a.mov', {'audio': 'pcm_s16le', 'video': 'libx264', 'b_frames': 2}),
    ('a.wmv', {'video': 'wmv2', 'audio': 'pcm_s16le'}),
])
def test_a_stretch_is_what_the_whole_has_there(name, options, tmp_path):
    late = 0.0 if name.endswith('.avi') else 0.32  # what an AVI cannot say
    path = make_file(tmp_path / name, frame_seconds=[late + i / 25 for i in range(115)], audio_seconds=5.0, **options)
    whole = media.read_media(path, KEEP_ALL._replace(short_side=0))
    shift = whole.start_seconds - late
    assert abs(shift) < 0.002 or (name.endswith('.ts') and 0 < shift < 0.03)  # a coder's run-in moves the clock of an MPEG-TS
    for begin, end in ((1.0, 2.0), (3.48, 4.2), (3.5, None), (0.0, 1.1)):
        part = media.read_media(path, KEEP_ALL._replace(short_side=0, start_seconds=begin, end_seconds=end))
        assert part.start_seconds == pytest.approx(max(begin, whole.start_seconds), abs=1e-4)
        if end:
            assert len(part.frames) == math.floor((end - part.start_seconds) * 25 + 1e-3)
        nominal = part.start_seconds - shift + np.arange(len(part.frames)) / 25
        assert np.abs([read_picture(frame) for frame in part.frames] - nominal).max() <= 0.5 / 25 + TICK_SECONDS
        if begin > 2:
            assert abs(sound_offset_ms(part.waveform, part.start_seconds - shift, part=slice(0, 11000), steps=4)) <= 0.1
    with pytest.raises(media.Unsuitable, match='too_short.*in this stretch'):
        media.read_media(path, KEEP_ALL._replace(start_seconds=6.0))


def half_lit(seconds):
    """uint8 [48, 80, 3], white above, black below."""
    return np.repeat(np.array([255, 0], np.uint8), 24)[:, None, None] * np.ones((1, 80, 3), np.uint8)


def set_display_matrix(path, a, b, c, d):
    with open(path, 'r+b') as file:
        data = file.read()
        file.seek(data.index(b'tkhd') + 4 + 40)  # of the first track, the video
        file.write(np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30], '>i4').tobytes())


@pytest.mark.parametrize('matrix, lit', [
    ((1, 0, 0, 1), 'top'), ((0, 1, -1, 0), 'right'), ((-1, 0, 0, -1), 'bottom'), ((0, -1, 1, 0), 'left'),
    ((1, 0, 0, -1), 'bottom'), ((0, 1, 1, 0), 'left'),
])
def test_frames_are_upright(matrix, lit, tmp_path):
    path = make_file(tmp_path / 'a.mp4', picture=half_lit, frame_seconds=CFR[:10])
    set_display_matrix(path, *matrix)
    result = media.read_media(path, KEEP_ALL._replace(short_side=24))
    [block] = media.video_blocks(path, 25, 24)
    for image in (np.asarray(Image.open(io.BytesIO(result.frames[0])).convert('L')), block[0].mean(2)):
        image = image.astype(int)
        assert image.shape == (result.height, result.width) == ((24, 40) if lit in ('top', 'bottom') else (40, 24))
        light = {
            'top': image[:12].mean() - image[-12:].mean(), 'bottom': image[-12:].mean() - image[:12].mean(),
            'left': image[:, :12].mean() - image[:, -12:].mean(), 'right': image[:, -12:].mean() - image[:, :12].mean(),
        }
        assert max(light, key=light.get) == lit and light[lit] > 230


def test_pixels_are_square_and_nothing_is_enlarged(tmp_path):
    path = make_file(tmp_path / 'a.mkv', picture=half_lit, frame_seconds=CFR[:5], aspect=fractions.Fraction(3, 2))
    sizes = {}
    for short_side in (0, 24, 1000):
        result = media.read_media(path, KEEP_ALL._replace(short_side=short_side))
        sizes[short_side] = result.height, result.width
    assert sizes == {0: (48, 120), 24: (24, 60), 1000: (48, 120)}


@pytest.mark.parametrize('height, width', [(63, 121), (2, 2), (8, 300), (17, 16)])
def test_odd_sizes(height, width, tmp_path):
    def picture(_):
        image = np.zeros((height, width, 3), np.uint8)
        image[:, width // 2:] = 200
        return image

    path = make_file(tmp_path / 'a.mkv', CFR[:5], picture, video='ffv1', audio='pcm_s16le', pixel_format='yuv444p')
    result = media.read_media(path, KEEP_ALL._replace(short_side=0))
    assert (result.height, result.width) == (height, width)
    pixels = read_pixels(result.frames[0])
    assert pixels.shape == (height, width, 3) and pixels[0, -1] == pytest.approx([200] * 3, abs=3)
    if width > 16:
        assert pixels[0, 0] == pytest.approx([0] * 3, abs=3)


@pytest.mark.parametrize('colorspace, full_range, pixel_format', [
    (1, False, 'yuv444p'), (5, False, 'yuv444p'), (1, True, 'yuv444p'), (6, True, 'yuv444p'), (9, False, 'yuv444p10le'),
    (1, False, 'yuv422p10le'), (6, False, 'yuv444p16le'),
])
def test_colours_by_the_matrix_and_range_that_the_file_states(colorspace, full_range, pixel_format, tmp_path):
    # Planes are written by the formula of the standard, not by a library.
    kr, kb = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}[colorspace]
    red, green, blue = 0.8, 0.3, 0.1
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    values = np.array([luma, (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)])
    planes = values * [255, 255, 255] + [0, 128, 128] if full_range else values * [219, 224, 224] + [16, 128, 128]
    bits = 10 if '10' in pixel_format else 16 if '16' in pixel_format else 8
    planes = np.round(planes * 2 ** (bits - 8)).astype(np.uint8 if bits == 8 else '<u2')
    path = tmp_path / 'a.mkv'
    with av.open(str(path), 'w') as container:
        stream, sound = container.add_stream('ffv1', rate=25), container.add_stream('pcm_s16le', rate=16000, layout='mono')
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        stream.codec_context.colorspace, stream.codec_context.color_range = colorspace, 2 if full_range else 1
        for i in range(5):
            frame = av.VideoFrame(64, 48, pixel_format)
            for plane, value in zip(frame.planes, planes, strict=True):
                plane.update(np.full(plane.buffer_size // planes.itemsize, value, planes.dtype).tobytes())
            frame.pts, frame.colorspace, frame.color_range = i, colorspace, 2 if full_range else 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        container.mux(sound.encode(audio_frame(chirp(np.arange(8000) / 16000)[None], 's16', 'mono', 16000, 0)))
        container.mux(sound.encode(None))
    expected = [255 * red, 255 * green, 255 * blue]
    jpeg = media.read_media(str(path), KEEP_ALL._replace(jpeg_quality=98)).frames[0]
    assert read_pixels(jpeg)[24, 32] == pytest.approx(expected, abs=4)
    [block] = media.video_blocks(str(path), 25, 0)
    assert block[0][24, 32].astype(int) == pytest.approx(expected, abs=4)


@pytest.mark.parametrize('rate, sample_format, audio', [
    (8000, 'u8', 'pcm_u8'), (11025, 's16', 'pcm_s16be'), (22050, 's16', 'flac'), (44100, 's32', 'pcm_s24le'),
    (48000, 's32', 'pcm_s32le'), (96000, 'flt', 'pcm_f32le'), (96000, 's32', 'flac'), (192000, 'dbl', 'pcm_f64le'),
])
def test_sound_of_any_rate_and_format_to_the_sample(rate, sample_format, audio, tmp_path):
    # A short burst of 1 kHz around 0.5 s: where the middle of its energy lies is where it sounds.
    def burst(seconds):
        return 0.7 * np.exp(-((seconds - 0.5) / 0.002) ** 2) * np.sin(2 * np.pi * 1000 * seconds)

    path = make_file(
        tmp_path / 'a.mkv', CFR[:25], sound=burst, audio_seconds=1.5, audio=audio, rate=rate, sample_format=sample_format,
    )
    for sample_rate in (16000, 22050, 48000):
        result = media.read_media(path, KEEP_ALL._replace(sample_rate=sample_rate))
        times = result.start_seconds + np.arange(len(result.waveform)) / sample_rate
        wanted = burst(times) * 32768
        scores = [np.dot(np.roll(result.waveform.astype(float), shift), wanted) for shift in range(-3, 4)]
        assert int(np.argmax(scores)) == 3
        assert max(scores) == pytest.approx(np.dot(wanted, wanted), rel=0.03)  # as loud as it was


@pytest.mark.parametrize('layout, weights', [
    ('mono', [1]), ('stereo', [1, 1]), ('3.0', [0.7071, 0.7071, 1]), ('quad', [1, 1, 1, 1]),
    ('5.1', [0.7071, 0.7071, 1, 0, 0.5, 0.5]), ('7.1', [0.7071, 0.7071, 1, 0, 0.5, 0.5, 0.5, 0.5]),
    ('5 channels', [1] * 5), ('12 channels', [1] * 12),
])
def test_channels_are_mixed_without_clipping(layout, weights, tmp_path):
    weights = np.array(weights) / sum(weights)
    if layout == 'quad':
        weights = np.array([1, 1, 0.7071, 0.7071]) / 3.4142
    tones = 300 + 50 * np.arange(len(weights))

    def sound(seconds):
        return 0.99 * np.sin(2 * np.pi * tones[:, None] * seconds)

    path = make_file(tmp_path / 'a.wav', video=None, sound=sound, audio='pcm_s16le', rate=16000, layout=layout)
    waveform = media.read_media(path, KEEP_ALL._replace(audio_only=True)).waveform[:16000] / 32768
    spectrum = 2 * np.abs(np.fft.rfft(waveform)) / len(waveform)
    np.testing.assert_allclose(spectrum[tones], 0.99 * weights, atol=0.005)


def test_size_rate_and_channels_may_change_in_mid_stream(tmp_path):
    first = make_file(tmp_path / 'a.ts', audio='mp2', audio_start=0.1, audio_seconds=1.9)
    second = make_file(
        tmp_path / 'b.ts', [2 + t for t in CFR], lambda t: np.repeat(np.repeat(time_picture(t), 2, 0), 2, 1), audio='mp2',
        audio_start=2.0, rate=32000, layout='stereo', sound=lambda t: np.stack([chirp(t)] * 2),
    )
    path = tmp_path / 'c.ts'
    with open(path, 'wb') as file:
        for part in (first, second):
            with open(part, 'rb') as source:
                file.write(source.read())
    result = media.read_media(str(path), KEEP_ALL)
    assert (result.height, result.width) == (64, 160) and 97 <= len(result.frames) <= 100
    nominal = result.start_seconds + np.arange(len(result.frames)) / 25
    assert np.abs([read_picture(frame) for frame in result.frames] - nominal).max() <= 0.02 + TICK_SECONDS
    for part in (slice(0, 24000), slice(40000, 60000)):
        assert abs(sound_offset_ms(result.waveform, result.start_seconds, part=part)) <= 1.0


def test_sound_that_begins_late(tmp_path):
    path = make_file(tmp_path / 'a.mkv', [i / 5 for i in range(175)], audio_start=30.0)
    begin = time.perf_counter()
    result = media.read_media(path, KEEP_ALL)
    assert time.perf_counter() - begin < 5 and result.start_seconds == pytest.approx(30.0, abs=0.03)
    assert len(result.frames) == pytest.approx(50, abs=1)
    late = make_file(tmp_path / 'b.mkv', audio_start=30.0)
    assert reason(late) == 'too_short'


def reason(path, **options):
    """Why a file is unsuitable."""
    with pytest.raises(media.Unsuitable) as caught:
        media.read_media(str(path), KEEP_ALL._replace(**options))
    assert caught.value.reason in media.REASONS and '\n' not in caught.value.detail and caught.value.detail
    return caught.value.reason


def test_volume_and_motion(tmp_path):
    def flat(seconds):
        return np.full((64, 96, 3), 100 + 50 * int(seconds >= 1.0), np.uint8)

    path = make_file(tmp_path / 'a.mkv', picture=flat, sound=lambda t: 0.5 * np.sin(2 * np.pi * 440 * t), audio='pcm_s16le')
    result = media.read_media(path, KEEP_ALL)
    assert result.volume_db == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.05)
    # 5 of the 45 pairs of frames 0.2 s apart lie on both sides of the step.
    assert result.motion == pytest.approx(50 * 5 / 45, rel=0.05)
    assert reason(path, still_below=6.0) == 'still' and reason(path, silent_below_db=-9.0) == 'silent'
    assert media.read_media(path, KEEP_ALL._replace(still_below=5.0, silent_below_db=-9.1)).motion == result.motion


def test_silent_and_still_by_default(tmp_path):
    def still(seconds):
        # A picture with detail, the same each time: what moves is the coder's noise.
        return np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8).repeat(10, 0).repeat(10, 1)

    defaults = media.MediaOptions()
    silence = make_file(tmp_path / 'a.mp4', sound=np.zeros_like)
    picture = make_file(tmp_path / 'b.mp4', picture=still)
    for path, expected in ((silence, 'silent'), (picture, 'still')):
        assert reason(path, silent_below_db=defaults.silent_below_db, still_below=defaults.still_below) == expected
    assert media.read_media(silence, KEEP_ALL).volume_db < -100
    assert 0 < media.read_media(picture, KEEP_ALL).motion < 0.5
    media.read_media(make_file(tmp_path / 'c.mp4'), defaults)


@pytest.mark.skipif(not os.environ.get('AVTS_DATA'), reason='AVTS_DATA names no folder with talking heads')
def test_talking_heads_are_neither_silent_nor_still():
    folder = os.path.join(os.environ['AVTS_DATA'], 'grid_s1')
    for name in sorted(os.listdir(folder))[::30]:
        result = media.read_media(os.path.join(folder, name), media.MediaOptions())
        assert result.volume_db > media.SILENT_BELOW_DB + 30 and result.motion > 2 * media.STILL_BELOW


def test_too_long_is_known_before_it_is_decoded(tmp_path, monkeypatch):
    path = make_file(tmp_path / 'a.mp4', CFR * 0 + [i / 25 for i in range(250)], audio_seconds=10.0)
    assert len(media.read_media(path, KEEP_ALL._replace(max_seconds=10.1)).frames) == 250
    assert len(media.read_media(path, KEEP_ALL._replace(max_seconds=2.0, start_seconds=3.0, end_seconds=5.0)).frames) == 50
    count = []
    monkeypatch.setattr(video, '_jpeg', lambda *_: count.append(1) or b'')
    assert reason(path, max_seconds=9.5) == 'too_long' and not count
    assert reason(path, max_seconds=2.0, start_seconds=3.0) == 'too_long' and not count
    # Where the header lies, the decoding stops a frame later.
    monkeypatch.setattr(read, 'refuse_long', lambda *_: None)
    assert reason(path, max_seconds=2.0) == 'too_long' and len(count) <= 51
    assert reason(path, max_seconds=2.0, audio_only=True) == 'too_long'


def test_too_large_is_known_before_it_is_decoded(tmp_path, monkeypatch):
    path = make_file(tmp_path / 'a.mkv')
    assert reason(path, max_pixels=64 * 160 - 1) == 'too_large'
    media.read_media(path, KEEP_ALL._replace(max_pixels=64 * 160))
    huge = tmp_path / 'b.mp4'
    make_file(huge, video='mjpeg', pixel_format='yuvj420p', frame_seconds=CFR[:5])
    data = bytearray(huge.read_bytes())
    at = data.index(b'mp4v', data.index(b'stsd') + 8) + 28
    assert data[at:at + 4] == bytes([0, 160, 0, 64])
    data[at:at + 4] = bytes([78, 32, 78, 32])  # 20,000 by 20,000
    for marker in range(len(data) - 9):  # and in each picture
        if data[marker:marker + 2] == b'\xff\xc0' and data[marker + 5:marker + 9] == bytes([0, 64, 0, 160]):
            data[marker + 5:marker + 9] = bytes([78, 32, 78, 32])
    huge.write_bytes(bytes(data))
    begin = time.perf_counter()
    # The decoder sees that so few bytes hold no such picture.
    assert reason(huge) in ('too_large', 'unreadable') and time.perf_counter() - begin < 5
    monkeypatch.setattr(video, '_MAX_JPEG_BYTES', 10_000)
    assert reason(path) == 'too_large'


def test_audio_only(tmp_path):
    video = make_file(tmp_path / 'a.mp4', audio_start=0.25)
    result = media.read_media(video, media.MediaOptions(audio_only=True))
    assert (result.frames, result.height, result.width, result.motion, result.source_fps) == ([], 0, 0, None, 0.0)
    assert abs(sound_offset_ms(result.waveform, result.start_seconds)) <= 1.0  # the edit list is in milliseconds
    sound = make_file(tmp_path / 'a.flac', video=None, audio='flac', audio_seconds=6.0)
    assert reason(sound) == 'no_video'
    part = media.read_media(sound, KEEP_ALL._replace(audio_only=True, start_seconds=3.2, end_seconds=4.7))
    assert len(part.waveform) == 24000 and part.start_seconds == pytest.approx(3.2, abs=1e-4)
    assert abs(sound_offset_ms(part.waveform, part.start_seconds)) <= 0.1
    assert reason(sound, audio_only=True, start_seconds=7.0) == 'too_short'


def remux(source, target, change):
    """Copies a file; `change(packet)` returns the packet's new bytes, or None where it stays."""
    with av.open(str(source)) as given, av.open(str(target), 'w') as container:
        streams = {stream.index: container.add_stream_from_template(stream) for stream in given.streams}
        for packet in given.demux():
            if packet.dts is None:
                continue
            data = change(packet)
            new = packet if data is None else av.Packet(data)
            if data is not None:
                new.pts, new.dts, new.time_base, new.duration = packet.pts, packet.dts, packet.time_base, packet.duration
            new.stream = streams[packet.stream.index]
            container.mux(new)
    return str(target)


def test_of_several_streams_the_first_that_decodes(tmp_path):
    path = tmp_path / 'two.mkv'
    with av.open(str(path), 'w') as container:
        streams = []
        for height in (32, 64):
            stream = container.add_stream('mjpeg', rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, height, 'yuvj420p'
            streams.append(stream)
        for rate in (16000, 32000):
            streams.append(container.add_stream('flac', rate=rate, layout='mono'))
        for i in range(25):
            for stream in streams[:2]:
                frame = av.VideoFrame.from_ndarray(np.full((stream.height, 64, 3), 8 * i, np.uint8), 'rgb24')
                frame.pts = i
                container.mux(stream.encode(frame))
            for loud, stream in zip((0.1, 0.5), streams[2:], strict=True):
                size = stream.rate // 25
                times = (i * size + np.arange(size)) / stream.rate
                container.mux(stream.encode(audio_frame(loud * chirp(times)[None], 's16', 'mono', stream.rate, i * size)))
        for stream in streams:
            container.mux(stream.encode(None))
    result = media.read_media(str(path), KEEP_ALL)
    assert result.height == 32 and result.volume_db < -25
    assert result.note == 'video stream 0 taken: the first of 2; audio stream 2 taken: the first of 2'
    garbage = random.Random(0)
    broken = remux(path, tmp_path / 'broken.mkv', lambda packet: (
        garbage.randbytes(packet.size) if packet.stream.index in (0, 2) else None
    ))
    result = media.read_media(broken, KEEP_ALL)
    assert result.height == 64 and result.volume_db > -20
    assert result.note == 'video stream 1 taken: 0 does not decode; audio stream 3 taken: 2 does not decode'
    assert sum(len(block) for block in media.video_blocks(broken, 25, 0)) == 25
    assert len(np.concatenate(list(media.audio_blocks(broken, 16000)))) == 16000
    gone = remux(path, tmp_path / 'gone.mkv', lambda packet: garbage.randbytes(packet.size))
    assert reason(gone) == 'unreadable'


def test_a_cover_is_no_video(tmp_path):
    path = tmp_path / 'a.m4a'
    with av.open(str(path), 'w', format='mp4') as container:
        sound, cover = container.add_stream('aac', rate=16000), container.add_stream('mjpeg', rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, 'yuvj420p'
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), 'rgb24')
        frame.pts = 0
        container.mux(cover.encode(frame))
        container.mux(cover.encode(None))
        container.mux(sound.encode(audio_frame(chirp(np.arange(16000) / 16000)[None], 's16', 'mono', 16000, 0)))
        container.mux(sound.encode(None))
    assert reason(path) == 'no_video'
    assert len(media.read_media(str(path), KEEP_ALL._replace(audio_only=True)).waveform) == pytest.approx(16000, abs=1100)


def test_times_that_jump_or_run_backwards(tmp_path):
    jump = [t + 3600 * (t >= 1) for t in CFR]
    begin = time.perf_counter()
    assert reason(make_file(tmp_path / 'a.mkv', jump)) == 'unreadable'
    both = make_file(tmp_path / 'b.mkv', jump, hole=(1.0, 3601.0), audio_seconds=3602.0, audio='pcm_s16le', rate=8000)
    assert reason(both) == 'unreadable'
    # A pause of less than ten seconds is the file's to have.
    pause = media.read_media(make_file(tmp_path / 'c.mkv', [t + 5 * (t >= 1) for t in CFR], audio_seconds=7.0), KEEP_ALL)
    assert len(pause.frames) == pytest.approx(175, abs=1)
    once = make_file(tmp_path / 'd.ts', audio='mp2')
    twice = tmp_path / 'e.ts'
    with open(once, 'rb') as source:
        twice.write_bytes(source.read() * 2)
    assert reason(twice) == 'unreadable'
    assert time.perf_counter() - begin < 20


def test_small_and_strange_files(tmp_path):
    def write(name, data):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    assert reason(tmp_path / 'none.mp4') == 'missing' and reason(tmp_path) == 'missing'
    for name, data in {
        'empty.mp4': b'', 'noise.mp4': random.Random(1).randbytes(20000), 'zeros.mp4': bytes(20000), 'text.mp4': b'hello\n' * 9,
        # Nothing is fetched from an address that a file names.
        'list.mp4': b'#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://192.0.2.1/a.ts\n#EXT-X-ENDLIST\n',
    }.items():
        assert reason(write(name, data)) == 'unreadable'
    one = media.read_media(make_file(tmp_path / 'one.mkv', CFR[:1]), KEEP_ALL)
    assert len(one.frames) == 1 and one.motion == 0 and one.source_fps == 0 and len(one.waveform) == 640
    # A name that looks like an address is a name.
    with open(make_file(tmp_path / 'a.mp4', CFR[:5]), 'rb') as source:
        odd = write('concat:a b:c.mp4', source.read())
    with contextlib.chdir(tmp_path):
        assert len(media.read_media(odd.name, KEEP_ALL).frames) == 5


def test_what_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / 'fifo.mp4')
    os.symlink('loop.mp4', tmp_path / 'loop.mp4')
    os.symlink('nowhere.mp4', tmp_path / 'dangling.mp4')
    for path, words in {
        tmp_path / 'fifo.mp4': 'FIFO', '/dev/null': 'device', tmp_path: 'folder', tmp_path / 'loop.mp4': 'leads back to itself',
        tmp_path / 'dangling.mp4': 'a link to a file that is not there', tmp_path / 'none.mp4': 'no such file',
        tmp_path / ('a' * 300 + '.mp4'): 'too long', f'{tmp_path}/a\0b.mp4': 'NUL',
    }.items():
        for decode in (lambda path: media.read_media(path, KEEP_ALL), lambda path: next(media.audio_blocks(path, 16000))):
            with pytest.raises(media.Unsuitable, match=f'missing: .*{words}'):
                decode(str(path))


def test_lists_of_other_files_are_refused(tmp_path):
    good = make_file(tmp_path / 'good.ts', CFR[:10], audio='mp2', audio_seconds=0.4)
    assert media.read_media(good, KEEP_ALL).frames
    for name, text in {
        'concat.mp4': 'ffconcat version 1.0\nfile good.ts\n',
        'playlist.m3u8': '#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\ngood.ts\n#EXT-X-ENDLIST\n',
        'session.sdp': 'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 5000 RTP/AVP 0\n',
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(media.Unsuitable, match='unreadable: it is a list that names other files'):
            media.read_media(str(tmp_path / name), KEEP_ALL)
    # A pattern that names pictures.
    for name in ('p1.png', 'p%d.png'):
        Image.new('RGB', (16, 16)).save(tmp_path / name)
    assert reason(tmp_path / 'p%d.png') in ('unreadable', 'no_audio')
    formats = own_formats().split(',')
    assert {'mp4', 'avi', 'matroska', 'mpegts', 'ogg', 'wav', 'asf', 'flv'} <= set(formats)
    assert not {'concat', 'hls', 'image2', 'lavfi', 'rtsp', 'sdp', 'dash'} & set(formats)


def test_many_tiny_frames(tmp_path):
    path = make_file(
        tmp_path / 'a.mkv', [i / 1000 for i in range(3000)], lambda _: np.zeros((16, 16, 3), np.uint8), audio_seconds=3.0,
    )
    result = media.read_media(path, KEEP_ALL)
    assert len(result.frames) == 75 and result.source_fps == pytest.approx(1000)


def test_damaged_files_are_named_and_nothing_hangs(tmp_path):
    draw = random.Random(0)
    tasks, whole = [], {}
    for name, options in {'a.mp4': {'audio': 'aac'}, 'a.mkv': {'audio': 'flac'}, 'a.ts': {'audio': 'mp2'}}.items():
        path = make_file(tmp_path / name, video='libx264', b_frames=2, **options)
        whole[name] = len(media.read_media(path, KEEP_ALL).frames)
        with open(path, 'rb') as source:
            data = source.read()
        for i in range(14):
            damaged = bytearray(data)
            if i < 4:
                del damaged[int(len(damaged) * draw.random()):]  # cut off
            elif i < 8:
                for _ in range(10**(i - 4)):
                    damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
            elif i < 11:
                start = draw.randrange(len(damaged))
                damaged[start:start + 3000] = bytes(3000)
            else:
                for _ in range(20):  # in the headers, which stand at the beginning or at the end
                    damaged[draw.choice((1, -1)) * draw.randrange(1, 1500)] = draw.randrange(256)
            path = tmp_path / f'{i}-{name}'
            path.write_bytes(bytes(damaged))
            tasks.append((str(path), KEEP_ALL))
    begin = time.perf_counter()
    outcomes = list(workers.run_in_order(media.try_media, tasks, 2, 20.0))
    assert time.perf_counter() - begin < 40
    for (path, _), (result, failure) in zip(tasks, outcomes, strict=True):
        if isinstance(result, media.Media):
            assert 0 < len(result.frames) <= 2 * whole[path.rsplit('-')[-1]]
            assert len(result.waveform) == round(len(result.frames) / 25 * 16000)
        else:
            assert (failure or result)[0] in media.REASONS
    made = sum(isinstance(result, media.Media) for result, _ in outcomes)
    assert 5 < made < len(tasks) - 5


def test_blocks_are_the_whole(tmp_path):
    path = make_file(tmp_path / 'a.mp4', VFR, audio_start=0.2, audio_seconds=1.5)
    sound = np.concatenate(list(media.audio_blocks(path, 16000)))
    np.testing.assert_array_equal(sound, media.read_media(path, KEEP_ALL._replace(audio_only=True)).waveform)
    frames = [frame for block in media.video_blocks(path, 25, 0) for frame in block]
    assert len(frames) == math.floor((VFR[-1] + 0.0405) * 25 + 1e-6) and frames[0].dtype == np.uint8
    nominal = np.arange(len(frames)) / 25
    nearest = np.abs(np.array(VFR)[:, None] - nominal).min(0)
    np.testing.assert_allclose(np.abs([read_picture(frame) for frame in frames] - nominal), nearest, atol=TICK_SECONDS)
    with pytest.raises(media.Unsuitable, match='missing'):
        next(media.audio_blocks(str(tmp_path / 'none'), 16000))
    with pytest.raises(media.Unsuitable, match='no_video'):
        next(media.video_blocks(make_file(tmp_path / 'a.wav', video=None, audio='pcm_s16le'), 25, 0))


def test_long_sound_comes_in_blocks(tmp_path):
    # Longer than a run's settling, with a gap; each block is small and together they are exact.
    path = make_file(
        tmp_path / 'a.mkv', video=None, audio='pcm_s16le', rate=8000, audio_seconds=47.0, hole=(20.0, 26.0),
        sound=lambda t: 0.4 * np.sin(2 * np.pi * 200 * t),
    )
    blocks = list(media.audio_blocks(path, 16000))
    assert len(blocks) > 3 and max(map(len, blocks)) <= 11 * 16000
    sound = np.concatenate(blocks) / 32768
    assert len(sound) == pytest.approx(47 * 16000, abs=2100)
    times = np.arange(len(sound)) / 16000
    heard = (times > 0.01) & ((times < 19.9) | (times > 26.2))
    np.testing.assert_allclose(sound[heard], 0.4 * np.sin(2 * np.pi * 200 * times[heard]), atol=0.01)
    assert not sound[(times > 20.2) & (times < 25.9)].any()


@pytest.mark.skipif(not os.environ.get('AVTS_DATA'), reason='AVTS_DATA names no folder with the awkward files')
def test_awkward_files():
    folder = os.path.join(os.environ['AVTS_DATA'], 'awkward')
    names = sorted(os.listdir(folder))
    found = {}
    for audio_only in (False, True):
        tasks = [(os.path.join(folder, name), KEEP_ALL._replace(audio_only=audio_only)) for name in names]
        for name, (result, failure) in zip(names, workers.run_in_order(media.try_media, tasks, 2, 60.0), strict=True):
            found[name, audio_only] = result if isinstance(result, media.Media) else (failure or result)[0]
    reasons = {name: found[name, False] for name in names if isinstance(found[name, False], str)}
    assert reasons == {
        'corrupted.mp4': 'no_audio', 'sample_audio_only.mp4': 'no_video', 'sample_dts_hd_ma.mp4': 'no_video',
        'v_BenchPress_g01_c01.avi': 'no_audio', 'var_fps_video.mp4': 'no_audio', 'video_90.mov': 'no_audio',
    }
    assert found['sample_dts_hd_ma.mp4', True] == 'crashed' or len(found['sample_dts_hd_ma.mp4', True].waveform) > 16000
    assert len(found['sample_audio_only.mp4', True].waveform) == pytest.approx(16347, abs=2)  # 45 frames, less the run-in
    assert len(found['rv30.mp4', False].frames) == 90  # it claims 1,350 s; its audio's times fall behind its samples
    assert found['nasa_13013.mp4', False].note.startswith('video stream 0 taken: the first of 2')
    # 164 frames: not one is lost to the times that libavformat guesses.
    assert len(found['v_ApplyEyeMakeup_g01_c01.avi', False].frames) >= 163
