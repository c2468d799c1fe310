"""A set of records is whole, exact and told in full, however often its writer is killed."""

import concurrent.futures
import contextlib
import csv
import errno
import fractions
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest
import tensorflow as tf

from avts_tf.data import media, records
from avts_tf.errors import UserError
from avts_tf.files import LOCK
from tests import aborting_media
from tests.helpers import ROOT, counting_video
from tfrecords_tools import write


def make_video(path, seconds=1.0, seed=0, moving=True, loud=True, frames=True, sound=True):
    """Writes a video of moving noise with a sound of noise, or without one of them."""
    rng = np.random.default_rng(seed)
    with av.open(str(path), 'w') as container:
        if frames:
            video = container.add_stream('mpeg4', rate=25)
            video.width, video.height, video.pix_fmt = 64, 48, 'yuv420p'
        if sound:
            audio = container.add_stream('pcm_s16le' if str(path).endswith('.wav') else 'mp2', rate=32000, layout='mono')
        picture = rng.integers(0, 255, (48, 64, 3), np.uint8) if moving else np.full((48, 64, 3), 99, np.uint8)
        for i in range(round(seconds * 25) if frames else 0):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, 3 * i, 1), 'rgb24')
            frame.pts = i
            container.mux(video.encode(frame))
        for start in range(0, round(seconds * 32000) if sound else 0, 1152):
            samples = rng.integers(-9000, 9000, (1, 1152)).astype(np.int16) * loud
            frame = av.AudioFrame.from_ndarray(samples, 's16', 'mono')
            frame.sample_rate, frame.pts, frame.time_base = 32000, start, fractions.Fraction(1, 32000)
            container.mux(audio.encode(frame))
        for stream in container.streams:
            container.mux(stream.encode(None))


def read_set(prefix):
    """All records of a set, in the order of its shards."""
    paths = sorted(tf.io.gfile.glob(str(prefix) + '-*'))
    return [records.parse(data) for data in tf.data.TFRecordDataset(paths)]


