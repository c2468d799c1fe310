"""Synchronisation: does the model separate pairs in sync from those out of sync?"""

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import bootstrap

from avts_tf import metrics, progress
from avts_tf.data.aside import count_aside
from avts_tf.data.pipeline import make_dataset
from avts_tf.data.records import hash_name
from avts_tf.data.sampling import NEGATIVES, Kind
from avts_tf.data.shards import files_of, find_shards, total_records
from avts_tf.data.state import PipelineState, skips_as_json
from avts_tf.data.window_datasets import make_offset_dataset
from avts_tf.errors import UserError
from avts_tf.evaluation.labels import read_labels
from avts_tf.models.two_tower import TwoTower

THRESHOLD_CLIPS = 2000  # clips that the threshold is chosen on, at most
THRESHOLD_WINDOWS = 8  # windows of each record that is set aside for it, at most
CURVE_SECONDS = 1.0  # greatest offset of the sync curve, both ways
CURVE_CLIPS = 64

logger = logging.getLogger(__name__)


class SyncEvaluation(NamedTuple):
    """Result of `evaluate_sync`.

    Attributes:
        results: dict for `result.json`, see `evaluate_sync`.
        distances: dict from the kind of a pair to the distances of all such pairs, float32 [N].
    """

    results: dict
    distances: dict[str, np.ndarray]


