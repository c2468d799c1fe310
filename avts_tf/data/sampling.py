"""Pairs of a video window and an audio window: their kinds, and how they are cut from a record.

`Kind` is the only list of the kinds. A clip has one video window and K audio windows. Which kinds
they are is drawn by the mix of the training stage (`draw_kinds`), where they lie by
`places.draw_places`. `sample_clip` cuts them, `fill_easy` gives every easy negative another clip's
audio.

Frame times are converted to audio samples once, and all that follows is exact integer arithmetic.
"""

import enum

import tensorflow as tf

from avts_tf.config import Config
from avts_tf.data.places import draw_places, window_rule
from avts_tf.data.records import Record


class Kind(enum.IntEnum):
    """The kinds of pairs: the only list of them. A mix of negatives is a mapping over it.

    The number stands in a batch's `kind`; `str(kind)` stands in metrics, files and regimes. A new
    kind is a line here and, if it comes from the same record, its places in places.py and
    `draw_frames`.

    Attributes:
        same_record: whether video and audio come from the same record.
        description: what the audio is, in a few words.
    """

    same_record: bool
    description: str

    POSITIVE = 0, True, 'the same moment'
    EASY = 1, False, "another clip's audio"
    HARD = 2, True, "the clip's audio, windows apart"
    SUPER_HARD = 3, True, "the clip's audio, windows overlap"

    def __new__(cls, value: int, same_record: bool, description: str) -> 'Kind':
        kind = int.__new__(cls, value)
        kind._value_, kind.same_record, kind.description = value, same_record, description
        return kind

    def __str__(self) -> str:
        return self.name.lower()

    def __format__(self, specification: str) -> str:
        return format(str(self), specification)


NEGATIVES: tuple[Kind, ...] = tuple(kind for kind in Kind if kind is not Kind.POSITIVE)
SAME_RECORD_NEGATIVES = tuple(kind for kind in NEGATIVES if kind.same_record)
OTHER_RECORD_NEGATIVES = tuple(kind for kind in NEGATIVES if not kind.same_record)
NO_PAIR = -1  # in place of a kind: a slot that could not be filled; not trained on, not counted


def is_one_of(kind: tf.Tensor, kinds: tuple[Kind, ...]) -> tf.Tensor:
    """Whether each number in a batch's `kind` is one of some kinds: int32 [...] -> bool [...]."""
    numbers = tf.constant([int(each) for each in kinds], kind.dtype)
    return tf.reduce_any(tf.equal(kind[..., None], numbers), -1)


def in_mix(mix: tf.Tensor) -> dict[Kind, tf.Tensor]:
    """Whether each negative may be drawn by a mix, float32 [negatives]: dict to bool scalars."""
    return {kind: mix[number] > 0 for number, kind in enumerate(NEGATIVES)}


def draw_kinds(seed: tf.Tensor, mix: tf.Tensor, audio_windows: int,
               shape: tuple[int, ...] = ()) -> tf.Tensor:
    """Draws the kind of each audio window of a clip.

    Args:
        seed: int32 [2].
        mix: float32 [negatives], the part of each of `NEGATIVES`.
        audio_windows: K. With K > 1 the first window is the positive and the others are negatives;
            with K = 1 a fair coin decides between the two.
        shape: leading shape, for many clips at once.

    Returns:
        int32 [..., K].
    """
    seeds = tf.random.split(seed, 2)
    draws = tf.random.stateless_uniform([*shape, audio_windows], seeds[0])
    # A part of 0 must never be drawn, whatever the rounding of the sums.
    bounds = tf.cumsum(mix)[:-1]
    bounds = tf.where(bounds > 1.0 - 1e-6, 2.0, bounds)
    index = tf.searchsorted(bounds, tf.reshape(draws, [-1]), side='right')
    negatives = tf.gather([int(kind) for kind in NEGATIVES], tf.reshape(index, tf.shape(draws)))
    if audio_windows == 1:
        positive = tf.random.stateless_uniform([*shape, 1], seeds[1]) < 0.5
    else:
        positive = tf.range(audio_windows) == 0
    return tf.where(positive, int(Kind.POSITIVE), negatives)


