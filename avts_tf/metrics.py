"""Synchronisation in figures: how well a pair of towers tells sound that is in sync from sound that is not."""

import numpy as np
from sklearn.metrics import roc_auc_score

from avts_tf import progress
from avts_tf.data.sampling import NEGATIVES, Kind

BOOTSTRAPS = 500


def pair_distances(model, batches, title=None):
    """Distances of all the pairs of an evaluation dataset.

    Args:
        model: `TwoTower`.
        batches: batches of `pipeline.make_dataset(..., training=False)`.
        title: of a progress bar; None shows none.

    Returns:
        Dict of arrays: `distance` float32 [N, K], `kind` int32 [N, K], `example_hash` int64 [N], `video_start_seconds` float64
        [N], `audio_start_seconds` float64 [N, K].
    """
    parts = []
    for batch in progress.bar(batches, title, unit='batch') if title else batches:
        outputs = model.embed_batch({'video': batch['video'], 'audio': batch['audio']})
        part = {name: batch[name].numpy() for name in ('kind', 'example_hash', 'video_start_seconds', 'audio_start_seconds')}
        parts.append({**part, 'distance': model.distances(outputs).numpy()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def of_kind(pairs, kind):
    """(distance, example_hash) of the pairs of one kind."""
    is_kind = pairs['kind'] == kind
    return pairs['distance'][is_kind], np.broadcast_to(pairs['example_hash'][:, None], is_kind.shape)[is_kind]


def auc(positive, negative):
    """Area under the ROC curve of "closer means in sync"; NaN where one side is empty."""
    if not len(positive) or not len(negative):
        return float('nan')
    truth = np.r_[np.ones(len(positive)), np.zeros(len(negative))]
    return float(roc_auc_score(truth, -np.r_[positive, negative]))


def balanced_accuracy(positive, negative, threshold):
    """Part of pairs that a distance threshold classifies rightly, both classes weighing the same."""
    threshold = np.float64(threshold)  # compares in float64, where a Python float would be rounded to the distances' float32
    return float((np.mean(positive < threshold) + np.mean(negative >= threshold)) / 2)


def best_threshold(positive, negative):
    """The distance threshold with the highest balanced accuracy, between two observed distances."""
    values = np.unique(np.r_[positive, negative]).astype(np.float64)
    candidates = np.r_[values[0] - 1e-6, (values[1:] + values[:-1]) / 2, values[-1] + 1e-6]
    true_positive = np.searchsorted(np.sort(positive), candidates) / len(positive)
    true_negative = 1 - np.searchsorted(np.sort(negative), candidates) / len(negative)
    return float(candidates[np.argmax(true_positive + true_negative)])


def sync_metrics(pairs, threshold, seed=0):
    """What `--mode=evaluate` reports of a set of pairs.

    Intervals are 95 % percentile intervals of a bootstrap over examples, because windows of one video are not independent.

    Args:
        pairs: result of `pair_distances`.
        threshold: distance below which a pair is said to be in sync, chosen on other data.
        seed: of the bootstrap.

    Returns:
        Dict: `threshold`; `clips`, `examples`; `avts_accuracy` (balanced, easy negatives only); per negative kind `auc_KIND`,
        `accuracy_KIND`, `pairs_KIND`; `distance_KIND` of all kinds. Each accuracy and AUC has a `..._interval` [low, high].
    """
    positive, positive_owner = of_kind(pairs, Kind.POSITIVE)
    examples = np.unique(pairs['example_hash'])
    results = {'threshold': threshold, 'clips': len(pairs['kind']), 'examples': len(examples),
               'distance_positive': float(positive.mean())}
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(examples), np.full(len(examples), 1 / len(examples)), BOOTSTRAPS)
    positive_rows = np.searchsorted(examples, positive_owner)
    for kind in NEGATIVES:
        negative, owner = of_kind(pairs, kind)
        results[f'pairs_{kind}'] = len(negative)
        if not len(negative):
            continue
        negative_rows = np.searchsorted(examples, owner)
        samples = [(np.repeat(positive, weight[positive_rows]), np.repeat(negative, weight[negative_rows])) for weight in weights]
        samples = [(p, n) for p, n in samples if len(p) and len(n)]
        results[f'distance_{kind}'] = float(negative.mean())
        results[f'auc_{kind}'] = auc(positive, negative)
        results[f'accuracy_{kind}'] = balanced_accuracy(positive, negative, threshold)
        drawn = [(auc(p, n), balanced_accuracy(p, n, threshold))
                 for p, n in progress.bar(samples, f'intervals, {kind}', unit='sample', leave=False)]
        results[f'auc_{kind}_interval'], results[f'accuracy_{kind}_interval'] = map(_interval, zip(*drawn, strict=True))
    if 'accuracy_easy' in results:
        results['avts_accuracy'] = results['accuracy_easy']
        results['avts_accuracy_interval'] = results['accuracy_easy_interval']
    return results


def _interval(values):
    return [float(value) for value in np.percentile(values, [2.5, 97.5])]
