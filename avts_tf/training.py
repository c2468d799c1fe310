"""Training under MirroredStrategy, and the run folder that it leaves.

    RUN_DIR/
        config.json         what was run
        checkpoints/        epoch-0007.weights.h5: weights and optimiser after 7 epochs; the last few are kept
        history.csv         a row per epoch
        result.json         what was measured and where the towers are
        tensorboard/        the same as curves, and a picture of a batch

The stage of the curriculum, the order of the records, the pairs and the learning rate follow from the epoch and from
history.csv, so that a checkpoint and the history are all that is needed to go on.
"""

import csv
import functools
import json
import math
import os
import re
import time
import warnings

import keras
import tensorflow as tf
import tqdm

from avts_tf import metrics, plots, records
from avts_tf.config import Config, UserError
from avts_tf.curriculum import CurriculumCallback, parse_regime
from avts_tf.others import build_model
from avts_tf.pipeline import PipelineState, make_dataset, steps_per_epoch
from avts_tf.windows import EASY, KINDS, POSITIVE

KEPT_CHECKPOINTS = 3
ADAPT_BATCHES = 16      # batches whose sound gives the front end its mean and deviation
PROBE_CLIPS = 128       # clips of the fixed set that is measured after every epoch
PLATEAU_EPOCHS = 5      # epochs without a lower loss until the learning rate falls
PLATEAU_FACTOR = 0.1
COLLAPSED_SPREAD = 0.02  # of 1: embeddings of length 1 that point anywhere have spread 1
CHANCE_AUC = 0.55
COLLAPSE_EPOCHS = 3     # epochs at chance before it is said


@functools.cache  # a second strategy over the same devices in one process breaks TensorFlow's collective operations
def make_strategy(devices):
    """MirroredStrategy over the devices of a flag value.

    Args:
        devices: 'auto' for all GPUs, or the CPU where there is none; or a number, of GPUs or, where there is none, of logical
            CPU devices.

    Returns:
        `tf.distribute.MirroredStrategy`.

    Raises:
        UserError: no such number of devices.
    """
    gpus = tf.config.list_physical_devices('GPU')
    if devices == 'auto':
        names = [f'GPU:{i}' for i in range(len(gpus))] or ['CPU:0']
        return tf.distribute.MirroredStrategy(names)
    if not str(devices).isdigit() or int(devices) < 1:
        raise UserError(f'--devices={devices}: use "auto" or a number of devices from 1.')
    count = int(devices)
    if gpus:
        if count > len(gpus):
            raise UserError(f'--devices={devices}: this machine has {len(gpus)} GPU(s).')
        return tf.distribute.MirroredStrategy([f'GPU:{i}' for i in range(count)])
    cpu = tf.config.list_physical_devices('CPU')[0]
    if count > 1:
        try:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
        except RuntimeError:  # TensorFlow has started; that is well where it has as many devices
            if len(tf.config.list_logical_devices('CPU')) < count:
                raise UserError(
                    f'--devices={devices}: TensorFlow has started with fewer CPU devices; start a new process.') from None
    return tf.distribute.MirroredStrategy([f'CPU:{i}' for i in range(count)])


def make_optimizer(config):
    """The optimiser of a configuration; biases and batch norm are not decayed."""
    train = config.train
    if train.optimizer == 'adamw':
        optimizer = keras.optimizers.AdamW(train.learning_rate, weight_decay=train.weight_decay)
    else:
        optimizer = keras.optimizers.SGD(train.learning_rate, momentum=train.momentum, weight_decay=train.weight_decay or None)
    optimizer.exclude_from_weight_decay(var_names=['bias', 'beta', 'gamma'])
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


