"""Training on any number of devices and machines.

A training is a function of the configuration and the records: the stage of the curriculum, the
order of the records, the pairs and the learning rate follow from the epoch and the step, and a
checkpoint holds the rest. Stopped at any moment and resumed, it comes to the same weights and
figures, bit by bit (docs/resume.md says under which conditions).
"""

import dataclasses
import logging
import os

import tensorflow as tf

from avts_tf.config import CHECKPOINT_MINUTES, KEPT_CHECKPOINTS, LOG_EVERY, Config
from avts_tf.data.aside import count_aside
from avts_tf.data.pipeline import make_dataset, position_after, steps_per_epoch
from avts_tf.data.shards import file_stamps, find_shards, same_files, total_records
from avts_tf.data.shares import Share
from avts_tf.data.state import PipelineState
from avts_tf.errors import UserError
from avts_tf.models.build import build_model
from avts_tf.models.two_tower import TwoTower
from avts_tf.training import faults
from avts_tf.training.branch import read_first_run, start_from
from avts_tf.training.callbacks import (
    EpochMetrics,
    SetLearningRate,
    ShowProgress,
    WriteHistory,
)
from avts_tf.training.checkpoints import Checkpoint
from avts_tf.training.curriculum import Curriculum, CurriculumCallback, parse_regime
from avts_tf.training.devices import (
    Gather,
    computes_bfloat16,
    gather_texts,
    is_chief,
    logging_of_chief_only,
    machine_share,
    make_gather,
    make_strategy,
    worker_count,
)
from avts_tf.training.loop import run_epochs
from avts_tf.training.optimizer import LearningRate, make_optimizer
from avts_tf.training.run_folder import (
    RunFolder,
    hold_run,
    load_inputs,
    refuse_another_run,
)
from avts_tf.training.state import TrainingState

ADAPT_BATCHES = 16       # batches whose audio gives the front end its mean and deviation
FIXED_CLIPS = 128        # clips of the fixed set that is measured after every epoch
BFLOAT16_WARNING = (
    'bfloat16: this processor has no instructions for it. It trains many times slower than with '
    'float32, and where the processor has no AVX-512 its convolutions round more '
    '(docs/performance.md).')

logger = logging.getLogger(__name__)


