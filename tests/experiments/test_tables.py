"""Tables of made-up results: what is run, what is written."""

import concurrent.futures
import csv
import json
import math

import pytest

from avts_tf.errors import UserError
from avts_tf.experiments import steps, tables
from tests.experiments.fakes import FakeRuns, make_settings


def make(name, chosen, monkeypatch, runs, draw=False):
    """Makes a table; returns its cells by place, and its text."""
    if not draw:
        monkeypatch.setattr(tables.plots, 'table_bars', lambda *args: None)
        monkeypatch.setattr(tables.plots, 'regime_curves', lambda *args: None)
    monkeypatch.setattr(steps, 'run', runs)
    monkeypatch.setattr(tables, 'write_world', lambda *args, **options: None)
    cells = tables.make_table(name, chosen)
    with open(f'{chosen.table_dir}/{name}.md', encoding='utf-8') as file:
        return {(cell['row'], cell['column']): cell for cell in cells}, file.read()


def test_curriculum_table(tmp_path, monkeypatch):
    runs = FakeRuns()
    cells, text = make('curriculum', make_settings(tmp_path), monkeypatch, runs, draw=True)
    assert len(runs.ran) == 12                              # six regimes, two seeds, once each
    cell = cells['easy', 'AVTS accuracy']
    assert cell['published'] == 69.0 and cell['values'] == pytest.approx([70.0, 72.0])
    assert cell['mean'] == pytest.approx(71.0) and cell['deviation'] == pytest.approx(math.sqrt(2))
    assert '| easy | 71.0 ± 1.4 | 69.0 | 0.710 ± 0.014 |' in text
    assert '2 seeds' in text
    with open(tmp_path / 'curriculum.csv', newline='') as file:
        rows = {(row['row'], row['column']): row for row in csv.DictReader(file)}
    row = rows['hard', 'AVTS accuracy']
    assert (row['published'], float(row['mean']), row['values'],
            row['missing']) == ('52.3', pytest.approx(51.0), '50 52', '')
    assert (tmp_path / 'curriculum.png').stat().st_size > 5000
    assert (tmp_path / 'regimes.png').stat().st_size > 5000


def test_regimes_get_the_same_number_of_epochs_but_for_the_first_stage(tmp_path):
    cells = tables.TABLES['curriculum'](make_settings(tmp_path, [0], epochs=90),
                                        dict.fromkeys(('train', 'held'), 'x'))
    regimes = {row: cells[row, 'AVTS accuracy'].steps[0][0].arguments['config']
               for row in tables.REGIMES}
    assert regimes['first stage only']['regime'] == 'easy:50'
    assert all(config['epochs'] == 90 and config['easy_negatives'] == 'drawn'
               for config in regimes.values())
    assert [regimes[row]['regime'] for row in tables.REGIMES if row != 'first stage only'] == [
        'easy', 'mixed', 'hard', 'curriculum_mixed', 'curriculum_hard']


def test_an_interrupted_table_goes_on_and_a_finished_one_runs_nothing(tmp_path, monkeypatch):
    first = FakeRuns(stop_at=5)
    with pytest.raises(KeyboardInterrupt):
        make('curriculum', make_settings(tmp_path), monkeypatch, first)
    second, third = FakeRuns(), FakeRuns()
    make('curriculum', make_settings(tmp_path), monkeypatch, second)
    assert len(first.ran) == 5 and len(second.ran) == 7 and not set(first.ran) & set(second.ran)
    make('curriculum', make_settings(tmp_path), monkeypatch, third)
    assert third.ran == []
    more = FakeRuns()
    make('curriculum', make_settings(tmp_path, seeds=(0, 1, 2)), monkeypatch, more)
    assert len(more.ran) == 6 and all(folder.endswith('seed2') for folder in more.ran)
    # Another table shares the trainings that are the same.
    downstream = FakeRuns()
    make('curriculum_downstream', make_settings(tmp_path), monkeypatch, downstream)
    trained = [folder for folder in downstream.ran if not folder.startswith('tune-')]
    assert downstream.ran and trained == ['train-l3-easy-seed0', 'train-l3-easy-seed1']
    with pytest.raises(UserError, match="holds a step with other settings.*config.*'epochs': 3"):
        make('curriculum', make_settings(tmp_path, epochs=3), monkeypatch, FakeRuns())


