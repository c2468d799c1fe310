"""The tables: their statistics, what they write, what is run again and what is not."""

import concurrent.futures
import csv
import io
import json
import math
import os
import signal
import subprocess
import sys

import pytest

from avts_tf import modes
from avts_tf.errors import UserError
from avts_tf.experiments import tables
from tests.helpers import PATIENCE_SECONDS, ROOT
from tfrecords_tools.synthetic import write_world

DATA = ('kinetics_records', 'audioset_records', 'soundnet_records', 'ucf101_records', 'hmdb51_records', 'esc10_input',
        'esc50_input', 'dcase2014_input')


def settings(folder, seeds=(0, 1), data=(), **given):
    values = {'ucf101_records': 'ucf/{part}{split}-*', 'hmdb51_records': 'hmdb/{part}{split}-*', 'esc10_input': 'esc.csv',
              'kinetics_records': 'kinetics/{part}-*'}
    data = {name: values[name] for name in data}
    return tables.Settings(str(folder), 'tiny', given, tuple(seeds), 0.8, None, None, '', data, 'auto')


def no_world(prefix, videos, seed, difficulty):
    """Stands for the synthetic world; nothing reads it here."""


class FakeRuns:
    """Runs steps by writing made-up results, and keeps which it ran."""

    def __init__(self, stop_at=math.inf, failing=()):
        self.ran, self.stop_at, self.failing = [], stop_at, dict(failing)

    def __call__(self, step, table_dir, lock):
        if len(self.ran) == self.stop_at:
            raise KeyboardInterrupt
        self.ran.append(step.folder)
        if reason := self.failing.get(step.folder):
            return reason
        folder = os.path.join(table_dir, step.folder)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, 'step.json'), 'w') as file:
            json.dump(step._asdict(), file)
        seed = step.arguments['config']['seed']
        accuracy = {'easy': 0.7, 'hard': 0.5}.get(step.arguments['config'].get('regime'), 0.6) + 0.02 * seed
        with open(os.path.join(folder, 'result.json'), 'w') as file:
            json.dump({'sync': {'avts_accuracy': accuracy, 'auc_easy': accuracy, 'auc_hard': 0.5, 'auc_super_hard': 0.5},
                       'action_recognition': {'accuracy': accuracy}}, file)
        return ''


def make(name, chosen, monkeypatch, runs):
    monkeypatch.setattr(tables, '_run', runs)
    lines = []
    cells = tables.make_table(name, chosen, no_world, lines.append)
    return {(cell['row'], cell['column']): cell for cell in cells}, '\n'.join(lines)


def test_mean_and_deviation_by_hand():
    assert tables.mean_and_deviation([1.0, 2.0, 6.0]) == {'mean': 3.0, 'deviation': pytest.approx(math.sqrt(7.0))}
    assert tables.mean_and_deviation([4.0]) == {'mean': 4.0, 'deviation': None}


def test_curriculum_table(tmp_path, monkeypatch):
    runs = FakeRuns()
    cells, text = make('curriculum', settings(tmp_path), monkeypatch, runs)
    assert len(runs.ran) == 12                              # six regimes, two seeds, once each
    cell = cells['easy', 'AVTS accuracy']
    assert cell['published'] == 69.0 and cell['values'] == pytest.approx([70.0, 72.0])
    assert cell['mean'] == pytest.approx(71.0) and cell['deviation'] == pytest.approx(math.sqrt(2))
    assert '| easy | 71.0 ± 1.4 | 69.0 | 0.710 ± 0.014 |' in text
    assert '2 seeds' in text
    with open(tmp_path / 'curriculum.csv', newline='') as file:
        rows = {(row['row'], row['column']): row for row in csv.DictReader(file)}
    row = rows['hard', 'AVTS accuracy']
    assert (row['published'], float(row['mean']), row['values'], row['missing']) == ('52.3', pytest.approx(51.0), '50 52', '')
    assert (tmp_path / 'curriculum.png').stat().st_size > 5000 and (tmp_path / 'regimes.png').stat().st_size > 5000


def test_regimes_get_the_same_number_of_epochs_but_for_the_first_stage(tmp_path):
    cells = tables.TABLES['curriculum'](settings(tmp_path, [0], epochs=90), dict.fromkeys(('train', 'held'), 'x'))
    regimes = {row: cells[row, 'AVTS accuracy'].steps[0][0].arguments['config'] for row in tables.REGIMES}
    assert regimes['first stage only']['regime'] == 'easy:50'
    assert all(config['epochs'] == 90 and config['easy_negatives'] == 'drawn' for config in regimes.values())
    assert [regimes[row]['regime'] for row in tables.REGIMES if row != 'first stage only'] == [
        'easy', 'mixed', 'hard', 'curriculum_mixed', 'curriculum_hard']


