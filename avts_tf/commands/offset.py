"""Measure by how much the audio of videos is early or late."""

import dataclasses
import os

from avts_tf.commands._flags import EVAL_RECORDS, OUTPUT, RUN_DIR, Flag

PARAMETERS = False
FLAGS = {
    'Files': [
        RUN_DIR,
        Flag('input', None, 'File, folder, glob in quotes, or CSV of videos. May be repeated. '
             'Without it the model is calibrated on --eval_records.', repeated=True),
        EVAL_RECORDS,
        dataclasses.replace(OUTPUT, help='Folder of what is written. Default: RUN_DIR/offsets.'),
    ],
    'Measuring': [
        Flag('max_offset_seconds', 1.0, 'Greatest offset that is looked at, in seconds.',
             minimum=0.02),
        Flag('min_confidence', 0.9, 'Least confidence of an answer. Below it, without a '
             'calibration, or where the distance is lowest at the edge of the search or nearly as '
             'low elsewhere, the answer is "cannot tell".', minimum=0.0, maximum=1.0),
        Flag('fix', False, 'Also write each file whose offset can be told with its audio moved '
             'into sync.'),
    ],
}


def run(flags):
    """Measures files; without --input, calibrates: how well can this model measure?"""
    from avts_tf import files
    from avts_tf.data.shards import naming_damage
    from avts_tf.errors import UserError
    from avts_tf.evaluation.offset import calibrate, measure_files
    from avts_tf.inference import extraction
    from avts_tf.training.run_folder import load_inputs, load_model

    sources = extraction.find_inputs(flags.input) if flags.input else []
    run_dir = flags.run_dir
    model, epochs = load_model(run_dir)
    if model.config.towers.system != 'avts':
        raise UserError('run_dir', run_dir, f'holds a `system`={model.config.towers.system}, whose '
                        'video and audio have no distance to measure an offset by.')
    print(f'{run_dir}: weights after {epochs} epochs.')
    if sources:
        output = flags.output or os.path.join(run_dir, 'offsets')
        with files.locked(output, 'output'):
            measure_files(model, sources, run_dir, output, flags.max_offset_seconds,
                          flags.min_confidence, flags.fix)
        return
    eval_records = flags.eval_records or load_inputs(run_dir).get('eval_records')
    if not eval_records:
        raise UserError('input', None, 'give the file or folder to measure; or `eval_records`, to '
                        'calibrate on records that were not trained on.')
    with naming_damage(eval_records):
        calibrate(model, eval_records, run_dir, flags.max_offset_seconds, flags.min_confidence)
