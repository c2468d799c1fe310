"""Separates real jumps in the times of audio frames from the jitter of containers."""

import collections
import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import av

# How far the times of audio frames may be off without a gap between them: half of a packet, but
# within these bounds. Blocks of Vorbis are off by 44 % of the longest; a packet that is missing
# shifts all that follows by a whole one.
_LEAST_JITTER_SECONDS, _GREATEST_JITTER_SECONDS = 0.008, 0.05
_LEVEL_SECONDS = 1.0  # stretch on either side of a gap that must agree on it
_GREATEST_PACE = 4.0  # seconds by the file's clock in which a second of audio may last


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
    def error(self) -> float:
        """How much later it is than frames without a gap would have it, up to a constant.

        Only of a frame with a time.
        """
        assert self.seconds is not None
        return self.seconds - self.place


def with_jumps(
    frames: Iterable[tuple[float | None, av.AudioFrame]],
) -> Iterator[tuple[float | None, av.AudioFrame, bool]]:
    """Marks where audio is missing between frames, or is there twice.

    Args:
        frames: (presentation time in seconds or None, frame).

    Yields:
        (time, frame, whether audio is missing before it or is there twice), of the frames that
        hold samples.
    """
    before: collections.deque[_Timed] = collections.deque()
    ahead: collections.deque[_Timed] = collections.deque()
    place, has_clock = 0.0, None

    def settle() -> tuple[float | None, av.AudioFrame, bool]:
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


def jitter_seconds(longest: float, frame: av.AudioFrame) -> float:
    """How far the times of frames may be off without a gap.

    Containers know those of blocks, pages and packets only, to a tick.

    Args:
        longest: duration in seconds of the longest frame.
        frame: one of them.
    """
    half_a_packet = min(0.5 * longest, _GREATEST_JITTER_SECONDS)
    return max(_LEAST_JITTER_SECONDS, half_a_packet, 2 * float(frame.time_base or 0))


def _has_clock(items: Iterable[_Timed]) -> bool:
    """Whether the times can be true: some AVI files count samples where they state packets."""
    times = [(item.seconds, item.place) for item in items if item.seconds is not None]
    paces = [(b_seconds - a_seconds) / (b_place - a_place)
             for (a_seconds, a_place), (b_seconds, b_place) in itertools.pairwise(times)]
    return len(paces) < 4 or statistics.median(paces) < _GREATEST_PACE


def _jumps(before: Sequence[_Timed], after: Sequence[_Timed]) -> bool:
    """Whether the errors of frames change level, for all of a second, at the first of `after`."""
    if after[0].seconds is None:
        return False
    earlier = [item.error for item in before if item.seconds is not None]
    if not earlier:
        return False
    step = after[0].error - earlier[-1]
    least = jitter_seconds(max(item.length for item in (*before, *after)), after[0].frame)
    if abs(step) <= least:
        return False
    # The quarters of the two levels that lie nearest to each other, so that neither single frames
    # nor a jitter that is as large makes or hides a jump.
    sign = math.copysign(1, step)
    earlier = sorted(sign * error for error in earlier)
    later = sorted(sign * item.error for item in after if item.seconds is not None)
    return later[len(later) // 4] - earlier[-1 - len(earlier) // 4] > least
