"""The video of a file on the exact time grid: upright, with square pixels, as JPEG or RGB."""

import collections
import io
import math
import os
import statistics
from collections.abc import Iterator
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from PIL import Image

from avts_tf.data.media.container import Unsuitable
from avts_tf.data.media.streams import GREATEST_GAP_SECONDS, Stream, too_long
from avts_tf.data.media.types import MediaOptions

_SAME_TIME_SECONDS = 1e-6
_INTERVALS = 1000  # of the last frames, whose median is the frame interval
_MAX_JPEG_BYTES = 2**30  # a record cannot hold 2 GiB
_PIXEL_FORMATS = {'RGB': 'rgb24', 'YCbCr': 'yuvj444p'}
_THUMBNAIL = 16  # most pixels of the longer side of the thumbnail that motion is measured on
_MOTION_SECONDS = 0.2
_FILTER = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class Video(NamedTuple):
    """The video of a file.

    Attributes:
        frames: list of JPEG bytes, in steps of 1 / fps.
        frame_seconds: time in the file of the frame that each step shows.
        height: pixels.
        width: pixels.
        start_seconds: time in the file of the first step.
        motion: see `Media`.
        source_fps: see `Media`.
    """

    frames: list[bytes]
    frame_seconds: list[float]
    height: int
    width: int
    start_seconds: float
    motion: float | None
    source_fps: float


def read_video(
    path: str | os.PathLike, index: int, begin: float, end: float, options: MediaOptions,
) -> Video:
    """Reads the frames that the output shows between two times.

    Args:
        path: the file.
        index: of the video stream.
        begin: seconds.
        end: seconds.
        options: a `MediaOptions`, for rate, size and quality.

    Returns:
        `Video`.

    Raises:
        Unsuitable: the stream cannot be decoded, or is longer or larger than a record may be.
    """
    stream = Stream(path, index, options.max_pixels)
    frames, frame_seconds, thumbnails, shown, jpeg_bytes = [], [], [], None, 0
    for seconds, frame in frames_on_grid(stream, begin, end, options.fps):
        if frame is not shown:
            # In JPEG's own colours, so that no conversion is left to do.
            image = upright(frame, display_size(stream, options.short_side), 'YCbCr')
            shown, jpeg = frame, _jpeg(image, options.jpeg_quality)
            thumbnail = _thumbnail(image)
        frames.append(jpeg)
        frame_seconds.append(seconds)
        thumbnails.append(thumbnail)
        jpeg_bytes += len(jpeg)
        if options.max_seconds and len(frames) > options.max_seconds * options.fps:
            raise too_long(options.max_seconds)
        if jpeg_bytes > _MAX_JPEG_BYTES:
            raise Unsuitable(
                'too_large', f'its frames take more than {_MAX_JPEG_BYTES // 2**20} MiB; make them '
                'smaller or fewer')
    stream.judge()
    if not frames:
        return Video([], [], 0, 0, begin, 0.0, 0.0)
    lag = max(1, min(round(_MOTION_SECONDS * options.fps), len(frames) - 1))
    differences = [np.abs(after - before).mean()
                   for before, after in zip(thumbnails, thumbnails[lag:], strict=False)]
    motion = float(np.mean(differences)) if differences else 0.0
    assert stream.first_seconds is not None  # there are frames
    return Video(frames, frame_seconds, image.height, image.width,
                 max(begin, stream.first_seconds), motion, stream.fps)


