"""Where the windows of a clip lie, so that a place does not reveal the kind of a pair.

The places of a clip are the frames that a whole window can start with, numbered from 0. The video
window starts at one of them, and so does every audio window of the same clip:

    positive      at the very same frame, to the audio sample;
    hard          where it does not overlap the video window, at least `hard_gap_seconds` away from
                  it (less where the clip is too short for that gap, nowhere where it holds no two
                  windows);
    super_hard    shifted by `super_hard_min_shift` to `super_hard_max_shift` of the window, so
                  that it overlaps but is out of sync.

A model that knows only where the video of a pair starts, or only where its audio starts, must not
be able to infer its kind. Placing each kind on its own fails: hard negatives of a short clip only
fit near its ends, so that a pair in the middle would be known not to be one. So all kinds that may
be drawn share one distribution of places:

1. Some variables are drawn first, whatever the kinds of this clip's pairs. The place of the video
   window is their sum:

       video = base + sum of moved[j] * shift[j]

   `base` lies in a range of `room` places, each `moved[j]` is a fair coin, and each `shift[j]` is
   a shift that makes a super-hard negative; `room` plus all shifts is the number of places.

2. The place of a negative's audio is the same sum after one variable was changed, in a way that
   leaves the joint distribution of the variables as it was:

   super-hard, window j       The coin `moved[j]` is turned over; a turned coin is fair. The two
                              windows are `shift[j]` apart.
   hard, room >= 2 D          D is the hard distance. `base` is uniform, and goes round the circle
                              of `room` places by a step that is uniform in [D, room - D]. What is
                              uniform on a circle stays so when it is turned. The two windows are
                              `step` or `room - step` apart, both at least D.
   hard, room < 2 D           `base` is one end, by a fair coin, of a pair of places drawn uniformly
                              among all that are at least D apart; the other end is the audio's.
                              The ends of an unordered pair are exchangeable.

   The audio of a positive, and that which is given away as an easy negative, is at the video's
   place.

Hence the audio of every pair, of whatever kind, has the distribution of the place of the video, and
neither depends on the kinds that were drawn. This holds for any number of windows, any mix and any
length: a kind that does not fit in the clip, or is not in the mix, has no variable. Only both
places of a pair together separate the kinds: those of a positive are equal, which is what in sync
means.

On a regular grid a distance in frames is one in samples. Where frame times are irregular, only
distances in frames are used that are long (or short) enough wherever in the clip they begin.
"""

from typing import NamedTuple

import tensorflow as tf

from avts_tf.config import Config


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


class Places(NamedTuple):
    """Drawn places, as int64 numbers of frames, with any leading shape.

    Attributes:
        video: [...], start of the video window, and of the audio of positives.
        hard: [..., W], start of the audio of window w if it is a hard negative.
        super_hard: [..., W], the same for a super-hard negative.
        hard_fits, super_hard_fits: bool scalars, whether the clip has room for the kind; if not,
            its places say nothing.
    """

    video: tf.Tensor
    hard: tf.Tensor
    super_hard: tf.Tensor
    hard_fits: tf.Tensor
    super_hard_fits: tf.Tensor


def window_rule(config: Config) -> WindowRule:
    """The `WindowRule` of a `Config`."""
    window, rate, pairs = config.clip.window_samples, config.clip.sample_rate, config.pairs
    return WindowRule(
        window, round(pairs.hard_gap_seconds * rate),
        max(1, round(pairs.super_hard_min_shift * window)),
        max(1, round(pairs.super_hard_max_shift * window)))


