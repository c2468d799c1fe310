"""Reads a file: whole and aligned, as two streams at their own times, or block by block."""

import itertools
import math
import os
from collections.abc import Iterator

import numpy as np

from avts_tf.data.media.audio import audio_pieces, read_audio, without_gaps
from avts_tf.data.media.container import Unsuitable, explaining, open_file
from avts_tf.data.media.streams import (
    Stream,
    choose_streams,
    first_seconds,
    has_video,
    refuse_long,
    too_long,
)
from avts_tf.data.media.types import Media, MediaOptions, Streams
from avts_tf.data.media.video import (
    Video,
    display_size,
    frames_on_grid,
    read_video,
    upright,
)

_LEAST_DB = -120.0
_BLOCK_FRAMES = 16
_BLOCK_SECONDS = 10
_LATEST_SECONDS = 3600.0  # that a stream may begin after its file, where all of that is wanted too


def read_media(path: str | os.PathLike, options: MediaOptions) -> Media:
    """Decodes a file by the rules at the head of this package.

    Args:
        path: video file, or with `audio_only` any file that has audio.
        options: a `MediaOptions`.

    Returns:
        A `Media`.

    Raises:
        Unsuitable: no record can be made of the file; `reason` says why.

    Example:
        >>> from avts_tf.data import media
        >>> media.read_media('talk.mp4', media.MediaOptions(short_side=64)).height
        64
    """
    longest = options.max_seconds or math.inf
    begin = max(0.0, options.start_seconds)
    end = math.inf if options.end_seconds is None else options.end_seconds
    with explaining(path):
        with open_file(path) as container:
            kinds = ('audio',) if options.audio_only else ('video', 'audio')
            chosen = choose_streams(container, kinds)
            video, audio = chosen.get('video'), chosen['audio']
            with_video = has_video(container)
        if video:
            begin = max(begin, video.first_that_decodes(
                lambda index: first_seconds(path, index, begin, options.max_pixels)))
        if end - begin > longest:
            indices = [choice.index for choice in (video, audio) if choice]
            refuse_long(path, indices, begin, longest)
        start, waveform = audio.first_that_decodes(lambda index: read_audio(
            path, index, begin, end, longest, options.sample_rate, with_video))
        if video:
            # The end of a stream is known to a tick or a sample: at most that much is missing, and
            # is added as silence.
            audio_end = start
            if len(waveform):
                audio_end = start + (len(waveform) + 1) / options.sample_rate
            found = video.first_that_decodes(lambda index: read_video(
                path, index, max(begin, start), min(audio_end, end), options))
            count = round(len(found.frames) / options.fps * options.sample_rate)
            first = round((found.start_seconds - start) * options.sample_rate)
            waveform = waveform[first:first + count]
            waveform = np.pad(waveform, (0, count - len(waveform)))
        else:
            found = Video([], [], 0, 0, start, None, 0.0)
    if len(waveform) > longest * options.sample_rate:
        raise too_long(longest)
    if not len(waveform):
        what = f'less than one frame of {1 / options.fps:g} s of video and audio together'
        where = ' in this stretch' if begin or end < math.inf else ''
        raise Unsuitable('too_short', f'there is {what if video else "no audio"}{where}')
    volume_db = _volume_db(waveform)
    if options.silent_below_db is not None and volume_db < options.silent_below_db:
        raise Unsuitable('silent', f'a volume of {volume_db:.1f} dBFS, which is below '
                         f'{options.silent_below_db:g}')
    if (options.still_below is not None and found.motion is not None
            and found.motion < options.still_below):
        raise Unsuitable('still', f'a motion of {found.motion:.3f} grey levels, which is below '
                         f'{options.still_below:g}')
    return Media(
        frames=found.frames, height=found.height, width=found.width, waveform=waveform,
        start_seconds=found.start_seconds, volume_db=volume_db, motion=found.motion,
        source_fps=found.source_fps,
        note='; '.join(choice.note for choice in (video, audio) if choice and choice.note),
    )


def try_media(task: tuple[str, MediaOptions]) -> Media | tuple[str, str]:
    """`read_media` for a worker: takes its arguments; (reason, detail) of an unsuitable file."""
    try:
        return read_media(*task)
    except Unsuitable as error:
        return error.reason, error.detail


