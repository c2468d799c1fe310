"""Which files a collection has, with their classes, their published parts, and what belongs together. Imports no TensorFlow.

`--input` is a folder, a glob in quotes, a CSV or one file; `--dataset` says how the collection is laid out. Where the input is a
folder, it is searched with all its subfolders.

    ''          Video files of a folder, or its sound files where it has no videos; the name of the folder directly below the
                input (below the last folder without a wildcard) is the label. Or a CSV: a column video_path, audio_path or path
                (relative to the CSV's folder), and as wanted start_seconds, end_seconds, split or fold, and columns with
                labels. One file may stand in several lines with different times.
    kinetics    CSV files with label, youtube_id, time_start, time_end and split. ID_000010_000020.* is the trimmed clip and is
                taken whole, ID.* is the whole video and is cut. Part: the split, or the CSV's name where there is none.
    audioset    The segments' CSV files (YTID, start_seconds, end_seconds, positive_labels). ID_30000_40000.*, ID_30000.*,
                ID_000030_000040.*, ID_30_40.*, each also with a Y before the ID, and YID.* are trimmed; ID.* is cut. The label
                is the first positive one, by name where class_labels_indices.csv is there. Part: balanced_train and so on.
    ucf101      CLASS/v_CLASS_g01_c01.avi. Parts: train1, test1, ... of trainlist01.txt, testlist01.txt, ...
    hmdb51      CLASS/NAME.avi. Parts: train1, test1, ... of CLASS_test_split1.txt, ..., where 1 trains, 2 tests, 0 does neither.
    esc50       esc50.csv with filename, fold, category; or file names FOLD-SOURCE-TAKE-TARGET, where the target is a number or
                a name, or FOLD-SOURCE-TAKE in folders of classes; or a CSV as above. Parts: fold1 to fold5. Sound only.
    esc10       The ten classes of esc50 that are in ESC-10. Sound only.
    dcase2014   Scenes as SCENE01.wav. Parts: evaluation, for files in a folder with "test" or "eval" in its name, and
                development. Sound only.

A file that a list names and that is not there is a source too, so that a report can say that it is missing. Labels are all
names of the whole collection, sorted, so that all parts give a class the same index.
"""

import collections
import csv
import errno
import glob
import hashlib
import math
import os
import re
import stat
from typing import NamedTuple

from avts_tf.errors import UserError

VIDEO_SUFFIXES = frozenset((
    '.3g2', '.3gp', '.asf', '.avi', '.dv', '.f4v', '.flv', '.m2ts', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.mts',
    '.mxf', '.ogv', '.rm', '.rmvb', '.ts', '.vob', '.webm', '.wmv',
))
SOUND_SUFFIXES = frozenset((
    '.aac', '.ac3', '.aif', '.aiff', '.amr', '.au', '.caf', '.dts', '.flac', '.m4a', '.mka', '.mp2', '.mp3', '.oga', '.ogg',
    '.opus', '.ra', '.w64', '.wav', '.wma', '.wv',
))
SOUND_ONLY = frozenset(('esc50', 'esc10', 'dcase2014'))  # collections without pictures
PARTS = ('train', 'held')  # of `hold_out`

_PATH_COLUMNS = ('video_path', 'audio_path', 'path')
_RESERVED_COLUMNS = (*_PATH_COLUMNS, 'start_seconds', 'end_seconds', 'split', 'fold')
_ESC50 = (
    'dog', 'rooster', 'pig', 'cow', 'frog', 'cat', 'hen', 'insects', 'sheep', 'crow', 'rain', 'sea_waves', 'crackling_fire',
    'crickets', 'chirping_birds', 'water_drops', 'wind', 'pouring_water', 'toilet_flush', 'thunderstorm', 'crying_baby',
    'sneezing', 'clapping', 'breathing', 'coughing', 'footsteps', 'laughing', 'brushing_teeth', 'snoring', 'drinking_sipping',
    'door_wood_knock', 'mouse_click', 'keyboard_typing', 'door_wood_creaks', 'can_opening', 'washing_machine', 'vacuum_cleaner',
    'clock_alarm', 'clock_tick', 'glass_breaking', 'helicopter', 'chainsaw', 'siren', 'car_horn', 'engine', 'train',
    'church_bells', 'airplane', 'fireworks', 'hand_saw',
)
_ESC10 = frozenset((
    'dog', 'rooster', 'rain', 'sea_waves', 'crackling_fire', 'crying_baby', 'sneezing', 'clock_tick', 'helicopter', 'chainsaw',
))
_ESC_NAME = re.compile(r'(\d+)-([^-]+)-([A-Z])(?:-(.+))?')
_UCF_NAME = re.compile(r'v_(.+)_g(\d+)_c\d+')
# What HMDB51 puts behind the class: visible body parts, camera motion, people, view, quality, number of the clip.
_HMDB_TAIL = re.compile(r'_[a-z]+_(?:nm|cm)_np\d+_[a-z]+_[a-z]+_\d+$')