class RunFolder:
    """The files of a run and the rules of resuming it.

    Args:
        path: folder; made if it is not there.
        config: `Config`.
        inputs: dict of what else is worth knowing of the run, such as the records; None leaves config.json alone.

    Raises:
        UserError: the folder holds a run of another configuration, or cannot be written.
    """

    def __init__(self, path, config, inputs=None):
        self.path = path
        self.checkpoints = os.path.join(path, 'checkpoints')
        self.history_path = os.path.join(path, 'history.csv')
        try:
            tf.io.gfile.makedirs(self.checkpoints)
        except tf.errors.OpError as error:
            raise UserError(f'--run_dir={path}: cannot be made: {error.message}') from None
        config_path = os.path.join(path, 'config.json')
        if os.path.exists(config_path):
            differences = _differences(load_config(path), config)
            if differences:
                raise UserError(
                    f'--run_dir={path}: holds a run of another configuration ({"; ".join(differences)}). Use its flags to go on '
                    'with it, or another --run_dir for a new run.'
                )
        if inputs is not None:
            _write_aside(config_path, json.dumps({**json.loads(config.to_json()), 'inputs': inputs}, indent=2) + '\n')

    def epochs_done(self):
        """The number of epochs of the newest checkpoint, 0 where there is none."""
        matches = (re.fullmatch(r'epoch-(\d+)\.weights\.h5', name) for name in os.listdir(self.checkpoints))
        return max((int(match[1]) for match in matches if match), default=0)

    def checkpoint_path(self, epochs):
        """The path of the checkpoint after a number of epochs."""
        return os.path.join(self.checkpoints, f'epoch-{epochs:04d}.weights.h5')

    def save(self, model, epochs):
        """Writes a checkpoint aside, renames it, and removes old ones."""
        path = self.checkpoint_path(epochs)
        aside = path.replace('epoch-', 'writing-')
        model.save_weights(aside)
        os.replace(aside, path)
        if epochs > KEPT_CHECKPOINTS and os.path.exists(old := self.checkpoint_path(epochs - KEPT_CHECKPOINTS)):
            os.remove(old)

    def history(self):
        """Rows of history.csv as dicts of floats; cells that are empty are left out."""
        if not os.path.exists(self.history_path):
            return []
        with open(self.history_path, newline='') as file:
            return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]

    def write_history(self, rows):
        """Writes history.csv whole: a row per epoch, a column per name that occurs in any."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        lines = [','.join(names)] + [','.join(f'{row[name]:.6g}' if name in row else '' for name in names) for row in rows]
        _write_aside(self.history_path, '\n'.join(lines) + '\n')


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
    results = {}
    if os.path.exists(path):
        with open(path) as file:
            results = json.load(file)
    _write_aside(path, json.dumps({**results, **values}, indent=2) + '\n')


def load_model(run_dir):
    """The trained model of a run folder, with the weights of its newest checkpoint.

    Returns:
        (`TwoTower`, number of epochs that it was trained for).

    Raises:
        UserError: there is no run, or no checkpoint in it.
    """
    config = load_config(run_dir)
    run = RunFolder(run_dir, config)
    epochs = run.epochs_done()
    if not epochs:
        raise UserError(f'--run_dir={run_dir}: no checkpoint in {run.checkpoints}; --mode=train writes one after each epoch.')
    model = build_model(config)
    model.compile(optimizer=make_optimizer(config))
    model.optimizer.build(model.trainable_variables)
    model.load_weights(run.checkpoint_path(epochs))
    return model, epochs


def train(config, pattern, run_dir, eval_pattern=None, devices='auto', say=print):
    """Trains the two towers, or goes on with a training, until all stages are done.

    Args:
        config: `Config`.
        pattern: glob of training records.
        run_dir: run folder.
        eval_pattern: glob of records that the AUC after each epoch is measured on; None takes training records.
        devices: see `make_strategy`.
        say: function that shows a line of text.

    Returns:
        The trained `TwoTower`.

    Raises:
        UserError: the records, the run folder or the devices are not fit for it.
    """
    curriculum = parse_regime(config.train.regime, config.train.epochs)
    # A mistake in the records should not cost a wait: look at them before anything is built.
    shards = records.find_shards(pattern)
    steps = steps_per_epoch(shards, config)
    strategy = make_strategy(devices)
    if config.train.batch_size % strategy.num_replicas_in_sync:
        raise UserError(
            f'--batch_size={config.train.batch_size}: cannot be divided among {strategy.num_replicas_in_sync} devices '
            f'(--devices={devices}); use a multiple.'
        )
    state = PipelineState()
    dataset = make_dataset(pattern, config, state=state)
    probe_flag = 'eval_records' if eval_pattern else 'records'
    probe = _first_batches(make_dataset(eval_pattern or pattern, config, training=False, flag=probe_flag), PROBE_CLIPS)
    run = RunFolder(run_dir, config, {'records': pattern, 'eval_records': eval_pattern})
    initial_epoch = run.epochs_done()
    with strategy.scope():
        model = build_model(config)
        model.compile(optimizer=make_optimizer(config))
        model.optimizer.build(model.trainable_variables)
    if initial_epoch >= curriculum.epochs:
        model.load_weights(run.checkpoint_path(initial_epoch))
        say(f'{run_dir}: all {curriculum.epochs} epochs are done.')
        return model
    count = sum(count for _, count in shards)
    say(f'{count} records in {len(shards)} file(s), {steps} steps of {config.train.batch_size} clips an epoch; '
        f'stages {curriculum}; {strategy.num_replicas_in_sync} device(s).')
    if initial_epoch:
        model.load_weights(run.checkpoint_path(initial_epoch))
        run.write_history(run.history()[:initial_epoch])
        say(f'Going on after epoch {initial_epoch}.')
    else:
        sounds = [batch['audio'].numpy()[:, 0] for batch in dataset.take(ADAPT_BATCHES)]
        if not sounds:
            raise UserError(f'--records={pattern}: no full batch of usable clips; {state.describe_skips()}. '
                            f'A window is {config.clip.window_seconds:g} s at {config.clip.sample_rate} Hz.')
        model.audio_tower.get_layer('log_mel').adapt(sounds)
    state.reset_counts()
    callbacks = [
        CurriculumCallback(curriculum, state, initial_epoch),
        LearningRate(config.train, steps * curriculum.epochs, run),
        Measure(model, probe, state, config),
        Keep(run, os.path.join(run_dir, 'tensorboard'), lambda: next(iter(dataset))),
        Progress(steps, curriculum, initial_epoch, state, say),
    ]
    with warnings.catch_warnings():
        # The end of an epoch is where the records end: what Keras warns of is meant.
        warnings.filterwarnings('ignore', message='(.*ran out of data.*|.*shuffle=True.*)')
        model.fit(dataset, epochs=curriculum.epochs, initial_epoch=initial_epoch, callbacks=callbacks, verbose=0)
    return model


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

    def __init__(self, train, total_steps, run):
        super().__init__()
        self._train, self._total_steps = train, total_steps
        self._losses = [row['loss'] for row in run.history()]

    def on_train_batch_begin(self, batch, logs=None):
        # The optimiser counts the steps: this is called once more at the end of the records, where no step follows.
        optimizer = self.model.optimizer
        step = int(optimizer.iterations.numpy())
        optimizer.learning_rate.assign(learning_rate_at(self._train, step, self._total_steps, self._losses))

    def on_epoch_end(self, epoch, logs=None):
        self._losses.append(logs['loss'])
        logs['learning_rate'] = float(self.model.optimizer.learning_rate.numpy())


class Measure(keras.callbacks.Callback):
    """Adds to the logs of an epoch: distances and counts per kind, AUC on the fixed clips, throughput; says a collapse."""

    def __init__(self, model, probe, state, config):
        super().__init__()
        self._two_tower, self._probe, self._state, self._config = model, probe, state, config
        self._epochs_at_chance = 0
        self._started = time.perf_counter()
        self._steps = 0
        self._stopped_seconds = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._started, self._steps = time.perf_counter(), 0

    def on_train_batch_end(self, batch, logs=None):
        self._steps += 1

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self._started
        if not math.isfinite(logs['loss']):
            raise UserError(
                f'the loss is {logs["loss"]} in epoch {epoch + 1}. Lower --learning_rate={self._config.train.learning_rate:g} or '
                'set --clip_norm=1, and use a new --run_dir.'
            )
        logs['clips_per_second'] = self._steps * self._config.train.batch_size / seconds
        logs['seconds'] = seconds
        logs.update(self._two_tower.kind_results())
        logs['too_short_for_kind'] = int(self._state.replaced.numpy())
        logs['records_skipped'] = int(self._state.skipped.numpy().sum())
        pairs = metrics.pair_distances(self._two_tower, self._probe)
        positive, _ = metrics.of_kind(pairs, POSITIVE)
        for kind in range(EASY, len(KINDS)):
            value = metrics.auc(positive, metrics.of_kind(pairs, kind)[0])
            if not math.isnan(value):
                logs[f'auc_{KINDS[kind]}'] = value
        at_chance = max(logs.get('auc_easy', 1.0), logs.get('auc_hard', 0.0)) < CHANCE_AUC
        collapsed = self._config.towers.normalize == 'length' and logs['spread'] < COLLAPSED_SPREAD
        self._epochs_at_chance = self._epochs_at_chance + 1 if at_chance or collapsed else 0
        logs['collapsed'] = int(self._epochs_at_chance >= COLLAPSE_EPOCHS)


class Keep(keras.callbacks.Callback):
    """Writes each epoch to history.csv, TensorBoard and a checkpoint."""

    def __init__(self, run, tensorboard_dir, draw_batch):
        super().__init__()
        self._run, self._draw_batch = run, draw_batch
        self._writer = tf.summary.create_file_writer(tensorboard_dir)

    def on_epoch_end(self, epoch, logs=None):
        self._run.write_history([*self._run.history()[:epoch], {'epoch': epoch + 1, **logs}])
        with self._writer.as_default(step=epoch + 1):
            for name, value in logs.items():
                tf.summary.scalar(f'epoch/{name}', value)
        self._writer.flush()
        self._run.save(self.model, epoch + 1)

    def on_train_begin(self, logs=None):
        picture = plots.batch_picture(self._draw_batch(), self.model.audio_tower.get_layer('log_mel'), self.model.config)
        with self._writer.as_default(step=0):
            tf.summary.image('batch', picture[None])


class Progress(keras.callbacks.Callback):
    """A bar over the steps, a line per epoch with the time that is left, and a loud word on a collapse."""

    def __init__(self, steps, curriculum, initial_epoch, state, say):
        super().__init__()
        self._steps, self._curriculum, self._first = steps, curriculum, initial_epoch
        self._state, self._say = state, say

    def on_train_begin(self, logs=None):
        self._started = time.perf_counter()
        # disable=None: no bar where the output is no terminal; the lines tell the time that is left.
        self._bar = tqdm.tqdm(total=self._steps * self._curriculum.epochs, initial=self._steps * self._first, unit='step',
                              disable=None, dynamic_ncols=True)

    def on_train_batch_end(self, batch, logs=None):
        self._bar.update()

    def on_epoch_end(self, epoch, logs=None):
        done, total = epoch + 1, self._curriculum.epochs
        left = (time.perf_counter() - self._started) / (done - self._first) * (total - done)
        distances = ' '.join(f'{name} {logs["distance_" + name]:.2f}' for name in KINDS if f'distance_{name}' in logs)
        aucs = ' '.join(f'{name} {logs["auc_" + name]:.3f}' for name in KINDS if f'auc_{name}' in logs)
        self._write(f'epoch {done}/{total} [{self._curriculum.mix(epoch)}] loss {logs["loss"]:.4f} | distance {distances} | '
                    f'AUC {aucs} (chance 0.5) | {logs["clips_per_second"]:.0f} clips/s | {_duration(left)} left')
        if epoch == self._first and self._state.skips():
            self._write(f'WARNING: {self._state.describe_skips()}')
        if logs.get('collapsed'):
            self._write(
                f'WARNING: {COLLAPSE_EPOCHS} epochs with the embeddings in one point (spread {logs["spread"]:.3f}) or the AUC at '
                'chance: it is not learning. Try --normalize=whiten, --crop_scale_min=1, --optimizer=adamw --learning_rate=1e-3, '
                '--regime=easy first, or check the records with python -m tfrecords_tools.inspect.'
            )

    def on_train_end(self, logs=None):
        self._bar.close()

    def _write(self, line):
        if self._bar.disable:
            self._say(line)
        else:
            self._bar.write(line)


def _duration(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    return f'{minutes // 60}:{minutes % 60:02d}:{seconds:02d}' if minutes >= 60 else f'{minutes}:{seconds:02d}'


def _differences(old, new):
    """What differs between two configurations, as "name is A, asked for B"."""
    from_old, from_new = (json.loads(config.to_json()) for config in (old, new))
    return [f'{name} is {from_old[group][name]}, asked for {value}' for group, values in from_new.items()
            for name, value in values.items() if from_old[group][name] != value]


def _write_aside(path, text):
    aside = path + '.writing'
    with open(aside, 'w') as file:
        file.write(text)
    os.replace(aside, path)
