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

import enum
import functools
from typing import NamedTuple

import tensorflow as tf


class Kind(enum.IntEnum):
    """The kinds of pairs: the only list of them. A mix of negatives is a mapping over it.

    The number stands in a batch's `kind`; `str(kind)` stands in metrics, files and regimes. A new kind is a line here and, if
    it comes from the same record, its starts in `negative_intervals`.

    Attributes:
        same_record: whether video and audio come from the same record.
        description: what the audio is, in a few words.
    """

    POSITIVE = 0, True, 'the same moment'
    EASY = 1, False, "another clip's sound"
    HARD = 2, True, "the clip's sound, windows apart"
    SUPER_HARD = 3, True, "the clip's sound, windows overlap"

    def __new__(cls, value: int, same_record: bool, description: str):
        kind = int.__new__(cls, value)
        kind._value_, kind.same_record, kind.description = value, same_record, description
        return kind

    def __str__(self) -> str:
        return self.name.lower()

    def __format__(self, specification: str) -> str:
        return format(str(self), specification)


NEGATIVES = tuple(kind for kind in Kind if kind is not Kind.POSITIVE)
SAME_RECORD_NEGATIVES = tuple(kind for kind in NEGATIVES if kind.same_record)
OTHER_RECORD_NEGATIVES = tuple(kind for kind in NEGATIVES if not kind.same_record)
NO_PAIR = -1  # in place of a kind: a slot that could not be filled, neither trained on nor counted


def is_one_of(kind: tf.Tensor, kinds: tuple[Kind, ...]) -> tf.Tensor:
    """Whether each number in a batch's `kind` is one of some kinds: int32 of any shape -> bool of the same."""
    return tf.reduce_any(tf.equal(kind[..., None], tf.constant([int(each) for each in kinds], kind.dtype)), -1)


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
        kind: one of `SAME_RECORD_NEGATIVES`.
        start: int64 tensor of any shape, start of the video window in samples.
        length: int64 scalar, samples in the clip.
        rule: `WindowRule`.

    Returns:
        (low, high) of the interval before and (low, high) of the one after the video window, inclusive, int64 of start's
        shape; an interval is empty where high < low.
    """
    last = length - rule.window
    if kind == Kind.HARD:
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
        (index, fits): int64 scalar, index of the frame; bool [kinds], whether each `Kind` fits in this clip.
    """
    starts = frame_samples[:frame_count]
    inside = tf.cast(starts + rule.window <= length, tf.float64)
    weight = inside
    fits = dict.fromkeys(Kind, tf.constant(True))
    for kind in SAME_RECORD_NEGATIVES:
        before, after = negative_intervals(kind, starts, length, rule)
        places = inside * tf.cast(interval_size(before) + interval_size(after), tf.float64)
        fits[kind] = tf.reduce_any(places > 0)
        # Beside a video window that leaves room for a hard negative there is room for a super-hard one: never 0 everywhere.
        wanted = tf.reduce_sum(tf.cast(kinds == kind, tf.float64))
        weight = tf.where(fits[kind], weight * places ** wanted, weight)
    cumulative = tf.cumsum(weight)
    draw = tf.random.stateless_uniform([], seed, dtype=tf.float64) * cumulative[-1]
    index = tf.searchsorted(cumulative, draw[None], side='right')[0]
    last = tf.reduce_max(tf.where(weight > 0))
    return tf.minimum(tf.cast(index, tf.int64), last), tf.stack(list(fits.values()))


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

    same_window = functools.partial(tf.identity, start)
    return tf.switch_case(
        kind, [functools.partial(draw, each) if each in SAME_RECORD_NEGATIVES else same_window for each in Kind])


def draw_kinds(seed, mix, audio_windows):
    """Draws the kind of each audio window of a clip.

    Args:
        seed: int32 [2].
        mix: float32 [negatives], the part of each of `NEGATIVES`.
        audio_windows: K. With K > 1 the first window is the positive and the others are negatives; with K = 1 a fair coin
            decides between the two.

    Returns:
        (kinds, room_for): int32 [K] each. The second are the kinds that the video window must leave room for. They differ where
        K is 1 and the coin says positive: the negative that it was drawn against still places the video window, so that
        where the window lies does not tell the label.
    """
    seeds = tf.random.split(seed, 2)
    draws = tf.random.stateless_uniform([audio_windows], seeds[0])
    # A part of 0 must never be drawn, whatever the rounding of the sums.
    bounds = tf.cumsum(mix)[:-1]
    bounds = tf.where(bounds > 1.0 - 1e-6, 2.0, bounds)
    negatives = tf.gather([int(kind) for kind in NEGATIVES], tf.searchsorted(bounds, draws, side='right'))
    if audio_windows == 1:
        return tf.where(tf.random.stateless_uniform([1], seeds[1]) < 0.5, int(Kind.POSITIVE), negatives), negatives
    kinds = tf.concat([[int(Kind.POSITIVE)], negatives[1:]], 0)
    return kinds, kinds


