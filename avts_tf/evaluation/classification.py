"""The report of a classifier: accuracies with intervals, per class, and the confusion matrix."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from avts_tf.metrics import percent

TOP = 5


def wilson_interval(right: int, total: int) -> list[float]:
    """The 95 % interval of a proportion, by Wilson's method.

    Args:
        right: number of successes.
        total: number of trials.

    Returns:
        [low, high], both in [0, 1]; [0, 1] where there are no trials.

    Example:
        >>> wilson_interval(81, 263)
        [0.2553..., 0.3662...]
    """
    if not total:
        return [0.0, 1.0]
    interval = binomtest(right, total).proportion_ci(0.95, method='wilson')
    # Rounding must not leave a proportion of 0 or 1 outside of its own interval.
    return [min(float(interval.low), right / total), max(float(interval.high), right / total)]


def rank_of_truth(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Number of other classes that score at least as high as the true one.

    A tie counts against the classifier, and so does NaN: equal scores for all classes are wrong.
    scikit-learn's `top_k_accuracy_score` breaks ties by the order of the classes instead.

    Args:
        scores: float [N, C], higher for likelier.
        truth: int [N], the true classes.

    Returns:
        int [N], 0 where the true class scores highest.
    """
    own = scores[np.arange(len(truth)), truth][:, None]
    return (~(scores < own)).sum(1) - 1


def classification_report(scores: np.ndarray, truth: np.ndarray, names: Sequence[str]) -> dict:
    """What is reported of a classifier of sounds or of videos.

    Args:
        scores: float [N, C], higher for likelier.
        truth: int [N], the true classes.
        names: C names.

    Returns:
        Dict: `examples`, N; `chance`, the share of the largest class; `accuracy`,
        `accuracy_interval` and, where there are more than 5 classes, `top5`, `top5_interval` (95 %,
        Wilson, over examples); `per_class`, name -> {`right`, `examples`, `accuracy`, `interval`};
        `confusion`, rows of counts, true class by highest-scoring class. A tie counts against the
        accuracies; in `confusion` the first of equal classes is the predicted one.

    Example:
        >>> report = classification_report(np.eye(3), np.array([0, 1, 1]), ['a', 'b', 'c'])
        >>> report['accuracy'], report['confusion']
        (0.666..., [[1, 0, 0], [0, 1, 1], [0, 0, 0]])
    """
    rank, count = rank_of_truth(scores, truth), len(names)
    report: dict[str, Any] = {
        'examples': len(truth),
        'chance': float(np.bincount(truth, minlength=count).max() / len(truth))}
    for name, top in (('accuracy', 1), (f'top{TOP}', TOP)):
        if top < count:
            right = int((rank < top).sum())
            report[name], report[f'{name}_interval'] = (
                right / len(truth), wilson_interval(right, len(truth)))
    report['per_class'] = {}
    for index, name in enumerate(names):
        own = rank[truth == index] < 1
        if len(own):
            report['per_class'][name] = {
                **count_right(own), 'interval': wilson_interval(int(own.sum()), len(own))}
    report['confusion'] = confusion_matrix(truth, scores.argmax(1), labels=range(count)).tolist()
    return report


def count_right(right: np.ndarray) -> dict:
    """Dict of `right`, `examples` and `accuracy`, from bool [N]: which examples were right."""
    return {'right': int(right.sum()), 'examples': len(right), 'accuracy': float(right.mean())}


def describe_classes(report: dict) -> Iterator[str]:
    """A line for each class, from the result of `classification_report`."""
    width = max(map(len, report['per_class']))
    for name, values in report['per_class'].items():
        yield (f'  {name:<{width}} {values["right"]:>5} of {values["examples"]:<5} '
               f'{percent(values["accuracy"], values["interval"])}')
