"""From one record to one clip with K audio windows, and the easy negatives across a batch.

All randomness is stateless: a pair is a function of the seed, the epoch and the example id. Only *which* other clips an easy
negative can come from depends on the batch.
"""

import tensorflow as tf

from avts_tf.windows import (
    EASY,
    NO_PAIR,
    POSITIVE,
    choose_audio_start,
    choose_video_start,
    window_rule,
)


def draw_kinds(seed, mix, audio_windows):
    """Draws the kind of each audio window of a clip.

    Args:
        seed: int32 [2].
        mix: float32 [3], parts of easy, hard and super-hard among the negatives.
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
    bounds = tf.cumsum(mix)[:2]
    bounds = tf.where(bounds > 1.0 - 1e-6, 2.0, bounds)
    negatives = EASY + tf.cast(tf.searchsorted(bounds, draws, side='right'), tf.int32)
    if audio_windows == 1:
        return tf.where(tf.random.stateless_uniform([1], seeds[1]) < 0.5, POSITIVE, negatives), negatives
    kinds = tf.concat([[POSITIVE], negatives[1:]], 0)
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
        kind = tf.where(tf.gather(fits, kinds[slot]), kinds[slot], EASY)
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
    easy = kind == EASY
    batch['audio'] = tf.where(easy[..., None], tf.gather(audio[:, 0], source), audio)
    batch['audio_start_seconds'] = tf.where(easy, tf.gather(starts[:, 0], source), starts)
    batch['audio_hash'] = tf.where(easy, tf.gather(hashes, source), hashes[:, None])
    batch['kind'] = tf.where(easy & ~tf.reduce_any(other, -1)[:, None], NO_PAIR, kind)
    batch['label'] = tf.cast(kind == POSITIVE, tf.float32)
    return batch
