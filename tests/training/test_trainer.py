"""A training that is killed, damaged or starved resumes to the same end, or says what is wrong;
several machines train as one.

This file is the worker too: a process of it trains, to be killed, or as one machine of several.
"""

import contextlib
import json
import logging
import math
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from unittest import mock

import numpy as np
import pytest

from tests.helpers import PATIENCE_SECONDS, ROOT, light_video_network

# Small enough for seconds, of two stages and two passes an epoch, with a learning rate that follows
# from the losses. Training magnifies rounding: a small rate, and SGD, because Adam divides small
# gradients by their own rounding.
SETTINGS = {
    'frame_size': 16, 'batch_size': 4, 'video_width': 0.05, 'audio_width': 0.05,
    'embedding_size': 16, 'warmup_steps': 0, 'optimizer': 'sgd', 'learning_rate': 0.0003,
    'schedule': 'plateau', 'passes_per_epoch': 2, 'shuffle_records': 4,
    'regime': 'easy:1,easy=0.5+hard=0.5:1',
}


def train_run(folder, run_dir, **options):
    """Trains on the world of `folder`; returns the model."""
    from avts_tf.config import make_config
    from avts_tf.training.trainer import train

    config = make_config('tiny', **{**SETTINGS, **options.pop('settings', {})})
    options = {'checkpoint_minutes': 0.0, 'eval_records': f'{folder}/held-*', **options}
    records = f'{folder}/{options.pop("records", "train-*")}'
    with light_video_network():
        return train(config, records, str(run_dir), **options)


