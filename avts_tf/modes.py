"""What the command line can be asked to do: one function per --mode."""

import os
import sys

from avts_tf import files, plots
from avts_tf.config import make_config
from avts_tf.data import workers
from avts_tf.data.records import naming_damage, same_files, summary_path
from avts_tf.errors import UserError
from avts_tf.evaluation import action, audio
from avts_tf.evaluation.offset import calibrate, measure_files
from avts_tf.evaluation.projector import write_projector
from avts_tf.evaluation.shortcuts import measure_shortcuts
from avts_tf.evaluation.sync import describe, evaluate_sync, measure_sync_curve
from avts_tf.experiments import tables
from avts_tf.inference import extraction, features
from avts_tf.inference.export import describe_training, export_towers
from avts_tf.training.devices import is_chief, worker_count
from avts_tf.training.run_folder import (
    RunFolder,
    hold_run,
    load_config,
    load_inputs,
    load_model,
    load_result,
    update_result,
    writing,
)
from avts_tf.training.trainer import train
from avts_tf.training.tune import tune
from tfrecords_tools.synthetic import write_world

DEMO_VIDEOS, DEMO_EVAL_VIDEOS = 192, 64


def make_demo_world(folder, config, say=print):
    """Writes a small synthetic world, if it is not there yet.

    Returns:
        Globs of the training and the evaluation records.
    """
    globs = []
    for name, videos, seed in (('train', DEMO_VIDEOS, 0), ('eval', DEMO_EVAL_VIDEOS, 1)):
        prefix = os.path.join(folder, name)
        globs.append(f'{prefix}-*-of-*')
        if not os.path.exists(summary_path(prefix)):
            say(f'No --records: writing {videos} videos of the synthetic world to {prefix}-*.')
            write_world(prefix, videos=videos, seed=seed, size=config.clip.frame_size + 8, fps=config.clip.fps,
                        sample_rate=config.clip.sample_rate)
    return globs


def refuse_several_machines(message):
    """Raises a `UserError` where `TF_CONFIG` names several machines."""
    if worker_count() > 1:
        raise UserError(message)


def run_train(config, records, eval_records, run_dir, export_dir, devices, export_resample=False, say=print, select_records=None,
              **options):
    """Trains (or goes on), draws the curves, evaluates, and exports both towers; `options` are those of `training.train`.

    Of a training that was finished already, only what is missing of that is done.
    """
    with hold_run(run_dir):
        with naming_damage(records, eval_records, select_records):
            before = RunFolder(run_dir, config).epochs_done() if os.path.exists(os.path.join(run_dir, 'config.json')) else 0
            model = train(config, records, run_dir, eval_records=eval_records, select_records=select_records, devices=devices, **options)
            if not is_chief():
                return
            rows = RunFolder(run_dir, config).history()
            if before == len(rows) and _is_complete(run_dir, before, eval_records or records, export_dir):
                say('It is measured and exported, too; --mode=evaluate and --mode=export do that again. What was measured:')
                for line in describe(load_result(run_dir)['sync']):
                    say(line)
                return
            if worker_count() > 1:
                model, _ = load_model(run_dir)  # on this machine's own devices: the others have done their part
            with writing(run_dir):
                os.makedirs(os.path.join(run_dir, 'plots'), exist_ok=True)
                plots.training_curves(rows, os.path.join(run_dir, 'plots', 'training.png'))
            _measure(model, records, eval_records, run_dir, say, epochs=len(rows), chosen_on=select_records)
        run_export(run_dir, export_dir, export_resample, say, (model, len(rows)))
        say(f'Everything of this run is in {run_dir}: result.json, history.csv, plots/, checkpoints/, tensorboard/ '
            f'(look: tensorboard --logdir={run_dir}).')


def _is_complete(run_dir, epochs, pattern, export_dir):
    """Whether a training of so many epochs is measured on the records of a glob, and exported to a folder."""
    result = load_result(run_dir)
    sync, exported = result.get('sync', {}), list(result.get('exported', {}).values())
    return (sync.get('epochs') == epochs and same_files(sync.get('measured_on'), pattern) and exported != []
            and all(os.path.isdir(path) and os.path.realpath(path).startswith(os.path.realpath(export_dir) + os.sep)
                    for path in exported))


def _measure(model, records, eval_records, run_dir, say, **options):
    say(f'Measuring synchronisation on {eval_records or records}.')
    evaluate_sync(model, records, eval_records, run_dir, say=say, **options)
    pattern, flag = (eval_records, 'eval_records') if eval_records else (records, 'records')
    measure_sync_curve(model, pattern, run_dir, flag, say)
    if model.config.towers.system == 'avts':  # the others have no embeddings that picture and sound share
        write_projector(model, pattern, run_dir, flag)


