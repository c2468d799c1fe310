"""The folder of a run.

    RUN_DIR/
        config.json         what was run
        checkpoints/        epoch-0007-step-000120.npz: everything to go on with after 7 epochs and 120 steps
        history.csv         a row per epoch: what was learnt, in full precision
        timing.csv          a row per epoch: how long it took
        result.json         what was measured, what was skipped, where the towers are
        tensorboard/        the same as curves, and a picture of a batch

A checkpoint is a NumPy `.npz` (a zip, which holds a CRC of every part). It is written aside, brought to the disk and then renamed,
so that a crash leaves the files before it whole; one that was damaged later fails its CRC and is passed over.
"""

import contextlib
import csv
import json
import os
import re
import zipfile
import zlib
from typing import NamedTuple

import filelock
import numpy as np
import tensorflow as tf

from avts_tf import files
from avts_tf.config import Config
from avts_tf.errors import UserError
from avts_tf.training.devices import is_chief

KEPT_CHECKPOINTS = 3
RESULT_SECONDS = 60.0  # longest wait for another process to write result.json
_ASIDE = 'writing-'
_STATE = 'state'
_CHECKPOINT = re.compile(r'epoch-(\d+)-step-(\d+)\.npz')


def hold_run(run_dir: str) -> contextlib.AbstractContextManager:
    """Holds a run folder against other processes that would write it; of several machines the chief does.

    Raises:
        UserError: another process is at work on it, or it cannot be written.
    """
    return files.locked(run_dir, 'run_dir') if is_chief() else contextlib.nullcontext()


class Checkpoint(NamedTuple):
    """A checkpoint that was read and is whole.

    Attributes:
        path: file.
        arrays: dict of arrays.
        state: dict, `Standing` as JSON gives it back; checkpoints of other trainings may hold other things.
        epochs: whole epochs.
    """

    path: str
    arrays: dict
    state: dict
    epochs: int


