"""Embedding files: what is written equals what arrays give, and no file is lost to another."""

import csv
import json
import os
import pathlib
import subprocess
import sys

import av
import numpy as np
import pytest
import tensorflow as tf

from avts_tf.errors import UserError
from avts_tf.inference import embed_files, extract
from tests import aborting_media
from tests.helpers import ROOT, acting_at, noise, write_sound, write_video

RATE, WINDOW = 16000, 7680


def embed(inputs, output, towers, **options):
    sources = embed_files.find_inputs([str(path) for path in inputs])
    return extract.extract_features(sources, str(output), towers, num_workers=1, **options)


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
    """A folder of sounds of all kinds, and the samples of those that can be embedded."""
    folder = tmp_path_factory.mktemp('awkward')
    rng = np.random.default_rng(0)
    square = np.where(np.sin(np.arange(9000) / 5) > 0, 32767, -32768)
    plain = {
        'clipped': square.astype(np.int16), 'dc': np.full(9000, 12000, np.int16),
        'eight_bit': rng.integers(0, 256, 9000, np.uint8), 'one_sample': np.array([1000], np.int16),
        'silence': np.zeros(20000, np.int16),
        'stereo': np.stack([noise(9000, seed) for seed in (1, 2)], 1),
        'surround': np.stack([noise(9000, seed) for seed in range(8)], 1),
    }
    for name, sound in plain.items():
        write_sound(folder / f'{name}.wav', sound)
    write_sound(folder / 'sub_44100.wav', noise(30000, 3), 44100)
    for name, value in {'nan': np.nan, 'infinite': -np.inf}.items():
        sound = np.where(np.arange(9000) == 8999, value, 0.1).astype(np.float32)
        with av.open(str(folder / f'{name}.wav'), 'w') as container:
            stream = container.add_stream('pcm_f32le', rate=RATE, layout='mono')
            frame = av.AudioFrame.from_ndarray(sound[None], format='flt', layout='mono')
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
    output = tmp_path / 'out'
    summary = embed([folder], output, [audio], hop_seconds=0.2, batch_size=5)
    rows = {row['path'].removesuffix('.wav'): row for row in report(output)}
    unreadable = {'nan', 'infinite', 'deep/er/text', 'deep/empty'}
    assert set(rows) == {*sounds, *unreadable, 'deep/no_samples'}
    for name, sound in sounds.items():
        got = load(output / f'{name}.npz')
        expected = audio.embed(sound, 44100 if name == 'sub_44100' else RATE, 0.2)
        assert got.keys() == {'embedding', 'conv5', 'timestamps', 'source'}
        assert rows[name]['status'] == 'written'
        # Resampling in pieces of other lengths, or halving the sum of two channels, may round a
        # sample the other way.
        atol = 1e-3 if name in ('sub_44100', 'stereo') else 2e-5
        np.testing.assert_allclose(got['embedding'], expected.embedding, atol=atol, err_msg=name)
        np.testing.assert_array_equal(got['timestamps'], expected.timestamps)
        assert int(rows[name]['windows']) == len(expected.timestamps)
    for name in unreadable:
        assert (rows[name]['status'], rows[name]['reason']) == ('skipped', 'unreadable')
    assert 'NaN' in rows['nan']['detail'] and rows['deep/no_samples']['status'] == 'skipped'
    assert summary['written'] == len(sounds) and sum(summary['skipped'].values()) == 5
    seconds = (5 * 9000 + 1 + 20000) / RATE + 30000 / 44100
    assert summary['seconds'] == pytest.approx(seconds, abs=1e-3)
    # Nothing else is there: no folder for files that gave nothing, nothing half written.
    written = [f'{name}.npz' for name in sounds]
    assert files(output) == sorted([*written, 'features.json', 'report.csv'])


def test_the_input_tree_is_mirrored(audio, tmp_path):
    for name in ('a.wav', 'x/a.wav', 'x/y/b.wav', 'x/b.flac'):
        (tmp_path / 'in' / name).parent.mkdir(parents=True, exist_ok=True)
        write_sound(tmp_path / 'in' / name, noise(100))
    # The same name but for the suffix.
    os.link(tmp_path / 'in' / 'x' / 'a.wav', tmp_path / 'in' / 'x' / 'a.mp3')
    embed([tmp_path / 'in'], tmp_path / 'out', [audio])
    assert files(tmp_path / 'out') == ['a.npz', 'features.json', 'report.csv', 'x/a.mp3.npz',
                                       'x/a.wav.npz', 'x/b.npz', 'x/y/b.npz']


