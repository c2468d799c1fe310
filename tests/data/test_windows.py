"""The windows of a clip against the definition of each kind, tried on every possible start in plain numpy."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from avts_tf.config import make_config
from avts_tf.data.sampling import (
    Kind,
    WindowRule,
    choose_audio_start,
    choose_video_start,
    interval_size,
    negative_intervals,
    window_rule,
)

DRAWS = 24


def allowed(kind, start, length, rule):
    """bool [length - window + 1]: whether each start inside the clip makes a negative of this kind."""
    distance = np.abs(np.arange(length - rule.window + 1) - start)
    if kind == Kind.HARD:
        # Where the clip holds two windows but not the gap between them, the gap is what is left.
        gap = min(rule.gap, max(length - 2 * rule.window, 0))
        return distance >= rule.window + gap
    return (distance >= rule.min_shift) & (distance <= rule.max_shift)


def usable_starts(frames, length, rule):
    return [int(frame) for frame in frames if frame + rule.window <= length]


@functools.cache
def intervals_function(kind):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.int64), tf.TensorSpec([4], tf.int64)])
    def intervals(starts, length, rule):
        return negative_intervals(kind, starts, length, WindowRule(*tf.unstack(rule)))
    return intervals


@tf.function(input_signature=[
    tf.TensorSpec([None, 2], tf.int32), tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.int64),
    tf.TensorSpec([], tf.int64), tf.TensorSpec([None], tf.int32), tf.TensorSpec([4], tf.int64),
])
def choose(seeds, frames, count, length, kinds, rule):
    """The video start, what fits, and the audio start of each kind in `kinds`, once per seed."""
    rule = WindowRule(*tf.unstack(rule))

    def one(seed):
        seeds = tf.random.split(seed, 4)
        index, fits = choose_video_start(seeds[0], frames, count, length, kinds, rule)
        audio = [choose_audio_start(seeds[1], tf.constant(kind), frames[index], length, rule) for kind in range(len(Kind))]
        return index, fits, tf.gather(tf.stack(audio), kinds)

    return tf.map_fn(one, seeds, fn_output_signature=(tf.int64, tf.bool, tf.int64))


def draw(draws, frames, length, kinds, rule, seed=0):
    seeds = tf.stack([tf.range(draws), tf.fill([draws], seed)], 1)
    count = len(usable_starts(frames, length, rule))
    result = choose(seeds, tf.constant(frames, tf.int64), count, length, tf.constant(kinds), tf.constant(rule, tf.int64))
    return [tensor.numpy() for tensor in result]


@st.composite
def clips(draw):
    """(frame times in samples, samples in the clip, rule): grids of any frame rate, and irregular times."""
    window = draw(st.integers(2, 40))
    shifts = sorted(draw(st.tuples(st.integers(1, window - 1), st.integers(1, window - 1))))
    rule = WindowRule(window, draw(st.integers(0, 50)), *shifts)
    length = draw(st.integers(window, 6 * window))
    if draw(st.booleans()):
        step = draw(st.floats(1.0, 25.0))
        frames = [round(i * step) for i in range(int(length / step) + 1)]
    else:
        frames = sorted(draw(st.sets(st.integers(0, length), min_size=1, max_size=30)))
        frames[0] = min(frames[0], length - window)
    return frames, length, rule


@settings(max_examples=150, deadline=None)
@given(clips())
def test_intervals_hold_exactly_the_allowed_starts(clip):
    frames, length, rule = clip
    starts = usable_starts(frames, length, rule)
    for kind in (Kind.HARD, Kind.SUPER_HARD):
        intervals = [[bound.numpy() for bound in interval] for interval in intervals_function(kind)(starts, length, rule)]
        for i, start in enumerate(starts):
            inside = np.zeros(length - rule.window + 1, int)
            for low, high in intervals:
                assert high[i] < low[i] or (low[i] >= 0 and high[i] < len(inside)), 'outside of the clip'
                inside[low[i]:max(high[i] + 1, low[i])] += 1
            np.testing.assert_array_equal(inside, allowed(kind, start, length, rule))


@settings(max_examples=100, deadline=None)
@given(clips(), st.integers(0, 2**31 - 1), st.sampled_from([(0,), (1,), (2,), (3,), (0, 1, 2, 3), (3, 2)]))
def test_drawn_windows_are_what_they_are_called(clip, seed, kinds):
    frames, length, rule = clip
    starts = usable_starts(frames, length, rule)
    fitting = [any(allowed(kind, start, length, rule).any() for start in starts) for kind in (Kind.HARD, Kind.SUPER_HARD)]
    expected_fits = [True, True, *fitting]
    indices, fits, audio_starts = draw(DRAWS, frames, length, kinds, rule, seed)
    assert (fits == expected_fits).all()
    assert indices.min() >= 0 and indices.max() < len(starts)
    for index, audio_start in zip(indices, audio_starts, strict=True):
        start = frames[index]
        for kind, audio in zip(kinds, audio_start, strict=True):
            if kind in (Kind.POSITIVE, Kind.EASY):
                assert audio == start
            elif expected_fits[kind]:
                assert 0 <= audio <= length - rule.window
                assert allowed(kind, start, length, rule)[audio]
                overlap = abs(audio - start) < rule.window
                assert overlap == (kind == Kind.SUPER_HARD) and audio != start
                if kind == Kind.HARD and length >= 2 * rule.window + rule.gap:
                    assert abs(audio - start) - rule.window >= rule.gap


def chi_square(counts, expected):
    """Deviation of counts from the expected ones, in standard deviations of the chi-square distribution."""
    counts, expected = np.asarray(counts, float), np.asarray(expected, float)
    assert expected.min() >= 5, 'too few draws to judge'
    freedom = len(counts) - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)


@pytest.mark.parametrize('kinds', [(Kind.POSITIVE,), (Kind.HARD,), (Kind.SUPER_HARD,), (Kind.HARD, Kind.SUPER_HARD), (Kind.HARD, Kind.HARD)])
def test_every_combination_of_windows_is_equally_likely(kinds):
    rule, length, frames, draws = WindowRule(10, 3, 3, 6), 36, [0, 4, 8, 12, 16, 20, 26, 30], 6000
    starts = usable_starts(frames, length, rule)
    places = np.array([
        [allowed(kind, start, length, rule).sum() if kind >= Kind.HARD else 1 for kind in kinds] for start in starts])
    indices, _, audio = draw(draws, frames, length, kinds, rule, seed=5)
    weight = places.prod(1)
    fit = weight > 0
    counts = np.bincount(indices, minlength=len(starts))
    assert counts[~fit].sum() == 0
    assert abs(chi_square(counts[fit], draws * weight[fit] / weight.sum())) < 5
    if kinds[0] >= Kind.HARD:
        index = np.argmax(counts)
        drawn = np.bincount(audio[indices == index, 0], minlength=length)
        ok = allowed(kinds[0], starts[index], length, rule)
        assert drawn.sum() == drawn[:len(ok)][ok].sum()
        assert abs(chi_square(drawn[:len(ok)][ok], np.full(ok.sum(), counts[index] / ok.sum()))) < 5


def test_the_gap_shrinks_only_where_it_must():
    window, gap = 10, 6
    rule = WindowRule(window, gap, 2, 5)
    for length, left in ((20, 0), (23, 3), (26, 6), (40, 6)):
        indices, fits, audio = draw(200, list(range(length)), length, (Kind.HARD,), rule)
        assert fits[:, Kind.HARD].all()
        assert np.abs(audio[:, 0] - indices).min() == window + left
    assert not draw(1, list(range(19)), 19, (Kind.HARD,), rule)[1][:, Kind.HARD].any()


def test_a_wish_that_cannot_be_met_leaves_the_others_alone():
    # One and a half windows: no hard negative, and the video starts that leave room for a super-hard one must still be found.
    rule = WindowRule(10, 0, 5, 5)
    indices, fits, audio = draw(300, list(range(16)), 15, (Kind.HARD, Kind.SUPER_HARD), rule)
    assert not fits[:, Kind.HARD].any() and fits[:, Kind.SUPER_HARD].all()
    assert {(int(i), int(a)) for i, a in zip(indices, audio[:, 1], strict=True)} == {(0, 5), (5, 0)}


def test_rule_is_in_samples():
    config = make_config(frames=16, fps=30.0, sample_rate=44100, hard_gap_seconds=0.25)
    assert window_rule(config) == WindowRule(23520, 11025, 5880, 11760)
    assert interval_size((tf.constant([3, 3, 3]), tf.constant([1, 2, 3]))).numpy().tolist() == [0, 0, 1]
