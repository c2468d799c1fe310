"""The folder of a run.

    RUN_DIR/
        config.json         what was run
        checkpoints/        epoch-0007-step-000120.npz: all that is needed to resume after 7 epochs
                            and 120 steps
        history.csv         a row per epoch: what was learned, in full precision
        timing.csv          a row per epoch: how long it took
        result.json         what was measured, what was skipped, where the towers are
        plots/              pictures of it
        tensorboard/        the same as curves, and a picture of a batch
"""

import contextlib
import csv
import json
import logging
import os
from collections.abc import Iterator

import keras
import tensorflow as tf

from avts_tf import files, plots
from avts_tf.config import KEPT_CHECKPOINTS, Config
from avts_tf.errors import UserError
from avts_tf.models.build import build_model
from avts_tf.models.two_tower import TwoTower
from avts_tf.training.checkpoints import (
    DAMAGED,
    Checkpoint,
    DamagedCheckpoint,
    checkpoint_path,
    list_checkpoints,
    read_checkpoint,
    remove_unfinished,
    write_checkpoint,
)
from avts_tf.training.curriculum import parse_regime
from avts_tf.training.devices import is_chief
from avts_tf.training.optimizer import make_optimizer

logger = logging.getLogger(__name__)


def hold_run(run_dir: str) -> contextlib.AbstractContextManager:
    """Holds a run folder against other processes that would write it; of several machines the
    chief does.

    Raises:
        UserError: another process is at work on it, or it cannot be written.
    """
    return files.locked(run_dir, 'run_dir') if is_chief() else contextlib.nullcontext()


def refuse_another_run(
    parameter: str, folder: str, before: dict, wanted: dict, what: str = 'run'
) -> None:
    """Raises a `UserError` where a folder was made with other values than are asked for.

    Args:
        parameter: name of the parameter that the folder comes from, for the message.
        folder: what holds the run.
        before: dict of values that it was made with, as JSON gives them back.
        wanted: dict of values that are asked for; those of other names are not compared.
        what: what the folder holds, for the message.

    Raises:
        UserError: a value differs; the message names each with both values.
    """
    wanted = json.loads(json.dumps(wanted))
    differences = [f'{name} is {before.get(name)}, asked for {value}'
                   for name, value in wanted.items() if before.get(name) != value]
    if differences:
        raise UserError(parameter, folder, f'holds another {what} ({"; ".join(differences)}). Use '
                        f'the same values to resume it, or another `{parameter}` for a new one.')


