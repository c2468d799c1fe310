"""Figures of synchronisation: how well distances separate pairs in sync from pairs out of sync."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from avts_tf import progress
from avts_tf.data.sampling import NEGATIVES, Kind

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
        Dict of arrays: `distance` float32 [N, K], `kind` int32 [N, K], `example_hash` int64 [N] and
        `audio_hash` int64 [N, K], the records that video and audio come from; empty where there
        are no batches.
    """
    names = 'kind', 'example_hash', 'audio_hash'
    parts = []
    for batch in progress.bar(batches, title, unit='batch') if title else batches:
        outputs = model.embed_batch({'video': batch['video'], 'audio': batch['audio']})
        parts.append({**{name: batch[name].numpy() for name in names},
                      'distance': model.distances(outputs).numpy()})
    if not parts:
        return {}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def of_kind(pairs: Mapping[str, np.ndarray], kind: Kind) -> np.ndarray:
    """The distances of the pairs of one kind.

    Args:
        pairs: result of `pair_distances`.
        kind: a `sampling.Kind`.

    Returns:
        float32 [M].
    """
    return pairs['distance'][pairs['kind'] == kind]


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


def sync_metrics(pairs: Mapping[str, np.ndarray], threshold: float) -> dict:
    """What is reported of a set of pairs.

    Intervals are 95 % percentile intervals of a bootstrap over records, see `_resampled`.

    Args:
        pairs: result of `pair_distances`.
        threshold: a smaller distance is called in sync; chosen on other data.

    Returns:
        Dict: `threshold`; `clips`, `examples`; `avts_accuracy` (balanced, easy negatives only); per
        negative kind `auc_KIND`, `accuracy_KIND`, `pairs_KIND`; `distance_KIND` of all kinds. Each
        accuracy and AUC has a `..._interval` [low, high].
    """
    positive = of_kind(pairs, Kind.POSITIVE)
    results: dict[str, Any] = {'threshold': threshold, 'clips': len(pairs['kind']),
               'examples': len(np.unique(pairs['example_hash'])),
               'distance_positive': float(positive.mean())}
    for kind in NEGATIVES:
        negative, name = of_kind(pairs, kind), str(kind)
        results[f'pairs_{name}'] = len(negative)
        if not len(negative):
            continue
        results[f'distance_{name}'] = float(negative.mean())
        results[f'auc_{name}'] = auc(positive, negative)
        results[f'accuracy_{name}'] = balanced_accuracy(positive, negative, threshold)
        low, high = np.percentile(_resampled(pairs, kind, threshold), [2.5, 97.5], axis=0)
        for place, figure in enumerate(('auc', 'accuracy')):
            results[f'{figure}_{name}_interval'] = [float(low[place]), float(high[place])]
    if 'accuracy_easy' in results:
        results['avts_accuracy'] = results['accuracy_easy']
        results['avts_accuracy_interval'] = results['accuracy_easy_interval']
    return results


def split_easy(
    pairs: Mapping[str, np.ndarray], threshold: float, class_of: Mapping[int, str],
) -> dict[str, float]:
    """How well easy pairs are separated whose audio is of the video's own class, or of another.

    Whoever only knows *what* sounds separates the latter alone.

    Args:
        pairs: result of `pair_distances`.
        threshold: a smaller distance is called in sync.
        class_of: from the hash of a record (`records.hash_name`) to its class.

    Returns:
        Dict: `pairs_easy_SPLIT`, and, where there are any, `accuracy_easy_SPLIT` (balanced, with
        all positive pairs) and `auc_easy_SPLIT`, for SPLIT `same_class` and `other_class`.
    """
    positive = of_kind(pairs, Kind.POSITIVE)
    classes = np.unique(list(class_of.values())).tolist()
    number_of = {record: classes.index(name) for record, name in class_of.items()}
    is_easy = pairs['kind'] == Kind.EASY
    owners = np.broadcast_to(pairs['example_hash'][:, None], is_easy.shape)[is_easy]
    seen, heard = ([number_of[record] for record in hashes.tolist()]
                   for hashes in (owners, pairs['audio_hash'][is_easy]))
    is_same = np.equal(seen, heard)
    results: dict[str, float] = {}
    for name, chosen in (('same_class', is_same), ('other_class', ~is_same)):
        negative = pairs['distance'][is_easy][chosen]
        results[f'pairs_easy_{name}'] = len(negative)
        if len(negative):
            results[f'accuracy_easy_{name}'] = balanced_accuracy(positive, negative, threshold)
            results[f'auc_easy_{name}'] = auc(positive, negative)
    return results


def _resampled(
    pairs: Mapping[str, np.ndarray], kind: Kind, threshold: float,
) -> np.ndarray:
    """AUC and balanced accuracy of bootstrap samples: float64 [samples, 2].

    Records are drawn with replacement, because windows of one video are not independent. A pair of
    one record counts as often as the record was drawn; an easy pair, of the video of one and the
    audio of another, by the product of the numbers of both: the pigeonhole bootstrap (Owen, The
    pigeonhole bootstrap, Annals of Applied Statistics 1, 2007), here with the same draw for both
    sides, because a record is both a video and an audio owner. Its intervals are slightly too wide
    where neither owner matters, and not too narrow where one does.
    """
    is_used = (pairs['kind'] == Kind.POSITIVE) | (pairs['kind'] == kind)
    distance, is_negative = pairs['distance'][is_used], pairs['kind'][is_used] == kind
    videos = np.broadcast_to(pairs['example_hash'][:, None], is_used.shape)[is_used]
    audios = pairs['audio_hash'][is_used]
    records = np.unique(np.r_[videos, audios])
    videos, audios = np.searchsorted(records, videos), np.searchsorted(records, audios)
    values, place = np.unique(distance, return_inverse=True)
    is_far = values[place] >= np.float64(threshold)
    rng, samples = np.random.default_rng(0), []
    for drawn in rng.multinomial(len(records), np.full(len(records), 1 / len(records)), BOOTSTRAPS):
        weight = drawn[videos] * np.where(videos == audios, 1, drawn[audios])
        of_negative = np.bincount(place, weight * is_negative, len(values))
        of_positive = np.bincount(place, weight * ~is_negative, len(values))
        negatives, positives = of_negative.sum(), of_positive.sum()
        if negatives and positives:
            closer = np.cumsum(of_positive) - of_positive / 2  # a tie counts half
            right = (weight @ (is_far & is_negative) / negatives
                     + weight @ ~(is_far | is_negative) / positives)
            samples.append((of_negative @ closer / (negatives * positives), right / 2))
    return np.array(samples)


def percent(value: float, interval: Sequence[float]) -> str:
    """A proportion and its interval in words: "81.2 % [75.0, 86.1]"."""
    return f'{100 * value:.1f} % [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]'