class Source(NamedTuple):
    """One piece of a collection that becomes one record.

    Attributes:
        example_id: unique name, with '/'.
        path: where to read it, absolute.
        data_path: the path below the collection's folder, with '/'.
        label: name of its class, or ''.
        split: name of the published part it is in, or ''.
        group: name of the video or recording that it is cut from; what has the same belongs to the same side of every split.
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
        sources: list of `Source`, in the order of the input. Where a source is in several published parts, its `split` is ''.
        splits: dict, name of each published part → set of example ids.
        labels: list of the names of all classes, sorted.
    """

    sources: list
    splits: dict
    labels: list


def find_sources(input_path, dataset='', split='', label_column=''):
    """The sources of a collection, or of one of its published parts.

    Args:
        input_path: folder, glob, CSV or file.
        dataset: layout, a key of `DATASETS`.
        split: name of a published part, or several separated by commas; '' is everything.
        label_column: column of a CSV that holds the label; '' takes the first that has no other meaning.

    Returns:
        List of `Source`, in the order of the input: as a CSV names them, else sorted by path. The files need not exist.

    Raises:
        UserError: the input is not there, is not laid out so, or has no such part.
    """
    return take_split(read_collection(input_path, dataset, label_column), split)


def find_media(input_path):
    """As `find_sources` for plain input, but of a folder both its videos and its sound files."""
    if os.path.isdir(input_path):
        root = os.path.abspath(input_path)
        return _plain_sources(root, _media_files(root, VIDEO_SUFFIXES | SOUND_SUFFIXES) or _plain_files(input_path)[1])
    return find_sources(input_path)


def read_collection(input_path, dataset='', label_column=''):
    """Reads the lists of a collection, as a `Collection`; see `find_sources`."""
    if dataset not in DATASETS:
        raise UserError(f'--dataset={dataset}: must be one of {", ".join(sorted(DATASETS)[1:])}, or empty.')
    if not os.path.isdir(input_path) and (os.path.lexists(input_path) or not glob.has_magic(input_path)):
        why = why_no_file(input_path)
        if why:
            raise UserError(f'--input={input_path}: {why}; give a file, a folder, a glob or a CSV.')
    collection = DATASETS[dataset](input_path, label_column)
    if not collection.sources:
        raise UserError(f'--input={input_path}: nothing of {dataset or "video or sound"} is named there.')
    name, count = max(collections.Counter(s.example_id for s in collection.sources).items(), key=lambda item: item[1])
    if count > 1:
        raise UserError(f'--input={input_path}: {name} is named more than once; keep one.')
    return collection


def take_split(collection, split):
    """The sources of the published part(s) that `split` names, '' for all, each with the part's name; see `find_sources`."""
    if not split:
        return collection.sources
    members = {}
    for name in split.split(','):
        if name not in collection.splits:
            raise UserError(
                f'--split={split}: the collection has no part {name!r}; '
                + (f'it has {", ".join(sorted(collection.splits))}.' if collection.splits else 'it is published without parts.')
            )
        members |= dict.fromkeys(collection.splits[name], name)
    return [s._replace(split=members[s.example_id]) for s in collection.sources if s.example_id in members]


