"""The sustained world: the pitch of its tones is the height of what its frames show."""

import collections
import io

import numpy as np
import pytest
import scipy.signal
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from avts_tf.data.worlds import sustained
from avts_tf.models.frontend import LogMel

CLEAN = {'difficulty': 0.0}


def _seen_height(video):
    """Height of the coloured object in each frame, 0 to 1, from its pixels alone: float64 [F]."""
    heights = []
    for frame in video.frames:
        pixels = np.asarray(Image.open(io.BytesIO(frame)), np.float64)
        colour = pixels.max(-1) - pixels.min(-1)  # the ground is nearly grey
        weight = np.where(colour > 60, colour, 0.0).sum(1)
        y = (np.arange(len(weight)) + 0.5) @ weight / weight.sum() / len(weight)
        heights.append((sustained.LOWEST_Y - y) / (sustained.LOWEST_Y - sustained.HIGHEST_Y))
    return np.array(heights)


def _heard_pitch(video, at_seconds):
    """Pitch in Hz around each time, by autocorrelation over 32 ms: float64 of the same length.

    The shortest lag at which the sound comes back nearly whole is one period, whatever the timbre.
    """
    rate, half = video.sample_rate, round(0.016 * video.sample_rate)
    shortest, longest = int(rate / 1000), int(rate / 200)
    pitches = []
    for time in at_seconds:
        middle = round(time * rate)
        sound = video.waveform[middle - half:middle + half].astype(np.float64)
        score = np.array([np.corrcoef(sound[:-lag], sound[lag:])[0, 1]
                          for lag in range(shortest, longest)])
        peaks, _ = scipy.signal.find_peaks(score, height=0.7 * score.max())
        place = peaks[0]
        left, top, right = score[place - 1:place + 2]
        pitches.append(rate / (shortest + place + (left - right) / 2 / (left - 2 * top + right)))
    return np.array(pitches)


@pytest.mark.parametrize('index', range(3))  # one of each class
def test_the_pitch_that_is_heard_follows_the_height_that_is_seen(index):
    video, places = sustained.make_video(index, seconds=2.0, size=64, **CLEAN)
    frames = range(2, 48)
    seen = _seen_height(video)[frames]
    heard = _heard_pitch(video, [i / 25 for i in frames])
    expected = sustained.LOWEST_HZ * 2 ** (sustained.OCTAVES * seen)
    # Within a semitone each, and without a shift in time: the best shift of several is none.
    assert np.abs(12 * np.log2(heard / expected)).max() < 1.0
    errors = {shift: np.std(np.log2(heard[2 + shift:len(heard) - 2 + shift] / expected[2:-2]))
              for shift in range(-2, 3)}
    assert min(errors, key=errors.get) == 0
    truth = np.array(places)[frames]
    np.testing.assert_allclose(heard, truth[:, 2], rtol=0.03)
    assert np.corrcoef(seen, truth[:, 1])[0, 1] > 0.99


def test_timbres_are_separable_by_a_linear_probe():
    log_mel = LogMel(16000, 0.020, 0.010, 1024, 40, 60.0, 7800.0)
    videos = [sustained.make_video(index, seed=4, seconds=0.6, size=16, fps=10.0)[0]
              for index in range(48)]
    features = log_mel(np.stack([video.waveform for video in videos])).numpy().mean(1)
    classes = [video.labels[0][0] for video in videos]
    probe = LogisticRegression(max_iter=2000)
    assert cross_val_score(probe, features, classes, cv=4).mean() > 0.95


def _autocorrelation(values):
    """Of a series with itself at each lag, as a correlation: float64 [len // 2]."""
    return np.array([np.corrcoef(values[:len(values) - lag], values[lag:])[0, 1]
                     for lag in range(1, len(values) // 2)])


def test_paths_do_not_repeat():
    lags = slice(5, None)  # from half a second on, at 10 frames a second
    highest = []
    for index in range(6):
        _, places = sustained.make_video(index, seconds=30.0, fps=10.0, size=16, **CLEAN)
        highest.append(_autocorrelation(np.array(places)[:, 1])[lags].max())
    assert np.max(highest) < 0.6
    # The same measure finds a path that does repeat, however slowly.
    for period_seconds in (0.8, 1.4, 4.0):
        swing = np.sin(2 * np.pi * np.arange(300) / 10 / period_seconds)
        assert _autocorrelation(swing)[lags].max() > 0.99


def test_paths_neither_jump_nor_stand_still():
    _, places = sustained.make_video(0, seconds=20.0, size=16, **CLEAN)
    heights = np.array(places)[:, 1]
    assert np.abs(np.diff(heights)).max() < 0.25  # a knot's whole reach takes 7 frames at least
    windows = np.lib.stride_tricks.sliding_window_view(heights, 25)
    assert np.ptp(windows, axis=1).min() > 0.1
    assert heights.min() >= 0 and heights.max() <= 1


@pytest.mark.parametrize('sample_rate', [8000, 16000])
def test_tones_sound_all_the_time_and_equally_loud(sample_rate):
    for index in range(3):
        video, _ = sustained.make_video(index, seconds=2.0, sample_rate=sample_rate, **CLEAN)
        assert len(video.waveform) == 2 * sample_rate
        spans = video.waveform.astype(np.float64).reshape(40, -1)  # of 50 ms
        loudness = np.sqrt(np.square(spans).mean(1))
        assert loudness.min() / loudness.max() > 0.8
        assert np.abs(video.waveform).max() < 32767


def test_classes_are_balanced_and_look_and_sound_of_their_own():
    labels = collections.Counter(
        sustained.make_video(i, seed=5, seconds=0.5, size=16, fps=5.0)[0].labels
        for i in range(12))
    assert labels == {((i, f'object:{look.name}'),): 4 for i, look in enumerate(sustained.OBJECTS)}


def test_difficulty_adds_others_and_noise_but_leaves_the_path():
    for index in range(4):
        (clean, path), (hard, same) = (
            sustained.make_video(index, seconds=0.6, difficulty=difficulty)
            for difficulty in (0.0, 1.0))
        assert path == same and clean.labels == hard.labels
        assert clean.frames != hard.frames
        assert not np.array_equal(clean.waveform, hard.waveform)
