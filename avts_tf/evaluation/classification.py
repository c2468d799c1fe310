"""Scores of clips against their classes: accuracies with intervals, per class, and the confusion matrix."""

import numpy as np

TOP = 5


def wilson_interval(right, total):
    """The 95 % interval of Wilson of a part `right` of `total`: [low, high]."""
    if not total:
        return [0.0, 1.0]
    z, part = 1.959963984540054, right / total
    middle = (part + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * np.sqrt(part * (1 - part) / total + z**2 / (4 * total**2))
    # Rounding must not leave a part of 0 or 1 outside of its own interval.
    return [float(min(max(middle - half, 0.0), part)), float(max(min(middle + half, 1.0), part))]


def rank_of_truth(scores, truth):
    """Number of classes that score at least as high as the true one, itself left out: float [N, C], int [N] -> int [N].

    A tie counts against the classifier, so that equal scores for all classes are not called right.
    """
    own = scores[np.arange(len(truth)), truth][:, None]
    return (scores >= own).sum(1) - 1


def classification_metrics(scores, truth, names):
    """What is reported of a classifier.

    Args:
        scores: float [N, C], higher for likelier.
        truth: int [N], the true classes.
        names: C names.

    Returns:
        Dict: `videos`; `top1`, `top1_interval` and, where there are more than 5 classes, `top5`, `top5_interval` (95 %, Wilson,
        over videos); `chance`, the part of the largest class; `per_class`, name -> {`right`, `videos`, `accuracy`,
        `interval`}; `confusion`, rows of counts, true class by predicted class.
    """
    rank, total, count = rank_of_truth(scores, truth), len(truth), len(names)
    results = {'videos': total, 'chance': float(np.bincount(truth, minlength=count).max() / total)}
    for top in (1, TOP):
        if top < count:
            right = int((rank < top).sum())
            results[f'top{top}'], results[f'top{top}_interval'] = right / total, wilson_interval(right, total)
    results['per_class'] = {}
    for index, name in enumerate(names):
        right, videos = int((rank[truth == index] < 1).sum()), int((truth == index).sum())
        if videos:
            results['per_class'][name] = {
                'right': right, 'videos': videos, 'accuracy': right / videos, 'interval': wilson_interval(right, videos)}
    confusion = np.zeros([count, count], int)
    np.add.at(confusion, (truth, scores.argmax(1)), 1)
    results['confusion'] = confusion.tolist()
    return results


def describe(results):
    """Lines for the terminal, from the result of `classification_metrics`."""
    line = f'top-1 {percent(results["top1"], results["top1_interval"])}'
    if 'top5' in results:
        line += f', top-5 {percent(results["top5"], results["top5_interval"])}'
    yield f'{line} of {results["videos"]} videos; the largest class alone is {100 * results["chance"]:.1f} %.'
    width = max(map(len, results['per_class']))
    for name, values in results['per_class'].items():
        yield f'  {name:<{width}} {values["right"]:>5} of {values["videos"]:<5} {percent(values["accuracy"], values["interval"])}'


def percent(value, interval):
    """"81.2 % [75.0, 86.1]"."""
    return f'{100 * value:.1f} % [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]'
