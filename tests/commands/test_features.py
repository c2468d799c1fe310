"""--mode=features: files in, features out, and what it says."""

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from avts_tf import command_line, load_tower
from avts_tf.errors import Stopped, UserError
from avts_tf.inference import saved_towers
from tests.helpers import PATIENCE_SECONDS, ROOT, acting_at, noise, write_sound

RATE, WINDOW = 16000, 7680


@pytest.fixture(scope='module')
def audio(towers):
    return load_tower(towers / 'audio_tower')


def run(*flags):
    command_line.read(['--mode=features', '--workers=1', *flags])()


def report(output):
    with open(output / 'report.csv', newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def test_files_are_embedded(towers, audio, tmp_path, capsys):
    sounds = tmp_path / 'sounds'
    sounds.mkdir()
    write_sound(sounds / 'a.wav', noise(20000))
    (sounds / 'b.wav').write_text('no sound')
    run(f'--export_dir={towers}', f'--input={sounds}', f'--output={tmp_path}/out',
        '--hop_seconds=0.1', '--centered', '--batch_size=4')
    words = '1 written, 0 there already, 1 skipped (1 unreadable); 1.2 s of input embedded'
    assert words in capsys.readouterr().out
    with np.load(tmp_path / 'out' / 'a.npz') as got:
        expected = audio.embed(noise(20000), RATE, 0.1, centered=True)
        np.testing.assert_allclose(got['embedding'], expected.embedding, atol=2e-5)


def test_the_status_is_1_where_nothing_could_be_done(audio, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(saved_towers, 'load_tower', lambda path: audio)
    (tmp_path / 'a.wav').write_text('no sound')
    with pytest.raises(SystemExit) as caught:
        run(f'--input={tmp_path}/a.wav', f'--output={tmp_path}/out', '--tower=x')
    assert caught.value.code == 1 and '0 written' in capsys.readouterr().out
    assert report(tmp_path / 'out')[0]['reason'] == 'unreadable'


@pytest.mark.parametrize(('flags', 'message'), [
    (['--input=x'], '--output: give'), (['--output=x'], '--input: give'),
    (['--output=x', '--input=nowhere'], 'nowhere'),
    (['--output=x', '--frames=3'], '--frames: has no meaning'),
])
def test_mistakes(flags, message):
    with pytest.raises(UserError) as caught:
        run(*flags)
    assert message in caught.value.on_command_line()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signals_leave_a_report(number, audio, tmp_path, monkeypatch):
    (tmp_path / 'in').mkdir()
    for name in range(6):
        write_sound(tmp_path / 'in' / f'{name}.wav', noise(WINDOW, name))
    monkeypatch.setattr(
        audio, 'run', acting_at(3, audio.run, lambda: os.kill(os.getpid(), number)))
    monkeypatch.setattr(saved_towers, 'load_tower', lambda path: audio)
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match='--skip_existing resumes with the rest') as caught:
        run(f'--input={tmp_path}/in', f'--output={tmp_path}/out', '--tower=x', '--batch_size=1')
    assert caught.value.signal_number == number and signal.getsignal(number) is before
    assert [row['path'] for row in report(tmp_path / 'out')] == ['0.wav', '1.wav']


@pytest.mark.slow
def test_sigterm_from_outside(towers, tmp_path):
    (tmp_path / 'in').mkdir()
    for number in range(400):
        write_sound(tmp_path / 'in' / f'{number:03}.wav', noise(5 * RATE))
    command = [sys.executable, str(ROOT / 'main.py'), '--mode=features', f'--export_dir={towers}',
               f'--input={tmp_path}/in', f'--output={tmp_path}/out', '--hop_seconds=0.05']
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    begin = time.monotonic()
    while len(list((tmp_path / 'out').glob('*.npz'))) < 3:
        assert process.poll() is None and time.monotonic() - begin < PATIENCE_SECONDS
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 143 and 'Traceback' not in errors, errors
    assert '--skip_existing resumes with the rest' in errors.splitlines()[-1]
    written = [row['output'] for row in report(tmp_path / 'out')]
    assert 3 <= len(written) < 400
    assert all((tmp_path / 'out' / name).exists() for name in written)