def read_streams(
    path: str | os.PathLike, options: MediaOptions, most_seconds: float, margin_seconds: float,
) -> Streams:
    """Decodes the beginning of a file, with the times of each frame and of the audio.

    The steps of the video are counted from its own first frame: a file of the wanted rate gives
    each of its frames once, whenever its audio begins.

    Args:
        path: video file.
        options: as of `read_media`; the stretch and what is refused as silent or still do not
            count.
        most_seconds: what comes later than this after the first frame is left out, and
        margin_seconds: of the audio what comes so much later, or so long before the first frame.

    Returns:
        `Streams`.

    Raises:
        Unsuitable: the file cannot be used; `reason` says why.
    """
    with explaining(path):
        with open_file(path) as container:
            chosen = choose_streams(container, ('video', 'audio'))
        video, audio = chosen['video'], chosen['audio']
        begin = max(0.0, video.first_that_decodes(
            lambda index: first_seconds(path, index, 0.0, options.max_pixels)))
        end = begin + most_seconds
        waveform_seconds, waveform = audio.first_that_decodes(lambda index: read_audio(
            path, index, max(0.0, begin - margin_seconds), end + margin_seconds, math.inf,
            options.sample_rate, has_video=True))
        found = video.first_that_decodes(
            lambda index: read_video(path, index, begin, end, options))
    return Streams(found.frames, np.array(found.frame_seconds), waveform, waveform_seconds)


def try_streams(
    task: tuple[str, MediaOptions, float, float],
) -> Streams | tuple[str, str]:
    """`read_streams` for a worker: takes its arguments; (reason, detail) of an unsuitable file."""
    try:
        return read_streams(*task)
    except Unsuitable as error:
        return error.reason, error.detail


def audio_blocks(path: str | os.PathLike, sample_rate: int) -> Iterator[np.ndarray]:
    """The audio of a file, block by block, so that memory does not grow with its length.

    Args:
        path: any file with audio.
        sample_rate: Hz.

    Yields:
        int16 [samples], mono, of some seconds at most each; one after another they are the file's
        audio, gaps filled and overlaps cut: beside video from time 0 on, with silence until the
        audio begins, else from the first sample on.

    Raises:
        Unsuitable: the file is missing, has no audio or cannot be decoded, or its audio begins
            more than an hour after it.
    """
    with explaining(path), open_file(path) as container:
        audio = choose_streams(container, ('audio',))['audio']
        if audio.several:
            audio.first_that_decodes(lambda index: first_seconds(path, index))
        stream = Stream(path, audio.index, container=container)
        with_video = has_video(container)
        pieces = audio_pieces(stream.frames(), sample_rate, with_video)
        if with_video:
            first = next(pieces)
            _refuse_late(first[0], 'audio')
            silence = np.zeros(max(0, round(first[0] * sample_rate)), np.int16)
            pieces = itertools.chain([(0.0, silence), first], pieces)
        size = _BLOCK_SECONDS * sample_rate
        for _, samples in without_gaps(pieces, sample_rate):
            # A gap may be longer than a block.
            yield from (samples[i:i + size] for i in range(0, len(samples), size))
        stream.judge()


def video_blocks(
    path: str | os.PathLike, fps: float, short_side: int,
) -> Iterator[list[np.ndarray]]:
    """The video of a file on the exact time grid, block by block.

    Memory does not grow with the file's length.

    Args:
        path: video file, with or without audio.
        fps: frames per second.
        short_side: pixels of the shorter side; 0 keeps the size, and nothing is enlarged.

    Yields:
        list of up to 16 upright RGB frames, uint8 [H, W, 3]; frame i of all of them shows time
        i / fps, or the first frame where the video begins later.

    Raises:
        Unsuitable: the file is missing, has no video or cannot be decoded, or its video begins
            more than an hour after it.
    """
    max_pixels = MediaOptions().max_pixels
    with explaining(path):
        with open_file(path) as container:
            video = choose_streams(container, ('video',))['video']
        _refuse_late(video.first_that_decodes(
            lambda index: first_seconds(path, index, 0.0, max_pixels)), 'video')
        stream = Stream(path, video.index, max_pixels)
        block, shown = [], None
        for _, frame in frames_on_grid(stream, 0.0, math.inf, fps, hold=True):
            if frame is not shown:
                shown = frame
                array = np.array(upright(frame, display_size(stream, short_side), 'RGB'))
            block.append(array)
            if len(block) == _BLOCK_FRAMES:
                yield block
                block = []
        stream.judge()
        if block:
            yield block


def _refuse_late(seconds: float, kind: str) -> None:
    if seconds > _LATEST_SECONDS:
        raise Unsuitable('unreadable', f'its {kind} begins {seconds:.0f} s after the file, more '
                         f'than {_LATEST_SECONDS:.0f}')


def _volume_db(waveform: np.ndarray) -> float:
    power = float(np.mean(np.square(waveform / 32768.0)))
    return max(_LEAST_DB, 10 * math.log10(power)) if power else _LEAST_DB
