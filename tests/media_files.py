"""Video files whose video and audio show the time of the file, and ways to spoil them."""

import fractions
import io
import os

import av
import numpy as np
import pytest
from PIL import Image

from avts_tf.data import media

SECONDS = 2.0
BARS = 10  # a frame shows its time in bars, black or white: a binary number of ticks
TICK_SECONDS = 0.005
CFR = [i / 25 for i in range(50)]  # constant frame rate
VFR = list(np.cumsum([0.0, *np.tile([0.02, 0.08, 0.03, 0.05, 0.02], 9)]))  # 50 to 12.5 a second
KEEP_ALL = media.MediaOptions(silent_below_db=None, still_below=None)
DATA = os.environ.get('AVTS_DATA')
needs_data = pytest.mark.skipif(not DATA, reason='AVTS_DATA names no folder with real files')

# How times of packets may be off without a gap: seconds, of the number of the packet.
JITTERS = {
    'none': lambda i: 0.0,
    'rounded down in each block of eight': lambda i: -0.0007 * (i % 8),
    'blocks of five late': lambda i: 0.009 * (i // 5 % 2),
    'noise': lambda i: np.random.default_rng(i).uniform(-0.007, 0.007),
}


def slow_but(default, cases):
    """Cases for parametrize: those that `default` names by their place, the others marked slow."""
    marked = []
    for place, case in enumerate(cases):
        values = case if isinstance(case, tuple) else (case,)
        marks = () if place in default else (pytest.mark.slow,)
        marked.append(pytest.param(*values, marks=marks))
    return marked


def chirp(seconds):
    """A tone whose pitch shows the time: 400 Hz at time 0, 800 Hz more each second."""
    return 0.5 * np.sin(2 * np.pi * (400 * seconds + 400 * seconds**2))


def time_frame(seconds):
    """A frame that shows a time, uint8 [64, 160, 3]."""
    ticks = round(seconds / TICK_SECONDS)
    bits = [255 if ticks >> bar & 1 else 0 for bar in range(BARS)]
    row = np.repeat(np.array(bits, np.uint8), 16)
    return np.repeat(np.broadcast_to(row, (64, 160))[..., None], 3, -1).copy()


def shown_seconds(image):
    """The time that a frame shows, in seconds: JPEG bytes or uint8 [H, W, 3]."""
    if isinstance(image, bytes):
        image = np.asarray(Image.open(io.BytesIO(image)).convert('L'))
    else:
        image = image[..., 0]
    height, width = image.shape
    bars = image[height // 4:-height // 4].reshape(-1, BARS, width // BARS)
    means = bars[:, :, width // BARS // 4:-width // BARS // 4].mean((0, 2))
    return sum(int(mean > 127) << bar for bar, mean in enumerate(means)) * TICK_SECONDS


def half_lit(seconds):
    """A frame that is white above and black below, uint8 [48, 80, 3]."""
    rows = np.repeat(np.array([255, 0], np.uint8), 24)
    return rows[:, None, None] * np.ones((1, 80, 3), np.uint8)


def read_pixels(jpeg):
    """int [H, W, 3] of JPEG bytes."""
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert('RGB')).astype(int)


def make_file(
    path, frame_seconds=tuple(CFR), draw=time_frame, wave=chirp, audio_start=0.0,
    audio_seconds=SECONDS, video='mpeg4', audio='aac', rate=44100, hole=None, aspect=None,
    sample_format='s16', layout='mono', pixel_format='yuv420p', b_frames=0, group=12, options=None,
):
    """Writes a file: frames at the given times, audio from `audio_start` on, both of its times.

    `hole` is (start, end) in seconds of a stretch without audio packets. `draw` gives a frame,
    uint8 [H, W, 3], and `wave` samples, [n] or [channels, n] in [-1, 1], of times in seconds.
    """
    with av.open(str(path), 'w') as container:
        video_stream = None
        if video:
            video_stream = container.add_stream(video, rate=25, options=options or {})
            video_stream.height, video_stream.width = draw(0.0).shape[:2]
            video_stream.pix_fmt, video_stream.bit_rate = pixel_format, 4_000_000
            codec = video_stream.codec_context
            codec.max_b_frames, codec.gop_size = b_frames, group
            # mpeg4 with B-frames needs a constant rate
            tick = fractions.Fraction(1, 25 if b_frames else 1000)
            codec.time_base = video_stream.time_base = tick
            if aspect:
                codec.sample_aspect_ratio = aspect
        audio_stream = container.add_stream(audio, rate=rate, layout=layout) if audio else None
        for seconds in frame_seconds if video else ():
            frame = av.VideoFrame.from_ndarray(draw(seconds), 'rgb24')
            frame.pts, frame.time_base = round(seconds / codec.time_base), codec.time_base
            container.mux(video_stream.encode(frame))
        if video:
            container.mux(video_stream.encode(None))
        if audio_stream:
            size = 960 if rate == 48000 else 1024
            end = round((audio_start + audio_seconds) * rate)
            for start in range(round(audio_start * rate), end, size):
                if hole and hole[0] <= start / rate < hole[1]:
                    continue
                samples = np.atleast_2d(wave((start + np.arange(size)) / rate))
                frame = audio_frame(samples, sample_format, layout, rate, start)
                container.mux(audio_stream.encode(frame))
            container.mux(audio_stream.encode(None))
    return str(path)


def audio_frame(samples, sample_format, layout, rate, pts):
    """An `av.AudioFrame` of float samples [channels, n] in [-1, 1], in a packed format."""
    kind = {'u8': np.uint8, 's16': np.int16, 's32': np.int32, 'flt': np.float32,
            'dbl': np.float64}[sample_format]
    if kind in (np.float32, np.float64):
        samples = samples.astype(kind)
    else:
        full = 2.0 ** (8 * np.dtype(kind).itemsize - 1)
        samples = np.clip(np.round(samples * full), -full, full - 1)
        samples = (samples + (full if kind is np.uint8 else 0)).astype(kind)
    packed = np.ascontiguousarray(samples.T.reshape(1, -1))
    frame = av.AudioFrame.from_ndarray(packed, sample_format, layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, pts, fractions.Fraction(1, rate)
    return frame


def audio_offset_ms(waveform, start_seconds, sample_rate=16000, part=slice(None), steps=2):
    """How much later the audio is than the time of the file says, by correlation with the chirp."""
    times = start_seconds + np.arange(len(waveform)) / sample_rate
    audio = (waveform / 32768)[part]
    offsets = np.arange(-40 * steps, 40 * steps + 1) / (steps * sample_rate)
    scores = [(audio * chirp(times[part] - offset)).sum() for offset in offsets]
    assert max(scores) > 0.8 * (audio**2).sum()  # it is the chirp
    return 1000 * offsets[int(np.argmax(scores))]


def _copy(source, target, change):
    """Copies a file; `change(packet)` returns the packet to write, or None to leave it out."""
    with av.open(str(source)) as given, av.open(str(target), 'w') as container:
        streams = {stream.index: container.add_stream_from_template(stream)
                   for stream in given.streams}
        for packet in given.demux():
            if packet.dts is None:
                continue
            index = packet.stream.index
            packet = change(packet)
            if packet is not None:
                packet.stream = streams[index]
                container.mux(packet)
    return str(target)


def retime(source, target, change):
    """Copies a file with other times of its audio packets.

    `change(number, seconds)` gives a packet's new time, or None to leave the packet out.
    """
    number = -1

    def changed(packet):
        nonlocal number
        if packet.stream.type == 'audio':
            number += 1
            seconds = change(number, packet.pts * float(packet.time_base))
            if seconds is None:
                return None
            packet.pts = packet.dts = round(seconds / packet.time_base)
        return packet

    return _copy(source, target, changed)


def remux(source, target, change):
    """Copies a file; `change(packet)` returns the packet's new bytes, or None where it stays."""
    def changed(packet):
        data = change(packet)
        if data is None:
            return packet
        new = av.Packet(data)
        new.pts, new.dts = packet.pts, packet.dts
        new.time_base, new.duration = packet.time_base, packet.duration
        return new

    return _copy(source, target, changed)


def without_video(source, target):
    """Copies a file's audio to a Matroska file."""
    with av.open(str(source)) as given, av.open(str(target), 'w', format='matroska') as container:
        stream = container.add_stream_from_template(given.streams.audio[0])
        for packet in given.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return str(target)


def plain_decode(path, rate=16000):
    """The audio as libavcodec decodes it, packet after packet, whatever their times: int16 [n]."""
    resampler, pieces = av.AudioResampler('s16', 'mono', rate), []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            frame.pts = None
            pieces += resampler.resample(frame)
    pieces += resampler.resample(None)
    return np.concatenate([piece.to_ndarray().reshape(-1) for piece in pieces])


def set_display_matrix(path, a, b, c, d):
    """Sets how the video of an MP4 file is turned and mirrored."""
    with open(path, 'r+b') as file:
        data = file.read()
        file.seek(data.index(b'tkhd') + 4 + 40)  # of the first track, the video
        matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
        file.write(np.array(matrix, '>i4').tobytes())


def reason(path, **options):
    """Why a file is unsuitable."""
    with pytest.raises(media.Unsuitable) as caught:
        media.read_media(str(path), KEEP_ALL._replace(**options))
    error = caught.value
    assert error.reason in media.REASONS and '\n' not in error.detail and error.detail
    return error.reason