def train(
    config: Config, records: str, run_dir: str, *, eval_records: str | None = None,
    select_records: str | None = None, devices: str | int = 'auto', on_bad_record: str = 'skip',
    checkpoint_minutes: float = CHECKPOINT_MINUTES, keep_checkpoints: int = KEPT_CHECKPOINTS,
    log_every: int = LOG_EVERY, deterministic: bool = False, jit_compile: bool = False,
    init_run_dir: str | None = None,
) -> TwoTower:
    """Trains the two towers, or resumes a training, until all stages are done.

    Args:
        config: `Config`.
        records: glob of training records.
        run_dir: run folder.
        eval_records: glob of records that were not trained on; None where there are none.
        select_records: glob of records that the AUC after each epoch is measured on, by which the
            best checkpoint is chosen; None takes those of `eval_records`, and without any the
            training records that are set aside.
        devices: see `devices.make_strategy`.
        on_bad_record: 'skip' leaves out records that cannot be used, counts and names them;
            'stop' stops at the first.
        checkpoint_minutes: minutes between checkpoints within an epoch; 0 writes one each step.
        keep_checkpoints: newest checkpoints to keep, beside the best.
        log_every: steps after which the loss is read and checked; in between the device is not
            waited for.
        deterministic: have TensorFlow use only operations that give the same bits each time on
            GPUs, and read one record after the other; on a CPU it gives the same bits anyway.
        jit_compile: have XLA compile the towers of the training step, with several devices all of
            the step but the exchange between them. It may be faster on GPUs; on
            CPUs convolutions become several times slower. What is exported does not change.
        init_run_dir: run folder of a finished training whose weights this one starts from, and,
            where both have the same optimiser, its state (docs/method.md); None starts anew.

    Returns:
        The trained `TwoTower`.

    Raises:
        UserError: the records, the run folder or the devices are not fit for it, the training is
            finished and was with other records, or the loss is NaN or infinite.
        Stopped: a signal came; a checkpoint was written.

    Example:
        >>> model = train(make_config('tiny'), 'data/train-*', 'runs/first',
        ...               eval_records='data/eval-*')
        >>> outputs = model.embed({'video': frames, 'audio': waveforms})
    """
    # It makes the pipeline serial, and a CPU gives the same bits anyway.
    if deterministic and tf.config.list_physical_devices('GPU'):
        tf.config.experimental.enable_op_determinism()
    inputs = {'records': records, 'eval_records': eval_records, 'select_records': select_records}
    origin = {'init_run_dir': init_run_dir}
    with hold_run(run_dir), logging_of_chief_only():
        curriculum = parse_regime(config.train.regime, config.train.epochs)
        # A mistake in the records should not cost a wait: look at them before anything is built.
        newest = _newest_checkpoint(run_dir, config, origin)
        first_run = None
        if init_run_dir and not newest:
            first_run = read_first_run(init_run_dir, config)
        state = _initial_state(newest, records, config, run_dir, curriculum, inputs)
        if worker_count() > 1:
            logger.info(f'Waiting for all {worker_count()} machines of TF_CONFIG.')
        with faults.explaining_lost_machine():
            strategy = _strategy(devices, config)
            _refuse_other_parameters(make_gather(strategy), config, init_run_dir)
        pipeline_state = PipelineState()
        dataset = make_dataset(records, config, state=pipeline_state, shards=state.shard_counts(),
                               on_bad_record=on_bad_record, share=machine_share())
        fixed_batches = _fixed_batches(inputs, config, state)
        run = RunFolder(run_dir, config, {**inputs, **origin}, keep_checkpoints)
        with strategy.scope():
            model = build_model(config)
            model.compile(optimizer=make_optimizer(config), jit_compile=jit_compile)
            model.optimizer.build(model.trainable_variables)
        if newest:
            run.restore(model, newest)
        if state.epochs >= curriculum.epochs:
            logger.info(f'{run_dir}: all {curriculum.epochs} epochs are done.')
            return model
        machines = f' on {worker_count()} machines' if worker_count() > 1 else ''
        logger.info(
            f'{_describe_records(state)}; {state.steps_per_epoch} steps of '
            f'{config.train.batch_size} clips an epoch; stages {curriculum}; '
            f'{strategy.num_replicas_in_sync} device(s){machines}.')
        picture_batch = None
        if newest:
            steps = f' and {state.step} steps' if state.step else ''
            logger.info(f'Resuming after epoch {state.epochs}{steps}.')
            run.write_history(state.rows)
            _place_machines(state, config)
        elif first_run:
            start_from(first_run, model, state)
        else:
            picture_batch = _adapt_front_end(model, config, state, curriculum, on_bad_record)
        learning_rate = LearningRate(config.train, state.steps_per_epoch * curriculum.epochs,
                                     [row['loss'] for row in state.rows],
                                     curriculum.stage_starts, state.first_step)
        callbacks = [
            CurriculumCallback(curriculum, pipeline_state, state.epochs, state.first_epoch),
            SetLearningRate(learning_rate),
            EpochMetrics(model, fixed_batches, pipeline_state, state, config),
        ]
        if is_chief():
            callbacks += [WriteHistory(run, pipeline_state, state, picture_batch),
                          ShowProgress(curriculum, pipeline_state, state)]
        with (faults.explaining_bad_record(pipeline_state, on_bad_record),
              faults.explaining_lost_machine()):
            run_epochs(model, strategy, dataset, pipeline_state, state, curriculum, run, callbacks,
                       checkpoint_minutes, log_every,
                       newest.arrays['metrics'] if newest else None)
        return model


def _newest_checkpoint(run_dir: str, config: Config, origin: dict) -> Checkpoint | None:
    """The newest whole `Checkpoint` of a run folder that may not be there yet, or None.

    Raises:
        UserError: the run has another configuration, or another origin.
    """
    if not os.path.exists(os.path.join(run_dir, 'config.json')):
        return None
    run = RunFolder(run_dir, config)
    refuse_another_run('run_dir', run_dir, load_inputs(run_dir), origin)
    newest = run.read_checkpoint()
    if not newest and run.history():
        logger.warning(f'{run.checkpoints}: no checkpoint is whole; starting from the beginning.')
    return newest


def _refuse_other_parameters(gather: Gather, config: Config, init_run_dir: str | None) -> None:
    """Raises a `UserError` on all machines where they have not all the same parameters."""
    if len(set(gather_texts(gather, f'{config.to_json()} {init_run_dir}'))) > 1:
        raise UserError(None, None, 'the machines were given different parameters. Run the same '
                        'command on all of them.')


