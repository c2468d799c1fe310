"""What the writer writes: every file once in the report, what can be used in the records."""

import inspect
import json
import os
import types

import numpy as np
import pytest
from absl import flags

from avts_tf.data import media, shards
from tests import aborting_media
from tests.tfrecords_tools.writing import make_video, read_files, read_report, read_set
from tfrecords_tools import write
from tfrecords_tools.plan import make_plan
from tfrecords_tools.report import REPORT_COLUMNS

OPTIONS = {'short_side': 32, 'max_seconds': 3.0}


@pytest.fixture(scope='module')
def written(video_folder, tmp_path_factory):
    prefix = tmp_path_factory.mktemp('out') / 'set'
    return prefix, write.write_records(str(video_folder), str(prefix), shards=2, workers=2,
                                       **OPTIONS)


def test_folder(written):
    prefix, summary = written
    found = {record.example_id.numpy().decode(): record for record in read_set(prefix)}
    assert sorted(found) == ['bark/one', 'bark/two', 'clap/one', 'clap/same.avi', 'clap/same.mkv']
    labels = {name: (list(r.label_index.numpy()), [s.decode() for s in r.label_string.numpy()])
              for name, r in found.items()}
    assert labels['bark/two'] == ([0], ['bark']) and labels['clap/one'] == ([1], ['clap'])
    with open(f'{prefix}.labels.txt', encoding='utf-8') as file:
        assert file.read() == 'bark\nclap\n'
    record = found['bark/one']
    count = record.frames.shape[0]  # the audio coder takes up to a frame from the beginning
    assert count in (24, 25) and record.waveform.shape[0] == 640 * count
    assert record.frame_rate == 25.0 and record.sample_rate == 16000.0
    np.testing.assert_allclose(record.frame_seconds, np.arange(count) / 25, atol=1e-6)

    with open(shards.summary_path(str(prefix)), encoding='utf-8') as file:
        assert json.load(file) == summary
    assert summary['records'] == 5 and summary['shards'] == 2
    assert summary['duration_seconds'] == pytest.approx(5.0, abs=0.2)
    assert summary['skipped'] == {'unreadable': 1, 'no_video': 1, 'no_audio': 1, 'silent': 1,
                                  'still': 1, 'too_long': 1}
    assert sorted(os.listdir(prefix.parent)) == [
        'set-00000-of-00002', 'set-00001-of-00002', 'set.json', 'set.labels.txt', 'set.report.csv']


def test_odd_names_cost_themselves_only(tmp_path):
    folder = tmp_path / 'in'
    folder.mkdir()
    make_video(tmp_path / 'a.mp4')
    for name in (b'caf\xe9.mp4', b'caf\xe8.mp4', b'=1+1.mp4', b'-x.mp4'):
        os.link(tmp_path / 'a.mp4', os.fsencode(folder) + b'/' + name)
    os.mkfifo(folder / 'fifo.mp4')
    write.write_records(str(folder), str(tmp_path / 'out' / 'set'), workers=1, **OPTIONS)
    report = {line['path']: line for line in read_report(tmp_path / 'out' / 'set')}
    assert {path: (line['status'], line['reason']) for path, line in report.items()} == {
        'caf\\xe8.mp4': ('written', ''), 'caf\\xe9.mp4': ('written', ''),
        "'=1+1.mp4": ('written', ''),
        "'-x.mp4": ('written', ''), 'fifo.mp4': ('skipped', 'missing'),
    }
    assert 'FIFO' in report['fifo.mp4']['detail'] and float(report["'-x.mp4"]['volume_db']) < 0
    ids = [record.example_id.numpy().decode() for record in read_set(tmp_path / 'out' / 'set')]
    assert sorted(ids) == ['-x', '=1+1', 'caf\\xe8', 'caf\\xe9']

    table = folder / 'list.csv'
    table.write_text('path\n-x.mp4\na\0b.mp4\n' + 'n' * 300 + '.mp4\n')
    write.write_records(str(table), str(tmp_path / 'listed' / 'set'), workers=1, **OPTIONS)
    assert [(line['status'], line['reason'])
            for line in read_report(tmp_path / 'listed' / 'set')] == [
        ('written', ''), ('skipped', 'missing'), ('skipped', 'missing')]