def hold_out(sources, fraction, part):
    """One side of a split that follows from the names of the groups alone.

    A group is held out where a hash of its name says so: two parts of one video never are on both sides, whatever other files
    come or go no file changes sides, and what a smaller fraction holds out a larger one does too.

    Args:
        sources: list of `Source`.
        fraction: about this part of the groups is held out, 0 to 1.
        part: 'train' or 'held'.

    Returns:
        List of `Source`, in the same order.
    """
    return [source for source in sources if (_place(source.group) < fraction) == (part == 'held')]


def _place(group):
    """A number in [0, 1) that follows from a name."""
    return int.from_bytes(hashlib.sha256(group.encode('utf-8', 'surrogateescape')).digest()[:6], 'big') / 256**6


def _collect(sources, splits=None, labels=None):
    if splits is None:
        splits = collections.defaultdict(set)
        for source in sources:
            if source.split:
                splits[source.split].add(source.example_id)
    labels = {source.label for source in sources} - {''} if labels is None else labels
    return Collection(sources, dict(splits), sorted(labels))


def _plain(input_path, label_column):
    if os.path.isfile(input_path) and _suffix(input_path) not in VIDEO_SUFFIXES | SOUND_SUFFIXES:
        return _plain_csv(input_path, label_column)
    _refuse_label_column(label_column)
    return _collect(_plain_sources(*_plain_files(input_path)))


def _plain_sources(root, paths):
    names = {path: _text(os.path.relpath(path, root)) for path in paths}
    ids = _unique_ids(names)
    labels = {path: name.split('/')[0] if '/' in name else '' for path, name in names.items()}
    return [
        Source(ids[path], path, names[path], labels[path], group=names[path])
        for path in sorted(paths, key=lambda path: (names[path], path))
    ]


def _refuse_label_column(label_column):
    if label_column:
        raise UserError(f'--label_column={label_column}: only for a CSV; elsewhere the collection itself says the labels.')


def _suffix(path):
    return os.path.splitext(path)[1].lower()


def _text(path):
    """A path as text with '/': file names are bytes; records and reports hold text. Bytes that are no UTF-8 become \\xe9."""
    return os.fsencode(path).decode('utf-8', 'backslashreplace').replace(os.sep, '/')


def why_no_file(path):
    """Why a path is no file that can be read, in words; '' where it is one."""
    try:
        mode = os.stat(path).st_mode
    except ValueError:
        return 'its path holds a NUL, which no file name can'
    except OSError as error:
        if error.errno == errno.ELOOP:
            return 'it is a link that leads back to itself'
        if error.errno == errno.ENAMETOOLONG:
            return 'its name is too long for a file system'
        if error.errno == errno.ENOENT:
            return 'it is a link to a file that is not there' if os.path.islink(path) else 'there is no such file'
        if error.errno == errno.ENOTDIR:
            return 'there is no such file'
        return f'it cannot be reached: {error.strerror}'
    if stat.S_ISREG(mode):
        return ''
    kinds = {stat.S_IFDIR: 'folder', stat.S_IFIFO: 'FIFO', stat.S_IFSOCK: 'socket', stat.S_IFCHR: 'device', stat.S_IFBLK: 'device'}
    return f'it is a {kinds.get(stat.S_IFMT(mode), "special file")}, not a file with content'


def cell(value):
    """A value of a report's CSV: text that a spreadsheet would take for a formula gets a ' before it; numbers stay."""
    if not isinstance(value, str) or not value.startswith(('=', '+', '-', '@', '\t', '\r')):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def _unique_ids(names):
    """Path → the name without its suffix where that is unique, else with it; of a dict path → name."""
    stems = {path: os.path.splitext(name)[0] for path, name in names.items()}
    counts = collections.Counter(stems.values())
    ids = {path: stems[path] if counts[stems[path]] == 1 else names[path] for path in names}
    return ids if len(set(ids.values())) == len(ids) else names


