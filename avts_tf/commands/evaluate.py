"""Measure how well a trained model separates in sync from out of sync."""

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from avts_tf.commands._flags import CHECKPOINT, EVAL_RECORDS, RECORDS, RUN_DIR, Flag

if TYPE_CHECKING:
    from avts_tf.models.two_tower import TwoTower

PARAMETERS = False
FLAGS = {
    'Files': [RUN_DIR, RECORDS, EVAL_RECORDS, CHECKPOINT],
    'Measuring': [
        Flag('windows_per_record', 4, 'Windows drawn from each record.', minimum=1),
        Flag('shortcuts', False, 'Also measure what separates the pairs without hearing and seeing '
             'the same moment.'),
    ],
}


def run(flags: SimpleNamespace) -> None:
    """Evaluates a checkpoint; records that are not given are those of the training."""
    from avts_tf.data.shards import naming_damage
    from avts_tf.errors import UserError
    from avts_tf.training.run_folder import load_inputs, load_model

    model, epochs = load_model(flags.run_dir, flags.checkpoint)
    inputs = load_inputs(flags.run_dir)
    records = flags.records or inputs.get('records')
    eval_records = flags.eval_records or inputs.get('eval_records')
    if not records:
        raise UserError('records', None, 'needed to choose the distance threshold; give the '
                        'records of the training.')
    print(f'{flags.run_dir}: weights after {epochs} epochs.')
    chosen_on = inputs.get('select_records')
    if flags.checkpoint == 'best':
        chosen_on = chosen_on or inputs.get('eval_records') or inputs.get('records')
    with naming_damage(records, eval_records):
        measure(model, records, eval_records, flags.run_dir, epochs=epochs,
                trained_on=inputs.get('records'), chosen_on=chosen_on,
                windows_per_record=flags.windows_per_record)
    if flags.shortcuts:
        _measure_shortcuts(model, records, eval_records or records, flags)


def measure(
    model: 'TwoTower', records: str, eval_records: str | None, run_dir: str, **options: Any,
) -> None:
    """Measures a model; prints, plots and writes the results into the run folder.

    Args:
        model: trained model.
        records: glob of training records.
        eval_records: glob of other records, or None.
        run_dir: run folder.
        **options: of `evaluate_sync`.
    """
    from avts_tf import plots
    from avts_tf.commands._projector import write_projector
    from avts_tf.evaluation.projector import embed_clips
    from avts_tf.evaluation.sync import describe, evaluate_sync, measure_sync_curve
    from avts_tf.training.run_folder import plot_path, update_result, writing

    print(f'Measuring synchronisation on {eval_records or records}.')
    found = evaluate_sync(model, records, eval_records, **options)
    with writing(run_dir):
        plots.distance_histogram(
            found.distances, found.results['threshold'], plot_path(run_dir, 'distances.png'))
    update_result(run_dir, {'sync': found.results})
    print(*describe(found.results), sep='\n')

    pattern, parameter = (eval_records, 'eval_records') if eval_records else (records, 'records')
    if curve := measure_sync_curve(model, pattern, parameter):
        with writing(run_dir):
            path = plot_path(run_dir, 'sync_curve.png')
            plots.sync_curve(curve.results, curve.single, curve.single_id, path)
        update_result(run_dir, {'sync_curve': curve.results})
        print(f'Distance is lowest at an offset of {curve.results["lowest_at_seconds"]:+.2f} s '
              f'(mean of {curve.results["clips"]} clips): {path}.')
    else:
        print(f'{pattern}: no sync curve, the clips are hardly longer than a window.')
    if model.config.towers.system == 'avts':  # the others have no space that both towers share
        clips = embed_clips(model, pattern, parameter)
        with writing(run_dir):
            write_projector(clips, os.path.join(run_dir, 'tensorboard'))


def _measure_shortcuts(
    model: 'TwoTower', records: str, eval_records: str, flags: SimpleNamespace,
) -> None:
    from avts_tf.evaluation.shortcuts import measure_shortcuts
    from avts_tf.training.run_folder import update_result
    print('Measuring shortcuts: features of all pairs, then regressions on them.')
    results = measure_shortcuts(model, records, eval_records, flags.windows_per_record)
    update_result(flags.run_dir, {'shortcuts': results})
    print('AUC of shortcuts, on the same pairs (0.5 is chance):')
    for name, values in results.items():
        aucs = '  '.join(f'{kind} {value:.3f}' for kind, value in values.items())
        print(f'{name:<18}{aucs}')
