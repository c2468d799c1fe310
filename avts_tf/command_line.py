"""Command line of AVTS for TensorFlow: flags in, one function call per --mode.

`python main.py` and, where the package is installed, `avts`.

With no flags it writes a small synthetic world, trains the `tiny` preset on it through both stages of the curriculum,
measures synchronisation on videos it never saw, and exports both towers.
"""

import os

from absl import flags, logging

from avts_tf import program
from avts_tf.config import PRESETS, make_config, parameters
from avts_tf.errors import UserError

FLAGS = flags.FLAGS
MODES = ('train', 'evaluate', 'export', 'features', 'audio_classification', 'action_recognition', 'table', 'offset', 'tune')
CONFIGURABLE = ('train', 'tune', 'audio_classification', 'action_recognition', 'table')  # modes that make a configuration
_READERS = {}  # name of a flag → the modes that read it; any other mode refuses it


def _of(modes, define, name, default, *arguments, **options):
    """Defines a flag that some modes read; its help begins with their names."""
    *choices, text = arguments
    define(name, default, *choices, f'{", ".join(modes)}: {text}', **options)
    _READERS[name] = modes


flags.DEFINE_enum('mode', 'train', MODES, 'What to do.')
flags.DEFINE_string('run_dir', 'runs/demo', 'Folder of the run: configuration, checkpoints, history, results, plots.')

_of(CONFIGURABLE, flags.DEFINE_enum, 'preset', None, list(PRESETS), 'Named values of the parameters, which override them. Default: '
    'small; tiny for train and tune without --records, and for tables.')
_of(('train', 'tune', 'evaluate', 'action_recognition', 'table'), flags.DEFINE_string, 'records', None, 'Record files to train on: '
    'glob(s), separated by commas. Default for train, tune and table: a synthetic world, made in RUN_DIR/world or TABLE_DIR/world.')
_of(('train', 'tune', 'evaluate', 'action_recognition', 'table', 'offset'), flags.DEFINE_string, 'eval_records', None,
    'Record files to measure on, not to be trained on.')
_of(('train', 'tune'), flags.DEFINE_string, 'select_records', None, 'Record files to choose on: the epoch of --checkpoint=best and '
    'the trial of tune. Default: those of --eval_records, which then flatter what was chosen.')
_of(('train', 'export', 'features'), flags.DEFINE_string, 'export_dir', 'saved_models',
    'Folder of the exported towers, <tower>/<version>/.')
_of(('train', 'export'), flags.DEFINE_boolean, 'export_resample', False, "Let the exported audio tower's signature at_rate "
    'resample sound of other rates, instead of refusing it.')
_of(CONFIGURABLE, flags.DEFINE_string, 'devices', 'auto', 'Devices to train on: "auto" is all GPUs, or the CPU; a number is of '
    'GPUs, or of logical CPU devices where there is no GPU.')
_of(('train',), flags.DEFINE_enum, 'on_bad_record', 'skip', ('skip', 'stop'), 'What to do with a record that cannot be used: leave '
    'it out, count and name it; or stop.')
_of(('train',), flags.DEFINE_float, 'checkpoint_minutes', 10.0, 'Minutes between checkpoints within an epoch; 0 is after every '
    'step.', lower_bound=0.0)
_of(('train',), flags.DEFINE_integer, 'keep_checkpoints', 3, 'Newest checkpoints to keep; the best is kept beside them.',
    lower_bound=1)
_of(('train',), flags.DEFINE_boolean, 'deterministic', False, 'Have TensorFlow give the same bits each time on GPUs too; a CPU '
    'does anyway.')
_of(('evaluate', 'export'), flags.DEFINE_enum, 'checkpoint', 'newest', ('newest', 'best'), 'Checkpoint to take; the best is that '
    'of the epoch with the highest AUC on hard negatives.')
