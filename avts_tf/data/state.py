"""What a pipeline is told between epochs, and what it could not use.

A record that cannot be used is counted once a later record, or the end, has come through. One that
is still in flight, when a pipeline is dropped say, is not counted, and neither is one before the
position that was started from.
"""

import tensorflow as tf

from avts_tf.data.sampling import NEGATIVES, Kind

LOST = 'lost'  # the reason for what a damaged or vanished file no longer holds
NAMED_SKIPS = 5  # ids that are kept of each reason
END = 2**63 - 1  # a position after all others

Skips = dict[str, tuple[int, list[str]]]  # from reason to (count, ids of the first `NAMED_SKIPS`)


class PipelineState:
    """What a pipeline reads anew in every epoch, and what it could not use.

    Attributes:
        epoch: int64 variable, part of every seed.
        mix: float32 [negatives] variable, the part of each of `sampling.NEGATIVES`; easy only to
            begin with.
        start: int64 variable, position that an epoch starts from; 0 is its beginning.
        elsewhere: what other machines could not use, in the form of `skips`, which includes it.

    Example:
        >>> state = PipelineState()
        >>> state.mix.assign([0.75, 0.25, 0.0]).numpy().tolist()  # easy, hard, super-hard
        [0.75, 0.25, 0.0]
        >>> state.skips()
        {}
    """

    def __init__(self) -> None:
        self.elsewhere: Skips = {}
        with tf.device('CPU:0'):
            self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
            easy_only = [float(kind == Kind.EASY) for kind in NEGATIVES]
            self.mix = tf.Variable(easy_only, trainable=False)
            self.start = tf.Variable(0, dtype=tf.int64, trainable=False)
            # From position to reason, count and name. A record is entered before it is looked at
            # and removed when it is found good, so that one which makes an operation fail is noted.
            self._faults = tf.lookup.experimental.MutableHashTable(tf.int64, tf.string, '')
            # Position up to which all records are done: those after it may still be in flight.
            self._settled = tf.Variable(-1, dtype=tf.int64, trainable=False)

    def note(self, position: tf.Tensor, reason: tf.Tensor | str, name: tf.Tensor,
             count: tf.Tensor | int = 1) -> tf.Operation:
        """Notes in a graph what is wrong at a position, in place of what was noted there."""
        count = tf.strings.as_string(tf.convert_to_tensor(count))
        return self._faults.insert(position, tf.strings.join([reason, count, name], '\t'))

    def clear(self, position: tf.Tensor) -> tf.Operation:
        """Takes back in a graph what was noted of a position."""
        return self._faults.remove(tf.reshape(position, [1]))

    def settle(self, position: tf.Tensor) -> tf.Tensor:
        """Notes in a graph that all records up to a position are done."""
        return self._settled.assign(position)

    def reset_counts(self) -> None:
        """Forgets the records that were not used."""
        self.elsewhere = {}
        self._faults.remove(self._faults.export()[0])
        self._settled.assign(-1)

    def skips(self) -> Skips:
        """The records that could not be used, of those that have been met since the last reset.

        Returns:
            Dict from reason to (count, ids of the first `NAMED_SKIPS`), in the order of the
            records. Batches are made ahead of those that are asked for, so that records after the
            last batch may be among them.
        """
        return merge_skips(self._skips_until(self._settled.numpy()), self.elsewhere)

    def first_fault(self) -> tuple[str, str] | None:
        """(reason, name) of the first record that failed, in a pipeline that stops there; or None.
        """
        # The error comes in order: of what is noted, only the first was found bad; the others were
        # in flight.
        for reason, (_, names) in self._skips_until(END).items():
            return reason, names[0]
        return None

    def _skips_until(self, last: int) -> Skips:
        positions, values = (tensor.numpy() for tensor in self._faults.export())
        skips: Skips = {}
        for position, value in sorted(zip(positions, values, strict=True)):
            if position <= last:
                reason, count, name = value.decode(errors='replace').split('\t', 2)
                skips = merge_skips(skips, {reason: (int(count), [name])})
        return skips

    def describe_skips(self) -> str:
        """One sentence on the records that were not used, or ''."""
        return describe_skips(self.skips())


def merge_skips(first: Skips, second: Skips) -> Skips:
    """Two results of `PipelineState.skips`, one after the other, as one."""
    merged = dict(first)
    for reason, (count, names) in second.items():
        before, named = merged.get(reason, (0, []))
        merged[reason] = (before + count, list(dict.fromkeys([*named, *names]))[:NAMED_SKIPS])
    return merged


def skips_as_json(skips: Skips) -> dict[str, dict]:
    """A result of `PipelineState.skips` as result.json holds it."""
    return {reason: {'times': count, 'first': names} for reason, (count, names) in skips.items()}


def describe_skips(skips: Skips) -> str:
    """One sentence on a result of `PipelineState.skips`, or ''."""
    parts = [f'{count} {reason} (first: {", ".join(map(repr, names))})'
             for reason, (count, names) in skips.items()]
    return 'records skipped: ' + '; '.join(parts) if parts else ''
