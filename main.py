"""Command line of AVTS for TensorFlow: flags in, one function call per --mode.

With no flags it writes a small synthetic world, trains the `tiny` preset on it through both stages of the curriculum,
measures synchronisation on videos it never saw, and exports both towers.
"""

import os
import sys

# TensorFlow's own notes say nothing to a user; what goes wrong still raises an exception.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import app, flags, logging

from avts_tf.config import PRESETS, UserError, make_config, parameters

MODES = ('train', 'evaluate', 'export', 'features')

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
flags.DEFINE_integer('windows_per_record', 4, 'evaluate: windows drawn from each record.', lower_bound=1)
flags.DEFINE_boolean('shortcuts', False, 'evaluate: also measure what can be told without hearing and seeing the same moment.')
# Of --mode=features.
flags.DEFINE_multi_string('tower', None, 'Folder of an exported tower or of one version of it; may stand twice. Default: '
                          'EXPORT_DIR/audio_tower, and EXPORT_DIR/video_tower too where videos are among the input.')
flags.DEFINE_multi_string('input', None, 'File, folder, glob in quotes, or CSV of sounds or videos; may stand several times.')
flags.DEFINE_string('output', None, 'Folder to write features to.')
flags.DEFINE_string('output_format', 'npz', 'npz, a file per sound or video; or tfrecord, a set of record files per tower.')
flags.DEFINE_float('hop_seconds', None, 'Step between windows, in seconds. Default: a window, so that they lie end to end.')
flags.DEFINE_boolean('centered', False, 'Pad by half a window at both ends, so that the first window is centred on 0 s.')
flags.DEFINE_boolean('overwrite', False, 'Write anew what is there already.')
flags.DEFINE_boolean('skip_existing', False, 'Leave what is there already and go on with the rest.')
flags.DEFINE_integer('workers', 0, 'Decoding processes; 0 takes one per two processors.', lower_bound=0)
flags.DEFINE_float('file_timeout_seconds', 120.0, 'Longest wait for the next part of a file, in seconds.', lower_bound=0.1)
FEATURE_OPTIONS = ('hop_seconds', 'centered', 'batch_size', 'output_format', 'overwrite', 'skip_existing')


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
    if FLAGS.mode == 'train':
        records, eval_records = FLAGS.records, FLAGS.eval_records
        preset = FLAGS.preset or ('small' if records else 'tiny')
        config = make_config(preset, **{field.name: FLAGS[field.name].value for _, field in parameters()})
        if not records:
            records, eval_records = modes.make_demo_world(os.path.join(FLAGS.run_dir, 'world'), config)
        modes.run_train(config, records, eval_records, FLAGS.run_dir, FLAGS.export_dir, FLAGS.devices,
                        FLAGS.export_resample)
        return
    of_features = FEATURE_OPTIONS if FLAGS.mode == 'features' else ()
    given = [field.name for _, field in parameters() if FLAGS[field.name].present and field.name not in of_features]
    if given or FLAGS.preset:
        raise UserError(f'--{(given or ["preset"])[0]}: --mode={FLAGS.mode} takes the configuration of the '
                        f'{"tower" if of_features else "run in --run_dir"}; leave it out.')
    if FLAGS.mode == 'evaluate':
        modes.run_evaluate(FLAGS.records, FLAGS.eval_records, FLAGS.run_dir, FLAGS.windows_per_record, FLAGS.shortcuts)
    elif FLAGS.mode == 'features':
        modes.run_features(FLAGS.input, FLAGS.output, FLAGS.tower, FLAGS.export_dir, FLAGS.workers, FLAGS.file_timeout_seconds,
                           {name: FLAGS[name].value for name in of_features})
    else:
        modes.run_export(FLAGS.run_dir, FLAGS.export_dir, FLAGS.export_resample)


def run():
    """Runs `main`; a user's mistake is one message and exit status 2."""
    try:
        app.run(main)
    except UserError as error:
        print(f'main.py: {error}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('main.py: stopped. The same command goes on after the last whole epoch.', file=sys.stderr)
        sys.exit(130)


if __name__ == '__main__':
    run()