def _plain_files(input_path):
    """(folder that names are relative to, absolute paths) of a folder, a glob or one file."""
    suffixes = VIDEO_SUFFIXES
    if os.path.isdir(input_path):
        root = os.path.abspath(input_path)
        paths = _media_files(root, VIDEO_SUFFIXES) or _media_files(root, SOUND_SUFFIXES)
        if not paths:
            suffixes = VIDEO_SUFFIXES | SOUND_SUFFIXES
            raise UserError(
                f'--input={input_path}: no video or sound file in this folder or below it. Looked for '
                f'{" ".join(sorted(suffixes))}; a glob or a CSV may name files of any suffix.'
            )
        return root, paths
    if os.path.isfile(input_path):
        return os.path.dirname(os.path.abspath(input_path)), [os.path.abspath(input_path)]
    paths = sorted(os.path.abspath(path) for path in glob.glob(input_path, recursive=True) if not os.path.isdir(path))
    if not paths:
        raise UserError(f'--input={input_path}: no file matches.')
    fixed = input_path[:re.search(r'[*?[]', input_path).start()]
    return os.path.abspath(os.path.dirname(fixed)), paths


def _media_files(root, suffixes):
    """Absolute paths of the files with such a suffix in a folder and below it, sorted."""
    found, seen = [], set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        if os.path.realpath(folder) in seen:  # a link back up
            subfolders.clear()
            continue
        seen.add(os.path.realpath(folder))
        # Names with a leading dot are other systems' notes about the file of that name.
        found += [os.path.join(folder, file) for file in files if _suffix(file) in suffixes and not file.startswith('.')]
    return sorted(found)


def _rows(path, needed=(), columns=None):
    """Reads a CSV with a first line of names.

    Args:
        path: the CSV.
        needed: columns that must be there.
        columns: names of the columns of a file that has none; its lines with a leading # are comments.

    Returns:
        Names of the columns, and a list of (number of the line, dict).
    """
    rows = []
    try:
        with open(path, encoding='utf-8-sig', newline='') as file:
            lines = ('\n' if line.startswith('#') else line for line in file) if columns else file
            reader = csv.DictReader(lines, columns, restval='', skipinitialspace=True)
            names = reader.fieldnames or []
            for name in needed:
                if name not in names:
                    raise UserError(f'{path}: no column {name!r} in the first line, which has {", ".join(names) or "none"}.')
            for row in reader:
                if None in row:
                    raise UserError(
                        f'{path}, line {reader.line_num}: more cells than columns; a cell with a comma needs quotes ("a, b").'
                    )
                rows.append((reader.line_num, {name: value.strip() for name, value in row.items()}))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'{path}: not a CSV in UTF-8: {error}. --input takes a folder, a glob or a CSV.') from error
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}.') from error
    return names, rows


def _seconds(path, line, row, column):
    """A time of a row, or None where the cell is empty."""
    value = row.get(column, '')
    try:
        seconds = float(value) if value else None
    except ValueError:
        seconds = math.nan
    if seconds is not None and not 0 <= seconds < math.inf:
        raise UserError(f'{path}, line {line}: {column}={value} is no time in seconds.')
    return seconds


def _times(path, line, row, start_column, end_column):
    start = _seconds(path, line, row, start_column) or 0.0
    end = _seconds(path, line, row, end_column)
    if end is not None and end <= start:
        raise UserError(f'{path}, line {line}: {end_column}={end:g} is not after {start_column}={start:g}.')
    return start, end


def number(seconds):
    """A time as text, to the microsecond, without zeros behind it."""
    return f'{seconds:.6f}'.rstrip('0').rstrip('.')


def _plain_csv(csv_path, label_column):
    names, rows = _rows(csv_path)
    path_column = next((column for column in _PATH_COLUMNS if column in names), None)
    if path_column is None:
        raise UserError(
            f'{csv_path}: no column {" or ".join(map(repr, _PATH_COLUMNS))} in the first line, which has '
            f'{", ".join(names) or "none"}.'
        )
    others = [name for name in names if name not in _RESERVED_COLUMNS]
    if label_column and label_column not in names:
        raise UserError(
            f'--label_column={label_column}: {csv_path} has no such label column; it has {", ".join(others) or "none"}.'
        )
    label_column = label_column or (others[0] if others else '')
    if not rows:
        raise UserError(f'{csv_path}: no file in it, only the first line.')

    root = os.path.dirname(os.path.abspath(csv_path))
    pieces, seen, split_of = [], set(), {}
    for line, row in rows:
        value = row[path_column]
        if not value:
            raise UserError(f'{csv_path}, line {line}: {path_column} is empty.')
        path = os.path.normpath(os.path.join(root, value))
        times = _times(csv_path, line, row, 'start_seconds', 'end_seconds')
        if (path, times) in seen:
            raise UserError(f'{csv_path}, line {line}: {value} stands in an earlier line already, with the same times; keep one.')
        seen.add((path, times))
        split = row.get('split') or _fold(row.get('fold', ''))
        if split_of.setdefault(path, split) != split:
            raise UserError(
                f'{csv_path}, line {line}: {value} is in {split_of[path] or "no part"!r} in an earlier line and in {split!r} '
                'here; parts of one file belong on one side.'
            )
        pieces.append((path, times, split, row.get(label_column, '') if label_column else ''))

    paths = list(split_of)
    if any(os.path.relpath(path, root).startswith(os.pardir) for path in paths):
        root = os.path.commonpath([os.path.dirname(path) for path in paths])
    data_paths = {path: _text(os.path.relpath(path, root)) for path in paths}
    ids = _unique_ids(data_paths)
    return _collect([
        Source(ids[path] + _times_text(*times), path, data_paths[path], label, split, data_paths[path], *times)
        for path, times, split, label in pieces
    ])


