"""Where the windows of a clip lie.

A clip is [0, duration). Its video window starts at the time of one of its frames; the audio window of a pair starts

    positive      at the very same time, to the audio sample;
    hard          where it does not overlap the video window, at least `hard_gap_seconds` away from it (less where the clip is
                  too short for that gap, none at all where the clip is shorter than two windows);
    super_hard    shifted by `super_hard_min_shift` to `super_hard_max_shift` of the window, so that it overlaps but is out of
                  sync;
    easy          wherever the window of another clip lies: not this module's business.

Times are turned into audio samples once, at the door, and all that follows is exact integer arithmetic: an interval of
allowed starts holds a number of samples, a choice is a uniform draw among them.
"""

from typing import NamedTuple

import tensorflow as tf

KINDS = ('positive', 'easy', 'hard', 'super_hard')
POSITIVE, EASY, HARD, SUPER_HARD = range(len(KINDS))
NO_PAIR = -1  # a slot that could not be filled: neither trained on nor counted


class WindowRule(NamedTuple):
    """The geometry of pairs, in audio samples.

    Attributes:
        window: length of a window.
        gap: least gap of hard negatives.
        min_shift, max_shift: limits of the shift of super-hard negatives.
    """

    window: int
    gap: int
    min_shift: int
    max_shift: int


def window_rule(config):
    """The `WindowRule` of a `Config`."""
    window, rate = config.clip.window_samples, config.clip.sample_rate
    return WindowRule(
        window,
        round(config.pairs.hard_gap_seconds * rate),
        max(1, round(config.pairs.super_hard_min_shift * window)),
        max(1, round(config.pairs.super_hard_max_shift * window)),
    )


def negative_intervals(kind, start, length, rule):
    """The two intervals in which the audio window of a hard or super-hard negative may start.

    Args:
        kind: HARD or SUPER_HARD.
        start: int64 tensor of any shape, start of the video window in samples.
        length: int64 scalar, samples in the clip.
        rule: `WindowRule`.

    Returns:
        (low, high) of the interval before and (low, high) of the one after the video window, inclusive, int64 of start's
        shape; an interval is empty where high < low.
    """
    last = length - rule.window
    if kind == HARD:
        distance = rule.window + tf.clip_by_value(length - 2 * rule.window, 0, rule.gap)
        return (tf.zeros_like(start), start - distance), (start + distance, tf.fill(tf.shape(start), last))
    return (
        (tf.maximum(start - rule.max_shift, 0), start - rule.min_shift),
        (start + rule.min_shift, tf.minimum(start + rule.max_shift, last)),
    )


def interval_size(interval):
    """The number of samples in an inclusive interval (low, high), 0 if it is empty."""
    low, high = interval
    return tf.maximum(high - low + 1, 0)


def choose_video_start(seed, frame_samples, frame_count, length, kinds, rule):
    """Draws the frame with which the video window starts, so that all the wanted negatives fit beside it.

    Every combination of windows that fits is equally likely: a frame's weight is the number of places that the negatives have
    when the window starts there. A kind that fits nowhere in the clip has no say.

    Args:
        seed: int32 [2].
        frame_samples: int64 [F], time of each frame, in audio samples.
        frame_count: int64 scalar, number of leading frames from which a whole window can be taken.
        length: int64 scalar, samples in the clip; at least a window.
        kinds: int32 [K], the kinds that must have room.
        rule: `WindowRule`.

    Returns:
        (index, fits): int64 scalar, index of the frame; bool [4], whether each of `KINDS` fits in this clip.
    """
    starts = frame_samples[:frame_count]
    inside = tf.cast(starts + rule.window <= length, tf.float64)
    weight = inside
    fits = [tf.constant(True), tf.constant(True)]
    for kind in (HARD, SUPER_HARD):
        before, after = negative_intervals(kind, starts, length, rule)
        places = inside * tf.cast(interval_size(before) + interval_size(after), tf.float64)
        fits.append(tf.reduce_any(places > 0))
        # Beside a video window that leaves room for a hard negative there is room for a super-hard one: never 0 everywhere.
        wanted = tf.reduce_sum(tf.cast(kinds == kind, tf.float64))
        weight = tf.where(fits[-1], weight * places ** wanted, weight)
    cumulative = tf.cumsum(weight)
    draw = tf.random.stateless_uniform([], seed, dtype=tf.float64) * cumulative[-1]
    index = tf.searchsorted(cumulative, draw[None], side='right')[0]
    last = tf.reduce_max(tf.where(weight > 0))
    return tf.minimum(tf.cast(index, tf.int64), last), tf.stack(fits)


def choose_audio_start(seed, kind, start, length, rule):
    """Draws where the audio window of a pair starts.

    Args:
        seed: int32 [2].
        kind: int32 scalar. An easy negative gets the positive window: it is given away to another clip.
        start: int64 scalar, start of the video window in samples.
        length: int64 scalar, samples in the clip.
        rule: `WindowRule`.

    Returns:
        int64 scalar, start of the audio window in samples.
    """
    def draw(kind):
        before, after = negative_intervals(kind, start, length, rule)
        count_before, total = interval_size(before), interval_size(before) + interval_size(after)
        place = tf.random.stateless_uniform([], seed, 0, tf.maximum(total, 1), tf.int64)
        return tf.where(place < count_before, before[0] + place, after[0] + place - count_before)

    branch = tf.clip_by_value(kind - HARD, -1, 1) + 1
    return tf.switch_case(branch, [lambda: start, lambda: draw(HARD), lambda: draw(SUPER_HARD)])