def run_evaluate(records, eval_records, run_dir, windows_per_record, shortcuts, say=print, which='newest'):
    """Evaluates a checkpoint of a run folder; records that are not given are those of the training."""
    model, epochs = load_model(run_dir, which)
    inputs = load_inputs(run_dir)
    records, eval_records = records or inputs.get('records'), eval_records or inputs.get('eval_records')
    if not records:
        raise UserError('--records: needed to choose the distance threshold; give the records of the training.')
    say(f'{run_dir}: weights after {epochs} epochs.')
    with naming_damage(records, eval_records):
        chosen_on = inputs.get('select_records')
        if which == 'best':
            chosen_on = chosen_on or inputs.get('eval_records') or inputs.get('records')
        _measure(model, records, eval_records, run_dir, say, windows_per_record=windows_per_record, epochs=epochs,
                 chosen_on=chosen_on)
    if shortcuts:
        say('Measuring shortcuts: features of all pairs, then regressions on them.')
        results = measure_shortcuts(model, records, eval_records or records, windows_per_record)
        update_result(run_dir, {'shortcuts': results})
        say('AUC of shortcuts, on the same pairs (0.5 is chance):')
        for name, values in results.items():
            say(f'{name:<18}' + '  '.join(f'{kind} {value:.3f}' for kind, value in values.items()))


def run_export(run_dir, export_dir, export_resample=False, say=print, model=None, which='newest'):
    """Exports both towers of a run folder, or of a model and its number of epochs; `export_resample` as in `export_towers`."""
    model, epochs = model or load_model(run_dir, which)
    if model.config.towers.system != 'avts':
        say(f'--system={model.config.towers.system} is there to be compared with: no tower is exported.')
        return
    say(f'Exporting the towers to {export_dir}: each is loaded in a fresh process and compared, which takes a minute or so.')
    update_result(run_dir, {'exported': export_towers(model, export_dir, say, describe_training(run_dir, epochs), export_resample)})


def run_offset(
    run_dir, inputs, eval_records, output_dir, max_offset_seconds, min_confidence, fix, say=print,
):
    """Measures by how much the sound of files is early or late; without an input, how well the run's model can tell."""
    sources = extraction.find_inputs(inputs) if inputs else []
    model, epochs = load_model(run_dir)
    if model.config.towers.system != 'avts':
        raise UserError(f'--run_dir={run_dir}: is of --system={model.config.towers.system}, whose picture and sound have no '
                        'distance that an offset could be told by.')
    say(f'{run_dir}: weights after {epochs} epochs.')
    if sources:
        output_dir = output_dir or os.path.join(run_dir, 'offsets')
        with files.locked(output_dir, 'output'):
            measure_files(model, sources, run_dir, output_dir,
                          max_offset_seconds, min_confidence, fix, say)
        return
    eval_records = eval_records or load_inputs(run_dir).get('eval_records')
    if not eval_records:
        raise UserError('--input: give the file or folder to measure; or --eval_records, to calibrate on records that were not '
                        'trained on.')
    with naming_damage(eval_records):
        calibrate(model, eval_records, run_dir, max_offset_seconds, min_confidence, say)


def run_tune(preset, given, records, eval_records, run_dir, trials, devices, say=print, select_records=None):
    """Searches for the best parameters, those in `given` being held."""
    refuse_several_machines('--mode=tune: runs on the devices of one machine; unset TF_CONFIG.')
    with hold_run(run_dir), naming_damage(records, eval_records, select_records):
        tune(preset, given, records, run_dir, trials, eval_records=eval_records, select_records=select_records, devices=devices)


def run_features(inputs, output_dir, tower_paths, export_dir, num_workers, timeout_seconds, options, say=print):
    """Embeds files with exported towers; exits with status 1 if nothing could be done."""
    if not output_dir:
        raise UserError('--output: give the folder to write features to.')
    sources = extraction.find_inputs(inputs or [])
    if not tower_paths:
        tower_paths = [os.path.join(export_dir, 'audio_tower')]
        if any(map(extraction.is_video, sources)) and os.path.isdir(os.path.join(export_dir, 'video_tower')):
            tower_paths.append(os.path.join(export_dir, 'video_tower'))
    options = {name: value for name, value in options.items() if value is not None}
    try:
        with workers.interruptible():
            towers = [features.load_tower(path) for path in tower_paths]
            summary = extraction.extract_features(sources, output_dir, towers, num_workers=num_workers,
                                                  timeout_seconds=timeout_seconds, **options)
    except workers.Interrupted as stopped:
        say(f'Stopped. What is finished is in {output_dir}; the same command with --skip_existing goes on with the rest.')
        sys.exit(stopped.exit_status)
    say(extraction.describe(summary, output_dir, towers))
    if not summary['written'] + summary['existing']:
        sys.exit(1)


