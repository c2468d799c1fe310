"""The steps and epochs of a training.

Keras's own loop cannot start within an epoch, nor stop there in agreement with other machines.
"""

import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from avts_tf.data.shards import files_digest
from avts_tf.data.state import PipelineState, merge_skips
from avts_tf.models.losses import mean_over_replicas
from avts_tf.models.sync_model import compiled
from avts_tf.models.two_tower import TwoTower
from avts_tf.signals import note_signals
from avts_tf.training import faults
from avts_tf.training.curriculum import Curriculum
from avts_tf.training.devices import (
    Gather,
    gather_texts,
    local_parts,
    machine_share,
    make_gather,
    own_batches,
)
from avts_tf.training.faults import MachineReport
from avts_tf.training.run_folder import RunFolder
from avts_tf.training.state import TrainingState


def run_epochs(
    model: TwoTower, strategy: tf.distribute.Strategy, dataset: tf.data.Dataset,
    pipeline_state: PipelineState, state: TrainingState, curriculum: Curriculum, run: RunFolder,
    callbacks: list[keras.callbacks.Callback], checkpoint_minutes: float, log_every: int,
    metric_values: np.ndarray | None,
) -> None:
    """Trains from where `state` is to the end of the curriculum.

    A step is handed to the device and not waited for. What the steps returned is read, and their
    losses are checked, after every `log_every` steps, before each checkpoint and at the end of an
    epoch: nothing is kept of a step whose loss was not looked at. Several machines agree before
    each step that all have the same batch, for which they wait: one that trained alone would hang.

    Args:
        model: compiled `TwoTower`.
        strategy: what it was built in.
        dataset: batches of `make_dataset`, this machine's part of each global batch.
        pipeline_state: that of the dataset.
        state: `TrainingState`, which is kept up to date.
        curriculum: `Curriculum`.
        run: `RunFolder` for checkpoints.
        callbacks: of Keras; their epochs count from 0.
        checkpoint_minutes: minutes between checkpoints within an epoch; 0 writes one each step.
        log_every: steps after which what they returned is read. Only then, and in `on_epoch_end`,
            do callbacks get logs.
        metric_values: what the metrics held after the last step, float64 [replicas, numbers],
            where `state` is within an epoch.

    Raises:
        Stopped: a signal came; a checkpoint was written.
        UserError: the loss, weights or embeddings are NaN or infinite, there is no batch, the
            machines do not agree, or nothing can be written.
    """
    train_step = make_train_step(model, strategy)
    read_metrics, write_metrics = _make_metric_access(model, strategy)
    gather, machine = make_gather(strategy), machine_share().number
    records, position = files_digest(state.shard_counts()), 0
    batches = own_batches(dataset, strategy)
    listeners = keras.callbacks.CallbackList(callbacks, model=model)
    saved, saved_at = (state.epochs, state.step), time.monotonic()
    unread: list[tuple[dict, dict]] = []  # of each step: parts of its batch, and what it returned

    def save() -> None:
        nonlocal saved, saved_at
        run.save(model, state.epochs, state.step, dataclasses.asdict(state),
                 metrics=read_metrics())
        saved, saved_at = (state.epochs, state.step), time.monotonic()

    def read_steps() -> dict[str, float]:
        """Waits for the device, checks the losses that were not read; the logs of the last step."""
        nonlocal position
        for step, (batch, logs) in enumerate(unread, state.step - len(unread) + 1):
            clips = functools.partial(_local, batch['example_hash'])
            faults.check_loss(float(logs['loss']), clips, state, epoch, step)
        state.logs = {name: float(value) for name, value in logs.items()}
        position = _end(batch)
        unread.clear()
        return state.logs

    with note_signals() as interruption:
        listeners.on_train_begin()
        for epoch in range(state.epochs, curriculum.epochs):
            model.reset_metrics()
            if state.step:
                write_metrics(metric_values)
            pipeline_state.reset_counts()
            pipeline_state.start.assign(state.start[machine] if state.step else 0)
            listeners.on_epoch_begin(epoch)
            iterator = iter(batches)
            while True:
                batch = next(iterator, None)
                due = ((epoch, state.step) != saved
                       and time.monotonic() - saved_at >= 60 * checkpoint_minutes)
                reports = [MachineReport(*numbers) for numbers in gather(
                    MachineReport(epoch, state.step, records, _has_clips(batch),
                                  interruption.signal_number, due))]
                faults.check_agreement(reports)
                ends = not all(report.has_batch for report in reports)
                stop_signal = max(report.stop_signal for report in reports)
                save_now = stop_signal or any(report.checkpoint_due for report in reports)
                if unread and (save_now or ends):
                    read_steps()
                if save_now and (epoch, state.step) != saved:
                    faults.check_weights(model, state, epoch)
                    state.start = [end for end, in gather([position])]
                    save()
                if stop_signal:
                    listeners.on_train_end()
                    raise faults.stopped(run.checkpoints, stop_signal,
                                         f'after epoch {epoch} and {state.step} steps')
                if batch is None or ends:
                    break
                listeners.on_train_batch_begin(state.step)
                unread.append(({name: batch[name] for name in ('example_hash', 'end')},
                               train_step(batch)))
                state.step += 1
                # Keras makes a Python number of each log that it is given, which waits.
                logs = read_steps() if state.step % log_every == 0 else None
                listeners.on_train_batch_end(state.step - 1, logs)
            # Where only another machine ran out, this pipeline would still read.
            del iterator
            _exchange_skips(pipeline_state, gather)
            if not state.step:
                raise faults.no_batch(state.records, pipeline_state.skips(), model.config)
            faults.check_weights(model, state, epoch)
            listeners.on_epoch_end(epoch, dict(state.logs))
            state.epochs, state.step, state.start = epoch + 1, 0, []
            save()
        listeners.on_train_end()
        if interruption.signal_number:
            raise faults.stopped(run.checkpoints, interruption.signal_number,
                                 'at the end of the training')