def test_an_interrupted_table_goes_on_and_a_finished_one_runs_nothing(tmp_path, monkeypatch):
    first = FakeRuns(stop_at=5)
    with pytest.raises(KeyboardInterrupt):
        make('curriculum', settings(tmp_path), monkeypatch, first)
    second, third = FakeRuns(), FakeRuns()
    make('curriculum', settings(tmp_path), monkeypatch, second)
    assert len(first.ran) == 5 and len(second.ran) == 7 and not set(first.ran) & set(second.ran)
    make('curriculum', settings(tmp_path), monkeypatch, third)
    assert third.ran == []
    more = FakeRuns()
    make('curriculum', settings(tmp_path, seeds=(0, 1, 2)), monkeypatch, more)
    assert len(more.ran) == 6 and all(folder.endswith('seed2') for folder in more.ran)
    # Another table shares the trainings that are the same.
    downstream = FakeRuns()
    make('curriculum_downstream', settings(tmp_path), monkeypatch, downstream)
    assert downstream.ran and all(folder.startswith('tune-') for folder in downstream.ran)
    with pytest.raises(UserError, match="holds a step with other settings.*config.*'epochs': 3"):
        make('curriculum', settings(tmp_path, epochs=3), monkeypatch, FakeRuns())


def test_cells_say_which_data_they_need(tmp_path, monkeypatch):
    cells, text = make('action', settings(tmp_path, [0]), monkeypatch, FakeRuns())
    assert cells['MC3, AVTS Kinetics', 'UCF101']['missing'] == 'needs --ucf101_records and --kinetics_records'
    assert cells['MC3, AVTS Kinetics', 'UCF101']['published'] == 85.8 and cells['MC3, AVTS Kinetics', 'UCF101']['mean'] is None
    assert cells['MC3, AVTS Kinetics', 'actions, synthetic world']['mean'] == pytest.approx(60.0)
    assert 'needs --hmdb51_records' in text and '85.8' in text
    cells, _ = make('audio', settings(tmp_path / 'other', [0]), monkeypatch, FakeRuns())
    assert cells['SoundNet, synthetic world', 'sounds, synthetic world']['missing'] == 'needs --teacher'


def test_data_make_cells(tmp_path):
    sets = dict.fromkeys(('train', 'held', 'labelled', 'test'), 'world')
    chosen = settings(tmp_path, [3], ['ucf101_records', 'kinetics_records'])
    chain, = tables.TABLES['action'](chosen, sets)['MC2, AVTS Kinetics', 'UCF101'].steps
    pretraining, tuning = chain
    assert pretraining.arguments['records'] == 'kinetics/train-*' and pretraining.arguments['eval_records'] == 'kinetics/test-*'
    assert pretraining.arguments['config']['video_tower'] == 'mc2' and pretraining.arguments['config']['seed'] == 3
    assert tuning.arguments['records'] == 'ucf/train{split}-*' and tuning.arguments['splits'] == ['1', '2', '3']
    assert tuning.arguments['protocol']['init_run_dir'] == f'{tables.HERE}/{pretraining.folder}'
    sounds = tables.TABLES['audio'](settings(tmp_path, [0], ['esc10_input']), sets)
    assert [step.kind for step in sounds['L3-Net, synthetic world', 'ESC-10'].steps[0]] == ['train', 'audio']
    assert sounds['random forest', 'ESC-10'].steps[0][0].arguments['protocol']['features'] == 'mfcc'
    assert sounds['AVTS Kinetics', 'ESC-10'] == 'needs --kinetics_records'


def test_every_published_figure_has_a_cell_and_no_step_two_meanings(tmp_path):
    sets = dict.fromkeys(('train', 'held', 'labelled', 'test'), 'world')
    for data in ((), DATA):
        values = {name: f'{name}/{{part}}{{split}}' for name in data}
        chosen = settings(tmp_path, teacher='MobileNetV2')._replace(data=values)
        for name, table in tables.TABLES.items():
            cells, folders = table(chosen, sets), {}
            assert all((row, column) in cells for row, columns in tables.PUBLISHED[name].items() for column in columns)
            for content in cells.values():
                for step in () if isinstance(content, str) else [step for chain in content.steps for step in chain]:
                    assert folders.setdefault(step.folder, step) == step