def _times_text(start, end):
    if not start and end is None:
        return ''
    return f'_{number(start)}_{"end" if end is None else number(end)}'


def _fold(value):
    return f'fold{int(value)}' if value.isdigit() else value


def _tables(input_path, pattern, is_one):
    """(folder of the collection, its CSV files) of a folder, or of one CSV."""
    if os.path.isfile(input_path):
        return os.path.dirname(os.path.abspath(input_path)), [input_path]
    return os.path.abspath(input_path), [path for path in _below(input_path, pattern) if is_one(path)]


def _below(folder, pattern):
    """Files of that name in a folder and below it, sorted."""
    return sorted(glob.glob(os.path.join(glob.escape(folder), '**', pattern), recursive=True))


def _first_line(path):
    try:
        with open(path, encoding='utf-8-sig', errors='replace') as file:
            return file.readline()
    except OSError:
        return ''


def _by_stem(root):
    """Stem of the file name → path, of all media files in a folder and below it."""
    paths = _media_files(root, VIDEO_SUFFIXES | SOUND_SUFFIXES)
    return {os.path.splitext(os.path.basename(path))[0]: path for path in reversed(paths)}


def _name(table, line, column, value):
    """A cell of a list that becomes part of a file's name."""
    if value in ('', '.', '..') or '/' in value or os.sep in value:
        raise UserError(f'{table}, line {line}: {column}={value} is not a name, but {"a path" if value else "empty"}.')
    return value


def _source(example_id, root, path, *rest, **more):
    return Source(example_id, path, _text(os.path.relpath(path, root)), *rest, **more)


def _kinetics(input_path, label_column):
    _refuse_label_column(label_column)
    root, tables = _tables(input_path, '*.csv', lambda path: 'youtube_id' in _first_line(path))
    if not tables:
        raise UserError(f'--input={input_path}: no CSV with a column youtube_id in this folder or below it.')
    files, sources = _by_stem(root), []
    for table in tables:
        for line, row in _rows(table, ('youtube_id', 'time_start', 'time_end'))[1]:
            times = _times(table, line, row, 'time_start', 'time_end')
            if times[1] is None:
                raise UserError(f'{table}, line {line}: time_end is empty.')
            _name(table, line, 'youtube_id', row['youtube_id'])
            trimmed = f'{row["youtube_id"]}_{round(times[0]):06d}_{round(times[1]):06d}'
            path = files.get(trimmed)
            if path is None and row['youtube_id'] in files:
                path = files[row['youtube_id']]
            else:
                path, times = path or os.path.join(root, trimmed + '.mp4'), (0.0, None)
            split = row.get('split') or os.path.splitext(os.path.basename(table))[0]
            sources.append(_source(trimmed, root, path, row.get('label', ''), split, row['youtube_id'], *times))
    return _collect(sources)


