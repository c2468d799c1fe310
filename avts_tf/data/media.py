"""Decodes one file into frames and sound on one time axis. Imports no TensorFlow, so that workers start fast.

Times
    All times are presentation times in seconds, as the container and its edit lists give them, on the clock that a player
    shows: it reads 0 at the file's own start, which is the first time of any of its streams (of those below zero, such as the
    run-in of a lossy sound coder, it shows nothing). AVI and WMV files give times in the order of decoding alone: a frame takes
    the time of the packet that makes the decoder put it out; in an AVI, where nothing delays the sound too, the first frame
    takes the first packet's time and the others follow.

    *   Time 0 of the result is the latest of `start_seconds`, the first frame's time and the first audio sample's time. Its
        end is the earliest of `end_seconds` and the ends of both streams; the video ends when its last frame's duration is
        over (or the median frame interval, where the file states none). The duration is then cut to whole frames.
    *   Output frame i is the input frame whose time is nearest to time 0 + i / fps, the earlier one of two equally near: it is
        off by at most half of the interval between the two input frames around that time.
    *   Output sample n sounds at time 0 + n / sample_rate, to the nearest sample. Gaps in the audio's times are filled with
        silence, overlaps are cut from the later part. A gap is where all that follows is late by more than half a packet;
        times that merely jitter, as those of blocks and pages do, break nothing. There are round(frames / fps * sample_rate)
        samples.
    *   Where the clocks of the audio and the container run apart, the audio of a file with video follows the container's, to
        half a packet (8 to 50 ms), by samples that are dropped or repeated without a break. Without video, samples count.
    *   A stream whose times jump ahead by more than ten seconds is unreadable: nobody can say what belongs there. Frames whose
        time lies before an earlier one's are left out, and more than one in twenty of them make the stream unreadable.

Sound
    Any format, rate and number of channels becomes 16-bit mono at the wanted rate, low-passed where that is lower. Channels are
    mixed by libswresample's matrix, scaled so that nothing clips: stereo is (left + right) / 2; of 5.1 and 7.1 the centre counts
    whole, the others less, the low-frequency channel not at all. Channels in no known order are averaged. What a coder put
    before the first and after the last sample is left out where the file tells.

Pictures
    Frames are upright (turned and mirrored as the file's display matrix says, to a multiple of 90 degrees), with square pixels,
    and never enlarged; made smaller, each pixel is the mean over its area. Colours are 8 bits, by the matrix and range that the
    file states. Ten-bit and HDR video is plainly brought to 8 bits, without tone mapping: HDR looks flat. Transparency is
    dropped, interlaced fields stay woven together. A stream that changes its size is scaled to the size of its first frame.

Streams
    Of several streams of a kind, the first that decodes is taken, and `note` says so. A cover picture is no video. A stream
    decodes where at most one in twenty of its packets is damaged; what cannot be decoded of it is left out.
"""

import collections
import contextlib
import functools
import io
import itertools
import math
import os
import statistics
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from PIL import Image

from avts_tf.data.layouts import why_no_file

# Why a file is left out. All but the last two come from here, those from the workers.
REASONS = (
    'missing', 'unreadable', 'no_video', 'no_audio', 'silent', 'still', 'too_short', 'too_long', 'too_large', 'timeout', 'crashed',
)

# Chosen on real files. The quietest of 709 talking heads has -25 dBFS, phones in quiet rooms record at -65; sound that is all
# zero has -120, also after lossy coders.
SILENT_BELOW_DB = -70.0
# The stillest of the same 709, which fill the picture with a speaking mouth, has 1.45. Still pictures that nine lossy coders and
# settings encoded as video have up to 0.29 and mostly below 0.1; with much noise added to each frame before, up to 0.9.
STILL_BELOW = 0.5

_LEAST_DB = -120.0
# How far the times of audio frames may be off without a gap between them: half of a packet, but within these bounds. Blocks of
# Vorbis are off by 44 % of the longest; a packet that is missing shifts all that follows by a whole one.
_LEAST_JITTER_SECONDS, _GREATEST_JITTER_SECONDS = 0.008, 0.05
_LEVEL_SECONDS = 1.0  # stretch on either side of a gap that must agree on it
_GREATEST_PACE = 4.0  # seconds by the file's clock in which a second of sound is believed to last
_FADE_SECONDS = 0.01
_GREATEST_GAP_SECONDS = 10.0
_GREATEST_SECONDS = 1e8  # three years: beyond that a time is no time
_MAX_DAMAGED = 0.05  # part of a stream's packets that may fail to decode, or of its frames that may run backwards
_SAME_TIME_SECONDS = 1e-6
_SEEK_SECONDS = 2.0  # seek to so much before what is wanted, so that coders that need a run-in have it
_RUN_SECONDS = 10.0  # stretch at a run's beginning whose frames settle the run's time
_MANY_DAMAGED = 50  # enough to judge before the end
_INTERVALS = 1000  # of the last frames, whose median is the frame interval
_BLOCK_FRAMES = 16
_BLOCK_SECONDS = 10
_MAX_JPEG_BYTES = 2**30  # a record cannot hold 2 GiB
_PIXEL_FORMATS = {'RGB': 'rgb24', 'YCbCr': 'yuvj444p'}
_UNDATED = ('avi', 'asf')  # times of presentation that libavformat states for these are guesses
_THUMBNAIL = 16  # most pixels of the longer side of the picture that motion is measured on
_MOTION_SECONDS = 0.2
_FILTER = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_MICROSECONDS = 1_000_000
# Demuxers that open other files, beside devices and those that libavformat says have no file of their own; and how such lists
# begin.
_OF_OTHER_FILES = frozenset(('applehttp', 'concat', 'dash', 'hls', 'imf', 'mlv', 'sdp', 'vobsub'))
_LISTS = (b'ffconcat', b'#EXTM3U', b'v=0', b'<?xml', b'<MPD', b'# VobSub', b'\xef\xbb\xbfffconcat', b'\xef\xbb\xbf#EXTM3U')