class RunFolder:
    """The files of a run and the rules of going on with it.

    Args:
        path: folder; made if it is not there.
        config: `Config`.
        inputs: dict of what else is worth knowing of the run, such as the records; None leaves config.json alone.
        keep: newest checkpoints to keep; the best is kept beside them.

    Raises:
        UserError: the folder holds a run of another configuration, or cannot be written.
    """

    def __init__(self, path, config, inputs=None, keep=KEPT_CHECKPOINTS):
        self.path = path
        self.checkpoints = os.path.join(path, 'checkpoints')
        self.history_path = os.path.join(path, 'history.csv')
        self._keep = keep
        self._writes = is_chief()
        with writing(path):
            if self._writes:
                os.makedirs(self.checkpoints, exist_ok=True)
            config_path = os.path.join(path, 'config.json')
            if os.path.exists(config_path):
                differences = _differences(load_config(path), config)
                if differences:
                    raise UserError(
                        f'--run_dir={path}: holds a run of another configuration ({"; ".join(differences)}). Use its flags to go '
                        'on with it, or another --run_dir for a new run.'
                    )
            if inputs is not None and self._writes:
                for name in os.listdir(self.checkpoints):
                    if name.startswith(_ASIDE):  # a process was killed as it wrote
                        os.remove(os.path.join(self.checkpoints, name))
                write_aside(config_path, json.dumps({**json.loads(config.to_json()), 'inputs': inputs}, indent=2) + '\n')

    def read_checkpoint(self, which='newest', say=print):
        """The newest or the best checkpoint that is whole; those that are not are passed over, and said.

        Args:
            which: 'newest'; or 'best', the end of the epoch with the highest AUC on hard negatives (easy ones where no clip has
                room for hard ones) of the fixed clips.
            say: function that shows a line of text.

        Returns:
            A `Checkpoint`, or None where there is none.
        """
        if not os.path.isdir(self.checkpoints):
            return None
        listed = _listed(self.checkpoints)[::-1]
        if which == 'best':  # of those that are there: an epoch is in the history before it is kept
            ends = {epochs: path for epochs, step, path in listed if not step}
            listed = [(epochs, 0, ends[epochs]) for epochs in best_first(self.history()) if epochs in ends]
        for epochs, _, path in listed:
            try:
                return Checkpoint(path, *read_arrays(path), epochs)
            except Damaged as error:
                say(f'WARNING: {path}: damaged ({error}); the checkpoint before it is taken.')
        return None

    def epochs_done(self):
        """The number of whole epochs of the newest checkpoint, 0 where there is none."""
        checkpoint = self.read_checkpoint()
        return checkpoint.epochs if checkpoint else 0

    def restore(self, model, checkpoint=None, optimizer=True):
        """Puts a checkpoint, by default the newest, into a model; returns it, or None where there is none.

        Raises:
            UserError: it is of a model of another form.
        """
        checkpoint = checkpoint or self.read_checkpoint()
        if checkpoint:
            variables = _variables(model, optimizer)
            other = [name for name, variable in variables.items()
                     if name not in checkpoint.arrays or checkpoint.arrays[name].shape != tuple(variable.shape)]
            if other:
                raise UserError(f'{checkpoint.path}: is of a model of another form, or of another version of this program.')
            for name, variable in variables.items():
                variable.assign(checkpoint.arrays[name])
        return checkpoint

    def save(self, model, epochs, step=0, state=None, **arrays):
        """Writes a checkpoint and removes those that are neither among the newest nor the best.

        Args:
            model: compiled `keras.Model`.
            epochs, step: whole epochs, and steps of the next.
            state: what goes through JSON; given back by `read_checkpoint`.
            **arrays: arrays to be kept beside those of the model.

        Raises:
            UserError: it cannot be written; the checkpoints before it stay.
        """
        if not self._writes:
            return
        arrays = {**{name: variable.numpy() for name, variable in _variables(model).items()}, **arrays}
        with writing(self.path):
            write_arrays(_path_of(self.checkpoints, epochs, step), arrays, state or {})
            best = _path_of(self.checkpoints, next(iter(best_first(self.history())), 0), 0)
            listed = _listed(self.checkpoints)
            # One that claims to be further on was passed over as damaged.
            older = [item for item in listed if item[:2] <= (epochs, step)]
            for _, _, path in [*listed[len(older):], *(item for item in older[:-self._keep] if item[2] != best)]:
                os.remove(path)

    def history(self):
        """Rows of history.csv as dicts of floats; cells that are empty are left out."""
        return _read_table(self.history_path)

    def write_history(self, rows):
        """Writes history.csv whole: a row per epoch, a column per name that occurs in any."""
        self.write_table('history.csv', rows)

    def write_table(self, name, rows):
        """Writes rows, dicts of numbers, as a CSV file of the run folder, in full precision."""
        if self._writes:
            names = list(dict.fromkeys(name for row in rows for name in row))
            lines = [','.join(names), *(','.join(repr(row[name]) if name in row else '' for name in names) for row in rows)]
            with writing(self.path):
                write_aside(os.path.join(self.path, name), '\n'.join(lines) + '\n')

    def read_table(self, name):
        """Rows of a CSV file of the run folder, as `history`."""
        return _read_table(os.path.join(self.path, name))


def best_first(rows):
    """Epochs, from 1, the one with the highest AUC on hard negatives first, or easy ones without those; of equals the last."""
    name = next((name for name in ('auc_hard', 'auc_easy') if any(name in row for row in rows)), 'epoch')
    return [int(row['epoch']) for row in sorted(rows, key=lambda row: (row.get(name, 0.0), row['epoch']), reverse=True)]


def _variables(model, optimizer=True):
    """Dict from a name in a checkpoint to a variable of a compiled model and its optimiser."""
    # Paths are not unique: the towers have layers of the same name.
    groups = {'weight': model.weights, 'optimizer': model.optimizer.variables if optimizer else []}
    return {f'{group}-{index:04d}': variable for group, variables in groups.items() for index, variable in enumerate(variables)}