def test_cells_say_which_data_they_need(tmp_path, monkeypatch):
    cells, text = make('action', make_settings(tmp_path, [0]), monkeypatch, FakeRuns())
    cell = cells['MC3, AVTS Kinetics', 'UCF101']
    assert cell['missing'] == 'needs `ucf101_records` and `kinetics_records`'
    assert cell['published'] == 85.8 and cell['mean'] is None
    assert cells['MC3, AVTS Kinetics', 'actions, synthetic world']['mean'] == pytest.approx(60.0)
    assert 'needs `hmdb51_records`' in text and '85.8' in text
    cells, _ = make('audio', make_settings(tmp_path / 'other', [0]), monkeypatch, FakeRuns())
    assert cells['SoundNet, synthetic world',
                 'sounds, synthetic world']['missing'] == 'needs `teacher`'


def test_a_failed_step_costs_its_own_cells_alone(tmp_path, monkeypatch):
    runs = FakeRuns(failing={'train-easy-seed1': 'train-easy-seed1: no room'})
    with pytest.raises(UserError, match='1 of 12 steps failed'):
        make('curriculum', make_settings(tmp_path), monkeypatch, runs)
    assert len(runs.ran) == 12
    text = (tmp_path / 'curriculum.md').read_text()
    assert '| easy | – [1] | 69.0 |' in text and '[1] train-easy-seed1: no room' in text
    assert '| hard | 51.0 ± 1.4 |' in text
    # What builds on it is not run.
    runs = FakeRuns(failing={'train-easy-seed0': 'no room'})
    with pytest.raises(UserError, match='failed'):
        make('curriculum_downstream', make_settings(tmp_path / 'other', [0]), monkeypatch, runs)
    assert sum(folder.endswith('train-easy-seed0') for folder in runs.ran) == 1
    again = FakeRuns()
    make('curriculum', make_settings(tmp_path), monkeypatch, again)
    assert again.ran == ['train-easy-seed1']


def test_a_figure_that_no_clip_is_long_enough_for(tmp_path, monkeypatch):
    chosen = make_settings(tmp_path, [0])
    make('curriculum', chosen, monkeypatch, FakeRuns())
    for result in tmp_path.glob('train-*/result.json'):
        content = json.loads(result.read_text())
        del content['sync']['auc_hard']
        result.write_text(json.dumps(content))
    cells, _ = make('curriculum', chosen, monkeypatch, FakeRuns())
    assert 'no clip is long enough' in cells['easy', 'AUC hard']['missing']
    assert cells['easy', 'AUC easy']['mean'] == 0.7


def test_two_at_a_time_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, 'LOCK_WAIT_SECONDS', 0.1)

    def meanwhile(step, table_dir, lock, interruption):
        with concurrent.futures.ThreadPoolExecutor() as pool:  # a thread is refused as a process is
            second = pool.submit(tables.make_table, 'curriculum', make_settings(tmp_path))
        with pytest.raises(UserError, match='^table_dir=.*another process is at work'):
            second.result()
        return FakeRuns()(step, table_dir, lock, interruption)

    make('curriculum', make_settings(tmp_path, [0]), monkeypatch, meanwhile)


def test_rows_of_others_are_published_alone(tmp_path, monkeypatch):
    cells, text = make('audio', make_settings(tmp_path, [0]), monkeypatch, FakeRuns())
    human = cells['human', 'ESC-50']
    assert human['published'] == 81.3 and human['missing'] == '' and human['mean'] is None
    assert [line for line in text.splitlines() if line.startswith('| human ')] == [
        '| human |  |  |  | 81.3 |  |  |  |']
    with open(tmp_path / 'audio.csv', newline='') as file:
        [row] = [row for row in csv.DictReader(file) if row['row'] == 'RBM']
    assert (row['published'], row['mean']) == ('86.5', '')
    assert row['source'].startswith('slides on Korbar')
