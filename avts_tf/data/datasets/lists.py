"""Collections of CLASS/FILE whose published splits are named by text files."""

import os
from collections.abc import Callable, Iterator

from avts_tf.data.datasets.common import (
    VIDEO_SUFFIXES,
    Collection,
    collect,
    files_below,
    make_source,
    media_files,
    path_text,
)
from avts_tf.errors import UserError


def read_listed(
    input_path: str, lists: dict[str, list[str]], what: str, group: Callable[[str, str], str],
) -> Collection:
    """A collection of CLASS/FILE whose parts are named by lists.

    Args:
        input_path: folder with the lists and the videos.
        lists: name of a part → list of 'CLASS/FILE'.
        what: the lists' names, for the message.
        group: function (class, stem of the file name) → group.

    Returns:
        `Collection`.

    Raises:
        UserError: there is no folder, or no list in it.
    """
    if not os.path.isdir(input_path):
        raise UserError('input', input_path, f'must be the folder with the videos and {what}.')
    if not lists:
        raise UserError('input', input_path, f'no {what} in this folder or below it.')
    root = os.path.abspath(input_path)
    paths: dict[str, str] = {}
    for path in media_files(root, VIDEO_SUFFIXES):
        paths.setdefault('/'.join(path_text(path).split('/')[-2:]), path)
    names = sorted(set(paths).union(*lists.values()))
    ids = {name: os.path.splitext(name)[0] for name in names}
    return collect(
        [make_source(ids[name], root, paths.get(name) or os.path.join(root, name),
                     name.split('/')[0], group=group(*ids[name].split('/'))) for name in names],
        {part: {ids[name] for name in members} for part, members in lists.items()},
    )


def read_lists(input_path: str, pattern: str) -> Iterator[tuple[str, list[list[str]]]]:
    """(name of the file, its lines as lists of words) of each list in a folder and below it."""
    for path in files_below(input_path, pattern):
        with open(path, encoding='utf-8', errors='replace') as file:
            yield os.path.basename(path), [line.split() for line in file if line.strip()]
