"""Record files: how they are named, found, counted and verified.

A set of records is a number of shards `NAME-00000-of-00016`, each a TFRecord file. A file
`NAME.json` beside them holds what is worth knowing without reading them. In a TFRecord file each
record is framed:

    bytes     0 .. 8            length N of the record, little-endian
    bytes     8 .. 12           masked CRC-32C of those 8 bytes
    bytes    12 .. 12 + N       the record (see records.py)
    bytes 12 + N .. 16 + N      masked CRC-32C of the record

`walk` is the one place that reads this framing; training reads the files by
`tf.data.TFRecordDataset`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Iterable, Iterator

import google_crc32c

from avts_tf.data import records
from avts_tf.errors import UserError
from avts_tf.lazy import tf

BESIDE_SHARDS = ('.json', '.csv', '.txt', '.png')  # of files that are no shards
HEADER, FOOTER = 12, 4  # bytes around a record


class Damage(UserError):
    """A record file is cut short, or the length of one of its records is damaged.

    Args:
        path: the file.
        cut: whether it is cut short.
        reason: what is wrong with the first record that is not whole.
        whole: number of whole records before it.
        offset: byte at which it begins.

    Attributes:
        reason, whole: as above.
        is_record_file: False where the file does not even begin like a TFRecord file.
    """

    def __init__(self, path: str, cut: bool, reason: str, whole: int, offset: int) -> None:
        what = (f'cut short after {whole} whole records (byte {offset})' if cut else
                f'not a TFRecord file, or damaged at byte {offset} (after {whole} whole records)')
        super().__init__(None, path, f'{what}. Leave it out or write it again.')
        self.reason, self.whole, self.is_record_file = reason, whole, cut or offset > 0


def shard_path(prefix: str, index: int, count: int) -> str:
    """The path of one shard: `PREFIX-00000-of-00016`."""
    return f'{prefix}-{index:05d}-of-{count:05d}'


def summary_path(prefix: str) -> str:
    """The path of the JSON file beside the shards of `PREFIX`."""
    return f'{prefix}.json'


def total_records(shards: Iterable[tuple[str, int]]) -> int:
    """The number of records in the result of `find_shards`."""
    return sum(count for _, count in shards)


def find_shards(pattern: str | None, parameter: str = 'records',
                tolerant: bool = False) -> list[tuple[str, int]]:
    """Record files of a glob, or of several separated by commas, and the number of records in each.

    The files' framing is walked without reading the records, so that a file that is cut short is
    named before any work begins.

    Args:
        pattern: glob(s). A folder means all record files in it.
        parameter: name of the parameter that the pattern comes from, for the messages.
        tolerant: whether a damaged file counts as what is whole before the damage and one record
            more, which is lost when it is read, instead of ending the search. One that does not
            begin like a TFRecord file ends it always.

    Returns:
        List of (path, number of records), sorted by path; shards without records are left out.

    Raises:
        UserError: no file matches, a file is damaged or no TFRecord file, or there is no record in
            all of them.
    """
    paths, pattern = [], pattern or ''
    for part in pattern.split(','):
        found = list_files(part.strip())
        if not found:
            which = f' {part.strip()!r}' if ',' in pattern else ''
            raise UserError(
                parameter, pattern,
                f'no file matches{which}. Give a glob of record files, quoted, such as '
                '"data/clips-*"; python -m tfrecords_tools.write makes them from videos.')
        paths += found
    shards = [(path, count_records(path, tolerant)) for path in sorted(set(paths))]
    if not any(count for _, count in shards):
        problem = f'{len(shards)} file(s) match, but there is no record in them.'
        raise UserError(parameter, pattern, problem)
    return [(path, count) for path, count in shards if count]


def list_files(part: str) -> list[str]:
    """Paths that one glob matches, or that lie in one folder, without the files beside the shards
    and hidden ones.
    """
    if not part:
        return []
    if tf.io.gfile.isdir(part):
        paths = sorted(os.path.join(part, name) for name in tf.io.gfile.listdir(part))
    else:
        paths = matches(part)
    return [path for path in paths
            if not path.endswith(BESIDE_SHARDS) and not tf.io.gfile.isdir(path)
            and (path == part or not os.path.basename(path).startswith('.'))]


def matches(part: str) -> list[str]:
    """A path that is there, whatever signs of globs it holds; else what it matches as a glob."""
    return [part] if tf.io.gfile.exists(part) else tf.io.gfile.glob(part)


def glob_of_set(prefix: str, parameter: str) -> str:
    """The glob of the record files that are written as a set.

    Args:
        prefix: path that the names of all of them begin with.
        parameter: name of the parameter that its folder comes from, for the message.

    Raises:
        UserError: the path holds a sign that means something else in a glob.
    """
    signs = ' '.join(sign for sign in '*?[],' if sign in prefix)
    if signs:
        raise UserError(parameter, prefix, f'must not hold {signs}, which would mean something '
                        'else where it names record files. Choose another folder.')
    return f'{prefix}-*-of-*'


def files_of(pattern: str | None) -> set[str]:
    """The real paths of the record files that globs name, separated by commas; empty for None."""
    return {os.path.realpath(path)
            for part in (pattern or '').split(',') for path in list_files(part.strip())}


def same_files(pattern: str | None, other: str | None) -> bool:
    """Whether globs name the same record files; equal globs do, also where the files are gone."""
    return pattern == other or (bool(pattern and other) and files_of(pattern) == files_of(other))


def walk(path: str, contents: bool = True) -> Iterator[bytes | None]:
    """Yields the records of a TFRecord file, going on after one whose checksum is wrong.

    Args:
        path: the file.
        contents: False reads no record, only the framing, and yields b'' for each.

    Yields:
        The bytes of each record in order; None in place of one that is not what was written.

    Raises:
        Damage: the file is cut short, or a length is damaged, so that the next record cannot be
            found.
        UserError: the file cannot be read.
    """
    whole = offset = 0
    try:
        size = tf.io.gfile.stat(path).length
        with tf.io.gfile.GFile(path, 'rb') as file:
            while offset < size:
                file.seek(offset)
                header = file.read(HEADER)
                if len(header) < HEADER:
                    reason = f'cut short at byte {offset} of {size}; what follows is lost'
                    raise Damage(path, True, reason, whole, offset)
                length, checksum = struct.unpack('<QI', header)
                if checksum != masked_crc(header[:8]):
                    place = f'at byte {offset} of {size}; what follows is lost'
                    raise Damage(path, False, f'the length is damaged {place}', whole, offset)
                end = offset + HEADER + length + FOOTER
                if end > size:
                    reason = f'cut short: {end - size} of its bytes are missing'
                    raise Damage(path, True, reason, whole, offset)
                if contents:
                    content, footer = file.read(length), file.read(FOOTER)
                    yield content if struct.unpack('<I', footer)[0] == masked_crc(content) else None
                else:
                    yield b''
                offset, whole = end, whole + 1
    except tf.errors.OpError as error:
        raise UserError(None, path, f'cannot be read: {error.message}') from error


def count_records(path: str, tolerant: bool = False) -> int:
    """The number of records in a TFRecord file, by its framing; `tolerant` as in `find_shards`.

    Raises:
        Damage: the file is cut short, damaged or no TFRecord file.
        UserError: the file cannot be read.
    """
    try:
        return sum(1 for _ in walk(path, contents=False))
    except Damage as damage:
        if tolerant and damage.is_record_file:
            return damage.whole + 1
        raise


def masked_crc(data: bytes) -> int:
    """The masked CRC-32C of TFRecord files: the checksum turned by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def file_stamps(shards: list[tuple[str, int]]) -> list[list[int] | None]:
    """[size, time of change in ns, exact to the second] of each file of `find_shards`, None where
    it is gone.
    """
    found: list[list[int] | None] = []
    for path, _ in shards:
        try:
            status = tf.io.gfile.stat(path)
            found.append([status.length, status.mtime_nsec])
        except tf.errors.OpError:
            found.append(None)
    return found