def test_markdown_and_csv():
    line = {'row': 'a', 'column': 'x', 'published': 50.0, 'unit': '%', 'mean': 60.0, 'deviation': None, 'values': [60.0],
            'missing': ''}
    lines = [line, {**line, 'row': 'b', 'published': None}, {**line, 'column': 'y', 'mean': None, 'values': [], 'published': None,
                                                            'missing': 'needs --data'}]
    assert tables.as_markdown(lines) == (
        '|  | x | x, published | y |\n|---|---|---|---|\n| a | 60.0 | 50.0 | – [1] |\n| b | 60.0 |  |  |\n\n[1] needs --data\n')
    assert next(csv.DictReader(io.StringIO(tables.as_csv(lines))))['values'] == '60'


def test_percent_have_one_digit_and_parts_of_one_three():
    line = {'row': 'a', 'column': 'x', 'published': None, 'unit': '%', 'mean': 0.94, 'deviation': 0.06, 'values': [0.9],
            'missing': ''}
    assert '| 0.9 ± 0.1 |' in tables.as_markdown([line])
    assert '| 0.940 ± 0.060 |' in tables.as_markdown([{**line, 'unit': ''}])


def test_a_failed_step_costs_its_own_cells_alone(tmp_path, monkeypatch):
    runs = FakeRuns(failing={'train-easy-seed1': 'train-easy-seed1: no room'})
    with pytest.raises(UserError, match='1 of 12 steps failed'):
        make('curriculum', settings(tmp_path), monkeypatch, runs)
    assert len(runs.ran) == 12
    text = (tmp_path / 'curriculum.md').read_text()
    assert '| easy | – [1] | 69.0 |' in text and '[1] train-easy-seed1: no room' in text and '| hard | 51.0 ± 1.4 |' in text
    # What builds on it is not run.
    runs = FakeRuns(failing={'train-easy-seed0': 'no room'})
    with pytest.raises(UserError, match='failed'):
        make('curriculum_downstream', settings(tmp_path / 'other', [0]), monkeypatch, runs)
    assert sum(folder.endswith('train-easy-seed0') for folder in runs.ran) == 1
    again = FakeRuns()
    make('curriculum', settings(tmp_path), monkeypatch, again)
    assert again.ran == ['train-easy-seed1']


def test_a_figure_that_no_clip_is_long_enough_for(tmp_path, monkeypatch):
    chosen = settings(tmp_path, [0])
    make('curriculum', chosen, monkeypatch, FakeRuns())
    for result in tmp_path.glob('train-*/result.json'):
        content = json.loads(result.read_text())
        del content['sync']['auc_hard']
        result.write_text(json.dumps(content))
    cells, _ = make('curriculum', chosen, monkeypatch, FakeRuns())
    assert 'no clip is long enough' in cells['easy', 'AUC hard']['missing'] and cells['easy', 'AUC easy']['mean'] == 0.7


def test_a_table_knows_its_folder_by_any_name_and_its_data_by_content(tmp_path, monkeypatch):
    (tmp_path / 'esc.csv').write_text('path,label,fold\na.wav,dog,1\n')
    data = {'esc10_input': str(tmp_path / 'esc.csv')}
    make('curriculum', settings(tmp_path / 'table', [0]), monkeypatch, FakeRuns())
    (tmp_path / 'table').rename(tmp_path / 'moved')
    runs = FakeRuns()
    make('curriculum', settings(tmp_path / 'moved' / '..' / 'moved', [0])._replace(devices='2'), monkeypatch, runs)
    assert runs.ran == []
    sets = dict.fromkeys(('train', 'held', 'labelled', 'test'), 'world')

    def step():
        chosen = settings(tmp_path / 'sounds', [0])._replace(data=data)
        return tables.TABLES['audio'](chosen, sets)['random forest', 'ESC-10'].steps[0][0]

    FakeRuns()(step(), str(tmp_path / 'sounds'), None)
    tables._finished(step(), str(tmp_path / 'sounds'))
    (tmp_path / 'esc.csv').write_text('path,label,fold\na.wav,dog,2\n')
    with pytest.raises(UserError, match=r'made from other files than --esc10_input stands for now \(.*esc\.csv'):
        tables._finished(step(), str(tmp_path / 'sounds'))


def test_a_teacher_is_soundnets_alone(tmp_path):
    sets = dict.fromkeys(('train', 'held', 'labelled', 'test'), 'world')
    plain, taught = (tables.TABLES['audio'](settings(tmp_path, [0], **given), sets) for given in ({}, {'teacher': 'MobileNetV2'}))
    column = 'sounds, synthetic world'
    for row in ('audio subnet from scratch', 'random weights', 'L3-Net, synthetic world', 'AVTS, synthetic world'):
        assert plain[row, column] == taught[row, column]
    assert taught['SoundNet, synthetic world', column].steps[0][0].arguments['config']['teacher'] == 'MobileNetV2'