_of(('evaluate',), flags.DEFINE_integer, 'windows_per_record', 4, 'Windows drawn from each record.', lower_bound=1)
_of(('evaluate',), flags.DEFINE_boolean, 'shortcuts', False, 'Also measure what can be told without hearing and seeing the same '
    'moment.')

_of(('features', 'audio_classification', 'offset'), flags.DEFINE_multi_string, 'input', None, 'File, folder, glob in quotes, or '
    'CSV of sounds or videos. May be repeated for features and offset. offset without it calibrates on --eval_records.')
_of(('features', 'audio_classification', 'offset'), flags.DEFINE_string, 'output', None, 'Folder of what is written. Default: '
    '--run_dir for audio_classification, RUN_DIR/offsets for offset.')
_of(('features', 'audio_classification'), flags.DEFINE_multi_string, 'tower', None, 'Folder of an exported tower or of one version '
    'of it. features: may be repeated; default EXPORT_DIR/audio_tower, and EXPORT_DIR/video_tower too where videos are among the '
    'input. audio_classification: instead of the tower of --run_dir.')

_of(('features',), flags.DEFINE_string, 'output_format', 'npz', 'npz, a file per sound or video; or tfrecord, a set of record '
    'files per tower.')
_of(('features',), flags.DEFINE_float, 'hop_seconds', None, 'Step between windows, in seconds. Default: a window, so that they lie '
    'end to end.')
_of(('features',), flags.DEFINE_boolean, 'centered', False, 'Pad by half a window at both ends, so that the first window is '
    'centred on 0 s.')
_of(('features',), flags.DEFINE_boolean, 'overwrite', False, 'Write anew what is there already.')
_of(('features',), flags.DEFINE_boolean, 'skip_existing', False, 'Leave what is there already and go on with the rest.')
_of(('features',), flags.DEFINE_integer, 'workers', 0, 'Decoding processes; 0 takes one per two processors.', lower_bound=0)
_of(('features',), flags.DEFINE_float, 'file_timeout_seconds', 120.0, 'Longest wait for the next part of a file, in seconds.',
    lower_bound=0.1)
FEATURE_OPTIONS = ('hop_seconds', 'centered', 'batch_size', 'output_format', 'overwrite', 'skip_existing')

_of(('audio_classification',), flags.DEFINE_string, 'dataset', '', 'Layout of --input, such as esc10, esc50 or dcase2014.')
_of(('audio_classification',), flags.DEFINE_string, 'label_column', '', 'Column of the CSV that holds the class.')
_of(('audio_classification',), flags.DEFINE_enum, 'features', 'tower', ('tower', 'random', 'mfcc', 'scratch'), 'conv5 of the audio '
    'tower of --run_dir (or of --tower), frozen; the same with random weights; 26 numbers from MFCCs; or the tower trained from '
    'scratch on the sounds.')
_of(('audio_classification',), flags.DEFINE_enum, 'classifier', 'svm', ('svm', 'random_forest', 'knn'), 'What classifies the '
    'features.')
_of(('audio_classification',), flags.DEFINE_enum, 'conv5_pooling', None, ('mean', 'mean_std', 'cells'), 'How conv5 becomes a '
    'vector: its mean; mean and deviation; or the maximum in each of 2 x 5 cells of time and bands. '
    'Default: cells; mean with --tower.')
_of(('audio_classification',), flags.DEFINE_integer, 'make_folds', 0, 'Number of folds to make of whole recordings; 0 takes those '
    'of the collection.', lower_bound=0)

_of(('action_recognition',), flags.DEFINE_string, 'init', 'scratch', 'The towers to begin with: "scratch" is random weights, '
    '"avts" those of --init_run_dir; a run folder stands for both.')
_of(('action_recognition',), flags.DEFINE_string, 'init_run_dir', None, 'Run folder that the towers come from; with --init=scratch '
    'their sizes only.')