class Media(NamedTuple):
    """Frames and sound of a file from the same time 0, of the same duration.

    Attributes:
        frames: list of JPEG bytes, upright, all of the same size, with square pixels; empty with `sound_only`.
        height: pixels; 0 with `sound_only`.
        width: pixels; 0 with `sound_only`.
        waveform: int16 [samples], mono.
        start_seconds: presentation time in the file of frame 0 and sample 0.
        volume_db: RMS level of the waveform in dBFS (0 is a full square wave), at least -120.
        motion: mean absolute difference of the luma (0 to 255) of output frames 0.2 s apart (or the first and the last), on
            thumbnails of up to 16 pixels. Movement grows over that time and coders' noise does not, and each pixel of a
            thumbnail is a mean over many. 0 where there is one frame, None with `sound_only`.
        source_fps: frames per second of the file, from the times of the frames that were decoded; 0 where there are less than two.
        note: what was passed over, in words; '' where nothing was.
    """

    frames: list
    height: int
    width: int
    waveform: np.ndarray
    start_seconds: float
    volume_db: float
    motion: float | None
    source_fps: float
    note: str


class MediaOptions(NamedTuple):
    """What `read_media` makes of a file.

    Attributes:
        fps: frames per second.
        short_side: pixels of the shorter side; 0 keeps the size, and nothing is ever enlarged.
        sample_rate: Hz.
        max_seconds: longest duration; what is longer is refused as too_long, which bounds the memory that a file takes. 0 is no
            limit.
        jpeg_quality: 1 to 100.
        start_seconds: where to begin in the file.
        end_seconds: where to end in the file; None is its end.
        max_pixels: most pixels of a decoded frame; larger ones are refused as too_large before one is decoded.
        silent_below_db: volume (see `Media`) below which a file is refused as silent; None keeps all.
        still_below: motion (see `Media`) below which a file is refused as still; None keeps all.
        sound_only: take the sound of any file, with or without pictures.
    """

    fps: float = 25.0
    short_side: int = 128
    sample_rate: int = 16000
    max_seconds: float = 600.0
    jpeg_quality: int = 90
    start_seconds: float = 0.0
    end_seconds: float | None = None
    max_pixels: int = 8192 * 4352
    silent_below_db: float | None = SILENT_BELOW_DB
    still_below: float | None = STILL_BELOW
    sound_only: bool = False


class Streams(NamedTuple):
    """Video and audio of a file, each at its own times in the file.

    Attributes:
        frames: list of JPEG bytes as of `Media`, in steps of 1 / fps from the file's first frame on.
        frame_seconds: float64 [frames], time of the frame that each step shows.
        waveform: int16 [samples], mono.
        waveform_seconds: time of sample 0.
    """

    frames: list
    frame_seconds: np.ndarray
    waveform: np.ndarray
    waveform_seconds: float


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
    """Decodes a file by the rules at the head of this module.

    Args:
        path: video file, or with `sound_only` any file that has sound.
        options: a `MediaOptions`.

    Returns:
        A `Media`.

    Raises:
        Unsuitable: no record can be made of the file; `reason` says why.
    """
    longest = options.max_seconds or math.inf
    begin, end = max(0.0, options.start_seconds), math.inf if options.end_seconds is None else options.end_seconds
    with _explaining(path):
        with _open(path) as container:
            video, audio = _choices(container, ('audio',) if options.sound_only else ('video', 'audio'))
            has_video = _has_video(container)
        if video:
            begin = max(begin, video.first_that_decodes(lambda index: _first_seconds(path, index, begin, options.max_pixels)))
        if end - begin > longest:
            _refuse_long(path, [choice.index for choice in (video, audio) if choice], begin, longest)
        start, waveform = audio.first_that_decodes(
            lambda index: _read_sound(path, index, begin, end, longest, options.sample_rate, has_video)
        )
        if video:
            # The end of a stream is known to a tick or a sample: at most that much is missing, and is added as silence.
            sound_end = start + (len(waveform) + 1) / options.sample_rate if len(waveform) else start
            pictures = video.first_that_decodes(
                lambda index: _read_pictures(path, index, max(begin, start), min(sound_end, end), options)
            )
            count = round(len(pictures.frames) / options.fps * options.sample_rate)
            first = round((pictures.start_seconds - start) * options.sample_rate)
            waveform = waveform[first:first + count]
            waveform = np.pad(waveform, (0, count - len(waveform)))
        else:
            pictures = _Pictures([], [], 0, 0, start, None, 0.0)
    if len(waveform) > longest * options.sample_rate:
        raise _too_long(longest)
    if not len(waveform):
        what = f'less than one frame of {1 / options.fps:g} s of picture and sound together' if video else 'no sound'
        raise Unsuitable('too_short', f'there is {what}{" in this stretch" if begin or end < math.inf else ""}')
    volume_db = _volume_db(waveform)
    if options.silent_below_db is not None and volume_db < options.silent_below_db:
        raise Unsuitable('silent', f'a volume of {volume_db:.1f} dBFS, which is below {options.silent_below_db:g}')
    if options.still_below is not None and video and pictures.motion < options.still_below:
        raise Unsuitable('still', f'a motion of {pictures.motion:.3f} grey levels, which is below {options.still_below:g}')
    return Media(
        frames=pictures.frames, height=pictures.height, width=pictures.width, waveform=waveform,
        start_seconds=pictures.start_seconds, volume_db=volume_db, motion=pictures.motion, source_fps=pictures.source_fps,
        note='; '.join(choice.note for choice in (video, audio) if choice and choice.note),
    )


