"""Embedding files: what is written is what the arrays in them give, and no file is lost to another."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest
import tensorflow as tf

from avts_tf import command_line as main
from avts_tf import modes
from avts_tf.errors import UserError
from avts_tf.inference import extraction
from tests import aborting_media
from tests.helpers import PATIENCE_SECONDS, ROOT, noise, write_sound, write_video

RATE, WINDOW = 16000, 7680


def extract(inputs, output, towers, **options):
    return extraction.extract_features(extraction.find_inputs([str(path) for path in inputs]), str(output), towers,
                                       num_workers=1, **options)


def report(output):
    with open(output / 'report.csv', newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


def load(path):
    with np.load(path) as values:
        return dict(values)


@pytest.fixture(scope='module')
def awkward(tmp_path_factory):
    """A folder of sounds of all kinds: name → (what is in the file, or None; the reason for which it is left out)."""
    folder = tmp_path_factory.mktemp('awkward')
    rng = np.random.default_rng(0)
    stereo = np.stack([noise(9000, 1), noise(9000, 2)], 1)
    surround = np.stack([noise(9000, seed) for seed in range(8)], 1)
    plain = {
        'clipped': np.where(np.sin(np.arange(9000) / 5) > 0, 32767, -32768).astype(np.int16), 'dc': np.full(9000, 12000, np.int16),
        'eight_bit': rng.integers(0, 256, 9000, np.uint8), 'one_sample': np.array([1000], np.int16),
        'silence': np.zeros(20000, np.int16), 'stereo': stereo, 'surround': surround,
    }
    for name, sound in plain.items():
        write_sound(folder / f'{name}.wav', sound)
    write_sound(folder / 'sub_44100.wav', noise(30000, 3), 44100)
    for name, value in {'nan': np.nan, 'infinite': -np.inf}.items():
        sound = np.where(np.arange(9000) == 8999, value, 0.1)
        with av.open(str(folder / f'{name}.wav'), 'w') as container:
            stream = container.add_stream('pcm_f32le', rate=RATE, layout='mono')
            frame = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format='flt', layout='mono')
            frame.sample_rate = RATE
            container.mux([*stream.encode(frame), *stream.encode(None)])
    (folder / 'deep' / 'er').mkdir(parents=True)
    (folder / 'deep' / 'er' / 'text.wav').write_text('this is no sound\n' * 100)
    (folder / 'deep' / 'empty.wav').write_bytes(b'')
    write_sound(folder / 'deep' / 'no_samples.wav', np.zeros(0, np.int16))
    (folder / 'notes.txt').write_text('neither is this')
    return folder, {**plain, 'sub_44100': noise(30000, 3)}


def test_awkward_files(awkward, audio, tmp_path):
    """Each file gives what its samples give as an array, or a reason in the report."""
    folder, sounds = awkward
    summary = extract([folder], tmp_path / 'out', [audio], hop_seconds=0.2, batch_size=5)
    rows = {row['path']: row for row in report(tmp_path / 'out')}
    assert set(rows) == {f'{name}.wav' for name in (*sounds, 'nan', 'infinite', 'deep/er/text', 'deep/empty', 'deep/no_samples')}
    for name, sound in sounds.items():
        got = load(tmp_path / 'out' / f'{name}.npz')
        expected = audio.embed(sound, 44100 if name == 'sub_44100' else RATE, 0.2)
        assert got.keys() == {'embedding', 'conv5', 'timestamps'} and rows[f'{name}.wav']['status'] == 'written'
        # Resampling in pieces of other lengths, or halving the sum of two channels, may round a sample the other way.
        atol = 1e-3 if name in ('sub_44100', 'stereo') else 2e-5
        np.testing.assert_allclose(got['embedding'], expected.embedding, atol=atol, err_msg=name)
        np.testing.assert_array_equal(got['timestamps'], expected.timestamps)
        assert int(rows[f'{name}.wav']['windows']) == len(expected.timestamps)
    for name, reason in {'nan': 'unreadable', 'infinite': 'unreadable', 'deep/er/text': 'unreadable',
                         'deep/empty': 'unreadable'}.items():
        assert (rows[f'{name}.wav']['status'], rows[f'{name}.wav']['reason']) == ('skipped', reason)
    assert 'NaN' in rows['nan.wav']['detail'] and rows['deep/no_samples.wav']['status'] == 'skipped'
    assert summary['written'] == len(sounds) and sum(summary['skipped'].values()) == 5
    assert summary['seconds'] == pytest.approx((5 * 9000 + 1 + 20000) / RATE + 30000 / 44100, abs=1e-3)
    # Nothing else is there: no folder for files that gave nothing, nothing half written.
    assert files(tmp_path / 'out') == sorted([*(f'{name}.npz' for name in sounds), 'features.json', 'report.csv'])


def test_the_input_tree_is_mirrored(audio, tmp_path):
    for name in ('a.wav', 'x/a.wav', 'x/y/b.wav', 'x/b.flac'):
        (tmp_path / 'in' / name).parent.mkdir(parents=True, exist_ok=True)
        write_sound(tmp_path / 'in' / name, noise(100))
    os.link(tmp_path / 'in' / 'x' / 'a.wav', tmp_path / 'in' / 'x' / 'a.mp3')     # the same name but for the suffix
    extract([tmp_path / 'in'], tmp_path / 'out', [audio])
    assert files(tmp_path / 'out') == ['a.npz', 'features.json', 'report.csv', 'x/a.mp3.npz', 'x/a.wav.npz', 'x/b.npz', 'x/y/b.npz']


def test_both_towers(audio, video, tmp_path):
    """Of a folder with videos and sounds, both towers take the videos, and the windows lie at the same times."""
    frames = np.random.default_rng(0).integers(0, 256, [38, 16, 20, 3], np.uint8)
    (tmp_path / 'in').mkdir()
    write_video(tmp_path / 'in' / 'clip.mkv', frames, noise(RATE * 38 // 25))
    write_video(tmp_path / 'in' / 'mute.mkv', frames[:5])
    write_sound(tmp_path / 'in' / 'sound.wav', noise(9000))
    summary = extract([tmp_path / 'in'], tmp_path / 'out', [audio, video])
    assert files(tmp_path / 'out') == ['clip.audio.npz', 'clip.video.npz', 'features.json', 'mute.video.npz', 'report.csv',
                                       'sound.audio.npz']
    assert summary['written'] == 4 and summary['skipped'] == {'no_audio': 1}
    heard, seen = load(tmp_path / 'out' / 'clip.audio.npz'), load(tmp_path / 'out' / 'clip.video.npz')
    assert seen.keys() == {'embedding', 'features', 'timestamps'}
    np.testing.assert_allclose(heard['timestamps'], seen['timestamps'])
    np.testing.assert_allclose(heard['embedding'], audio.embed(noise(RATE * 38 // 25), RATE).embedding, atol=2e-5)
    # RGB to YUV and back is off by a level or two.
    np.testing.assert_allclose(seen['embedding'], video.embed(frames, 25.0).embedding, atol=0.02)
    assert np.abs(seen['embedding'][0] - seen['embedding'][1]).max() > 0.05


def test_videos_of_all_sizes(video, tmp_path):
    """Wide, tall, large and small ones share a run; each is embedded by its centred square."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, [12, 2, 2, 3], np.uint8)
    for name, (height, width) in {'a': (16, 40), 'b': (48, 16), 'c': (64, 96), 'd': (8, 12)}.items():
        side = min(height, width)
        frames = rng.integers(0, 256, [12, height, width, 3], np.uint8)
        top, left = (height - side) // 2, (width - side) // 2
        frames[:, top:top + side, left:left + side] = np.kron(blocks, np.ones([1, side // 2, side // 2, 1], np.uint8))
        write_video(tmp_path / f'{name}.mkv', frames)
    assert extract([tmp_path], tmp_path / 'out', [video])['written'] == 4
    expected = video.embed(np.kron(blocks, np.ones([1, 8, 8, 1], np.uint8)), 25.0).embedding
    for name in 'abcd':
        np.testing.assert_allclose(load(tmp_path / 'out' / f'{name}.npz')['embedding'], expected, atol=0.05)


def test_pieces_of_a_csv(audio, tmp_path):
    sound = noise(3 * RATE)
    write_sound(tmp_path / 'long.wav', sound)
    (tmp_path / 'list.csv').write_text('path,start_seconds,end_seconds\nlong.wav,0.5,1.25\nlong.wav,2,\n')
    extract([tmp_path / 'list.csv'], tmp_path / 'out', [audio])
    for name, piece in (('long_0.5_1.25', sound[8000:20000]), ('long_2_end', sound[32000:])):
        np.testing.assert_allclose(load(tmp_path / 'out' / f'{name}.npz')['embedding'], audio.embed(piece, RATE).embedding,
                                   atol=2e-5)


def test_records(audio, tmp_path, monkeypatch):
    """A set of records, read by what the documentation says, holds what the .npz files hold."""
    monkeypatch.setattr(extraction, 'FILES_PER_SHARD', 3)
    for number in range(4):
        (tmp_path / 'in' / 'bell').mkdir(parents=True, exist_ok=True)
        write_sound(tmp_path / 'in' / 'bell' / f'{number}.wav', noise(4000 * number + 1, number))
    (tmp_path / 'in' / 'bell' / '5.wav').write_text('no sound')
    extract([tmp_path / 'in'], tmp_path / 'npz', [audio])
    extract([tmp_path / 'in'], tmp_path / 'records', [audio], output_format='tfrecord')
    assert files(tmp_path / 'records') == [
        'audio_tower-00000-of-00002', 'audio_tower-00001-of-00002', 'features.json', 'report.csv']
    specification = {
        'example/id': tf.io.FixedLenFeature([], tf.string), 'clip/label/string': tf.io.FixedLenFeature([], tf.string),
        'embedding': tf.io.FixedLenSequenceFeature([16], tf.float32, allow_missing=True),
        'conv5': tf.io.FixedLenSequenceFeature([16], tf.float32, allow_missing=True),
        'timestamps': tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True),
    }
    paths = sorted(tf.io.gfile.glob(str(tmp_path / 'records' / 'audio_tower-*-of-*')))
    examples = [tf.io.parse_single_example(record, specification) for record in tf.data.TFRecordDataset(paths)]
    assert [example['example/id'].numpy() for example in examples] == [b'bell/0', b'bell/1', b'bell/2', b'bell/3']
    for example in examples:
        assert example['clip/label/string'] == b'bell'
        for name, values in load(tmp_path / 'npz' / f'{example["example/id"].numpy().decode()}.npz').items():
            np.testing.assert_allclose(example[name], values, atol=1e-6)
    before = {path: os.stat(path).st_mtime_ns for path in paths}
    os.remove(paths[1])
    summary = extract([tmp_path / 'in'], tmp_path / 'records', [audio], output_format='tfrecord', skip_existing=True)
    assert summary['existing'] == 3 and summary['written'] == 1
    assert os.path.exists(paths[1]) and os.stat(paths[0]).st_mtime_ns == before[paths[0]]


def test_what_is_there_already(audio, tmp_path):
    (tmp_path / 'in').mkdir()
    for name in 'ab':
        write_sound(tmp_path / 'in' / f'{name}.wav', noise(100))
    output = tmp_path / 'out'
    extract([tmp_path / 'in'], output, [audio])
    first = os.stat(output / 'a.npz').st_mtime_ns
    with pytest.raises(UserError, match='2 such in all; --skip_existing'):
        extract([tmp_path / 'in'], output, [audio])
    write_sound(tmp_path / 'in' / 'c.wav', noise(200))
    summary = extract([tmp_path / 'in'], output, [audio], skip_existing=True)
    assert (summary['written'], summary['existing']) == (1, 2) and os.stat(output / 'a.npz').st_mtime_ns == first
    assert [row['status'] for row in report(output)] == ['existing', 'existing', 'written']
    with pytest.raises(UserError, match='other windows'):
        extract([tmp_path / 'in'], output, [audio], skip_existing=True, hop_seconds=0.1)
    assert len(load(output / 'c.npz')['timestamps']) == 1
    summary = extract([tmp_path / 'in'], output, [audio], overwrite=True, hop_seconds=0.1)
    assert summary['written'] == 3 and os.stat(output / 'a.npz').st_mtime_ns > first
    assert json.loads((output / 'features.json').read_text())['audio_tower']['hop_seconds'] == 0.1


def test_an_interruption_leaves_whole_files(audio, tmp_path, monkeypatch):
    (tmp_path / 'in').mkdir()
    for number in range(6):
        write_sound(tmp_path / 'in' / f'{number}.wav', noise(WINDOW, number))
    calls, run = [], audio.run

    def interrupted(windows):
        calls.append(len(windows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(windows)

    monkeypatch.setattr(audio, 'run', interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract([tmp_path / 'in'], tmp_path / 'out', [audio], batch_size=1)
    monkeypatch.setattr(audio, 'run', run)
    assert files(tmp_path / 'out') == ['0.npz', '1.npz', 'features.json', 'report.csv']
    assert [row['path'] for row in report(tmp_path / 'out')] == ['0.wav', '1.wav']
    summary = extract([tmp_path / 'in'], tmp_path / 'out', [audio], skip_existing=True)
    assert (summary['existing'], summary['written']) == (2, 4)


def test_names_that_no_file_system_takes_cost_themselves_only(audio, tmp_path):
    folder = tmp_path / 'in'
    folder.mkdir()
    for name in (b'caf\xe9.wav', b'caf\xe8.wav', b'=1+1.wav', b'x' * 251 + b'.wav', b'y' * 255):
        write_sound(tmp_path / 'sound.wav', noise(9000))
        os.rename(tmp_path / 'sound.wav', os.fsencode(folder) + b'/' + name)
    os.mkfifo(folder / 'fifo.wav')
    rows = ['good.wav', 'a\0b.wav', 'n' * 300 + '.wav', 'y' * 255]
    write_sound(folder / 'good.wav', noise(9000))
    (folder / 'list.csv').write_text('\n'.join(['path', *rows]) + '\n')
    summary = extract([folder, folder / 'list.csv'], tmp_path / 'out', [audio])
    assert summary['written'] == 5 and summary['skipped'] == {'missing': 3, 'name_too_long': 1}
    found = {row['path']: (row['status'], row['reason']) for row in report(tmp_path / 'out')}
    assert found == {
        'caf\\xe9.wav': ('written', ''), 'caf\\xe8.wav': ('written', ''), "'=1+1.wav": ('written', ''), 'good.wav': ('written', ''),
        'x' * 251 + '.wav': ('written', ''), 'y' * 255: ('skipped', 'name_too_long'), 'fifo.wav': ('skipped', 'missing'),
        'a\0b.wav': ('skipped', 'missing'), 'n' * 300 + '.wav': ('skipped', 'missing'),
    }
    assert {'caf\\xe9.npz', 'caf\\xe8.npz', '=1+1.npz', 'x' * 251 + '.npz'} < set(files(tmp_path / 'out'))


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signals_leave_a_report(number, audio, tmp_path, monkeypatch):
    (tmp_path / 'in').mkdir()
    for name in range(6):
        write_sound(tmp_path / 'in' / f'{name}.wav', noise(WINDOW, name))
    calls, run, lines = [], audio.run, []

    def interrupted(windows):
        calls.append(len(windows))
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return run(windows)

    monkeypatch.setattr(audio, 'run', interrupted)
    monkeypatch.setattr(modes.features, 'load_tower', lambda path: audio)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as caught:
        modes.run_features([str(tmp_path / 'in')], str(tmp_path / 'out'), ['tower'], '', 1, 60.0, {'batch_size': 1}, lines.append)
    assert caught.value.code == 128 + number and signal.getsignal(number) is before
    [line] = lines
    assert '--skip_existing goes on with the rest' in line
    assert [row['path'] for row in report(tmp_path / 'out')] == ['0.wav', '1.wav']


@pytest.mark.slow
def test_sigterm_from_outside(towers, tmp_path):
    (tmp_path / 'in').mkdir()
    for number in range(400):
        write_sound(tmp_path / 'in' / f'{number:03}.wav', noise(5 * RATE))
    command = [sys.executable, str(ROOT / 'main.py'), '--mode=features', f'--export_dir={towers}', f'--input={tmp_path}/in',
               f'--output={tmp_path}/out', '--hop_seconds=0.05']
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3', 'CUDA_VISIBLE_DEVICES': ''})
    begin = time.monotonic()
    while len(list((tmp_path / 'out').glob('*.npz'))) < 3:
        assert process.poll() is None and time.monotonic() - begin < 300
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 143 and 'Traceback' not in errors, errors
    assert '--skip_existing goes on with the rest' in output.splitlines()[-1]
    written = [row['output'] for row in report(tmp_path / 'out')]
    assert 3 <= len(written) < 400 and all((tmp_path / 'out' / name).exists() for name in written)


def test_output_that_cannot_be_written(audio, tmp_path):
    write_sound(tmp_path / 'a.wav', noise(100))
    (tmp_path / 'out').write_text('in the way')
    with pytest.raises(UserError, match=f'--output={tmp_path}/out: cannot be written'):
        extract([tmp_path / 'a.wav'], tmp_path / 'out', [audio])


@pytest.mark.parametrize(('options', 'message'), [
    ({'output_format': 'parquet'}, 'npz, tfrecord'), ({'overwrite': True, 'skip_existing': True}, 'take one'),
    ({'hop_seconds': 0.0}, 'hop_seconds'), ({'batch_size': 0}, 'batch_size'),
])
def test_values_that_are_refused(audio, tmp_path, options, message):
    write_sound(tmp_path / 'a.wav', noise(100))
    with pytest.raises(UserError, match=message):
        extract([tmp_path / 'a.wav'], tmp_path / 'out', [audio], **options)
    assert not (tmp_path / 'out').exists()


def test_inputs_that_are_refused(audio, tmp_path):
    for folder in 'xy':
        (tmp_path / folder).mkdir()
        write_sound(tmp_path / folder / 'a.wav', noise(100))
    with pytest.raises(UserError, match='a is in two of the inputs'):
        extract([tmp_path / 'x', tmp_path / 'y'], tmp_path / 'out', [audio])
    (tmp_path / 'silent').mkdir()
    (tmp_path / 'silent' / 'notes.txt').write_text('no sound')
    with pytest.raises(UserError, match='no video or audio file'):
        extract([tmp_path / 'silent'], tmp_path / 'out', [audio])
    with pytest.raises(UserError, match='nowhere'):
        extract([tmp_path / 'nowhere'], tmp_path / 'out', [audio])
    with pytest.raises(UserError, match='one audio tower, one video tower'):
        extract([tmp_path / 'x'], tmp_path / 'out', [audio, audio])


def test_reading_ahead_is_bounded_and_passes_errors_on():
    taken = []

    def items():
        for number in range(20):
            taken.append(number)
            yield number
        raise RuntimeError('at the end')

    stream = extraction.read_ahead(items(), 3)
    assert next(stream) == 0
    time.sleep(0.3)
    assert len(taken) <= 6                              # one passed on, three in line, one at the door
    with pytest.raises(RuntimeError, match='at the end'):
        list(stream)


def test_a_file_that_kills_its_decoder_costs_itself_only(audio, tmp_path, monkeypatch):
    (tmp_path / 'in').mkdir()
    for name in ('one', 'three', 'two'):
        write_sound(tmp_path / 'in' / f'{name}.wav', noise(20000))
    monkeypatch.setattr(extraction, 'read_blocks', aborting_media.read_blocks)
    extract([tmp_path / 'in'], tmp_path / 'out', [audio])
    rows = report(tmp_path / 'out')
    assert [(row['status'], row['reason']) for row in rows] == [('written', ''), ('written', ''), ('skipped', 'crashed')]


@pytest.mark.skipif('AVTS_DATA' not in os.environ, reason='AVTS_DATA is not set')
def test_awkward_files_cost_themselves_only(audio, tmp_path):
    folder = pathlib.Path(os.environ['AVTS_DATA']) / 'awkward'
    extract([folder], tmp_path / 'out', [audio])
    rows = report(tmp_path / 'out')
    assert len(rows) == 15 and all(row['status'] in ('written', 'skipped') for row in rows)
    assert sum(row['status'] == 'written' for row in rows) >= 8
    assert {row['path']: row['reason'] for row in rows}['sample_dts_hd_ma.mp4'] in ('crashed', 'unreadable', '')


# The command line.

def run_main(*flags):
    return subprocess.run([sys.executable, str(ROOT / 'main.py'), '--mode=features', *flags], check=False, capture_output=True,
                          text=True,
                          timeout=PATIENCE_SECONDS, env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3', 'CUDA_VISIBLE_DEVICES': ''})


def test_command_line(towers, audio, tmp_path):
    sounds = tmp_path / 'sounds'
    sounds.mkdir()
    write_sound(sounds / 'a.wav', noise(20000))
    (sounds / 'b.wav').write_text('no sound')
    done = run_main(f'--export_dir={towers}', f'--input={sounds}', f'--output={tmp_path}/out', '--hop_seconds=0.1', '--centered',
                    '--batch_size=4')
    assert done.returncode == 0, done.stderr
    assert '1 written, 0 there already, 1 skipped (1 unreadable); 1.2 s of input embedded' in done.stdout
    assert 'Traceback' not in done.stderr
    np.testing.assert_allclose(load(tmp_path / 'out' / 'a.npz')['embedding'],
                               audio.embed(noise(20000), RATE, 0.1, centered=True).embedding, atol=2e-5)


def test_nothing_could_be_done(towers, tmp_path):
    (tmp_path / 'a.wav').write_text('no sound')
    lines = []
    with pytest.raises(SystemExit) as caught:
        modes.run_features([str(tmp_path / 'a.wav')], str(tmp_path / 'out'), [str(towers / 'audio_tower')], '', 1, 60.0, {},
                           lines.append)
    assert caught.value.code == 1 and '0 written' in lines[0] and report(tmp_path / 'out')[0]['reason'] == 'unreadable'


@pytest.mark.parametrize(('flags', 'message'), [
    (['--input=x'], '--output: give'), (['--output=x'], '--input: give'), (['--output=x', '--input=nowhere'], 'nowhere'),
    (['--output=x', '--frames=3'], '--frames: --mode=features takes'),
])
def test_mistakes_on_the_command_line(flags, message, monkeypatch):
    main.FLAGS.unparse_flags()
    main.FLAGS(['main.py', '--mode=features', *flags])
    try:
        with pytest.raises(UserError, match=message):
            main.main(['main.py'])
    finally:
        for name in ('mode', 'input', 'output', 'frames'):
            main.FLAGS[name].unparse()


# Memory.

MEMORY = '''
import resource, sys
import numpy as np
from avts_tf.inference import extraction, features
tower = features.load_tower(sys.argv[1])
for name in sys.argv[3:]:
    extraction.extract_features(extraction.find_inputs([name]), sys.argv[2], [tower], num_workers=1, overwrite=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
'''


@pytest.mark.slow
def test_memory_stays_flat(towers, tmp_path):
    """An hour of sound takes no more memory than a minute, a thousand files no more than ten, but for what is embedded."""
    write_sound(tmp_path / 'minute.wav', noise(60 * 44100), 44100)
    write_sound(tmp_path / 'hour.wav', np.tile(noise(60 * 44100), 60), 44100)
    for folder, count in (('ten', 10), ('thousand', 1000)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            write_sound(tmp_path / folder / f'{number}.wav', noise(RATE * 5))
    inputs = [str(tmp_path / name) for name in ('minute.wav', 'ten', 'hour.wav', 'thousand')]
    process = subprocess.run([sys.executable, '-c', MEMORY, str(towers / 'audio_tower'), str(tmp_path / 'out'), *inputs], cwd=ROOT,
                             check=True, capture_output=True, text=True, env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'})
    peaks = [[float(value) for value in line.split()] for line in process.stdout.splitlines()]
    assert len(peaks) == 4
    # 7500 windows of 32 numbers are 1 MB.
    assert peaks[2][0] < peaks[1][0] + 60 and peaks[2][1] < peaks[1][1] + 40, peaks
    assert peaks[3][0] < peaks[1][0] + 60 and peaks[3][1] < peaks[1][1] + 40, peaks
