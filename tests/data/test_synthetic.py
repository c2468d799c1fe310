"""The synthetic world: the true strikes are what its frames show and its audio holds."""

import collections
import csv
import hashlib
import io
import json
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from avts_tf.data import records, shards, synthetic
from avts_tf.errors import UserError


def _brightness(video):
    """Mean brightness of each frame, float64 [F]."""
    return np.array([np.asarray(Image.open(io.BytesIO(frame)).convert('L'), np.float64).mean()
                     for frame in video.frames])


def _digests(folder):
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
            for name in os.listdir(folder)}


def _onsets(waveform):
    """Samples at which the waveform jumps out of what came in the 4 ms before."""
    jumps = np.abs(np.diff(waveform.astype(np.float64), 2, prepend=[0, 0]))
    found = []
    for n in np.flatnonzero(jumps > 3000):
        if (not found
            or n - found[-1] > 1600) and jumps[n] > 1.5 * jumps[max(0, n - 64):n].max(initial=0):
            found.append(n)
    return found


def test_same_seed_gives_same_bytes_and_another_seed_others(tmp_path):
    for folder, seed in (('a', 3), ('b', 3), ('c', 4)):
        synthetic.write_world(str(tmp_path / folder / 'world'), videos=3, seconds=1.0, seed=seed,
                              shards=2)
    assert _digests(tmp_path / 'a') == _digests(tmp_path / 'b')
    assert sorted(_digests(tmp_path / 'a')) == [
        'world-00000-of-00002', 'world-00001-of-00002', 'world.json', 'world.strikes.csv',
    ]
    first, other = (synthetic.make_video(0, seed, seconds=1.0)[0] for seed in (3, 4))
    assert first.example_id == 'synthetic-3-00000' != other.example_id
    assert first.frames != other.frames
    assert not np.array_equal(first.waveform, other.waveform)


@pytest.mark.parametrize('sample_rate', [8000, 16000, 24000])
def test_strikes_sound_at_their_sample(sample_rate):
    for index in range(8):
        video, strikes = synthetic.make_video(index, sample_rate=sample_rate, difficulty=0.0)
        first = np.flatnonzero(video.waveform)[0]
        assert first == round(strikes[0].seconds * sample_rate)
        assert len(video.waveform) == 4 * sample_rate


def test_onsets_found_in_the_waveform_are_the_strikes():
    for index in range(12):
        video, strikes = synthetic.make_video(index, seed=1, difficulty=0.0)
        truth = np.array([s.seconds for s in strikes])
        found = np.array(_onsets(video.waveform)) / video.sample_rate
        assert len(found) == len(truth), (index, truth, found)
        np.testing.assert_allclose(found, truth, atol=0.001)


@pytest.mark.parametrize('fps', [12.5, 25.0, 30.0])
def test_frames_brighten_at_the_first_frame_from_the_strike_on(fps):
    for index in range(12):
        video, strikes = synthetic.make_video(index, seed=2, fps=fps, difficulty=0.0)
        rise = np.diff(_brightness(video), prepend=np.nan)
        struck = {int(np.ceil(round(s.seconds * fps, 6))) for s in strikes} - {0}
        calm = set(range(1, len(rise))) - struck
        assert min(rise[sorted(struck)]) > 1.0 > max(rise[sorted(calm)])


def test_a_frame_shows_how_long_ago_the_strike_was():
    # Brightness falls with the time from the strike to the frame, within one frame's time already.
    ages, rises = [], []
    for index in range(20):
        video, strikes = synthetic.make_video(index, difficulty=0.0, seconds=2.0)
        brightness = _brightness(video)
        for s in strikes:
            i = int(np.ceil(s.seconds * 25))
            if i:
                ages.append(i / 25 - s.seconds)
                rises.append(brightness[i] - brightness[i - 1])
    assert np.corrcoef(ages, rises)[0, 1] < -0.3


def test_strikes_are_irregular_and_leave_few_windows_empty():
    empty = windows = 0
    for index in range(12):
        _, strikes = synthetic.make_video(index, seconds=8.0, size=16, fps=5.0, difficulty=0.0)
        times = np.array([s.seconds for s in strikes])
        gaps = np.diff(times)
        assert gaps.min() >= 0.149 and gaps.max() <= 0.501 and gaps.std() > 0.05
        assert 2 <= len(times) / 8.0 <= 5
        starts = np.arange(0, 7.5, 0.04)
        inside = (times >= starts[:, None]) & (times < starts[:, None] + 0.48)
        empty += (~inside.any(axis=1)).sum()
        windows += len(starts)
    assert empty / windows < 0.02


def test_classes_are_balanced():
    labels = [synthetic.make_video(i, seed=5, seconds=0.5, size=16, fps=5.0)[0].labels
              for i in range(48)]
    objects = collections.Counter(pair[0] for pair in labels)
    motions = collections.Counter(pair[1] for pair in labels)
    assert set(objects.values()) == {8} and len(objects) == 6
    assert set(motions.values()) == {12} and len(motions) == 4
    assert set(objects) == {(i, f'object:{look.name}') for i, look in enumerate(synthetic.OBJECTS)}
    assert set(motions) == {(i, f'motion:{name}') for i, name in enumerate(synthetic.MOTIONS)}


def test_difficulty_adds_silent_strikes_and_sounds_out_of_sight():
    kinds = {0.0: collections.Counter(), 1.0: collections.Counter()}
    for difficulty, counts in kinds.items():
        for index in range(6):
            _, strikes = synthetic.make_video(index, difficulty=difficulty, size=16)
            assert [s.seconds for s in strikes] == sorted(s.seconds for s in strikes)
            counts.update((s.visible, s.audible) for s in strikes)
    assert set(kinds[0.0]) == {(True, True)}
    assert set(kinds[1.0]) == {(True, True), (True, False), (False, True)}
    assert kinds[0.0][True, True] == kinds[1.0][True, True]


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
    truth = [(f'synthetic-0-{i:05d}', s.seconds, synthetic.OBJECTS[s.object].name, s.visible,
              s.audible)
             for i in range(4) for s in synthetic.make_video(i, seconds=2.0, size=16, fps=10.0,
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
