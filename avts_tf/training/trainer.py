"""Training on any number of devices and machines.

A training is a function of the configuration and the records: the stage of the curriculum, the order of the records, the pairs and
the learning rate follow from the epoch and the step, and a checkpoint holds the rest. Stopped at any moment and gone on with, it
comes to the same weights and figures, bit by bit (docs/resume.md says under which conditions).
"""

import contextlib
import dataclasses
import itertools
import math
import os
import signal
import time

import keras
import numpy as np
import tensorflow as tf

from avts_tf import metrics, plots, progress
from avts_tf.data.pipeline import make_dataset, steps_per_epoch
from avts_tf.data.sampling import NEGATIVES, Kind
from avts_tf.data.shards import file_stamps, find_shards, name_hashes, same_files
from avts_tf.data.state import LOST, PipelineState, describe_skips, merge_skips
from avts_tf.errors import Diverged, Stopped, UserError
from avts_tf.models.build import build_model
from avts_tf.signals import note_signals
from avts_tf.training.curriculum import CurriculumCallback, parse_regime
from avts_tf.training.devices import (
    computes_bfloat16,
    is_chief,
    make_agreement,
    make_strategy,
    own_batches,
    worker_count,
)
from avts_tf.training.run_folder import (
    KEPT_CHECKPOINTS,
    RunFolder,
    hold_run,
    load_config,
    load_inputs,
    update_result,
    writing,
)

CHECKPOINT_MINUTES = 10.0
ADAPT_BATCHES = 16      # batches whose sound gives the front end its mean and deviation
PROBE_CLIPS = 128       # clips of the fixed set that is measured after every epoch
PLATEAU_EPOCHS = 5      # epochs without a lower loss until the learning rate falls
PLATEAU_FACTOR = 0.1
UNDECAYED = ['bias', 'beta', 'gamma', 'log_temperature']  # names of variables without weight decay
COLLAPSED_SPREAD = 0.02  # of 1: embeddings of length 1 that point anywhere have spread 1
CHANCE_AUC = 0.55
COLLAPSE_STEPS = 200    # steps at chance, after the warm-up, before it is said: what learns has left it by then (docs/training.md)
NAMED_CLIPS = 8         # clips of a batch that a message names
PROGRESS_SECONDS = 30.0  # between lines on steps, where there is no terminal: a log of days is read too
TIMING = ('seconds', 'clips_per_second', 'records_skipped')  # may differ when a run is resumed; not in history.csv
BFLOAT16_WARNING = (
    'WARNING: --bfloat16: this processor has no instructions for bfloat16. It trains many times slower than without the flag, and '
    'where the processor has no AVX-512 its convolutions round more (docs/performance.md).')
LEARN_SLOWER = 'start with a new --run_dir and a lower --learning_rate, --clip_norm=1 or longer --warmup_steps.'


def make_optimizer(config):
    """The optimiser of a configuration; biases and batch norm are not decayed."""
    train = config.train
    if train.optimizer == 'adamw':
        optimizer = keras.optimizers.AdamW(train.learning_rate, weight_decay=train.weight_decay)
    else:
        optimizer = keras.optimizers.SGD(train.learning_rate, momentum=train.momentum, weight_decay=train.weight_decay or None)
    optimizer.exclude_from_weight_decay(var_names=UNDECAYED)
    return optimizer


def learning_rate_at(train, step, total_steps, losses):
    """The learning rate of a step.

    Args:
        train: `TrainConfig`.
        step: steps done.
        total_steps: steps of the whole training.
        losses: mean loss of each epoch so far, for the plateau schedule.

    Returns:
        float.
    """
    rate = train.learning_rate * min(1.0, (step + 1) / max(1, train.warmup_steps))
    if train.schedule == 'cosine':
        return rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / max(1, total_steps))))
    if train.schedule == 'plateau':
        return rate * PLATEAU_FACTOR ** count_plateaus(losses)
    return rate


def count_plateaus(losses):
    """How often `PLATEAU_EPOCHS` epochs in a row brought no lower loss."""
    best, waited, count = math.inf, 0, 0
    for loss in losses:
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited >= PLATEAU_EPOCHS:
            count, waited = count + 1, 0
    return count


