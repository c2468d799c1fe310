"""Checkpoint files.

A checkpoint is a NumPy `.npz` (a zip, which holds a CRC of every part). It takes its place whole,
so that a crash leaves the files before it as they were; one that was damaged later fails its CRC
and is passed over.
"""

import errno
import json
import os
import re
import zipfile
import zlib
from typing import NamedTuple

import numpy as np

from avts_tf import files
from avts_tf.errors import UserError

DAMAGED = '.damaged'  # what the name of a file gets that was passed over

_STATE = 'state'
_NAME = re.compile(r'epoch-(\d+)-step-(\d+)\.npz')


class Checkpoint(NamedTuple):
    """A checkpoint that was read and is whole.

    Attributes:
        path: file.
        arrays: dict of arrays.
        state: dict, `TrainingState` as JSON gives it back; that of other trainings may hold other
            things.
        epochs: whole epochs.
    """

    path: str
    arrays: dict
    state: dict
    epochs: int


class DamagedCheckpoint(Exception):
    """A checkpoint file that cannot be used; the message says why."""


def checkpoint_path(folder: str, epochs: int, step: int) -> str:
    """The path of the checkpoint after whole epochs and steps of the next."""
    return os.path.join(folder, f'epoch-{epochs:04d}-step-{step:06d}.npz')


def list_checkpoints(folder: str) -> list[tuple[int, int, str]]:
    """(whole epochs, steps of the next, path) of each checkpoint of a folder, the oldest first."""
    found = [(_NAME.fullmatch(name), name) for name in os.listdir(folder)]
    return sorted((int(match[1]), int(match[2]), os.path.join(folder, name))
                  for match, name in found if match)


def remove_unfinished(folder: str) -> None:
    """Removes what a process left in a folder that was killed while it wrote a checkpoint."""
    for name in os.listdir(folder):
        if name.endswith(files.ASIDE):
            os.remove(os.path.join(folder, name))


def write_checkpoint(path: str, arrays: dict, state: dict) -> None:
    """Writes a checkpoint; whatever happens, `path` is as it was before or whole.

    Args:
        path: file.
        arrays: dict of arrays.
        state: what goes through JSON.

    Raises:
        OSError: it cannot be written, for instance because the disk is full; what was written of
            it is removed.
    """
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    with files.replacing(path) as aside, open(aside, 'wb') as file:
        # One of them might be called allow_pickle, which is a bool.
        np.savez(file, **{_STATE: text}, **arrays)  # type: ignore[arg-type]


def read_checkpoint(path: str) -> tuple[dict, dict]:
    """(arrays, state) of a checkpoint.

    Raises:
        DamagedCheckpoint: the file is gone, cut short, damaged or no checkpoint.
        UserError: it cannot be read now; that says nothing of what it holds.
    """
    try:
        with zipfile.ZipFile(path) as file:
            if (part := file.testzip()) is not None:
                raise DamagedCheckpoint(f'{part} fails its checksum')
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        state = json.loads(arrays.pop(_STATE).tobytes())
    except OSError as error:
        # Damaged places in the file are sought in vain.
        if error.errno not in (errno.EINVAL, errno.ENOENT, None):
            raise UserError(None, path, f'cannot be read: {error.strerror}. Once it can, the '
                            'same command resumes; or remove it, and it begins with the '
                            'checkpoint before.') from None
        raise DamagedCheckpoint(str(error)) from None
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, RuntimeError,
            NotImplementedError, MemoryError, SyntaxError) as error:
        raise DamagedCheckpoint(str(error) or type(error).__name__) from None
    return arrays, state
