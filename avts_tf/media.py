"""Decodes one video file into frames and sound on one time axis. Imports no TensorFlow, so that workers start fast.

The rule of alignment. All times are presentation times of the file, in seconds, as the container and its edit lists give them.

*   Both streams must exist on all of the result: time 0 is the later one of the first frame's time and the first audio
    sample's time. The end is the earlier one of both ends; the video ends when its last frame's duration is over (or the
    median frame interval, where the file states none). The duration is then cut to whole frames of the output.
*   Output frame i is the input frame whose time is nearest to time 0 + i / fps, the earlier one of two equally near: it is off
    by at most half of the interval between the two input frames around that time.
*   Output sample n sounds at time 0 + n / sample_rate, to the nearest sample. Gaps in the audio's times are filled with
    silence, overlaps are cut from the later part. There are round(frames / fps * sample_rate) samples.
"""

import contextlib
import io
import os
import statistics
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation
from PIL import Image

# Why a file is left out. The first five come from here, the last two from the workers.
REASONS = ('missing', 'unreadable', 'no_video', 'no_audio', 'too_short', 'timeout', 'crashed')

# Containers round times to ticks, of 1 ms at worst, so smaller steps between audio frames are no gaps.
_LEAST_GAP_SECONDS = 0.002
_GREATEST_GAP_SECONDS = 600.0  # beyond that the times are broken, and silence would fill the memory
_MAX_DAMAGED = 0.05  # part of a stream's packets that may fail to decode
_SAME_TIME_SECONDS = 1e-6
_FILTER = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class Media(NamedTuple):
    """Frames and sound of a file from the same time 0, of the same duration.

    Attributes:
        frames: list of JPEG bytes, upright, all of the same size, with square pixels.
        height: pixels.
        width: pixels.
        waveform: int16 [samples], mono.
        start_seconds: presentation time in the file of frame 0 and sample 0.
    """

    frames: list
    height: int
    width: int
    waveform: np.ndarray
    start_seconds: float


class MediaOptions(NamedTuple):
    """What `read_media` makes of a file.

    Attributes:
        fps: frames per second.
        short_side: pixels of the shorter side; 0 keeps the size, and nothing is ever enlarged.
        sample_rate: Hz.
        max_seconds: longest duration; 0 is no limit.
        jpeg_quality: 1 to 100.
    """

    fps: float = 25.0
    short_side: int = 128
    sample_rate: int = 16000
    max_seconds: float = 0.0
    jpeg_quality: int = 90


class Unsuitable(Exception):
    """A file that no record can be made of.

    Attributes:
        reason: one of `REASONS`.
        detail: what was found, for people.
    """

    def __init__(self, reason, detail):
        super().__init__(f'{reason}: {detail}')
        self.reason, self.detail = reason, detail


def try_media(task):
    """`read_media` for a worker: takes (path, options), returns a `Media` or, where it is unsuitable, (reason, detail)."""
    try:
        return read_media(*task)
    except Unsuitable as error:
        return error.reason, error.detail


def read_media(path, options):
    """Decodes a video file by the rule at the head of this file.

    Args:
        path: video file.
        options: a `MediaOptions`.

    Returns:
        A `Media`.

    Raises:
        Unsuitable: the file is missing, cannot be decoded, lacks a stream, or both streams have no whole frame in common.
    """
    if not os.path.isfile(path):
        raise Unsuitable('missing', 'there is no such file')
    try:
        # Time 0 is not known before both streams are open; the limit counts from the later one's start.
        stop_seconds = _first_frame_seconds(path) + options.max_seconds if options.max_seconds else 0.0
        audio_start, waveform = _read_audio(path, options.sample_rate, stop_seconds, options.max_seconds or float('inf'))
        start, frames, (height, width) = _read_video(path, audio_start, len(waveform) / options.sample_rate, options)
    except (av.FFmpegError, OSError) as error:
        raise Unsuitable('unreadable', ' '.join(f'{type(error).__name__}: {error}'.split())) from error
    if not frames:
        raise Unsuitable('too_short', f'picture and sound have less than one frame of {1 / options.fps:g} s in common')
    count = round(len(frames) / options.fps * options.sample_rate)
    first = round((start - audio_start) * options.sample_rate)
    waveform = waveform[first:first + count]
    # The end of a stream is known to a tick or a sample: at most that much is missing.
    waveform = np.pad(waveform, (0, count - len(waveform)))
    return Media(frames, height, width, waveform, start)


