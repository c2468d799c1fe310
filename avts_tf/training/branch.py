"""Starting a training from the weights of another run, such as the first stage of a curriculum."""

import logging
from typing import NamedTuple

import keras

from avts_tf.config import Config, parameters
from avts_tf.errors import UserError
from avts_tf.training.checkpoints import Checkpoint
from avts_tf.training.curriculum import parse_regime
from avts_tf.training.run_folder import RunFolder, load_config
from avts_tf.training.state import TrainingState

# Parameters of the towers that may differ: they change neither weights nor embeddings.
FREE = ('bfloat16', 'sync_batchnorm')

logger = logging.getLogger(__name__)


class FirstRun(NamedTuple):
    """A finished run that another one starts from.

    Attributes:
        run: its `RunFolder`.
        checkpoint: its newest `Checkpoint`.
        same_optimizer: whether the state of its optimiser is taken too.
    """

    run: RunFolder
    checkpoint: Checkpoint
    same_optimizer: bool


def read_first_run(init_run_dir: str, config: Config) -> FirstRun:
    """Reads the run that a training starts from.

    Args:
        init_run_dir: its run folder.
        config: `Config` of the training that starts.

    Raises:
        UserError: there is no run, it is not finished, or its clips, log-mel or towers differ.
    """
    first = load_config(init_run_dir, 'init_run_dir')
    before, wanted = first.values(), config.values()
    differences = [f'{field.name} is {before[field.name]}, asked for {wanted[field.name]}'
                   for group, field in parameters()
                   if group in ('clip', 'logmel', 'towers') and field.name not in FREE
                   and before[field.name] != wanted[field.name]]
    if differences:
        raise UserError('init_run_dir', init_run_dir, f'has other towers '
                        f'({"; ".join(differences)}); give the same parameters.')
    run = RunFolder(init_run_dir, first)
    checkpoint = run.read_checkpoint()
    epochs = parse_regime(first.train.regime, first.train.epochs).epochs
    if checkpoint is None or checkpoint.epochs < epochs:
        done = checkpoint.epochs if checkpoint else 0
        raise UserError('init_run_dir', init_run_dir, f'its training is not finished ({done} of '
                        f'{epochs} epochs are done); resume it first.')
    return FirstRun(run, checkpoint, first.train.optimizer == config.train.optimizer)


def start_from(first: FirstRun, model: keras.Model, state: TrainingState) -> None:
    """Gives a new training the weights of another run, and where it can the optimiser's state.

    Args:
        first: result of `read_first_run`.
        model: compiled model, whose optimiser is built.
        state: `TrainingState` of the new training, which gets the other one's epochs and steps.
    """
    first.run.restore(model, first.checkpoint, optimizer=first.same_optimizer)
    state.first_epoch = first.checkpoint.state.get('first_epoch', 0) + first.checkpoint.epochs
    state.first_step = int(model.optimizer.iterations.numpy())
    optimizer = ('the state of its optimiser too' if first.same_optimizer else
                 'but not the state of its optimiser, which is another one')
    logger.info(f'Starting from the weights of {first.run.path} after {first.checkpoint.epochs} '
                f'epochs, {optimizer}.')