@pytest.mark.parametrize(('table', 'given', 'data', 'message'), [
    ('audio', {'system': 'l3'}, {}, '--system=l3: --table=audio has its own'),
    ('action', {'video_tower': 'mc2'}, {}, '--video_tower=mc2: --table=action has its own'),
    ('action', {}, {'ucf101_records': 'ucf{split}-*'}, r'--ucf101_records=ucf\{split\}-\*: \{part\} is not in it'),
    ('action', {}, {'ucf101_records': 'ucf{part}-*'}, r'--ucf101_records=.*\{split\} is not in it'),
])
def test_what_a_table_cannot_be_made_with(tmp_path, table, given, data, message):
    clips = f'{tmp_path}/*'
    with pytest.raises(UserError, match=message):
        modes.run_table(table, str(tmp_path / 't'), None, given, 1, 0.8, clips, clips, '', data, 'auto', lambda line: None)


def test_two_at_a_time_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, 'LOCK_WAIT_SECONDS', 0.1)

    def meanwhile(step, table_dir, lock):
        with concurrent.futures.ThreadPoolExecutor() as pool:  # a thread is refused as a process is
            second = pool.submit(tables.make_table, 'curriculum', settings(tmp_path), no_world, lambda line: None)
        with pytest.raises(UserError, match='another process is at work'):
            second.result()
        return FakeRuns()(step, table_dir, lock)

    make('curriculum', settings(tmp_path, [0]), monkeypatch, meanwhile)


def test_a_step_that_fails_is_named(tmp_path, capfd, monkeypatch):
    chosen = settings(tmp_path, [0])._replace(records='nowhere/*', eval_records='nowhere/*')
    monkeypatch.setattr(tables, 'REGIMES', ('easy',))
    with pytest.raises(UserError, match='1 of 1 steps failed'):
        tables.make_table('curriculum', chosen, no_world, lambda line: None)
    assert 'nowhere/*' in capfd.readouterr().err
    assert 'train-easy-seed0: --records=nowhere/*: no file matches' in (tmp_path / 'curriculum.md').read_text()


@pytest.mark.slow
def test_a_small_table_for_real(tmp_path, monkeypatch):
    """Two regimes of one epoch each, in processes of their own, the second time without any."""
    write_world(str(tmp_path / 'clips'), videos=10, seconds=2.0, size=16, difficulty=0.0)
    monkeypatch.setattr(tables, 'REGIMES', ('easy',))
    clips = f'{tmp_path}/clips-*-of-*'
    given = {'epochs': 2, 'batch_size': 8, 'frame_size': 16, 'warmup_steps': 0}
    lines = []
    arguments = ['curriculum', str(tmp_path / 'table'), None, given, 1, 0.8, clips, clips, '', {}, 'auto', lines.append]
    modes.run_table(*arguments)
    result = tmp_path / 'table/train-easy-seed0/result.json'
    accuracy = json.loads(result.read_text())['sync']['avts_accuracy']
    assert f'| easy | {100 * accuracy:.1f} | 69.0 |' in '\n'.join(lines)
    written = result.stat().st_mtime_ns
    modes.run_table(*arguments)
    assert result.stat().st_mtime_ns == written


@pytest.mark.slow
@pytest.mark.parametrize(('number', 'status'), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_table_goes_on_from_the_command_line(tmp_path, number, status):
    write_world(str(tmp_path / 'clips'), videos=10, seconds=2.0, size=16, difficulty=0.0)
    root = str(ROOT)
    flags = ['--mode=table', '--table=curriculum', f'--records={tmp_path}/clips-*-of-*', f'--eval_records={tmp_path}/clips-*-of-*',
             f'--table_dir={tmp_path}/table', '--epochs=2', '--batch_size=8', '--frame_size=16']
    command = [sys.executable, os.path.join(root, 'main.py'), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if '[2/6]' in line:
            break
    else:
        pytest.fail('it was not stopped')
    process.send_signal(number)                             # to it alone: its step is in a session of its own
    said = process.communicate(timeout=PATIENCE_SECONDS)[1]
    assert process.returncode == status
    if number != signal.SIGKILL:
        assert 'The same command goes on with' in said
    # The step of a killed table is told and ends within the wait for the lock.
    again = subprocess.run(command, check=False, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert '6 steps, ' in again.stdout and '0 of them done' not in again.stdout and '| curriculum_mixed |' in again.stdout