def try_streams(task: tuple) -> Streams | tuple[str, str]:
    """`read_streams` for a worker: takes its arguments; (reason, detail) of an unsuitable file."""
    try:
        return read_streams(*task)
    except Unsuitable as error:
        return error.reason, error.detail


def read_streams(
    path: str, options: MediaOptions, most_seconds: float, margin_seconds: float,
) -> Streams:
    """Decodes the beginning of a file and tells when each frame is shown and when the audio begins.

    The steps of the video are counted from its own first frame: a file of the wanted rate gives each
    of its frames once, whenever its audio begins.

    Args:
        path: video file.
        options: as of `read_media`; the stretch and what is refused as silent or still do not count.
        most_seconds: what comes later than this after the first frame is left out, and
        margin_seconds: of the audio what comes so much later, or so long before the first frame.

    Returns:
        `Streams`.

    Raises:
        Unsuitable: the file cannot be used; `reason` says why.
    """
    with _explaining(path):
        with _open(path) as container:
            video, audio = _choices(container, ('video', 'audio'))
        begin = max(0.0, video.first_that_decodes(
            lambda index: _first_seconds(path, index, 0.0, options.max_pixels)))
        end = begin + most_seconds
        waveform_seconds, waveform = audio.first_that_decodes(lambda index: _read_sound(
            path, index, max(0.0, begin - margin_seconds), end + margin_seconds, math.inf,
            options.sample_rate, has_video=True))
        pictures = video.first_that_decodes(
            lambda index: _read_pictures(path, index, begin, end, options))
    return Streams(pictures.frames, np.array(pictures.frame_seconds), waveform, waveform_seconds)


def sound_blocks(path, sample_rate):
    """The sound of a file from its first sample on, piece by piece, so that memory does not grow with its length.

    Args:
        path: any file with sound.
        sample_rate: Hz.

    Yields:
        int16 [samples], mono, of some seconds at most each; one after another they are the file's sound, gaps filled and
        overlaps cut.

    Raises:
        Unsuitable: the file is missing, has no sound or cannot be decoded.
    """
    with _explaining(path), _open(path) as container:
        _, audio = _choices(container, ('audio',))
        if audio.several:
            audio.first_that_decodes(lambda index: _first_seconds(path, index))
        stream = _Stream(path, audio.index, container=container)
        pieces = _sound_pieces(stream.frames(), sample_rate, _has_video(container))
        for _, samples in _placed(pieces, sample_rate):
            # A gap may be longer than a block.
            yield from (samples[i:i + _BLOCK_SECONDS * sample_rate] for i in range(0, len(samples), _BLOCK_SECONDS * sample_rate))
        stream.judge()


def frame_blocks(path, fps, short_side):
    """The pictures of a file from its first frame on, on the exact time grid, so that memory does not grow with its length.

    Args:
        path: video file, with or without sound.
        fps: frames per second.
        short_side: pixels of the shorter side; 0 keeps the size, and nothing is enlarged.

    Yields:
        list of up to 16 upright RGB frames, uint8 [H, W, 3]; frame i of all of them shows i / fps after the first frame.

    Raises:
        Unsuitable: the file is missing, has no video or cannot be decoded.
    """
    max_pixels = MediaOptions().max_pixels
    with _explaining(path):
        with _open(path) as container:
            video, _ = _choices(container, ('video',))
        start = video.first_that_decodes(lambda index: _first_seconds(path, index, 0.0, max_pixels))
        stream = _Stream(path, video.index, max_pixels)
        block, shown = [], None
        for _, frame in _on_grid(stream, start, math.inf, fps):
            if frame is not shown:
                shown, array = frame, np.array(_upright(frame, _display_size(stream, short_side), 'RGB'))
            block.append(array)
            if len(block) == _BLOCK_FRAMES:
                yield block
                block = []
        stream.judge()
        if block:
            yield block