def load_model(run_dir, which='newest', say=print):
    """The trained model of a run folder.

    Args:
        run_dir: run folder.
        which: 'newest' or 'best' checkpoint (see `RunFolder.read_checkpoint`).
        say: function that shows a line of text.

    Returns:
        (`TwoTower`, number of whole epochs that it was trained for).

    Raises:
        UserError: there is no run, or no checkpoint in it.
    """
    config = load_config(run_dir)
    run = RunFolder(run_dir, config)
    checkpoint = run.read_checkpoint(which, say)
    if not checkpoint:
        raise UserError(f'--run_dir={run_dir}: no checkpoint that is whole in {run.checkpoints}; --mode=train writes one after '
                        'each epoch.')
    model = build_model(config)
    model.compile(optimizer=make_optimizer(config))
    run.restore(model, checkpoint, optimizer=False)
    return model, checkpoint.epochs


@dataclasses.dataclass
class Standing:
    """How far a training has come: what a checkpoint holds beside the arrays.

    Attributes:
        epochs, step: whole epochs, and steps of the next.
        start: position in the records after that step (see `PipelineState.start`).
        logs: what the last step returned, means over its epoch so far.
        rows: rows of history.csv.
        skips: records that were met so far and could not be used, as `PipelineState.skips`.
        pattern: glob of the records.
        shards: (path, number of records, stamp) of each file when the training began.
        steps: steps of an epoch, as the schedule of the learning rate counts them.
    """

    epochs: int = 0
    step: int = 0
    start: int = 0
    logs: dict = dataclasses.field(default_factory=dict)
    rows: list = dataclasses.field(default_factory=list)
    skips: dict = dataclasses.field(default_factory=dict)
    pattern: str = ''
    shards: list = dataclasses.field(default_factory=list)
    steps: int = 0

    def counts(self):
        """(path, number of records) of each file, as `find_shards` gives them."""
        return [(path, count) for path, count, _ in self.shards]