def evaluate_sync(
    model: TwoTower, records: str, eval_records: str | None = None, *, windows_per_record: int = 4,
    epochs: int | None = None, trained_on: str | None = None, chosen_on: str | None = None,
    label_prefix: str | None = None,
) -> SyncEvaluation:
    """Measures AVTS accuracy and the AUC of each kind of negative.

    The distance threshold is the one with the highest balanced accuracy on up to `THRESHOLD_CLIPS`
    clips of the records that training sets aside (`data.aside`). Fewer than 20 training records
    are all trained on: then it comes from these.

    Args:
        model: trained model.
        records: glob of training records, for the threshold.
        eval_records: glob of records to measure on; None measures on `records`. Those that were
            trained on are measured, and the result says so.
        windows_per_record: windows drawn from each record, each with one pair of each kind.
        epochs: how many epochs the model was trained for, to be reported.
        trained_on: glob of the records that the model was trained on; None, or where they are gone,
            takes `records` for these.
        chosen_on: glob of the records that the checkpoint or the parameters were chosen on; None
            where nothing was chosen.
        label_prefix: of the labels by which easy pairs are split into those of one class and of
            two, as in `labels.read_labels`; None does not split them.

    Returns:
        A `SyncEvaluation`. Its `results` are those of `metrics.sync_metrics`, and of
        `metrics.split_easy` where they are split, with `measured_on`, `threshold_clips` (their
        number), `threshold_set_aside` (whether training set them aside), `held_out` (whether none
        of the files measured on were trained on), `chosen_on_these`, `epochs` and
        `skipped_records` (reason -> `times`, `first`).

    Raises:
        UserError: the records are unfit for it.

    Example:
        >>> results, distances = evaluate_sync(model, 'data/train-*', 'data/test-*')
        >>> results['avts_accuracy'], results['avts_accuracy_interval']
        (0.784..., [0.76..., 0.80...])
    """
    measured_on, parameter = records, 'records'
    if eval_records:
        measured_on, parameter = eval_records, 'eval_records'
    labels: dict[str, str] = {}
    if label_prefix is not None:  # first: a missing label should not cost a wait
        labels = read_labels(measured_on, label_prefix, parameter)
    shards = find_shards(records, tolerant=True)
    set_aside = count_aside(total_records(shards))
    windows = min(THRESHOLD_WINDOWS, THRESHOLD_CLIPS // max(1, set_aside))
    threshold_pairs, _ = _pairs(model, records, windows, 'records', aside=True, shards=shards)
    threshold = metrics.best_threshold(metrics.of_kind(threshold_pairs, Kind.POSITIVE),
                                       metrics.of_kind(threshold_pairs, Kind.EASY))
    pairs, skips = _pairs(model, measured_on, windows_per_record, parameter,
                          shards=None if eval_records else shards)
    results = metrics.sync_metrics(pairs, threshold)
    if label_prefix is not None:
        hashes = hash_name(list(labels)).numpy().tolist()
        class_of = dict(zip(hashes, labels.values(), strict=True))
        results.update(metrics.split_easy(pairs, threshold, class_of))
    results['threshold_clips'] = len(threshold_pairs['kind'])
    given, measured = files_of(records), files_of(measured_on)
    trained = files_of(trained_on) or given
    results['threshold_set_aside'] = set_aside > 0 and given == trained
    results['measured_on'] = measured_on
    results['held_out'] = measured.isdisjoint(trained)
    results['chosen_on_these'] = not measured.isdisjoint(files_of(chosen_on))
    if epochs is not None:
        results['epochs'] = epochs
    results['skipped_records'] = skips_as_json(skips)
    distances = {str(kind): metrics.of_kind(pairs, kind) for kind in Kind}
    return SyncEvaluation(results, distances)


def _pairs(
    model: TwoTower, pattern: str, passes: int, parameter: str, **options: Any,
) -> tuple[dict[str, np.ndarray], dict]:
    """Result of `metrics.pair_distances` on a glob, and the records that were skipped; options of
    `make_dataset`.
    """
    state = PipelineState()
    dataset = make_dataset(pattern, model.config, training=False, state=state, passes=passes,
                           parameter=parameter, **options)
    pairs = metrics.pair_distances(model, dataset, f'{parameter}: pairs')
    if skips := state.skips():
        logger.info('%s: %s', pattern, state.describe_skips())
    if not pairs:
        raise UserError(parameter, pattern, f'no usable clip; {state.describe_skips()}.')
    return pairs, skips


class SyncCurve(NamedTuple):
    """Distance between video and audio over the offset of the audio.

    Attributes:
        results: dict for `result.json`: `offset_seconds`, time of the audio window minus that of
            the video window; `distance`, mean over clips, and `interval`, its 95 % bootstrap
            interval, at each offset; `clips`; `lowest_at_seconds`.
        single: float [O], distances of the first clip, NaN where it is too short.
        single_id: example id of that clip.
    """

    results: dict
    single: np.ndarray
    single_id: str


def measure_sync_curve(
    model: TwoTower, records: str, parameter: str = 'eval_records',
) -> SyncCurve | None:
    """Distance against the offset of the audio, averaged over up to `CURVE_CLIPS` clips.

    Args:
        model: trained model.
        records: glob of records.
        parameter: name of the parameter that the glob comes from, for messages.

    Returns:
        A `SyncCurve`; None where most clips are hardly longer than a window.

    Example:
        >>> curve = measure_sync_curve(model, 'data/test-*')
        >>> curve.results['lowest_at_seconds']
        0.0
    """
    step = 1.0 / model.config.clip.fps
    count = round(CURVE_SECONDS / step)
    offsets = np.arange(-count, count + 1) * step
    dataset = make_offset_dataset(records, model.config, offsets, parameter=parameter)
    dataset = dataset.take(CURVE_CLIPS)
    rows, ids = [], []
    for clip in progress.bar(dataset, f'{parameter}: sync curve', unit='clip'):
        outputs = model.embed_batch({'video': clip['video'], 'audio': clip['audio']})
        distance = model.distances(outputs)[0].numpy()
        rows.append(np.where(clip['fits'].numpy(), distance, np.nan))
        ids.append(clip['example_id'].numpy().decode())
    distances = np.array(rows)
    # An offset that only some clips are long enough for would be a mean over other clips.
    common = np.isfinite(distances).mean(0) > 0.5 if rows else np.zeros(len(offsets), bool)
    if common.sum() < 3:
        return None
    offsets, distances = offsets[common], distances[:, common]
    mean = np.nanmean(distances, 0)
    results = {'offset_seconds': offsets.round(6).tolist(), 'distance': mean.tolist(),
               'interval': [_interval_of_mean(column) for column in distances.T],
               'clips': len(rows),
               'lowest_at_seconds': float(offsets[mean.argmin()].round(6))}
    return SyncCurve(results, distances[0], ids[0])


def _interval_of_mean(distances: np.ndarray) -> list[float]:
    """95 % percentile bootstrap interval of the mean of float [N] without NaN: [low, high]."""
    distances = distances[np.isfinite(distances)]
    if len(distances) < 2:
        return [float(distances[0])] * 2
    interval = bootstrap((distances,), np.mean, n_resamples=metrics.BOOTSTRAPS,
                         method='percentile', rng=0).confidence_interval
    return [float(interval.low), float(interval.high)]


def describe(results: dict) -> Iterator[str]:
    """Lines for the terminal, from the results of `evaluate_sync`."""
    where = ('records not trained on' if results['held_out'] else
             'the TRAINING records (others give an unbiased figure)')
    threshold_clips = f'{results["threshold_clips"]} ' + (
        'clips set aside from training' if results.get('threshold_set_aside') else
        'clips that training did not set aside')
    yield (f'Measured on {results["clips"]} windows of {results["examples"]} {where}; in brackets '
           f'95 % intervals; threshold {results["threshold"]:.3f} from {threshold_clips}; chance '
           'is 50 % and 0.5.')
    if results.get('chosen_on_these'):
        yield ('The checkpoint or the parameters were CHOSEN on these records, so that the figures '
               'are biased upwards; choose on others.')
    if 'avts_accuracy' in results:
        accuracy = metrics.percent(results['avts_accuracy'],
                                   results['avts_accuracy_interval'])
        yield f'AVTS accuracy (balanced, easy negatives): {accuracy}'
    yield f'{"pairs":<12}{"mean distance":>14}{"AUC":>24}{"accuracy":>26}'
    yield f'{Kind.POSITIVE:<12}{results["distance_positive"]:>14.3f}'
    for kind in NEGATIVES:
        if f'auc_{kind}' in results:
            low, high = results[f'auc_{kind}_interval']
            area = f'{results[f"auc_{kind}"]:.4f} [{low:.4f}, {high:.4f}]'
            accuracy = metrics.percent(results[f'accuracy_{kind}'],
                                       results[f'accuracy_{kind}_interval'])
            yield (f'{kind:<12}{results[f"distance_{kind}"]:>14.3f}{area:>24}{accuracy:>26}'
                   f'   {kind.description}')