def test_both_towers(audio, video, tmp_path):
    """Both towers take the videos of a folder, and the windows lie at the same times."""
    frames = np.random.default_rng(0).integers(0, 256, [38, 16, 20, 3], np.uint8)
    sound = noise(RATE * 38 // 25)
    (tmp_path / 'in').mkdir()
    write_video(tmp_path / 'in' / 'clip.mkv', frames, sound)
    write_video(tmp_path / 'in' / 'mute.mkv', frames[:5])
    write_sound(tmp_path / 'in' / 'sound.wav', noise(9000))
    output = tmp_path / 'out'
    summary = embed([tmp_path / 'in'], output, [audio, video])
    assert files(output) == ['clip.audio.npz', 'clip.video.npz', 'features.json', 'mute.video.npz',
                             'report.csv', 'sound.audio.npz']
    assert summary['written'] == 4 and summary['skipped'] == {'no_audio': 1}
    heard, seen = load(output / 'clip.audio.npz'), load(output / 'clip.video.npz')
    assert seen.keys() == {'embedding', 'features', 'timestamps', 'source'}
    np.testing.assert_allclose(heard['timestamps'], seen['timestamps'])
    expected = audio.embed(sound, RATE).embedding
    np.testing.assert_allclose(heard['embedding'], expected, atol=2e-5)
    # RGB to YUV and back is off by a level or two.
    expected = video.embed(frames, 25.0).embedding
    np.testing.assert_allclose(seen['embedding'], expected, atol=0.02)
    assert np.abs(seen['embedding'][0] - seen['embedding'][1]).max() > 0.05


def test_videos_of_all_sizes_share_a_run(video, tmp_path):
    rng = np.random.default_rng(0)
    for name, size in {'a': (16, 40), 'b': (48, 16), 'c': (64, 96), 'd': (8, 12)}.items():
        write_video(tmp_path / f'{name}.mkv', rng.integers(0, 256, [12, *size, 3], np.uint8))
    assert embed([tmp_path], tmp_path / 'out', [video])['written'] == 4


def test_pieces_of_a_csv(audio, tmp_path):
    sound = noise(3 * RATE)
    write_sound(tmp_path / 'long.wav', sound)
    rows = ['path,start_seconds,end_seconds', 'long.wav,0.5,1.25', 'long.wav,2,', '']
    (tmp_path / 'list.csv').write_text('\n'.join(rows))
    embed([tmp_path / 'list.csv'], tmp_path / 'out', [audio])
    pieces = {'long_0.5_1.25': sound[8000:20000], 'long_2_end': sound[32000:]}
    for name, piece in pieces.items():
        got = load(tmp_path / 'out' / f'{name}.npz')['embedding']
        np.testing.assert_allclose(got, audio.embed(piece, RATE).embedding, atol=2e-5)


def test_records(audio, tmp_path, monkeypatch):
    """A set of records, read as the documentation says, holds what the .npz files hold."""
    monkeypatch.setattr(extract, 'FILES_PER_SHARD', 3)
    folder, output = tmp_path / 'in', tmp_path / 'records'
    (folder / 'bell').mkdir(parents=True)
    for number in range(4):
        write_sound(folder / 'bell' / f'{number}.wav', noise(4000 * number + 1, number))
    (folder / 'bell' / '5.wav').write_text('no sound')
    embed([folder], tmp_path / 'npz', [audio])
    embed([folder], output, [audio], output_format='tfrecord')
    assert files(output) == ['audio_tower-00000-of-00002', 'audio_tower-00001-of-00002',
                             'features.json', 'report.csv']
    arrays = {name: tf.io.FixedLenSequenceFeature(shape, tf.float32, allow_missing=True)
              for name, shape in (('embedding', [16]), ('conv5', [16]), ('timestamps', []))}
    texts = {name: tf.io.FixedLenFeature([], tf.string)
             for name in ('example/id', 'clip/label/string')}
    paths = sorted(tf.io.gfile.glob(str(output / 'audio_tower-*-of-*')))
    examples = [tf.io.parse_single_example(record, {**arrays, **texts})
                for record in tf.data.TFRecordDataset(paths)]
    names = [example['example/id'].numpy().decode() for example in examples]
    assert names == ['bell/0', 'bell/1', 'bell/2', 'bell/3']
    for name, example in zip(names, examples, strict=True):
        assert example['clip/label/string'] == b'bell'
        values_of = load(tmp_path / 'npz' / f'{name}.npz')
        assert values_of.pop('source').shape == ()
        for key, values in values_of.items():
            np.testing.assert_allclose(example[key], values, atol=1e-6)
    before = os.stat(paths[0]).st_mtime_ns
    os.remove(paths[1])
    summary = embed([folder], output, [audio], output_format='tfrecord', skip_existing=True)
    assert summary['existing'] == 3 and summary['written'] == 1
    assert os.path.exists(paths[1]) and os.stat(paths[0]).st_mtime_ns == before


def test_existing_output(audio, tmp_path):
    folder, output = tmp_path / 'in', tmp_path / 'out'
    folder.mkdir()
    for name in 'ab':
        write_sound(folder / f'{name}.wav', noise(100))
    embed([folder], output, [audio])
    first = os.stat(output / 'a.npz').st_mtime_ns
    with pytest.raises(UserError, match='output=.*2 such in all; `skip_existing`'):
        embed([folder], output, [audio])
    write_sound(folder / 'c.wav', noise(200))
    summary = embed([folder], output, [audio], skip_existing=True)
    assert (summary['written'], summary['existing']) == (1, 2)
    assert os.stat(output / 'a.npz').st_mtime_ns == first
    assert [row['status'] for row in report(output)] == ['existing', 'existing', 'written']
    other = tmp_path / 'other'
    other.mkdir()
    write_sound(other / 'b.wav', noise(100, 1))  # as long
    with pytest.raises(UserError, match='b.npz holds features of another file than .*other/b.wav'):
        embed([other], output, [audio], skip_existing=True)
    with pytest.raises(UserError, match='other windows'):
        embed([folder], output, [audio], skip_existing=True, hop_seconds=0.1)
    assert len(load(output / 'c.npz')['timestamps']) == 1
    summary = embed([folder], output, [audio], overwrite=True, hop_seconds=0.1)
    assert summary['written'] == 3 and os.stat(output / 'a.npz').st_mtime_ns > first
    stated = json.loads((output / 'features.json').read_text())
    assert stated['audio_tower']['hop_seconds'] == 0.1


@pytest.mark.parametrize(
    'output_format', [pytest.param('npz', marks=pytest.mark.slow), 'tfrecord'])
def test_an_interruption_leaves_whole_files(audio, tmp_path, monkeypatch, output_format):
    monkeypatch.setattr(extract, 'FILES_PER_SHARD', 1)
    (tmp_path / 'in').mkdir()
    for number in range(6):
        write_sound(tmp_path / 'in' / f'{number}.wav', noise(WINDOW, number))
    run, options = audio.run, {'output_format': output_format}

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(audio, 'run', acting_at(3, run, interrupt))
    with pytest.raises(KeyboardInterrupt):
        embed([tmp_path / 'in'], tmp_path / 'out', [audio], batch_size=1, **options)
    monkeypatch.setattr(audio, 'run', run)
    whole = {'npz': ['0.npz', '1.npz'], 'tfrecord': [
        'audio_tower-00000-of-00006', 'audio_tower-00001-of-00006']}[output_format]
    assert files(tmp_path / 'out') == [*whole, 'features.json', 'report.csv']
    assert [row['path'] for row in report(tmp_path / 'out')] == ['0.wav', '1.wav']
    summary = embed([tmp_path / 'in'], tmp_path / 'out', [audio], skip_existing=True, **options)
    assert (summary['existing'], summary['written']) == (2, 4)


def test_names_that_no_file_system_takes_cost_themselves_only(audio, tmp_path):
    folder, output = tmp_path / 'in', tmp_path / 'out'
    folder.mkdir()
    for name in (b'caf\xe9.wav', b'caf\xe8.wav', b'=1+1.wav', b'x' * 251 + b'.wav', b'y' * 255):
        write_sound(tmp_path / 'sound.wav', noise(9000))
        os.rename(tmp_path / 'sound.wav', os.fsencode(folder) + b'/' + name)
    os.mkfifo(folder / 'fifo.wav')
    write_sound(folder / 'good.wav', noise(9000))
    rows = ['path', 'good.wav', 'a\0b.wav', 'n' * 300 + '.wav', 'y' * 255, '']
    (folder / 'list.csv').write_text('\n'.join(rows))
    summary = embed([folder, folder / 'list.csv'], output, [audio])
    assert summary['written'] == 5
    assert summary['skipped'] == {'missing': 3, 'name_too_long': 1}
    found = {row['path']: row['reason'] or row['status'] for row in report(output)}
    assert found == {
        'caf\\xe9.wav': 'written', 'caf\\xe8.wav': 'written', "'=1+1.wav": 'written',
        'good.wav': 'written', 'x' * 251 + '.wav': 'written', 'y' * 255: 'name_too_long',
        'fifo.wav': 'missing', 'a\0b.wav': 'missing', 'n' * 300 + '.wav': 'missing',
    }
    names = {'caf\\xe9.npz', 'caf\\xe8.npz', '=1+1.npz', 'x' * 251 + '.npz'}
    assert names < set(files(output))


def test_output_that_cannot_be_written(audio, tmp_path):
    write_sound(tmp_path / 'a.wav', noise(100))
    (tmp_path / 'out').write_text('in the way')
    with pytest.raises(UserError, match=f'output={tmp_path}/out: cannot be written'):
        embed([tmp_path / 'a.wav'], tmp_path / 'out', [audio])


@pytest.mark.parametrize(('options', 'message'), [
    ({'output_format': 'parquet'}, '^output_format=parquet: .*npz, tfrecord'),
    ({'overwrite': True, 'skip_existing': True}, '^overwrite: contradicts `skip_existing`'),
    ({'hop_seconds': 0.0}, '^hop_seconds=0.0: '), ({'batch_size': 0}, '^batch_size=0: '),
])
def test_values_that_are_refused(audio, tmp_path, options, message):
    write_sound(tmp_path / 'a.wav', noise(100))
    with pytest.raises(UserError, match=message):
        embed([tmp_path / 'a.wav'], tmp_path / 'out', [audio], **options)
    assert not (tmp_path / 'out').exists()


def test_two_towers_of_a_kind_are_refused(audio, tmp_path):
    write_sound(tmp_path / 'a.wav', noise(100))
    with pytest.raises(UserError, match='tower: give one audio tower, one video tower'):
        embed([tmp_path / 'a.wav'], tmp_path / 'out', [audio, audio])


def test_a_file_that_kills_its_decoder_costs_itself_only(audio, tmp_path, monkeypatch):
    (tmp_path / 'in').mkdir()
    for name in ('one', 'three', 'two'):
        write_sound(tmp_path / 'in' / f'{name}.wav', noise(20000))
    monkeypatch.setattr(embed_files, 'read_blocks', aborting_media.read_blocks)
    embed([tmp_path / 'in'], tmp_path / 'out', [audio])
    found = [row['reason'] or row['status'] for row in report(tmp_path / 'out')]
    assert found == ['written', 'written', 'crashed']


@pytest.mark.skipif('AVTS_DATA' not in os.environ, reason='AVTS_DATA is not set')
def test_awkward_files_cost_themselves_only(audio, tmp_path):
    folder = pathlib.Path(os.environ['AVTS_DATA']) / 'awkward'
    embed([folder], tmp_path / 'out', [audio])
    rows = report(tmp_path / 'out')
    assert len(rows) == 15 and all(row['status'] in ('written', 'skipped') for row in rows)
    assert sum(row['status'] == 'written' for row in rows) >= 8
    reasons = {row['path']: row['reason'] for row in rows}
    assert reasons['sample_dts_hd_ma.mp4'] in ('crashed', 'unreadable', '')


MEMORY = '''
import resource, sys
from avts_tf.inference import embed_files, extract, saved_towers
tower = saved_towers.load_tower(sys.argv[1])
for name in sys.argv[3:]:
    sources = embed_files.find_inputs([name])
    extract.extract_features(sources, sys.argv[2], [tower], num_workers=1, overwrite=True)
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        print(resource.getrusage(who).ru_maxrss / 1024)
'''


@pytest.mark.slow
def test_memory_stays_flat(towers, tmp_path):
    """An hour of sound takes no more memory than a minute, a thousand files no more than ten, but
    for what is embedded."""
    write_sound(tmp_path / 'minute.wav', noise(60 * 44100), 44100)
    write_sound(tmp_path / 'hour.wav', np.tile(noise(60 * 44100), 60), 44100)
    for folder, count in (('ten', 10), ('thousand', 1000)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            write_sound(tmp_path / folder / f'{number}.wav', noise(RATE * 5))
    inputs = [str(tmp_path / name) for name in ('minute.wav', 'ten', 'hour.wav', 'thousand')]
    process = subprocess.run(
        [sys.executable, '-c', MEMORY, str(towers / 'audio_tower'), str(tmp_path / 'out'), *inputs],
        cwd=ROOT, check=True, capture_output=True, text=True)
    peaks = [float(line) for line in process.stdout.splitlines()]
    own, decoders = peaks[::2], peaks[1::2]
    assert len(own) == 4
    # 7500 windows of 32 numbers are 1 MB.
    assert max(own[2:]) < own[1] + 60 and max(decoders[2:]) < decoders[1] + 40, peaks