def start_run(folder, run_dir, environment=None, **options):
    """A process that trains, whose output is a pipe."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'TF_CPP_MIN_LOG_LEVEL': '3',
                   'CUDA_VISIBLE_DEVICES': '', **(environment or {})}
    return subprocess.Popen(
        [sys.executable, '-W', 'ignore', __file__, str(folder), str(run_dir), json.dumps(options)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)


def main(folder, run_dir, options):
    """The worker: trains, and says as `main.py` does what stopped it."""
    from avts_tf import program
    from avts_tf.errors import Stopped, UserError

    program.show_messages()
    options = json.loads(options)
    if limit := options.pop('file_limit', None):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    weights = options.pop('weights', None)
    if options.pop('task', None) == 'gather':
        gather_and_read()
        return
    try:
        model = train_run(folder, run_dir, **options)
        if weights:
            np.savez(weights, **{f'{i:04d}': weight.numpy()
                                 for i, weight in enumerate(model.weights)})
    except Stopped as stop:
        print(stop, flush=True)
        sys.exit(128 + stop.signal_number)
    except UserError as error:
        print(error, flush=True)
        sys.stdout.flush()
        os._exit(2)  # beside a machine that is gone TensorFlow's own end can take long


def gather_and_read():
    """Prints what one of two machines gathers from both, and what it reads where it has two batches
    and the other one.
    """
    import tensorflow as tf

    from avts_tf.training.devices import (
        gather_texts,
        machine_share,
        make_gather,
        make_strategy,
        own_batches,
    )

    strategy, machine = make_strategy('auto'), machine_share().number
    gather = make_gather(strategy)
    clips = tf.range(8 - 4 * machine, dtype=tf.int64)
    dataset = tf.data.Dataset.from_tensor_slices({'clips': clips, 'more': clips[:, None]})
    batches = [strategy.experimental_local_results(batch['clips'])[0].numpy().tolist()
               for batch in own_batches(dataset.batch(4, drop_remainder=True), strategy)]
    print(json.dumps({'gathered': [list(row) for row in gather([machine, 7])],
                      'more': [list(row) for row in gather([machine] * 3)],
                      'texts': gather_texts(gather, 'äh' * machine),
                      'batches': batches}), flush=True)


@pytest.fixture
def messages(caplog):
    """The messages of the library, as text."""
    caplog.set_level('INFO', logger='avts_tf')
    return caplog


def names(run_dir):
    """File names of the checkpoints, the oldest first."""
    folder = pathlib.Path(run_dir) / 'checkpoints'
    return sorted(name for name in os.listdir(folder)
                  if name.startswith('epoch-')) if folder.exists() else []


def wait_for_step(process, run_dir, epochs, step, timeout=PATIENCE_SECONDS):
    """Waits for a checkpoint of that step or a later one; False where the process ended before."""
    deadline = time.monotonic() + timeout
    while process.poll() is None:
        assert time.monotonic() < deadline, 'the training hangs'
        if (found := names(run_dir)) and found[-1] >= f'epoch-{epochs:04d}-step-{step:06d}.npz':
            return True
        time.sleep(0.002)
    return False


def signal_at(folder, run_dir, epochs, step, number, **options):
    """Sends a training a signal when it has come to a step; returns (exit status, output)."""
    process = start_run(folder, run_dir, **options)
    assert wait_for_step(process, run_dir, epochs, step), process.communicate()[0]
    process.send_signal(number)
    output = process.communicate()[0]
    return process.returncode, output


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    """20 records that can be used and one that cannot, in four files, and some to measure on."""
    from avts_tf.data import records
    from avts_tf.data.synthetic import write_world
    from tests.helpers import counting_video, write_records

    folder = tmp_path_factory.mktemp('world')
    write_world(str(folder / 'train'), videos=20, size=24, seconds=1.4, shards=3)
    write_world(str(folder / 'held'), videos=6, size=24, seconds=1.4, seed=1)
    write_records(folder / 'train-short', [records.encode(counting_video(99, 0.1))])
    return folder


@pytest.fixture(scope='module')
def reads():
    """Before how many steps of the unbroken training, in all, each read of a tensor came."""
    return []


@contextlib.contextmanager
def counting_reads(reads):
    """Within it each tensor that this thread makes an array or a number of is noted in `reads`."""
    from tensorflow.python.framework import ops

    from avts_tf.training import loop

    steps, tracing, make_train_step = 0, False, loop.make_train_step
    to_array, thread = ops._EagerTensorBase._numpy, threading.current_thread()

    def read(tensor):
        if threading.current_thread() is thread and not tracing:
            reads.append(steps)
        return to_array(tensor)

    def make_counted(*arguments):
        step = make_train_step(*arguments)

        def counted(batch):
            nonlocal steps, tracing
            tracing = steps == 0  # reads constants
            logs = step(batch)
            steps, tracing = steps + 1, False
            return logs

        return counted

    with (mock.patch.object(ops._EagerTensorBase, '_numpy', read),
          mock.patch.object(loop, 'make_train_step', make_counted)):
        yield


@pytest.fixture(scope='module')
def unbroken(world, tmp_path_factory, reads):
    """(run folder, model) of a training that nothing stopped."""
    run, records = tmp_path_factory.mktemp('unbroken') / 'run', []
    logger, handler = logging.getLogger('avts_tf'), logging.Handler()
    handler.emit = records.append
    logger.addHandler(handler)
    logger.setLevel('INFO')
    try:
        with counting_reads(reads):
            model = train_run(world, run, checkpoint_minutes=100.0, log_every=4)
    finally:
        logger.removeHandler(handler)
    # Each epoch's line says how many were skipped; which, only where that changes.
    assert sum('2 records skipped |' in record.getMessage() for record in records) == 2
    assert [record.getMessage() for record in records if record.levelname == 'WARNING'] == [
        "epoch 1: records skipped: 2 too_short (first: 'clip-99')"]
    return run, model


def files(run_dir):
    """What must be the same after a resume: the bytes of the files, and the number of epochs."""
    run_dir = pathlib.Path(run_dir)
    training = json.loads((run_dir / 'result.json').read_text())['training']
    return {**{name: (run_dir / name).read_bytes() for name in ('history.csv', 'config.json')},
            'epochs': training['epochs']}


def assert_same_run(run_dir, model, other_dir, other):
    """Weights, optimiser, history and results are the same bits."""
    for weight, expected in zip([*model.weights, *model.optimizer.variables],
                                [*other.weights, *other.optimizer.variables],
                                strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected.numpy(), err_msg=weight.path)
    assert files(run_dir) == files(other_dir)


def damage(path):
    content = bytearray(path.read_bytes())
    for at in range(len(content) // 3, len(content) // 3 + 300):  # one alone may be harmless
        content[at] ^= 1
    path.write_bytes(content)


def test_an_unbroken_run(unbroken):
    run, _ = unbroken
    assert len((run / 'history.csv').read_text().splitlines()) == 3
    assert names(run) == ['epoch-0001-step-000000.npz', 'epoch-0002-step-000000.npz']
    training = json.loads((run / 'result.json').read_text())['training']
    # Once in each pass of each epoch.
    assert training == {'epochs': 2,
                        'skipped_records': {'too_short': {'times': 4, 'first': ['clip-99']}}}


def test_the_host_waits_for_the_device_every_few_steps_alone(unbroken, reads):
    """Two epochs, read after each fourth step and at the end."""
    steps = int(unbroken[1].optimizer.iterations.numpy()) // 2
    assert steps > 8
    assert set(reads) == {0, *(start + step for start in (0, steps)
                               for step in (*range(4, steps, 4), steps))}


def test_stopped_and_damaged_it_ends_the_same(world, unbroken, tmp_path, monkeypatch, messages):
    """In one process: a signal in the second stage, then a damaged file."""
    from avts_tf.errors import Stopped
    from avts_tf.training.run_folder import RunFolder

    run, save = tmp_path / 'run', RunFolder.save

    def terminate(folder, model, epochs, step=0, *arguments, **arrays):
        save(folder, model, epochs, step, *arguments, **arrays)
        if (epochs, step) == (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, 'save', terminate)
        with pytest.raises(Stopped, match='by SIGTERM after epoch 1 and 3 steps.*command resumes'):
            train_run(world, run)
    damage(run / 'checkpoints' / 'epoch-0001-step-000003.npz')
    model = train_run(world, run)
    assert any('step-000003.npz: damaged' in message for message in messages.messages)
    assert 'Resuming after epoch 1 and 2 steps.' in messages.messages
    assert_same_run(run, model, *unbroken)


def first_stage(unbroken, folder):
    """A finished run of the first stage alone: what the unbroken one was after its first epoch."""
    shutil.copytree(unbroken[0], folder)
    os.remove(folder / 'checkpoints' / 'epoch-0002-step-000000.npz')
    path = folder / 'config.json'
    path.write_text(path.read_text().replace(SETTINGS['regime'], 'easy:1'))
    return folder


@pytest.mark.parametrize('killed', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_second_stage_from_another_run_is_that_of_a_training_in_one_go(
    world, unbroken, tmp_path, monkeypatch, messages, killed
):
    from avts_tf.errors import UserError
    from avts_tf.training.run_folder import RunFolder

    first, run, save = first_stage(unbroken, tmp_path / 'first'), tmp_path / 'run', RunFolder.save
    options = {'settings': {'regime': 'easy=0.5+hard=0.5:1'}, 'init_run_dir': str(first)}

    class Killed(BaseException):
        pass

    def kill(folder, model, epochs, step=0, *arguments, **arrays):
        save(folder, model, epochs, step, *arguments, **arrays)
        if (epochs, step) == (0, 4):
            raise Killed

    if killed:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(RunFolder, 'save', kill)
            train_run(world, run, **options)
        shutil.rmtree(first)                                   # what has begun does not need it
    model = train_run(world, run, **options)
    assert any('Starting from the weights' in line and 'optimiser too' in line
               for line in messages.messages)
    for weight, expected in zip(
            [*model.weights, *model.optimizer.variables],
            [*unbroken[1].weights, *unbroken[1].optimizer.variables], strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected.numpy(), err_msg=weight.path)
    (row,), (_, expected) = (RunFolder(str(folder), model.config).history() if folder == run
                             else RunFolder(str(folder), unbroken[1].config).history()
                             for folder in (run, unbroken[0]))
    assert {**row, 'epoch': 2, 'stage': 1} == expected
    with pytest.raises(UserError, match='another run .init_run_dir is .*first, asked for None'):
        train_run(world, run, settings=options['settings'])


def test_a_first_run_that_cannot_be_started_from(unbroken, tmp_path):
    from avts_tf.config import make_config
    from avts_tf.errors import UserError
    from avts_tf.training.branch import read_first_run

    first = first_stage(unbroken, tmp_path / 'first')
    wanted = {**SETTINGS, 'regime': 'hard:1'}
    assert read_first_run(str(first), make_config('tiny', **wanted)).same_optimizer
    found = read_first_run(str(first), make_config('tiny', **{**wanted, 'optimizer': 'adamw'}))
    assert not found.same_optimizer
    with pytest.raises(UserError, match='^init_run_dir=.*frame_size is 16, asked for 24; embed'):
        read_first_run(str(first), make_config(
            'tiny', **{**wanted, 'frame_size': 24, 'embedding_size': 32}))
    with pytest.raises(UserError, match='^init_run_dir=.*nothing: no run there'):
        read_first_run(str(tmp_path / 'nothing'), make_config('tiny', **wanted))
    os.remove(first / 'checkpoints' / 'epoch-0001-step-000000.npz')
    with pytest.raises(UserError, match='not finished .0 of 1 epochs'):
        read_first_run(str(first), make_config('tiny', **wanted))


@pytest.mark.slow
def test_killed_and_stopped_from_outside_it_ends_the_same(world, unbroken, tmp_path, messages):
    run = tmp_path / 'run'
    status, _ = signal_at(world, run, 0, 3, signal.SIGKILL)                 # in the first stage
    assert status == -signal.SIGKILL and names(run)[-1] < 'epoch-0001'
    status, output = signal_at(world, run, 1, 2, signal.SIGTERM)            # in the second
    assert 'Resuming after epoch 0 and' in output
    assert status == 143, output
    last = output.splitlines()[-1]
    assert last.startswith('stopped by SIGTERM after epoch 1 and')
    assert 'The same command resumes' in last
    before, newest = names(run)[-2:]
    assert f'epoch 1 and {int(newest[16:22])} steps' in last
    damage(run / 'checkpoints' / newest)
    model = train_run(world, run)
    assert any(newest in message and 'damaged' in message for message in messages.messages)
    steps = f' and {int(before[16:22])} steps' if int(before[16:22]) else ''
    assert f'Resuming after epoch {int(before[6:10])}{steps}.' in messages.messages
    assert_same_run(run, model, *unbroken)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_the_same(world, unbroken, tmp_path):
    rng, kills, runs, where = np.random.default_rng(int(os.environ.get('AVTS_SEED', 0))), 0, 0, []
    while kills < 30:
        run = tmp_path / f'run-{runs}'
        runs += 1
        while True:
            process = start_run(world, run)
            if rng.random() < 0.8:  # at a moment when it certainly trains
                before = names(run)
                while process.poll() is None and names(run) == before:
                    time.sleep(0.001)
                time.sleep(rng.exponential(0.3))
            else:
                time.sleep(rng.uniform(0, 20))
            process.kill()
            process.communicate()
            if process.returncode == 0:
                break
            kills += 1
            where.append(names(run)[-1][6:22] if names(run) else 'start')
        assert_same_run(run, train_run(world, run), *unbroken)
    print(f'{kills} kills in {runs} runs, after', *where)


@pytest.mark.slow
def test_ctrl_c_is_as_sigterm(world, unbroken, tmp_path):
    # With minutes between checkpoints: the one that is there is the signal's.
    status, output = signal_at(world, tmp_path / 'run', 1, 0, signal.SIGINT,
                               checkpoint_minutes=60.0)
    assert status == 130 and 'stopped by SIGINT after epoch 1 and' in output
    assert_same_run(tmp_path / 'run', train_run(world, tmp_path / 'run'), *unbroken)


@pytest.mark.slow
def test_without_any_whole_checkpoint_it_begins_anew(world, unbroken, tmp_path, messages):
    run = tmp_path / 'run'
    shutil.copytree(unbroken[0], run)
    for name in names(run):
        (run / 'checkpoints' / name).write_bytes(b'PK')
    model = train_run(world, run)
    assert any('starting from the beginning' in message for message in messages.messages)
    assert_same_run(run, model, *unbroken)


@pytest.mark.slow
def test_a_full_disk_is_said_and_costs_no_checkpoint(world, unbroken, tmp_path):
    run = tmp_path / 'run'
    shutil.copytree(unbroken[0], run)
    os.remove(run / 'checkpoints' / names(run)[-1])
    before = names(run)
    process = start_run(world, run,
                        file_limit=(run / 'checkpoints' / before[-1]).stat().st_size // 2)
    output = process.communicate(timeout=PATIENCE_SECONDS)[0]
    assert process.returncode == 2, output
    assert f'run_dir={run}: cannot be written' in output
    assert 'resumes from the newest checkpoint' in output
    assert names(run) == before and len(os.listdir(run / 'checkpoints')) == len(before)


@pytest.mark.slow
def test_it_resumes_with_other_records(world, tmp_path, messages):
    run = tmp_path / 'run'
    train_run(world, run, records='train-0000[01]*', checkpoint_minutes=100.0)
    first = (tmp_path / 'run' / 'history.csv').read_text().splitlines()[1]
    for name in names(run):
        if name > 'epoch-0001-step-000000.npz':
            os.remove(tmp_path / 'run' / 'checkpoints' / name)
    train_run(world, run)
    assert any('not those of before' in message for message in messages.messages)
    assert 'Resuming after epoch 1.' in messages.messages
    assert (tmp_path / 'run' / 'history.csv').read_text().splitlines()[1] == first
    assert json.loads((tmp_path / 'run'
                       / 'config.json').read_text())['inputs']['records'] == f'{world}/train-*'


@pytest.mark.slow
def test_a_file_that_goes_while_it_trains_is_said_once_and_the_rest_is_trained_on(
    world, unbroken, tmp_path, messages
):
    shutil.copytree(world, tmp_path / 'world')
    run = tmp_path / 'run'
    process = start_run(tmp_path / 'world', run)
    assert wait_for_step(process, run, 0, 2)
    os.remove(tmp_path / 'world' / 'train-00001-of-00003')
    # what was opened and read ahead would hide it
    process.send_signal(signal.SIGTERM)
    process.communicate()
    train_run(tmp_path / 'world', run)
    warned = [message for message in messages.messages if 'changed or gone' in message]
    assert len(warned) == 1 and 'train-00001-of-00003' in warned[0]
    lost = json.loads((run / 'result.json').read_text())['training']['skipped_records']['lost']
    assert lost['times'] > 0 and any('train-00001-of-00003' in name for name in lost['first'])
    assert names(run)[-1] == 'epoch-0002-step-000000.npz'


def test_held_out_clips_that_cannot_be_used_are_told_before_the_training(world, tmp_path):
    from avts_tf.data import records
    from avts_tf.errors import UserError
    from tests.helpers import counting_video, write_records

    for name in os.listdir(world):
        if name.startswith('train-'):
            os.symlink(world / name, tmp_path / name)
    write_records(tmp_path / 'held-0',
                  [records.encode(counting_video(number, 0.1)) for number in range(3)])
    with pytest.raises(UserError,
                       match='eval_records=.*no usable clip to measure on; .*: 3 too_short'):
        train_run(tmp_path, tmp_path / 'run')


def test_nan_is_named_with_epoch_step_and_clips(world):
    import keras

    from avts_tf.data.shards import find_shards
    from avts_tf.errors import Diverged
    from avts_tf.training import faults
    from avts_tf.training.state import TrainingState

    shards = [(path, count, '') for path, count in find_shards(f'{world}/train-0*')]
    state = TrainingState(step=3, shards=shards)
    clips = np.array([0])
    faults.check_loss(1.0, lambda: pytest.fail('the device is asked'), state, 0, 3)
    with pytest.raises(Diverged, match='the loss is nan in epoch 1, step 3. .*`learning_rate`'):
        faults.check_loss(float('nan'), lambda: clips, state, 0, 3)
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
    faults.check_weights(model, state, 0)
    model.layers[0].kernel.assign([[np.inf]])
    with pytest.raises(Diverged, match='weights are NaN or infinite after epoch 1, step 3'):
        faults.check_weights(model, state, 0)


def test_a_bad_loss_is_found_at_the_next_look_and_names_its_own_clips(world, tmp_path, monkeypatch):
    import tensorflow as tf

    from avts_tf.data.shards import find_shards, name_hashes
    from avts_tf.errors import Diverged
    from avts_tf.training import loop

    losses, batches = [0.5, 0.4, math.nan, math.nan, math.nan], []

    def step(batch):
        batches.append(set(batch['example_hash'].numpy().tolist()))
        return {'loss': tf.constant(losses[len(batches) - 1])}

    monkeypatch.setattr(loop, 'make_train_step', lambda *arguments: step)
    with pytest.raises(Diverged, match='the loss is nan in epoch 1, step 3. Clips') as error:
        train_run(world, tmp_path / 'run', checkpoint_minutes=100.0, log_every=5)
    shards = find_shards(f'{world}/train-*')
    for number, batch in enumerate(batches, 1):
        assert (f'Clips of that batch: {", ".join(name_hashes(shards, batch))}.'
                in str(error.value)) == (number == 3)
    assert len(batches) == 5 and not names(tmp_path / 'run')


@pytest.mark.slow
def test_weights_that_are_nan_are_not_kept(world, tmp_path):
    from avts_tf.errors import Diverged

    # One step an epoch: its loss is a number, what it leaves behind is not, or is too large for an
    # embedding.
    settings = {'learning_rate': 1e30, 'normalize': 'none', 'schedule': 'constant',
                'batch_size': 20, 'passes_per_epoch': 1}
    with pytest.raises(Diverged, match='are NaN or infinite after epoch 1, step 1'):
        train_run(world, tmp_path / 'run', settings=settings, checkpoint_minutes=100.0)
    assert not names(tmp_path / 'run')


def test_machines_that_see_other_records_are_told(tmp_path):
    from avts_tf.errors import UserError
    from avts_tf.training.faults import MachineReport, check_agreement

    one = MachineReport(0, 3, 11, 1, 0, 0)
    # One of them has to stop, or to save, or has no batch left.
    check_agreement([MachineReport(0, 3, 11, 0, 15, 1), one])
    for other in ([0, 3, 12], [0, 4, 11], [1, 3, 11]):
        with pytest.raises(UserError, match='do not train together: they see other records'):
            check_agreement([one, MachineReport(*other, 1, 0, 0)])
    assert check_files_digest(tmp_path)


def check_files_digest(folder):
    """The digest of files follows from names, sizes and counts, not from where they lie or when
    they were written.
    """
    from avts_tf.data.shards import files_digest

    (folder / 'copy').mkdir()
    for name, content in (('a', b'12'), ('b', b'345'), ('copy/a', b'67')):
        (folder / name).write_bytes(content)
    os.utime(folder / 'copy' / 'a', (1, 1))
    one = files_digest([(f'{folder}/a', 4)])
    assert 0 <= one < 2**62 and one == files_digest([(f'{folder}/copy/a', 4)])
    (folder / 'copy' / 'a').write_bytes(b'678')
    others = ([(f'{folder}/copy/a', 4)], [(f'{folder}/a', 5)], [(f'{folder}/gone', 4)],
              [(f'{folder}/a', 4), (f'{folder}/b', 4)])
    return one not in [files_digest(other) for other in others]


@pytest.mark.slow
def test_a_loss_that_is_nan_stops_and_names_epoch_step_and_clips(world, tmp_path):
    from avts_tf.errors import UserError

    with pytest.raises(UserError) as error:
        train_run(world, tmp_path / 'run', settings={'learning_rate': 1e30, 'normalize': 'none',
                                                     'schedule': 'constant'})
    message = str(error.value)
    assert 'the loss is nan in epoch 1, step ' in message and '`learning_rate`' in message
    assert 'synthetic-' in message
    for name in names(tmp_path / 'run'):
        with np.load(tmp_path / 'run' / 'checkpoints' / name) as arrays:
            assert all(np.isfinite(arrays[part]).all() for part in arrays.files
                       if part.startswith(('weight', 'optimizer')))


# Several machines: processes of this one, with the same run folder.


def start_workers(world, run, tmp_path, machines=2, others=None, **options):
    """A process for each machine; each leaves its weights in tmp_path/worker-N.npz.

    `others` are options of all but the first.
    """
    sockets = [socket.create_server(('localhost', 0)) for _ in range(machines)]
    cluster = {'worker': [f'localhost:{one.getsockname()[1]}' for one in sockets]}
    for one in sockets:
        one.close()
    return [start_run(world, run,
                      {'TF_CONFIG': json.dumps({'cluster': cluster,
                                                'task': {'type': 'worker', 'index': index}})},
                      weights=f'{tmp_path}/worker-{index}.npz',
                      **options, **((others or {}) if index else {}))
            for index in range(machines)]


def ends(processes):
    """(exit status, output) of each process."""
    outputs = [process.communicate(timeout=PATIENCE_SECONDS)[0] for process in processes]
    return [(process.returncode, output) for process,
            output in zip(processes, outputs, strict=True)]


def weights(path):
    with np.load(path) as arrays:
        return [arrays[name] for name in sorted(arrays.files)]


def assert_close(values, model):
    """Weights and statistics are those of a model to rounding; 20 steps moved them by far more."""
    for weight, value in zip(model.weights, values, strict=True):
        np.testing.assert_allclose(value, weight.numpy(), rtol=1e-4, atol=1e-5, err_msg=weight.path)


def assert_same_weights(tmp_path, machines, expected=None):
    """All machines ended with the same weights and batch-norm statistics; returns them."""
    found = [weights(tmp_path / f'worker-{index}.npz') for index in range(machines)]
    for other in found if expected is None else [expected, *found]:
        for value, wanted in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(value, wanted)
    return found[0]


@pytest.mark.slow
def test_two_machines_gather_numbers_and_read_their_own_batches(tmp_path):
    finished = ends(start_workers('', '', tmp_path, task='gather'))
    assert [status for status, _ in finished] == [0, 0], finished
    gathered = {'gathered': [[0, 7], [1, 7]], 'more': [[0] * 3, [1] * 3], 'texts': ['', 'äh']}
    # The other one waits for as many batches as the first has, without clips.
    assert [json.loads(output) for _, output in finished] == [
        {**gathered, 'batches': [[0, 1, 2, 3], [4, 5, 6, 7]]},
        {**gathered, 'batches': [[0, 1, 2, 3], []]}]


@pytest.mark.slow
def test_machines_that_would_train_something_else_are_told(world, tmp_path):
    both = start_workers(world, tmp_path / 'run', tmp_path, others={'settings': {'margin': 0.5}})
    for status, output in ends(both):
        assert status == 2 and 'different parameters' in output, output


def test_machines_must_have_the_same_parameters():
    from avts_tf.config import make_config
    from avts_tf.errors import UserError
    from avts_tf.training import trainer

    first = make_config('tiny'), None
    others = (make_config('tiny', margin=0.5), None), (make_config('tiny'), 'runs/first')
    given = {}
    for machine in (first, *others):
        numbers = given[machine] = []
        trainer._refuse_other_parameters(
            lambda own, numbers=numbers: numbers.append(own) or [own], *machine)

    def beside(machine):
        # That machine's length of text, then its text, padded as long as ours where it is shorter.
        answers = iter(given[machine])
        return lambda own: [own, [*(other := next(answers)), *[32] * (len(own) - len(other))]]

    trainer._refuse_other_parameters(beside(first), *first)
    for machine in others:
        with pytest.raises(UserError, match='^the machines were given different parameters'):
            trainer._refuse_other_parameters(beside(machine), *first)


@pytest.mark.parametrize(('words', 'gone'), [
    ('Socket closed', True), ('NCCL: unhandled cuda error', True),
    ('No PTX compilation provider is available', False),
    ('cuDNN launch failure : input shape ([64,78400,1,64])', False),
])
def test_a_fault_of_its_own_gpu_is_not_blamed_on_another_machine(monkeypatch, words, gone):
    import tensorflow as tf

    from avts_tf.errors import UserError
    from avts_tf.training import faults
    monkeypatch.setattr(faults, 'worker_count', lambda: 2)
    expected = UserError if gone else tf.errors.InternalError
    with (pytest.raises(expected, match='another machine is gone' if gone else None),
          faults.explaining_lost_machine()):
        raise tf.errors.InternalError(None, None, words)


@pytest.mark.slow
@pytest.mark.parametrize('machines', [2, 4])
def test_machines_train_on_their_shares_and_resume_to_the_same_bits(world, tmp_path, machines):
    unbroken, run = tmp_path / 'unbroken', tmp_path / 'run'
    settings = {'batch_size': 8}
    options = {'machines': machines, 'settings': settings}
    finished = ends(start_workers(world, unbroken, tmp_path, checkpoint_minutes=100.0, **options))
    assert [status for status, _ in finished] == [0] * machines, finished
    assert f'on {machines} machines' in finished[0][1]
    assert [output.strip() for _, output in finished[1:]] == [''] * (machines - 1)
    expected = assert_same_weights(tmp_path, machines)
    rows = (unbroken / 'history.csv').read_text().splitlines()
    # The record that cannot be used is in the last share, and the chief tells of it. It may come
    # after the last batch where that machine has more of them than others.
    training = json.loads((unbroken / 'result.json').read_text())['training']
    skipped = training['skipped_records']['too_short']
    assert skipped['first'] == ['clip-99'] and (4 if machines == 2 else 2) <= skipped['times'] <= 4
    assert len(rows) == 3
    processes = start_workers(world, run, tmp_path, **options)
    assert wait_for_step(processes[0], run, 0, 2), ends(processes)
    for process in processes:
        process.kill()
    ends(processes)
    processes = start_workers(world, run, tmp_path, **options)
    assert wait_for_step(processes[0], run, 1, 1), ends(processes)
    # To one of them: all stop, at the same step.
    processes[-1].send_signal(signal.SIGTERM)
    stopped = ends(processes)
    assert [status for status, _ in stopped] == [143] * machines, stopped
    assert 'resumes from there' in stopped[0][1] and names(run)[-1] > 'epoch-0001-step-000001'
    finished = ends(start_workers(world, run, tmp_path, **options))
    assert [status for status, _ in finished] == [0] * machines, finished
    assert 'Resuming after epoch 1 and' in finished[0][1]
    assert_same_weights(tmp_path, machines, expected)
    assert files(run) == files(unbroken)


@pytest.mark.slow
def test_two_machines_go_on_with_what_one_began(world, unbroken, tmp_path):
    run = tmp_path / 'run'
    status, _ = signal_at(world, run, 1, 3, signal.SIGTERM)
    assert status == 143
    step = int(names(run)[-1][-10:-4])
    finished = ends(start_workers(world, run, tmp_path, checkpoint_minutes=100.0))
    assert [status for status, _ in finished] == [0, 0], finished
    assert f'Resuming after epoch 1 and {step} steps' in finished[0][1]
    assert 'The checkpoint is of 1 machine(s), this training is on 2.' in finished[0][1]
    assert_same_weights(tmp_path, 2)
    first, other = ((folder / 'history.csv').read_text().splitlines() for folder
                    in (unbroken[0], run))
    assert first[:2] == other[:2] and len(other) == 3


@pytest.mark.slow
def test_a_machine_that_is_gone_is_told(world, tmp_path):
    run = tmp_path / 'run'
    processes = start_workers(world, run, tmp_path)
    assert wait_for_step(processes[0], run, 0, 2)
    processes[1].kill()
    # The other one does not hang: TensorFlow's heartbeats tell it within a minute or two.
    status, output = ends(processes[:1])[0]
    assert status == 2 and 'another machine is gone' in output, (status, output)


@pytest.mark.slow
def test_two_and_four_devices_train_as_one_and_resume_exactly(world, unbroken, tmp_path):
    # A process of its own for each: the number of devices is fixed when TensorFlow starts.
    for devices in ('2', '4'):
        run = tmp_path / f'interrupted-{devices}'
        signal_at(world, run, 0, 4, signal.SIGKILL, devices=devices)
        signal_at(world, run, 1, 4, signal.SIGKILL, devices=devices)
        for name in ('unbroken', 'interrupted'):
            status, output = ends([start_run(world, tmp_path / f'{name}-{devices}', devices=devices,
                                             weights=f'{tmp_path}/{name}.npz')])[0]
            assert status == 0, output
        for value, other in zip(weights(tmp_path / 'unbroken.npz'),
                                weights(tmp_path / 'interrupted.npz'), strict=True):
            np.testing.assert_array_equal(value, other)
        assert files(run) == files(tmp_path / f'unbroken-{devices}')
        assert_close(weights(tmp_path / 'unbroken.npz'), unbroken[1])
    # Another number of devices may resume: the same to rounding.
    signal_at(world, tmp_path / 'other', 1, 4, signal.SIGKILL, devices='2')
    assert_close([weight.numpy() for weight in train_run(world, tmp_path / 'other').weights],
                 unbroken[1])


if __name__ == '__main__':
    main(*sys.argv[1:])