_of(('action_recognition',), flags.DEFINE_enum, 'streams', 'video', ('video', 'audio', 'both'), 'Which towers see the clip.')
_of(('action_recognition',), flags.DEFINE_boolean, 'freeze', False, 'Train the softmax alone and leave the towers as they are.')
_of(('action_recognition',), flags.DEFINE_float, 'layer_decay', 1.0, 'Each stage of a tower learns this many times as fast as the '
    'one above it.', lower_bound=0.0, upper_bound=1.0)
_of(('action_recognition', 'table'), flags.DEFINE_string, 'label_prefix', '', 'Beginning of the label that is the class, where '
    'records have several.')
_of(('action_recognition',), flags.DEFINE_integer, 'train_clips', 0, 'Number of training records, classes in their proportions; 0 '
    'is all.', lower_bound=0)
_of(('action_recognition',), flags.DEFINE_integer, 'clips_per_video', 10, 'Windows per test video whose scores are averaged.',
    lower_bound=1)
_of(('action_recognition',), flags.DEFINE_list, 'splits', [], 'Official splits, such as 1,2,3; each replaces {split} in the globs.')

_of(('table',), flags.DEFINE_string, 'table', None, 'Which one: curriculum, curriculum_downstream, action, audio, multisensory.')
_of(('table',), flags.DEFINE_string, 'table_dir', 'runs/tables', 'Folder of its runs and of what it writes.')
_of(('table',), flags.DEFINE_integer, 'seeds', 1, 'Number of seeds, from --seed on.', lower_bound=1)
_of(('table',), flags.DEFINE_float, 'world_difficulty', 0.8, 'Difficulty of the synthetic world, 0 to 1.', lower_bound=0.0,
    upper_bound=1.0)
TABLE_DATA = ('kinetics_records', 'audioset_records', 'soundnet_records', 'ucf101_records', 'hmdb51_records',
              'esc10_input', 'esc50_input', 'dcase2014_input')
for name in TABLE_DATA:
    collection, kind = name.split('_')
    _of(('table',), flags.DEFINE_string, name, None,
        f'Sounds of {collection}, as --input of audio_classification.' if kind == 'input' else
        f'Record files of {collection}, with {{part}} where "train" or "test" goes'
        f'{" and {split} where 1, 2 or 3 goes" if collection in ("ucf101", "hmdb51") else ""}.')

_of(('offset',), flags.DEFINE_float, 'max_offset_seconds', 1.0, 'Greatest offset that is looked at, in seconds.', lower_bound=0.02)
_of(('offset',), flags.DEFINE_float, 'min_confidence', 0.9, 'Least confidence of an answer. Below it, '
    'without a calibration, or where the distance is lowest at the edge of the search or nearly as low '
    'elsewhere, the answer is "cannot tell".', lower_bound=0.0, upper_bound=1.0)
_of(('offset',), flags.DEFINE_boolean, 'fix', False, 'Also write each file whose offset can be told '
    'with its audio moved into sync.')
_of(('tune',), flags.DEFINE_integer, 'trials', 20, 'Trainings in all.', lower_bound=1)


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
        raise UserError(f'{argv[1]!r} is no flag; flags look like --name=value (--help lists them).')
    logging.set_verbosity(logging.WARNING)
    given = {field.name: FLAGS[field.name].value for _, field in parameters() if FLAGS[field.name].present}
    _refuse_what_is_not_read(given)
    # Imported after the flags are read, so that --help and a mistyped flag answer at once.
    from avts_tf import modes
    {
        'train': _train_or_tune, 'tune': _train_or_tune, 'features': _features, 'audio_classification': _audio_classification,
        'action_recognition': _action_recognition, 'table': _table,
        'evaluate': lambda modes, given: modes.run_evaluate(
            FLAGS.records, FLAGS.eval_records, FLAGS.run_dir, FLAGS.windows_per_record, FLAGS.shortcuts, which=FLAGS.checkpoint),
        'export': lambda modes, given: modes.run_export(FLAGS.run_dir, FLAGS.export_dir, FLAGS.export_resample,
                                                        which=FLAGS.checkpoint),
        'offset': lambda modes, given: modes.run_offset(FLAGS.run_dir, FLAGS.input, FLAGS.eval_records, FLAGS.output,
                                                        FLAGS.max_offset_seconds,
                                                        FLAGS.min_confidence, FLAGS.fix),
    }[FLAGS.mode](modes, given)