@contextlib.contextmanager
def _explaining(path):
    """Turns what a broken file raises into `Unsuitable`."""
    why = why_no_file(path)
    if why:
        raise Unsuitable('missing', why)
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise Unsuitable('unreadable', _in_words(error)) from error
    except MemoryError as error:
        raise Unsuitable('too_large', 'it takes more memory than there is') from error


def _in_words(error):
    return ' '.join(str(error.strerror or error).split())


def _open(path):
    # An absolute path, because a name such as "a:b.mp4" would be taken for a protocol; this file only, because playlists may
    # name addresses and neighbours.
    options = {'protocol_whitelist': 'file', 'format_whitelist': _own_formats()}
    try:
        return av.open(os.path.abspath(path), metadata_errors='ignore', container_options=options)
    except av.ArgumentError as error:
        with open(path, 'rb') as file:
            if file.read(64).lstrip().startswith(_LISTS):
                raise Unsuitable('unreadable', 'it is a list that names other files; give those instead') from error
        raise


@functools.cache
def _own_formats():
    """Names of the demuxers that read the one file that they are given."""
    formats = []
    for name in sorted(av.formats_available):
        with contextlib.suppress(ValueError):  # some are written only
            found = av.ContainerFormat(name, 'r')
            if not found.no_file and not _OF_OTHER_FILES.intersection(name.split(',')):
                formats.append(name)
    return ','.join(formats)


def _choices(container, kinds):
    """`_Choice`s of (video, audio); None for a kind that is not among `kinds`."""
    found = {kind: _indices(container, kind) for kind in kinds}
    for kind, indices in found.items():
        if not indices:
            raise Unsuitable(f'no_{kind}', f'the file has no {kind} stream')
    return tuple(_Choice(kind, found[kind]) if kind in found else None for kind in ('video', 'audio'))


def _indices(container, kind):
    return [
        stream.index for stream in container.streams
        if stream.type == kind and not stream.disposition & av.stream.Disposition.attached_pic
    ]


def _has_video(container):
    return bool(_indices(container, 'video'))


class _Choice:
    """The streams of one kind in the order of the file, of which the first that decodes is taken.

    Attributes:
        index: of the stream that is taken.
        note: what `Media.note` says of it.
    """

    def __init__(self, kind, indices):
        self._kind, self._indices, self._failures = kind, indices, []

    @property
    def index(self):
        return self._indices[len(self._failures)]

    @property
    def several(self):
        return len(self._indices) > 1

    @property
    def note(self):
        if not self.several:
            return ''
        failed = ', '.join(map(str, self._indices[:len(self._failures)]))
        why = f'{failed} does not decode' if failed else f'the first of {len(self._indices)}'
        return f'{self._kind} stream {self.index} taken: {why}'

    def first_that_decodes(self, read):
        """What `read` returns for the index of the stream, or of the next one where it does not decode."""
        while True:
            try:
                return read(self.index)
            except (Unsuitable, av.FFmpegError) as error:
                if len(self._failures) + 1 == len(self._indices):
                    raise (self._failures + [error])[0] from error
                self._failures.append(error)


class _Stream:
    """One stream of a file, on its way through the decoder.

    Attributes:
        kind: 'video' or 'audio'.
        aspect: width of a pixel over its height.
        slack: seconds that rounding to ticks may take from a duration.
        first_seconds: time of the first one of `pictures`.
        first_size: its (width, height).
    """

    def __init__(self, path, index, max_pixels=math.inf, container=None):
        # An open container is read from where it stands; without one the file is opened, which takes its time.
        self._path, self._index, self._max_pixels, self._container = path, index, max_pixels, container
        self._packets = self._damaged = self._decoded = self._shown = self._backwards = 0
        self._error = self.first_seconds = self._last_seconds = self.first_size = None

    def frames(self, from_seconds=0.0):
        """(presentation time in seconds or None, frame), the first one not after `from_seconds` where the stream has such."""
        if from_seconds > _SEEK_SECONDS:
            frames = self._frames(from_seconds - _SEEK_SECONDS)
            first = None
            with contextlib.suppress(Unsuitable, av.FFmpegError, OSError):
                first = next(frames)
            if first and first[0] is not None and first[0] <= from_seconds:
                yield first
                yield from frames
                return
            # It cannot be sought there: read from the beginning.
            self._packets = self._damaged = self._decoded = 0
        yield from self._frames(None)

    def pictures(self, from_seconds=0.0):
        """(presentation time in seconds, frame), times strictly ascending."""
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
    def fps(self):
        """Frames per second of `pictures`, by their times; 0 where there are less than two."""
        return (self._shown - 1) / (self._last_seconds - self.first_seconds) if self._shown > 1 else 0.0

    def _frames(self, seek_seconds):
        with contextlib.nullcontext(self._container) if self._container else _open(self._path) as container:
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
            origin = _origin(container)
            # The bytes or chunks by which an AVI counts its audio do not always tell where it sounds.
            if seek_seconds is not None and not (self.kind == 'audio' and container.format.name == 'avi'):
                container.seek(round((seek_seconds + origin) * _MICROSECONDS))
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
                    self._damaged += frame.is_corrupt  # decoded, but the coder made good what was missing
                    pts = frame.pts
                    if undated:
                        if delay is None:
                            delay = (packet.dts or 0) - (first_dts or 0) if container.format.name == 'avi' else 0
                        pts = None if packet.dts is None else packet.dts - delay
                    if laced and packet.pos is not None and packet.pos == block:
                        pts = None  # a block says the time of its first packet; those of the others are divided, and rounded down
                    seconds = None if pts is None else pts * tick - origin
                    if seconds is not None and abs(seconds) > _GREATEST_SECONDS:
                        raise Unsuitable('unreadable', f'the {self.kind} says that it is at {seconds:.3g} s')
                    yield seconds, frame
                if frames:
                    block = packet.pos
        self.judge()

    def _refuse_large(self, picture):
        if picture.width * picture.height > self._max_pixels:
            raise Unsuitable('too_large', f'a frame has {picture.width} x {picture.height} pixels')

    def judge(self):
        """Raises `Unsuitable` where too much of what was read is damaged."""
        # One alone is the last packet of a file that was cut off.
        if self._damaged > max(1, _MAX_DAMAGED * self._packets) or (self._error and not self._decoded):
            why = f' ({_in_words(self._error)})' if self._error else ''
            raise Unsuitable('unreadable', f'{self._damaged} of {self._packets} {self.kind} packets are damaged{why}')
        if self._backwards > max(1, _MAX_DAMAGED * self._decoded):
            raise Unsuitable('unreadable', f'the times of {self._backwards} of {self._decoded} {self.kind} frames run backwards')
        if not self._decoded:
            raise Unsuitable(f'no_{self.kind}', f'the {self.kind} stream is empty')


