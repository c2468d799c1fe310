"""The classes of records, and a stratified draw of records."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from avts_tf.data.reading import in_plain_tensorflow
from avts_tf.data.records import parse_labels
from avts_tf.data.shards import find_shards
from avts_tf.errors import UserError


def read_labels(records: str, prefix: str = '', parameter: str = 'records') -> dict[str, str]:
    """The class of every record.

    Args:
        records: glob of records.
        prefix: of the labels of a record, the one that begins so is its class; it is cut off.
        parameter: name of the parameter that the glob comes from, for messages.

    Returns:
        Dict from example id to class.

    Raises:
        UserError: a record has no such label or several, or two records of one name differ in it.
    """
    paths = [path for path, _ in find_shards(records, parameter)]
    parsed = tf.data.TFRecordDataset(paths).map(in_plain_tensorflow(parse_labels))
    labels: dict[str, str] = {}
    for example, found in parsed.as_numpy_iterator():
        example, found = example.decode(), [label.decode() for label in found]
        fitting = [label for label in found if label.startswith(prefix)]
        if len(fitting) != 1:
            which = f' that begin with {prefix!r}' if prefix else ''
            remedy = ('choose one with `label_prefix`.' if found else
                      'write the records from a CSV with a label column.')
            raise UserError(parameter, records,
                            f'record {example!r} has {len(fitting) or "no"} labels{which} (its '
                            f'labels: {", ".join(found) or "none"}), but needs one; {remedy}')
        label = fitting[0][len(prefix):]
        if labels.setdefault(example, label) != label:
            raise UserError(parameter, records, f'two records are called {example!r}, of '
                            f'{labels[example]!r} and of {label!r}.')
    return labels


def stratified(labels: Mapping[str, str], count: int, seed: int) -> list[str]:
    """Draws records so that the classes keep their proportions.

    Args:
        labels: from example id to class.
        count: number of records, at least one per class.
        seed: of the draw.

    Returns:
        `count` example ids; those of a smaller count are among those of a larger one where the
        quotas allow it.

    Raises:
        UserError: there are more classes than `count`, or fewer records.

    Example:
        >>> stratified({'a1': 'a', 'a2': 'a', 'b1': 'b'}, 2, seed=0)
        ['a2', 'b1']
    """
    by_class: dict[str, list[str]] = {}
    for example in sorted(labels):
        by_class.setdefault(labels[example], []).append(example)
    if not len(by_class) <= count <= len(labels):
        raise UserError('train_clips', count, 'must lie between the number of classes, '
                        f'{len(by_class)}, and of records, {len(labels)}.')
    rng = np.random.default_rng(seed)
    names = sorted(by_class)
    for name in names:
        rng.shuffle(by_class[name])
    # One of each, then always of the class that is furthest below its proportion.
    quota = dict.fromkeys(names, 1)
    for _ in range(count - len(names)):
        behind = [name for name in names if quota[name] < len(by_class[name])]
        quota[max(behind, key=lambda name: len(by_class[name]) * count / len(labels)
                  - quota[name])] += 1
    return [example for name in names for example in by_class[name][:quota[name]]]
