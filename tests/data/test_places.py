"""Places of windows: each is what its kind says, and none reveals the kind."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from avts_tf.config import make_config
from avts_tf.data.places import WindowRule, distances, draw_places, window_rule
from avts_tf.data.sampling import NEGATIVES, Kind, draw_frames, draw_kinds, in_mix

DRAWS = 48


@st.composite
def clips(draw):
    """(start of each place in samples, rule): grids of any frame rate, and irregular times."""
    window = draw(st.integers(2, 40))
    shifts = sorted(draw(st.tuples(st.integers(1, window - 1), st.integers(1, window - 1))))
    rule = WindowRule(window, draw(st.integers(0, 50)), *shifts)
    length = draw(st.integers(0, 6 * window))
    if draw(st.booleans()):
        step = draw(st.floats(1.0, 25.0))
        starts = [round(i * step) for i in range(int(length / step) + 1)]
    else:
        starts = sorted(draw(st.lists(st.integers(0, length), min_size=1, max_size=30)))
    return starts, rule


@functools.cache
def _function(windows):
    @tf.function(input_signature=[
        tf.TensorSpec([2], tf.int32), tf.TensorSpec([None], tf.int64), tf.TensorSpec([4], tf.int64),
        tf.TensorSpec([], tf.bool), tf.TensorSpec([], tf.bool)])
    def places(seed, starts, rule, hard, super_hard):
        rule = WindowRule(*tf.unstack(rule))
        drawn = draw_places(seed, starts, hard, super_hard, windows, rule, (DRAWS,))
        return drawn, distances(starts, rule)
    return places


@settings(max_examples=50, deadline=None)
@given(clips(), st.integers(0, 2**31 - 1), st.booleans(), st.booleans(), st.integers(1, 3))
def test_drawn_windows_are_what_they_are_called(clip, seed, hard, super_hard, windows):
    starts, rule = clip
    drawn, limits = _function(windows)([seed, 1], starts, list(rule), hard, super_hard)
    count, starts = len(starts), np.array(starts)
    for place in (drawn.video, drawn.hard if drawn.hard_fits else 0,
                  drawn.super_hard if drawn.super_hard_fits else 0):
        assert np.min(place) >= 0 and np.max(place) < count
    span = starts[-1] - starts[0]
    # Two windows that do not overlap fit wherever the clip is long enough, with as much of the gap.
    assert bool(drawn.hard_fits) == (hard and span >= rule.window)
    video = starts[drawn.video][:, None]
    if drawn.hard_fits:
        apart = np.abs(starts[drawn.hard] - video) - rule.window
        assert apart.min() >= min(rule.gap, span - rule.window)
    if drawn.super_hard_fits:
        shift = np.abs(starts[drawn.super_hard] - video)
        assert super_hard and shift.min() >= rule.min_shift and shift.max() <= rule.max_shift
    apart = np.abs(starts[:, None] - starts)
    frames = np.abs(np.arange(count)[:, None] - np.arange(count))
    gap = np.clip(span, rule.window, rule.window + rule.gap)
    for least, samples in ((int(limits[0]), gap), (int(limits[1]), rule.min_shift)):
        assert (apart >= samples)[frames >= least].all()
        assert least == count or not (apart >= samples)[frames >= least - 1].all()
    assert (apart <= rule.max_shift)[frames <= int(limits[2])].all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(4, 60), st.integers(0, 30), st.booleans())
def test_super_hard_fits_wherever_a_grid_holds_it(count, window, gap, hard):
    # Beside hard negatives there must be room for the shift besides their distance.
    rule = WindowRule(100 * window, 100 * gap, 25 * window, 50 * window)
    starts = np.arange(count) * 100
    drawn, (distance, least, _) = _function(1)([1, 2], starts, list(rule), hard, True)
    spare = count - 1 - (distance if drawn.hard_fits else 0)
    assert bool(drawn.super_hard_fits) == (least <= spare)


def draw(count, distance, windows=1, draws=40_000, seed=(3, 4), super_hard=False):
    """Places on a grid of `count` frames, hard negatives at least `distance` frames apart."""
    rule = WindowRule(distance, 0, 3, 6)
    return draw_places(tf.constant(seed), tf.range(count, dtype=tf.int64), distance < count,
                       super_hard, windows, rule, (draws,))


def chi_square(counts, expected):
    """Deviation of counts from the expected ones, in standard deviations of chi-square."""
    counts, expected = np.asarray(counts, float), np.broadcast_to(expected, np.shape(counts))
    assert expected.min() >= 5, 'too few draws to judge'
    freedom = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)


@pytest.mark.parametrize(('count', 'distance'), [(20, 10), (31, 10), (50, 50), (1, 5)])
def test_the_video_lies_everywhere_alike_where_there_is_room(count, distance):
    drawn = draw(count, distance)
    counts = np.bincount(drawn.video, minlength=count)
    assert count == 1 or abs(chi_square(counts, 40_000 / count)) < 4
    if distance < count:
        pairs = np.bincount(drawn.video * count + drawn.hard[:, 0], minlength=count**2)
        frames = np.abs(np.arange(count)[:, None] - np.arange(count)).ravel()
        possible = (frames >= distance) & (frames <= count - distance) | \
            (frames >= count - distance) & (frames <= distance)
        assert pairs[~possible | (frames < distance)].sum() == 0
        assert (pairs[possible & (frames >= distance)] > 0).all()


@pytest.mark.parametrize(('count', 'distance'), [(11, 10), (14, 10), (19, 10)])
def test_all_pairs_are_equally_likely_where_there_is_none(count, distance):
    drawn = draw(count, distance)
    pairs = np.bincount(drawn.video * count + drawn.hard[:, 0], minlength=count**2)
    possible = (np.abs(np.arange(count)[:, None] - np.arange(count)) >= distance).ravel()
    assert pairs[~possible].sum() == 0
    assert abs(chi_square(pairs[possible], 40_000 / possible.sum())) < 4


def test_several_negatives_of_one_kind_differ():
    drawn = draw(226, 38, windows=2, super_hard=True)
    assert drawn.hard_fits and drawn.super_hard_fits
    for places in (drawn.hard.numpy(), drawn.super_hard.numpy()):
        assert (places[:, 0] == places[:, 1]).mean() < 0.25


def test_rule_is_in_samples():
    config = make_config(frames=16, fps=30.0, sample_rate=44100, hard_gap_seconds=0.25)
    assert window_rule(config) == WindowRule(23520, 11025, 5880, 11760)


def auc(positive, negative):
    """Area under the ROC curve of small whole numbers as scores."""
    size = max(positive.max(), negative.max()) + 1
    positive = np.bincount(positive, minlength=size) / len(positive)
    negative = np.bincount(negative, minlength=size) / len(negative)
    return float((negative * (np.cumsum(positive) - positive / 2)).sum())


MIXES = ([1, 0, 0], [0.75, 0.25, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.25, 0.25], [0.4, 0, 0.6])


@pytest.mark.parametrize('windows', [1, 2, 3])
@pytest.mark.parametrize('seconds', [
    2.0, 3.0, 10.0,
    *(pytest.param(seconds, marks=pytest.mark.slow) for seconds in (2.4, 4.0, 6.0))])
def test_place_does_not_reveal_the_kind(seconds, windows):
    # Windows of 1 s. Neither the place of the audio, nor its distance from the middle of its clip,
    # nor the place of the video separates any kind from the positives.
    config = make_config(frames=25, audio_windows=windows)
    count, draws = round((seconds - 1) * 25) + 1, 60_000
    starts = tf.range(count, dtype=tf.int64) * 640
    seen = set()
    for number, mix in enumerate(MIXES):
        mix = tf.constant(mix, tf.float32)
        wanted = draw_kinds([number, 1], mix, windows, (draws,))
        video, audio, kinds = (tensor.numpy() for tensor in draw_frames(
            [number, 2], starts, wanted, in_mix(mix), config))
        # What the pipeline does: the first window of another clip is an easy negative's audio.
        audio = np.where(kinds == Kind.EASY, np.roll(audio[:, :1], 1, axis=0), audio)
        video = np.broadcast_to(video[:, None], audio.shape)
        positive = kinds == Kind.POSITIVE
        assert (audio == video)[positive].all()
        for kind in set(kinds.ravel()) - {Kind.POSITIVE}:
            seen.add(Kind(kind))
            chosen = kinds == kind
            for score in (audio, np.abs(2 * audio - (count - 1)), video):
                assert abs(auc(score[positive], score[chosen]) - 0.5) < 0.02, (kind, mix)
    assert seen == set(NEGATIVES)


def test_evaluation_places_do_not_reveal_the_kind_either():
    config = make_config(frames=25)
    for seconds in (3.0, 6.0):
        count, draws = round((seconds - 1) * 25) + 1, 60_000
        starts = tf.range(count, dtype=tf.int64) * 640
        kinds = tf.broadcast_to(tf.range(len(Kind)), [draws, len(Kind)])
        everything = dict.fromkeys(NEGATIVES, tf.constant(True))
        _, audio, drawn = draw_frames([3, 4], starts, kinds, everything, config, repeated=False)
        np.testing.assert_array_equal(drawn, kinds)
        audio = audio.numpy()
        for kind in NEGATIVES:
            for score in (audio, np.abs(2 * audio - (count - 1))):
                assert abs(auc(score[:, Kind.POSITIVE], score[:, kind]) - 0.5) < 0.02