class RunFolder:
    """The files of a run and the rules of resuming it.

    Args:
        path: folder; made if it is not there.
        config: `Config`.
        inputs: dict of what else is worth knowing of the run, such as the records; None leaves
            config.json alone.
        keep: newest checkpoints to keep; the best is kept beside them.

    Raises:
        UserError: the folder holds a run of another configuration, or cannot be written.

    Example:
        >>> RunFolder('runs/demo', load_config('runs/demo')).history()[-1]['loss']
    """

    def __init__(self, path: str, config: Config, inputs: dict | None = None,
                 keep: int = KEPT_CHECKPOINTS) -> None:
        self.path = path
        self.checkpoints = os.path.join(path, 'checkpoints')
        self._keep = keep
        self._writes = is_chief()
        with writing(path):
            if self._writes:
                os.makedirs(self.checkpoints, exist_ok=True)
            config_path = os.path.join(path, 'config.json')
            if os.path.exists(config_path):
                refuse_another_run('run_dir', path, load_config(path).values(), config.values())
            if inputs is not None and self._writes:
                remove_unfinished(self.checkpoints)
                content = {**json.loads(config.to_json()), 'inputs': inputs}
                files.write_text(config_path, json.dumps(content, indent=2) + '\n')

    def read_checkpoint(self, which: str = 'newest') -> Checkpoint | None:
        """The newest or the best checkpoint that is whole.

        Those that are damaged are passed over with a warning.

        Args:
            which: 'newest'; or 'best', the end of the epoch with the highest AUC on hard negatives
                (easy ones where no clip has room for hard ones) of the fixed clips.

        Returns:
            A `Checkpoint`, or None where there is none.
        """
        if not os.path.isdir(self.checkpoints):
            return None
        listed = list_checkpoints(self.checkpoints)[::-1]
        if which == 'best':
            # An epoch is in the history before its checkpoint is written.
            ends = {epochs: path for epochs, step, path in listed if not step}
            listed = [(epochs, 0, ends[epochs])
                      for epochs in best_first(self.history()) if epochs in ends]
        for epochs, _, path in listed:
            try:
                return Checkpoint(path, *read_checkpoint(path), epochs)
            except DamagedCheckpoint as error:
                logger.warning(f'{path}: damaged ({error}); the checkpoint before it is used.')
        return None

    def epochs_done(self) -> int:
        """The number of whole epochs of the newest checkpoint, 0 where there is none."""
        checkpoint = self.read_checkpoint()
        return checkpoint.epochs if checkpoint else 0

    def restore(self, model: keras.Model, checkpoint: Checkpoint | None = None,
                optimizer: bool = True) -> Checkpoint | None:
        """Puts a checkpoint, by default the newest, into a model.

        Args:
            model: compiled model.
            checkpoint: result of `read_checkpoint`.
            optimizer: whether the state of the optimiser is restored too.

        Returns:
            The checkpoint, or None where there is none.

        Raises:
            UserError: it is of a model of another form.
        """
        checkpoint = checkpoint or self.read_checkpoint()
        if checkpoint:
            variables = _variables(model, optimizer)
            other = [name for name, variable in variables.items()
                     if name not in checkpoint.arrays
                     or checkpoint.arrays[name].shape != tuple(variable.shape)]
            if other:
                raise UserError(None, checkpoint.path, 'is of a model of another form, or of '
                                'another version of this program.')
            for name, variable in variables.items():
                variable.assign(checkpoint.arrays[name])
        return checkpoint

    def save(self, model: keras.Model, epochs: int, step: int = 0, state: dict | None = None,
             **arrays: object) -> None:
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
        values = {name: variable.numpy() for name, variable in _variables(model).items()}
        with writing(self.path):
            write_checkpoint(checkpoint_path(self.checkpoints, epochs, step),
                             {**values, **arrays}, state or {})
            best_epochs = next(iter(best_first(self.history())), 0)
            best = checkpoint_path(self.checkpoints, best_epochs, 0)
            listed = list_checkpoints(self.checkpoints)
            older = [item for item in listed if item[:2] <= (epochs, step)]
            for _, _, path in older[:-self._keep]:
                if path != best:
                    os.remove(path)
            # One that claims to be further on was passed over as damaged.
            for _, _, path in listed[len(older):]:
                os.replace(path, path + DAMAGED)

    def history(self) -> list[dict]:
        """Rows of history.csv as dicts of floats; cells that are empty are left out."""
        return self.read_table('history.csv')

    def write_history(self, rows: list[dict]) -> None:
        """Writes history.csv: a row per epoch, a column per name that occurs in any."""
        self.write_table('history.csv', rows)

    def write_table(self, name: str, rows: list[dict]) -> None:
        """Writes rows, dicts of numbers, as a CSV file of the run folder, in full precision."""
        if self._writes:
            columns = list(dict.fromkeys(column for row in rows for column in row))
            cells = [[repr(row[column]) if column in row else '' for column in columns]
                     for row in rows]
            with writing(self.path):
                files.write_text(os.path.join(self.path, name),
                                 ''.join(','.join(line) + '\n' for line in [columns, *cells]))

    def read_table(self, name: str) -> list[dict]:
        """Rows of a CSV file of the run folder, as `history`."""
        path = os.path.join(self.path, name)
        if not os.path.exists(path):
            return []
        with open(path, newline='') as file:
            return [{column: float(cell) for column, cell in row.items() if cell}
                    for row in csv.DictReader(file)]


