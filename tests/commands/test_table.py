"""--mode=table from the command line."""

import json
import signal
import subprocess
import sys

import pytest

from avts_tf import command_line
from avts_tf.data.synthetic import write_world
from avts_tf.errors import UserError
from avts_tf.experiments import tables
from tests.helpers import PATIENCE_SECONDS, ROOT


def run(folder, *arguments):
    """Makes a table of the clips in a folder."""
    clips = f'{folder}/clips-*-of-*'
    command_line.read(['--mode=table', f'--table_dir={folder}/table', f'--records={clips}',
                       f'--eval_records={clips}', *arguments])()


@pytest.mark.parametrize(('arguments', 'message'), [
    ([], '^table: needed; one of curriculum, '),
    (['--table=audio', '--system=l3'], '^system=l3: `table`=audio has its own'),
    (['--table=action', '--video_tower=mc2'], '^video_tower=mc2: `table`=action has its own'),
    (['--table=curriculum_study', '--margin=1.0'], '^margin=1.0: `table`=curriculum_study has its'),
    (['--table=curriculum_study', '--regime=easy'], '^regime=easy: `table`=curriculum_study has'),
    (['--table=action', '--ucf101_records=ucf{split}-*'],
     r'^ucf101_records=ucf\{split\}-\*: \{part\} is missing'),
    (['--table=action', '--ucf101_records=ucf{part}-*'],
     r'^ucf101_records=.*\{split\} is missing'),
])
def test_what_a_table_cannot_be_made_with(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path, *arguments)


@pytest.mark.slow
def test_a_small_table_for_real(tmp_path, monkeypatch):
    """Two regimes of one epoch each, in processes of their own, the second time without any."""
    write_world(str(tmp_path / 'clips'), videos=10, seconds=2.0, size=16, difficulty=0.0)
    monkeypatch.setattr(tables, 'REGIMES', ('easy',))
    arguments = ['--table=curriculum', '--epochs=2', '--batch_size=8', '--frame_size=16',
                 '--warmup_steps=0']
    run(tmp_path, *arguments)
    result = tmp_path / 'table/train-easy-seed0/result.json'
    accuracy = json.loads(result.read_text())['sync']['avts_accuracy']
    text = (tmp_path / 'table/curriculum.md').read_text()
    assert f'| easy | {100 * accuracy:.1f} | 69.0 |' in text
    written = result.stat().st_mtime_ns
    run(tmp_path, *arguments)
    assert result.stat().st_mtime_ns == written


@pytest.mark.slow
def test_a_small_study_for_real(tmp_path):
    """Three arms on given records, of which one branches from a first stage."""
    write_world(str(tmp_path / 'clips'), videos=12, seconds=2.0, size=16, difficulty=0.0,
                world='sustained')
    arguments = ['--table=curriculum_study', '--quick', '--batch_size=8', '--frame_size=16',
                 '--label_prefix=object:']
    run(tmp_path, *arguments)
    folder = tmp_path / 'table'
    assert len(list(folder.glob('study-paper-*/result.json'))) == 4
    branch = folder / 'study-paper-curriculum_mixed-seed0'
    sync = json.loads((branch / 'result.json').read_text())['sync']
    # Four windows of each record: each has one easy pair, of its own class or of another.
    assert sync['pairs_easy_same_class'] + sync['pairs_easy_other_class'] == 48
    inputs = json.loads((branch / 'step.json').read_text())['arguments']
    assert inputs['init_run_dir'].endswith('study-paper-first_stage_only-seed0')
    content = json.loads((folder / 'curriculum_study.json').read_text())
    values = {line['row']: line['values'] for line in content['lines']
              if line['column'] == content['measure'] == 'accuracy, super-hard'}
    mixed, easy = (values[f'these records, paper: {arm}'] for arm in ('curriculum_mixed', 'easy'))
    assert mixed == [100 * sync['accuracy_super_hard']]
    assert content['claim'][0]['values'] == [a - b for a, b in zip(mixed, easy, strict=True)]
    written = (branch / 'result.json').stat().st_mtime_ns
    run(tmp_path, *arguments)
    assert (branch / 'result.json').stat().st_mtime_ns == written


@pytest.mark.slow
@pytest.mark.parametrize(('number', 'status'),
                         [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_table_is_resumed(tmp_path, number, status):
    write_world(str(tmp_path / 'clips'), videos=10, seconds=2.0, size=16, difficulty=0.0)
    flags = ['--mode=table', '--table=curriculum', f'--records={tmp_path}/clips-*-of-*',
             f'--eval_records={tmp_path}/clips-*-of-*',
             f'--table_dir={tmp_path}/table', '--epochs=2', '--batch_size=8', '--frame_size=16']
    command = [sys.executable, str(ROOT / 'main.py'), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if '[2/6]' in line:
            break
    else:
        pytest.fail('it was not stopped')
    # to it alone: its step is in a session of its own
    process.send_signal(number)
    said = process.communicate(timeout=PATIENCE_SECONDS)[1]
    assert process.returncode == status
    if number != signal.SIGKILL:
        assert 'The same command resumes with' in said
    # The step of a killed table is stopped and ends within the wait for the lock.
    again = subprocess.run(command, check=False, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert '6 steps, ' in again.stdout and '0 of them done' not in again.stdout
    assert '| curriculum_mixed |' in again.stdout
