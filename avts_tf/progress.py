"""Progress of long work, for people."""

import sys
from collections.abc import Iterable
from typing import Any

import tqdm

QUIET_SECONDS = 5.0  # without a terminal, work that takes less time shows nothing


def bar(
    items: Iterable | None = None, title: str | None = None, line_seconds: float = QUIET_SECONDS,
    **options: Any,
) -> tqdm.tqdm:
    """A bar of tqdm; where stderr is no terminal, a plain line now and then.

    Args:
        items: iterable to pass on, or None where the caller calls `update`.
        title: what is done.
        line_seconds: least time between two lines.
        **options: further ones of `tqdm.tqdm`.

    Returns:
        `tqdm.tqdm`.

    Example:
        >>> for batch in bar(batches, 'embedding', unit='batch'):
        ...     embed(batch)
    """
    if sys.stderr.isatty():
        return tqdm.tqdm(items, title, dynamic_ncols=True, **options)
    lines = {
        'file': _Lines(), 'ncols': 0, 'leave': False, 'mininterval': line_seconds,
        'delay': QUIET_SECONDS, 'position': 0,  # the cursor does not move to another bar's line
    }
    return tqdm.tqdm(items, title, **{**options, **lines})


class _Lines:
    """A file for tqdm that makes a line of stderr of each state."""

    def write(self, text: str) -> None:
        if text := text.strip('\r\n '):
            print(text, file=sys.stderr, flush=True)

    def flush(self) -> None:
        """Nothing is held back."""


def duration(seconds: float) -> str:
    """A duration as text: 3.2 s, 2 min 40.0 s, 1 h 2 min."""
    minutes, rest = divmod(round(float(seconds), 1), 60)
    if minutes < 60:
        return f'{minutes:.0f} min {rest:.1f} s' if minutes else f'{rest:.1f} s'
    return f'{minutes // 60:.0f} h {minutes % 60:.0f} min'
