"""The errors and the confidence of offsets, on records whose audio is shifted by known amounts.

The median error, the bias, is subtracted from the answers for files. Audio of other records, which
belongs to no moment of the video, and the answers that are wrong, give the confidence of an answer:
how likely a curve so deep is one of the right answers (`offset.confidence_of`).
"""

import itertools
import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from avts_tf import progress
from avts_tf.data import images
from avts_tf.data import records as record_files
from avts_tf.data.shards import find_shards
from avts_tf.errors import UserError
from avts_tf.evaluation.offset import (
    EmbeddedVideo,
    OffsetCurve,
    doubt,
    embed_video,
    offset_curve,
)
from avts_tf.models.two_tower import TwoTower

# Most are no multiple of a frame at any usual rate, like the offsets of files.
SHIFTS_SECONDS = (-0.6, -0.387, -0.187, -0.073, 0.0, 0.053, 0.147, 0.348, 0.6)
SHIFTS_PER_RECORD = 3

logger = logging.getLogger(__name__)


class OffsetCalibration(NamedTuple):
    """Result of `calibrate`.

    Attributes:
        results: dict for `result.json`, see `calibrate`.
        errors_ms: dict from shift in seconds to the errors in milliseconds, a list of float.
    """

    results: dict
    errors_ms: dict[float, list[float]]


def shift_audio(waveform: np.ndarray, samples: int) -> np.ndarray:
    """Audio that is late by a number of samples (early if negative), of the same length.

    Args:
        waveform: int16 [N].
        samples: shift.

    Returns:
        int16 [N], with silence where nothing is left.

    Example:
        >>> shift_audio(np.array([1, 2, 3], np.int16), 1)
        array([0, 1, 2], dtype=int16)
    """
    shifted = np.zeros_like(waveform)
    samples = int(np.clip(samples, -len(waveform), len(waveform)))
    if samples >= 0:
        shifted[samples:] = waveform[:len(waveform) - samples]
    else:
        shifted[:samples] = waveform[-samples:]
    return shifted


