"""The offset between audio and video, from the distance of the two towers' embeddings.

Windows of the video are compared with windows of the audio that start up to `max_offset_seconds`
earlier or later. The mean distance over the video windows is a curve over the offset, and its
lowest point is the answer. **A positive offset means that the audio is late**: what is seen at time
t is heard at t + offset.

`offset_calibration.py` measures the errors and the confidence on records, `offset_files.py`
measures files.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.special
import tensorflow as tf

from avts_tf.data import images
from avts_tf.models.audio import embed_waveform
from avts_tf.models.two_tower import TwoTower

HOP_SECONDS = 0.01      # step of the offsets
MOST_POSITIONS = 64     # video windows, spread over the file
LEAST_POSITIONS = 0.25  # share of them that must have audio at an offset for it to count
SILENT_SAMPLE = 8       # |sample| up to here is digital silence, as shifted or padded audio ends in
EDGE_STEPS = 3          # neighbours that the lowest point needs on both sides, to be a minimum
HALVES_APART_SECONDS = 0.05  # between the lowest points of both halves of a file, at most
RIVAL_DEPTH = 0.9       # share of the lowest point's depth from which another minimum is a rival
LEAST_VARIANCE = 1e-6   # of depths, against division by zero
_BATCH = 64


class OffsetCurve(NamedTuple):
    """Distance between video and audio over the offset of the audio.

    Attributes:
        offset_seconds: float64 [N], positive where the audio is taken to be late.
        distance: float64 [N], mean over the video windows; NaN where too few of them have audio.
        halves: float64 [2, N], the same over the first and the second half of the windows.
        positions: number of video windows.
    """

    offset_seconds: np.ndarray
    distance: np.ndarray
    halves: np.ndarray
    positions: int

    @property
    def best(self) -> tuple[float, float] | None:
        """The lowest point, interpolated between the steps; None without any point.

        Returns:
            Its offset in seconds, and its depth below the median of the curve.
        """
        if np.isnan(self.distance).all():
            return None
        lowest = int(np.nanargmin(self.distance))
        offset = self.offset_seconds[lowest]
        before, here, after = (self.distance[i] if 0 <= i < len(self.distance) else np.nan
                               for i in range(lowest - 1, lowest + 2))
        if before + after > 2 * here:  # false too where a neighbour is missing
            # Vertex of the parabola through the three.
            offset += HOP_SECONDS * (before - after) / (2 * (before + after - 2 * here))
        return float(offset), float(np.nanmedian(self.distance) - here)

    @property
    def at_edge(self) -> bool:
        """Whether a neighbour of the lowest point is missing: the true one may lie beyond."""
        known = np.pad(np.isfinite(self.distance), EDGE_STEPS)
        lowest = int(np.nanargmin(self.distance))  # EDGE_STEPS further on in `known`
        return not known[lowest:lowest + 2 * EDGE_STEPS + 1].all()

    @property
    def has_rival(self) -> bool:
        """Whether another minimum is nearly as deep, as with events that repeat."""
        depths = np.nanmedian(self.distance) - self.distance
        lowest = int(np.nanargmin(self.distance))
        shallow = np.flatnonzero(~(depths > depths[lowest] / 2))  # NaN too
        start = max(shallow[shallow < lowest], default=0)
        end = min(shallow[shallow > lowest], default=len(depths))
        others = np.r_[depths[:start], depths[end:]]
        return bool((others > RIVAL_DEPTH * depths[lowest]).any())

    @property
    def halves_disagree(self) -> bool:
        """Whether both halves are lowest at other offsets, as where the sync drifts or jumps."""
        if np.isnan(self.halves).all(1).any():
            return False
        first, second = self.offset_seconds[np.nanargmin(self.halves, axis=1)]
        return bool(abs(first - second) > HALVES_APART_SECONDS + HOP_SECONDS / 2)


class EmbeddedVideo(NamedTuple):
    """Windows of a video.

    Attributes:
        start_seconds: float64 [P], time at which the audio of each window begins.
        embeddings: float32 [P, D].
    """

    start_seconds: np.ndarray
    embeddings: np.ndarray


def embed_video(
    model: TwoTower, frames: tf.Tensor, frame_seconds: np.ndarray,
) -> EmbeddedVideo | None:
    """Embeds windows that are spread over a video.

    Args:
        model: trained model.
        frames: string [F], JPEGs of one size in steps of 1 / `clip.fps` of the model.
        frame_seconds: float [F], time of the frame that each step shows, which may be off the
            step's.

    Returns:
        An `EmbeddedVideo`; None where the video is shorter than a window.
    """
    clip = model.config.clip
    most = len(frames) - clip.frames
    if most < 0:
        return None
    pixels = _pixels(frames, clip.frame_size).numpy()
    starts = np.unique(np.linspace(0, most, min(MOST_POSITIONS, most + 1)).round().astype(int))
    embeddings = _embed(lambda windows: model.video_tower(windows, training=False), pixels,
                        clip.frames, starts)
    off_step = np.asarray(frame_seconds, np.float64) - np.arange(len(frames)) / clip.fps
    shift = [off_step[i:i + clip.frames].mean() for i in starts]
    return EmbeddedVideo(starts / clip.fps + shift, embeddings)


def offset_curve(
    model: TwoTower, video: EmbeddedVideo | None, waveform: np.ndarray,
    max_offset_seconds: float = 1.0, waveform_seconds: float = 0.0,
) -> OffsetCurve | None:
    """Compares a video with its audio at all offsets.

    Args:
        model: trained model.
        video: result of `embed_video`.
        waveform: int16 [samples] at the model's `clip.sample_rate`.
        max_offset_seconds: offsets range from minus to plus this.
        waveform_seconds: time of sample 0, on the clock of the video's times.

    Returns:
        An `OffsetCurve`; None where video or audio is shorter than a window.

    Example:
        >>> curve = offset_curve(model, embed_video(model, frames, seconds), waveform)
        >>> curve.best
        (0.082..., 0.41...)
    """
    clip = model.config.clip
    audible = np.flatnonzero(np.abs(waveform.astype(np.int32)) > SILENT_SAMPLE)
    if video is None or not len(audible):
        return None
    first, last = audible[0], audible[-1] + 1 - clip.window_samples
    steps = round(max_offset_seconds / HOP_SECONDS)
    offsets = np.arange(-steps, steps + 1) * HOP_SECONDS
    seconds = video.start_seconds[:, None] + offsets - waveform_seconds
    samples = np.round(seconds * clip.sample_rate).astype(int)  # [positions, offsets]
    within = (samples >= first) & (samples <= last)
    if not within.any():
        return None
    starts, index = np.unique(samples[within], return_inverse=True)
    of_audio = _embed(lambda windows: embed_waveform(model.audio_tower, windows), waveform,
                      clip.window_samples, starts)
    of_video = video.embeddings[np.nonzero(within)[0]]
    distance = np.full(samples.shape, np.nan)
    distance[within] = np.linalg.norm(of_video - of_audio[index], axis=-1)
    count = len(distance)  # of one window, both halves are it
    halves = [_mean_over_windows(distance[:(count + 1) // 2]),
              _mean_over_windows(distance[count // 2:])]
    return OffsetCurve(offsets, _mean_over_windows(distance), np.stack(halves), count)


def _mean_over_windows(distance: np.ndarray) -> np.ndarray:
    """Mean of float64 [P, N] over P, NaN where too few are known: float64 [N]."""
    enough = np.isfinite(distance).sum(0) >= max(1, LEAST_POSITIONS * len(distance))
    mean = np.full(distance.shape[1], np.nan)
    mean[enough] = np.nanmean(distance[:, enough], axis=0)
    return mean


def _embed(
    tower: Callable[[tf.Tensor], dict[str, tf.Tensor]], stream: np.ndarray, length: int,
    starts: np.ndarray,
) -> np.ndarray:
    """Embeddings of the windows of a stream that begin at `starts`: float32 [len(starts), D]."""
    return np.concatenate([
        tower(tf.constant(np.stack([stream[i:i + length] for i in starts[k:k + _BATCH]])))
        ['embedding'].numpy()
        for k in range(0, len(starts), _BATCH)
    ])


def _pixels(frames: tf.Tensor, size: int) -> tf.Tensor:
    """JPEGs of one size, string [F], to their centred squares, uint8 [F, size, size, 3]."""
    shape = images.jpeg_size(frames[0])
    return tf.map_fn(lambda jpeg: images.decode_square(jpeg, shape, size), frames,
                     fn_output_signature=tf.TensorSpec([size, size, 3], tf.uint8))


def confidence_of(depth: float, calibration: dict) -> float | None:
    """How likely a curve's lowest point is the offset, if half of all curves are of audio in sync.

    A discriminant of one variable: depths of right answers and of wrong ones are taken to be
    normally distributed with one variance (Fisher 1936). On videos unlike those of the calibration
    curves are less deep, so that the answer is less confident.

    Args:
        depth: of the curve, see `OffsetCurve.best`.
        calibration: results of `offset_calibration.calibrate`, or {}.

    Returns:
        0 to N / (N + 1), so that N right or wrong answers never give full confidence where they are
        few. None without two of each.
    """
    right, wrong = (np.array(calibration.get(name, [])) for name in ('right_depths',
                                                                     'wrong_depths'))
    count = min(len(right), len(wrong))
    if count < 2:
        return None
    variance = max((right.var(ddof=1) + wrong.var(ddof=1)) / 2, LEAST_VARIANCE)
    # Towers that have learned nothing have wrong answers that are as deep.
    apart = max(right.mean() - wrong.mean(), 0.0)
    odds = apart / variance * (depth - (right.mean() + wrong.mean()) / 2)
    return float(min(scipy.special.expit(odds), count / (count + 1)))


def doubt(
    curve: OffsetCurve, calibration: dict, max_offset_seconds: float, min_confidence: float,
) -> tuple[str, str] | None:
    """Why the lowest point of a curve is no answer.

    Args:
        curve: has a lowest point.
        calibration: results of `offset_calibration.calibrate`, or {}.
        max_offset_seconds: what the curve was made with.
        min_confidence: least confidence of an answer, 0 to 1.

    Returns:
        (reason, in words), the reason one of 'no_calibration', 'at_edge', 'low_confidence',
        'ambiguous' and 'halves_disagree'; None where the lowest point is an answer.
    """
    best = curve.best
    assert best is not None
    confidence = confidence_of(best[1], calibration)
    if confidence is None:
        return 'no_calibration', 'the run has no calibration on two records or more'
    if max_offset_seconds > (calibrated := calibration['max_offset_seconds']):
        return 'no_calibration', (f'the calibration covers offsets of up to {calibrated:g} s only; '
                                  'calibrate again with more')
    if curve.at_edge:
        return 'at_edge', ('the curve is lowest at the edge of what could be compared; search a '
                           'greater offset')
    if confidence < min_confidence:
        return 'low_confidence', (f'confidence {confidence:.2f} is below the least one of '
                                  f'{min_confidence:g}')
    if curve.has_rival:
        return 'ambiguous', ('the curve has another minimum nearly as deep, as with events that '
                             'repeat')
    if curve.halves_disagree:
        return 'halves_disagree', ('the first and the second half are lowest at offsets more than '
                                   f'{1000 * HALVES_APART_SECONDS:g} ms apart, as where the sync '
                                   'drifts or the file was edited')
    return None