def _audioset(input_path, label_column):
    _refuse_label_column(label_column)
    root, tables = _tables(input_path, '*_segments.csv', lambda path: True)
    if not tables:
        raise UserError(f'--input={input_path}: no *_segments.csv in this folder or below it.')
    names = None
    for path in _below(root, '*class_labels_indices.csv')[:1]:
        names = {row['mid']: row['display_name'] for _, row in _rows(path, ('mid', 'display_name'))[1]}
    files, sources = _by_stem(root), []
    for table in tables:
        split = os.path.splitext(os.path.basename(table))[0].removesuffix('_segments')
        for line, row in _rows(table, columns=['id', 'start_seconds', 'end_seconds', 'labels'])[1]:
            start, end = _times(table, line, row, 'start_seconds', 'end_seconds')
            if end is None or not row['id']:
                raise UserError(f'{table}, line {line}: not YTID, start_seconds, end_seconds, positive_labels.')
            _name(table, line, 'YTID', row['id'])
            label = row['labels'].split(',')[0].strip()
            label = (names or {}).get(label, label)
            stems = [prefix + row['id'] + times for prefix in ('', 'Y') for times in (
                f'_{1000 * start:.0f}_{1000 * end:.0f}', f'_{1000 * start:.0f}', f'_{round(start):06d}_{round(end):06d}',
                f'_{number(start)}_{number(end)}', f'_{start:.3f}_{end:.3f}',
            )] + ['Y' + row['id']]
            path = next((files[stem] for stem in stems if stem in files), None)
            times = 0.0, None
            if path is None and row['id'] in files:
                path, times = files[row['id']], (start, end)
            path = path or os.path.join(root, stems[0] + '.wav')
            sources.append(_source(f'{row["id"]}_{1000 * start:.0f}', root, path, label, split, row['id'], *times))
    return _collect(sources, labels=set(names.values()) if names else None)


def _listed(input_path, lists, what, group):
    """A collection of CLASS/FILE whose parts are named by lists.

    Args:
        input_path: folder with the lists and the videos.
        lists: dict, name of a part → list of 'CLASS/FILE'.
        what: where the lists should be, for the message.
        group: function (class, stem of the file name) → group.
    """
    if not os.path.isdir(input_path):
        raise UserError(f'--input={input_path}: must be the folder with the videos and {what}.')
    if not lists:
        raise UserError(f'--input={input_path}: no {what} in this folder or below it.')
    root = os.path.abspath(input_path)
    paths = {}
    for path in _media_files(root, VIDEO_SUFFIXES):
        paths.setdefault('/'.join(_text(path).split('/')[-2:]), path)
    names = sorted(set(paths).union(*lists.values()))
    ids = {name: os.path.splitext(name)[0] for name in names}
    return _collect(
        [_source(ids[name], root, paths.get(name) or os.path.join(root, name), name.split('/')[0],
                 group=group(*ids[name].split('/'))) for name in names],
        {part: {ids[name] for name in members} for part, members in lists.items()},
    )


def _list_files(input_path, pattern):
    """(name of the file, lines as lists of words) of each list in a folder and below it."""
    for path in _below(input_path, pattern):
        with open(path, encoding='utf-8', errors='replace') as file:
            yield os.path.basename(path), [line.split() for line in file if line.strip()]


def _ucf101(input_path, label_column):
    _refuse_label_column(label_column)
    lists = {}
    for name, lines in _list_files(input_path, '*list0[1-3].txt'):
        found = re.fullmatch(r'(train|test)list0(\d)\.txt', name)
        if found:
            lists[''.join(found.groups())] = [words[0] for words in lines]
    bad = [member for members in lists.values() for member in members
           if member.count('/') != 1 or not {'', '.', '..'}.isdisjoint(member.split('/'))]
    if bad:
        raise UserError(f'--input={input_path}: a line of the lists reads {bad[0]}, not CLASS/FILE.')
    return _listed(input_path, lists, 'trainlist01.txt, testlist01.txt, ...', _ucf_group)


def _ucf_group(folder, stem):
    found = _UCF_NAME.fullmatch(stem)
    return f'{found[1]}_g{found[2]}' if found else f'{folder}/{stem}'