def load_config(run_dir):
    """The `Config` of a run folder.

    Raises:
        UserError: there is no run in the folder.
    """
    path = os.path.join(run_dir, 'config.json')
    try:
        with open(path) as file:
            groups = json.load(file)
        groups.pop('inputs', None)
        return Config.from_json(json.dumps(groups))
    except FileNotFoundError:
        raise UserError(f'--run_dir={run_dir}: no run there ({path} is missing); --mode=train makes one.') from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f'{path}: cannot be read as a configuration of this version: {error}') from None


def load_inputs(run_dir):
    """What else a run folder's config.json holds, such as the globs of its records: a dict."""
    with open(os.path.join(run_dir, 'config.json')) as file:
        return json.load(file).get('inputs', {})


def update_result(run_dir, values):
    """Adds values to `result.json` of a run folder, replacing those of the same names."""
    path = os.path.join(run_dir, 'result.json')
    # A run may be evaluated while it is trained.
    with writing(run_dir), filelock.FileLock(path + files.LOCK, timeout=RESULT_SECONDS):
        write_aside(path, json.dumps({**load_result(run_dir), **values}, indent=2) + '\n')
        with contextlib.suppress(OSError):
            os.remove(path + files.LOCK)


def load_result(run_dir):
    """What `result.json` of a run folder holds: a dict, empty where there is none."""
    path = os.path.join(run_dir, 'result.json')
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        return json.load(file)


class Damaged(Exception):
    """A checkpoint file that cannot be used; the message says why."""


def _path_of(folder, epochs, step):
    """The path of the checkpoint after whole epochs and steps of the next."""
    return os.path.join(folder, f'epoch-{epochs:04d}-step-{step:06d}.npz')


def _listed(folder):
    """(whole epochs, steps of the next, path) of each checkpoint of a folder, the oldest first."""
    found = [(_CHECKPOINT.fullmatch(name), name) for name in os.listdir(folder)]
    return sorted((int(match[1]), int(match[2]), os.path.join(folder, name)) for match, name in found if match)


def write_arrays(path, arrays, state):
    """Writes a checkpoint; whatever happens, `path` is as it was before or whole.

    Args:
        path: file.
        arrays: dict of arrays.
        state: what goes through JSON.

    Raises:
        OSError: it cannot be written, for instance because the disk is full; what was written of it is removed.
    """
    aside = os.path.join(os.path.dirname(path), _ASIDE + os.path.basename(path))
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    try:
        with open(aside, 'wb') as file:
            np.savez(file, **{_STATE: text}, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError:
        if os.path.exists(aside):
            os.remove(aside)
        raise
    _sync_folder(os.path.dirname(path))


def _sync_folder(folder):
    """Brings the names in a folder to the disk, so that a file that was renamed into it outlives a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_arrays(path):
    """(arrays, state) of a checkpoint.

    Raises:
        Damaged: the file is cut short, damaged or no checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as file:
            if (part := file.testzip()) is not None:
                raise Damaged(f'{part} fails its checksum')
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        state = json.loads(arrays.pop(_STATE).tobytes())
    except (OSError, zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, RuntimeError, NotImplementedError,
            MemoryError, SyntaxError) as error:
        raise Damaged(f'{error or type(error).__name__}') from None
    return arrays, state


def _differences(old, new):
    """What differs between two configurations, as "name is A, asked for B"."""
    from_old, from_new = (json.loads(config.to_json()) for config in (old, new))
    return [f'{name} is {from_old[group][name]}, asked for {value}' for group, values in from_new.items()
            for name, value in values.items() if from_old[group][name] != value]


@contextlib.contextmanager
def writing(run_dir):
    """Turns an error on writing to a run folder, such as a full disk, into a `UserError`."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, 'strerror', None) or str(error)
        raise UserError(f'--run_dir={run_dir}: cannot be written: {reason}. What was written before is whole; once there is room, '
                        'the same command goes on from the newest checkpoint.') from None


def _read_table(path):
    if not os.path.exists(path):
        return []
    with open(path, newline='') as file:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]


def write_aside(path, text):
    """Writes a text file; whatever happens, `path` is as it was before or whole."""
    aside = path + '.writing'
    with open(aside, 'w') as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