@contextlib.contextmanager
def _open(path, kind):
    """Opens a file and yields the one stream of a kind that the file marks as its main one, or the largest."""
    with av.open(path, metadata_errors='ignore') as container:
        video = container.streams.best('video')
        if video is not None and video.disposition & av.stream.Disposition.attached_pic:
            video = None  # a cover picture in a sound file
        if video is None:
            raise Unsuitable('no_video', 'the file has no video stream')
        stream = video if kind == 'video' else container.streams.best('audio', related=video)
        if stream is None:
            raise Unsuitable('no_audio', 'the file has no audio stream')
        if stream.codec_context is None:
            raise Unsuitable('unreadable', f'there is no decoder for the {kind} stream')
        stream.codec_context.thread_count = 1  # the workers share the processors already
        yield container, stream


def _decode(container, stream):
    """The frames of a stream, in the order of their presentation. A few damaged packets are passed over."""
    packets = damaged = frames = 0
    error = None
    for packet in container.demux(stream):
        packets += 1
        try:
            decoded = packet.decode()
        except av.FFmpegError as caught:
            damaged, error = damaged + 1, caught
            continue
        frames += len(decoded)
        yield from decoded
    if damaged > _MAX_DAMAGED * packets:
        raise Unsuitable('unreadable', f'{damaged} of {packets} {stream.type} packets are damaged: {error}')
    if not frames:
        raise Unsuitable(f'no_{stream.type}', f'the {stream.type} stream is empty')


def _first_frame_seconds(path):
    with _open(path, 'video') as (container, stream):
        return next(seconds for seconds, _ in _timed_frames(container, stream))


def _read_audio(path, sample_rate, stop_seconds, max_seconds):
    """Reads the sound as one stretch of samples from its first sample's time on.

    Args:
        path: video file.
        sample_rate: Hz of the result.
        stop_seconds: time that has to be reached, and
        max_seconds: time that has to be reached, from the first sample on; what comes after both is not read.

    Returns:
        Time of the first sample, and int16 [samples].
    """
    start, end, length, pieces = None, None, 0, []
    with _open(path, 'audio') as (container, stream):
        frames = _until(_decode(container, stream), stop_seconds, max_seconds)
        for run_start, run_end, samples in _audio_runs(frames, sample_rate):
            if start is None:
                start = end = run_start
            if run_start - end > _GREATEST_GAP_SECONDS:
                raise Unsuitable('unreadable', f'the audio times jump from {end:.3f} s to {run_start:.3f} s')
            offset, end = round((run_start - start) * sample_rate), max(end, run_end)
            pieces.append(np.zeros(max(offset - length, 0), np.int16))  # a gap
            pieces.append(samples[max(length - offset, 0):])  # less an overlap
            length += len(pieces[-2]) + len(pieces[-1])
    return start, np.concatenate(pieces)[:round((end - start) * sample_rate)]


def _until(frames, stop_seconds, max_seconds):
    """Frames up to the later one of `stop_seconds` and `max_seconds` after the first one."""
    for frame in frames:
        if frame.pts is not None:
            stop_seconds = max(stop_seconds, frame.time + max_seconds)
            max_seconds = -float('inf')  # the first frame has been seen
            if frame.time > stop_seconds:
                return
        yield frame


def _audio_runs(frames, sample_rate):
    """Runs of audio frames without a gap between them.

    A run's time is the mean of what its frames say of it: where a container rounds times to milliseconds, that is exact to
    much less than one.

    Yields:
        start_seconds, end_seconds, int16 [samples] at `sample_rate`, mono.
    """
    setup = resampler = None
    resampled, errors = [], []
    start, count, end = 0.0, 0, 0.0  # count: samples of the run at the rate of the file
    for frame in frames:
        tick, rate = float(frame.time_base), frame.sample_rate
        expected = start + count / rate
        seconds = expected if frame.pts is None else frame.time
        frame_setup = frame.format.name, frame.layout.name, rate
        if frame_setup != setup or abs(seconds - expected) >= max(tick, _LEAST_GAP_SECONDS):
            if resampler:
                yield _run(resampler, resampled, errors, start, end)
            setup, resampler = frame_setup, av.AudioResampler('s16', 'mono', sample_rate)
            resampled, errors = [], []
            start, count, expected = seconds, 0, seconds
        errors.append(seconds - expected)
        # Where ticks are samples, a shorter duration tells how much of the last frame is sound, not the coder's padding.
        sounding = frame.samples
        if frame.duration and frame.time_base * rate == 1:
            sounding = min(sounding, frame.duration)
        end = start + (count + sounding) / rate
        count += frame.samples
        frame.pts = None  # the resampler is to count samples
        resampled += resampler.resample(frame)
    yield _run(resampler, resampled, errors, start, end)


