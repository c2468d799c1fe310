"""Record files to serialised records, pass by pass.

A pass reads every record of a share once, in an order that follows from the seed and the number of
the pass. Every record that is read has a position in the epoch, and each clip of a batch carries
its own: to resume after a batch, `PipelineState.start` is set to the position after its last clip,
and what lies before is read but neither parsed nor decoded.
"""

from collections.abc import Callable

import tensorflow as tf

from avts_tf.config import Config
from avts_tf.data.records import require
from avts_tf.data.shares import ALL, Share
from avts_tf.data.state import LOST, PipelineState

# Nothing here needs AutoGraph, which would rewrite every function before it is traced: seconds of
# each start.
in_plain_tensorflow = tf.autograph.experimental.do_not_convert
PASS_BITS = 40  # a position is the number of the pass, shifted by this, plus that of the record
FILES_AT_ONCE = 8


def read_pass(shards: list[tuple[str, int]], config: Config, state: PipelineState,
              number: tf.Tensor, number_over_all: tf.Tensor, seed: int, skip: bool,
              chosen: Callable[[tf.Tensor], tf.Tensor] | None = None,
              share: Share = ALL, places: int = 1) -> tf.data.Dataset:
    """Serialised records of one pass, from `state.start` on.

    Args:
        shards: result of `shards.find_shards`.
        config: `Config`.
        state: `PipelineState`.
        number: int64 scalar, the pass in this epoch.
        number_over_all: int64 scalar, the pass counted over all epochs.
        seed: of the order.
        skip: whether damage to a file is noted in `state`, or fails.
        chosen: function from the number of a record, int64 scalar counted over all files, to
            whether it is read; None reads all.
        share: the part of the records that is read.
        places: numbers that a record takes as its position. More than one leave room for the
            clips that are cut from it, and these are shuffled, not the records.

    Returns:
        `tf.data.Dataset` of what `unpack` reads.
    """
    # This function is traced into a graph of its own, so that this sets no global state: it keeps
    # the caller's seed out.
    tf.random.set_seed(1)
    seed = tf.constant(seed, tf.int64) * 1_000_003 + number_over_all + 1
    parts = share.parts(shards)
    files = tf.data.Dataset.from_tensor_slices(tuple(map(list, zip(*parts, strict=True))))
    files = files.shuffle(len(parts), seed=seed, reshuffle_each_iteration=False)

    def read(path: tf.Tensor, *numbers: tf.Tensor) -> tf.data.Dataset:
        file, offset, first, until = (tf.cast(number, tf.int64) for number in numbers)
        # The range is counted first, so that a file which cannot be opened ends after as many
        # failures as it should hold records.
        whole = tf.data.Dataset.zip((
            tf.data.Dataset.range(first, until), tf.data.Dataset.from_tensors(path).repeat(),
            tf.data.TFRecordDataset(path).skip(first)))
        if skip:
            whole = whole.ignore_errors()
        end = tf.data.Dataset.from_tensors((tf.constant(-1, tf.int64), path, ''))

        def is_record(seen: tf.Tensor, item: tuple) -> tf.Tensor:
            def at_end() -> tf.Tensor:
                lost = until - first - seen
                key = -1 - tf.bitwise.left_shift(number, PASS_BITS) - file
                noted = tf.cond(
                    lost > 0, lambda: _after(state.note(key, LOST, path, lost), True),
                    lambda: tf.constant(False))
                with tf.control_dependencies([] if skip else [require(~noted)]):
                    return noted & False
            return tf.cond(item[0] >= 0, lambda: tf.constant(True), at_end)

        found = whole.concatenate(end).enumerate().filter(is_record)
        return found.filter(lambda _, item: chosen(offset + item[0])) if chosen else found

    elements = files.interleave(
        read, cycle_length=min(len(parts), FILES_AT_ONCE), num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True)
    if places == 1:
        elements = elements.shuffle(
            config.train.shuffle_records, seed=seed, reshuffle_each_iteration=False)
    start = state.start.read_value()
    first = tf.bitwise.right_shift(start, PASS_BITS)
    done = tf.bitwise.bitwise_and(start, 2**PASS_BITS - 1) // places
    skipped = tf.where(number < first, tf.constant(-1, tf.int64), 0)  # -1 skips all, unread
    done = tf.where(number == first, done, skipped)
    numbers = tf.data.Dataset.from_tensors((number, number_over_all)).repeat()
    numbered = tf.data.Dataset.zip((tf.data.Dataset.range(0, 2**PASS_BITS, places), elements))
    return tf.data.Dataset.zip((numbers, numbered.skip(done)))


def unpack(element: tuple) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """What an element of `read_pass` holds.

    Returns:
        (position, number of the pass over all epochs, file and number in it, serialised record).
    """
    (number, number_over_all), (index, (_, (record, path, serialized))) = element
    place = tf.strings.join([path, ': record ', tf.strings.as_string(record)])
    position = tf.bitwise.left_shift(number, PASS_BITS) + index
    return position, number_over_all, place, serialized


def _after(operation: tf.Operation, value: bool) -> tf.Tensor:
    """A value that is there after an operation."""
    with tf.control_dependencies([operation]):
        return tf.constant(value)


def ordered(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The end of every pipeline: the same order each time, whatever the number of threads and
    devices.
    """
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
