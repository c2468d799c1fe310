"""The Beam pipeline writes, in several processes, what the writer writes, byte for byte."""

import importlib
import os

import pytest

from avts_tf.errors import UserError
from tests.tfrecords_tools.writing import make_video, read_files, read_report
from tfrecords_tools import shard_writer, write
from tfrecords_tools.output import hold_output
from tfrecords_tools.plan import make_plan

pytest.importorskip('apache_beam', reason='requirements-beam.txt is not installed')
beam = importlib.import_module('tfrecords_tools.beam')

PROCESSES = ['--runner=DirectRunner', '--direct_num_workers=2',
             '--direct_running_mode=multi_processing']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('videos')
    for name in ('a', 'b'):
        (root / name).mkdir()
        for i in range(4):
            make_video(root / name / f'{i}.mkv', seed=i, seconds=0.4)
    make_video(root / 'a' / 'mute.mp4', sound=False)
    (root / 'b' / 'noise.mp4').write_bytes(bytes(range(256)) * 9)
    return root


@pytest.mark.slow
def test_same_set_in_several_processes(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(beam, 'SOURCES_PER_TASK', 2)
    options = {'shards': 3, 'short_side': 32, 'dataset_name': 'mine'}
    write.write_records(str(folder), str(tmp_path / 'one' / 'set'), **options)
    summary = beam.write_records(str(folder), str(tmp_path / 'beam' / 'set'),
                                 beam_options=PROCESSES, **options)
    assert summary['records'] == 8 and summary['skipped'] == {'unreadable': 1, 'no_audio': 1}
    assert len(read_report(tmp_path / 'beam' / 'set')) == 10
    assert read_files(tmp_path / 'beam') == read_files(tmp_path / 'one')
    # What one of the two wrote is finished to the other, too.
    assert write.write_records(str(folder), str(tmp_path / 'beam' / 'set'), **options) == summary


def test_goes_on_behind_finished_shards(folder, tmp_path, monkeypatch):
    options = {'shards': 3, 'short_side': 32, 'dataset_name': 'mine'}
    output = str(tmp_path / 'beam' / 'set')
    plan = make_plan(str(folder), output, **options)
    with hold_output(plan, False) as (_, missing):
        tasks = list(beam._tasks(plan, missing[:1]))
        pieces = [piece for task in tasks for piece in beam._make_records(task, plan.recipe)]
        beam._write_shard((plan.shard_name(0), [piece for _, piece in pieces]), plan.work_folder)
    path = os.path.join(plan.work_folder, plan.shard_name(0))
    before = os.stat(path).st_ino
    beam.write_records(str(folder), output, beam_options=['--runner=DirectRunner'], **options)
    assert os.stat(f'{output}-00000-of-00003').st_ino == before
    write.write_records(str(folder), str(tmp_path / 'one' / 'set'), **options)
    assert read_files(tmp_path / 'beam') == read_files(tmp_path / 'one')


def test_a_failure_is_told_and_finished_shards_stay(folder, tmp_path, monkeypatch):
    options = {'shards': 3, 'short_side': 32, 'dataset_name': 'mine'}

    def write_shard(folder, name, pieces, original=shard_writer.write_shard):
        if name.startswith('set-00001'):
            raise OSError(28, 'No space left on device', name)
        original(folder, name, pieces)

    with monkeypatch.context() as patch:
        patch.setattr(shard_writer, 'write_shard', write_shard)
        with pytest.raises(UserError,
                           match='of 3 shard.*resumes after them.*No space left') as error:
            beam.write_records(str(folder), str(tmp_path / 'set'),
                               beam_options=['--runner=DirectRunner'], **options)
    aside = tmp_path / 'set.writing'
    finished = [name.removesuffix('.lines') for name in os.listdir(aside)
                if name.endswith('.lines')]
    inodes = {name: os.stat(aside / name).st_ino for name in finished}
    assert f'{len(finished)} of 3 shard' in str(error.value)
    beam.write_records(str(folder), str(tmp_path / 'set'), beam_options=['--runner=DirectRunner'],
                       **options)
    assert {name: os.stat(tmp_path / name).st_ino for name in finished} == inodes
    assert sorted(os.listdir(tmp_path))[:3] == [f'set-0000{i}-of-00003' for i in range(3)]


def test_a_mistyped_flag_is_named(folder, tmp_path):
    with pytest.raises(UserError, match='^direct_num_wrokers=2: '):
        beam.write_records(str(folder), str(tmp_path / 'set'),
                           beam_options=['--direct_num_wrokers=2'])
    assert not os.listdir(tmp_path)
