"""Folders that one process at a time writes."""

import os
import subprocess
import sys
import threading

import pytest

from avts_tf import build_two_tower, command_line, files
from avts_tf.config import make_config
from avts_tf.errors import UserError
from avts_tf.inference import export, extract
from avts_tf.training import trainer as training

HOLD = """
import sys, time
from avts_tf import files
with files.locked(sys.argv[1], 'output'):
    print('held', flush=True)
    time.sleep(600)
"""


def other_process(folder):
    """A process that holds a folder."""
    process = subprocess.Popen([sys.executable, '-c', HOLD, str(folder)], stdout=subprocess.PIPE,
                               text=True)
    assert process.stdout.readline() == 'held\n'
    return process


def test_a_second_process_is_refused_by_name_until_the_first_has_ended(tmp_path, caplog):
    folder = tmp_path / 'a' / 'b'
    process = other_process(folder)
    try:
        with (pytest.raises(UserError, match=f'run_dir={folder}: another process'),
              files.locked(str(folder), 'run_dir')):
            pass
        assert os.listdir(folder) == [files.LOCK]
        with (pytest.raises(UserError, match='output=given: another'),
              files.locked(str(folder), 'output', value='given')):
            pass  # the message names what the user gave, not a working folder
        caplog.set_level('INFO', logger='avts_tf')
        threading.Timer(0.5, process.kill).start()
        with files.locked(str(folder), 'run_dir', 600.0):
            assert len(caplog.messages) == 1 and str(folder) in caplog.text
    finally:
        process.kill()
        process.wait()
    assert os.listdir(folder) == []


def test_the_lock_of_the_next_holder_stays(tmp_path):
    """As when the folder is cleared up under the lock and another process comes in at once."""
    folder = tmp_path / 'run'
    with files.locked(str(folder), 'run_dir'):
        os.remove(folder / files.LOCK)
        process = other_process(folder)
    try:
        with (pytest.raises(UserError, match='another process'),
              files.locked(str(folder), 'run_dir')):
            pass
    finally:
        process.kill()
        process.wait()


def test_what_is_called_meanwhile_may_hold_it_and_another_thread_may_not(tmp_path):
    folder, refused = str(tmp_path / 'run'), []

    def second():
        try:
            with files.locked(folder, 'run_dir'):
                pass
        except UserError as error:
            refused.append(error)

    with files.locked(folder, 'run_dir') as descriptor, files.locked(folder, 'run_dir') as again:
        assert descriptor is not None and again is None
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(refused) == 1 and not os.path.exists(folder)  # nothing was written
    second()
    assert len(refused) == 1


@pytest.mark.parametrize('folder', ['', '/dev/null', '/dev/null/run', 'file', 'x' * 300])
def test_what_is_no_folder_is_said(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').touch()
    with (pytest.raises(UserError, match='output=.*: cannot be written'),
          files.locked(folder, 'output')):
        pass


def test_whatever_writes_a_folder_is_refused_while_another_process_does(tmp_path, monkeypatch):
    monkeypatch.setattr(export, 'WAIT_SECONDS', 0.1)
    folder, records = str(tmp_path / 'run'), str(tmp_path / 'none-*')
    config = make_config('tiny')
    calls = {
        'train': lambda: training.train(config, records, folder),
        **{f'--mode={mode}': command_line.read([
            f'--mode={mode}', f'--run_dir={folder}', *flags, f'--records={records}',
            f'--eval_records={records}'])
           for mode, flags in {
               'train': [], 'tune': ['--trials=1'], 'action_recognition': []}.items()},
        '--mode=audio_classification': command_line.read([
            '--mode=audio_classification', f'--run_dir={folder}', '--input=none',
            '--features=mfcc']),
        'extract_features': lambda: extract.extract_features([], folder, []),
        'export_towers': lambda: export.export_towers(build_two_tower(config), folder),
    }
    process = other_process(folder)
    try:
        for name, call in calls.items():
            with pytest.raises(UserError, match=f'={folder}: another process'):
                call()
                pytest.fail(name)
        assert os.listdir(folder) == [files.LOCK]
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(('value', 'expected'), [
    ('=1+1', "'=1+1"), ('+a.wav', "'+a.wav"), ('-a', "'-a"), ('@x', "'@x"), ('-23.4', '-23.4'),
    ('+1e3', '+1e3'), ('a=b', 'a=b'), ('', ''), (-1.5, -1.5), (None, None), ('\t=1', "'\t=1"),
])
def test_cells_that_a_spreadsheet_would_calculate(value, expected):
    assert files.csv_cell(value) == expected


def test_what_is_no_file_is_named_in_words(tmp_path):
    (tmp_path / 'a').write_text('')
    os.mkfifo(tmp_path / 'fifo')
    os.symlink('loop', tmp_path / 'loop')
    os.symlink('nowhere', tmp_path / 'dangling')
    assert files.file_problem(tmp_path / 'a') == ''
    for path, words in {
        tmp_path / 'fifo': 'FIFO', '/dev/null': 'device', tmp_path: 'folder',
        tmp_path / 'loop': 'leads back to itself', tmp_path / 'a' / 'b': 'no such file',
        tmp_path / 'dangling': 'a link to a file that is not there', 'a' * 300: 'too long',
        tmp_path / 'none': 'no such file', 'a\0b': 'NUL',
    }.items():
        assert words in files.file_problem(path)
