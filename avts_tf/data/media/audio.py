"""The audio of a file as one stretch of samples: gaps filled with silence, overlaps cut."""

import math
import os
from collections.abc import Iterable, Iterator

import av
import numpy as np

from avts_tf.data.media.container import Unsuitable
from avts_tf.data.media.gaps import with_jumps
from avts_tf.data.media.runs import Run
from avts_tf.data.media.streams import GREATEST_GAP_SECONDS, Stream

_RUN_SECONDS = 10.0  # stretch at a run's beginning whose frames settle the run's time


def read_audio(
    path: str | os.PathLike, index: int, begin: float, end: float, longest: float,
    sample_rate: int, has_video: bool,
) -> tuple[float, np.ndarray]:
    """Reads the audio as one stretch of samples.

    Args:
        path: the file.
        index: of the audio stream.
        begin: seconds; what comes earlier is dropped, to the nearest sample.
        end: seconds, and
        longest: seconds from the later one of `begin` and the first sample on; what comes after
            either is not read.
        sample_rate: Hz of the result.
        has_video: see `audio_pieces`.

    Returns:
        Time of the first sample, and int16 [samples].

    Raises:
        Unsuitable: the stream cannot be decoded.
    """
    stream = Stream(path, index)
    start, blocks, stop = None, [], end
    pieces = audio_pieces(stream.frames(begin), sample_rate, has_video)
    for seconds, samples in without_gaps(pieces, sample_rate):
        if seconds + len(samples) / sample_rate > begin:
            drop = max(0, round((begin - seconds) * sample_rate))
            if start is None:
                start = seconds + drop / sample_rate
                # A little more, so that audio that is too long is known to be.
                stop = min(end, start + longest + 0.1)
            blocks.append(samples[drop:])
        if seconds + len(samples) / sample_rate > stop:
            break
    stream.judge()
    if start is None:
        return begin, np.zeros(0, np.int16)
    most = max(0, round((stop - start) * sample_rate)) if stop < math.inf else None
    return start, np.concatenate(blocks)[:most]


def without_gaps(
    pieces: Iterable[tuple[float, np.ndarray]], sample_rate: int,
) -> Iterator[tuple[float, np.ndarray]]:
    """Pieces of audio, gaps between them filled and overlaps cut.

    Args:
        pieces: (time of the first sample in seconds, int16 [samples]).
        sample_rate: Hz.

    Yields:
        The same; each begins where the one before ends.

    Raises:
        Unsuitable: the times jump ahead by more than ten seconds.
    """
    start, length = None, 0
    for seconds, samples in pieces:
        if start is None:
            start = seconds
        offset = round((seconds - start) * sample_rate)
        if offset - length > GREATEST_GAP_SECONDS * sample_rate:
            end = start + length / sample_rate
            raise Unsuitable(
                'unreadable', f'the audio times jump from {end:.3f} s to {seconds:.3f} s')
        silence = np.zeros(max(offset - length, 0), np.int16)
        samples = np.concatenate([silence, samples[max(length - offset, 0):]])
        yield start + length / sample_rate, samples
        length += len(samples)


def audio_pieces(
    frames: Iterable[tuple[float | None, av.AudioFrame]], sample_rate: int,
    has_video: bool = False,
) -> Iterator[tuple[float, np.ndarray]]:
    """Audio frames resampled, in pieces of some seconds.

    Args:
        frames: (presentation time in seconds or None, frame).
        sample_rate: Hz of the result.
        has_video: whether the file has video, whose clock the audio then follows.

    Yields:
        Time of the first sample in seconds, and int16 [samples], mono.

    Raises:
        Unsuitable: samples are NaN or infinite.
    """
    run = None
    for seconds, frame, jumps in with_jumps(frames):
        is_float = frame.format.name.startswith(('flt', 'dbl'))
        if is_float and not np.isfinite(frame.to_ndarray()).all():
            # The resampler would make them full scale.
            raise Unsuitable('unreadable', 'samples are NaN or infinite')
        if run is None or jumps or not run.takes(frame):
            if run:
                yield run.finish()
                seconds = run.end if seconds is None else seconds
            run = Run(0.0 if seconds is None else seconds, frame, sample_rate, has_video)
        run.add(seconds, frame)
        if run.waiting_seconds >= _RUN_SECONDS:
            yield run.take()
    if run:
        yield run.finish()
