"""What the files of all collections share: `Source`, and the reading of tables and folders."""

import collections
import csv
import glob
import math
import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from avts_tf.errors import UserError

VIDEO_SUFFIXES = frozenset((
    '.3g2', '.3gp', '.asf', '.avi', '.dv', '.f4v', '.flv', '.m2ts', '.m4v', '.mkv', '.mov', '.mp4',
    '.mpeg', '.mpg', '.mts', '.mxf', '.ogv', '.rm', '.rmvb', '.ts', '.vob', '.webm', '.wmv',
))
AUDIO_SUFFIXES = frozenset((
    '.aac', '.ac3', '.aif', '.aiff', '.amr', '.au', '.caf', '.dts', '.flac', '.m4a', '.mka', '.mp2',
    '.mp3', '.oga', '.ogg', '.opus', '.ra', '.w64', '.wav', '.wma', '.wv',
))


class Source(NamedTuple):
    """One piece of a collection that becomes one record.

    Attributes:
        example_id: unique name, with '/'.
        path: where to read it, absolute.
        data_path: the path below the collection's folder, with '/'.
        label: name of its class, or ''.
        split: name of the published part that it is in, or ''.
        group: name of the video or recording that it is cut from; what has the same belongs to the
            same side of every split.
        start_seconds: where it begins in the file.
        end_seconds: where it ends in the file; None is the file's end.
    """

    example_id: str
    path: str
    data_path: str
    label: str = ''
    split: str = ''
    group: str = ''
    start_seconds: float = 0.0
    end_seconds: float | None = None


class Collection(NamedTuple):
    """All of a collection.

    Attributes:
        sources: list of `Source`, in the order of the input. Where a source is in several
            published parts, its `split` is ''.
        splits: dict, name of each published part → set of example ids.
        labels: list of the names of all classes, sorted.
    """

    sources: list[Source]
    splits: dict[str, set[str]]
    labels: list[str]


class Dataset(NamedTuple):
    """All that is known of a published collection.

    Attributes:
        read: function (input path, column of a CSV that holds the label, or '') → `Collection`. It
            raises a `UserError` where the input is not laid out so.
        audio_only: whether it has no video.
        clip_seconds: length of its clips, to which decoded ones are padded or cut; None where they
            differ.
        folds: number of published folds of a cross-validation; 0 where it has none.
        splits: names of published splits, each with parts `train` + name and `test` + name.
        windows_per_clip: windows of a clip whose scores are averaged when clips are classified.
    """

    read: Callable[[str, str], Collection]
    audio_only: bool = False
    clip_seconds: float | None = None
    folds: int = 0
    splits: tuple[str, ...] = ()
    windows_per_clip: int = 10


def collect(
    sources: list[Source], splits: dict[str, set[str]] | None = None,
    labels: Iterable[str] | None = None,
) -> Collection:
    """A `Collection` of sources; parts and labels are the sources' own where none are given."""
    if splits is None:
        splits = collections.defaultdict(set)
        for source in sources:
            if source.split:
                splits[source.split].add(source.example_id)
    labels = {source.label for source in sources} - {''} if labels is None else labels
    return Collection(sources, dict(splits), sorted(labels))


def make_source(
    example_id: str, root: str, path: str, label: str = '', split: str = '', group: str = '',
    start_seconds: float = 0.0, end_seconds: float | None = None,
) -> Source:
    """A `Source` of a file in the collection's folder `root`."""
    return Source(example_id, path, path_text(os.path.relpath(path, root)), label, split, group,
                  start_seconds, end_seconds)


def refuse_label_column(label_column: str) -> None:
    """Raises a `UserError` where a label column is given and there is no CSV to hold it."""
    if label_column:
        raise UserError('label_column', label_column,
                        'only for a CSV; elsewhere the collection itself states the labels.')


def suffix(path: str) -> str:
    """The end of a file's name, such as .mp4, in lower case."""
    return os.path.splitext(path)[1].lower()


def stem(path: str) -> str:
    """The name of a file without its folder and suffix."""
    return os.path.splitext(os.path.basename(path))[0]


def path_text(path: str) -> str:
    """A path as text with '/'.

    File names are bytes; records and reports hold text. Bytes that are no UTF-8 become \\xe9.
    """
    return os.fsencode(path).decode('utf-8', 'backslashreplace').replace(os.sep, '/')


def media_files(root: str, suffixes: frozenset[str]) -> list[str]:
    """Absolute paths of the files with such a suffix in a folder and below it, sorted."""
    found, seen = [], set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        if os.path.realpath(folder) in seen:  # a link back up
            subfolders.clear()
            continue
        seen.add(os.path.realpath(folder))
        # Names with a leading dot are other systems' notes about the file of that name.
        found += [os.path.join(folder, file) for file in files
                  if suffix(file) in suffixes and not file.startswith('.')]
    return sorted(found)