def _initial_state(newest: Checkpoint | None, records: str, config: Config, run_dir: str,
                   curriculum: Curriculum, inputs: dict) -> TrainingState:
    """The `TrainingState` to train from, with the files that the records are in."""
    state = TrainingState(records=records)
    if newest:
        state = TrainingState(**newest.state)
        if state.epochs >= curriculum.epochs:
            _refuse_other_records(run_dir, state.records, inputs)
        if not same_files(state.records, records):
            logger.info(f'The records are not those of before, which were {state.records}.')
    if newest and state.records == records:
        return state
    shards = find_shards(records)
    steps = steps_per_epoch(shards, config, worker_count())
    return dataclasses.replace(
        state, records=records, steps_per_epoch=steps,
        shards=[(path, count, stamp)
                for (path, count), stamp in zip(shards, file_stamps(shards), strict=True)])


def _place_machines(state: TrainingState, config: Config) -> None:
    """Gives each machine a place within an epoch that another number of machines began."""
    machines = worker_count()
    if state.step and len(state.start) != machines:
        logger.info(f'The checkpoint is of {len(state.start)} machine(s), this training is on '
                    f'{machines}. They go on at the same step, but with their own shares of the '
                    'records: some come twice in this epoch and some not at all.')
        state.start = [position_after(state.step, state.shard_counts(), config,
                                      Share(number, machines)) for number in range(machines)]


def _refuse_other_records(run_dir: str, records: str, inputs: dict) -> None:
    """Raises a `UserError` where a finished training, which was with `records`, is given others."""
    before = {**load_inputs(run_dir), 'records': records}
    for name, given in inputs.items():
        if not same_files(before.get(name), given):
            raise UserError(
                name, given or '', f'the training in `run_dir={run_dir}` is finished, and was with '
                f'other files: {name}={before.get(name) or ""}. Evaluate it to measure it on other '
                'records, or use another `run_dir` for a new training.')


def _describe_records(state: TrainingState) -> str:
    """How many records are trained on and how many are not, in words."""
    stored = total_records(state.shard_counts())
    aside = count_aside(stored)
    kept = f', of which {aside} are set aside for the threshold' if aside else ''
    return f'{stored} records in {len(state.shards)} file(s){kept}'


def _strategy(devices: str | int, config: Config) -> tf.distribute.Strategy:
    """The strategy for the devices, which must divide the batch."""
    strategy = make_strategy(devices)
    if config.towers.bfloat16 and not computes_bfloat16():
        logger.warning(BFLOAT16_WARNING)
    replicas = strategy.num_replicas_in_sync
    if config.train.batch_size % replicas:
        raise UserError('batch_size', config.train.batch_size, f'cannot be divided among '
                        f'{replicas} devices (`devices={devices}`); use a multiple.')
    if config.train.batch_size < 2 * worker_count():
        raise UserError('batch_size', config.train.batch_size, 'leaves each of '
                        f'{worker_count()} machines one clip, among which there is no easy '
                        'negative; use at least twice their number.')
    return strategy


def _fixed_batches(inputs: dict, config: Config, state: TrainingState) -> list[dict]:
    """Evaluation batches of at least `FIXED_CLIPS` clips that are measured after every epoch."""
    name = next(name for name in ('select_records', 'eval_records', 'records') if inputs[name])
    pipeline_state = PipelineState()
    dataset = make_dataset(
        inputs[name], config, training=False, aside=name == 'records', state=pipeline_state,
        parameter=name, shards=state.shard_counts() if name == 'records' else None)
    batches, clips = [], 0
    for batch in dataset:
        batches.append(batch)
        clips += len(batch['kind'])
        if clips >= FIXED_CLIPS:
            break
    if name != 'records' and not batches:
        raise UserError(name, inputs[name], 'no usable clip to measure on; '
                        f'{pipeline_state.describe_skips()}. {faults.describe_window(config)}')
    if name != 'records' and pipeline_state.skips():
        logger.info(f'{inputs[name]}: {pipeline_state.describe_skips()}')
    return batches


def _adapt_front_end(model: TwoTower, config: Config, state: TrainingState,
                     curriculum: Curriculum, on_bad_record: str) -> dict:
    """Gives the front end the mean and deviation of the training audio; returns the first batch.

    All machines read the same batches for it, so that their front ends are the same.
    """
    pipeline_state = PipelineState()
    pipeline_state.mix.assign(curriculum.mix(0).vector())
    dataset = make_dataset(state.records, config, state=pipeline_state,
                           shards=state.shard_counts(), on_bad_record=on_bad_record)
    first: dict = {}
    audio = []
    with faults.explaining_bad_record(pipeline_state, on_bad_record):
        for batch in dataset.take(ADAPT_BATCHES):
            first = first or batch
            audio.append(batch['audio'].numpy()[:, 0])
    if not audio:
        raise faults.no_batch(state.records, pipeline_state.skips(), config)
    model.audio_tower.get_layer('log_mel').adapt(audio)
    return first
