"""How far something is, for people."""

import sys

import tqdm

QUIET_SECONDS = 5.0  # without a terminal, what takes less says nothing


def bar(items=None, title=None, line_seconds=QUIET_SECONDS, **options):
    """A bar of tqdm; where stderr is no terminal, a plain line now and then.

    Args:
        items: iterable to pass on, or None where `update` tells the progress.
        title: what is done.
        line_seconds: least time between two lines.
        **options: further ones of `tqdm.tqdm`.

    Returns:
        `tqdm.tqdm`.
    """
    if sys.stderr.isatty():
        return tqdm.tqdm(items, title, dynamic_ncols=True, **options)
    lines = {'file': _Lines(), 'ncols': 0, 'leave': False, 'mininterval': line_seconds, 'delay': QUIET_SECONDS}
    return tqdm.tqdm(items, title, **{**options, **lines})


class _Lines:
    """A file for tqdm that makes a line of stderr of each state."""

    def write(self, text):
        if text := text.strip('\r\n '):
            print(text, file=sys.stderr, flush=True)

    def flush(self):
        """Nothing is held back."""


def duration(seconds):
    """A duration: 3.2 s, 2 min 40.0 s, 1 h 2 min."""
    minutes, rest = divmod(round(float(seconds), 1), 60)
    if minutes < 60:
        return f'{minutes:.0f} min {rest:.1f} s' if minutes else f'{rest:.1f} s'
    return f'{minutes // 60:.0f} h {minutes % 60:.0f} min'