def frames_on_grid(
    stream: Stream, begin: float, end: float, fps: float, hold: bool = False,
) -> Iterator[tuple[float, av.VideoFrame]]:
    """The frame of a stream that each output frame shows.

    Args:
        stream: of video.
        begin: seconds; output frames begin at the later one of this and the first frame.
        end: seconds; they go on until here.
        fps: output frames per second.
        hold: whether they begin at `begin` also where the first frame comes later, and show that.

    Yields:
        (time in seconds, frame); the same frame again where several output frames show it.

    Raises:
        Unsuitable: the times jump ahead by more than ten seconds.
    """
    previous: av.VideoFrame | None = None
    previous_seconds = 0.0
    # Frames whose place in the output is settled, but not yet that the video lasts so long; and the
    # number of those given.
    chosen: list[tuple[float, av.VideoFrame]] = []
    shown = 0
    intervals: collections.deque[float] = collections.deque(maxlen=_INTERVALS)

    def choose(until_seconds: float) -> None:
        # The previous frame is the nearest one for all output frames up to a time.
        until_seconds += _SAME_TIME_SECONDS
        while (place := shown + len(chosen)) < limit and start + place / fps <= until_seconds:
            chosen.append((previous_seconds, previous))

    def lasting(seconds: float) -> list[tuple[float, av.VideoFrame]]:
        # The chosen frames that the video surely lasts for if it lasts until a time.
        return chosen[:max(0, _whole_frames(seconds - start, fps, stream.slack) - shown)]

    for seconds, frame in stream.video_frames(begin):
        if previous is None:
            start = begin if hold else max(begin, seconds)
            limit = math.inf
            if end < math.inf:
                limit = _whole_frames(end - start, fps, stream.slack)
        else:
            gap = seconds - previous_seconds
            if gap > GREATEST_GAP_SECONDS and seconds > start:
                raise Unsuitable('unreadable', 'the video times jump from '
                                 f'{previous_seconds:.3f} s to {seconds:.3f} s')
            intervals.append(gap)
            choose(previous_seconds + gap / 2)
            sure = lasting(seconds)
            yield from sure
            shown += len(sure)
            del chosen[:len(sure)]
        if shown >= limit:
            return
        previous, previous_seconds = frame, seconds
    assert previous is not None  # a stream without frames is `Unsuitable`
    length = previous.duration * float(previous.time_base) if previous.duration else 0.0
    if not 0 < length <= GREATEST_GAP_SECONDS:
        length = statistics.median(intervals) if intervals else 1 / fps
    choose(previous_seconds + length)
    yield from lasting(previous_seconds + length)


def _whole_frames(seconds: float, fps: float, slack: float) -> int:
    """Number of output frames in a time; `slack` forgives what rounding to ticks took from it."""
    return max(0, math.floor((seconds + slack) * fps))


def display_size(stream: Stream, short_side: int) -> tuple[int, int]:
    """Width and height to scale frames to, before they are turned upright.

    Args:
        stream: of video, whose first frame was decoded.
        short_side: pixels of the shorter side; 0 keeps the size, and nothing is enlarged.

    Returns:
        (width, height) with square pixels.
    """
    # Beyond that they are no camera's pixels, but a damaged header.
    aspect = stream.aspect if 0.1 <= stream.aspect <= 10 else 1.0
    assert stream.first_size is not None
    width, height = stream.first_size[0] * aspect, float(stream.first_size[1])
    scale = min(1.0, short_side / min(width, height)) if short_side else 1.0
    return max(1, round(width * scale)), max(1, round(height * scale))


def upright(frame: av.VideoFrame, size: tuple[int, int], mode: str) -> Image.Image:
    """A frame scaled, then turned and mirrored as its display matrix says.

    Args:
        frame: the frame.
        size: (width, height) to scale it to.
        mode: 'RGB' or 'YCbCr', of the image.
    """
    scaled = frame.reformat(
        *size, _PIXEL_FORMATS[mode], dst_colorspace=Colorspace.ITU601,
        dst_color_range=ColorRange.JPEG, interpolation=_FILTER, threads=1)
    if len(scaled.planes) == 3:
        image = Image.merge(mode, [
            Image.frombuffer('L', size, plane, 'raw', 'L', plane.line_size, 1)
            for plane in scaled.planes
        ])
    else:
        plane = scaled.planes[0]
        image = Image.frombuffer(mode, size, plane, 'raw', mode, plane.line_size, 1)
    data = frame.side_data.get('DISPLAYMATRIX')
    if data is not None:
        # x' = a x + c y and y' = b x + d y, with y downwards.
        a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
        if abs(b) + abs(c) > abs(a) + abs(d):
            image, a, d = image.transpose(Image.Transpose.TRANSPOSE), c, b
        if a < 0:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if d < 0:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return image


def _thumbnail(image: Image.Image) -> np.ndarray:
    """float32 thumbnail of an image's luma, each pixel the mean of a block."""
    block = -(-max(image.size) // _THUMBNAIL)
    return np.asarray(image.getchannel(0).reduce(block), np.float32)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=quality)
    return buffer.getvalue()