def _origin(container):
    """What a player's clock takes from the times of a file, in seconds."""
    return max(0, container.start_time or 0) / _MICROSECONDS


def _first_seconds(path, index, from_seconds=0.0, max_pixels=math.inf):
    """Time of the first frame that is decoded to have those at `from_seconds`."""
    stream = _Stream(path, index, max_pixels)
    return next((seconds for seconds, _ in stream.frames(from_seconds) if seconds is not None), 0.0)


def _refuse_long(path, indices, begin, longest):
    """Raises `Unsuitable` where all streams hold packets for more than the longest time, before any of it is decoded."""
    with _open(path) as container:
        if container.duration is None or container.duration / _MICROSECONDS - begin <= longest:
            return  # the decoding will tell whether the header is right
        origin = _origin(container)
        if begin > _SEEK_SECONDS:
            with contextlib.suppress(av.FFmpegError):
                container.seek(round((begin - _SEEK_SECONDS + origin) * _MICROSECONDS))
        first, last = {}, {}
        for packet in container.demux([container.streams[index] for index in indices]):
            if packet.pts is None:
                continue
            seconds = packet.pts * float(packet.time_base) - origin
            if abs(seconds - last.get(packet.stream.index, seconds)) > _GREATEST_GAP_SECONDS:
                return
            first.setdefault(packet.stream.index, seconds)
            last[packet.stream.index] = seconds
            if len(last) == len(indices) and min(last.values()) - max(begin, *first.values()) > longest:
                raise _too_long(longest)


def _too_long(longest):
    return Unsuitable('too_long', f'it lasts longer than {longest:g} s')


def _read_sound(path, index, begin, end, longest, sample_rate, has_video):
    """Reads the sound as one stretch of samples.

    Args:
        path: file.
        index: of the audio stream.
        begin: seconds; what comes earlier is dropped, to the nearest sample.
        end: seconds, and
        longest: seconds from the later one of `begin` and the first sample on; what comes after either is not read.
        sample_rate: Hz of the result.
        has_video: see `_sound_pieces`.

    Returns:
        Time of the first sample, and int16 [samples].
    """
    stream = _Stream(path, index)
    start, blocks, stop = None, [], end
    for seconds, samples in _placed(_sound_pieces(stream.frames(begin), sample_rate, has_video), sample_rate):
        if seconds + len(samples) / sample_rate > begin:
            drop = max(0, round((begin - seconds) * sample_rate))
            if start is None:
                start = seconds + drop / sample_rate
                # A little more, so that a sound that is too long is known to be.
                stop = min(end, start + longest + 0.1)
            blocks.append(samples[drop:])
        if seconds + len(samples) / sample_rate > stop:
            break
    stream.judge()
    if start is None:
        return begin, np.zeros(0, np.int16)
    return start, np.concatenate(blocks)[:max(0, round((stop - start) * sample_rate)) if stop < math.inf else None]