def train(config, pattern, run_dir, eval_pattern=None, devices='auto', say=print, *, on_bad_record='skip',
          checkpoint_minutes=CHECKPOINT_MINUTES, keep_checkpoints=KEPT_CHECKPOINTS, deterministic=False, select_pattern=None):
    """Trains the two towers, or goes on with a training, until all stages are done.

    Args:
        config: `Config`.
        pattern: glob of training records.
        run_dir: run folder.
        eval_pattern: glob of records that were not trained on; None where there are none.
        devices: see `devices.make_strategy`.
        say: function that shows a line of text.
        on_bad_record: 'skip' leaves out records that cannot be used, and says so; 'stop' stops at the first.
        checkpoint_minutes: minutes between checkpoints within an epoch; 0 writes one after every step.
        keep_checkpoints: newest checkpoints to keep, beside the best.
        deterministic: have TensorFlow use operations only that give the same bits each time; a CPU needs no telling.
        select_pattern: glob of records that the AUC after each epoch is measured on, by which the best one is chosen; None takes
            those of `eval_pattern`, and training records without any.

    Returns:
        The trained `TwoTower`.

    Raises:
        UserError: the records, the run folder or the devices are not fit for it, the training is finished and was with other
            records, or the loss is NaN or infinite.
        Stopped: a signal came; a checkpoint was written.
    """
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    with hold_run(run_dir):
        lead, stops = is_chief(), on_bad_record == 'stop'
        say = say if lead else lambda line: None
        curriculum = parse_regime(config.train.regime, config.train.epochs)
        # A mistake in the records should not cost a wait: look at them before anything is built.
        standing = Standing(pattern=pattern)
        inputs = {'records': pattern, 'eval_records': eval_pattern, 'select_records': select_pattern}
        newest = _newest_checkpoint(run_dir, config, say)
        if newest:
            standing = Standing(**newest.state)
            if standing.epochs >= curriculum.epochs:
                _refuse_other_records(run_dir, standing.pattern, inputs)
        if not same_files(standing.pattern, pattern):
            say(f'The records are others than before: --records was {standing.pattern}.')
        if not newest or standing.pattern != pattern:
            shards = find_shards(pattern)
            standing = dataclasses.replace(
                standing, pattern=pattern, steps=steps_per_epoch(shards, config),
                shards=[(path, count, stamp) for (path, count), stamp in zip(shards, file_stamps(shards), strict=True)])
        strategy = make_strategy(devices)
        if config.towers.bfloat16 and not computes_bfloat16():
            say(BFLOAT16_WARNING)
        replicas = strategy.num_replicas_in_sync
        if config.train.batch_size % replicas:
            raise UserError(
                f'--batch_size={config.train.batch_size}: cannot be divided among {replicas} devices (--devices={devices}); use a '
                'multiple.'
            )
        state = PipelineState()
        dataset = make_dataset(pattern, config, state=state, shards=standing.counts(), on_bad_record=on_bad_record)
        probe_flag = next(name for name in ('select_records', 'eval_records', 'records') if inputs[name])
        probe_pattern = inputs[probe_flag]
        probe_shards = standing.counts() if probe_flag == 'records' else None
        looked_at = PipelineState()
        probe = _first_batches(make_dataset(
            probe_pattern, config, training=False, state=looked_at, parameter=probe_flag, shards=probe_shards), PROBE_CLIPS)
        if probe_flag != 'records' and not probe:
            raise UserError(f'--{probe_flag}={probe_pattern}: no usable clip to measure on; {looked_at.describe_skips()}. '
                            f'A window is {config.clip.window_seconds:g} s at {config.clip.sample_rate} Hz.')
        if probe_flag != 'records' and looked_at.skips():
            say(f'{probe_pattern}: {looked_at.describe_skips()}')
        run = RunFolder(run_dir, config, inputs, keep_checkpoints)
        with strategy.scope():
            model = build_model(config)
            model.compile(optimizer=make_optimizer(config))
            model.optimizer.build(model.trainable_variables)
        if newest:
            run.restore(model, newest)
        if standing.epochs >= curriculum.epochs:
            say(f'{run_dir}: all {curriculum.epochs} epochs are done.')
            return model
        say(f'{sum(count for _, count in standing.counts())} records in {len(standing.shards)} file(s), {standing.steps} steps of '
            f'{config.train.batch_size} clips an epoch; stages {curriculum}; {replicas} device(s)'
            f'{f" on {worker_count()} machines" if worker_count() > 1 else ""}.')
        picture = None
        if newest:
            say(f'Going on after epoch {standing.epochs}{f" and {standing.step} steps" if standing.step else ""}.')
            run.write_history(standing.rows)
        else:
            first = PipelineState()
            first.mix.assign(curriculum.mix(0).vector())
            sounds = []
            with _naming_bad_record(first, stops):
                for batch in make_dataset(
                        pattern, config, state=first, shards=standing.counts(), on_bad_record=on_bad_record).take(ADAPT_BATCHES):
                    picture = picture or batch
                    sounds.append(batch['audio'].numpy()[:, 0])
            if not sounds:
                raise _no_batch(pattern, first.skips(), config)
            model.audio_tower.get_layer('log_mel').adapt(sounds)
        callbacks = [
            CurriculumCallback(curriculum, state, standing.epochs),
            LearningRate(config.train, standing.steps * curriculum.epochs, standing.rows),
            Measure(model, probe, state, standing, config),
            *([Keep(run, state, standing, picture)] if lead else []),
            *([Progress(curriculum, state, standing, say)] if lead else []),
        ]
        with _naming_bad_record(state, stops), _naming_lost_worker():
            _run_epochs(model, strategy, dataset, state, standing, curriculum, run, callbacks, checkpoint_minutes,
                        newest.arrays['metrics'] if newest else None)
        return model


def _refuse_other_records(run_dir, pattern, inputs):
    """Raises a `UserError` where a finished training, which was with the records `pattern`, is given others."""
    before = {**load_inputs(run_dir), 'records': pattern}
    for name, given in inputs.items():
        if not same_files(before.get(name), given):
            raise UserError(
                f'--{name}={given or ""}: the training in --run_dir={run_dir} is finished, and was with other files: '
                f'--{name}={before.get(name) or ""}. Use --mode=evaluate to measure it on other records, or another --run_dir for '
                'a new training.')


def _newest_checkpoint(run_dir, config, say):
    """The newest whole `Checkpoint` of a run folder that may not be there yet, or None."""
    if not os.path.exists(os.path.join(run_dir, 'config.json')):
        return None
    run = RunFolder(run_dir, config)
    newest = run.read_checkpoint(say=say)
    if not newest and run.history():
        say(f'WARNING: {run.checkpoints}: no checkpoint is whole; starting from the beginning.')
    return newest


