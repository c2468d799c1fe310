"""Your own files: a folder, a glob, one file, or a CSV that names them.

Video files of a folder and its subfolders, or its audio files where it has no videos. The name of
the folder directly below the input (below the last folder without a wildcard) is the label.

A CSV has a column video_path, audio_path or path (relative to the CSV's folder), and as wanted
start_seconds, end_seconds, split or fold, and columns with labels. One file may be named by several
lines with different times.
"""

import collections
import glob
import os
import re

from avts_tf.data.datasets.common import (
    AUDIO_SUFFIXES,
    VIDEO_SUFFIXES,
    Collection,
    Dataset,
    Source,
    collect,
    fold_name,
    line_error,
    media_files,
    path_text,
    read_table,
    read_times,
    refuse_label_column,
    seconds_text,
    suffix,
)
from avts_tf.errors import UserError

_PATH_COLUMNS = ('video_path', 'audio_path', 'path')
_RESERVED_COLUMNS = (*_PATH_COLUMNS, 'start_seconds', 'end_seconds', 'split', 'fold')


def read(input_path: str, label_column: str) -> Collection:
    """Reads a folder, a glob, a file or a CSV; see the head of this file."""
    if os.path.isfile(input_path) and suffix(input_path) not in VIDEO_SUFFIXES | AUDIO_SUFFIXES:
        return read_csv(input_path, label_column)
    refuse_label_column(label_column)
    return collect(sources_of(*_find_files(input_path)))


def sources_of(root: str, paths: list[str]) -> list[Source]:
    """Sources of files in a folder, labelled by the folder directly below it."""
    names = {path: path_text(os.path.relpath(path, root)) for path in paths}
    ids = _unique_ids(names)
    labels = {path: name.split('/')[0] if '/' in name else '' for path, name in names.items()}
    return [
        Source(ids[path], path, names[path], labels[path], group=names[path])
        for path in sorted(paths, key=lambda path: (names[path], path))
    ]


def read_csv(csv_path: str, label_column: str) -> Collection:
    """Reads a CSV as the head of this file describes it."""
    names, rows = read_table(csv_path)
    path_column = next((column for column in _PATH_COLUMNS if column in names), None)
    if path_column is None:
        raise UserError(
            None, csv_path, f'no column {" or ".join(map(repr, _PATH_COLUMNS))} in the first line, '
            f'which has {", ".join(names) or "none"}.')
    others = [name for name in names if name not in _RESERVED_COLUMNS]
    if label_column and label_column not in names:
        raise UserError('label_column', label_column, f'{csv_path} has no such label column; it '
                        f'has {", ".join(others) or "none"}.')
    label_column = label_column or (others[0] if others else '')
    if not rows:
        raise UserError(None, csv_path, 'no file in it, only the first line.')

    root = os.path.dirname(os.path.abspath(csv_path))
    pieces, seen = [], set()
    split_of: dict[str, str] = {}
    for line, row in rows:
        value = row[path_column]
        if not value:
            raise line_error(csv_path, line, f'{path_column} is empty.')
        path = os.path.normpath(os.path.join(root, value))
        times = read_times(csv_path, line, row, 'start_seconds', 'end_seconds')
        if (path, times) in seen:
            raise line_error(csv_path, line, f'{value} is named by an earlier line already, with '
                             'the same times; keep one.')
        seen.add((path, times))
        split = row.get('split') or fold_name(row.get('fold', ''))
        if split_of.setdefault(path, split) != split:
            raise line_error(
                csv_path, line, f'{value} is in {split_of[path] or "no part"!r} in an earlier line '
                f'and in {split!r} here; parts of one file belong on one side.')
        pieces.append((path, times, split, row.get(label_column, '') if label_column else ''))

    paths = list(split_of)
    if any(os.path.relpath(path, root).startswith(os.pardir) for path in paths):
        root = os.path.commonpath([os.path.dirname(path) for path in paths])
    data_paths = {path: path_text(os.path.relpath(path, root)) for path in paths}
    ids = _unique_ids(data_paths)
    return collect([
        Source(ids[path] + _times_text(*times), path, data_paths[path], label, split,
               data_paths[path], *times)
        for path, times, split, label in pieces
    ])


def _times_text(start: float, end: float | None) -> str:
    if not start and end is None:
        return ''
    return f'_{seconds_text(start)}_{"end" if end is None else seconds_text(end)}'


def _unique_ids(names: dict[str, str]) -> dict[str, str]:
    """Path → name without suffix where that is unique, else with it; of a dict path → name."""
    stems = {path: os.path.splitext(name)[0] for path, name in names.items()}
    counts = collections.Counter(stems.values())
    ids = {path: stems[path] if counts[stems[path]] == 1 else names[path] for path in names}
    return ids if len(set(ids.values())) == len(ids) else names


def _find_files(input_path: str) -> tuple[str, list[str]]:
    """(folder that names are relative to, absolute paths) of a folder, a glob or one file."""
    if os.path.isdir(input_path):
        root = os.path.abspath(input_path)
        paths = media_files(root, VIDEO_SUFFIXES) or media_files(root, AUDIO_SUFFIXES)
        if not paths:
            suffixes = ' '.join(sorted(VIDEO_SUFFIXES | AUDIO_SUFFIXES))
            raise UserError('input', input_path, 'no video or audio file in this folder or below '
                            f'it. Looked for {suffixes}; a glob or a CSV may name files of any '
                            'suffix.')
        return root, paths
    if os.path.isfile(input_path):
        return os.path.dirname(os.path.abspath(input_path)), [os.path.abspath(input_path)]
    paths = sorted(os.path.abspath(path) for path in glob.glob(input_path, recursive=True)
                   if not os.path.isdir(path))
    if not paths:
        raise UserError('input', input_path, 'no file matches.')
    fixed = re.split(r'[*?[]', input_path)[0]
    return os.path.abspath(os.path.dirname(fixed)), paths


DATASET = Dataset(read)
