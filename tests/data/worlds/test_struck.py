"""The struck world: the true strikes are what its frames show and its audio holds."""

import collections
import hashlib
import io
import os

import numpy as np
import pytest
from PIL import Image

from avts_tf.data.synthetic import write_world
from avts_tf.data.worlds import struck

# SHA-256 of what `write_world` wrote when there was one world alone.
GOLDEN = {
    'world-00000-of-00002': '1f86aab81b302da8bcd1da7dfb644475f0bb938340c1d26d923abdb95a1b4d10',
    'world-00001-of-00002': 'cbc86cb746454019b76fe02a647b6a5e66942d42bd1e60e4758caeb6b4225d73',
    'world.json': 'ab69ed27b97514c45555f262d43f33afa1f2ca372a6867ecc1c88af1c231a2a5',
    'world.strikes.csv': '11960e374fd2dec94bcd611e82a426b4d8b0d9abe8227a9493292059ee10f2df',
}


def _brightness(video):
    """Mean brightness of each frame, float64 [F]."""
    return np.array([np.asarray(Image.open(io.BytesIO(frame)).convert('L'), np.float64).mean()
                     for frame in video.frames])


def _onsets(waveform):
    """Samples at which the waveform jumps out of what came in the 4 ms before."""
    jumps = np.abs(np.diff(waveform.astype(np.float64), 2, prepend=[0, 0]))
    found = []
    for n in np.flatnonzero(jumps > 3000):
        if (not found
            or n - found[-1] > 1600) and jumps[n] > 1.5 * jumps[max(0, n - 64):n].max(initial=0):
            found.append(n)
    return found


def test_the_world_is_the_same_bit_for_bit(tmp_path):
    write_world(str(tmp_path / 'world'), videos=3, seconds=1.0, seed=11, difficulty=0.6, shards=2)
    assert {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
            for name in os.listdir(tmp_path)} == GOLDEN


@pytest.mark.parametrize('sample_rate', [8000, 16000, 24000])
def test_strikes_sound_at_their_sample(sample_rate):
    for index in range(8):
        video, strikes = struck.make_video(index, sample_rate=sample_rate, difficulty=0.0)
        first = np.flatnonzero(video.waveform)[0]
        assert first == round(strikes[0].seconds * sample_rate)
        assert len(video.waveform) == 4 * sample_rate


def test_onsets_found_in_the_waveform_are_the_strikes():
    for index in range(12):
        video, strikes = struck.make_video(index, seed=1, difficulty=0.0)
        truth = np.array([s.seconds for s in strikes])
        found = np.array(_onsets(video.waveform)) / video.sample_rate
        assert len(found) == len(truth), (index, truth, found)
        np.testing.assert_allclose(found, truth, atol=0.001)


@pytest.mark.parametrize('fps', [12.5, 25.0, 30.0])
def test_frames_brighten_at_the_first_frame_from_the_strike_on(fps):
    for index in range(12):
        video, strikes = struck.make_video(index, seed=2, fps=fps, difficulty=0.0)
        rise = np.diff(_brightness(video), prepend=np.nan)
        flashing = {int(np.ceil(round(s.seconds * fps, 6))) for s in strikes} - {0}
        calm = set(range(1, len(rise))) - flashing
        assert min(rise[sorted(flashing)]) > 1.0 > max(rise[sorted(calm)])


def test_a_frame_shows_how_long_ago_the_strike_was():
    # Brightness falls with the time from the strike to the frame, within one frame's time already.
    ages, rises = [], []
    for index in range(20):
        video, strikes = struck.make_video(index, difficulty=0.0, seconds=2.0)
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
        _, strikes = struck.make_video(index, seconds=8.0, size=16, fps=5.0, difficulty=0.0)
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
    labels = [struck.make_video(i, seed=5, seconds=0.5, size=16, fps=5.0)[0].labels
              for i in range(48)]
    objects = collections.Counter(pair[0] for pair in labels)
    motions = collections.Counter(pair[1] for pair in labels)
    assert set(objects.values()) == {8} and len(objects) == 6
    assert set(motions.values()) == {12} and len(motions) == 4
    assert set(objects) == {(i, f'object:{look.name}') for i, look in enumerate(struck.OBJECTS)}
    assert set(motions) == {(i, f'motion:{name}') for i, name in enumerate(struck.MOTIONS)}


def test_difficulty_adds_silent_strikes_and_sounds_out_of_sight():
    kinds = {0.0: collections.Counter(), 1.0: collections.Counter()}
    for difficulty, counts in kinds.items():
        for index in range(6):
            _, strikes = struck.make_video(index, difficulty=difficulty, size=16)
            assert [s.seconds for s in strikes] == sorted(s.seconds for s in strikes)
            counts.update((s.visible, s.audible) for s in strikes)
    assert set(kinds[0.0]) == {(True, True)}
    assert set(kinds[1.0]) == {(True, True), (True, False), (False, True)}
    assert kinds[0.0][True, True] == kinds[1.0][True, True]
