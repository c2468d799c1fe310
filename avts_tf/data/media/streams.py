"""One stream of a file on its way through the decoder, and which of several streams is taken."""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import av
from av.container import InputContainer

from avts_tf.data.media.container import (
    MICROSECONDS,
    Unsuitable,
    in_words,
    open_file,
    origin_seconds,
)

GREATEST_GAP_SECONDS = 10.0
_GREATEST_SECONDS = 1e8  # three years: beyond that a time is no time
# Part of a stream's packets that may fail to decode, or of its frames that may run backwards.
_MAX_DAMAGED = 0.05
_SEEK_SECONDS = 2.0  # seek to so much before what is wanted, for codecs that need earlier frames
_MANY_DAMAGED = 50  # enough to judge before the end
_UNDATED = ('avi', 'asf')  # presentation times that libavformat states for these are guesses

_Result = TypeVar('_Result')


class StreamChoice:
    """The streams of one kind in the order of the file, of which the first that decodes is taken.

    Args:
        kind: 'video' or 'audio'.
        indices: of its streams in the file, at least one.
    """

    def __init__(self, kind: str, indices: Sequence[int]) -> None:
        self._kind, self._indices = kind, indices
        self._failures: list[Exception] = []

    @property
    def index(self) -> int:
        """Of the stream that is taken."""
        return self._indices[len(self._failures)]

    @property
    def several(self) -> bool:
        """Whether there was a choice."""
        return len(self._indices) > 1

    @property
    def note(self) -> str:
        """What `Media.note` says of it; '' where there was no choice."""
        if not self.several:
            return ''
        failed = ', '.join(map(str, self._indices[:len(self._failures)]))
        why = f'{failed} does not decode' if failed else f'the first of {len(self._indices)}'
        return f'{self._kind} stream {self.index} taken: {why}'

    def first_that_decodes(self, read: Callable[[int], _Result]) -> _Result:
        """What `read` returns for the stream's index, or the next where it does not decode."""
        while True:
            try:
                return read(self.index)
            except (Unsuitable, av.FFmpegError) as error:
                if len(self._failures) + 1 == len(self._indices):
                    raise (self._failures + [error])[0] from error
                self._failures.append(error)


def choose_streams(
    container: InputContainer, kinds: Sequence[str],
) -> dict[str, StreamChoice]:
    """The streams of a file that may be taken.

    Args:
        container: open file.
        kinds: 'video', 'audio' or both; those that the file must have.

    Returns:
        The choice for each of `kinds`.

    Raises:
        Unsuitable: there is no stream of a kind.
    """
    found = {kind: _indices(container, kind) for kind in kinds}
    for kind, indices in found.items():
        if not indices:
            raise Unsuitable(f'no_{kind}', f'the file has no {kind} stream')
    return {kind: StreamChoice(kind, indices) for kind, indices in found.items()}


def has_video(container: InputContainer) -> bool:
    """Whether a file has a video stream; a cover picture is none."""
    return bool(_indices(container, 'video'))


def _indices(container: InputContainer, kind: str) -> list[int]:
    return [
        stream.index for stream in container.streams
        if stream.type == kind and not stream.disposition & av.stream.Disposition.attached_pic
    ]


