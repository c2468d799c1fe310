"""Command line of AVTS for TensorFlow: flags in, one function call per --mode.

With no flags it writes a small synthetic world, trains the `tiny` preset on it through both stages of the curriculum,
measures synchronisation on videos it never saw, and exports both towers.
"""

import os
import sys

# TensorFlow's own notes say nothing to a user; what goes wrong still raises an exception.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import app, flags, logging

from avts_tf.config import PRESETS, Stopped, UserError, make_config, parameters

MODES = ('train', 'evaluate', 'export', 'features', 'offset', 'tune')

FLAGS = flags.FLAGS
flags.DEFINE_enum('mode', 'train', MODES, 'What to do.')
flags.DEFINE_enum('preset', None, list(PRESETS), 'Named values of the flags below, which override them. Default: small; tiny '
                  'without --records.')
flags.DEFINE_string('records', None, 'Record files to train on: glob(s), separated by commas. Default: a synthetic world is made '
                    'in RUN_DIR/world.')
flags.DEFINE_string('eval_records', None, 'Record files to measure on, not to be trained on.')
flags.DEFINE_string('run_dir', 'runs/demo', 'Folder of the run: configuration, checkpoints, history, results, plots.')
flags.DEFINE_string('export_dir', 'saved_models', 'Folder of the exported towers, <tower>/<version>/.')
flags.DEFINE_boolean('export_resample', False, "Let the exported audio tower's signature at_rate resample sound of other rates, "
                     'instead of refusing it.')
flags.DEFINE_string('devices', 'auto', 'Devices to train on: "auto" is all GPUs, or the CPU; a number is of GPUs, or of logical '
                    'CPU devices where there is no GPU.')
flags.DEFINE_enum('on_bad_record', 'skip', ('skip', 'stop'), 'train: what to do with a record that cannot be used: leave it out, '
                  'count and name it; or stop.')
flags.DEFINE_float('checkpoint_minutes', 10.0, 'train: minutes between checkpoints within an epoch; 0 is after every step.',
                   lower_bound=0.0)
flags.DEFINE_integer('keep_checkpoints', 3, 'train: newest checkpoints to keep; the best is kept beside them.', lower_bound=1)
flags.DEFINE_boolean('deterministic', False, 'train: have TensorFlow give the same bits each time on GPUs too; a CPU does anyway.')
flags.DEFINE_enum('checkpoint', 'newest', ('newest', 'best'), 'evaluate, export: checkpoint to take; the best is that of the epoch '
                  'with the highest AUC on hard negatives.')
flags.DEFINE_integer('windows_per_record', 4, 'evaluate: windows drawn from each record.', lower_bound=1)
flags.DEFINE_boolean('shortcuts', False, 'evaluate: also measure what can be told without hearing and seeing the same moment.')
# Of --mode=features and --mode=offset.
flags.DEFINE_multi_string('input', None, 'features: file, folder, glob in quotes, or CSV of sounds or videos; may stand several '
                          'times. offset: the same of videos; without it the measurement is calibrated on --eval_records.')
flags.DEFINE_string('output', None, 'features: folder to write to. offset: folder of the results; default RUN_DIR/offsets.')
flags.DEFINE_multi_string('tower', None, 'Folder of an exported tower or of one version of it; may stand twice. Default: '
                          'EXPORT_DIR/audio_tower, and EXPORT_DIR/video_tower too where videos are among the input.')
flags.DEFINE_string('output_format', 'npz', 'npz, a file per sound or video; or tfrecord, a set of record files per tower.')
flags.DEFINE_float('hop_seconds', None, 'Step between windows, in seconds. Default: a window, so that they lie end to end.')
flags.DEFINE_boolean('centered', False, 'Pad by half a window at both ends, so that the first window is centred on 0 s.')
flags.DEFINE_boolean('overwrite', False, 'Write anew what is there already.')
flags.DEFINE_boolean('skip_existing', False, 'Leave what is there already and go on with the rest.')
flags.DEFINE_integer('workers', 0, 'Decoding processes; 0 takes one per two processors.', lower_bound=0)
flags.DEFINE_float('file_timeout_seconds', 120.0, 'Longest wait for the next part of a file, in seconds.', lower_bound=0.1)
FEATURE_OPTIONS = ('hop_seconds', 'centered', 'batch_size', 'output_format', 'overwrite', 'skip_existing')
flags.DEFINE_float('max_offset_seconds', 1.0, 'offset: greatest offset that is looked at, in seconds.', lower_bound=0.02)
flags.DEFINE_boolean('fix', False, 'offset: also write each file with its sound moved into sync.')
flags.DEFINE_integer('trials', 20, 'tune: trainings in all.', lower_bound=1)