def _run_epochs(model, strategy, dataset, state, standing, curriculum, run, callbacks, checkpoint_minutes, metric_values):
    """The steps of a training from where `standing` is to the end; Keras's own loop cannot start within an epoch."""
    train_step = _make_train_step(model, strategy)
    read_metrics, write_metrics = _make_metric_state(model, strategy)
    agree = make_agreement(strategy, 6)
    batches = own_batches(dataset, strategy)
    callbacks = keras.callbacks.CallbackList(callbacks, model=model)
    saved, saved_at = (standing.epochs, standing.step), time.monotonic()

    def save():
        nonlocal saved, saved_at
        met = dataclasses.replace(standing, skips=merge_skips(standing.skips, state.skips()))
        run.save(model, standing.epochs, standing.step, dataclasses.asdict(met), metrics=read_metrics())
        saved, saved_at = (standing.epochs, standing.step), time.monotonic()

    with note_signals() as interruption:
        callbacks.on_train_begin()
        for epoch in range(standing.epochs, curriculum.epochs):
            model.reset_metrics()
            if standing.step:
                write_metrics(metric_values)
            state.reset_counts()
            state.start.assign(standing.start)
            callbacks.on_epoch_begin(epoch)
            last, iterator = None, iter(batches)
            while True:
                batch = next(iterator, None)
                due = (epoch, standing.step) != saved and time.monotonic() - saved_at >= 60 * checkpoint_minutes
                told = agree([epoch, standing.step, batch is not None, _digest(batch), interruption.signal_number, due])
                _check_agreement(told)
                stopped_by = max(row[4] for row in told)
                if last and (stopped_by or batch is None or any(row[5] for row in told)):
                    # The rest of what a step tells is read only where it is needed: the device need not wait for it.
                    standing.logs = {name: float(value) for name, value in last[1].items()}
                    standing.start = _end(last[0])
                    _check_loss(*last, standing, epoch)
                    last = None
                if stopped_by or any(row[5] for row in told):
                    if (epoch, standing.step) != saved:
                        _check_weights(model, standing, epoch)
                        save()
                    if stopped_by:
                        callbacks.on_train_end()
                        raise _stopped(run, stopped_by, f'after epoch {epoch} and {standing.step} steps')
                if batch is None:
                    break
                callbacks.on_train_batch_begin(standing.step)
                logs = train_step(batch)
                if last:
                    _check_loss(*last, standing, epoch)
                standing.step += 1
                last = batch, logs
                callbacks.on_train_batch_end(standing.step - 1, logs)
            if not standing.step:
                raise _no_batch(standing.pattern, state.skips(), model.config)
            _check_weights(model, standing, epoch)
            callbacks.on_epoch_end(epoch, dict(standing.logs))
            standing.epochs, standing.step, standing.start = epoch + 1, 0, 0
            save()
            standing.skips = merge_skips(standing.skips, state.skips())
        callbacks.on_train_end()
        if interruption.signal_number:
            raise _stopped(run, interruption.signal_number, 'at the end of the training')


def _make_train_step(model, strategy):
    """A function from a per-replica batch to the means over the replicas of what `model.train_step` returns."""
    @tf.function(reduce_retracing=True, autograph=False)
    def train_step(batch):
        logs = strategy.run(model.train_step, args=(batch,))
        return {name: strategy.reduce(tf.distribute.ReduceOp.MEAN, value, axis=None) for name, value in logs.items()}
    return train_step


def _make_metric_state(model, strategy):
    """Functions that read the metrics of all replicas as float64 [replicas, numbers], and write such an array back."""
    variables = [variable for metric in model.metrics for variable in metric.variables]
    sizes = [math.prod(variable.shape) for variable in variables]

    @tf.function(autograph=False)
    def read():
        def one():
            own = tf.concat([tf.reshape(tf.cast(tf.convert_to_tensor(v), tf.float64), [-1]) for v in variables], 0)[None]
            context = tf.distribute.get_replica_context()
            return own if strategy.num_replicas_in_sync == 1 else context.all_gather(own, axis=0)
        return strategy.experimental_local_results(strategy.run(one))[0]

    @tf.function(autograph=False)
    def write(values):
        def one():
            own = values[tf.distribute.get_replica_context().replica_id_in_sync_group]
            for variable, part in zip(variables, tf.split(own, sizes), strict=True):
                variable.assign(tf.cast(tf.reshape(part, variable.shape), variable.dtype))
        strategy.run(one)

    def fit_and_write(values):
        if len(values) != strategy.num_replicas_in_sync:  # the sums of other replicas than these: all to the first
            values = np.concatenate([values.sum(0, keepdims=True), np.zeros([strategy.num_replicas_in_sync - 1, values.shape[1]])])
        write(tf.constant(values, tf.float64))

    return lambda: read().numpy(), fit_and_write


