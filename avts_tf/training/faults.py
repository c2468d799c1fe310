"""What can go wrong within a training, said so that the user can mend it."""

import contextlib
import logging
import math
import re
import signal
from collections.abc import Callable, Iterator
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from avts_tf.config import Config
from avts_tf.data.shards import name_hashes
from avts_tf.data.state import LOST, PipelineState, describe_skips
from avts_tf.errors import Diverged, Stopped, UserError
from avts_tf.training.devices import worker_count
from avts_tf.training.state import TrainingState

logger = logging.getLogger(__name__)

NAMED_CLIPS = 8  # clips of a batch that a message names
LEARN_SLOWER = ('start with a new `run_dir` and a lower `learning_rate`, `clip_norm=1` or more '
                '`warmup_steps`.')
# Words in TensorFlow's errors on this machine's own GPU, whatever kind of error it is.
_OWN_GPU = re.compile('cudnn|cublas|cuda|ptx|libdevice', re.IGNORECASE)


class MachineReport(NamedTuple):
    """What a machine tells the others before each step, as integers.

    Attributes:
        epoch, step: where it is.
        records: a number that is the same on all machines that see the same record files.
        has_batch: whether it has a batch. The epoch ends where one of them has none.
        stop_signal: number of the signal that asks it to stop, or 0.
        checkpoint_due: whether it is time for a checkpoint.
    """

    epoch: int
    step: int
    records: int
    has_batch: int
    stop_signal: int
    checkpoint_due: int


def check_agreement(reports: list[MachineReport]) -> None:
    """Raises a `UserError` where the machines are not at the same step with the same records."""
    if len({report[:3] for report in reports}) > 1:
        raise UserError(
            None, None, 'the machines do not train together: they see other records, or other '
            'checkpoints. Every machine must see the same record files and the same `run_dir`. '
            'Each machine\'s (epoch, step, digest of names, sizes and numbers of records of the '
            f'files): {"; ".join(str(tuple(report[:3])) for report in reports)}.')


def check_loss(
    loss: float, clips: Callable[[], np.ndarray], state: TrainingState, epoch: int, step: int,
) -> None:
    """Raises a `Diverged` where the loss of a batch is NaN or infinite.

    Args:
        loss: mean of the epoch up to the batch, which is bad from the first bad batch on.
        clips: function that gives int64 [B], the hashes of its clips; asked only where the loss is
            bad, because the device has to be waited for.
        state: `TrainingState`.
        epoch: number of the epoch, from 0.
        step: number of the batch in the epoch, from 1.
    """
    if math.isfinite(loss):
        return
    logger.error(f'The loss is {loss} in epoch {epoch + 1}, step {step}; looking for the clips of '
                 'that batch in the records.')
    names = name_hashes(state.shard_counts(), set(clips()[:NAMED_CLIPS].tolist()))
    raise Diverged(
        None, None, f'the loss is {loss} in epoch {epoch + 1}, step {step}. Clips of that '
        f'batch: {", ".join(names)}. Nothing of it was kept; the same command would come to it '
        'again. Look at these clips with python -m tfrecords_tools.inspect. If nothing is wrong '
        f'with them, {LEARN_SLOWER}')


def check_weights(model: keras.Model, state: TrainingState, epoch: int) -> None:
    """Raises a `Diverged` where a step with a finite loss left weights that are not."""
    if not all(np.isfinite(weight.numpy()).all() for weight in model.weights):
        raise diverged('weights', state, epoch)


def diverged(what: str, state: TrainingState, epoch: int) -> Diverged:
    """The error for weights or embeddings that are NaN or infinite."""
    return Diverged(None, None, f'the {what} are NaN or infinite after epoch {epoch + 1}, step '
                    f'{state.step}; the same command would come to them again: {LEARN_SLOWER}')


def no_batch(records: str, skips: dict, config: Config) -> UserError:
    """The error for records of which no batch could be made."""
    return UserError('records', records, f'no full batch of usable clips; {describe_skips(skips)}. '
                     + describe_window(config))


def describe_window(config: Config) -> str:
    """A sentence on what a usable clip must have."""
    return f'A window is {config.clip.window_seconds:g} s at {config.clip.sample_rate} Hz.'


def stopped(checkpoints: str, signal_number: int, where: str) -> Stopped:
    """The exception for a training that a signal stopped.

    Args:
        checkpoints: folder of the checkpoints.
        signal_number: number of the signal.
        where: how far the training had come.
    """
    return Stopped(f'stopped by {signal.Signals(signal_number).name} {where}; a checkpoint is in '
                   f'{checkpoints}. The same command resumes from there.', signal_number)


@contextlib.contextmanager
def explaining_bad_record(state: PipelineState, on_bad_record: str) -> Iterator[None]:
    """Where a record that cannot be used stops the training, raises a `UserError` that names it."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        # Anything else that fails so is a fault of the program.
        if on_bad_record != 'stop' or 'Iterator' not in error.message:
            raise
        if not (fault := state.first_fault()):
            raise
        reason, name = fault
        reason = 'holds fewer records than when the training began' if reason == LOST else reason
        raise UserError(None, name, f'{reason}. Mend it or leave it out, and the same command '
                        'resumes; `on_bad_record=skip` trains without it.') from error


@contextlib.contextmanager
def explaining_lost_machine() -> Iterator[None]:
    """Turns TensorFlow's errors on a machine that is gone into a `UserError`."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError,
            tf.errors.CancelledError, tf.errors.InternalError) as error:
        own = _OWN_GPU.search(error.message) and 'nccl' not in error.message.lower()
        if worker_count() == 1 or own:
            raise
        raise UserError(None, None, 'another machine is gone, or cannot be reached. Start the same '
                        'command on all of them again: it resumes from the newest checkpoint. '
                        f'({error.message.splitlines()[0][:300]})') from error
