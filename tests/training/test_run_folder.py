"""Checkpoint files are whole or are not used, and the ones worth keeping are kept."""

import errno
import os
import re
import zipfile

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avts_tf import files
from avts_tf.config import make_config
from avts_tf.errors import UserError
from avts_tf.training import checkpoints
from avts_tf.training.run_folder import RunFolder, best_first, refuse_another_run


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(2, name='dense')])
    model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    model.optimizer.build(model.trainable_variables)
    return model


def kept(run):
    return sorted(os.listdir(run.checkpoints))


def test_a_checkpoint_gives_back_what_was_saved(model, tmp_path):
    run = RunFolder(str(tmp_path), make_config('tiny'))
    assert run.read_checkpoint() is None and run.restore(model) is None and run.epochs_done() == 0
    state = {'loss': 0.1 + 0.2, 'names': ['ä'], 'start': 2**41 + 7}
    saved = [variable.numpy() for variable in (*model.weights, *model.optimizer.variables)]
    run.save(model, 3, 17, state, metrics=np.array([[1 / 3, 2.0]]))
    for variable in (*model.weights, *model.optimizer.variables):
        variable.assign(variable * 0 + 5)
    checkpoint = run.restore(model)
    assert checkpoint.state == state and checkpoint.epochs == run.epochs_done() == 3
    np.testing.assert_array_equal(checkpoint.arrays['metrics'], [[1 / 3, 2.0]])
    for variable, value in zip((*model.weights, *model.optimizer.variables), saved, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    other = keras.Sequential([keras.Input([4]), keras.layers.Dense(2)])
    other.compile(optimizer='sgd')
    with pytest.raises(UserError, match='another form'):
        run.restore(other)


def test_newest_and_best_are_kept(model, tmp_path):
    run = RunFolder(str(tmp_path), make_config('tiny'), keep=2)
    rows = []
    for epoch, auc in enumerate((0.6, 0.9, 0.7, 0.9, 0.5, 0.4), 1):
        run.save(model, epoch - 1, 5)
        rows.append({'epoch': epoch, 'auc_easy': 1.0 - auc, 'auc_hard': auc})
        run.write_history(rows)
        run.save(model, epoch)
    assert kept(run) == [f'epoch-{name}.npz' for name in ('0004-step-000000', '0005-step-000005',
                                                          '0006-step-000000')]
    assert best_first(rows)[:3] == [4, 2, 3] and run.read_checkpoint('best').epochs == 4
    assert run.read_checkpoint().epochs == 6
    assert best_first([]) == []
    assert best_first([{'epoch': 1, 'auc_easy': 0.4}, {'epoch': 2, 'auc_easy': 0.3}]) == [1, 2]
    assert best_first([{'epoch': 1}, {'epoch': 2}]) == [2, 1]
    # Killed after the history of a better epoch was written, before its checkpoint was; and with
    # the best one damaged.
    run.write_history([*rows, {'epoch': 7, 'auc_hard': 0.95}])
    assert run.read_checkpoint('best').epochs == 4
    (tmp_path / 'checkpoints' / 'epoch-0004-step-000000.npz').write_bytes(b'PK')
    assert run.read_checkpoint('best').epochs == 6


def test_damaged_checkpoints_that_claim_to_be_further_make_room(model, tmp_path):
    run = RunFolder(str(tmp_path), make_config('tiny'), keep=2)
    for epoch in (3, 4, 5, 6):
        run.save(model, epoch)
    for name in kept(run):
        (tmp_path / 'checkpoints' / name).write_bytes(b'PK')
    assert run.read_checkpoint() is None
    damaged = kept(run)
    run.save(model, 0, 10)
    assert kept(run) == ['epoch-0000-step-000010.npz', *(f'{name}.damaged' for name in damaged)]
    assert run.read_checkpoint().epochs == 0


@pytest.mark.parametrize('number', [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_disk_that_fails_is_no_damage_of_a_checkpoint(model, tmp_path, monkeypatch, number):
    run = RunFolder(str(tmp_path), make_config('tiny'))
    run.save(model, 1)

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(zipfile, 'ZipFile', refuse)
    with pytest.raises(UserError, match=re.escape(os.strerror(number))):
        run.read_checkpoint()


def test_what_a_killed_process_left_aside_is_removed(tmp_path):
    run = RunFolder(str(tmp_path), make_config('tiny'), {})
    left = tmp_path / 'checkpoints' / f'.abc{files.ASIDE}'
    left.write_bytes(b'half')
    RunFolder(str(tmp_path), make_config('tiny'))
    assert left.exists()                                       # whoever only reads leaves it
    RunFolder(str(tmp_path), make_config('tiny'), {})
    assert not left.exists() and run.read_checkpoint() is None


def test_history_keeps_every_bit(tmp_path):
    run = RunFolder(str(tmp_path), make_config('tiny'))
    rows = [{'epoch': 1, 'loss': 1 / 3}, {'epoch': 2, 'loss': float(np.float32(0.1)), 'auc': 1e-17}]
    run.write_history(rows)
    assert run.history() == rows


DAMAGE = st.one_of(
    st.tuples(st.just('flip'), st.floats(0, 0.9999), st.integers(0, 7)),
    st.tuples(st.just('cut'), st.floats(0, 0.9999), st.just(0)),
    st.tuples(st.just('add'), st.just(1.0), st.integers(1, 40)))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck),
          derandomize=True)
@given(DAMAGE)
def test_a_damaged_checkpoint_is_recognised_or_harmless(tmp_path, damage):
    path = str(tmp_path / 'epoch-0001-step-000000.npz')
    arrays = {'a': np.arange(300.0).reshape(3, 100), 'b': np.float32(1.5)}
    checkpoints.write_checkpoint(path, arrays, {'epochs': 1})
    what, place, value = damage
    with open(path, 'rb') as file:
        content = bytearray(file.read())
    at = int(place * len(content))
    if what == 'flip':
        content[at] ^= 1 << value
    elif what == 'cut':
        del content[at:]
    else:
        content += bytes(value)
    with open(path, 'wb') as file:
        file.write(content)
    try:
        read, state = checkpoints.read_checkpoint(path)
    except checkpoints.DamagedCheckpoint as error:
        assert str(error)
        return
    # A date, say, may be flipped: then all is as it was.
    assert state == {'epochs': 1} and read.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(read[name], value)


def test_damaged_ones_are_passed_over_with_a_warning(model, tmp_path, caplog):
    run = RunFolder(str(tmp_path), make_config('tiny'))
    for step in (1, 2, 3):
        run.save(model, 0, step, {'step': step})
    for step, content in ((3, b''), (2, b'PK\x03\x04')):
        with open(f'{run.checkpoints}/epoch-0000-step-{step:06d}.npz', 'wb') as file:
            file.write(content)
    assert run.read_checkpoint().state == {'step': 1}
    assert [record.levelname for record in caplog.records] == ['WARNING'] * 2
    assert 'step-000003.npz: damaged' in caplog.messages[0]


@pytest.mark.parametrize('fails', ['fsync', 'replace'])
def test_a_disk_that_is_full_leaves_what_was_there(model, tmp_path, monkeypatch, fails):
    run = RunFolder(str(tmp_path), make_config('tiny'))
    run.save(model, 1)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patch:
        patch.setattr(os, fails, full)
        with pytest.raises(UserError, match='No space left on device.*resumes from the newest '
                                            'checkpoint'):
            run.save(model, 2)
    assert kept(run) == ['epoch-0001-step-000000.npz'] and run.epochs_done() == 1


def test_a_folder_of_another_run_is_refused_by_its_differences(tmp_path):
    refuse_another_run('run_dir', 'r', {'a': 1, 'b': [2]}, {'b': (2,)})    # as JSON has it
    with pytest.raises(UserError, match=r'run_dir=r: holds another search \(a is 1, asked for 3\)'):
        refuse_another_run('run_dir', 'r', {'a': 1, 'b': 2}, {'a': 3, 'b': 2}, 'search')
    RunFolder(str(tmp_path), make_config('tiny'), {})
    with pytest.raises(UserError, match=r'another run \(margin is 1.3, asked for 1.0\)'):
        RunFolder(str(tmp_path), make_config('tiny', margin=1.0))