def _refuse_what_is_not_read(given):
    mode = FLAGS.mode
    for name, readers in _READERS.items():
        if FLAGS[name].present and mode not in readers and name != 'preset':
            raise UserError(f'--{name}: has no meaning for --mode={mode}, only for {", ".join(readers)}; leave it out.')
    left = [name for name in given if not (mode == 'features' and name in FEATURE_OPTIONS)]
    if mode not in CONFIGURABLE and (left or FLAGS.preset):
        raise UserError(f'--{[*left, "preset"][0]}: --mode={mode} takes the configuration of the run or the tower; leave it out.')


def _train_or_tune(modes, given):
    records, eval_records = FLAGS.records, FLAGS.eval_records
    preset = FLAGS.preset or ('small' if records else 'tiny')
    config = make_config(preset, **given)
    if not records:
        modes.refuse_several_machines('--records: needed with several machines (TF_CONFIG); give the same on all.')
        records, eval_records = modes.make_demo_world(os.path.join(FLAGS.run_dir, 'world'), config)
    if FLAGS.mode == 'tune':
        modes.run_tune(preset, given, records, eval_records, FLAGS.run_dir, FLAGS.trials, FLAGS.devices,
                       select_records=FLAGS.select_records)
        return
    modes.run_train(config, records, eval_records, FLAGS.run_dir, FLAGS.export_dir, FLAGS.devices, FLAGS.export_resample,
                    on_bad_record=FLAGS.on_bad_record, checkpoint_minutes=FLAGS.checkpoint_minutes,
                    keep_checkpoints=FLAGS.keep_checkpoints, deterministic=FLAGS.deterministic, select_records=FLAGS.select_records)


def _features(modes, given):
    modes.run_features(FLAGS.input, FLAGS.output, FLAGS.tower, FLAGS.export_dir, FLAGS.workers, FLAGS.file_timeout_seconds,
                       {name: FLAGS[name].value for name in FEATURE_OPTIONS})


def _audio_classification(modes, given):
    for name in ('input', 'tower'):
        if len(FLAGS[name].value or []) > 1:
            raise UserError(f'--{name}={FLAGS[name].value[1]}: --mode=audio_classification takes one; a CSV may name many files.')
    input_path, tower = (FLAGS[name].value[0] if FLAGS[name].value else '' for name in ('input', 'tower'))
    modes.run_audio_classification(
        FLAGS.preset, given, input_path, FLAGS.dataset, FLAGS.label_column, FLAGS.run_dir, tower, FLAGS.output,
        features=FLAGS.features, classifier=FLAGS.classifier, pooling=FLAGS.conv5_pooling, make_folds=FLAGS.make_folds)


def _action_recognition(modes, given):
    modes.run_action_recognition(
        FLAGS.preset or 'small', given, FLAGS.records, FLAGS.eval_records, FLAGS.run_dir, FLAGS.init, FLAGS.init_run_dir,
        FLAGS.splits, FLAGS.devices, streams=FLAGS.streams, freeze=FLAGS.freeze, layer_decay=FLAGS.layer_decay,
        label_prefix=FLAGS.label_prefix, train_clips=FLAGS.train_clips, clips_per_video=FLAGS.clips_per_video)


def _table(modes, given):
    data = {name: FLAGS[name].value for name in TABLE_DATA}
    modes.run_table(FLAGS.table, FLAGS.table_dir, FLAGS.preset, given, FLAGS.seeds, FLAGS.world_difficulty, FLAGS.records,
                    FLAGS.eval_records, FLAGS.label_prefix, data, FLAGS.devices)


def run():
    """Runs the command line."""
    program.run(main)
