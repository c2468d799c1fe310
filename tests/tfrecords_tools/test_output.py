"""A set of records is whole and exact, however often its writer is killed."""

import concurrent.futures
import contextlib
import errno
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from avts_tf.data import media
from avts_tf.errors import UserError
from tests.helpers import ROOT, counting_video
from tests.tfrecords_tools.writing import read_files
from tfrecords_tools import write
from tfrecords_tools.output import hold_output
from tfrecords_tools.plan import make_plan


class Killed(BaseException):
    """Stands for SIGKILL within one process: nothing catches it, nothing tidies up after it."""


@contextlib.contextmanager
def failing_at(number, error):
    """From that one on, all changes of files and folders fail; yields those before it."""
    done = []

    def wrapped(function):
        def call(*args, **kwargs):
            if len(done) >= number:
                raise error()
            done.append(function.__name__)
            return function(*args, **kwargs)
        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ('replace', 'remove', 'rmdir', 'fsync', 'makedirs'):
            patch.setattr(os, name, wrapped(getattr(os, name)))
        yield done


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """A function that writes seven sources that need no decoding, and the folder it writes to."""
    (tmp_path / 'in').mkdir()
    for i in range(7):
        (tmp_path / 'in' / f'{i}.mp4').write_bytes(bytes(i))
    videos = [counting_video(i, seconds=0.2, size=16) for i in range(9)]

    def run_in_order(function, tasks, num_workers, timeout_seconds):
        for path, options in tasks:
            number = int(os.path.basename(path)[0])
            if number == 3:
                yield ('silent', 'a volume of -90 dBFS'), None
            else:
                video = videos[number]
                yield media.Media(
                    video.frames, 16, 16, video.waveform, 0.25, volume_db=-20.0, motion=3.0,
                    source_fps=options.fps, note=''
                ), None

    def fsync(file):
        """Takes its time, and matters only where power is lost."""

    monkeypatch.setattr(write, 'run_in_order', run_in_order)
    monkeypatch.setattr(os, 'fsync', fsync)
    out = tmp_path / 'out'

    def write_set(**options):
        return write.write_records(str(tmp_path / 'in'), str(out / 'set'),
                                   **{'shards': 3, **options})
    return write_set, out


def test_killed_at_every_single_step_it_goes_on(quick):
    write_set, out = quick
    summary = write_set()
    whole = read_files(out)
    steps = None
    for older in (False, True):  # beside nothing, and over a set of other options
        number = 0
        while True:
            shutil.rmtree(out)
            if older:
                write_set(jpeg_quality=50, shards=5)
            with failing_at(number, Killed) as done:
                try:
                    write_set(overwrite=older)
                    break
                except Killed:
                    pass
            # Between the two lives, there is never a mixture that a glob could take for a set.
            counts = {name.split('-of-')[1] for name in os.listdir(out)
                      if '-of-' in name} if out.exists() else set()
            assert len(counts) <= 1
            if number % 3 == 0:  # and a third life that is killed in the middle of the second
                with contextlib.suppress(Killed), failing_at(4, Killed):
                    write_set(overwrite=older)
            assert write_set(overwrite=older) == summary
            assert read_files(out) == whole, (older, number)
            number += 1
        steps = max(steps or 0, len(done))
    assert steps > 50  # it did step through it all


def test_two_commands_that_are_killed_in_turn_never_mix(quick):
    write_set, out = quick
    with failing_at(10**6, Killed) as done:
        summary = write_set()
    whole = read_files(out)
    # while it moves the set into its place, and clears up
    for first in range(len(done) - 24, len(done), 2):
        for second in range(0, 24, 5):
            shutil.rmtree(out)
            with contextlib.suppress(Killed), failing_at(first, Killed):
                write_set()
            with contextlib.suppress(Killed), failing_at(second, Killed):
                write_set(jpeg_quality=50, shards=2, overwrite=True)
            try:
                again = write_set()
            except UserError as error:
                assert '`overwrite`' in str(error)
                again = write_set(overwrite=True)
            assert again == summary and read_files(out) == whole, (first, second)


