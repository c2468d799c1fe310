"""Measure how well a trained model separates in sync from out of sync."""

from avts_tf.commands._flags import CHECKPOINT, EVAL_RECORDS, RECORDS, RUN_DIR, Flag

PARAMETERS = False
FLAGS = {
    'Files': [RUN_DIR, RECORDS, EVAL_RECORDS, CHECKPOINT],
    'Measuring': [
        Flag('windows_per_record', 4, 'Windows drawn from each record.', minimum=1),
        Flag('shortcuts', False, 'Also measure what separates the pairs without hearing and seeing '
             'the same moment.'),
    ],
}


def run(flags):
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
        measure(model, records, eval_records, flags.run_dir, epochs=epochs, chosen_on=chosen_on,
                windows_per_record=flags.windows_per_record)
    if flags.shortcuts:
        _measure_shortcuts(model, records, eval_records or records, flags)


def measure(model, records, eval_records, run_dir, **options):
    """Measures a model; prints, plots and writes the result into the run folder."""
    from avts_tf.evaluation.projector import write_projector
    from avts_tf.evaluation.sync import evaluate_sync, measure_sync_curve

    print(f'Measuring synchronisation on {eval_records or records}.')
    evaluate_sync(model, records, eval_records, run_dir, **options)
    pattern, parameter = (eval_records, 'eval_records') if eval_records else (records, 'records')
    measure_sync_curve(model, pattern, run_dir, parameter)
    if model.config.towers.system == 'avts':  # the others have no space that both towers share
        write_projector(model, pattern, run_dir, parameter)


def _measure_shortcuts(model, records, eval_records, flags):
    from avts_tf.evaluation.shortcuts import measure_shortcuts
    from avts_tf.training.run_folder import update_result
    print('Measuring shortcuts: features of all pairs, then regressions on them.')
    results = measure_shortcuts(model, records, eval_records, flags.windows_per_record)
    update_result(flags.run_dir, {'shortcuts': results})
    print('AUC of shortcuts, on the same pairs (0.5 is chance):')
    for name, values in results.items():
        aucs = '  '.join(f'{kind} {value:.3f}' for kind, value in values.items())
        print(f'{name:<18}{aucs}')
