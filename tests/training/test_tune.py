"""A search tries what is not held, resumes, and prints the command of the best trial."""

import csv
import shlex
import sys

import pytest
from absl import flags

from avts_tf import commands
from avts_tf.commands._flags import flag_groups
from avts_tf.config import make_config, parameters
from avts_tf.errors import Diverged, Stopped, UserError
from avts_tf.training import tune
from avts_tf.training.run_folder import RunFolder

HELD = {'epochs': 2, 'seed': 3}


def _quick_training(monkeypatch, stop_at=None, fail=None):
    """Replaces the training by one that is the better, the nearer its margin is to 1; its calls."""
    calls = []

    def train(config, records, run_dir, *, eval_records, select_records, devices):
        run = RunFolder(run_dir, config, {'records': records, 'eval_records': eval_records})
        calls.append((run_dir, config))
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        if fail:
            raise fail
        run.write_history([{'epoch': 1, 'loss': 1.0, 'auc_hard': 0.5},
                           {'epoch': 2, 'loss': 0.5, 'auc_hard': 1 - abs(config.train.margin - 1)}])

    monkeypatch.setattr(tune, 'train', train)
    return calls


def _tune(folder, trials=5, given=HELD, eval_records='held-*'):
    return tune.tune('tiny', dict(given), 'train-*', str(folder), trials, eval_records=eval_records)


def test_best_trial_first_and_its_command_line_is_its_configuration(tmp_path, monkeypatch, caplog):
    caplog.set_level('INFO', logger='avts_tf')
    calls = _quick_training(monkeypatch)
    found = _tune(tmp_path / 'search')
    assert len(calls) == len(found) == 5
    assert [item[0] for item in found] == sorted((item[0] for item in found), reverse=True)
    best_folder = found[0][2]
    best_config = dict(calls)[best_folder]
    words = shlex.split(caplog.messages[-1])
    assert words[:2] == ['python', 'main.py']
    values = flags.FlagValues()
    for group in flag_groups(commands.load('train')).values():
        for flag in group:
            flag.define(values)
    values(['main.py', *words[2:]])
    given = {field.name: values[field.name].value for _, field in parameters()}
    assert make_config(values.preset, **given) == best_config
    rows = list(csv.DictReader((tmp_path / 'search' / 'trials.csv').open()))
    assert [float(row['auc_hard']) for row in rows] == [item[0] for item in found]
    assert rows[0]['run_dir'] == best_folder
    assert len(list((tmp_path / 'search' / 'tensorboard').rglob('events.*'))) == 5


def test_what_a_flag_sets_is_held(tmp_path, monkeypatch):
    calls = _quick_training(monkeypatch)
    _tune(tmp_path, given={**HELD, 'margin': 0.7, 'embedding_size': 16})
    assert {config.train.margin for _, config in calls} == {0.7}
    assert {config.towers.embedding_size for _, config in calls} == {16}
    assert len({config.train.learning_rate for _, config in calls}) > 1


def test_interrupted_search_resumes_the_same_trial(tmp_path, monkeypatch):
    calls = _quick_training(monkeypatch, stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        _tune(tmp_path)
    again = _quick_training(monkeypatch)
    found = _tune(tmp_path)
    assert again[0] == calls[2]  # the same folder and configuration
    assert len(again) == 3 and len(found) == 5


def test_a_signal_stops_the_search_and_its_trial_is_resumed(tmp_path, monkeypatch):
    calls = _quick_training(monkeypatch, fail=Stopped('stopped by SIGTERM', 15))
    with pytest.raises(Stopped):
        _tune(tmp_path)
    assert len(calls) == 1
    again = _quick_training(monkeypatch)
    assert len(_tune(tmp_path)) == 5 and again[0] == calls[0]


def test_a_trial_that_diverges_fails_alone(tmp_path, monkeypatch, caplog):
    calls = _quick_training(monkeypatch)
    train = tune.train

    def diverging(config, records, run_dir, **options):
        if run_dir.endswith('2'):
            calls.append((run_dir, config))
            raise Diverged(None, None, 'the loss is nan')
        train(config, records, run_dir, **options)

    monkeypatch.setattr(tune, 'train', diverging)
    assert len(_tune(tmp_path)) == 4 and len(calls) == 5
    assert any('failed: ' in line and 'the loss is nan' in line for line in caplog.messages)


def test_a_search_whose_state_is_half_written_is_named(tmp_path, monkeypatch):
    _quick_training(monkeypatch)
    _tune(tmp_path, trials=2)
    state = tmp_path / 'search' / 'oracle.json'
    state.write_text(state.read_text()[:40])
    with pytest.raises(UserError, match='search: what keras-tuner wrote there cannot be read'):
        _tune(tmp_path, trials=2)


def test_finished_search_only_reports(tmp_path, monkeypatch):
    _quick_training(monkeypatch)
    found = _tune(tmp_path)
    again = _quick_training(monkeypatch)
    assert _tune(tmp_path) == found and not again


def test_mistakes_are_told_at_once(tmp_path, monkeypatch):
    calls = _quick_training(monkeypatch, fail=UserError('records', 'train-*', 'no file matches'))
    with pytest.raises(UserError, match='no file matches'):
        _tune(tmp_path / 'a')
    assert len(calls) == 1
    with pytest.raises(UserError, match='select_records: needed'):
        _tune(tmp_path / 'b', eval_records=None)
    with pytest.raises(UserError, match='epochs'):
        # too few for the curricula among the regimes
        _tune(tmp_path / 'one', given={**HELD, 'epochs': 1})
    with pytest.raises(UserError, match='leave some'):
        _tune(tmp_path / 'c', given={name: None for name in tune.SPACE})
    _quick_training(monkeypatch)
    _tune(tmp_path / 'd', trials=1)
    with pytest.raises(UserError, match='holds another search .held is'):
        _tune(tmp_path / 'd', given={**HELD, 'margin': 0.9})
    _quick_training(monkeypatch, fail=ZeroDivisionError('by nought'))
    with pytest.raises(UserError, match='by nought'):
        _tune(tmp_path / 'e')


def test_the_best_command_is_of_the_program_that_searched(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['/usr/local/bin/avts'])
    assert shlex.split(tune.command_line('tiny', {}, 'train-*', 'held-*',
                                         'held-*'))[:2] == ['avts', '--preset=tiny']
