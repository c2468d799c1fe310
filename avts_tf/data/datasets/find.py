"""Finds the sources of a collection by the name of its dataset, whole or a part of it."""

import collections
import glob
import hashlib
import importlib
import os
import pkgutil

from avts_tf.data.datasets import plain
from avts_tf.data.datasets.common import (
    AUDIO_SUFFIXES,
    VIDEO_SUFFIXES,
    Collection,
    Dataset,
    Source,
    media_files,
)
from avts_tf.errors import UserError
from avts_tf.files import file_problem

SIDES = ('train', 'held')  # of `hold_out`


def _find_datasets() -> dict[str, Dataset]:
    """Name → `Dataset` of each file in this folder that has one; '' is for plain files."""
    package = __name__.rpartition('.')[0]
    found = {}
    for module in pkgutil.iter_modules([os.path.dirname(__file__)]):
        if module.name != __name__.rpartition('.')[2]:
            dataset = getattr(importlib.import_module(f'{package}.{module.name}'), 'DATASET', None)
            if dataset:
                found[module.name] = dataset
    return {'': found.pop('plain'), **found}


DATASETS: dict[str, Dataset] = _find_datasets()


def find_sources(
    input_path: str, dataset: str = '', split: str = '', label_column: str = '',
) -> list[Source]:
    """The sources of a collection, or of one of its published parts.

    Args:
        input_path: folder, glob, CSV or file; a folder is searched with all its subfolders.
        dataset: how it is laid out, a key of `DATASETS`; '' is plain files (see `plain`).
        split: name of a published part, or several separated by commas; '' is everything.
        label_column: column of a CSV that holds the label; '' takes the first that has no other
            meaning.

    Returns:
        List of `Source`, in the order of the input: as a CSV names them, else sorted by path. The
        files need not exist.

    Raises:
        UserError: the input is not there, is not laid out so, or has no such part.
    """
    return take_split(read_collection(input_path, dataset, label_column), split)


def find_media(input_path: str) -> list[Source]:
    """As `find_sources` for plain input, but of a folder both its videos and its audio files."""
    if os.path.isdir(input_path):
        paths = media_files(os.path.abspath(input_path), VIDEO_SUFFIXES | AUDIO_SUFFIXES)
        if paths:
            return plain.sources_of(os.path.abspath(input_path), paths)
    return find_sources(input_path)


def read_collection(input_path: str, dataset: str = '', label_column: str = '') -> Collection:
    """Reads the lists of a collection; arguments and errors as of `find_sources`."""
    if dataset not in DATASETS:
        raise UserError('dataset', dataset, f'must be one of {", ".join(filter(None, DATASETS))}, '
                        'or empty for your own files.')
    is_glob = not os.path.lexists(input_path) and glob.has_magic(input_path)
    if not os.path.isdir(input_path) and not is_glob:
        problem = file_problem(input_path)
        if problem:
            raise UserError('input', input_path, f'{problem}; give a file, a folder, a glob or a '
                            'CSV.')
    collection = DATASETS[dataset].read(input_path, label_column)
    if not collection.sources:
        raise UserError('input', input_path,
                        f'nothing of {dataset or "video or audio"} is named there.')
    counts = collections.Counter(source.example_id for source in collection.sources)
    name, count = max(counts.items(), key=lambda item: item[1])
    if count > 1:
        raise UserError('input', input_path, f'{name} is named more than once; keep one.')
    return collection


def take_split(collection: Collection, split: str) -> list[Source]:
    """The sources of published parts, each with its part's name.

    Args:
        collection: a `Collection`.
        split: name of a part, or several separated by commas; '' is everything.

    Returns:
        List of `Source`.

    Raises:
        UserError: the collection has no such part.
    """
    if not split:
        return collection.sources
    members: dict[str, str] = {}
    for name in split.split(','):
        if name not in collection.splits:
            names = ', '.join(sorted(collection.splits))
            has = f'it has {names}' if names else 'it is published without parts'
            raise UserError('split', split, f'the collection has no part {name!r}; {has}.')
        members |= dict.fromkeys(collection.splits[name], name)
    return [source._replace(split=members[source.example_id])
            for source in collection.sources if source.example_id in members]


def hold_out(sources: list[Source], fraction: float, side: str) -> list[Source]:
    """One side of a split that follows from the names of the groups alone.

    A group is held out where a hash of its name says so: two parts of one video never are on both
    sides, whatever other files come or go no file changes sides, and what a smaller fraction holds
    out a larger one does too.

    Args:
        sources: list of `Source`.
        fraction: about this part of the groups is held out, 0 to 1.
        side: 'train' or 'held'.

    Returns:
        List of `Source`, in the same order.
    """
    held = side == 'held'
    return [source for source in sources if (_hashed(source.group) < fraction) == held]


def _hashed(group: str) -> float:
    """A number in [0, 1) that follows from a name."""
    digest = hashlib.sha256(group.encode('utf-8', 'surrogateescape')).digest()
    return int.from_bytes(digest[:6], 'big') / 256**6