def sample_clip(record, usable, kinds, room_for, seed, config):
    """Chooses the windows of one record; nothing is decoded here.

    Args:
        record: `records.Record` that holds at least one window.
        usable: int64 scalar, result of `usable_frames`.
        kinds: int32 [K], wanted kinds. A hard or super-hard negative that does not fit becomes an easy one.
        room_for: int32 [K], kinds that the video window leaves room for (see `draw_kinds`).
        seed: int32 [2].
        config: `Config`.

    Returns:
        Dict: `frame_index` int64 [frames], indices of the window's frames; `audio` int16 [K, samples]; `kind` int32 [K];
        `video_start_seconds` float64 scalar; `audio_start_seconds` float64 [K]; `replaced` int32 scalar, the number of
        negatives that became easy.
    """
    clip, rule = config.clip, window_rule(config)
    frame_samples = tf.cast(tf.round(record.frame_seconds * clip.sample_rate), tf.int64)
    length = clip_samples(record)
    seeds = tf.random.split(seed, 1 + kinds.shape[0])
    first, fits = choose_video_start(seeds[0], frame_samples, usable, length, room_for, rule)
    start = frame_samples[first]
    audio_starts, final_kinds = [], []
    for slot in range(kinds.shape[0]):
        kind = tf.where(tf.gather(fits, kinds[slot]), kinds[slot], int(Kind.EASY))
        final_kinds.append(kind)
        audio_starts.append(choose_audio_start(seeds[1 + slot], kind, start, length, rule))
    audio_starts, kind = tf.stack(audio_starts), tf.stack(final_kinds)
    audio = tf.gather(record.waveform, audio_starts[:, None] + tf.range(rule.window, dtype=tf.int64))
    return {
        'frame_index': window_frames(record.frame_seconds, first, config),
        'audio': tf.ensure_shape(audio, [kinds.shape[0], rule.window]),
        'kind': kind,
        'video_start_seconds': record.frame_seconds[first],
        'audio_start_seconds': tf.cast(audio_starts, tf.float64) / clip.sample_rate,
        'replaced': tf.reduce_sum(tf.cast(kind != kinds, tf.int32)),
    }


def window_frames(frame_seconds, first, config):
    """Indices of the frames nearest to first's time + k / fps: int64 [frames]."""
    wanted = frame_seconds[first] + tf.range(config.clip.frames, dtype=tf.float64) / config.clip.fps
    middles = (frame_seconds[1:] + frame_seconds[:-1]) / 2
    return tf.cast(tf.searchsorted(middles, wanted, side='left'), tf.int64)


def sounds_at(record, start_seconds, config):
    """The windows of sound that start at given times: float64 [...] -> int16 [..., samples]; silence outside of the clip."""
    first = tf.cast(tf.round(start_seconds * config.clip.sample_rate), tf.int64)
    place = first[..., None] + tf.range(config.clip.window_samples, dtype=tf.int64)
    length = clip_samples(record)
    sound = tf.gather(record.waveform, tf.clip_by_value(place, 0, length - 1))
    return tf.where((place >= 0) & (place < length), sound, tf.cast(0, tf.int16))


def usable_frames(record, config):
    """The number of leading frames that a window of video can start with, so that it ends within the clip's frames.

    Returns:
        int64 scalar; 0 where the record is shorter than a window.
    """
    frame_seconds = record.frame_seconds
    span = (config.clip.frames - 1) / config.clip.fps
    # The last frame is shown as long as the others are on average; a record need not state its frame rate.
    last = tf.reduce_max(frame_seconds)
    interval = tf.math.divide_no_nan(last - tf.reduce_min(frame_seconds), tf.cast(tf.size(frame_seconds) - 1, tf.float64))
    pictures = frame_seconds + span <= last + interval / 2
    start_samples = tf.cast(tf.round(frame_seconds * config.clip.sample_rate), tf.int64)
    sounds = start_samples + config.clip.window_samples <= clip_samples(record)
    return tf.reduce_sum(tf.cast(pictures & sounds, tf.int64))


def clip_samples(record):
    """Samples of the clip within which windows may lie: int64 scalar."""
    return tf.size(record.waveform, out_type=tf.int64)


def fill_easy(batch):
    """Gives every easy negative of a batch another clip's sound, never one of the same example id.

    What is given away is the other clip's first window: its own sound, at the time of its own video window (of its negative
    where K is 1 and a hard negative was drawn).

    Args:
        batch: dict with `audio` int16 [B, K, samples], `kind` int32 [B, K], `example_hash` int64 [B],
            `audio_start_seconds` float64 [B, K] and `seed` int32 [B, 2].

    Returns:
        The batch without `seed`, with `audio` and `audio_start_seconds` of the easy slots replaced, `audio_hash` int64
        [B, K], the clip that each window comes from, and `label` float32 [B, K]. Where the batch holds no other clip, the
        kind becomes NO_PAIR.
    """
    batch = dict(batch)
    hashes, audio, starts = batch['example_hash'], batch['audio'], batch['audio_start_seconds']
    seeds, kind = batch.pop('seed'), batch['kind']
    slots, rows = kind.shape[1], tf.shape(kind)[0]
    draws = tf.map_fn(
        lambda seed: tf.random.stateless_uniform([slots, rows], seed), seeds,
        fn_output_signature=tf.TensorSpec([slots, None], tf.float32),
    )                                                                            # [B, K, B]
    other = hashes[:, None] != hashes[None, :]                                   # [B, B]
    source = tf.argmax(tf.where(other[:, None, :], draws, -1.0), axis=-1)        # [B, K]
    easy = is_one_of(kind, OTHER_RECORD_NEGATIVES)
    batch['audio'] = tf.where(easy[..., None], tf.gather(audio[:, 0], source), audio)
    batch['audio_start_seconds'] = tf.where(easy, tf.gather(starts[:, 0], source), starts)
    batch['audio_hash'] = tf.where(easy, tf.gather(hashes, source), hashes[:, None])
    batch['kind'] = tf.where(easy & ~tf.reduce_any(other, -1)[:, None], NO_PAIR, kind)
    batch['label'] = tf.cast(kind == Kind.POSITIVE, tf.float32)
    return batch