def define_parameters():
    """A flag for every parameter of config.py; None stands for the preset's value."""
    for _, field in parameters():
        meta, default = field.metadata, field.default
        differing = ', '.join(f'{name} {values[field.name]}' for name, values in PRESETS.items() if field.name in values)
        text = f'{meta["help"]}. Default: {default}{" (" + differing + ")" if differing else ""}.'
        if isinstance(default, bool):
            flags.DEFINE_boolean(field.name, None, text)
        elif isinstance(default, int):
            flags.DEFINE_integer(field.name, None, text)
        elif isinstance(default, float):
            flags.DEFINE_float(field.name, None, text)
        else:
            flags.DEFINE_string(field.name, None, text)


define_parameters()


def main(argv):
    if len(argv) > 1:
        raise UserError(f'{argv[1]!r} is no flag; flags look like --name=value (main.py --help lists them).')
    logging.set_verbosity(logging.WARNING)
    # Imported after the flags are read, so that --help and a mistyped flag answer at once.
    from avts_tf import modes
    if FLAGS.mode in ('train', 'tune'):
        records, eval_records = FLAGS.records, FLAGS.eval_records
        preset = FLAGS.preset or ('small' if records else 'tiny')
        given = {field.name: FLAGS[field.name].value for _, field in parameters() if FLAGS[field.name].present}
        config = make_config(preset, **given)
        if not records:
            modes.refuse_several_machines('--records: needed with several machines (TF_CONFIG); give the same on all.')
            records, eval_records = modes.make_demo_world(os.path.join(FLAGS.run_dir, 'world'), config)
        if FLAGS.mode == 'tune':
            modes.run_tune(preset, given, records, eval_records, FLAGS.run_dir, FLAGS.trials, FLAGS.devices)
            return
        modes.run_train(config, records, eval_records, FLAGS.run_dir, FLAGS.export_dir, FLAGS.devices, FLAGS.export_resample,
                        on_bad_record=FLAGS.on_bad_record, checkpoint_minutes=FLAGS.checkpoint_minutes,
                        keep_checkpoints=FLAGS.keep_checkpoints, deterministic=FLAGS.deterministic)
        return
    of_features = FEATURE_OPTIONS if FLAGS.mode == 'features' else ()
    given = [field.name for _, field in parameters() if FLAGS[field.name].present and field.name not in of_features]
    if given or FLAGS.preset:
        raise UserError(f'--{(given or ["preset"])[0]}: --mode={FLAGS.mode} takes the configuration of the run in --run_dir; '
                        'leave it out.')
    if FLAGS.mode == 'evaluate':
        modes.run_evaluate(FLAGS.records, FLAGS.eval_records, FLAGS.run_dir, FLAGS.windows_per_record, FLAGS.shortcuts,
                           which=FLAGS.checkpoint)
    elif FLAGS.mode == 'offset':
        modes.run_offset(FLAGS.run_dir, FLAGS.input, FLAGS.eval_records, FLAGS.output, FLAGS.max_offset_seconds, FLAGS.fix)
    elif FLAGS.mode == 'features':
        modes.run_features(FLAGS.input, FLAGS.output, FLAGS.tower, FLAGS.export_dir, FLAGS.workers, FLAGS.file_timeout_seconds,
                           {name: FLAGS[name].value for name in of_features})
    else:
        modes.run_export(FLAGS.run_dir, FLAGS.export_dir, FLAGS.export_resample, which=FLAGS.checkpoint)


def run():
    """Runs `main`; a user's mistake is one message and exit status 2, a signal one message and 128 + its number."""
    try:
        app.run(main)
    except UserError as error:
        print(f'main.py: {error}', file=sys.stderr)
        sys.exit(2)
    except Stopped as stop:
        print(f'main.py: {stop}', file=sys.stderr)
        sys.exit(128 + stop.signal_number)
    except KeyboardInterrupt:
        print('main.py: stopped. The same command goes on after the newest checkpoint.', file=sys.stderr)
        sys.exit(130)


if __name__ == '__main__':
    run()