def _local(value):
    """The parts of a per-replica value that are on this machine, as one array."""
    parts = value.values if hasattr(value, 'values') else [value]
    return np.concatenate([part.numpy() for part in parts])


def _end(batch):
    """The position in the records after a batch."""
    return int(_local(batch['end'])[-1])


def _digest(batch):
    """A number that is the same on all machines that read the same batch; 0 where nobody compares."""
    return int(_local(batch['digest'])[0]) if batch and 'digest' in batch else 0


def _check_agreement(told):
    """Raises a `UserError` where the machines are not at the same step with the same batch."""
    if len({tuple(row[:4]) for row in told}) > 1:
        raise UserError(
            'the machines do not train on the same batch: they see other records, or other checkpoints. Every machine must see the '
            'same record files and the same --run_dir. Told (epoch, step, has a batch, digest): '
            f'{"; ".join(str(row[:4]) for row in told)}.'
        )


def _check_loss(batch, logs, standing, epoch):
    """Raises a `UserError` where the loss of a batch is no number."""
    loss = float(logs['loss'])
    if math.isfinite(loss):
        return
    names = name_hashes(standing.counts(), set(_local(batch['example_hash'])[:NAMED_CLIPS].tolist()))
    raise Diverged(
        f'the loss is {loss} in epoch {epoch + 1}, step {standing.step}. Clips of that batch: {", ".join(names)}. Nothing of it '
        'was kept; the same command would come to it again. Look at these clips with python -m tfrecords_tools.inspect. If they '
        f'are well, {LEARN_SLOWER}'
    )


def _check_weights(model, standing, epoch):
    """Raises a `Diverged` where a step, whose loss was a number still, left weights that are none."""
    if not all(np.isfinite(weight.numpy()).all() for weight in model.weights):
        raise _diverged('weights', standing, epoch)


def _diverged(what, standing, epoch):
    return Diverged(f'the {what} are no numbers after epoch {epoch + 1}, step {standing.step}; the same command would come to them '
                    f'again: {LEARN_SLOWER}')


def _no_batch(pattern, skips, config):
    return UserError(f'--records={pattern}: no full batch of usable clips; {describe_skips(skips)}. '
                     f'A window is {config.clip.window_seconds:g} s at {config.clip.sample_rate} Hz.')


def _stopped(run, signal_number, where):
    name = signal.Signals(signal_number).name
    return Stopped(f'stopped by {name} {where}; a checkpoint is in {run.checkpoints}. The same command goes on from there.',
                   signal_number)


@contextlib.contextmanager
def _naming_bad_record(state, stops):
    """Turns TensorFlow's error on a record that cannot be used, where it `stops`, into a `UserError` that names it."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        # The rest of what fails would be a fault here.
        if not stops or 'Iterator' not in error.message or not (fault := state.first_fault()):
            raise
        reason, name = fault
        reason = 'holds fewer records than when the training began' if reason == LOST else reason
        raise UserError(f'{name}: {reason}. Mend it or leave it out, and the same command goes on; --on_bad_record=skip goes on '
                        'without it.') from error


@contextlib.contextmanager
def _naming_lost_worker():
    """Turns TensorFlow's errors on a machine that is gone into a `UserError`."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError, tf.errors.CancelledError,
            tf.errors.InternalError) as error:
        if worker_count() == 1:
            raise
        raise UserError('another machine is gone, or cannot be reached. Start the same command on all of them again: it goes on '
                        f'from the newest checkpoint. ({error.message.splitlines()[0][:300]})') from error


def _first_batches(dataset, clips):
    """The first batches of a dataset as a list, up to a number of clips."""
    batches, count = [], 0
    for batch in dataset:
        batches.append(batch)
        count += len(batch['kind'])
        if count >= clips:
            break
    return batches