def _placed(pieces, sample_rate):
    """Pieces of sound, gaps between them filled and overlaps cut.

    Args:
        pieces: (time of the first sample in seconds, int16 [samples]).
        sample_rate: Hz.

    Yields:
        The same; each begins where the one before ends.
    """
    start, length = None, 0
    for seconds, samples in pieces:
        if start is None:
            start = seconds
        offset = round((seconds - start) * sample_rate)
        if offset - length > _GREATEST_GAP_SECONDS * sample_rate:
            raise Unsuitable('unreadable', f'the audio times jump from {start + length / sample_rate:.3f} s to {seconds:.3f} s')
        samples = np.concatenate([np.zeros(max(offset - length, 0), np.int16), samples[max(length - offset, 0):]])
        yield start + length / sample_rate, samples
        length += len(samples)


def _sound_pieces(frames, sample_rate, has_video=False):
    """Audio frames resampled, in pieces of some seconds.

    Args:
        frames: (presentation time in seconds or None, `av.AudioFrame`).
        sample_rate: Hz of the result.
        has_video: whether the file has video, whose clock the audio then follows.

    Yields:
        Time of the first sample in seconds, and int16 [samples], mono.
    """
    run = None
    for seconds, frame, jumps in _with_jumps(frames):
        if frame.format.name.startswith(('flt', 'dbl')) and not np.isfinite(frame.to_ndarray()).all():
            raise Unsuitable('unreadable', 'samples are NaN or infinite')  # the resampler would make them full scale
        if run is None or jumps or not run.takes(frame):
            if run:
                yield run.finish()
                seconds = run.end if seconds is None else seconds
            run = _Run(0.0 if seconds is None else seconds, frame, sample_rate, has_video)
        run.add(seconds, frame)
        if run.waiting_seconds >= _RUN_SECONDS:
            yield run.take()
    if run:
        yield run.finish()


class _Timed(NamedTuple):
    """An audio frame among those before and after it; times in seconds.

    Attributes:
        seconds: what the container says, or None.
        place: duration of all frames before it.
        length: its own.
        frame: `av.AudioFrame`.
    """

    seconds: float | None
    place: float
    length: float
    frame: av.AudioFrame

    @property
    def error(self):
        """How much later it is than frames without a gap would have it, up to a constant."""
        return self.seconds - self.place


def _with_jumps(frames):
    """Tells real jumps in the times of audio frames from the jitter of containers.

    Args:
        frames: (presentation time in seconds or None, `av.AudioFrame`).

    Yields:
        (time, frame, whether audio is missing before it or is there twice), of the frames that hold samples.
    """
    before, ahead = collections.deque(), collections.deque()
    place, has_clock = 0.0, None

    def settle():
        nonlocal has_clock
        if has_clock is None:
            has_clock = _has_clock(ahead)
        item = ahead.popleft()
        if item.place and not has_clock:
            return None, item.frame, False
        jumps = _jumps(before, [item, *ahead])
        if jumps:
            before.clear()
        before.append(item)
        while before[0].place < item.place - _LEVEL_SECONDS:
            before.popleft()
        return item.seconds, item.frame, jumps

    for seconds, frame in frames:
        if not frame.samples or frame.sample_rate <= 0:
            continue
        length = frame.samples / frame.sample_rate
        ahead.append(_Timed(seconds, place, length, frame))
        place += length
        while ahead and place - ahead[0].place > _LEVEL_SECONDS:
            yield settle()
    while ahead:
        yield settle()


def _has_clock(items):
    """Whether the times of frames can be true: some AVI files count samples where their header says packets."""
    times = [item for item in items if item.seconds is not None]
    paces = [(b.seconds - a.seconds) / (b.place - a.place) for a, b in itertools.pairwise(times)]
    return len(paces) < 4 or statistics.median(paces) < _GREATEST_PACE