def best_first(rows: list[dict]) -> list[int]:
    """Epochs, from 1, the one with the highest AUC on hard negatives first.

    Without hard negatives the easy ones decide; of equals the last is first.
    """
    name = next((name for name in ('auc_hard', 'auc_easy') if any(name in row for row in rows)),
                'epoch')
    ordered = sorted(rows, key=lambda row: (row.get(name, 0.0), row['epoch']), reverse=True)
    return [int(row['epoch']) for row in ordered]


def _variables(model: keras.Model, optimizer: bool = True) -> dict:
    """Dict from a name in a checkpoint to a variable of a compiled model and its optimiser."""
    # Paths are not unique: the towers have layers of the same name.
    groups = {'weight': model.weights, 'optimizer': model.optimizer.variables if optimizer else []}
    return {f'{group}-{index:04d}': variable
            for group, variables in groups.items() for index, variable in enumerate(variables)}


def load_model(run_dir: str, which: str = 'newest') -> tuple[TwoTower, int]:
    """The trained model of a run folder.

    Args:
        run_dir: run folder.
        which: 'newest' or 'best' checkpoint (see `RunFolder.read_checkpoint`).

    Returns:
        (`TwoTower`, number of whole epochs that it was trained for).

    Raises:
        UserError: there is no run, or no checkpoint in it.

    Example:
        >>> model, epochs = load_model('runs/demo', which='best')
    """
    config = load_config(run_dir)
    run = RunFolder(run_dir, config)
    checkpoint = run.read_checkpoint(which)
    if not checkpoint:
        raise UserError('run_dir', run_dir, f'no checkpoint that is whole in {run.checkpoints}; '
                        'training writes one after each epoch.')
    model = build_model(config)
    model.compile(optimizer=make_optimizer(config))
    run.restore(model, checkpoint, optimizer=False)
    return model, checkpoint.epochs


def load_config(run_dir: str, parameter: str = 'run_dir') -> Config:
    """The `Config` of a run folder.

    Args:
        run_dir: run folder.
        parameter: name of the parameter that the folder comes from, for messages.

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
        raise UserError(parameter, run_dir, f'no run there ({path} is missing); training makes '
                        'one.') from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(None, path, 'cannot be read as a configuration of this version: '
                        f'{error}') from None


def load_inputs(run_dir: str) -> dict:
    """What else the config.json of a run folder holds, such as the globs of its records."""
    with open(os.path.join(run_dir, 'config.json')) as file:
        return json.load(file).get('inputs', {})


def update_result(run_dir: str, values: dict) -> None:
    """Adds values to `result.json` of a run folder, replacing those of the same names."""
    path = os.path.join(run_dir, 'result.json')
    # A run may be evaluated while it is trained.
    with writing(run_dir), files.updating(path):
        files.write_text(path, json.dumps({**load_result(run_dir), **values}, indent=2) + '\n')


def load_result(run_dir: str) -> dict:
    """What `result.json` of a run folder holds; empty where there is none."""
    path = os.path.join(run_dir, 'result.json')
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        return json.load(file)


def plot_path(run_dir: str, name: str) -> str:
    """The path of a plot of a run folder; the folder for plots is made."""
    folder = os.path.join(run_dir, 'plots')
    os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, name)


def draw_training_curves(run: RunFolder, config: Config, path: str | None = None) -> None:
    """Draws a run's loss, learning rate, distances and AUC over its epochs, from its history.

    Args:
        run: the run.
        config: its `Config`.
        path: PNG file; None is `plots/training.png` of the run.
    """
    rows, stages = run.history(), parse_regime(config.train.regime, config.train.epochs).stages
    with writing(run.path):
        plots.training_curves(rows, path or plot_path(run.path, 'training.png'),
                              [str(stage.mix) for stage in stages])


@contextlib.contextmanager
def writing(run_dir: str) -> Iterator[None]:
    """Turns an error on writing to a run folder, such as a full disk, into a `UserError`."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, 'strerror', None) or str(error)
        raise UserError('run_dir', run_dir, f'cannot be written: {reason}. What was written before '
                        'is whole; once there is room, the same command resumes from the newest '
                        'checkpoint.') from None