class LearningRate(keras.callbacks.Callback):
    """Sets the learning rate before every step; logs it as `learning_rate`."""

    def __init__(self, train, total_steps, rows):
        super().__init__()
        self._train, self._total_steps = train, total_steps
        self._losses = [row['loss'] for row in rows]

    def on_train_begin(self, logs=None):
        self._step = int(self.model.optimizer.iterations.numpy())  # counted from here on: a device need not wait to be asked

    def on_train_batch_begin(self, batch, logs=None):
        rate = learning_rate_at(self._train, self._step, self._total_steps, self._losses)
        self.model.optimizer.learning_rate.assign(rate)

    def on_train_batch_end(self, batch, logs=None):
        self._step += 1

    def on_epoch_end(self, epoch, logs=None):
        self._losses.append(logs['loss'])
        logs['learning_rate'] = float(self.model.optimizer.learning_rate.numpy())


class Measure(keras.callbacks.Callback):
    """Adds to the logs of an epoch: distances and counts per kind, AUC on the fixed clips, throughput; says a collapse."""

    def __init__(self, model, probe, state, standing, config):
        super().__init__()
        self._two_tower, self._probe, self._state, self._standing, self._config = model, probe, state, standing, config
        self._started = time.perf_counter()
        self._steps = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._started, self._steps = time.perf_counter(), 0

    def on_train_batch_end(self, batch, logs=None):
        self._steps += 1

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self._started
        logs['clips_per_second'] = self._steps * self._config.train.batch_size / seconds
        logs['seconds'] = seconds
        logs.update(self._two_tower.kind_results())
        logs['records_skipped'] = sum(count for count, _ in self._state.skips().values())
        pairs = metrics.pair_distances(self._two_tower, self._probe)
        if not np.isfinite(pairs['distance']).all():
            raise _diverged('embeddings', self._standing, epoch)
        positive, _ = metrics.of_kind(pairs, Kind.POSITIVE)
        for kind in NEGATIVES:
            value = metrics.auc(positive, metrics.of_kind(pairs, kind)[0])
            if not math.isnan(value):
                logs[f'auc_{kind}'] = value
        stuck = itertools.takewhile(self._learns_nothing, [logs, *self._standing.rows[::-1]])
        steps = self._standing.steps * len(list(stuck))
        done = self._standing.steps * (len(self._standing.rows) + 1)
        logs['collapsed'] = int(min(steps, done - self._config.train.warmup_steps) >= COLLAPSE_STEPS)

    def _learns_nothing(self, row):
        at_chance = max(row.get('auc_easy', 1.0), row.get('auc_hard', 0.0)) < CHANCE_AUC
        return at_chance or (self._config.towers.normalize == 'length' and row['spread'] < COLLAPSED_SPREAD)


def off_the_plateau(config):
    """Flags that may bring a training off the plateau, and that it does not have yet: a list, the most promising first."""
    towers, augment, train = config.towers, config.augment, config.train
    flags = {
        '--crop_scale_min=1': augment.crop_scale_min < 1,
        '--colour_jitter=0': augment.colour_jitter > 0,
        '--optimizer=adamw --learning_rate=1e-3': train.optimizer != 'adamw',
        '--learning_rate=1e-3': train.optimizer == 'adamw' and train.learning_rate > 1e-3,
    }
    if towers.system == 'avts':
        flags |= {
            '--regime=curriculum_mixed': parse_regime(train.regime, train.epochs).mix(0)[Kind.EASY] < 1,
            '--normalize=whiten': towers.normalize != 'whiten',
            '--easy_negatives=weighted': train.loss == 'contrastive' and train.easy_negatives != 'weighted',
            '--margin=1.3': train.loss == 'contrastive' and towers.normalize == 'length' and train.margin < 1.3,
            '--loss=infonce': train.loss != 'infonce' and config.pairs.audio_windows > 1,
        }
    return [flag for flag, missing in flags.items() if missing]


