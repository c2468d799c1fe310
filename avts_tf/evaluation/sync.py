"""`--mode=evaluate`: does the model tell in sync from out of sync on records that it never saw?"""

import os

import numpy as np

from avts_tf import metrics, plots, progress
from avts_tf.data.pipeline import make_dataset
from avts_tf.data.sampling import NEGATIVES, Kind
from avts_tf.data.shards import files_of
from avts_tf.data.state import PipelineState
from avts_tf.data.window_datasets import make_offset_dataset
from avts_tf.errors import UserError
from avts_tf.training.run_folder import update_result, writing

CURVE_SECONDS = 1.0  # greatest offset of the sync curve, both ways
CURVE_CLIPS = 64


def evaluate_sync(model, pattern, eval_pattern, run_dir, windows_per_record=4, say=print, epochs=None, chosen_on=None):
    """Measures synchronisation and writes `result.json`, `plots/distances.png`.

    The distance threshold is the one with the highest balanced accuracy on the training records.

    Args:
        model: trained `TwoTower`.
        pattern: glob of training records, for the threshold.
        eval_pattern: glob of records that were not trained on; None measures on the training records and says so.
        run_dir: run folder.
        windows_per_record: windows drawn from each record, each with one pair of each kind.
        say: function that shows a line of text.
        epochs: how many the model was trained for, to be told beside the figures.
        chosen_on: glob of the records that the checkpoint or the parameters were chosen on; None where nothing was chosen.

    Returns:
        The metrics, as in `metrics.sync_metrics`.

    Raises:
        UserError: the records are not fit for it.
    """
    training_pairs, _ = _pairs(model, pattern, 1, 'records', say)
    threshold = metrics.best_threshold(metrics.of_kind(training_pairs, Kind.POSITIVE)[0], metrics.of_kind(training_pairs, Kind.EASY)[0])
    flag = 'eval_records' if eval_pattern else 'records'
    pairs, skips = _pairs(model, eval_pattern or pattern, windows_per_record, flag, say)
    results = metrics.sync_metrics(pairs, threshold)
    results['measured_on'] = eval_pattern or pattern
    results['held_out'] = bool(eval_pattern)
    results['chosen_on_these'] = not files_of(chosen_on).isdisjoint(files_of(eval_pattern or pattern))
    if epochs is not None:
        results['epochs'] = epochs
    results['skipped_records'] = {reason: {'times': count, 'first': names} for reason, (count, names) in skips.items()}
    with writing(run_dir):
        os.makedirs(os.path.join(run_dir, 'plots'), exist_ok=True)
        plots.distance_histogram({str(kind): metrics.of_kind(pairs, kind)[0] for kind in Kind}, threshold,
                                 os.path.join(run_dir, 'plots', 'distances.png'))
    update_result(run_dir, {'sync': results})
    for line in describe(results):
        say(line)
    return results


def measure_sync_curve(model, pattern, run_dir, flag, say=print):
    """Distance against the offset of the sound, averaged over clips and for a single one; draws `plots/sync_curve.png`.

    Args:
        model: trained `TwoTower`.
        pattern: glob of records.
        run_dir: run folder, whose `result.json` gets the curve.
        flag: name of the flag that the pattern comes from.
        say: function that shows a line of text.

    Returns:
        Dict: `offset_seconds`, time of the sound's window minus that of the picture's; `distance`, mean over clips, and
        `interval`, its 95 % bootstrap interval, at each offset; `clips`; `lowest_at_seconds`; None where no clip is long enough.
    """
    step = 1.0 / model.config.clip.fps
    count = round(CURVE_SECONDS / step)
    offsets = np.arange(-count, count + 1) * step
    dataset = make_offset_dataset(pattern, model.config, offsets, parameter=flag).take(CURVE_CLIPS)
    rows, ids = [], []
    for clip in progress.bar(dataset, f'{flag}: sync curve', unit='clip'):
        distance = model.distances(model.embed_batch({'video': clip['video'], 'audio': clip['audio']}))[0].numpy()
        rows.append(np.where(clip['fits'].numpy(), distance, np.nan))
        ids.append(clip['example_id'].numpy().decode())
    distances = np.array(rows)
    # An offset that only some clips are long enough for would be a mean over other clips than its neighbours.
    held = np.isfinite(distances).mean(0) > 0.5 if rows else np.zeros(len(offsets), bool)
    if held.sum() < 3:
        say(f'{pattern}: no sync curve, the clips are hardly longer than a window.')
        return None
    offsets, distances = offsets[held], distances[:, held]
    rng = np.random.default_rng(0)
    means = np.array([np.nanmean(distances[rng.integers(0, len(rows), len(rows))], 0) for _ in range(metrics.BOOTSTRAPS)])
    results = {'offset_seconds': offsets.round(6).tolist(), 'distance': np.nanmean(distances, 0).tolist(),
               'interval': np.percentile(means, [2.5, 97.5], axis=0).T.tolist(), 'clips': len(rows),
               'lowest_at_seconds': float(offsets[np.nanmean(distances, 0).argmin()].round(6))}
    path = os.path.join(run_dir, 'plots', 'sync_curve.png')
    with writing(run_dir):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        plots.sync_curve(results, distances[0], ids[0], path)
    update_result(run_dir, {'sync_curve': results})
    say(f'Distance is lowest at an offset of {results["lowest_at_seconds"]:+.2f} s (mean of {len(rows)} clips): {path}.')
    return results


def _pairs(model, pattern, passes, flag, say):
    state = PipelineState()
    dataset = make_dataset(pattern, model.config, training=False, state=state, passes=passes, parameter=flag)
    pairs = metrics.pair_distances(model, dataset, f'{flag}: pairs')
    if skips := state.skips():
        say(f'{pattern}: {state.describe_skips()}')
    if not pairs:
        raise UserError(f'--{flag}={pattern}: no usable clip; {state.describe_skips()}.')
    return pairs, skips


def describe(results):
    """Lines for the terminal, from the result of `metrics.sync_metrics`."""
    where = 'records not trained on' if results['held_out'] else 'the TRAINING records (give --eval_records for an honest figure)'
    yield (f'Measured on {results["clips"]} windows of {results["examples"]} {where}; in brackets 95 % intervals; '
           f'threshold {results["threshold"]:.3f} from training records; chance is 50 % and 0.5.')
    if results.get('chosen_on_these'):
        yield ('The checkpoint or the parameters were CHOSEN on these records, so that the figures flatter; choose on others '
               '(--select_records).')
    if 'avts_accuracy' in results:
        yield f'AVTS accuracy (balanced, easy negatives): {_percent(results, "avts_accuracy")}'
    yield f'{"pairs":<12}{"mean distance":>14}{"AUC":>24}{"accuracy":>26}'
    yield f'{Kind.POSITIVE:<12}{results["distance_positive"]:>14.3f}'
    for kind in NEGATIVES:
        if f'auc_{kind}' in results:
            low, high = results[f'auc_{kind}_interval']
            area = f'{results[f"auc_{kind}"]:.4f} [{low:.4f}, {high:.4f}]'
            yield (f'{kind:<12}{results[f"distance_{kind}"]:>14.3f}{area:>24}{_percent(results, f"accuracy_{kind}"):>26}'
                   f'   {kind.description}')


def _percent(results, name):
    low, high = results[f'{name}_interval']
    return f'{100 * results[name]:.1f} % [{100 * low:.1f}, {100 * high:.1f}]'
