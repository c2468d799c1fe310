"""The folds of a collection: those that are published, or made of whole recordings."""

import collections
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from avts_tf.data.datasets import Source
from avts_tf.errors import UserError

TRAIN_PARTS, TEST_PARTS = ('train', 'development'), ('test', 'held', 'evaluation')


class Fold(NamedTuple):
    """One test of a cross-validation.

    Attributes:
        name: what the fold is called.
        train: int [N], indices of the clips that are trained on.
        test: int [M], indices of the clips that are tested.
    """

    name: str
    train: np.ndarray
    test: np.ndarray


def plan_folds(sources: Sequence[Source], input_path: str, make_folds: int = 0,
               seed: int = 0) -> list[Fold]:
    """The tests that a collection's parts ask for.

    Args:
        sources: clips with their class, their part and their recording.
        input_path: for the messages.
        make_folds: number of folds to make of whole recordings; 0 takes the published ones.
        seed: of the folds that are made.

    Returns:
        List of `Fold`: each part is tested once, by a classifier trained on all others; or, where
        the parts are called train and test (or development and evaluation), that one test.

    Raises:
        UserError: classes or parts are missing, a recording lies in two parts, or a class is in one
            part only.
    """
    unlabelled = next((source for source in sources if not source.label), None)
    if unlabelled:
        raise UserError('input', input_path,
                        f'{unlabelled.data_path} has no class; a CSV needs a label column, a '
                        'folder one subfolder per class.')
    labels = np.array([source.label for source in sources])
    groups = np.array([source.group for source in sources])
    if len(set(labels)) < 2:
        raise UserError('input', input_path,
                        f'{len(set(labels))} class(es); classification needs 2 or more.')
    if make_folds:
        folds = _made_folds(labels, groups, make_folds, seed, input_path)
    else:
        folds = _published_folds(sources, groups, input_path)
    for fold in folds:
        unknown = sorted(set(labels[fold.test].tolist()) - set(labels[fold.train].tolist()))
        if unknown:
            raise UserError('input', input_path,
                            f'class {unknown[0]!r} is in {fold.name} only, so that there is '
                            'nothing to train on when that is tested; add clips of it to other '
                            'folds, or leave it out.')
    return folds


def _published_folds(
    sources: Sequence[Source], groups: np.ndarray, input_path: str,
) -> list[Fold]:
    parts = np.array([source.split for source in sources])
    if not all(parts):
        raise UserError('input', input_path,
                        f'{sources[int(np.argmin(parts != ""))].data_path} is in no fold; give the '
                        'CSV a column fold, or use `make_folds`=5 for folds of whole recordings.')
    names = sorted(set(parts), key=lambda name: (len(name), name))
    owner: dict[str, tuple[str, Source]] = {}
    for part, group, source in zip(parts, groups, sources, strict=True):
        if owner.setdefault(group, (part, source))[0] != part:
            other_part, other = owner[group]
            raise UserError('input', input_path,
                            f'{other.data_path} in {other_part} and {source.data_path} in {part} '
                            f'are of one recording ({group}), so that the test would not be '
                            'independent of the training.')
    trained = [name for name in names if name in TRAIN_PARTS]
    tested = [name for name in names if name in TEST_PARTS]
    if trained and tested and len(names) == 2:
        return [Fold(tested[0], np.flatnonzero(parts == trained[0]),
                     np.flatnonzero(parts == tested[0]))]
    if len(names) == 1:
        raise UserError('input', input_path,
                        f'one part only, {names[0]}; a test needs another to train on '
                        '(`make_folds`=5 makes folds of whole recordings).')
    if trained or tested:
        raise UserError('input', input_path,
                        f'the parts {", ".join(names)} are neither folds nor one to train on and '
                        'one to test.')
    return [Fold(name, np.flatnonzero(parts != name), np.flatnonzero(parts == name))
            for name in names]


def _made_folds(
    labels: np.ndarray, groups: np.ndarray, count: int, seed: int, input_path: str,
) -> list[Fold]:
    fewest, name = min((len(set(groups[labels == name])), str(name)) for name in set(labels))
    if fewest < 2:
        raise UserError('make_folds', count,
                        f'class {name!r} of `input`={input_path} has one recording, so that there '
                        'is nothing to train on when that is tested.')
    # Where a class has fewer recordings than there are folds, some folds lack it.
    if not 2 <= count <= min(len(set(groups)), max(collections.Counter(labels.tolist()).values())):
        raise UserError('make_folds', count,
                        f'`input`={input_path} has {len(set(groups))} recordings of '
                        f'{len(set(labels))} classes; use 2 or more, and not more than the largest '
                        'class has clips.')
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='The least populated class')
        folds = [Fold(f'made{number}', *fold)
                 for number, fold in enumerate(splitter.split(labels, labels, groups), 1)]
    # With nearly as many folds as recordings one can stay empty.
    return [fold for fold in folds if len(fold.test)]
