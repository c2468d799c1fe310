"""Serialised records to clips: parsed, checked, cut; what cannot be used is left out and noted."""

import os
from collections.abc import Callable, Container

import tensorflow as tf

from avts_tf.config import Config
from avts_tf.data import records
from avts_tf.data.reading import unpack
from avts_tf.data.records import Record, require
from avts_tf.data.sampling import usable_frames
from avts_tf.data.state import END, PipelineState

# Why a record is not used, besides `state.LOST`.
UNREADABLE, BAD_FRAME = 'unreadable', 'bad_frame'
CONTENT_REASONS = ('no_frames', 'no_frame_times', 'bad_frame_times', 'no_audio', 'bad_audio',
                   'other_sample_rate', 'too_short')
PARALLEL_CLIPS = os.cpu_count()  # TensorFlow's tuning does not see a stage that leaves errors out

# (record, number of its usable frames, number of the pass over all epochs) -> dict of tensors
Cut = Callable[[Record, tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]
Clip = dict[str, tf.Tensor]


def cut_clips(elements: tf.data.Dataset, config: Config, state: PipelineState, skip: bool,
              cut: Cut) -> tf.data.Dataset:
    """Elements of `read_pass` to what a function cuts from them.

    Args:
        elements: `tf.data.Dataset` of what `unpack` reads.
        config: `Config`.
        state: `PipelineState`, in which is noted what cannot be used.
        skip: whether what cannot be used is left out, or fails.
        cut: makes a clip, or several, of a record that can be used.

    Returns:
        `tf.data.Dataset` of dicts of tensors: those of `cut`, and `position`.
    """
    def clip(*element: tuple) -> Clip:
        position, number, place, serialized = unpack(element)
        # What can fail waits for the note that says so.
        with tf.control_dependencies([state.note(position, UNREADABLE, place)]):
            record = records.parse(tf.identity(serialized))
        usable = usable_frames(record, config)
        fault = _content_fault(record, usable, config)
        # A record without a fault may still hold a frame that cannot be decoded.
        reason = tf.gather([*CONTENT_REASONS, BAD_FRAME], fault)
        with tf.control_dependencies([state.note(position, reason, record.example_id)]):
            fine = require(fault == len(CONTENT_REASONS))
        with tf.control_dependencies([fine]):
            parts = cut(record, tf.identity(usable), number)
        return _found_good({'position': position, **parts}, state)

    return _mapped(elements, clip, skip)


def mix_clips(clips: tf.data.Dataset, records: int, shared: Container[str]) -> tf.data.Dataset:
    """Several clips of each record to single ones, mixed with those of other records.

    They are mixed in blocks of records. A block gives one clip of each of its records in a random
    order, then the next clip of each in another order, and so on: clips of one record lie about a
    block apart. While the clips of a block are taken the next block is read.

    Args:
        clips: result of `cut_clips`, whose tensors have n clips as their first dimension. `seed`
            int32 [n, 2] among them decides the order.
        records: number of records in a block.
        shared: names of the tensors that all clips of a record have in common.

    Returns:
        `tf.data.Dataset` of dicts of the same tensors without the first dimension. The `position`
        of a clip is that of the first record of its block, plus its number in the block.
    """
    count = clips.element_spec['seed'].shape[0]

    def mix(parts: dict[str, tf.data.Dataset]) -> tf.data.Dataset:
        block = tf.data.Dataset.zip(parts)
        first = block.take(1).get_single_element()

        def one_of_each(number: tf.Tensor) -> tf.data.Dataset:
            tf.random.set_seed(1)  # as in `read_pass`
            chosen = block.map(lambda clip: {
                name: value if name in shared else value[number] for name, value in clip.items()})
            return chosen.shuffle(records, seed=tf.bitcast(first['seed'][number], tf.int64),
                                  reshuffle_each_iteration=False)

        mixed = tf.data.Dataset.range(count).flat_map(one_of_each).enumerate(first['position'])
        return mixed.map(lambda position, clip: {**clip, 'position': position})

    return clips.window(records).prefetch(1).flat_map(mix)


def decode_clips(clips: tf.data.Dataset, state: PipelineState, skip: bool,
                 decode: Callable[[Clip], Clip]) -> tf.data.Dataset:
    """Clips to clips with their pictures.

    Args:
        clips: `tf.data.Dataset` of dicts with `position` and `example_id`.
        state: `PipelineState`, in which is noted what cannot be used.
        skip: whether what cannot be used is left out, or fails.
        decode: makes what follows of a clip without `position` and `example_id`.

    Returns:
        `tf.data.Dataset` of dicts of tensors: those of `decode`, and `position`.
    """
    def decoded(clip: Clip) -> Clip:
        position, name = clip.pop('position'), clip.pop('example_id')
        with tf.control_dependencies([state.note(position, BAD_FRAME, name)]):
            clip = {name: tf.identity(value) for name, value in clip.items()}
        return _found_good({'position': position, **decode(clip)}, state)

    return _mapped(clips, lambda clip: decoded(dict(clip)), skip)


def settle_clips(clips: tf.data.Dataset, state: PipelineState) -> tf.data.Dataset:
    """Clips, of which each settles in a `PipelineState` that all records before it are done."""
    def settled(clip: Clip) -> Clip:
        with tf.control_dependencies([state.settle(clip['position'])]):
            return {name: tf.identity(value) for name, value in clip.items()}

    clips = clips.map(settled)
    # This gives no element: it only notes that the end is reached.
    end = tf.data.Dataset.from_tensors(END).filter(lambda end: state.settle(end) < 0)
    return clips.concatenate(end.flat_map(lambda _: clips))


def _mapped(dataset: tf.data.Dataset, function: Callable, skip: bool) -> tf.data.Dataset:
    dataset = dataset.map(function, PARALLEL_CLIPS)
    return dataset.ignore_errors() if skip else dataset


def _found_good(clip: Clip, state: PipelineState) -> Clip:
    """A clip, all of which is made before what was noted at its position is taken back."""
    with (tf.control_dependencies(list(clip.values())),
          tf.control_dependencies([state.clear(clip['position'])])):
        return {name: tf.identity(value) for name, value in clip.items()}


def _content_fault(record: Record, usable: tf.Tensor, config: Config) -> tf.Tensor:
    """What keeps a record from being used: int64 scalar, index into `CONTENT_REASONS`, or their
    number.
    """
    seconds = record.frame_seconds
    steps = seconds[1:] - seconds[:-1]
    finite = tf.reduce_all(tf.math.is_finite(seconds))
    # A gap as long as a window would be filled with a single frame.
    in_order = finite & tf.reduce_all((steps >= 0.0) & (steps < config.clip.window_seconds))
    conditions = [
        tf.size(record.frames) == 0,
        (tf.size(record.frames) > 1) & (tf.reduce_max(seconds) <= 0.0),
        ~in_order,
        tf.size(record.waveform) == 0,
        ~record.finite_audio,
        tf.round(record.sample_rate) != config.clip.sample_rate,
        usable == 0,
    ]
    return tf.argmax(tf.stack([*conditions, tf.constant(True)]))


def clip_seed(record: Record, seed: int, number: tf.Tensor) -> tf.Tensor:
    """The seed of a record in a pass, which counts over all epochs: int32 [2]."""
    seed = tf.stack([tf.constant(seed, tf.int64), number])
    hashed = records.hash_name(record.example_id)
    return tf.random.fold_in(tf.cast(seed, tf.int32), tf.cast(hashed % (2**31 - 1), tf.int32))