class Stream:
    """One stream of a file, on its way through the decoder.

    Args:
        path: the file.
        index: of the stream in it.
        max_pixels: most pixels of a frame; a larger one is refused before it is decoded.
        container: the file where it is open already, to be read from where it is; else the
            file is opened, which takes its time.

    Attributes:
        kind: 'video' or 'audio'.
        aspect: width of a pixel over its height.
        slack: seconds that rounding to ticks may take from a duration.
        first_seconds: time of the first of `video_frames`; None before it is decoded.
        first_size: its (width, height); None before it is decoded.
    """

    def __init__(
        self, path: str | os.PathLike, index: int, max_pixels: float = math.inf,
        container: InputContainer | None = None,
    ) -> None:
        self._path, self._index = path, index
        self._max_pixels, self._container = max_pixels, container
        self._packets = self._damaged = self._decoded = self._shown = self._backwards = 0
        self._error: av.FFmpegError | None = None
        self.first_seconds: float | None = None
        self.first_size: tuple[int, int] | None = None
        self._last_seconds = 0.0

    def frames(self, from_seconds: float = 0.0) -> Iterator[tuple[float | None, av.frame.Frame]]:
        """Decodes the stream.

        Args:
            from_seconds: where to begin.

        Yields:
            (presentation time in seconds or None, frame); the first one is not after
            `from_seconds` where the stream has such.

        Raises:
            Unsuitable: the stream cannot be decoded.
        """
        if from_seconds > _SEEK_SECONDS:
            frames = self._frames(from_seconds - _SEEK_SECONDS)
            first = None
            with contextlib.suppress(Unsuitable, av.FFmpegError, OSError):
                first = next(frames)
            if first and first[0] is not None and first[0] <= from_seconds:
                yield first
                yield from frames
                return
            # Seeking does not work there: read from the beginning.
            self._packets = self._damaged = self._decoded = 0
        yield from self._frames(None)

    def video_frames(self, from_seconds: float = 0.0) -> Iterator[tuple[float, av.VideoFrame]]:
        """As `frames`, for video: each frame has a time, and times strictly ascend."""
        for seconds, frame in self.frames(from_seconds):
            self._refuse_large(frame)
            if self.first_seconds is None:
                seconds = seconds or 0.0
                self.first_seconds, self.first_size = seconds, (frame.width, frame.height)
            elif seconds is None:
                seconds = self._last_seconds + self._interval
            elif seconds <= self._last_seconds:
                self._backwards += seconds < self._last_seconds - self.slack
                continue
            self._last_seconds = seconds
            self._shown += 1
            yield seconds, frame

    @property
    def fps(self) -> float:
        """Frames per second of `video_frames`, by their times; 0 where there are less than two."""
        if self.first_seconds is None or self._shown < 2:
            return 0.0
        return (self._shown - 1) / (self._last_seconds - self.first_seconds)

    def _frames(
        self, seek_seconds: float | None,
    ) -> Iterator[tuple[float | None, av.frame.Frame]]:
        with contextlib.ExitStack() as stack:
            container = self._container or stack.enter_context(open_file(self._path))
            stream = container.streams[self._index]
            codec = stream.codec_context
            self.kind = stream.type
            if codec is None:
                raise Unsuitable('unreadable', f'there is no decoder for the {self.kind} stream')
            if self.kind == 'video':
                self._refuse_large(codec)
                self.aspect = float(stream.sample_aspect_ratio or 1)
                self._interval = 1 / float(stream.average_rate) if stream.average_rate else 0.04
            tick = float(stream.time_base)
            self.slack = min(0.001, tick)
            codec.thread_count = 1  # the workers share the processors already
            origin = origin_seconds(container)
            is_avi = container.format.name == 'avi'
            # The bytes or chunks by which an AVI counts its audio do not always say its time.
            if seek_seconds is not None and not (self.kind == 'audio' and is_avi):
                container.seek(round((seek_seconds + origin) * MICROSECONDS))
            undated = self.kind == 'video' and container.format.name in _UNDATED
            laced = self.kind == 'audio' and container.format.name == 'matroska,webm'
            first_dts = delay = block = None
            for packet in container.demux(stream):
                self._packets += 1
                if first_dts is None and packet.size:
                    first_dts = packet.dts
                try:
                    frames = packet.decode()
                except av.FFmpegError as error:
                    self._damaged, self._error, frames = self._damaged + 1, error, ()
                if self._damaged > _MANY_DAMAGED:
                    self.judge()
                for frame in frames:
                    self._decoded += 1
                    # Decoded, but the decoder filled in what was missing.
                    self._damaged += frame.is_corrupt
                    pts = frame.pts
                    if undated:
                        if delay is None:
                            delay = (packet.dts or 0) - (first_dts or 0) if is_avi else 0
                        pts = None if packet.dts is None else packet.dts - delay
                    if laced and packet.pos is not None and packet.pos == block:
                        # A block states the time of its first packet; those of the others are
                        # divided, and rounded down.
                        pts = None
                    seconds = None if pts is None else pts * tick - origin
                    if seconds is not None and abs(seconds) > _GREATEST_SECONDS:
                        raise Unsuitable(
                            'unreadable', f'the {self.kind} states a time of {seconds:.3g} s')
                    yield seconds, frame
                if frames:
                    block = packet.pos
        self.judge()

    def _refuse_large(self, sized: av.VideoFrame | av.VideoCodecContext) -> None:
        if sized.width * sized.height > self._max_pixels:
            raise Unsuitable(
                'too_large', f'a frame has {sized.width} x {sized.height} pixels')

    def judge(self) -> None:
        """Raises `Unsuitable` where too much of what was read is damaged."""
        # One alone is the last packet of a file that was cut off.
        damaged = self._damaged > max(1, _MAX_DAMAGED * self._packets)
        if damaged or (self._error and not self._decoded):
            why = f' ({in_words(self._error)})' if self._error else ''
            raise Unsuitable(
                'unreadable',
                f'{self._damaged} of {self._packets} {self.kind} packets are damaged{why}')
        if self._backwards > max(1, _MAX_DAMAGED * self._decoded):
            raise Unsuitable(
                'unreadable', f'the times of {self._backwards} of {self._decoded} {self.kind} '
                'frames run backwards')
        if not self._decoded:
            raise Unsuitable(f'no_{self.kind}', f'the {self.kind} stream is empty')


def first_seconds(
    path: str | os.PathLike, index: int, from_seconds: float = 0.0, max_pixels: float = math.inf,
) -> float:
    """Time in seconds of the first frame that is decoded to have those at `from_seconds`."""
    stream = Stream(path, index, max_pixels)
    return next(
        (seconds for seconds, _ in stream.frames(from_seconds) if seconds is not None), 0.0)


def refuse_long(
    path: str | os.PathLike, indices: Sequence[int], begin: float, longest: float,
) -> None:
    """Refuses a file that is too long before any of it is decoded.

    Args:
        path: the file.
        indices: of its streams that are wanted.
        begin: where to begin, in seconds.
        longest: most seconds.

    Raises:
        Unsuitable: all streams hold packets for more than that.
    """
    with open_file(path) as container:
        if container.duration is None or container.duration / MICROSECONDS - begin <= longest:
            return  # the decoding will show whether the header is right
        origin = origin_seconds(container)
        if begin > _SEEK_SECONDS:
            with contextlib.suppress(av.FFmpegError):
                container.seek(round((begin - _SEEK_SECONDS + origin) * MICROSECONDS))
        first: dict[int, float] = {}
        last: dict[int, float] = {}
        for packet in container.demux([container.streams[index] for index in indices]):
            if packet.pts is None:
                continue
            seconds = packet.pts * float(packet.time_base) - origin
            if abs(seconds - last.get(packet.stream.index, seconds)) > GREATEST_GAP_SECONDS:
                return
            first.setdefault(packet.stream.index, seconds)
            last[packet.stream.index] = seconds
            all_begun = len(last) == len(indices)
            if all_begun and min(last.values()) - max(begin, *first.values()) > longest:
                raise too_long(longest)


def too_long(longest: float) -> Unsuitable:
    """The error for a file of more than `longest` seconds."""
    return Unsuitable('too_long', f'it lasts longer than {longest:g} s')
