"""Datasets of windows in sync, for tasks other than the pairs: with class labels, and at offsets.
"""

from collections.abc import Sequence

import tensorflow as tf

from avts_tf.config import Config
from avts_tf.data.augment import change_audio, change_speed, strength_at
from avts_tf.data.clips import clip_seed, cut_clips, settle_clips
from avts_tf.data.images import decode_window
from avts_tf.data.pipeline import EVAL_SEED
from avts_tf.data.reading import in_plain_tensorflow, ordered, read_pass, unpack
from avts_tf.data.records import Record, parse_labels
from avts_tf.data.sampling import audio_at, clip_samples, window_frames
from avts_tf.data.shards import find_shards
from avts_tf.data.state import PipelineState


@in_plain_tensorflow
def make_labelled_dataset(pattern: str, config: Config, class_of: dict[str, int], *,
                          windows: int = 0,
                          streams: Sequence[str] = ('video', 'audio'),
                          state: PipelineState | None = None,
                          parameter: str = 'records') -> tf.data.Dataset:
    """Batches of windows in sync, each with the class of its record.

    Args:
        pattern: glob(s) of record files.
        config: `Config`.
        class_of: dict from example id to class index; records that it lacks are left out.
        windows: 0 for training: a window of each record at a random place, `passes_per_epoch`
            times an epoch, shuffled and augmented, anew in every epoch; a last batch that is not
            full is left out. Otherwise this many windows of each record, equally spaced from its
            first to its last, with the centre crop, one record at a time.
        streams: what to give, of 'video' and 'audio'; the other is not decoded.
        state: `PipelineState`, which gives the epoch and counts the records that no window could be
            taken from.
        parameter: name of the parameter that the pattern comes from, for messages.

    Returns:
        `tf.data.Dataset` of (inputs, class index): inputs a dict of `video` uint8 [B, frames,
        size, size, 3] and `audio` int16 [B, samples], with int32 [B]. B is the batch size for
        training, else `windows`.

    Raises:
        UserError: no record file matches, or one is damaged.

    Example:
        dataset = make_labelled_dataset('data/world-*', make_config('tiny'), {'world-0': 0})
        inputs, classes = next(iter(dataset))
    """
    shards = find_shards(pattern, parameter)
    training, state = not windows, state or PipelineState()
    passes = config.train.passes_per_epoch if training else 1
    seed = config.train.seed if training else EVAL_SEED
    entries = tf.lookup.KeyValueTensorInitializer(
        list(class_of), tf.constant(list(class_of.values()), tf.int32))
    table = tf.lookup.StaticHashTable(entries, -1)

    def window(record: Record, first: tf.Tensor, seed: tf.Tensor | None,
               strength: tf.Tensor | float = 1.0) -> dict[str, tf.Tensor]:
        inputs = {}
        if 'video' in streams:
            frames = tf.gather(record.frames, window_frames(record.frame_seconds, first, config))
            inputs['video'] = decode_window(frames, config, seed, strength)
        if 'audio' in streams:
            inputs['audio'] = audio_at(record, record.frame_seconds[first], config)
        return inputs

    def random_window(record: Record, usable: tf.Tensor, number: tf.Tensor) -> dict[str, tf.Tensor]:
        seeds = tf.random.split(clip_seed(record, seed, number), 3)
        strength = strength_at(config, state.epoch.read_value())
        record, usable = change_speed(record, usable, config, number, strength)
        first = tf.random.stateless_uniform([], seeds[0], 0, usable, tf.int64)
        inputs = window(record, first, seeds[1], strength)
        if 'audio' in streams:
            inputs['audio'] = change_audio(inputs['audio'], config, seeds[2], strength)
        return {**inputs, 'class': table.lookup(record.example_id)}

    def spaced_windows(record: Record, usable: tf.Tensor, number: tf.Tensor) -> dict[str,
                                                                                     tf.Tensor]:
        last = tf.cast(usable - 1, tf.float64)
        firsts = tf.linspace(tf.constant(0.0, tf.float64), last, windows)
        types = {'video': tf.uint8, 'audio': tf.int16}
        inputs = tf.map_fn(
            lambda first: window(record, first, None), tf.cast(tf.round(firsts), tf.int64),
            fn_output_signature={name: types[name] for name in streams})
        return {**inputs, 'class': tf.fill([windows], table.lookup(record.example_id))}

    def one_pass(number: tf.Tensor) -> tf.data.Dataset:
        over_all = (state.epoch.read_value() * passes if training else 0) + number
        return read_pass(shards, config, state, number, over_all, seed, skip=True)

    def has_class(*element: tuple) -> tf.Tensor:
        return table.lookup(parse_labels(unpack(element)[3])[0]) >= 0

    elements = tf.data.Dataset.range(passes).flat_map(one_pass).filter(has_class)
    cut = random_window if training else spaced_windows
    clips = settle_clips(cut_clips(elements, config, state, True, cut), state)
    if training:
        clips = clips.batch(config.train.batch_size, drop_remainder=True)
    return ordered(clips.map(lambda clip: ({name: clip[name] for name in streams}, clip['class'])))


@in_plain_tensorflow
def make_offset_dataset(pattern: str, config: Config, offsets_seconds: Sequence[float], *,
                        parameter: str = 'eval_records') -> tf.data.Dataset:
    """The middle video window of each record beside its audio at given offsets, one record at a
    time.

    Args:
        pattern: glob(s) of record files.
        config: `Config`.
        offsets_seconds: float [O], start of the audio window minus that of the video window.
        parameter: name of the parameter that the pattern comes from, for messages.

    Returns:
        `tf.data.Dataset` of dicts: `video` uint8 [1, frames, size, size, 3]; `audio` int16 [1, O,
        samples]; `fits` bool [O], whether that window lies within the clip; `example_id` string
        scalar; `label_string` string [L].

    Raises:
        UserError: no record file matches, or one is no TFRecord file.

    Example:
        for clip in make_offset_dataset('data/world-*', make_config('tiny'), [-0.2, 0.0, 0.2]):
            print(clip['example_id'].numpy(), clip['fits'].numpy())
    """
    shards, state = find_shards(pattern, parameter, tolerant=True), PipelineState()

    def shifted(record: Record, usable: tf.Tensor, number: tf.Tensor) -> dict[str, tf.Tensor]:
        first = usable // 2
        starts = record.frame_seconds[first] + tf.constant(offsets_seconds, tf.float64)
        first_samples = tf.cast(tf.round(starts * config.clip.sample_rate), tf.int64)
        ends = first_samples + config.clip.window_samples
        frames = tf.gather(record.frames, window_frames(record.frame_seconds, first, config))
        return {
            'video': decode_window(frames, config, None)[None],
            'audio': audio_at(record, starts, config)[None],
            'fits': (first_samples >= 0) & (ends <= clip_samples(record)),
            'example_id': record.example_id,
            'label_string': record.label_string,
        }

    zero = tf.constant(0, tf.int64)
    elements = read_pass(shards, config, state, zero, zero, EVAL_SEED, skip=True)
    return ordered(settle_clips(cut_clips(elements, config, state, True, shifted), state))
