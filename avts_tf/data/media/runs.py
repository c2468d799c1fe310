"""Resamples audio frames without a gap between them, on the clock of their file."""

import math
import statistics

import av
import numpy as np

from avts_tf.data.media.gaps import jitter_seconds

_FADE_SECONDS = 0.01


class Run:
    """Audio frames without a gap between them, on their way through a resampler.

    A run's time is what its first frame says, as far as the others of its first ten seconds agree,
    each to half a tick: where a container rounds times to milliseconds, that is exact to much less
    than one. Where they cannot all be right it is the median, or without video the first frame's
    time. Where the clocks of the audio and of the file run apart, the audio is made longer or
    shorter, some milliseconds at a time, without a break.

    Args:
        seconds: time of the first frame.
        frame: the first frame, which is yet to be added.
        sample_rate: Hz of the result.
        follows: whether the audio follows the file's clock, as it does with video.
    """

    def __init__(
        self, seconds: float, frame: av.AudioFrame, sample_rate: int, follows: bool,
    ) -> None:
        self._setup, self._rate, self._out_rate = _setup(frame), frame.sample_rate, sample_rate
        self._follows, self._tick = follows, float(frame.time_base)
        self._start, self._jitter_seconds = seconds, 0.0
        self._offset: float | None = None
        self._errors: list[float] = []
        # Samples at the file's rate: added, and surely not padding. At the output's: taken, and
        # inserted to follow the clock.
        self._added = self._sounding = self._safe = self._taken = self._inserted = 0
        self._resampler = av.AudioResampler('s16', 'mono', sample_rate)
        self._pieces: list[av.AudioFrame | np.ndarray] = []
        # libswresample takes channels in no known order for those of the usual one of their number.
        channels = frame.layout.nb_channels
        unordered = frame.layout.name.startswith(('ambisonic', f'{channels} '))
        self._average = channels > 2 and unordered

    @property
    def end(self) -> float:
        """Time in seconds at which the run ends."""
        return self._start + self._sounding / self._rate + self._inserted / self._out_rate

    @property
    def waiting_seconds(self) -> float:
        """Audio that has been added and not been taken."""
        return self._added / self._rate - self._taken / self._out_rate

    def takes(self, frame: av.AudioFrame) -> bool:
        """Whether a frame has the same format, channels and rate."""
        return _setup(frame) == self._setup

    def add(self, seconds: float | None, frame: av.AudioFrame) -> None:
        """Adds a frame and its presentation time, where it has one."""
        if seconds is not None:
            self._errors.append(seconds - self._start - self._added / self._rate)
            jitter = jitter_seconds(frame.samples / self._rate, frame)
            self._jitter_seconds = max(self._jitter_seconds, jitter)
        self._safe = self._added
        # Where ticks are samples, a shorter duration is that of the last frame without the codec's
        # padding.
        sounding = frame.samples
        if frame.duration and self._tick * self._rate == 1:
            sounding = min(sounding, frame.duration)
        self._sounding = self._added + sounding
        self._added += frame.samples
        if self._average:
            frame = _averaged(frame)
        frame.pts = None  # the resampler is to count samples
        self._pieces += self._resampler.resample(frame)

    def take(self) -> tuple[float, np.ndarray]:
        """Takes what is surely no padding of what has been added.

        Returns:
            Time of the first sample in seconds, and int16 [samples].
        """
        return self._cut(math.floor(self._safe * self._out_rate / self._rate))

    def finish(self) -> tuple[float, np.ndarray]:
        """As `take`, for the rest."""
        self._pieces += self._resampler.resample(None)
        return self._cut(round(self._sounding / self._rate * self._out_rate))

    def _cut(self, until: int) -> tuple[float, np.ndarray]:
        if self._offset is None:
            self._offset = self._estimate()
        before = (self._taken + self._inserted) / self._out_rate
        seconds = self._start + self._offset + before
        samples = np.concatenate([np.zeros(0, np.int16)] + [
            piece if isinstance(piece, np.ndarray) else piece.to_ndarray().reshape(-1)
            for piece in self._pieces
        ])
        count = max(0, until - self._taken)
        self._pieces = [samples[count:]]
        samples = samples[:count]
        self._taken += len(samples)
        return seconds, self._follow(samples) if self._follows else samples

    def _estimate(self) -> float:
        """By how much the run is later than its first frame says, in seconds."""
        least, greatest = (pick(self._errors, default=0.0) for pick in (min, max))
        if greatest - least <= self._tick:
            return min(max(0.0, greatest - self._tick / 2), least + self._tick / 2)
        return statistics.median(self._errors) if self._follows else 0.0

    def _follow(self, samples: np.ndarray) -> np.ndarray:
        """Stretches samples where the file's clock and the run's differ by more than the jitter."""
        apart = 0.0
        if self._errors:
            assert self._offset is not None  # `_cut` has set it
            inserted = self._inserted / self._out_rate
            apart = statistics.median(self._errors) - self._offset - inserted
        self._errors = []
        count = round(apart * self._out_rate)
        fade = round(_FADE_SECONDS * self._out_rate)
        if abs(apart) <= self._jitter_seconds or len(samples) < 2 * (abs(count) + fade):
            return samples
        self._inserted += count
        return _stretched(samples, count, fade)


def _stretched(samples: np.ndarray, count: int, fade: int) -> np.ndarray:
    """Samples with `count` more of them, or fewer where it is negative.

    In their middle they fade over to the same samples, shifted.
    """
    middle = (len(samples) - fade) // 2
    weights = (np.arange(fade) + 0.5) / fade
    here, there = samples[middle:middle + fade], samples[middle - count:middle - count + fade]
    joint = np.round((1 - weights) * here + weights * there).astype(np.int16)
    return np.concatenate([samples[:middle], joint, samples[middle - count + fade:]])


def _setup(frame: av.AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _averaged(frame: av.AudioFrame) -> av.AudioFrame:
    """An audio frame whose one channel is the mean of those of another."""
    samples = frame.to_ndarray()
    planar = frame.format.is_planar
    channels = samples if planar else samples.reshape(-1, frame.layout.nb_channels).T
    mean = channels.mean(axis=0, dtype=np.float64)
    if samples.dtype.kind != 'f':
        full = 2.0 ** (8 * samples.itemsize - 1)
        mean = mean / full - (samples.dtype.kind == 'u')
    averaged = av.AudioFrame.from_ndarray(mean.astype(np.float32)[None], 'flt', 'mono')
    averaged.sample_rate, averaged.time_base = frame.sample_rate, frame.time_base
    return averaged
