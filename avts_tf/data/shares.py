"""Which part of the training records each of several machines reads.

The records, counted over all files in the order of their paths, are cut into as many stretches as
there are machines. A stretch is whole files but for its two ends. Of a file that two machines share
each passes over the other's records unread, so that it does not matter whether there are more files
than machines or fewer, nor how long the files are.
"""

import itertools
from typing import NamedTuple

from avts_tf.data.aside import trained_before
from avts_tf.data.shards import total_records


class Part(NamedTuple):
    """The records of one file that a machine reads.

    Attributes:
        path: the file.
        file: its number among all files.
        offset: number of the file's first record, counted over all files.
        first, end: the records that are read, counted in the file, without `end`.
    """

    path: str
    file: int
    offset: int
    first: int
    end: int


class Share(NamedTuple):
    """The share of one machine; that of a single one is all records.

    Attributes:
        number: of the machine, from 0.
        machines: how many there are.

    Example:
        >>> [(part.path, part.first, part.end) for part in Share(1, 2).parts([('a', 6), ('b', 4)])]
        [('a', 5, 6), ('b', 0, 4)]
    """

    number: int = 0
    machines: int = 1

    def parts(self, shards: list[tuple[str, int]]) -> list[Part]:
        """What is read of each file; `shards` is the result of `shards.find_shards`."""
        offsets = itertools.accumulate((count for _, count in shards), initial=0)
        low, high = self._bounds(total_records(shards))
        parts = [Part(path, file, offset, max(low - offset, 0), min(high - offset, count))
                 for file, ((path, count), offset) in enumerate(zip(shards, offsets, strict=False))]
        return [part for part in parts if part.first < part.end]

    def count_trained(self, stored: int) -> int:
        """How many records of the share are trained on, of so many in all files."""
        low, high = self._bounds(stored)
        return trained_before(high, stored) - trained_before(low, stored)

    def _bounds(self, stored: int) -> tuple[int, int]:
        return (self.number * stored // self.machines,
                (self.number + 1) * stored // self.machines)


ALL = Share()


def least_trained(stored: int, machines: int) -> int:
    """The least number of records that a machine trains on, of so many in all files."""
    return min(Share(number, machines).count_trained(stored) for number in range(machines))
