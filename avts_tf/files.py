"""Files that are whole or as they were before, and folders that one process at a time writes."""

import contextlib
import errno
import hashlib
import logging
import os
import stat
import threading
from collections.abc import Iterator

import filelock

from avts_tf.errors import UserError

LOCK = '.lock'
ASIDE = '.writing'  # the end of the name of a file or folder that is not whole yet
UPDATE_SECONDS = 60.0  # longest wait for another process to update a file

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """Yields a path to write; the file takes the place of `path` where nothing is raised.

    Whatever happens, a loss of power included, `path` is as it was before or whole. Only a process
    that is killed leaves the other file behind, `.HASH.writing` in the same folder.
    """
    folder, name = os.path.split(path)
    # A name of its own length could be too long for the file system.
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    aside = os.path.join(folder, f'.{digest}{ASIDE}')
    try:
        yield aside
        bring_to_disk(aside)
        os.replace(aside, path)
        bring_to_disk(folder or '.')  # the new name too
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(aside)
        raise


def write_text(path: str, text: str) -> None:
    """Writes a text file in UTF-8, as `replacing` does."""
    with replacing(path) as aside, open(aside, 'w', encoding='utf-8') as file:
        file.write(text)


@contextlib.contextmanager
def updating(path: str) -> Iterator[None]:
    """Holds one file for the moment in which it is read, changed and replaced.

    Another process that updates it too waits. It may lie in a folder that a third one holds.

    Raises:
        UserError: another process does not let go of it.
        OSError: the lock cannot be written.
    """
    lock = path + LOCK
    try:
        with filelock.FileLock(lock, timeout=UPDATE_SECONDS):
            yield
            with contextlib.suppress(OSError):
                os.remove(lock)
    except filelock.Timeout:
        raise UserError(None, path, f'another process has been writing it for {UPDATE_SECONDS:g} '
                        's.') from None


def bring_to_disk(path: str) -> None:
    """Waits until a file's content, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_held = threading.local()  # its `folders` are those that this thread holds already


@contextlib.contextmanager
def locked(
    folder: str, parameter: str, wait_seconds: float = 0.0, value: str | None = None
) -> Iterator[int | None]:
    """Makes a folder and holds it against other processes and threads, by a lock on a file in it.

    The system lets go of the lock when the process ends, however it ends. What is called meanwhile,
    in the same thread, may hold the folder too.

    Args:
        folder: what is held; the parts of its path are made.
        parameter: name of the parameter that the folder comes from, for the message.
        wait_seconds: longest wait for another process to end.
        value: value of that parameter, where the folder is not the value itself but, say, one of
            unfinished work beside it.

    Yields:
        File descriptor of the lock, which keeps it where a child process inherits it; None where
        this thread held the folder before.

    Raises:
        UserError: another process holds the folder, or it cannot be written.
    """
    key = os.path.realpath(folder)
    folders = _held.__dict__.setdefault('folders', set())
    if key in folders:
        yield None
        return
    descriptors: list[int] = []
    value = folder if value is None else value
    path, made = os.path.join(folder, LOCK), not os.path.isdir(folder)
    lock = filelock.FileLock(path, on_acquired=descriptors.append)
    try:
        while not lock.is_locked:
            os.makedirs(folder, exist_ok=True)
            # Its last holder may just have removed the folder.
            with contextlib.suppress(FileNotFoundError):
                try:
                    lock.acquire(timeout=0)
                except filelock.Timeout:
                    if not wait_seconds:
                        raise
                    logger.info(f'{value}: another process is at work on it; waiting up to '
                                f'{wait_seconds:g} s.')
                    lock.acquire(timeout=wait_seconds)
    except filelock.Timeout:
        raise UserError(parameter, value, 'another process is at work on it; wait for its end, or '
                        'give another one.') from None
    except OSError as error:
        reason = error.strerror or error
        raise UserError(parameter, value, f'cannot be written: {reason}.') from None
    folders.add(key)
    try:
        yield descriptors[-1]
    finally:
        folders.discard(key)
        # Under the lock: whoever waits for this file sees that it is gone, and makes another.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptors[-1]), os.stat(path)):  # not the next holder's
                os.remove(path)
            if made:
                os.rmdir(folder)  # fails, as it should, where anything was written
        lock.release()


def file_problem(path: str | os.PathLike) -> str:
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
        if error.errno == errno.ENOENT and os.path.islink(path):
            return 'it is a link to a file that is not there'
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return 'there is no such file'
        return f'it cannot be reached: {error.strerror}'
    if stat.S_ISREG(mode):
        return ''
    kinds = {
        stat.S_IFDIR: 'folder', stat.S_IFIFO: 'FIFO', stat.S_IFSOCK: 'socket',
        stat.S_IFCHR: 'device', stat.S_IFBLK: 'device',
    }
    kind = kinds.get(stat.S_IFMT(mode), 'special file')
    return f'it is a {kind}, not a file with content'


def csv_cell(value: object) -> object:
    """A value for a report's CSV: text that a spreadsheet would take for a formula gets a ' first.

    Numbers stay, as text too.
    """
    if not isinstance(value, str) or not value.startswith(('=', '+', '-', '@', '\t', '\r')):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