def test_report_lists_every_file_once_in_the_order_of_the_input(written):
    report = read_report(written[0])
    assert list(report[0]) == list(REPORT_COLUMNS)
    reasons = {line['path']: line['reason'] for line in report}
    assert reasons == {
        'bark/one.mp4': '', 'bark/two.MP4': '', 'clap/one.mkv': '', 'clap/same.mkv': '',
        'clap/same.avi': '',
        'clap/mute.mp4': 'no_audio', 'clap/deaf.mp4': 'no_video', 'clap/hush.avi': 'silent',
        'clap/slide.mkv': 'still',
        'clap/long.mkv': 'too_long', 'clap/noise.mp4': 'unreadable',
    }
    assert [line['path'] for line in report] == sorted(reasons)
    one = report[0]
    assert (one['status'], one['start_seconds'],
            one['end_seconds']) == ('written', '', '') and one['frames'] in ('24', '25')
    assert float(one['seconds']) == int(one['frames']) / 25
    assert float(one['source_fps']) == pytest.approx(25, abs=0.1)
    # Uniform noise of that size has an RMS of 9000 / sqrt(3), which the change of rate and the
    # codec lower a little.
    assert float(one['volume_db']) == pytest.approx(20 * np.log10(9000 / 3**0.5 / 32768),
                                                    abs=4) and float(one['motion']) > 1
    assert all(line['detail'] for line in report if line['status'] == 'skipped')


def test_worker_count_changes_no_byte(video_folder, written, tmp_path):
    write.write_records(str(video_folder), str(tmp_path / 'set'), shards=2, workers=1, **OPTIONS)
    assert read_files(tmp_path) == read_files(written[0].parent)


def test_csv_with_times_and_parts(video_folder, tmp_path):
    table = video_folder / 'list.csv'
    table.write_text(
        'video_path,start_seconds,end_seconds,split,label\n'
        'clap/long.mkv,1,2,train,b\nbark/one.mp4,,,test,a\nclap/long.mkv,2.5,3.5,train,c\n'
        'clap/gone.mp4,,,train,d\nclap/slide.mkv,,,train,b\nclap/hush.avi,,,train,b\n'
    )
    summary = write.write_records(
        str(table), str(tmp_path / 'a'), split='train', short_side=0, audio_encoding='float',
        dataset_name='mine', still_below=0, silent_below_db=-120)
    assert summary['skipped'] == {'missing': 1} and summary['labels'] == {'a': 0, 'b': 3, 'c': 1,
                                                                          'd': 0}
    found = {record.example_id.numpy().decode(): record for record in read_set(tmp_path / 'a')}
    assert sorted(found) == ['clap/hush', 'clap/long_1_2', 'clap/long_2.5_3.5', 'clap/slide']
    assert list(found['clap/long_2.5_3.5'].label_index.numpy()) == [2]  # of all parts
    options = media.MediaOptions(short_side=0, start_seconds=2.5, end_seconds=3.5)
    expected = media.read_media(str(video_folder / 'clap' / 'long.mkv'), options)
    np.testing.assert_array_equal(found['clap/long_2.5_3.5'].waveform, expected.waveform)
    assert found['clap/long_2.5_3.5'].frames.numpy().tolist() == expected.frames
    assert len(expected.frames) == 25
    report = read_report(tmp_path / 'a')
    assert [(line['path'], line['start_seconds'], line['end_seconds'], line['status'])
            for line in report] == [
        ('clap/long.mkv', '1', '2', 'written'), ('clap/long.mkv', '2.5', '3.5', 'written'),
        ('clap/gone.mp4', '', '', 'skipped'),
        ('clap/slide.mkv', '', '', 'written'), ('clap/hush.avi', '', '', 'written')]
    with open(f'{tmp_path}/a.labels.txt', encoding='utf-8') as file:
        assert file.read() == 'a\nb\nc\nd\n'