def calibrate(
    model: TwoTower, eval_records: str, max_offset_seconds: float = 1.0,
    min_confidence: float = 0.9,
) -> OffsetCalibration:
    """Measures the offset of records whose audio was shifted by known amounts.

    Args:
        model: trained model.
        eval_records: glob of records that were not trained on.
        max_offset_seconds: see `offset.offset_curve`.
        min_confidence: see `offset.doubt`; what passes it is counted.

    Returns:
        An `OffsetCalibration`. Its `results` have `records`, `left_out`, `measurements`;
        `median_error_ms`, `p90_error_ms` (of absolute errors), `bias_ms`, `within_a_frame` (share);
        `by_shift_ms`, shift -> median absolute error; `right_depths` and `wrong_depths`, sorted:
        of the answers within a frame, and of the others and of audio of other records;
        `short_side`, median in pixels; `min_confidence`, `determined` (number of answers that pass
        it) and `determined_within_a_frame` (share of these, None without any); `foreign` and
        `foreign_determined`, measurements with the audio of another record, and how many of these
        pass it; `max_offset_seconds`.

    Raises:
        UserError: there is no record that is long enough.

    Example:
        >>> calibrate(model, 'data/test-*').results['median_error_ms']
        12.0...
    """
    clip = model.config.clip
    shifts = [shift for shift in SHIFTS_SECONDS if abs(shift) <= max_offset_seconds]
    errors: dict[float, list[float]] = {shift: [] for shift in shifts}
    curves: list[tuple[OffsetCurve, float]] = []
    depths: list[float] = []
    foreign: list[OffsetCurve] = []
    sides, left_out, total, other_audio = [], 0, 0, None
    for serialized in _read(eval_records):
        total += 1
        try:
            record = record_files.parse(serialized)
            video, waveform = _embed_record(model, record)
        except tf.errors.InvalidArgumentError as error:  # no record, or a frame that is no JPEG
            logger.warning('%s: record %d cannot be used: %s', eval_records, total,
                           error.message.splitlines()[0])
            left_out += 1
            continue
        found = False
        for k in range(SHIFTS_PER_RECORD):  # in turn, so that all shifts are equally frequent
            shift = shifts[(total + k * len(shifts) // SHIFTS_PER_RECORD) % len(shifts)]
            late = shift_audio(waveform, round(shift * clip.sample_rate))
            curve = offset_curve(model, video, late, max_offset_seconds)
            if curve and curve.best:
                errors[shift].append(1000 * (curve.best[0] - shift))
                curves.append((curve, errors[shift][-1]))
                depths.append(curve.best[1])
                found = True
        left_out += not found
        if found:
            sides.append(min(images.jpeg_size(record.frames[0]).numpy()))
            if other_audio is not None:
                curve = offset_curve(model, video, other_audio, max_offset_seconds)
                if curve and curve.best:
                    foreign.append(curve)
            other_audio = waveform
    measured = np.concatenate(list(errors.values()))
    if not len(measured):
        raise UserError('eval_records', eval_records,
                        f'none of {total} records has {clip.fps:g} fps, {clip.sample_rate} Hz and '
                        f'a window of {clip.window_seconds:g} s to measure the offset on.')
    frame_ms = 1000 / clip.fps
    is_right = np.array([abs(error) < frame_ms for _, error in curves])
    results = {
        'records': total, 'left_out': left_out, 'measurements': len(measured),
        'max_offset_seconds': max_offset_seconds,
        'median_error_ms': float(np.median(np.abs(measured))),
        'p90_error_ms': float(np.percentile(np.abs(measured), 90)),
        'bias_ms': float(np.median(measured)),
        'within_a_frame': float(np.mean(np.abs(measured) < frame_ms)),
        'by_shift_ms': {f'{1000 * shift:g}': float(np.median(np.abs(values)))
                        for shift, values in errors.items() if values},
        'right_depths': sorted(itertools.compress(depths, is_right)),
        'wrong_depths': sorted(
            [*(curve.best[1] for curve in foreign if curve.best),
             *itertools.compress(depths, ~is_right)]),
        'short_side': int(np.median(sides)),
    }

    def passes(curve: OffsetCurve) -> bool:
        return not doubt(curve, results, max_offset_seconds, min_confidence)

    determined = [abs(error) < frame_ms for curve, error in curves if passes(curve)]
    results |= {'min_confidence': min_confidence, 'determined': len(determined),
                'determined_within_a_frame': float(np.mean(determined)) if determined else None,
                'foreign': len(foreign), 'foreign_determined': sum(map(passes, foreign))}
    return OffsetCalibration(results, errors)


def _read(pattern: str) -> Iterator[tf.Tensor]:
    """The serialised records of a glob."""
    paths = [path for path, _ in find_shards(pattern, 'eval_records')]
    return progress.bar(
        tf.data.TFRecordDataset(paths), 'offset of shifted records', unit='record')


def _embed_record(
    model: TwoTower, record: record_files.Record,
) -> tuple[EmbeddedVideo | None, np.ndarray]:
    """The video of a record, None where its times do not fit the model; and its waveform."""
    clip, seconds = model.config.clip, record.frame_seconds.numpy()
    on_grid = len(seconds) and np.allclose(
        seconds - seconds[0], np.arange(len(seconds)) / clip.fps, rtol=0, atol=0.25 / clip.fps)
    if not on_grid or round(float(record.sample_rate)) != clip.sample_rate:
        return None, record.waveform.numpy()
    return embed_video(model, record.frames, seconds), record.waveform.numpy()


def describe(results: dict, fps: float) -> Iterator[str]:
    """Lines for the terminal, from the results of `calibrate` and the model's frame rate."""
    yield (f'{results["measurements"]} measurements on {results["records"] - results["left_out"]} '
           f'records ({results["left_out"]} left out): median error '
           f'{results["median_error_ms"]:.0f} ms, 90 % within {results["p90_error_ms"]:.0f} ms, '
           f'{100 * results["within_a_frame"]:.1f} % within one frame ({1000 / fps:g} ms), bias '
           f'{results["bias_ms"]:+.1f} ms.')
    for shift, value in results['by_shift_ms'].items():
        yield f'  audio shifted by {float(shift):+5.0f} ms: median error {value:.0f} ms'
    least = f'With a confidence of at least {results["min_confidence"]:g}'
    if results['determined']:
        yield (f'{least}, {results["determined"]} of them are determined, '
               f'{100 * results["determined_within_a_frame"]:.1f} % of these within one frame; and '
               f'{results["foreign_determined"]} of {results["foreign"]} with the audio of another '
               'record, which have no offset.')
    else:
        count = min(len(results['right_depths']), len(results['wrong_depths']))
        yield (f'{least}, none of them is determined: with {count} right or wrong answers to go by '
               f'the confidence is {count / (count + 1):.2f} at most; more records or more '
               'training raise it.')
