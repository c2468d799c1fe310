"""What happens between the steps and epochs of a training: measured, written, shown."""

import logging
import math
import os
import time

import keras
import numpy as np
import tensorflow as tf

from avts_tf import metrics, plots, progress
from avts_tf.config import Config
from avts_tf.data.sampling import NEGATIVES, Kind
from avts_tf.data.shards import file_stamps
from avts_tf.data.state import PipelineState, Skips, describe_skips, merge_skips, skips_as_json
from avts_tf.models.two_tower import TwoTower
from avts_tf.training.collapse import COLLAPSE_STEPS, describe_remedies, is_collapsed
from avts_tf.training.curriculum import Curriculum
from avts_tf.training.devices import worker_count
from avts_tf.training.faults import diverged
from avts_tf.training.optimizer import LearningRate
from avts_tf.training.run_folder import RunFolder, update_result, writing
from avts_tf.training.state import TrainingState

LEAST_STEPS = 0.9  # of an epoch's, below which what is left out is warned of each time
PROGRESS_SECONDS = 30.0  # between lines on steps where there is no terminal
# May differ when a training is resumed; not in history.csv.
TIMING = ('seconds', 'clips_per_second', 'records_skipped')

logger = logging.getLogger(__name__)


class SetLearningRate(keras.callbacks.Callback):
    """Sets the learning rate before every step; logs it as `learning_rate`.

    Args:
        learning_rate: `LearningRate`.
    """

    def __init__(self, learning_rate: LearningRate) -> None:
        super().__init__()
        self._learning_rate = learning_rate

    def on_train_begin(self, logs: dict | None = None) -> None:
        # Counted here from now on: a step need not wait until the device is asked.
        self._step = int(self.model.optimizer.iterations.numpy())

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self._learning_rate.set(self.model.optimizer, self._step)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._step += 1

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        self._learning_rate.end_epoch(logs['loss'])
        logs['learning_rate'] = float(self.model.optimizer.learning_rate.numpy())


class EpochMetrics(keras.callbacks.Callback):
    """Adds to the logs of an epoch: distances and counts per kind, AUC on fixed clips, throughput.

    `collapsed` is 1 where the training has learned nothing for long.

    Args:
        model: `TwoTower`.
        fixed_batches: list of evaluation batches that are measured after every epoch.
        pipeline_state: `PipelineState` of the training records.
        state: `TrainingState`.
        config: `Config`.
    """

    def __init__(self, model: TwoTower, fixed_batches: list, pipeline_state: PipelineState,
                 state: TrainingState, config: Config) -> None:
        super().__init__()
        self._two_tower, self._fixed_batches = model, fixed_batches
        self._pipeline_state, self._state, self._config = pipeline_state, state, config
        self._started, self._steps = time.perf_counter(), 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._started, self._steps = time.perf_counter(), 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._steps += 1

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        seconds = time.perf_counter() - self._started
        logs['clips_per_second'] = self._steps * self._config.train.batch_size / seconds
        logs['seconds'] = seconds
        logs.update(self._two_tower.kind_results())
        logs['records_skipped'] = sum(
            count for count, _ in self._pipeline_state.skips().values())
        pairs = metrics.pair_distances(self._two_tower, self._fixed_batches)
        if not np.isfinite(pairs['distance']).all():
            raise diverged('embeddings', self._state, epoch)
        positive = metrics.of_kind(pairs, Kind.POSITIVE)
        for kind in NEGATIVES:
            value = metrics.auc(positive, metrics.of_kind(pairs, kind))
            if not math.isnan(value):
                logs[f'auc_{kind}'] = value
        logs['collapsed'] = int(is_collapsed(
            [*self._state.rows, logs], self._state.steps_per_epoch, self._config))


class WriteHistory(keras.callbacks.Callback):
    """Writes each epoch to history.csv, timing.csv, result.json and TensorBoard.

    Args:
        run: `RunFolder`.
        pipeline_state: `PipelineState` of the training records.
        state: `TrainingState`, whose rows it adds to.
        picture_batch: batch that TensorBoard shows a picture of, or None.
    """

    def __init__(self, run: RunFolder, pipeline_state: PipelineState, state: TrainingState,
                 picture_batch: dict | None) -> None:
        super().__init__()
        self._run, self._pipeline_state, self._state = run, pipeline_state, state
        self._picture_batch = picture_batch
        self._skips: Skips = {}  # since this process began
        with writing(run.path):
            self._writer = tf.summary.create_file_writer(os.path.join(run.path, 'tensorboard'))

    def on_train_begin(self, logs: dict | None = None) -> None:
        if self._picture_batch:
            log_mel = self.model.audio_tower.get_layer('log_mel')
            picture = plots.batch_image(self._picture_batch, log_mel, self.model.config)
            with writing(self._run.path), self._writer.as_default(step=0):
                tf.summary.image('batch', picture[None])

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        row = {name: value for name, value in logs.items() if name not in TIMING}
        self._state.rows.append({'epoch': epoch + 1, **row})
        self._run.write_history(self._state.rows)
        timing = [{**row, 'epoch': int(row['epoch'])}
                  for row in self._run.read_table('timing.csv') if row['epoch'] <= epoch]
        row = {'epoch': epoch + 1, **{name: logs[name] for name in TIMING}}
        self._run.write_table('timing.csv', [*timing, row])
        self._skips = merge_skips(self._skips, self._pipeline_state.skips())
        update_result(self._run.path, {'training': {
            'epochs': epoch + 1,
            'skipped_records': skips_as_json(self._skips),
        }})
        with writing(self._run.path), self._writer.as_default(step=epoch + 1):
            for name, value in logs.items():
                tf.summary.scalar(f'epoch/{name}', value)
            self._writer.flush()


