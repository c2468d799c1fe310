"""Measure by how much the audio of videos is early or late."""

import dataclasses
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

from avts_tf.commands._flags import EVAL_RECORDS, OUTPUT, RUN_DIR, Flag

if TYPE_CHECKING:
    from avts_tf.data.datasets import Source
    from avts_tf.evaluation.offset_files import FileOffset
    from avts_tf.models.two_tower import TwoTower

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
             minimum=0.1),
        Flag('min_confidence', 0.9, 'Least confidence of an answer. Below it, without a '
             'calibration, or where the distance is lowest at the edge of the search, nearly as '
             'low elsewhere, or at another offset in each half, the offset cannot be determined.',
             minimum=0.0, maximum=1.0),
        Flag('fix', False, 'Also write each file whose offset is determined with its audio moved '
             'into sync.'),
    ],
}


def run(flags: SimpleNamespace) -> None:
    """Measures files; without --input, calibrates: how well can this model measure?"""
    from avts_tf import files
    from avts_tf.data.shards import naming_damage
    from avts_tf.errors import UserError
    from avts_tf.inference.embed_files import find_inputs
    from avts_tf.training.run_folder import load_inputs, load_model

    sources = find_inputs(flags.input) if flags.input else []
    run_dir = flags.run_dir
    model, epochs = load_model(run_dir)
    if model.config.towers.system != 'avts':
        raise UserError('run_dir', run_dir, f'holds a `system`={model.config.towers.system}, whose '
                        'video and audio have no distance to measure an offset by.')
    print(f'{run_dir}: weights after {epochs} epochs.')
    if sources:
        output = flags.output or os.path.join(run_dir, 'offsets')
        with files.locked(output, 'output'):
            measure_files(model, sources, run_dir, epochs, output, flags.max_offset_seconds,
                          flags.min_confidence, flags.fix)
        return
    eval_records = flags.eval_records or load_inputs(run_dir).get('eval_records')
    if not eval_records:
        raise UserError('input', None, 'give the file or folder to measure; or `eval_records`, to '
                        'calibrate on records that were not trained on.')
    with naming_damage(eval_records):
        calibrate(model, eval_records, run_dir, epochs, flags.max_offset_seconds,
                  flags.min_confidence)


def calibrate(
    model: 'TwoTower', eval_records: str, run_dir: str, epochs: int, max_offset_seconds: float,
    min_confidence: float,
) -> None:
    """Calibrates a model; prints, plots and writes the results into the run folder.

    Args:
        model, eval_records, max_offset_seconds, min_confidence: as in
            `evaluation.offset_calibration.calibrate`.
        run_dir: run folder.
        epochs: for how many the model was trained.
    """
    from avts_tf import plots
    from avts_tf.evaluation.offset_calibration import calibrate, describe
    from avts_tf.training.run_folder import plot_path, update_result, writing

    results, errors_ms = calibrate(model, eval_records, max_offset_seconds, min_confidence)
    update_result(run_dir, {'offset': {**results, 'epochs': epochs}})
    with writing(run_dir):
        path = plot_path(run_dir, 'offset_errors.png')
        plots.offset_errors(errors_ms, 1000 / model.config.clip.fps, path)
    print(*describe(results, model.config.clip.fps), sep='\n')
    print(f'Written to result.json and {path}.')


def measure_files(
    model: 'TwoTower', sources: 'list[Source]', run_dir: str, epochs: int, output_dir: str,
    max_offset_seconds: float, min_confidence: float, fix: bool = False,
) -> list[dict]:
    """Measures files; prints and plots each answer and writes all to `offsets.json`.

    Args:
        model, sources, max_offset_seconds, min_confidence: as in
            `evaluation.offset_files.measure_offsets`.
        run_dir: run folder, whose calibration gives the confidence.
        epochs: for how many the model was trained; a calibration of others does not count.
        output_dir: folder for what is written.
        fix: also copies each file whose offset is determined, with its audio moved into sync.

    Returns:
        The list that `offsets.json` holds, a dict per file: see `FileOffset.as_dict`. A file that
        was measured also has `curve` (a PNG, None where its name is too long) and, with `fix`,
        the path `fixed`, None where nothing was written.
    """
    import json

    from avts_tf import files
    from avts_tf.data.remux import write_in_sync
    from avts_tf.evaluation.offset_files import measure_offsets
    from avts_tf.training.run_folder import load_result

    os.makedirs(output_dir, exist_ok=True)
    calibration = load_result(run_dir).get('offset', {})
    if calibration and calibration.get('epochs') != epochs:
        print(f'{run_dir}: the calibration is not of the weights after {epochs} epochs and does '
              'not count; calibrate again.')
        calibration = {}
    answers, answers_path = [], os.path.join(output_dir, 'offsets.json')
    try:
        for found in measure_offsets(
                model, sources, calibration, max_offset_seconds, min_confidence):
            path, answer = found.source.path, found.as_dict()
            if found.curve is not None:
                answer['curve'] = _draw(found, output_dir)
            print(f'{path}: {found.in_words()}.')
            if fix and found.offset_seconds is not None:
                answer['fixed'], problem = None, ''
                if not found.problem:
                    answer['fixed'], problem = write_in_sync(
                        path, _beside(found, output_dir), found.offset_seconds)
                if problem:
                    print(f'{path}: not written in sync: {problem}')
            answers.append(answer)
    finally:  # what is measured is kept, whatever ends the rest
        if answers:
            files.write_text(answers_path, json.dumps(answers, indent=2) + '\n')
    determined = sum(answer['determined'] for answer in answers)
    skipped = sum('skipped' in answer for answer in answers)
    print(f'{determined} determined, {len(answers) - determined - skipped} undetermined, {skipped} '
          f'not measured; {answers_path}, and beside it a curve as PNG for each that was measured.')
    return answers


def _beside(found: 'FileOffset', output_dir: str) -> str:
    """Where what belongs to a file is written, but for the suffix: in its own folder, if it was
    found below the one that was given, since files of several folders may be called alike.
    """
    return os.path.join(output_dir, found.source.example_id)


def _draw(found: 'FileOffset', output_dir: str) -> str | None:
    """Draws the curve of a file; its path, or None where the name is too long."""
    from avts_tf import plots
    curve, name = found.curve, os.path.basename(found.source.path)
    assert curve is not None and curve.best is not None
    path = _beside(found, output_dir) + '.png'
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        plots.offset_curve(curve.offset_seconds, curve.distance, curve.best,
                           f'{name}\n{found.in_words()}', path)
    except OSError as error:  # its name is too long, for one
        print(f'{found.source.path}: its curve cannot be drawn: {error.strerror}')
        return None
    return path
