"""Classify sounds by frozen features of the audio tower, or by features to compare it with."""

import dataclasses
import os

from avts_tf.commands._flags import OUTPUT, RUN_DIR, Flag

PARAMETERS = True
FLAGS = {
    'Files': [
        Flag('input', None, 'Sounds to classify: file, folder, glob in quotes, or CSV.',
             repeated=True),
        Flag('dataset', '', 'Layout of --input, such as esc10, esc50 or dcase2014.'),
        Flag('label_column', '', 'Column of the CSV that holds the class.'),
        RUN_DIR,
        Flag('tower', None, 'Folder of an exported audio tower, instead of that of --run_dir.',
             repeated=True),
        dataclasses.replace(OUTPUT, help='Folder of the results. Default: --run_dir.'),
    ],
    'Protocol': [
        Flag('features', 'tower', 'conv5 of the audio tower of --run_dir (or of --tower), frozen; '
             'the same with random weights; 26 numbers from MFCCs; or the tower trained from '
             'scratch on the sounds.', choices=('tower', 'random', 'mfcc', 'scratch')),
        Flag('classifier', 'svm', 'What classifies the features.',
             choices=('svm', 'random_forest', 'knn')),
        Flag('conv5_pooling', None, 'How conv5 becomes a vector: its mean; mean and deviation; or '
             'the maximum in each of 2 x 5 cells of time and bands. Default: cells; mean with '
             '--tower.', choices=('mean', 'mean_std', 'cells')),
        Flag('make_folds', 0, 'Number of folds to make of whole recordings; 0 takes those of the '
             'dataset.', minimum=0),
    ],
}


def run(flags):
    """Classifies sounds by the folds of the dataset."""
    from avts_tf import files
    from avts_tf.config import make_config
    from avts_tf.errors import UserError
    from avts_tf.evaluation import audio
    from avts_tf.training.run_folder import load_config

    sounds, tower = _only('input', flags.input), _only('tower', flags.tower)
    if not sounds:
        raise UserError('input', None, 'needed; the sounds to classify, such as a folder or a CSV.')
    # An exported tower gives one vector; a run's has maps, of which the cells keep more.
    pooling = flags.conv5_pooling or ('mean' if tower else 'cells')
    if tower and pooling != 'mean':
        raise UserError('conv5_pooling', pooling, 'an exported tower gives the mean of conv5; '
                        'leave it out, or use `run_dir`.')
    given = dict(flags.parameters)
    protocol = audio.Protocol(
        features=flags.features, classifier=flags.classifier, make_folds=flags.make_folds,
        pooling=pooling, seed=given.pop('seed', 0))
    # "random" has the sizes of a run's tower, where there is a run to compare with.
    has_run = os.path.exists(os.path.join(flags.run_dir, 'config.json'))
    of_run = ((flags.features == 'tower' and not tower)
              or (flags.features == 'random' and has_run))
    if (of_run or tower or flags.features == 'mfcc') and (given or flags.preset):
        origin = ''
        if of_run or tower:
            origin = f', whose tower is that of {tower or flags.run_dir}'
        raise UserError([*given, 'preset'][0], None, f'has no meaning for '
                        f'`features`={flags.features}{origin}; leave it out.')
    if of_run:
        config = load_config(flags.run_dir)
    else:
        config = make_config(flags.preset or 'small', **given, seed=protocol.seed)
    output, parameter = (flags.output, 'output') if flags.output else (flags.run_dir, 'run_dir')
    with files.locked(output, parameter):
        audio.classify_sounds(sounds, flags.dataset, protocol, config, flags.run_dir,
                              tower, output, flags.label_column)


def _only(name, values):
    """The only value of a flag that other modes may repeat; '' where it is not given."""
    from avts_tf.errors import UserError
    if len(values or []) > 1:
        raise UserError(name, values[1], f'only one `{name}` may be given here; a CSV may name '
                        'many files.')
    return values[0] if values else ''