def draw_frames(seed: tf.Tensor, starts: tf.Tensor, kinds: tf.Tensor,
                allowed: dict[Kind, tf.Tensor], config: Config,
                repeated: bool = True) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Draws the frames at which a clip's windows start.

    Args:
        seed: int32 [2].
        starts: int64 [F], start of each frame that a window can start with, in audio samples.
        kinds: int32 [..., K], wanted kinds.
        allowed: dict from each negative to a bool scalar, whether it may be drawn: those share one
            distribution of places (see places.py).
        config: `Config`.
        repeated: whether several windows may be negatives of one kind.

    Returns:
        (video, audio, kinds): int64 [...] and [..., K], numbers of frames; int32 [..., K], the
        kinds, of which those that do not fit in the clip have become easy.
    """
    # The first of several windows is the positive; of evaluation's, each is of another kind.
    windows = kinds.shape[-1]
    slots = max(1, windows - 1) if repeated else 1
    places = draw_places(
        seed, starts, allowed[Kind.HARD], allowed[Kind.SUPER_HARD], slots, window_rule(config),
        tuple(kinds.shape[:-1]))
    slot = tf.clip_by_value(tf.range(windows) - 1, 0, slots - 1)
    fits = {Kind.HARD: places.hard_fits, Kind.SUPER_HARD: places.super_hard_fits}
    fits = tf.stack([fits.get(kind, tf.constant(True)) for kind in Kind])
    kinds = tf.where(tf.gather(fits, kinds), kinds, int(Kind.EASY))
    audio = tf.broadcast_to(places.video[..., None], tf.shape(kinds))
    audio = tf.where(kinds == Kind.HARD, tf.gather(places.hard, slot, axis=-1), audio)
    audio = tf.where(kinds == Kind.SUPER_HARD, tf.gather(places.super_hard, slot, axis=-1), audio)
    return places.video, audio, kinds


def sample_clip(record: Record, usable: tf.Tensor, kinds: tf.Tensor, allowed: dict[Kind, tf.Tensor],
                seed: tf.Tensor, config: Config, repeated: bool = True) -> dict[str, tf.Tensor]:
    """Chooses the windows of clips of one record and cuts the audio; no frame is decoded here.

    Args:
        record: `records.Record` that holds at least one window.
        usable: int64 scalar, result of `usable_frames`.
        kinds: int32 [..., K], wanted kinds, with a leading shape for several clips. A hard or
            super-hard negative that does not fit becomes easy.
        allowed: kinds that may be drawn, as in `draw_frames`.
        seed: int32 [2].
        config: `Config`.
        repeated: as in `draw_frames`.

    Returns:
        Dict: `frame_index` int64 [..., frames], indices of the window's frames; `audio` int16 [...,
        K, samples]; `kind` int32 [..., K]; `video_start_seconds` float64 [...];
        `audio_start_seconds` float64 [..., K]; `replaced` int32 [...], the number of negatives
        that became easy.
    """
    clip = config.clip
    starts = tf.cast(tf.round(record.frame_seconds[:usable] * clip.sample_rate), tf.int64)
    first, audio_frames, kind = draw_frames(seed, starts, kinds, allowed, config, repeated)
    audio_starts = tf.gather(starts, audio_frames)
    audio = cut_audio(record, audio_starts, clip.window_samples)
    return {
        'frame_index': window_frames(record.frame_seconds, first, config),
        'audio': audio,
        'kind': kind,
        'video_start_seconds': tf.gather(record.frame_seconds, first),
        'audio_start_seconds': tf.cast(audio_starts, tf.float64) / clip.sample_rate,
        'replaced': tf.reduce_sum(tf.cast(kind != kinds, tf.int32), -1),
    }


def window_frames(frame_seconds: tf.Tensor, first: tf.Tensor, config: Config) -> tf.Tensor:
    """Indices of the frames nearest to the time of frame `first` plus k / fps: int64 [..., frames],
    where `first` is int64 [...].
    """
    steps = tf.range(config.clip.frames, dtype=tf.float64) / config.clip.fps
    times = tf.gather(frame_seconds, first)[..., None] + steps
    middles = (frame_seconds[1:] + frame_seconds[:-1]) / 2
    nearest = tf.searchsorted(middles, tf.reshape(times, [-1]), side='left', out_type=tf.int64)
    return tf.reshape(nearest, tf.shape(times))


def audio_at(record: Record, start_seconds: tf.Tensor, config: Config) -> tf.Tensor:
    """Audio windows that start at given times, with silence outside of the clip.

    Args:
        record: `records.Record`.
        start_seconds: float64 [...].
        config: `Config`.

    Returns:
        int16 [..., samples].
    """
    first = tf.cast(tf.round(start_seconds * config.clip.sample_rate), tf.int64)
    return cut_audio(record, first, config.clip.window_samples)


def cut_audio(record: Record, first: tf.Tensor, samples: int) -> tf.Tensor:
    """Audio windows, with silence outside of the clip.

    Where the record is played at another speed, samples lie between those recorded: they are
    interpolated by Keys's cubic convolution (IEEE TASSP 29, 1981).

    Args:
        record: `records.Record`.
        first: int64 [...], their first samples, as played.
        samples: length of a window.

    Returns:
        int16 [..., samples].
    """
    place = first[..., None] + tf.range(samples, dtype=tf.int64)
    last = tf.size(record.waveform, out_type=tf.int64) - 1
    outside = (place < 0) | (place >= clip_samples(record))

    def recorded(place: tf.Tensor) -> tf.Tensor:
        return tf.gather(record.waveform, tf.clip_by_value(place, 0, last))

    if record.speed is None:
        audio = recorded(place)
    else:
        position = tf.cast(place, tf.float64) * record.speed
        whole = tf.floor(position)
        part = tf.cast(position - whole, tf.float32)
        before, here, after, later = (
            tf.cast(recorded(tf.cast(whole, tf.int64) + k), tf.float32) for k in (-1, 0, 1, 2))
        slope = after - before
        square = 2.0 * before - 5.0 * here + 4.0 * after - later
        cube = 3.0 * (here - after) + later - before
        values = here + 0.5 * part * (slope + part * (square + part * cube))
        values = tf.clip_by_value(tf.round(values), tf.int16.min, tf.int16.max)
        audio = tf.cast(values, tf.int16)
    audio = tf.where(outside, tf.cast(0, tf.int16), audio)
    return tf.ensure_shape(audio, [*first.shape, samples])


def usable_frames(record: Record, config: Config) -> tf.Tensor:
    """The number of leading frames with which a whole window can start, of video and of audio.

    Returns:
        int64 scalar; 0 where the record is shorter than a window.
    """
    frame_seconds = record.frame_seconds
    span = (config.clip.frames - 1) / config.clip.fps
    # The last frame is shown as long as the others on average; a record need not state its rate.
    last = tf.reduce_max(frame_seconds)
    steps = tf.cast(tf.size(frame_seconds) - 1, tf.float64)
    interval = tf.math.divide_no_nan(last - tf.reduce_min(frame_seconds), steps)
    has_frames = frame_seconds + span <= last + interval / 2
    starts = tf.cast(tf.round(frame_seconds * config.clip.sample_rate), tf.int64)
    has_audio = starts + config.clip.window_samples <= clip_samples(record)
    return tf.reduce_sum(tf.cast(has_frames & has_audio, tf.int64))


def clip_samples(record: Record) -> tf.Tensor:
    """Samples of the clip within which windows may lie, as it is played: int64 scalar."""
    samples = tf.size(record.waveform, out_type=tf.int64)
    if record.speed is None:
        return samples
    return tf.cast(tf.cast(samples, tf.float64) / record.speed, tf.int64)


def fill_easy(batch: dict[str, tf.Tensor], config: Config) -> dict[str, tf.Tensor]:
    """Gives every easy negative of a batch another clip's audio, never one of the same example id.

    With `easy_place` "any" it is the other clip's first window, at the place of its own video
    window (of its negative, if K is 1 and a negative was drawn there). With "same" it is cut from
    the other clip at the place of this clip's video window, from its last window where it is
    shorter; clips that are long enough come first.

    Args:
        batch: dict with `audio` int16 [B, K, samples], `kind` int32 [B, K], `example_hash` int64
            [B], `audio_start_seconds` float64 [B, K] and `seed` int32 [B, 2]; for "same" also
            `waveform`, ragged int16 [B, samples of the clip].
        config: `Config`.

    Returns:
        The batch without `seed` and `waveform`, with `audio` and `audio_start_seconds` of the easy
        slots replaced, `audio_hash` int64 [B, K], the clip that each window comes from, and
        `label` float32 [B, K]. Where the batch holds no other clip, the kind becomes NO_PAIR.
    """
    batch = dict(batch)
    hashes, kind, seeds = batch['example_hash'], batch['kind'], batch.pop('seed')
    audio, starts = batch['audio'], batch['audio_start_seconds']
    slots, rows = kind.shape[1], tf.shape(kind)[0]
    draws = tf.map_fn(
        lambda seed: tf.random.stateless_uniform([slots, rows], seed), seeds,
        fn_output_signature=tf.TensorSpec([slots, None], tf.float32))                # [B, K, B]
    other = hashes[:, None] != hashes[None, :]                                       # [B, B]
    if 'waveform' in batch:
        waveform = batch.pop('waveform')
        window, rate = config.clip.window_samples, config.clip.sample_rate
        first = tf.cast(tf.round(starts * rate), tf.int64)                           # [B, K]
        last = tf.cast(waveform.row_lengths(), tf.int64) - window                    # [B]
        draws += tf.cast(first[..., None] <= last, tf.float32)
        source = tf.argmax(tf.where(other[:, None, :], draws, -1.0), axis=-1)        # [B, K]
        first = tf.minimum(first, tf.gather(last, source))
        places = tf.gather(tf.cast(waveform.row_starts(), tf.int64), source) + first
        samples = places[..., None] + tf.range(window, dtype=tf.int64)
        easy_audio = tf.gather(waveform.flat_values, samples)
        easy_starts = tf.cast(first, tf.float64) / rate
    else:
        source = tf.argmax(tf.where(other[:, None, :], draws, -1.0), axis=-1)        # [B, K]
        easy_audio, easy_starts = tf.gather(audio[:, 0], source), tf.gather(starts[:, 0], source)
    easy = is_one_of(kind, OTHER_RECORD_NEGATIVES)
    batch['audio'] = tf.where(easy[..., None], easy_audio, audio)
    batch['audio_start_seconds'] = tf.where(easy, easy_starts, starts)
    batch['audio_hash'] = tf.where(easy, tf.gather(hashes, source), hashes[:, None])
    batch['kind'] = tf.where(easy & ~tf.reduce_any(other, -1)[:, None], NO_PAIR, kind)
    batch['label'] = tf.cast(kind == Kind.POSITIVE, tf.float32)
    return batch