def _jumps(before, after):
    """Whether the errors of frames change their level, for all of a second, at the first one of `after`."""
    if after[0].seconds is None:
        return False
    earlier = [item.error for item in before if item.seconds is not None]
    if not earlier:
        return False
    step = after[0].error - earlier[-1]
    least = _jitter_seconds(max(item.length for item in (*before, *after)), after[0].frame)
    if abs(step) <= least:
        return False
    # The quarters of the two levels that lie nearest to each other, so that neither single frames nor a jitter that is as
    # large makes or hides a jump.
    sign = math.copysign(1, step)
    earlier = sorted(sign * error for error in earlier)
    later = sorted(sign * item.error for item in after if item.seconds is not None)
    return later[len(later) // 4] - earlier[-1 - len(earlier) // 4] > least


def _jitter_seconds(longest, frame):
    """How far the times of frames may be off: containers know those of blocks, pages and packets only, to a tick."""
    return max(_LEAST_JITTER_SECONDS, min(0.5 * longest, _GREATEST_JITTER_SECONDS), 2 * float(frame.time_base or 0))


class _Run:
    """Audio frames without a gap between them, on their way through a resampler.

    A run's time is what its first frame says, as far as the others of its first ten seconds agree, each to half a tick: where a
    container rounds times to milliseconds, that is exact to much less than one. Where they cannot all be right it is the
    median, or without video the first frame's time. Where the clocks of the audio and of the file run apart, the audio is made
    longer or shorter, some milliseconds at a time, without a break.

    Attributes:
        waiting_seconds: sound that has been added and not been taken.
    """

    def __init__(self, seconds, frame, sample_rate, follows):
        self._setup, self._rate, self._out_rate, self._follows = _setup(frame), frame.sample_rate, sample_rate, follows
        self._tick = float(frame.time_base)
        self._start, self._offset, self._errors, self._jitter_seconds = seconds, None, [], 0.0
        # samples: added and surely sounding at the file's rate, taken and added to follow the clock at the output's
        self._added = self._sounding = self._safe = self._taken = self._inserted = 0
        self._resampler, self._pieces = av.AudioResampler('s16', 'mono', sample_rate), []
        # libswresample takes channels in no known order for those of the usual one of their number.
        self._average = frame.layout.nb_channels > 2 and frame.layout.name.startswith(('ambisonic', f'{frame.layout.nb_channels} '))

    @property
    def end(self):
        """Time in seconds at which the run ends."""
        return self._start + self._sounding / self._rate + self._inserted / self._out_rate

    @property
    def waiting_seconds(self):
        return self._added / self._rate - self._taken / self._out_rate

    def takes(self, frame):
        return _setup(frame) == self._setup

    def add(self, seconds, frame):
        if seconds is not None:
            self._errors.append(seconds - self._start - self._added / self._rate)
            self._jitter_seconds = max(self._jitter_seconds, _jitter_seconds(frame.samples / self._rate, frame))
        self._safe = self._added
        # Where ticks are samples, a shorter duration tells how much of the last frame is sound, not the coder's padding.
        sounding = frame.samples
        if frame.duration and self._tick * self._rate == 1:
            sounding = min(sounding, frame.duration)
        self._sounding = self._added + sounding
        self._added += frame.samples
        if self._average:
            frame = _averaged(frame)
        frame.pts = None  # the resampler is to count samples
        self._pieces += self._resampler.resample(frame)

    def take(self):
        """Time of the first sample in seconds, and int16 [samples]: what surely sounds of what has been added."""
        return self._cut(math.floor(self._safe * self._out_rate / self._rate))

    def finish(self):
        """The same for the rest."""
        self._pieces += self._resampler.resample(None)
        return self._cut(round(self._sounding / self._rate * self._out_rate))

    def _cut(self, until):
        if self._offset is None:
            self._offset = self._estimate()
        seconds = self._start + self._offset + (self._taken + self._inserted) / self._out_rate
        samples = np.concatenate([np.zeros(0, np.int16)] + [
            piece if isinstance(piece, np.ndarray) else piece.to_ndarray().reshape(-1) for piece in self._pieces
        ])
        count = max(0, until - self._taken)
        self._pieces = [samples[count:]]
        samples = samples[:count]
        self._taken += len(samples)
        return seconds, self._follow(samples) if self._follows else samples

    def _estimate(self):
        """By how much the run is later than its first frame says, in seconds."""
        least, greatest = (pick(self._errors, default=0.0) for pick in (min, max))
        if greatest - least <= self._tick:
            return min(max(0.0, greatest - self._tick / 2), least + self._tick / 2)
        return statistics.median(self._errors) if self._follows else 0.0

    def _follow(self, samples):
        """Makes samples longer or shorter where the file's clock went away from the run's by more than the times jitter."""
        apart = statistics.median(self._errors) - self._offset - self._inserted / self._out_rate if self._errors else 0.0
        self._errors = []
        count = round(apart * self._out_rate)
        fade = round(_FADE_SECONDS * self._out_rate)
        if abs(apart) <= self._jitter_seconds or len(samples) < 2 * (abs(count) + fade):
            return samples
        self._inserted += count
        return _stretched(samples, count, fade)


def _stretched(samples, count, fade):
    """Samples with `count` more of them, or less where it is negative: in their middle they pass over to the same, shifted."""
    middle = (len(samples) - fade) // 2
    weights = (np.arange(fade) + 0.5) / fade
    here, there = samples[middle:middle + fade], samples[middle - count:middle - count + fade]
    joint = np.round((1 - weights) * here + weights * there).astype(np.int16)
    return np.concatenate([samples[:middle], joint, samples[middle - count + fade:]])


def _setup(frame):
    return frame.format.name, frame.layout.name, frame.sample_rate


def _averaged(frame):
    """An audio frame whose one channel is the mean of those of another."""
    samples = frame.to_ndarray()
    channels = samples if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels).T
    mean = channels.mean(axis=0, dtype=np.float64)
    if samples.dtype.kind != 'f':
        full = 2.0 ** (8 * samples.itemsize - 1)
        mean = mean / full - (samples.dtype.kind == 'u')
    averaged = av.AudioFrame.from_ndarray(mean.astype(np.float32)[None], 'flt', 'mono')
    averaged.sample_rate, averaged.time_base = frame.sample_rate, frame.time_base
    return averaged


class _Pictures(NamedTuple):
    """The pictures of a `Media` and of `Streams`, with their names."""

    frames: list
    frame_seconds: list
    height: int
    width: int
    start_seconds: float
    motion: float | None
    source_fps: float