def files_digest(shards: list[tuple[str, int]]) -> int:
    """A number below 2^62 that is the same where files of the same names are of the same sizes
    and hold equally many records.

    Folders and times of change may differ: each of several machines can have a copy of its own.

    Args:
        shards: result of `find_shards`, perhaps of some time ago.
    """
    facts = [[os.path.basename(path), count, stamp and stamp[0]]
             for (path, count), stamp in zip(shards, file_stamps(shards), strict=True)]
    digest = hashlib.sha256(json.dumps(facts).encode()).digest()
    return int.from_bytes(digest[:8], 'big') >> 2


def name_hashes(shards: list[tuple[str, int]], hashes: set[int]) -> list[str]:
    """The names of the records whose names have given hashes, by reading until all are found.

    Args:
        shards: result of `find_shards`.
        hashes: integers, as `example_hash` in a batch.

    Returns:
        Sorted list of the names that were found.
    """
    names = {}
    for path, count in shards:
        # Bounded: a file that cannot be opened fails as often as it is asked.
        found = tf.data.TFRecordDataset(path).map(lambda record: records.parse_labels(record)[0])
        counted = tf.data.Dataset.zip((tf.data.Dataset.range(count), found))
        for _, name in counted.ignore_errors():
            name_hash = int(records.hash_name(name))
            if name_hash in hashes:
                names[name_hash] = name.numpy().decode(errors='replace')
                if len(names) == len(hashes):  # there can be hours of records after it
                    return sorted(names.values())
    return sorted(names.values())


def first_damaged(paths: Iterable[str]) -> tuple[str, int] | None:
    """The first file in which a record is damaged, or that is gone, and the number of whole
    records before it.

    Returns:
        (path, count), or None where every record is whole.
    """
    for path in paths:
        whole = 0
        try:
            for _ in tf.data.TFRecordDataset(path):
                whole += 1
        except (tf.errors.DataLossError, tf.errors.NotFoundError):
            return path, whole
    return None


@contextlib.contextmanager
def naming_damage(*patterns: str | None) -> Iterator[None]:
    """Turns TensorFlow's error on a damaged, vanished or unusable record file into a `UserError`
    that names it.

    Args:
        *patterns: globs of the record files that are read inside; None is passed over.
    """
    paths = [path for pattern in patterns if pattern for part in pattern.split(',')
             for path in list_files(part.strip())]
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.NotFoundError) as error:
        damaged = first_damaged(paths)
        if not damaged:
            raise
        path, whole = damaged
        raise UserError(
            None, path, f'damaged after {whole} whole records, or gone. Leave it out or write it '
            'again; the same command then resumes.') from error
    except tf.errors.InvalidArgumentError as error:
        # What fails inside an iterator is a record's content, such as a frame that is no JPEG.
        if 'Iterator' not in error.message:
            raise
        problem = f'the content of a record cannot be used: {error.message.splitlines()[0]}'
        raise UserError(None, ', '.join(filter(None, patterns)), problem) from error
