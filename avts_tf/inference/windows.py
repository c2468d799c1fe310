"""The rule of windows, stated once for arrays, for streams and for the exported graphs.

Items are samples or frames. Window i starts at item round(i * hop), halves up, where the hop is
taken to the microsecond. There are 1 + ceil((items - window) / hop) windows, at least one, but none
that starts after the end. So every item is in a window where the hop is no longer than one. What
the last window lacks is silence, or the last frame again. The time of a window is its centre.

A centred stream has half a window of silence, or of the first and the last frame, before and after
it, so that the centre of the first window is item 0.
"""

from __future__ import annotations

import fractions
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

MICROSECONDS = 1_000_000

# A number of items as a fraction: numerator and denominator.
Hop = tuple['int | tf.Tensor', int]


def count_windows(
    items: int | tf.Tensor, window: int, hop: Hop, minimum: Callable = min, maximum: Callable = max,
) -> int | tf.Tensor:
    """Number of windows in a stream.

    The arithmetic is exact, and the same for integers and for int64 tensors.

    Args:
        items: length of the stream, at least 1.
        window: items in a window.
        hop: items from one window to the next.
        minimum, maximum: of two such numbers; `tf.minimum` and `tf.maximum` for tensors.
    """
    last = -(-maximum(items - window, 0) * hop[1] // hop[0])  # hops until the end is covered
    return minimum(1 + last, -(-items * hop[1] // hop[0]))


def window_start(index: int | np.ndarray | tf.Tensor, hop: Hop) -> Any:
    """The first item of window number `index`, of the same type; see `count_windows`."""
    return (2 * index * hop[0] + hop[1]) // (2 * hop[1])


def exact_hop(hop_seconds: float | None, window: int, rate: float) -> Hop:
    """A hop in items.

    Args:
        hop_seconds: seconds; None is a window.
        window: items in a window.
        rate: items per second.
    """
    if hop_seconds is None:
        return window, 1
    seconds = fractions.Fraction(round(hop_seconds * MICROSECONDS), MICROSECONDS)
    return (seconds * fractions.Fraction(rate)).as_integer_ratio()


def sliding_windows(
    blocks: Iterable[np.ndarray], window: int, rate: float, hop_seconds: float | None = None,
    centered: bool = False, repeat_ends: bool = False,
) -> Iterator[tuple[float, np.ndarray]]:
    """Cuts a stream into windows. Holds a window and a block in memory.

    Args:
        blocks: arrays [items, ...], which follow each other.
        window: items in a window.
        rate: items per second.
        hop_seconds: step between windows; None sets them end to end.
        centered: whether the first window's centre is the first item.
        repeat_ends: whether what is missing is the first or last item again, and not zeros.

    Yields:
        (centre in seconds, array [window, ...]).
    """
    hop = exact_hop(hop_seconds, window, rate)
    before = window // 2 if centered else 0
    # first: place of held[0] in the stream, whose first item has place 0
    held: np.ndarray | None = None
    first, number = -before, 0

    def padded(items: np.ndarray, front: int, back: int):
        mode: Literal['edge', 'constant'] = 'edge' if repeat_ends else 'constant'
        return np.pad(items, [(front, back)] + [(0, 0)] * (items.ndim - 1), mode)

    def take(until: float):
        """Yields the windows that end within what is held, up to number `until`."""
        nonlocal held, first, number
        assert held is not None  # there was a block
        while number < until:
            start = window_start(number, hop) - before
            if start + window > first + len(held):
                # The last item stays: it may have to be repeated.
                passed = min(start - first, len(held) - 1)
                held, first = held[passed:], first + passed
                return
            yield (start + window / 2) / rate, held[start - first:start - first + window]
            number += 1

    for block in blocks:
        if not len(block):
            continue
        held = padded(block, before, 0) if held is None else np.concatenate([held, block])
        yield from take(math.inf)
    if held is None:
        return
    if centered:
        held = padded(held, 0, window - before)
    count = count_windows(first + before + len(held), window, hop)
    held = padded(held, 0, window)
    yield from take(count)
