"""The synthetic worlds: videos made by a program, whose synchronisation is known exactly.

One file per world holds all that is known of it. To add one, add one file NAME.py to this folder
with a constant `WORLD`; nothing else need change, and `--world=NAME` takes it. `drawing` is what
the files share.
"""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from avts_tf.errors import UserError

WORLDS = tuple(sorted({module.name for module in pkgutil.iter_modules(__path__)} - {'drawing'}))


class World(NamedTuple):
    """What a file of this folder has to tell.

    Attributes:
        make_video: makes video `index`, from 0, of the set with `seed`: called with index and seed,
            and by name with seconds, fps, size, sample_rate and difficulty. Returns a
            `records.Video`, whose labels are called KIND:NAME, and the truth about it, a list of
            tuples. The same arguments give the same video.
        truth_name: what the truth is called: it is written to OUTPUT.TRUTH_NAME.csv.
        truth_columns: columns of that file, after example_id.
        truth_row: from one tuple of the truth to a line of it.
        totals: from the truth of all videos to what the summary says of it.
    """

    make_video: Callable[..., tuple]
    truth_name: str
    truth_columns: tuple[str, ...]
    truth_row: Callable[[Any], tuple]
    totals: Callable[[Sequence[Any]], dict[str, int]]


def find_world(name: str) -> World:
    """The `WORLD` of a file of this folder.

    Raises:
        UserError: there is none of that name.

    Example:
        >>> find_world('struck').truth_name
        'strikes'
    """
    if name not in WORLDS:
        raise UserError('world', name, f'no such world; use one of {", ".join(WORLDS)}.')
    return importlib.import_module(f'{__name__}.{name}').WORLD