def test_finished_shards_are_not_made_again(quick, monkeypatch):
    write_set, out = quick
    write_set()
    whole = read_files(out)
    shutil.rmtree(out)
    made = []
    make_record = write.make_record
    monkeypatch.setattr(write, 'make_record', lambda *args: made.append(args[1].example_id)
                        or make_record(*args))
    with contextlib.suppress(Killed), failing_at(12, Killed):
        write_set()
    finished = sum(name.endswith('.lines') for name in os.listdir(out / 'set.writing'))
    assert 1 <= finished < 3 and len(made) < 7
    before, made[:] = set(made), []
    write_set(workers=3)
    assert len(made) < 7 and before | set(made) == set('0123456') and read_files(out) == whole


def test_full_disk_at_every_step(quick):
    write_set, out = quick
    write_set()
    whole = read_files(out)
    for number in range(3, 60, 4):
        shutil.rmtree(out)
        with failing_at(number, lambda: OSError(errno.ENOSPC, 'No space left on device',
                                                'x')) as done:
            try:
                write_set()
                break
            except UserError as error:
                found = re.fullmatch(r'output=.*/set: the disk is full. (\d) of 3 shard.*',
                                     str(error))
                assert found, error
                finished = [name for name in os.listdir(out / 'set.writing')
                            if name.endswith('.lines')]
                assert len(done) == number and int(found[1]) == len(finished)
        write_set()
        assert read_files(out) == whole


def test_full_disk_for_real(video_folder, tmp_path):
    small = tmp_path / 'small'
    small.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=200k', 'tmpfs', small],
                      capture_output=True).returncode:
        pytest.skip('mounting a small disk is not allowed here')
    try:
        with pytest.raises(UserError, match='the disk is full. [1-4] of 5 shard'):
            write.write_records(str(video_folder), str(small / 'set'), shards=5, still_below=0,
                                short_side=48, jpeg_quality=100)
        subprocess.run(['mount', '-o', 'remount,size=10m', small], check=True)
        options = {'shards': 5, 'still_below': 0, 'short_side': 48, 'jpeg_quality': 100}
        write.write_records(str(video_folder), str(small / 'set'), **options)
        write.write_records(str(video_folder), str(tmp_path / 'beside' / 'set'), **options)
        assert read_files(small) == read_files(tmp_path / 'beside')
    finally:
        subprocess.run(['umount', small], check=True)


def test_what_is_there_is_left_alone(quick, caplog):
    caplog.set_level('INFO', logger='tfrecords_tools')
    write_set, out = quick
    summary = write_set()
    times = {name: os.stat(out / name).st_mtime_ns for name in os.listdir(out)}
    caplog.clear()
    assert write_set(workers=5) == summary
    assert 'there already' in caplog.text
    assert {name: os.stat(out / name).st_mtime_ns for name in os.listdir(out)} == times
    for options in ({'fps': 30.0}, {'shards': 2}, {'silent_below_db': -120}):
        with pytest.raises(UserError, match='`overwrite`'):
            write_set(**options)
    whole = read_files(out)
    write_set(overwrite=True)
    assert read_files(out) == whole and os.stat(out / 'set.json').st_mtime_ns != times['set.json']
    write_set(shards=2, overwrite=True)
    assert sorted(os.listdir(out)) == ['set-00000-of-00002', 'set-00001-of-00002', 'set.json',
                                       'set.report.csv']
    os.remove(out / 'set-00001-of-00002')
    with pytest.raises(UserError, match='not all there'):
        write_set(shards=2)


def test_unfinished_work_of_another_command_is_refused(quick, tmp_path):
    write_set, out = quick
    for change, words in (
        (lambda: {'fps': 30.0}, '`fps`=25.0 there, 30.0 here'),
        (lambda: {'shards': 2}, '3 shards there, 2 here'),
        (lambda: (tmp_path / 'in' / '8.mp4').write_text('new') and {}, 'the input has changed'),
        (lambda: os.utime(tmp_path / 'in' / '1.mp4', (1, 1)) or {}, 'the input has changed'),
    ):
        with contextlib.suppress(Killed), failing_at(12, Killed):
            write_set(overwrite=True)
        options = change()
        before = read_files(out)
        with pytest.raises(UserError, match=re.escape(words)):
            write_set(**options)
        assert read_files(out) == before
        write_set(**options, overwrite=True)
        assert not (out / 'set.writing').exists() and (out / 'set.json').exists()


