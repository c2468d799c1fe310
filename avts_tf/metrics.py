"""Figures of synchronisation: how well distances separate pairs in sync from pairs out of sync."""

from collections.abc import Iterable, Mapping

import keras
import numpy as np
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from avts_tf import progress
from avts_tf.data.sampling import EASY, KINDS, POSITIVE

BOOTSTRAPS = 500


def pair_distances(
    model: keras.Model, batches: Iterable[Mapping[str, tf.Tensor]], title: str | None = None,
) -> dict[str, np.ndarray]:
    """Distances of all the pairs of an evaluation dataset.

    Args:
        model: `TwoTower`.
        batches: batches of `pipeline.make_dataset(..., training=False)`.
        title: of a progress bar; None shows none.

    Returns:
        Dict of arrays: `distance` float32 [N, K], `kind` int32 [N, K], `example_hash` int64 [N],
        `video_start_seconds` float64 [N], `audio_start_seconds` float64 [N, K]; empty where there
        are no batches.
    """
    names = 'kind', 'example_hash', 'video_start_seconds', 'audio_start_seconds'
    parts = []
    for batch in progress.bar(batches, title, unit='batch') if title else batches:
        outputs = model.embed_batch({'video': batch['video'], 'audio': batch['audio']})
        parts.append({**{name: batch[name].numpy() for name in names},
                      'distance': model.distances(outputs).numpy()})
    if not parts:
        return {}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def of_kind(pairs: Mapping[str, np.ndarray], kind: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of one kind.

    Args:
        pairs: result of `pair_distances`.
        kind: index into `sampling.KINDS`.

    Returns:
        Their distances, float32 [M], and the hashes of their clips, int64 [M].
    """
    is_kind = pairs['kind'] == kind
    owners = np.broadcast_to(pairs['example_hash'][:, None], is_kind.shape)
    return pairs['distance'][is_kind], owners[is_kind]


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve of "closer means in sync"; NaN where one side is empty.

    Args:
        positive: float [N], distances of pairs in sync.
        negative: float [M], distances of pairs out of sync.

    Returns:
        A number from 0 to 1: the probability that a positive pair is closer than a negative one.

    Example:
        >>> auc(np.array([0.1, 0.3]), np.array([0.2, 0.4]))
        0.75
    """
    if not len(positive) or not len(negative):
        return float('nan')
    truth = np.r_[np.ones(len(positive)), np.zeros(len(negative))]
    return float(roc_auc_score(truth, -np.r_[positive, negative]))


def balanced_accuracy(positive: np.ndarray, negative: np.ndarray, threshold: float) -> float:
    """Share of pairs that a distance threshold classifies rightly, both classes weighing the same.

    Args:
        positive, negative: as in `auc`.
        threshold: a smaller distance is called in sync.
    """
    # Compared in float64; a Python float would be rounded to the distances' float32.
    threshold = np.float64(threshold)
    return float((np.mean(positive < threshold) + np.mean(negative >= threshold)) / 2)


def best_threshold(positive: np.ndarray, negative: np.ndarray) -> float:
    """The distance threshold with the highest balanced accuracy, between two observed distances.

    Args:
        positive, negative: as in `auc`, neither empty.
    """
    values = np.unique(np.r_[positive, negative]).astype(np.float64)
    candidates = np.r_[values[0] - 1e-6, (values[1:] + values[:-1]) / 2, values[-1] + 1e-6]
    true_positive = np.searchsorted(np.sort(positive), candidates) / len(positive)
    true_negative = 1 - np.searchsorted(np.sort(negative), candidates) / len(negative)
    return float(candidates[np.argmax(true_positive + true_negative)])


def sync_metrics(pairs: Mapping[str, np.ndarray], threshold: float, seed: int = 0) -> dict:
    """What is reported of a set of pairs.

    Intervals are 95 % percentile intervals of a bootstrap over examples, because windows of one
    video are not independent.

    Args:
        pairs: result of `pair_distances`.
        threshold: a smaller distance is called in sync; chosen on other data.
        seed: of the bootstrap.

    Returns:
        Dict: `threshold`; `clips`, `examples`; `avts_accuracy` (balanced, easy negatives only); per
        negative kind `auc_KIND`, `accuracy_KIND`, `pairs_KIND`; `distance_KIND` of all kinds. Each
        accuracy and AUC has a `..._interval` [low, high].
    """
    positive, positive_owner = of_kind(pairs, POSITIVE)
    examples = np.unique(pairs['example_hash'])
    count = len(examples)
    results = {'threshold': threshold, 'clips': len(pairs['kind']), 'examples': count,
               'distance_positive': float(positive.mean())}
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(count, np.full(count, 1 / count), BOOTSTRAPS)
    positive_rows = np.searchsorted(examples, positive_owner)
    for kind in range(EASY, len(KINDS)):
        negative, owner = of_kind(pairs, kind)
        name = KINDS[kind]
        results[f'pairs_{name}'] = len(negative)
        if not len(negative):
            continue
        negative_rows = np.searchsorted(examples, owner)
        samples = [(np.repeat(positive, weight[positive_rows]),
                    np.repeat(negative, weight[negative_rows])) for weight in weights]
        samples = [(p, n) for p, n in samples if len(p) and len(n)]
        results[f'distance_{name}'] = float(negative.mean())
        results[f'auc_{name}'] = auc(positive, negative)
        results[f'accuracy_{name}'] = balanced_accuracy(positive, negative, threshold)
        drawn = [(auc(p, n), balanced_accuracy(p, n, threshold)) for p, n in progress.bar(
            samples, f'intervals, {name}', unit='sample', leave=False)]
        results[f'auc_{name}_interval'], results[f'accuracy_{name}_interval'] = map(
            _interval, zip(*drawn, strict=True))
    if 'accuracy_easy' in results:
        results['avts_accuracy'] = results['accuracy_easy']
        results['avts_accuracy_interval'] = results['accuracy_easy_interval']
    return results


def _interval(values: Iterable[float]) -> list[float]:
    return [float(value) for value in np.percentile(list(values), [2.5, 97.5])]