def read_report(prefix):
    with open(f'{prefix}.report.csv', encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def read_files(folder):
    """Name → bytes of all files in a folder and below it, but for locks."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in pathlib.Path(folder).rglob('*')
            if path.is_file() and path.name != LOCK}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder of classes with good and bad files."""
    root = tmp_path_factory.mktemp('videos')
    for i, name in enumerate(('bark/one.mp4', 'bark/two.MP4', 'clap/one.mkv', 'clap/same.mkv', 'clap/same.avi')):
        (root / name).parent.mkdir(exist_ok=True)
        make_video(root / name, seed=i)
    make_video(root / 'clap' / 'mute.mp4', sound=False)
    make_video(root / 'clap' / 'deaf.mp4', frames=False)
    make_video(root / 'clap' / 'hush.avi', loud=False)
    make_video(root / 'clap' / 'slide.mkv', moving=False)
    make_video(root / 'clap' / 'long.mkv', seconds=4.0)
    (root / 'clap' / 'noise.mp4').write_bytes(np.random.default_rng(0).bytes(5000))
    (root / 'clap' / 'readme.txt').write_text('no video')
    return root


OPTIONS = {'short_side': 32, 'max_seconds': 3.0}


@pytest.fixture(scope='module')
def written(folder, tmp_path_factory):
    prefix = tmp_path_factory.mktemp('out') / 'set'
    return prefix, write.write_records(str(folder), str(prefix), shards=2, num_workers=2, **OPTIONS)


def test_folder(written):
    prefix, summary = written
    found = {record.example_id.numpy().decode(): record for record in read_set(prefix)}
    assert sorted(found) == ['bark/one', 'bark/two', 'clap/one', 'clap/same.avi', 'clap/same.mkv']
    labels = {name: (list(r.label_index.numpy()), [s.decode() for s in r.label_string.numpy()]) for name, r in found.items()}
    assert labels['bark/two'] == ([0], ['bark']) and labels['clap/one'] == ([1], ['clap'])
    with open(f'{prefix}.labels.txt', encoding='utf-8') as file:
        assert file.read() == 'bark\nclap\n'
    record = found['bark/one']
    count = record.frames.shape[0]  # the audio coder takes up to a frame from the beginning
    assert count in (24, 25) and record.waveform.shape[0] == 640 * count
    assert record.frame_rate == 25.0 and record.sample_rate == 16000.0
    np.testing.assert_allclose(record.frame_seconds, np.arange(count) / 25, atol=1e-6)

    with open(records.summary_path(str(prefix)), encoding='utf-8') as file:
        assert json.load(file) == summary
    assert summary['records'] == 5 and summary['shards'] == 2 and summary['duration_seconds'] == pytest.approx(5.0, abs=0.2)
    assert summary['skipped'] == {'unreadable': 1, 'no_video': 1, 'no_audio': 1, 'silent': 1, 'still': 1, 'too_long': 1}
    assert sorted(os.listdir(prefix.parent)) == [
        'set-00000-of-00002', 'set-00001-of-00002', 'set.json', 'set.labels.txt', 'set.report.csv']


def test_odd_names_cost_themselves_only(tmp_path):
    folder = tmp_path / 'in'
    folder.mkdir()
    make_video(tmp_path / 'a.mp4')
    for name in (b'caf\xe9.mp4', b'caf\xe8.mp4', b'=1+1.mp4', b'-x.mp4'):
        os.link(tmp_path / 'a.mp4', os.fsencode(folder) + b'/' + name)
    os.mkfifo(folder / 'fifo.mp4')
    write.write_records(str(folder), str(tmp_path / 'out' / 'set'), num_workers=1, **OPTIONS)
    report = {line['path']: line for line in read_report(tmp_path / 'out' / 'set')}
    assert {path: (line['status'], line['reason']) for path, line in report.items()} == {
        'caf\\xe8.mp4': ('written', ''), 'caf\\xe9.mp4': ('written', ''), "'=1+1.mp4": ('written', ''),
        "'-x.mp4": ('written', ''), 'fifo.mp4': ('skipped', 'missing'),
    }
    assert 'FIFO' in report['fifo.mp4']['detail'] and float(report["'-x.mp4"]['volume_db']) < 0
    ids = [record.example_id.numpy().decode() for record in read_set(tmp_path / 'out' / 'set')]
    assert sorted(ids) == ['-x', '=1+1', 'caf\\xe8', 'caf\\xe9']

    table = folder / 'list.csv'
    table.write_text('path\n-x.mp4\na\0b.mp4\n' + 'n' * 300 + '.mp4\n')
    write.write_records(str(table), str(tmp_path / 'listed' / 'set'), num_workers=1, **OPTIONS)
    assert [(line['status'], line['reason']) for line in read_report(tmp_path / 'listed' / 'set')] == [
        ('written', ''), ('skipped', 'missing'), ('skipped', 'missing')]


def test_report_lists_every_file_once_in_the_order_of_the_input(written):
    report = read_report(written[0])
    assert list(report[0]) == list(write.REPORT_COLUMNS)
    reasons = {line['path']: line['reason'] for line in report}
    assert reasons == {
        'bark/one.mp4': '', 'bark/two.MP4': '', 'clap/one.mkv': '', 'clap/same.mkv': '', 'clap/same.avi': '',
        'clap/mute.mp4': 'no_audio', 'clap/deaf.mp4': 'no_video', 'clap/hush.avi': 'silent', 'clap/slide.mkv': 'still',
        'clap/long.mkv': 'too_long', 'clap/noise.mp4': 'unreadable',
    }
    assert [line['path'] for line in report] == sorted(reasons)
    one = report[0]
    assert (one['status'], one['start_seconds'], one['end_seconds']) == ('written', '', '') and one['frames'] in ('24', '25')
    assert float(one['seconds']) == int(one['frames']) / 25 and float(one['source_fps']) == pytest.approx(25, abs=0.1)
    # Uniform noise of that size has an RMS of 9000 / sqrt(3), which the change of rate and the codec lower a little.
    assert float(one['volume_db']) == pytest.approx(20 * np.log10(9000 / 3**0.5 / 32768), abs=4) and float(one['motion']) > 1
    assert all(line['detail'] for line in report if line['status'] == 'skipped')


def test_worker_count_changes_no_byte(folder, written, tmp_path):
    write.write_records(str(folder), str(tmp_path / 'set'), shards=2, num_workers=1, **OPTIONS)
    assert read_files(tmp_path) == read_files(written[0].parent)


def test_csv_with_times_and_parts(folder, tmp_path):
    table = folder / 'list.csv'
    table.write_text(
        'video_path,start_seconds,end_seconds,split,label\nclap/long.mkv,1,2,train,b\nbark/one.mp4,,,test,a\n'
        'clap/long.mkv,2.5,3.5,train,c\nclap/gone.mp4,,,train,d\nclap/slide.mkv,,,train,b\nclap/hush.avi,,,train,b\n'
    )
    summary = write.write_records(
        str(table), str(tmp_path / 'a'), split='train', short_side=0, audio_encoding='float', dataset_name='mine', keep_still=True,
        keep_silent=True)
    assert summary['skipped'] == {'missing': 1} and summary['labels'] == {'a': 0, 'b': 3, 'c': 1, 'd': 0}
    found = {record.example_id.numpy().decode(): record for record in read_set(tmp_path / 'a')}
    assert sorted(found) == ['clap/hush', 'clap/long_1_2', 'clap/long_2.5_3.5', 'clap/slide']
    assert list(found['clap/long_2.5_3.5'].label_index.numpy()) == [2]  # of all parts
    options = media.MediaOptions(short_side=0, start_seconds=2.5, end_seconds=3.5)
    expected = media.read_media(str(folder / 'clap' / 'long.mkv'), options)
    np.testing.assert_array_equal(found['clap/long_2.5_3.5'].waveform, expected.waveform)
    assert found['clap/long_2.5_3.5'].frames.numpy().tolist() == expected.frames and len(expected.frames) == 25
    report = read_report(tmp_path / 'a')
    assert [(line['path'], line['start_seconds'], line['end_seconds'], line['status']) for line in report] == [
        ('clap/long.mkv', '1', '2', 'written'), ('clap/long.mkv', '2.5', '3.5', 'written'), ('clap/gone.mp4', '', '', 'skipped'),
        ('clap/slide.mkv', '', '', 'written'), ('clap/hush.avi', '', '', 'written')]
    with open(f'{tmp_path}/a.labels.txt', encoding='utf-8') as file:
        assert file.read() == 'a\nb\nc\nd\n'


def test_sound_only(tmp_path):
    (tmp_path / 'in').mkdir()
    for i, name in enumerate(('1-10-A-0.wav', '1-10-B-0.wav', '2-11-A-14.wav')):
        make_video(tmp_path / 'in' / name, frames=False, seed=i)
    summary = write.write_records(str(tmp_path / 'in'), str(tmp_path / 'fold1'), dataset='esc50', split='fold1')
    assert (summary['records'], summary['frames'], summary['labels']) == (2, 0, {'chirping_birds': 0, 'dog': 2})
    assert summary['duration_seconds'] == pytest.approx(2.0, abs=0.1) and summary['samples'] == 16000 * summary['duration_seconds']
    record = read_set(tmp_path / 'fold1')[0]
    assert record.frames.shape == (0,) and record.frame_rate == 0.0 and record.sample_rate == 16000.0
    path = tmp_path / 'in' / f'{record.example_id.numpy().decode()}.wav'
    expected = media.read_media(str(path), media.MediaOptions(audio_only=True))
    np.testing.assert_array_equal(record.waveform, expected.waveform)
    line = read_report(tmp_path / 'fold1')[0]
    assert float(line['seconds']) == len(expected.waveform) / 16000
    assert (line['frames'], line['source_fps'], line['motion']) == ('0', '', '')


def test_hold_out(folder, tmp_path):
    ids = {}
    for part in ('train', 'held'):
        write.write_records(str(folder / 'clap' / 's*'), str(tmp_path / part), hold_out=0.5, part=part, short_side=8)
        ids[part] = [line['path'] for line in read_report(tmp_path / part)]
    assert sorted(ids['train'] + ids['held']) == ['same.avi', 'same.mkv', 'slide.mkv'] and ids['train'] and ids['held']


def test_mistakes_are_explained(folder, tmp_path):
    output = str(tmp_path / 'out')

    def message(input_path=folder, output=output, **options):
        with pytest.raises(UserError) as caught:
            write.write_records(str(input_path), output, **options)
        assert '\n' not in str(caught.value)
        return str(caught.value)

    assert 'gone' in message(tmp_path / 'gone')
    assert '--shards=99' in message(shards=99) and '--short_side=3' in message(short_side=3)
    assert '--audio_encoding=mp3' in message(audio_encoding='mp3') and '--max_pixels=1' in message(max_pixels=1)
    assert '--silent_below_db=3' in message(silent_below_db=3.0) and '--workers=-1' in message(num_workers=-1)
    assert '--part' in message(hold_out=0.5) and '--part=held' in message(part='held') and '--hold_out=2' in message(hold_out=2)
    assert 'no source' in message(hold_out=1e-9, part='held') and 'dataset=ucf' in message(dataset='ucf')
    assert '--output=' in message(output=str(tmp_path))
    (tmp_path / 'file').write_text('')
    assert 'cannot be written' in message(output=str(tmp_path / 'file' / 'set'))
    (tmp_path / 'out-00000-of-00007').write_text('')
    assert 'out-00000-of-00007' in message()
    assert sorted(os.listdir(tmp_path)) == ['file', 'out-00000-of-00007']


def test_a_record_beyond_what_a_message_holds_is_left_out(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(write, '_MOST_RECORD_BYTES', 20_000)
    summary = write.write_records(str(folder / 'bark'), str(tmp_path / 'a'), short_side=32)
    assert summary['records'] == 0 and summary['skipped'] == {'too_large': 2}
    assert os.listdir(tmp_path) == ['a.report.csv']


class Killed(BaseException):
    """What stands for SIGKILL within one process: nothing catches it, and nothing tidies up behind it."""


@contextlib.contextmanager
def failing_at(number, error):
    """From the given one on, every operation that changes a folder or a file fails; yields the list of those before it."""
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
            patch.setattr(write.os, name, wrapped(getattr(os, name)))
        yield done


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """An input of seven files that need no decoding: a function that writes it, and the folder that it writes to."""
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
                    video.frames, 16, 16, video.waveform, 0.25, volume_db=-20.0, motion=3.0, source_fps=options.fps, note=''
                ), None

    def fsync(file):
        """Takes its time, and matters only where power is lost."""

    monkeypatch.setattr(write.workers, 'run_in_order', run_in_order)
    monkeypatch.setattr(os, 'fsync', fsync)
    out = tmp_path / 'out'

    def write_set(**options):
        return write.write_records(str(tmp_path / 'in'), str(out / 'set'), **{'shards': 3, **options})
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
            counts = {name.split('-of-')[1] for name in os.listdir(out) if '-of-' in name} if out.exists() else set()
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
    for first in range(len(done) - 24, len(done), 2):  # while it moves the set into its place, and clears up
        for second in range(0, 24, 5):
            shutil.rmtree(out)
            with contextlib.suppress(Killed), failing_at(first, Killed):
                write_set()
            with contextlib.suppress(Killed), failing_at(second, Killed):
                write_set(jpeg_quality=50, shards=2, overwrite=True)
            try:
                again = write_set()
            except UserError as error:
                assert '--overwrite' in str(error)
                again = write_set(overwrite=True)
            assert again == summary and read_files(out) == whole, (first, second)


def test_finished_shards_are_not_made_again(quick, monkeypatch):
    write_set, out = quick
    write_set()
    whole = read_files(out)
    shutil.rmtree(out)
    made = []
    make_record = write.make_record
    monkeypatch.setattr(write, 'make_record', lambda *args: made.append(args[1].example_id) or make_record(*args))
    with contextlib.suppress(Killed), failing_at(12, Killed):
        write_set()
    finished = sum(name.endswith('.lines') for name in os.listdir(out / 'set.writing'))
    assert 1 <= finished < 3 and len(made) < 7
    before, made[:] = set(made), []
    write_set(num_workers=3)
    assert len(made) < 7 and before | set(made) == set('0123456') and read_files(out) == whole


def test_full_disk_at_every_step(quick):
    write_set, out = quick
    write_set()
    whole = read_files(out)
    for number in range(3, 60, 4):
        shutil.rmtree(out)
        with failing_at(number, lambda: OSError(errno.ENOSPC, 'No space left on device', 'x')) as done:
            try:
                write_set()
                break
            except UserError as error:
                found = re.fullmatch(r'--output=.*/set: the disk is full. (\d) of 3 shard\(s\) are finished .*', str(error))
                assert found, error
                finished = [name for name in os.listdir(out / 'set.writing') if name.endswith('.lines')]
                assert len(done) == number and int(found[1]) == len(finished)
        write_set()
        assert read_files(out) == whole


def test_full_disk_for_real(folder, tmp_path):
    small = tmp_path / 'small'
    small.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=200k', 'tmpfs', small], capture_output=True).returncode:
        pytest.skip('mounting a small disk is not allowed here')
    try:
        with pytest.raises(UserError, match='the disk is full. [1-4] of 5 shard'):
            write.write_records(str(folder), str(small / 'set'), shards=5, keep_still=True, short_side=48, jpeg_quality=100)
        subprocess.run(['mount', '-o', 'remount,size=10m', small], check=True)
        options = {'shards': 5, 'keep_still': True, 'short_side': 48, 'jpeg_quality': 100}
        write.write_records(str(folder), str(small / 'set'), **options)
        write.write_records(str(folder), str(tmp_path / 'beside' / 'set'), **options)
        assert read_files(small) == read_files(tmp_path / 'beside')
    finally:
        subprocess.run(['umount', small], check=True)


def test_what_is_there_is_left_alone(quick, capsys):
    write_set, out = quick
    summary = write_set()
    times = {name: os.stat(out / name).st_mtime_ns for name in os.listdir(out)}
    capsys.readouterr()
    assert write_set(num_workers=5) == summary
    assert 'there already' in capsys.readouterr().err
    assert {name: os.stat(out / name).st_mtime_ns for name in os.listdir(out)} == times
    for options in ({'fps': 30.0}, {'shards': 2}, {'keep_silent': True}):
        with pytest.raises(UserError, match='--overwrite'):
            write_set(**options)
    whole = read_files(out)
    write_set(overwrite=True)
    assert read_files(out) == whole and os.stat(out / 'set.json').st_mtime_ns != times['set.json']
    write_set(shards=2, overwrite=True)
    assert sorted(os.listdir(out)) == ['set-00000-of-00002', 'set-00001-of-00002', 'set.json', 'set.report.csv']
    os.remove(out / 'set-00001-of-00002')
    with pytest.raises(UserError, match='not all there'):
        write_set(shards=2)


def test_unfinished_work_of_another_command_is_refused(quick, tmp_path, capsys):
    write_set, out = quick
    for change, words in (
        (lambda: {'fps': 30.0}, '--fps=25.0 there, 30.0 here'), (lambda: {'shards': 2}, '3 shards there, 2 here'),
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
    plan = write.make_plan(str(out.parent / 'in'), str(out / 'set'), shards=3)
    with write.output(plan, False) as (summary, shards):
        assert summary is None and shards == [0, 1, 2]
        before = read_files(out)
        for overwrite in (False, True):
            with concurrent.futures.ThreadPoolExecutor() as pool:  # a thread is refused as a process is
                second = pool.submit(write_set, overwrite=overwrite)
            with pytest.raises(UserError, match='another process'):
                second.result()
        assert read_files(out) == before
    write_set()
    assert not (out / 'set.writing').exists()


def start(table, output, *more):
    command = [sys.executable, '-m', 'tfrecords_tools.write', f'--input={table}', f'--output={output}', '--short_side=32', *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def many_rows(folder, rows):
    """A CSV of many stretches of one file."""
    table = folder / f'rows{rows}.csv'
    lines = [f'clap/long.mkv,{i * 0.01:.2f},{i * 0.01 + 0.5:.2f}' for i in range(rows)]
    table.write_text('\n'.join(['video_path,start_seconds,end_seconds', *lines]) + '\n')
    return str(table)


def wait_for(condition, process):
    """Waits until something is true of a running process; says whether it came to that before its end."""
    while process.poll() is None:
        if condition():
            return True
        time.sleep(0.002)
    return False


def lines_of(folder):
    return [name for name in os.listdir(folder) if name.endswith('.lines')] if os.path.isdir(folder) else []


@pytest.mark.slow
def test_signals_and_sigkill(folder, tmp_path):
    table, out = many_rows(folder, 120), tmp_path / 'killed' / 'set'
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
        assert f'write.py: stopped by {number.name}. The same command resumes' in errors.splitlines()[-1]
        done.append(len(lines_of(aside)))
        assert done[-1] < 40
    write.write_records(table, str(out), short_side=32, shards=40, num_workers=1)
    write.write_records(table, str(tmp_path / 'whole' / 'set'), short_side=32, shards=40, num_workers=2)
    assert read_files(tmp_path / 'killed') == read_files(tmp_path / 'whole')


@pytest.mark.slow
def test_killed_at_random_moments(folder, tmp_path):
    table, rng = many_rows(folder, 200), random.Random(0)
    write.write_records(table, str(tmp_path / 'whole' / 'set'), short_side=32, shards=40)
    whole, out, kills = read_files(tmp_path / 'whole'), tmp_path / 'killed' / 'set', 0
    aside = f'{out}.writing'
    while kills < 20:
        shutil.rmtree(out.parent, ignore_errors=True)
        while True:
            done, more = len(lines_of(aside)), rng.randint(0, 15)
            process = start(table, out, '--shards=40', f'--workers={rng.randint(1, 3)}')
            # Its start takes longer than its work: what is random is a moment of the work.
            wait_for(lambda: os.path.exists(f'{aside}/plan.json') and len(lines_of(aside)) >= done + more, process)  # noqa: B023
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=rng.uniform(0.0, 0.5))
                assert process.returncode == 0
                break
            process.kill()
            process.communicate()
            kills += 1
        assert read_files(out.parent) == whole


def test_command_line(tmp_path):
    (tmp_path / 'noise.mp4').write_bytes(np.random.default_rng(0).bytes(5000))
    output = tmp_path / 'new' / 'set'
    process = start(tmp_path, output)
    out, errors = process.communicate()
    assert process.returncode == 1 and '0 written, 1 skipped (1 unreadable)' in out
    assert 'no record could be made' in errors and 'Traceback' not in errors
    assert os.listdir(output.parent) == ['set.report.csv']


@pytest.mark.skipif(not os.environ.get('AVTS_DATA'), reason='AVTS_DATA names no folder with real files')
def test_real_sounds(tmp_path):
    table = os.path.join(os.environ['AVTS_DATA'], 'esc10.csv')
    summary = write.write_records(table, str(tmp_path / 'fold1'), dataset='esc10', split='fold1')
    assert summary['records'] == 80 and summary['skipped'] == {} and summary['frames'] == 0
    assert list(summary['labels'].values()) == [8] * 10


@pytest.mark.skipif(not os.environ.get('AVTS_DATA'), reason='AVTS_DATA names no folder with the awkward files')
def test_awkward_files(tmp_path):
    folder = os.path.join(os.environ['AVTS_DATA'], 'awkward')
    summary = write.write_records(folder, str(tmp_path / 'a'), short_side=32)
    assert sum(summary['skipped'].values()) + summary['records'] == len(read_report(tmp_path / 'a')) == len(os.listdir(folder))
    assert summary['skipped']['no_video'] == 2 and summary['skipped']['no_audio'] == 4


def test_a_file_that_kills_its_decoder_is_in_the_report(tmp_path, monkeypatch):
    (tmp_path / 'in').mkdir()
    for seed, name in enumerate(('one', 'two')):
        make_video(tmp_path / 'in' / f'{name}.mkv', seed=seed, seconds=0.4)
    monkeypatch.setattr(media, 'try_media', aborting_media.try_media)
    summary = write.write_records(str(tmp_path / 'in'), str(tmp_path / 'out' / 'set'), short_side=16, num_workers=1)
    assert summary['records'] == 1 and summary['skipped'] == {'crashed': 1}
    assert 'SIGABRT' in read_report(tmp_path / 'out' / 'set')[1]['detail']
