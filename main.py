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

MODES = ('train', 'evaluate', 'export', 'action_recognition', 'audio_classification', 'table')

FLAGS = flags.FLAGS
flags.DEFINE_enum('mode', 'train', MODES, 'What to do.')
flags.DEFINE_enum('preset', None, list(PRESETS), 'Named values of the flags below, which override them. Default: small; tiny '
                  'without --records.')
flags.DEFINE_string('records', None, 'Record files to train on: glob(s), separated by commas. Default: a synthetic world is made '
                    'in RUN_DIR/world.')
flags.DEFINE_string('eval_records', None, 'Record files to measure on, not to be trained on.')
flags.DEFINE_string('run_dir', 'runs/demo', 'Folder of the run: configuration, checkpoints, history, results, plots.')
flags.DEFINE_string('export_dir', 'saved_models', 'Folder of the exported towers, <tower>/<version>/.')
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

flags.DEFINE_string('init', 'scratch', 'action_recognition: the towers to begin with: "scratch" is random weights, "avts" those of '
                    '--init_run_dir; a run folder stands for both.')
flags.DEFINE_string('init_run_dir', None, 'action_recognition: run folder that the towers come from; with --init=scratch their '
                    'sizes only.')
flags.DEFINE_enum('streams', 'video', ['video', 'audio', 'both'], 'action_recognition: which towers see the clip.')
flags.DEFINE_boolean('freeze', False, 'action_recognition: train the softmax alone and leave the towers as they are.')
flags.DEFINE_float('layer_decay', 1.0, 'action_recognition: each stage of a tower learns this many times as fast as the one above '
                   'it.', lower_bound=0.0, upper_bound=1.0)
flags.DEFINE_string('label_prefix', '', 'action_recognition: beginning of the label that is the class, where records have several.')
flags.DEFINE_integer('train_clips', 0, 'action_recognition: number of training records, classes in their proportions; 0 is all.',
                     lower_bound=0)
flags.DEFINE_integer('clips_per_video', 10, 'action_recognition: windows per test video whose scores are averaged.', lower_bound=1)
flags.DEFINE_list('splits', [], 'action_recognition: official splits, such as 1,2,3; each replaces {split} in the globs.')

flags.DEFINE_string('input', None, 'audio_classification: the sounds, a folder, a glob or a CSV.')
flags.DEFINE_string('dataset', '', 'audio_classification: layout of --input, such as esc10, esc50 or dcase2014.')
flags.DEFINE_string('label_column', '', 'audio_classification: column of the CSV that holds the class.')
flags.DEFINE_enum('features', 'tower', ['tower', 'random', 'mfcc', 'scratch'], 'audio_classification: conv5 of the audio tower of '
                  '--run_dir (or of --tower), frozen; the same with random weights; 26 numbers from MFCCs; or the tower trained '
                  'from scratch on the sounds.')
flags.DEFINE_enum('classifier', 'svm', ['svm', 'random_forest', 'knn'], 'audio_classification: what classifies the features.')
flags.DEFINE_enum('conv5_pooling', None, ['mean', 'mean_std', 'cells'], 'audio_classification: how conv5 becomes a vector: its '
                  'mean; mean and deviation; or the maximum in each of 2 x 5 cells of time and bands. Default: cells; mean with '
                  '--tower.')
flags.DEFINE_string('tower', '', 'audio_classification: exported audio tower, instead of that of --run_dir.')
flags.DEFINE_integer('make_folds', 0, 'audio_classification: number of folds to make of whole recordings; 0 takes those of the '
                     'collection.', lower_bound=0)
flags.DEFINE_string('output', '', 'audio_classification: folder for result.json and plots. Default: --run_dir.')