def run_action_recognition(preset, given, records, eval_records, run_dir, init, init_run_dir, splits, devices, say=print,
                           **protocol):
    """Fine-tunes towers with a softmax on the records' labels and measures it on others.

    Args:
        preset, given: name of the preset, and the parameters that override it.
        records, eval_records, run_dir, splits, devices: as in `evaluation.action.recognise_splits`.
        init: 'scratch', 'avts', or a run folder, which stands for 'avts' and `init_run_dir`.
        init_run_dir: run folder that the towers, or with 'scratch' their sizes, come from.
        say: function that shows a line of text.
        **protocol: the other fields of `evaluation.action.Protocol`.
    """
    refuse_several_machines('--mode=action_recognition: trains on the devices of one machine; unset TF_CONFIG.')
    if init not in ('scratch', 'avts'):
        if init_run_dir:
            raise UserError(f'--init={init}: names a run folder, and so does --init_run_dir={init_run_dir}; give one.')
        init, init_run_dir = 'avts', init
    if init == 'avts' and not init_run_dir:
        raise UserError('--init=avts: give the run folder of the training with --init_run_dir.')
    config = make_config(preset, **given)
    if init_run_dir:
        config = action.take_sizes(config, given, init_run_dir)
    protocol = action.Protocol('trained' if init == 'avts' else 'scratch', init_run_dir or '', **protocol)
    globs = [(pattern or '').replace('{split}', split) for pattern in (records, eval_records) for split in splits or ['']]
    with hold_run(run_dir), naming_damage(*globs):
        if splits:
            action.recognise_splits(config, protocol, records, eval_records, run_dir, splits, devices, say)
        else:
            action.recognise_actions(config, protocol, records, eval_records, run_dir, devices, say)


def run_audio_classification(preset, given, input_path, dataset, label_column, run_dir, tower_dir, output, say=print, **protocol):
    """Classifies sounds by features of a tower or of their own; see `evaluation.audio`.

    Args:
        preset, given: name of the preset, None for small, and the parameters that override it, of towers that are no run's.
        input_path, dataset, label_column, tower_dir: as in `audio.classify_sounds`.
        run_dir: run folder of the tower; results go there where there is no `output`.
        output: folder for the results.
        say: function that shows a line of text.
        **protocol: the fields of `audio.Protocol` but the seed.
    """
    if not input_path:
        raise UserError('--input: needed; the sounds to classify, such as a folder or a CSV.')
    # An exported tower gives one vector; a run's has maps, of which the cells say more.
    pooling = protocol.pop('pooling') or ('mean' if tower_dir else 'cells')
    if tower_dir and pooling != 'mean':
        raise UserError(f'--conv5_pooling={pooling}: an exported tower gives the mean of conv5; leave it out, or use --run_dir.')
    protocol = audio.Protocol(**protocol, pooling=pooling, seed=given.get('seed', 0))
    given = {name: value for name, value in given.items() if name != 'seed'}
    # "random" is a run's tower, where there is a run to compare with.
    has_run = os.path.exists(os.path.join(run_dir, 'config.json'))
    of_run = (protocol.features == 'tower' and not tower_dir) or (protocol.features == 'random' and has_run)
    if (of_run or tower_dir or protocol.features == 'mfcc') and (given or preset):
        origin = f', whose tower is that of {tower_dir or run_dir}' if of_run or tower_dir else ''
        raise UserError(f'--{([*given, "preset"])[0]}: has no meaning for --features={protocol.features}{origin}; leave it out.')
    config = load_config(run_dir) if of_run else make_config(preset or 'small', **given, seed=protocol.seed)
    with files.locked(output or run_dir, 'output' if output else 'run_dir'):
        audio.classify_sounds(input_path, dataset, protocol, config, run_dir, tower_dir, output or run_dir, label_column, say)


def run_table(name, table_dir, preset, given, seeds, difficulty, records, eval_records, label_prefix, data, devices, say=print):
    """Makes a table of the slides; see `evaluation.tables`.

    Args:
        name: key of `tables.TABLES`.
        preset, given: name of the preset, None for tiny, and the parameters that override it.
        seeds: number of seeds, from `given['seed']` or 0 on.
        table_dir, difficulty, records, eval_records, label_prefix, data, devices: as in `tables.Settings`.
        say: function that shows a line of text.
    """
    refuse_several_machines('--mode=table: runs on the devices of one machine; unset TF_CONFIG.')
    if name not in tables.TABLES:
        raise UserError(f'--table={name}: use one of {", ".join(tables.TABLES)}.')
    for flag in ('regime', 'system', *(['video_tower'] if name == 'action' else [])):
        if flag in given:
            raise UserError(f'--{flag}={given[flag]}: --table={name} has its own in each row; leave it out.')
    given = dict(given)
    first = given.pop('seed', 0)
    preset = preset or 'tiny'
    config = make_config(preset, **given)

    def write(prefix, videos, seed, difficulty):
        write_world(prefix, videos=videos, seed=seed, difficulty=difficulty, size=config.clip.frame_size + 8, fps=config.clip.fps,
                    sample_rate=config.clip.sample_rate)

    settings = tables.Settings(table_dir, preset, given, tuple(range(first, first + seeds)), difficulty, records, eval_records,
                               label_prefix, data, devices)
    with naming_damage(records, eval_records):
        tables.make_table(name, settings, write, say)