class Keep(keras.callbacks.Callback):
    """Writes each epoch to history.csv, timing.csv, result.json and TensorBoard."""

    def __init__(self, run, state, standing, picture):
        super().__init__()
        self._run, self._state, self._standing, self._picture = run, state, standing, picture
        with writing(run.path):
            self._writer = tf.summary.create_file_writer(os.path.join(run.path, 'tensorboard'))

    def on_epoch_end(self, epoch, logs=None):
        self._standing.rows.append({'epoch': epoch + 1, **{name: value for name, value in logs.items() if name not in TIMING}})
        self._run.write_history(self._standing.rows)
        timing = [{**row, 'epoch': int(row['epoch'])} for row in self._run.read_table('timing.csv') if row['epoch'] <= epoch]
        self._run.write_table('timing.csv', [*timing, {'epoch': epoch + 1, **{name: logs[name] for name in TIMING}}])
        skips = merge_skips(self._standing.skips, self._state.skips())
        update_result(self._run.path, {'training': {
            'epochs': epoch + 1,
            'skipped_records': {reason: {'times': count, 'first': names} for reason, (count, names) in skips.items()},
        }})
        with writing(self._run.path), self._writer.as_default(step=epoch + 1):
            for name, value in logs.items():
                tf.summary.scalar(f'epoch/{name}', value)
            self._writer.flush()

    def on_train_begin(self, logs=None):
        if self._picture:
            picture = plots.batch_image(self._picture, self.model.audio_tower.get_layer('log_mel'), self.model.config)
            with writing(self._run.path), self._writer.as_default(step=0):
                tf.summary.image('batch', picture[None])


class Progress(keras.callbacks.Callback):
    """A bar over the steps, a line per epoch with the time that is left, and a loud word on what is wrong."""

    def __init__(self, curriculum, state, standing, say):
        super().__init__()
        self._curriculum, self._state, self._standing, self._say = curriculum, state, standing, say
        self._done = self._first = standing.epochs * standing.steps + standing.step
        self._said_skips, self._said_changed = {}, set()

    def on_train_begin(self, logs=None):
        self._started = time.perf_counter()
        self._say('Compiling the first step, which takes seconds to minutes.')
        self._bar = progress.bar(None, 'training', PROGRESS_SECONDS, total=self._standing.steps * self._curriculum.epochs,
                                 initial=self._first, unit='step')

    def on_train_batch_end(self, batch, logs=None):
        self._done += 1
        self._bar.update()

    def on_epoch_end(self, epoch, logs=None):
        done, total = epoch + 1, self._curriculum.epochs
        left = ((time.perf_counter() - self._started) / max(1, self._done - self._first)
                * self._standing.steps * (total - done))
        distances = ' '.join(f'{kind} {logs[f"distance_{kind}"]:.2f}' for kind in Kind if f'distance_{kind}' in logs)
        aucs = ' '.join(f'{kind} {logs[f"auc_{kind}"]:.3f}' for kind in NEGATIVES if f'auc_{kind}' in logs)
        skipped = f'{logs["records_skipped"]} records skipped | ' if logs.get('records_skipped') else ''
        self._write(f'epoch {done}/{total} [{self._curriculum.mix(epoch)}] loss {logs["loss"]:.4f} | distance {distances} | '
                    f'AUC {aucs} (chance 0.5) | {skipped}{logs["clips_per_second"]:.0f} clips/s | {_duration(left)} left')
        if self._state.skips() != self._said_skips:
            self._said_skips = self._state.skips()
            self._write(f'WARNING: epoch {done}: {describe_skips(self._said_skips)}')
        self._say_changed()
        if logs.get('collapsed'):
            flags = off_the_plateau(self.model.config)
            self._write(
                f'WARNING: {COLLAPSE_STEPS} steps or more with the AUC at chance or the embeddings in one point (spread '
                f'{logs["spread"]:.3f}): it is not learning. Check the records with python -m tfrecords_tools.inspect'
                f'{"".join(f", or start with a new --run_dir and {flag}" for flag in flags[:1])}'
                f'{"".join(f", {flag}" for flag in flags[1:])}.'
            )

    def on_train_end(self, logs=None):
        self._bar.close()

    def _say_changed(self):
        stamps = file_stamps(self._standing.counts())
        changed = {path for (path, _, stamp), new in zip(self._standing.shards, stamps, strict=True)
                   if (stamp and list(stamp)) != new}
        if changed - self._said_changed:
            self._write(f'WARNING: changed or gone since the training began: {", ".join(sorted(changed))}. What is left of it is '
                        'read; the training is no longer the one that the records at its beginning make.')
            self._said_changed |= changed

    def _write(self, line):
        with self._bar.external_write_mode():  # takes the bar away meanwhile
            self._say(line)


def _duration(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    return f'{minutes // 60}:{minutes % 60:02d}:{seconds:02d}' if minutes >= 60 else f'{minutes}:{seconds:02d}'