def _read_pictures(path, index, begin, end, options):
    """Reads the frames that the output shows between two times in seconds.

    Returns:
        `_Pictures`.
    """
    stream = _Stream(path, index, options.max_pixels)
    frames, frame_seconds, thumbnails, shown, jpeg_bytes = [], [], [], None, 0
    for seconds, frame in _on_grid(stream, begin, end, options.fps):
        if frame is not shown:
            # In JPEG's own colours, so that no conversion is left to do.
            image = _upright(frame, _display_size(stream, options.short_side), 'YCbCr')
            shown, jpeg, thumbnail = frame, _jpeg(image, options.jpeg_quality), _thumbnail(image)
        frames.append(jpeg)
        frame_seconds.append(seconds)
        thumbnails.append(thumbnail)
        jpeg_bytes += len(jpeg)
        if options.max_seconds and len(frames) > options.max_seconds * options.fps:
            raise _too_long(options.max_seconds)
        if jpeg_bytes > _MAX_JPEG_BYTES:
            raise Unsuitable('too_large', f'its frames take more than {_MAX_JPEG_BYTES // 2**20} MiB; make them smaller or fewer')
    stream.judge()
    if not frames:
        return _Pictures([], [], 0, 0, begin, 0.0, 0.0)
    lag = max(1, min(round(_MOTION_SECONDS * options.fps), len(frames) - 1))
    differences = [np.abs(after - before).mean() for before, after in zip(thumbnails, thumbnails[lag:], strict=False)]
    motion = float(np.mean(differences)) if differences else 0.0
    return _Pictures(frames, frame_seconds, image.height, image.width,
                     max(begin, stream.first_seconds), motion, stream.fps)


def _on_grid(stream, begin, end, fps):
    """The (time in seconds, frame) of a stream that each output frame shows.

    Output frames begin at the later one of `begin` and the first frame and go on until `end`.
    """
    previous = previous_seconds = None
    # Frames whose place in the output is settled, but not yet that the video lasts so long; and the number of those given.
    chosen, shown = [], 0
    intervals = collections.deque(maxlen=_INTERVALS)

    def choose(until_seconds):
        # The previous frame is the nearest one for all output frames up to a time.
        while shown + len(chosen) < limit and start + (shown + len(chosen)) / fps <= until_seconds + _SAME_TIME_SECONDS:
            chosen.append((previous_seconds, previous))

    for seconds, frame in stream.pictures(begin):
        if previous is None:
            start = max(begin, seconds)
            limit = _whole_frames(end - start, fps, stream.slack)
        else:
            gap = seconds - previous_seconds
            if gap > _GREATEST_GAP_SECONDS and seconds > start:
                raise Unsuitable('unreadable', f'the video times jump from {previous_seconds:.3f} s to {seconds:.3f} s')
            intervals.append(gap)
            choose(previous_seconds + gap / 2)
            sure = max(0, _whole_frames(seconds - start, fps, stream.slack) - shown)
            yield from chosen[:sure]
            shown += len(chosen[:sure])
            del chosen[:sure]
        if shown >= limit:
            return
        previous, previous_seconds = frame, seconds
    length = previous.duration * float(previous.time_base) if previous.duration else 0.0
    if not 0 < length <= _GREATEST_GAP_SECONDS:
        length = statistics.median(intervals) if intervals else 1 / fps
    choose(previous_seconds + length)
    yield from chosen[:max(0, _whole_frames(previous_seconds + length - start, fps, stream.slack) - shown)]


def _whole_frames(seconds, fps, slack):
    """Number of output frames in a time; `slack` forgives what rounding to ticks took from it."""
    return math.inf if seconds == math.inf else max(0, math.floor((seconds + slack) * fps))


def _display_size(stream, short_side):
    """Width and height to scale frames to, before they are turned upright: square pixels, never enlarged."""
    aspect = stream.aspect if 0.1 <= stream.aspect <= 10 else 1.0  # no camera's pixels: a damaged header
    width, height = stream.first_size[0] * aspect, float(stream.first_size[1])
    scale = min(1.0, short_side / min(width, height)) if short_side else 1.0
    return max(1, round(width * scale)), max(1, round(height * scale))


def _upright(frame, size, mode):
    """A frame scaled to (width, height), then turned and mirrored as its display matrix says: an image, 'RGB' or 'YCbCr'."""
    scaled = frame.reformat(
        *size, _PIXEL_FORMATS[mode], dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.JPEG, interpolation=_FILTER,
        threads=1,
    )
    image = Image.merge(mode, [
        Image.frombuffer('L', size, plane, 'raw', 'L', plane.line_size, 1) for plane in scaled.planes
    ]) if len(scaled.planes) == 3 else Image.frombuffer(mode, size, scaled.planes[0], 'raw', mode, scaled.planes[0].line_size, 1)
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


def _thumbnail(image):
    """float32 thumbnail of an image's luma, each pixel the mean of a block."""
    return np.asarray(image.getchannel(0).reduce(-(-max(image.size) // _THUMBNAIL)), np.float32)


def _jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=quality)
    return buffer.getvalue()


def _volume_db(waveform):
    power = float(np.mean(np.square(waveform / 32768.0)))
    return max(_LEAST_DB, 10 * math.log10(power)) if power else _LEAST_DB
