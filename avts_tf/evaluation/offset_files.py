"""The offset of video files.

Each window of the video is compared with the audio at the times of the frames that are shown in it,
so that neither the frame rate nor the moment at which the audio begins moves the answer.
"""

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf

from avts_tf.data import media, workers
from avts_tf.data.datasets import Source
from avts_tf.errors import UserError
from avts_tf.evaluation.offset import OffsetCurve, confidence_of, doubt, embed_video, offset_curve
from avts_tf.models.two_tower import TwoTower

MOST_SECONDS = 120.0  # of a longer file only the beginning is used


class FileOffset(NamedTuple):
    """The offset of one file.

    Attributes:
        source: the file.
        problem: (reason, in words) why there is no answer; None where there is one.
        curve: distances over offsets; None where the file could not be measured.
        offset_seconds: of the curve's lowest point, less the bias; positive where the audio is
            late.
        confidence: of the curve's depth, see `offset.confidence_of`.
        depth: of the curve, see `OffsetCurve.best`.
    """

    source: Source
    problem: tuple[str, str] | None
    curve: OffsetCurve | None = None
    offset_seconds: float | None = None
    confidence: float | None = None
    depth: float | None = None

    def as_dict(self) -> dict:
        """What `offsets.json` holds.

        Returns:
            Dict of `path` and `determined`. Where that is true, `offset_ms` is the answer; where
            not, it is None, and `reason` and `detail` say why; `confidence` is None too, unless it
            is the reason. Both have `lowest_ms` (of the curve, less the bias), `depth` and
            `positions`. A file that could not be
            measured has `path`, `determined`, `skipped` and `detail`.
        """
        path = self.source.path
        if self.curve is None:
            assert self.problem is not None
            reason, detail = self.problem
            return {'path': path, 'determined': False, 'skipped': reason, 'detail': detail}
        assert self.offset_seconds is not None and self.depth is not None
        lowest_ms = round(1000 * self.offset_seconds)
        of_an_answer = not self.problem or self.problem[0] == 'low_confidence'
        answer = {'path': path, 'determined': not self.problem,
                  'offset_ms': None if self.problem else lowest_ms,
                  'confidence': self.confidence if of_an_answer else None,
                  'lowest_ms': lowest_ms, 'depth': round(self.depth, 4),
                  'positions': self.curve.positions}
        if self.problem:
            answer['reason'], answer['detail'] = self.problem
        return answer

    def in_words(self) -> str:
        """The answer as a sentence without its end, such as "the audio is 80 ms late (+80 ms)"."""
        if self.curve is None:
            assert self.problem is not None
            return 'not measured: {} ({})'.format(*self.problem)
        if self.problem:
            return f'cannot be determined: {self.problem[1]}'
        assert self.offset_seconds is not None
        ms = round(1000 * self.offset_seconds)
        words = f'the audio is {abs(ms)} ms {"late" if ms > 0 else "early"}' if ms else 'in sync'
        return f'{words} ({ms:+d} ms), confidence {self.confidence:.2f}'


def measure_offsets(
    model: TwoTower, sources: Sequence[Source], calibration: dict, max_offset_seconds: float = 1.0,
    min_confidence: float = 0.9,
) -> Iterator[FileOffset]:
    """Measures the offset of video files, one after the other.

    Args:
        model: trained model.
        sources: the files.
        calibration: results of `offset_calibration.calibrate`, or {}.
        max_offset_seconds: see `offset.offset_curve`.
        min_confidence: least confidence of an answer, 0 to 1.

    Yields:
        A `FileOffset` for each file, in their order.

    Raises:
        UserError: a source is a piece of a file.

    Example:
        >>> for found in measure_offsets(model, find_sources('clips/'), calibration):
        ...     print(found.source.path, found.in_words())
    """
    clip = model.config.clip
    for source in sources:
        if source.start_seconds or source.end_seconds is not None:
            raise UserError('input', source.example_id, 'an offset is measured of whole files; '
                            'leave start_seconds and end_seconds out of the CSV.')
    # Frames as large as those of the records, which the towers were trained on.
    options = media.MediaOptions(fps=clip.fps, sample_rate=clip.sample_rate,
                                 short_side=calibration.get('short_side', clip.frame_size))
    tasks = [(source.path, options, MOST_SECONDS, max_offset_seconds) for source in sources]
    outcomes = workers.run_in_order(
        media.try_streams, tasks, os.cpu_count() or 1, workers.FILE_TIMEOUT_SECONDS)
    for source, (streams, failure) in zip(sources, outcomes, strict=True):
        if not isinstance(streams, media.Streams):
            yield FileOffset(source, failure or streams)
            continue
        video = embed_video(model, tf.constant(streams.frames), streams.frame_seconds)
        curve = offset_curve(
            model, video, streams.waveform, max_offset_seconds, streams.waveform_seconds)
        if not (curve and curve.best):
            needed = f'needs a window of {clip.window_seconds:g} s with video and audio'
            yield FileOffset(source, ('too_short', needed))
            continue
        seconds, depth = curve.best
        yield FileOffset(
            source, doubt(curve, calibration, max_offset_seconds, min_confidence), curve,
            seconds - calibration.get('bias_ms', 0.0) / 1000, confidence_of(depth, calibration),
            depth)