def test_audio_only(tmp_path):
    (tmp_path / 'in').mkdir()
    for i, name in enumerate(('1-10-A-0.wav', '1-10-B-0.wav', '2-11-A-14.wav')):
        make_video(tmp_path / 'in' / name, frames=False, seed=i)
    summary = write.write_records(str(tmp_path / 'in'), str(tmp_path / 'fold1'), dataset='esc50',
                                  split='fold1')
    assert (summary['records'], summary['frames'],
            summary['labels']) == (2, 0, {'chirping_birds': 0, 'dog': 2})
    assert summary['duration_seconds'] == pytest.approx(2.0, abs=0.1)
    assert summary['samples'] == 16000 * summary['duration_seconds']
    record = read_set(tmp_path / 'fold1')[0]
    assert record.frames.shape == (0,) and record.frame_rate == 0.0
    assert record.sample_rate == 16000.0
    path = tmp_path / 'in' / f'{record.example_id.numpy().decode()}.wav'
    expected = media.read_media(str(path), media.MediaOptions(audio_only=True))
    np.testing.assert_array_equal(record.waveform, expected.waveform)
    line = read_report(tmp_path / 'fold1')[0]
    assert float(line['seconds']) == len(expected.waveform) / 16000
    assert (line['frames'], line['source_fps'], line['motion']) == ('0', '', '')


def test_hold_out(video_folder, tmp_path):
    ids = {}
    for part in ('train', 'held'):
        write.write_records(str(video_folder / 'clap' / 's*'), str(tmp_path / part), hold_out=0.5,
                            part=part, short_side=8)
        ids[part] = [line['path'] for line in read_report(tmp_path / part)]
    assert sorted(ids['train'] + ids['held']) == ['same.avi', 'same.mkv',
                                                  'slide.mkv'] and ids['train'] and ids['held']


def test_the_program_says_what_it_wrote(tmp_path, monkeypatch, capsys):
    (tmp_path / 'noise.mp4').write_bytes(np.random.default_rng(0).bytes(5000))
    options = {name: value.default for name,
               value in inspect.signature(make_plan).parameters.items()
               if name in write.OPTIONS}
    output = tmp_path / 'new' / 'set'
    monkeypatch.setattr(flags, 'FLAGS', types.SimpleNamespace(
        **options, input=str(tmp_path), output=str(output), overwrite=False, workers=1))
    with pytest.raises(SystemExit) as ended:
        write.main(['write'])
    said = capsys.readouterr()
    assert ended.value.code == 1 and '0 written, 1 skipped (1 unreadable)' in said.out
    assert 'no record could be made' in said.err
    assert os.listdir(output.parent) == ['set.report.csv']


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get('AVTS_DATA'), reason='AVTS_DATA names no folder with real '
                                                            'files')
def test_real_sounds(tmp_path):
    table = os.path.join(os.environ['AVTS_DATA'], 'esc10.csv')
    summary = write.write_records(table, str(tmp_path / 'fold1'), dataset='esc10', split='fold1')
    assert summary['records'] == 80 and summary['skipped'] == {} and summary['frames'] == 0
    assert list(summary['labels'].values()) == [8] * 10


@pytest.mark.skipif(not os.environ.get('AVTS_DATA'), reason='AVTS_DATA names no folder with the '
                                                            'awkward files')
def test_awkward_files(tmp_path):
    folder = os.path.join(os.environ['AVTS_DATA'], 'awkward')
    summary = write.write_records(folder, str(tmp_path / 'a'), short_side=32)
    assert len(read_report(tmp_path / 'a')) == len(os.listdir(folder))
    assert sum(summary['skipped'].values()) + summary['records'] == len(os.listdir(folder))
    assert summary['skipped']['no_video'] == 2 and summary['skipped']['no_audio'] == 4


def test_a_file_that_kills_its_decoder_is_in_the_report(tmp_path, monkeypatch):
    (tmp_path / 'in').mkdir()
    for seed, name in enumerate(('one', 'two')):
        make_video(tmp_path / 'in' / f'{name}.mkv', seed=seed, seconds=0.4)
    monkeypatch.setattr(media, 'try_media', aborting_media.try_media)
    summary = write.write_records(str(tmp_path / 'in'), str(tmp_path / 'out' / 'set'),
                                  short_side=16, workers=1)
    assert summary['records'] == 1 and summary['skipped'] == {'crashed': 1}
    assert 'SIGABRT' in read_report(tmp_path / 'out' / 'set')[1]['detail']