flags.DEFINE_string('table', None, 'table: which one: curriculum, curriculum_downstream, action, audio, multisensory.')
flags.DEFINE_string('table_dir', 'runs/tables', 'table: folder of its runs and of what it writes.')
flags.DEFINE_integer('seeds', 1, 'table: number of seeds, from --seed on.', lower_bound=1)
flags.DEFINE_float('world_difficulty', 0.8, 'table: difficulty of the synthetic world, 0 to 1.', lower_bound=0.0, upper_bound=1.0)
for name in ('kinetics_records', 'audioset_records', 'soundnet_records', 'ucf101_records', 'hmdb51_records'):
    flags.DEFINE_string(name, None, f'table: record files of {name.split("_")[0]}, with {{part}} where "train" or "test" goes'
                        f'{" and {split} where 1, 2 or 3 goes" if name[:3] in ("ucf", "hmd") else ""}.')
for name in ('esc10_input', 'esc50_input', 'dcase2014_input'):
    flags.DEFINE_string(name, None, f'table: sounds of {name.split("_")[0]}, as --input of audio_classification.')


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
            modes.refuse_several_machines('--records: needed with several machines (TF_CONFIG); give the same on all.')
            records, eval_records = modes.make_demo_world(os.path.join(FLAGS.run_dir, 'world'), config)
        modes.run_train(config, records, eval_records, FLAGS.run_dir, FLAGS.export_dir, FLAGS.devices,
                        on_bad_record=FLAGS.on_bad_record, checkpoint_minutes=FLAGS.checkpoint_minutes,
                        keep_checkpoints=FLAGS.keep_checkpoints, deterministic=FLAGS.deterministic)
        return
    if FLAGS.mode == 'action_recognition':
        given = {field.name: FLAGS[field.name].value for _, field in parameters() if FLAGS[field.name].present}
        modes.run_action_recognition(
            FLAGS.preset or 'small', given, FLAGS.records, FLAGS.eval_records, FLAGS.run_dir, FLAGS.init, FLAGS.init_run_dir,
            FLAGS.splits, FLAGS.devices, streams=FLAGS.streams, freeze=FLAGS.freeze, layer_decay=FLAGS.layer_decay,
            label_prefix=FLAGS.label_prefix, train_clips=FLAGS.train_clips, clips_per_video=FLAGS.clips_per_video)
        return
    if FLAGS.mode == 'audio_classification':
        given = {field.name: FLAGS[field.name].value for _, field in parameters() if FLAGS[field.name].present}
        modes.run_audio_classification(
            FLAGS.preset, given, FLAGS.input, FLAGS.dataset, FLAGS.label_column, FLAGS.run_dir, FLAGS.tower, FLAGS.output,
            features=FLAGS.features, classifier=FLAGS.classifier, pooling=FLAGS.conv5_pooling, make_folds=FLAGS.make_folds)
        return
    if FLAGS.mode == 'table':
        given = {field.name: FLAGS[field.name].value for _, field in parameters() if FLAGS[field.name].present}
        data = {name: FLAGS[name].value for name in FLAGS if name.endswith(('_records', '_input')) and name != 'eval_records'}
        modes.run_table(FLAGS.table, FLAGS.table_dir, FLAGS.preset, given, FLAGS.seeds, FLAGS.world_difficulty, FLAGS.records,
                        FLAGS.eval_records, FLAGS.label_prefix, data, FLAGS.devices)
        return
    given = [field.name for _, field in parameters() if FLAGS[field.name].present]
    if given or FLAGS.preset:
        raise UserError(f'--{(given or ["preset"])[0]}: --mode={FLAGS.mode} takes the configuration of the run in --run_dir; '
                        'leave it out.')
    if FLAGS.mode == 'evaluate':
        modes.run_evaluate(FLAGS.records, FLAGS.eval_records, FLAGS.run_dir, FLAGS.windows_per_record, FLAGS.shortcuts,
                           which=FLAGS.checkpoint)
    else:
        modes.run_export(FLAGS.run_dir, FLAGS.export_dir, which=FLAGS.checkpoint)


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