def _hmdb51(input_path, label_column):
    _refuse_label_column(label_column)
    lists = {}
    for name, lines in _list_files(input_path, '*_test_split[1-3].txt'):
        label, number_of_split = re.fullmatch(r'(.+)_test_split(\d)\.txt', name).groups()
        for line, words in enumerate(lines, 1):
            if len(words) != 2 or words[1] not in ('0', '1', '2'):
                raise UserError(f'{name}: the line "{" ".join(words)}" is not FILE and 0, 1 or 2.')
            for part, code in (('train', '1'), ('test', '2')):
                _name(name, line, 'the file', words[0])
                members = lists.setdefault(part + number_of_split, [])
                if words[1] == code:
                    members.append(f'{label}/{words[0]}')
    return _listed(input_path, lists, 'CLASS_test_split1.txt, ...', _hmdb_group)


def _hmdb_group(folder, stem):
    # The title of the film stands before the class; clips of one film can be in several classes.
    return _HMDB_TAIL.sub('', stem).removesuffix('_' + folder)


def _esc50(input_path, label_column):
    return _esc(input_path, label_column, None)


def _esc10(input_path, label_column):
    return _esc(input_path, label_column, _ESC10)


def _esc(input_path, label_column, only):
    table = input_path if _suffix(input_path) == '.csv' else None
    if os.path.isdir(input_path):
        table = next(iter(_below(input_path, 'esc50.csv')), None)
    if table and 'filename' in _first_line(table):
        _refuse_label_column(label_column)
        sources = _esc_meta(table, only)
    else:
        plain = _plain_csv(table, label_column) if table else _plain(input_path, label_column)
        sources = [_esc_named(source, bool(table)) for source in plain.sources]
        # Names that are not of ESC-50's numbers are of a set made by hand, such as a copy of the ten classes alone.
        sources = [source for source in sources if not only or source.label in only or source.label not in _ESC50]
    return _collect(sources)


def _esc_meta(table, only):
    root = os.path.dirname(os.path.abspath(table))
    root = os.path.dirname(root) if os.path.basename(root) == 'meta' else root
    files, sources = _by_stem(root), []
    for line, row in _rows(table, ('filename', 'fold', 'category', *(('esc10',) if only else ())))[1]:
        stem = os.path.splitext(_name(table, line, 'filename', row['filename']))[0]
        found = _ESC_NAME.fullmatch(stem)
        if not found:
            raise UserError(f'{table}, line {line}: filename={row["filename"]} is not FOLD-SOURCE-TAKE-TARGET.')
        if not only or row['esc10'].lower() in ('true', '1'):
            path = files.get(stem) or os.path.join(root, 'audio', row['filename'])
            sources.append(_source(stem, root, path, row['category'], _fold(row['fold']), found[2]))
    return sources


def _esc_named(source, has_table):
    """A source whose fold, recording and class stand in its file name, where no table says otherwise."""
    stem = os.path.splitext(source.data_path.split('/')[-1])[0]
    found = _ESC_NAME.fullmatch(stem)
    if not found:
        if has_table:
            return source
        raise UserError(f'{source.path}: the name is not FOLD-SOURCE-TAKE-TARGET, such as 1-100032-A-0.ogg; move it away.')
    fold, group, _, target = found.groups()
    if not has_table:
        if target is None:  # 001 - Dog bark/1-30226-A.ogg
            target = re.sub(r'^\d+ - ', '', source.label)
        elif target.isdigit():
            target = _ESC50[int(target)] if int(target) < len(_ESC50) else target
        source = source._replace(label=target)
    return source._replace(split=source.split or f'fold{fold}', group=group)


def _dcase2014(input_path, label_column):
    if os.path.isfile(input_path):
        return _plain_csv(input_path, label_column)
    _refuse_label_column(label_column)
    sources, name = [], os.path.basename(os.path.abspath(input_path))
    for source in _plain(input_path, '').sources:
        stem = os.path.splitext(source.data_path.split('/')[-1])[0]
        folders = '/'.join([name, *source.data_path.split('/')[:-1]]).lower()
        split = 'evaluation' if 'test' in folders or 'eval' in folders else 'development'
        sources.append(source._replace(label=re.sub(r'\d+$', '', stem), split=split))
    return _collect(sources)


# Each takes (input_path, label_column) and gives a `Collection`.
DATASETS = {
    '': _plain, 'kinetics': _kinetics, 'audioset': _audioset, 'ucf101': _ucf101, 'hmdb51': _hmdb51, 'esc50': _esc50,
    'esc10': _esc10, 'dcase2014': _dcase2014,
}