def media_by_stem(root: str) -> dict[str, str]:
    """Stem of the name → path, of all media files in a folder and below it."""
    paths = media_files(root, VIDEO_SUFFIXES | AUDIO_SUFFIXES)
    return {stem(path): path for path in reversed(paths)}


def files_below(folder: str, pattern: str) -> list[str]:
    """Files whose name matches a glob in a folder and below it, sorted."""
    return sorted(glob.glob(os.path.join(glob.escape(folder), '**', pattern), recursive=True))


def find_tables(
    input_path: str, pattern: str, is_table: Callable[[str], bool] = lambda path: True,
) -> tuple[str, list[str]]:
    """The CSV files of a collection.

    Args:
        input_path: the collection's folder, or one CSV.
        pattern: glob of their names.
        is_table: function of a path that matches: whether it is one.

    Returns:
        The collection's folder, absolute, and the paths.
    """
    if os.path.isfile(input_path):
        return os.path.dirname(os.path.abspath(input_path)), [input_path]
    return os.path.abspath(input_path), list(filter(is_table, files_below(input_path, pattern)))


def first_line(path: str) -> str:
    """The first line of a text file; '' where it cannot be read."""
    try:
        with open(path, encoding='utf-8-sig', errors='replace') as file:
            return file.readline()
    except OSError:
        return ''


def read_table(
    path: str, needed: Iterable[str] = (), columns: list[str] | None = None,
) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Reads a CSV with a first line of names.

    Args:
        path: the CSV.
        needed: columns that must be there.
        columns: names of the columns of a file that has none; its lines with a leading # are
            comments.

    Returns:
        Names of the columns, and a list of (number of the line, dict).

    Raises:
        UserError: it is no CSV, or lacks a column.
    """
    rows = []
    try:
        with open(path, encoding='utf-8-sig', newline='') as file:
            lines = ('\n' if line.startswith('#') else line for line in file) if columns else file
            reader = csv.DictReader(lines, columns, restval='', skipinitialspace=True)
            names = list(reader.fieldnames or [])
            for name in needed:
                if name not in names:
                    raise UserError(None, path, f'no column {name!r} in the first line, which has '
                                    f'{", ".join(names) or "none"}.')
            for row in reader:
                if None in row:
                    raise line_error(path, reader.line_num, 'more cells than columns; a cell with '
                                     'a comma needs quotes ("a, b").')
                row = {name: value.strip() for name, value in row.items()}
                rows.append((reader.line_num, row))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(None, path, f'not a CSV in UTF-8: {error}. `input` takes a folder, a glob '
                        'or a CSV.') from error
    except OSError as error:
        raise UserError(None, path, f'cannot be read: {error.strerror}.') from error
    return names, rows


def line_error(path: str, line: int, problem: str) -> UserError:
    """The error for one line of a table or list."""
    return UserError(None, f'{path}, line {line}', problem)


def read_times(
    path: str, line: int, row: dict[str, str], start_column: str, end_column: str,
) -> tuple[float, float | None]:
    """Begin and end in seconds of a row of a table; 0 and None where the cells are empty."""
    start = _read_seconds(path, line, row, start_column) or 0.0
    end = _read_seconds(path, line, row, end_column)
    if end is not None and end <= start:
        raise line_error(
            path, line, f'{end_column}={end:g} is not after {start_column}={start:g}.')
    return start, end


def _read_seconds(path: str, line: int, row: dict[str, str], column: str) -> float | None:
    """A time of a row, or None where the cell is empty."""
    value = row.get(column, '')
    try:
        seconds = float(value) if value else None
    except ValueError:
        seconds = math.nan
    if seconds is not None and not 0 <= seconds < math.inf:
        raise line_error(path, line, f'{column}={value} is no time in seconds; give a number of at '
                         'least 0.')
    return seconds


def seconds_text(seconds: float) -> str:
    """A time as text, to the microsecond, without zeros at its end."""
    return f'{seconds:.6f}'.rstrip('0').rstrip('.')


def fold_name(value: str) -> str:
    """The part that a cell of a column `fold` names: fold1 for 1, and names as they are."""
    return f'fold{int(value)}' if value.isdigit() else value


def check_name(path: str, line: int, column: str, value: str) -> str:
    """A cell that becomes part of a file's name; a `UserError` where it holds a path or nothing."""
    if value in ('', '.', '..') or '/' in value or os.sep in value:
        problem = 'a path' if value else 'empty'
        raise line_error(path, line, f'{column}={value} is {problem}; give a name without folders.')
    return value
