"""Serialised records to clips: parsed, checked, cut; what cannot be used is left out and noted."""

import os
from collections.abc import Callable

import tensorflow as tf

from avts_tf.config import Config
from avts_tf.data import records
from avts_tf.data.reading import unpack
from avts_tf.data.records import Record, require
from avts_tf.data.sampling import usable_frames
from avts_tf.data.state import END, PipelineState

# Why a record is not used, besides `state.LOST`.
UNREADABLE, BAD_PICTURE = 'unreadable', 'bad_picture'
CONTENT_REASONS = ('no_frames', 'no_frame_times', 'bad_frame_times', 'no_audio', 'bad_sound',
                   'other_sample_rate', 'too_short')
PARALLEL_CLIPS = os.cpu_count()  # TensorFlow's tuning does not see a stage that leaves errors out

# (record, number of its usable frames, number of the pass over all epochs) -> dict of tensors
Cut = Callable[[Record, tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]


def cut_clips(elements: tf.data.Dataset, config: Config, state: PipelineState, skip: bool,
              cut: Cut) -> tf.data.Dataset:
    """Elements of `read_pass` to what a function cuts from them.

    Args:
        elements: `tf.data.Dataset` of what `unpack` reads.
        config: `Config`.
        state: `PipelineState`, in which is noted what cannot be used.
        skip: whether what cannot be used is left out, or fails.
        cut: makes a clip of a record that can be used.

    Returns:
        `tf.data.Dataset` of dicts of tensors: those of `cut`, and `position`.
    """
    def clip(*element: tuple) -> dict[str, tf.Tensor]:
        position, number, place, serialized = unpack(element)
        # What can fail waits for the note that says so.
        with tf.control_dependencies([state.note(position, UNREADABLE, place)]):
            record = records.parse(tf.identity(serialized))
        usable = usable_frames(record, config)
        fault = _content_fault(record, usable, config)
        # A record without a fault may still hold a frame that cannot be decoded.
        reason = tf.gather([*CONTENT_REASONS, BAD_PICTURE], fault)
        with tf.control_dependencies([state.note(position, reason, record.example_id)]):
            fine = require(fault == len(CONTENT_REASONS))
        with tf.control_dependencies([fine]):
            parts = cut(record, tf.identity(usable), number)
        with (tf.control_dependencies(list(parts.values())),
              tf.control_dependencies([state.clear(position)])):
            parts = {name: tf.identity(value) for name, value in parts.items()}
            return {'position': tf.identity(position), **parts}

    clips = elements.map(clip, PARALLEL_CLIPS)
    if not skip:
        return clips

    def settled(parts: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([state.settle(parts['position'])]):
            return {name: tf.identity(value) for name, value in parts.items()}

    clips = clips.ignore_errors().map(settled)
    # This gives no element: it only notes that the end is reached.
    end = tf.data.Dataset.from_tensors(END).filter(lambda end: state.settle(end) < 0)
    return clips.concatenate(end.flat_map(lambda _: clips))


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