def _run(resampler, resampled, errors, start, end):
    resampled = resampled + resampler.resample(None)
    error = statistics.fmean(errors)
    return start + error, end + error, np.concatenate([frame.to_ndarray().reshape(-1) for frame in resampled])


def _timed_frames(container, stream):
    """(presentation time in seconds, frame), times strictly ascending."""
    last = None
    interval = 1 / float(stream.average_rate) if stream.average_rate else 0.04
    for frame in _decode(container, stream):
        seconds = frame.pts * float(frame.time_base) if frame.pts is not None else None
        if seconds is None:
            seconds = 0.0 if last is None else last + interval
        if last is None or seconds > last:
            last = seconds
            yield seconds, frame


def _read_video(path, audio_start, audio_seconds, options):
    """Reads the frames that the output shows.

    Returns:
        Time 0 in the file, list of JPEG bytes, and (height, width).
    """
    frames, intervals = [], []
    with _open(path, 'video') as (container, stream):
        previous = previous_seconds = jpeg = size = None
        limit = float('inf')
        slack = min(0.001, float(stream.time_base))
        aspect = float(stream.sample_aspect_ratio or 1)

        def show_until(seconds):
            """Takes the previous frame for all output frames up to a time."""
            nonlocal jpeg
            while len(frames) < limit and start + len(frames) / options.fps <= seconds + _SAME_TIME_SECONDS:
                jpeg = jpeg or _jpeg(previous, *size, options.jpeg_quality)
                frames.append(jpeg)

        for seconds, frame in _timed_frames(container, stream):
            if previous is None:
                start = max(seconds, audio_start)
                size = _display_size(frame, aspect, options.short_side)
                common = audio_start + audio_seconds - start
                if options.max_seconds:
                    common = min(common, options.max_seconds)
                limit = _whole_frames(common, options.fps, slack)
            else:
                intervals.append(seconds - previous_seconds)
                show_until((previous_seconds + seconds) / 2)
            if len(frames) >= limit:
                break
            previous, previous_seconds, jpeg = frame, seconds, None
        else:
            length = previous.duration * float(previous.time_base) if previous.duration else 0.0
            if not length:
                length = statistics.median(intervals) if intervals else 1 / options.fps
            end = previous_seconds + length
            show_until(end)
            del frames[_whole_frames(end - start, options.fps, slack):]
    height, width = size[::-1]
    if _turned(previous or frame):
        height, width = width, height
    return start, frames, (height, width)


def _whole_frames(seconds, fps, slack):
    """Number of output frames in a time; `slack` forgives what rounding to ticks took from it."""
    return max(0, int((seconds + slack) * fps))


def _display_size(frame, aspect, short_side):
    """Width and height to scale a frame to, before it is turned upright: square pixels, never enlarged."""
    if not 0.1 <= aspect <= 10:
        aspect = 1.0  # no camera's pixels: a damaged header
    width, height = frame.width * aspect, float(frame.height)
    scale = min(1.0, short_side / min(width, height)) if short_side else 1.0
    return max(1, round(width * scale)), max(1, round(height * scale))


def _display_matrix(frame):
    """How the file says that a frame is to be shown: (a, b, c, d) with x' = a x + c y and y' = b x + d y, y downwards."""
    data = frame.side_data.get('DISPLAYMATRIX')
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
    return a, b, c, d


def _turned(frame):
    """Whether rows of a frame become columns when it is shown."""
    a, b, c, d = _display_matrix(frame)
    return abs(b) + abs(c) > abs(a) + abs(d)


def _upright(image, frame):
    """Turns and mirrors an image [H, W, 3] as its frame's display matrix says, to a multiple of 90 degrees."""
    x_sign, b, c, y_sign = _display_matrix(frame)
    if _turned(frame):
        image, x_sign, y_sign = image.transpose(1, 0, 2), c, b
    if x_sign < 0:
        image = image[:, ::-1]
    if y_sign < 0:
        image = image[::-1]
    return image


def _jpeg(frame, width, height, quality):
    image = frame.reformat(width, height, 'rgb24', interpolation=_FILTER, threads=1).to_ndarray()
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(_upright(image, frame))).save(buffer, 'JPEG', quality=quality)
    return buffer.getvalue()