def distances(starts: tf.Tensor, rule: WindowRule) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The geometry of pairs in frames: distances that are right wherever in the clip they begin.

    Args:
        starts: int64 [F], ascending, start of each place in audio samples.
        rule: `WindowRule`.

    Returns:
        (least distance of a hard negative, least and greatest of a super-hard one), int64 scalars.
        A least distance of F or more fits nowhere.
    """
    span = starts[-1] - starts[0]
    hard = tf.clip_by_value(span, rule.window, rule.window + rule.gap)
    return (_least(starts, hard), _least(starts, rule.min_shift), _greatest(starts, rule.max_shift))


def _least(starts: tf.Tensor, samples: tf.Tensor | int) -> tf.Tensor:
    """The least number of frames that are at least so many samples; F where no two frames are."""
    count = tf.size(starts, out_type=tf.int64)
    other = tf.searchsorted(starts, starts + samples, side='left', out_type=tf.int64)
    return tf.reduce_max(other - tf.range(count))


def _greatest(starts: tf.Tensor, samples: int) -> tf.Tensor:
    """The greatest number of frames that are at most so many samples."""
    count = tf.size(starts, out_type=tf.int64)
    beyond = tf.searchsorted(starts, starts + samples, side='right', out_type=tf.int64)
    return tf.reduce_min(tf.where(beyond < count, beyond - 1 - tf.range(count), count - 1))


def draw_places(seed: tf.Tensor, starts: tf.Tensor, hard: tf.Tensor | bool,
                super_hard: tf.Tensor | bool, windows: int, rule: WindowRule,
                shape: tuple[int, ...] = ()) -> Places:
    """Draws the places of a clip's windows, before it is known which kinds they are.

    Args:
        seed: int32 [2].
        starts: int64 [F], ascending, start of each place in audio samples; at least one.
        hard: bool scalar, whether hard negatives may be drawn.
        super_hard: the same for super-hard ones. Where the clip is too short for both, only hard
            ones fit.
        windows: W, audio windows that may be negatives.
        rule: `WindowRule`.
        shape: leading shape, for many independent draws at once.

    Returns:
        `Places`.
    """
    seeds = tf.random.split(seed, 3)
    last = tf.size(starts, out_type=tf.int64) - 1
    distance, least, most = distances(starts, rule)
    hard_fits = hard & (distance <= last)
    spare = last - tf.where(hard_fits, distance, 0)
    super_hard_fits = super_hard & (least <= tf.minimum(most, spare))
    # Each window has a shift of its own where there is room for all of them; else they share one.
    count = tf.constant(windows, tf.int64)
    own = count * least <= spare
    most = tf.minimum(most, spare // tf.where(own, count, 1))
    shifts = uniform([*shape, windows], seeds[0], least, most + 1)
    used = super_hard_fits & (own | (tf.range(windows) == 0))
    shifts = tf.where(used, shifts, 0)
    moved = uniform([*shape, windows], seeds[1], 0, 2)
    room = last + 1 - tf.reduce_sum(shifts, -1)
    base, other = _apart(seeds[2], room, distance, hard_fits, windows)
    offset = tf.reduce_sum(moved * shifts, -1)
    turned = (1 - 2 * moved) * shifts
    turned = tf.where(own, turned, turned[..., :1])
    return Places(base + offset, other + offset[..., None], (base + offset)[..., None] + turned,
                  hard_fits, super_hard_fits)


def _apart(seed: tf.Tensor, room: tf.Tensor, distance: tf.Tensor, fits: tf.Tensor,
           windows: int) -> tuple[tf.Tensor, tf.Tensor]:
    """A place in [0, room), uniform where it can be, and one for each window at least a distance
    from it.
    """
    seeds = tf.random.split(seed, 5)
    shape = tf.shape(room)
    windowed = tf.concat([shape, [windows]], 0)
    base = uniform(shape, seeds[0], 0, room)
    wide = ~fits | (room >= 2 * distance)
    steps = uniform(windowed, seeds[1], distance, (room - distance)[..., None] + 1)
    turned = (base[..., None] + steps) % room[..., None]
    # Two of `ends + 1` numbers, each pair as likely: a way to draw low <= high < ends.
    ends = tf.maximum(room - distance, 1)
    one, other = uniform(shape, seeds[2], 0, ends + 1), uniform(shape, seeds[3], 0, ends)
    other += tf.cast(other >= one, tf.int64)
    low, high = tf.minimum(one, other), distance + tf.maximum(one, other) - 1
    swapped = uniform(shape, seeds[4], 0, 2) == 1
    ends_video, ends_audio = tf.where(swapped, high, low), tf.where(swapped, low, high)
    ends_audio = tf.broadcast_to(ends_audio[..., None], windowed)
    return tf.where(wide, base, ends_video), tf.where(wide[..., None], turned, ends_audio)


def uniform(shape: tf.Tensor | list[int], seed: tf.Tensor, low: tf.Tensor | int,
            high: tf.Tensor | int) -> tf.Tensor:
    """Whole numbers in [low, high), or `low` where that is empty: int64 of a shape.

    Other than TensorFlow's, the limits may be tensors that broadcast to the shape.
    """
    low, high = tf.cast(low, tf.int64), tf.cast(high, tf.int64)
    size = tf.maximum(high - low, 1)
    drawn = tf.random.stateless_uniform(shape, seed, dtype=tf.float64)
    # The product may be rounded up to `size`.
    return low + tf.minimum(tf.cast(drawn * tf.cast(size, tf.float64), tf.int64), size - 1)