def test_a_second_writer_is_refused(quick):
    write_set, out = quick
    plan = make_plan(str(out.parent / 'in'), str(out / 'set'), shards=3)
    with hold_output(plan, False) as (summary, missing):
        assert summary is None and missing == [0, 1, 2]
        before = read_files(out)
        for overwrite in (False, True):
            # a thread is refused as a process is
            with concurrent.futures.ThreadPoolExecutor() as pool:
                second = pool.submit(write_set, overwrite=overwrite)
            with pytest.raises(UserError, match=f'^output={out}/set: another process'):
                second.result()
        assert read_files(out) == before
    write_set()
    assert not (out / 'set.writing').exists()


def start(table, output, *more):
    command = [sys.executable, '-m', 'tfrecords_tools.write', f'--input={table}',
               f'--output={output}', '--short_side=32', *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


def many_rows(folder, rows):
    """A CSV of many stretches of one file."""
    table = folder / f'rows{rows}.csv'
    lines = [f'clap/long.mkv,{i * 0.01:.2f},{i * 0.01 + 0.5:.2f}' for i in range(rows)]
    table.write_text('\n'.join(['video_path,start_seconds,end_seconds', *lines]) + '\n')
    return str(table)


def wait_for(condition, process):
    """Waits until something is true of a process; False where it ended before."""
    while process.poll() is None:
        if condition():
            return True
        time.sleep(0.002)
    return False


def lines_of(folder):
    return [name for name in os.listdir(folder)
            if name.endswith('.lines')] if os.path.isdir(folder) else []


@pytest.mark.slow
def test_signals_and_sigkill(video_folder, tmp_path):
    table, out = many_rows(video_folder, 120), tmp_path / 'killed' / 'set'
    aside = f'{out}.writing'
    process = start(table, out, '--shards=40')
    assert wait_for(lambda: lines_of(aside), process)
    process.kill()
    process.communicate()
    done = [len(lines_of(aside))]
    assert 1 <= done[0] < 40
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(table, out, '--shards=40')
        assert wait_for(lambda: len(lines_of(aside)) > done[-1], process)
        process.send_signal(number)
        output, errors = process.communicate()
        assert process.returncode == 128 + number and output == '' and 'Traceback' not in errors
        name = signal.Signals(number).name
        assert errors.splitlines()[-1].startswith(f'write.py: stopped by {name}. The same command ')
        done.append(len(lines_of(aside)))
        assert done[-1] < 40
    write.write_records(table, str(out), short_side=32, shards=40, workers=1)
    write.write_records(table, str(tmp_path / 'whole' / 'set'), short_side=32, shards=40, workers=2)
    assert read_files(tmp_path / 'killed') == read_files(tmp_path / 'whole')


@pytest.mark.slow
def test_killed_at_random_moments(video_folder, tmp_path):
    table, rng = many_rows(video_folder, 200), random.Random(0)
    write.write_records(table, str(tmp_path / 'whole' / 'set'), short_side=32, shards=40)
    whole, out, kills = read_files(tmp_path / 'whole'), tmp_path / 'killed' / 'set', 0
    aside = f'{out}.writing'
    while kills < 20:
        shutil.rmtree(out.parent, ignore_errors=True)
        while True:
            done, more = len(lines_of(aside)), rng.randint(0, 15)
            process = start(table, out, '--shards=40', f'--workers={rng.randint(1, 3)}')
            # Its start takes longer than its work: what is random is a moment of the work.
            least = done + more
            wait_for(lambda least=least: os.path.exists(f'{aside}/plan.json')
                     and len(lines_of(aside)) >= least, process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=rng.uniform(0.0, 0.5))
                assert process.returncode == 0
                break
            process.kill()
            process.communicate()
            kills += 1
        assert read_files(out.parent) == whole
