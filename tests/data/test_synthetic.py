"""Writing the synthetic worlds: the same bytes each time, whole files, values that are checked."""

import csv
import hashlib
import json
import os

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.data import records, shards, synthetic
from avts_tf.data.worlds import WORLDS, find_world, struck
from avts_tf.errors import UserError


def _digests(folder):
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
            for name in os.listdir(folder)}


@pytest.mark.parametrize('world', WORLDS)
def test_same_seed_gives_same_bytes_and_another_seed_others(tmp_path, world):
    for folder, seed in (('a', 3), ('b', 3), ('c', 4)):
        synthetic.write_world(str(tmp_path / folder / 'world'), videos=3, seconds=1.0, seed=seed,
                              shards=2, world=world)
    assert _digests(tmp_path / 'a') == _digests(tmp_path / 'b')
    found = find_world(world)
    assert sorted(_digests(tmp_path / 'a')) == [
        'world-00000-of-00002', 'world-00001-of-00002', 'world.json',
        f'world.{found.truth_name}.csv',
    ]
    first, other = (found.make_video(0, seed, seconds=1.0)[0] for seed in (3, 4))
    assert first.example_id.endswith('-3-00000') and first.example_id != other.example_id
    assert first.frames != other.frames
    assert not np.array_equal(first.waveform, other.waveform)


def test_worlds_share_no_record_and_an_unknown_one_is_named(tmp_path):
    ids = {find_world(name).make_video(0, seconds=0.5, size=16, fps=5.0)[0].example_id
           for name in WORLDS}
    assert len(ids) == len(WORLDS) >= 2
    with pytest.raises(UserError, match='^world=real: no such world; use one of .*struck'):
        synthetic.write_world(str(tmp_path / 'world'), videos=1, world='real')


@pytest.mark.parametrize('seconds, fps', [(1.0, 25.0), (1.3, 30.0), (0.77, 29.97)])
def test_records_parse_and_durations_agree(tmp_path, seconds, fps):
    prefix = str(tmp_path / 'new' / 'world')
    paths = synthetic.write_world(prefix, videos=5, seconds=seconds, fps=fps, size=24, shards=2,
                                  seed=7, difficulty=0.5)
    assert [count for _, count in shards.find_shards(prefix + '-*')] == [3, 2]
    parsed = [records.parse(r) for r in tf.data.TFRecordDataset(paths)]
    assert sorted(r.example_id.numpy().decode()
                  for r in parsed) == [f'synthetic-7-{i:05d}' for i in range(5)]
    for record in parsed:
        count = len(record.frames)
        assert count == round(seconds * fps)
        assert float(record.sample_rate) == 16000.0
        assert abs(len(record.waveform) / 16000 - count / fps) <= 0.5 / 16000
        assert tf.io.decode_jpeg(record.frames[0]).shape == (24, 24, 3)
        assert [name.split(b':')[0]
                for name in record.label_string.numpy()] == [b'object', b'motion']
        np.testing.assert_allclose(record.frame_seconds, np.arange(count) / fps, atol=1e-6)


def test_the_files_beside_the_shards_tell_the_truth(tmp_path):
    prefix = str(tmp_path / 'world')
    synthetic.write_world(prefix, videos=4, seconds=2.0, size=16, fps=10.0, difficulty=0.6)
    with open(prefix + '.strikes.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    truth = [(f'synthetic-0-{i:05d}', s.seconds, struck.OBJECTS[s.object].name, s.visible,
              s.audible)
             for i in range(4) for s in struck.make_video(i, seconds=2.0, size=16, fps=10.0,
                                                             difficulty=0.6)[1]]
    read = [(row['example_id'], float(row['strike_seconds']), row['object'], row['visible'] == '1',
             row['audible'] == '1')
            for row in rows]
    assert read == truth
    with open(shards.summary_path(prefix)) as file:
        summary = json.load(file)
    assert summary['records'] == 4 and summary['duration_seconds'] == 8.0
    assert summary['frames'] == 80 and summary['samples'] == 128000
    counts = [summary[name] for name in ('strikes', 'silent_strikes', 'off_screen_strikes')]
    assert sum(counts) == len(rows)
    assert sum(summary['labels'].values()) == 8


@pytest.mark.parametrize('name, value', [
    ('videos', 0), ('seconds', 0.1), ('fps', 0.0), ('size', 4), ('sample_rate', 100), ('seed', -1),
    ('shards', 3),
    ('difficulty', 1.5),
])
def test_values_out_of_range_are_named(tmp_path, name, value):
    with pytest.raises(UserError, match=f'^{name}={value}: must lie between'):
        synthetic.write_world(str(tmp_path / 'world'), **{'videos': 2, name: value})


def test_a_folder_is_no_name(tmp_path):
    with pytest.raises(UserError, match='^output='):
        synthetic.write_world(str(tmp_path))


def test_shards_of_another_number_are_not_mixed(tmp_path):
    prefix = str(tmp_path / 'world')
    options = {'videos': 2, 'seconds': 0.5, 'size': 16, 'fps': 5.0}
    synthetic.write_world(prefix, shards=2, **options)
    synthetic.write_world(prefix, shards=2, **options)  # the same again is fine
    with pytest.raises(UserError, match='world-00000-of-00002'):
        synthetic.write_world(prefix, **options)


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError('stop')

    monkeypatch.setattr(records, 'encode', fail)
    with pytest.raises(RuntimeError):
        synthetic.write_world(str(tmp_path / 'world'), videos=1)
    assert os.listdir(tmp_path) == []