def make_train_step(model: TwoTower, strategy: tf.distribute.Strategy) -> Callable:
    """A function from a per-replica batch to the means over the replicas of the step's logs.

    They stay on the first device: `strategy.reduce` would bring them to the host, and the function
    would return only when they are there.
    """
    @tf.function(reduce_retracing=True, autograph=False)
    def train_step(batch: dict) -> dict:
        def of_replica(batch: dict) -> dict:
            return {name: mean_over_replicas(value)
                    for name, value in model.train_step(batch).items()}
        with compiled(model.jit_compile and strategy.num_replicas_in_sync > 1):
            logs = strategy.run(of_replica, args=(batch,))
        return {name: strategy.experimental_local_results(value)[0]
                for name, value in logs.items()}
    return train_step


def _make_metric_access(model: TwoTower, strategy: tf.distribute.Strategy) -> tuple:
    """Functions that read and write the metrics of all replicas, float64 [replicas, numbers]."""
    variables = [variable for metric in model.metrics for variable in metric.variables]
    sizes = [math.prod(variable.shape) for variable in variables]
    replicas = strategy.num_replicas_in_sync

    @tf.function(autograph=False)
    def read() -> tf.Tensor:
        def of_replica() -> tf.Tensor:
            parts = [tf.reshape(tf.cast(tf.convert_to_tensor(variable), tf.float64), [-1])
                     for variable in variables]
            own, context = tf.concat(parts, 0)[None], tf.distribute.get_replica_context()
            return own if replicas == 1 else context.all_gather(own, axis=0)
        return strategy.experimental_local_results(strategy.run(of_replica))[0]

    @tf.function(autograph=False)
    def assign(values: tf.Tensor) -> None:
        def to_replica() -> None:
            own = values[tf.distribute.get_replica_context().replica_id_in_sync_group]
            for variable, part in zip(variables, tf.split(own, sizes), strict=True):
                variable.assign(tf.cast(tf.reshape(part, variable.shape), variable.dtype))
        strategy.run(to_replica)

    def write(values: np.ndarray) -> None:
        if len(values) != replicas:  # of another number of replicas: all sums to the first
            others = np.zeros([replicas - 1, values.shape[1]])
            values = np.concatenate([values.sum(0, keepdims=True), others])
        assign(tf.constant(values, tf.float64))

    return lambda: read().numpy(), write


def _local(value: Any) -> np.ndarray:
    """The parts of a per-replica value that are on this machine, as one array."""
    return np.concatenate([part.numpy() for part in local_parts(value)])


def _end(batch: dict) -> int:
    """The position in the records after a batch."""
    return int(_local(batch['end'])[-1])


def _has_clips(batch: dict | None) -> bool:
    """Whether this machine has a batch; beside one that has, a machine without gets no rows."""
    return batch is not None and any(part.shape[0] for part in local_parts(batch['end']))


def _exchange_skips(state: PipelineState, gather: Gather) -> None:
    """Notes in a pipeline's state what the pipelines of other machines could not use."""
    texts = gather_texts(gather, json.dumps(state.skips()))
    del texts[machine_share().number]
    for text in texts:
        state.elsewhere = merge_skips(state.elsewhere, json.loads(text))