class ShowProgress(keras.callbacks.Callback):
    """A bar over the steps, a line per epoch with the time that is left, and warnings.

    The bar shows the mean loss of the epoch so far as of the last step whose logs were read.

    Args:
        curriculum: `Curriculum`.
        pipeline_state: `PipelineState` of the training records.
        state: `TrainingState`.
    """

    def __init__(self, curriculum: Curriculum, pipeline_state: PipelineState,
                 state: TrainingState) -> None:
        super().__init__()
        self._curriculum, self._pipeline_state = curriculum, pipeline_state
        self._state = state
        self._done = self._first = state.steps_done
        self._warned_skips: Skips = {}
        self._warned_changed: set[str] = set()

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._started = time.perf_counter()
        logger.info('Compiling the first step, which takes seconds to minutes.')
        self._bar = progress.bar(
            None, 'training', PROGRESS_SECONDS, initial=self._first, unit='step',
            total=self._state.steps_per_epoch * self._curriculum.epochs)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._done += 1
        if logs:
            self._bar.set_postfix(loss=f'{logs["loss"]:.4f}', refresh=False)
        self._bar.update()

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        done, total = epoch + 1, self._curriculum.epochs
        left = ((time.perf_counter() - self._started) / max(1, self._done - self._first)
                * self._state.steps_per_epoch * (total - done))
        distances = ' '.join(f'{kind} {logs[f"distance_{kind}"]:.2f}'
                             for kind in Kind if f'distance_{kind}' in logs)
        aucs = ' '.join(f'{kind} {logs[f"auc_{kind}"]:.3f}'
                        for kind in NEGATIVES if f'auc_{kind}' in logs)
        skipped = logs.get('records_skipped')
        logger.info(
            f'epoch {done}/{total} [{self._curriculum.mix(epoch)}] loss {logs["loss"]:.4f} | '
            f'distance {distances} | AUC {aucs} (chance 0.5) | '
            f'{f"{skipped} records skipped | " if skipped else ""}'
            f'{logs["clips_per_second"]:.0f} clips/s | {_clock(left)} left')
        if self._pipeline_state.skips() != self._warned_skips:
            self._warned_skips = self._pipeline_state.skips()
            logger.warning(f'epoch {done}: {describe_skips(self._warned_skips)}')
        self._warn_of_changed_files()
        planned = self._state.steps_per_epoch
        if self._state.step < LEAST_STEPS * planned:
            machines = ' An epoch ends for all machines with the first that has no batch left.'
            logger.warning(
                f'epoch {done}: {self._state.step} of {planned} steps were done, because records '
                f'cannot be used: result.json names them.{machines if worker_count() > 1 else ""}')
        if logs.get('collapsed'):
            logger.warning(
                f'{COLLAPSE_STEPS} steps or more with the AUC at chance or the embeddings in one '
                f'point (spread {logs["spread"]:.3f}): it is not learning. Check the records with '
                f'python -m tfrecords_tools.inspect{describe_remedies(self.model.config)}.')

    def on_train_end(self, logs: dict | None = None) -> None:
        self._bar.close()

    def _warn_of_changed_files(self) -> None:
        stamps = file_stamps(self._state.shard_counts())
        changed = {path for (path, _, stamp), new in zip(self._state.shards, stamps, strict=True)
                   if (stamp and list(stamp)) != new}
        if changed - self._warned_changed:
            logger.warning(
                f'changed or gone since the training began: {", ".join(sorted(changed))}. What is '
                'left of it is read; the training is no longer the one that the records at its '
                'beginning make.')
            self._warned_changed |= changed


def _clock(seconds: float) -> str:
    """A duration as 2:05 or 1:02:05."""
    minutes, seconds = divmod(round(seconds), 60)
    if minutes >= 60:
        return f'{minutes // 60}:{minutes % 60:02d}:{seconds:02d}'
    return f'{minutes}:{seconds:02d}'
