"""Records of the training set that are not trained on, but set aside.

The distance threshold of an evaluation is chosen on them, and where there are no other records the
AUC after each epoch is measured on them. Which they are follows from the number of records alone,
so that nothing needs to be remembered: they lie evenly over the files.
"""

from typing import TypeVar

import tensorflow as tf

ASIDE_PART = 0.1
MOST_ASIDE = 2000

_Number = TypeVar('_Number', int, tf.Tensor)


def count_aside(records: int) -> int:
    """How many of a number of records are set aside: a tenth, at most `MOST_ASIDE`.

    None where that would be fewer than 2: an easy negative needs the audio of another record.

    Example:
        >>> [count_aside(records) for records in (19, 20, 709, 240_000)]
        [0, 2, 70, 2000]
    """
    count = min(int(records * ASIDE_PART), MOST_ASIDE)
    return count if count >= 2 else 0


def is_aside(number: _Number, records: int) -> _Number | bool:
    """Whether a record is set aside.

    Args:
        number: of the record, from 0, counted over all files; int or int64 tensor.
        records: how many there are.

    Example:
        >>> [number for number in range(30) if is_aside(number, records=30)]
        [0, 10, 20]
    """
    return number * count_aside(records) % records < count_aside(records)


def trained_before(number: int, records: int) -> int:
    """How many of the first `number` of some records are not set aside.

    Example:
        >>> trained_before(12, records=30)  # 0 and 10 are set aside
        10
    """
    # Record `number` is set aside where the multiples of `records` below or at `number * aside`
    # are one more than those of the record before.
    aside = count_aside(records)
    return number - ((number - 1) * aside // records + 1 if aside else 0)
