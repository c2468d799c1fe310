"""`--mode=audio_classification`: which class a sound is of, told from features that the target set has not shaped.

    tower    the audio tower of a run, frozen: conv5 of windows of 2 s that are equally spaced over the clip, 10 of them (60 for
             DCASE2014). Its convolutions run over the 2 s as one piece; an exported tower, or another system, takes parts of
             its own length, whose outputs are averaged. One-vs-all linear SVMs on the windows; a clip's scores are the means of
             those of its windows.
    random   the same tower with random weights.
    mfcc     26 numbers of the whole clip, see `mfcc.py`, and Piczak's classifiers with his settings, which nothing here chose.
    scratch  the audio tower trained on the target set itself, see `subnet.py`.

Each published fold is tested once, by what was learned from all others. Whatever is learned or chosen is taken from the training
folds alone: mean and deviation of the front end's bands and of the features, and C, by a cross-validation in which clips of one
recording stay together. Sounds are decoded from their files, padded with silence or cut to the length that the collection states.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import os
import time
import warnings
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.manifold import TSNE
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from avts_tf import plots, progress
from avts_tf.data import media, workers
from avts_tf.data.datasets import DATASETS, find_sources
from avts_tf.errors import UserError
from avts_tf.evaluation import mfcc, subnet
from avts_tf.evaluation.classification import percent, wilson_interval
from avts_tf.inference.features import AudioTower, load_tower
from avts_tf.models.audio import build_audio_tower, embed_waveform
from avts_tf.models.build import build_model
from avts_tf.training.run_folder import load_model, update_result

MODE = 'audio_classification'
FEATURES = ('tower', 'random', 'mfcc', 'scratch')
CLASSIFIERS = ('svm', 'random_forest', 'knn')
POOLINGS = ('mean', 'mean_std', 'cells')

WINDOW_SECONDS = 2.0
TRAIN_PARTS, TEST_PARTS = ('train', 'development'), ('test', 'held', 'evaluation')
CELLS = 2, 5                                            # of conv5's time and bands, for pooling "cells"
C_VALUES = tuple(10.0**power for power in range(-4, 1))
INNER_FOLDS = 3
FILE_TIMEOUT_SECONDS = 120.0
PICZAK_C, PICZAK_TREES, PICZAK_NEIGHBOURS = 0.1, 500, 8


class Protocol(NamedTuple):
    """How sounds are classified.

    Attributes:
        features: one of `FEATURES`.
        classifier: one of `CLASSIFIERS`; of no meaning for "scratch".
        pooling: how conv5 of a window becomes a vector: "mean" over time and bands, "mean_std" adds the deviation, "cells" is
            the maximum in each of 2 x 5 cells of time and bands. Exported towers and the other systems give their mean alone.
        make_folds: number of folds to make of whole recordings, instead of the published; 0 takes those.
        seed: of everything random: weights, forests, splits, augmentation.
    """

    features: str = 'tower'
    classifier: str = 'svm'
    pooling: str = 'cells'
    make_folds: int = 0
    seed: int = 0


class Fold(NamedTuple):
    """One test of a cross-validation: `name`, and int arrays of the places of its `train` and `test` clips."""

    name: str
    train: np.ndarray
    test: np.ndarray


def classify_sounds(input_path, dataset, protocol, config, run_dir='', tower_dir='', output='', label_column='', say=print):
    """Measures a kind of features on a collection; writes `result.json` and two pictures to a folder.

    Args:
        input_path: collection, as `datasets.find_sources` takes it.
        dataset: its layout.
        protocol: `Protocol`.
        config: `Config` of the tower for "random" and "scratch".
        run_dir: run folder of the tower that is probed, where there is no `tower_dir`.
        tower_dir: exported audio tower that is probed.
        output: folder for the results.
        label_column: column of a CSV that holds the class.
        say: function that shows a line of text.

    Returns:
        The results, as `result.json` holds them under `audio_classification_<dataset>_<features>_<classifier>`.

    Raises:
        UserError: the collection, its folds, the tower or the folder are not fit for it.
    """
    started = time.perf_counter()
    sources = find_sources(input_path, dataset, label_column=label_column)
    plan_folds(sources, protocol, input_path)  # a mistake in the lists should not cost a wait
    tower = None
    if protocol.features == 'tower':
        tower = _exported_tower(tower_dir) if tower_dir else _tower_of_run(run_dir, say)
        config = tower.config
    if protocol.features in ('tower', 'random') and (tower_dir or config.towers.system != 'avts'):
        protocol = protocol._replace(pooling='mean')  # that is all they give
    os.makedirs(os.path.join(output, 'plots'), exist_ok=True)

    sample_rate = mfcc.SAMPLE_RATE if protocol.features == 'mfcc' else (tower or config.clip).sample_rate
    sources, waveforms, skipped = read_sounds(sources, sample_rate, DATASETS[dataset].clip_seconds, say)
    names = sorted({source.label for source in sources})
    folds = plan_folds(sources, protocol, input_path)
    labels = np.array([names.index(source.label) for source in sources])
    groups = np.array([source.group for source in sources])
    window_count = DATASETS[dataset].windows_per_clip
    say(f'{len(sources)} sounds of {len(names)} classes; tested: {", ".join(fold.name for fold in folds)}.')
    published = DATASETS[dataset].folds
    if not protocol.make_folds and len(folds) < published:
        say(f'{len(folds)} of the {published} published folds are there: each test learns from {len(folds) - 1} folds instead of '
            f'{published - 1}, so that its accuracy is not that of the full protocol.')

    scores, chosen = np.zeros([len(sources), len(names)]), {}
    outcomes = _outcomes(protocol, tower, config, waveforms, labels, groups, folds, window_count)
    for fold, outcome in zip(folds, outcomes, strict=True):
        scores[fold.test], chosen[fold.name] = outcome.scores, outcome.chosen
        right = outcome.scores.argmax(1) == labels[fold.test]
        say(f'  {fold.name}: {right.sum()} of {len(right)}, {100 * right.mean():.1f} %')
    results = {
        'dataset': dataset, 'input': input_path, **protocol._asdict(), **measure(scores, labels, names, folds),
        'left_out': dict(skipped), 'windows_per_clip': 1 if protocol.features == 'mfcc' else window_count, 'chosen': chosen,
        'seconds': round(time.perf_counter() - started, 1),
    }
    if protocol.features == 'tower':
        results['tower'] = tower_dir or run_dir
    for line in describe(results):
        say(line)

    name = f'{dataset or "sounds"}_{protocol.features}'
    pictures = {'confusion': os.path.join(output, 'plots', f'confusion_{name}_{protocol.classifier}.png'),
                'embedding_map': os.path.join(output, 'plots', f'embedding_map_{name}.png')}
    title = f'{dataset or input_path}, {protocol.features}'
    how = '' if protocol.features == 'scratch' else f', {protocol.classifier}'
    plots.confusion_matrix(results['confusion'], names, f'{title}{how}: {100 * results["accuracy"]:.1f} % of {results["clips"]}',
                           pictures['confusion'])
    which = 'all clips' if len(outcome.shown) == len(sources) else f'the clips of {folds[-1].name}, which it has not learned from'
    plots.embedding_map(project(outcome.vectors, protocol.seed), labels[outcome.shown], names, f'{title}: t-SNE of {which}',
                        pictures['embedding_map'])
    results['plots'] = pictures
    update_result(output, {f'{MODE}_{name}_{protocol.classifier}': results})
    say(f'{os.path.join(output, "result.json")}, {", ".join(pictures.values())}: written.')
    return results


def plan_folds(sources, protocol, input_path):
    """The tests that a collection's parts ask for.

    Args:
        sources: list of `datasets.Source`.
        protocol: `Protocol`.
        input_path: for the messages.

    Returns:
        List of `Fold`: each part tested once, by what is learned from all others; or, where the parts are called train and test
        (or development and evaluation), that one test.

    Raises:
        UserError: classes or parts are missing, a recording lies in two parts, or a class can be tested but not learned.
    """
    unlabelled = next((source for source in sources if not source.label), None)
    if unlabelled:
        raise UserError(f'--input={input_path}: {unlabelled.data_path} has no class; a CSV needs a label column, a folder one '
                        'subfolder per class.')
    labels, groups = np.array([source.label for source in sources]), np.array([source.group for source in sources])
    if len(set(labels)) < 2:
        raise UserError(f'--input={input_path}: {len(set(labels))} class(es); there is nothing to tell apart.')
    if protocol.make_folds:
        folds = _made_folds(labels, groups, protocol, input_path)
    else:
        folds = _published_folds(sources, groups, input_path)
    for fold in folds:
        unknown = sorted(set(labels[fold.test].tolist()) - set(labels[fold.train].tolist()))
        if unknown:
            raise UserError(f'--input={input_path}: class {unknown[0]!r} is in {fold.name} alone, so that nothing can be learned '
                            'of it when that is tested; add clips of it to other folds, or take it out.')
    return folds


def _published_folds(sources, groups, input_path):
    parts = np.array([source.split for source in sources])
    if not all(parts):
        raise UserError(f'--input={input_path}: {sources[int(np.argmin(parts != ""))].data_path} is in no fold; give the CSV a '
                        'column fold, or --make_folds=5 to make folds of whole recordings.')
    names = sorted(set(parts), key=lambda name: (len(name), name))
    owner = {}
    for part, group, source in zip(parts, groups, sources, strict=True):
        if owner.setdefault(group, (part, source))[0] != part:
            other_part, other = owner[group]
            raise UserError(f'--input={input_path}: {other.data_path} in {other_part} and {source.data_path} in {part} are of one '
                            f'recording ({group}); what is learned from one would be known of the other.')
    trained, tested = [name for name in names if name in TRAIN_PARTS], [name for name in names if name in TEST_PARTS]
    if trained and tested and len(names) == 2:
        return [Fold(tested[0], np.flatnonzero(parts == trained[0]), np.flatnonzero(parts == tested[0]))]
    if len(names) == 1:
        raise UserError(f'--input={input_path}: one part only, {names[0]}; testing needs another to learn from '
                        '(--make_folds=5 makes folds of whole recordings).')
    if trained or tested:
        raise UserError(f'--input={input_path}: the parts {", ".join(names)} are neither folds nor one to train on and one to test '
                        'on.')
    return [Fold(name, np.flatnonzero(parts != name), np.flatnonzero(parts == name)) for name in names]


def _made_folds(labels, groups, protocol, input_path):
    count, fewest, name = protocol.make_folds, *min((len(set(groups[labels == name])), str(name)) for name in set(labels))
    if fewest < 2:
        raise UserError(f'--make_folds={count}: class {name!r} of --input={input_path} has one recording; it cannot be learned '
                        'from others when that is tested.')
    # Where a class has fewer recordings than there are folds, some folds lack it.
    if not 2 <= count <= min(len(set(groups)), max(collections.Counter(labels.tolist()).values())):
        raise UserError(f'--make_folds={count}: --input={input_path} has {len(set(groups))} recordings of {len(set(labels))} '
                        'classes; use 2 or more, and not more than the largest class has clips.')
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=protocol.seed)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='The least populated class')
        folds = [Fold(f'made{number}', *fold) for number, fold in enumerate(splitter.split(labels, labels, groups), 1)]
    return [fold for fold in folds if len(fold.test)]  # with nearly as many folds as recordings one can stay empty


def read_sounds(sources, sample_rate, clip_seconds, say):
    """Decodes sounds in processes of their own.

    Args:
        sources: list of `datasets.Source`.
        sample_rate: Hz.
        clip_seconds: length to pad with silence or cut to; None keeps each as it is.
        say: function that shows a line of text.

    Returns:
        The sources that could be read, their waveforms, int16 [samples] each, and a `Counter` of the reasons of the others.

    Raises:
        UserError: none can be read.
    """
    # Silence too is a sound of a class, and a published fold has a fixed number of clips.
    tasks = [(source.path, media.MediaOptions(
        sample_rate=sample_rate, audio_only=True, start_seconds=source.start_seconds, end_seconds=source.end_seconds,
        silent_below_db=None, max_seconds=0.0)) for source in sources]
    usable, waveforms, skipped = [], [], collections.Counter()
    with contextlib.closing(workers.run_in_order(media.try_media, tasks, os.cpu_count(), FILE_TIMEOUT_SECONDS)) as outcomes:
        shown = progress.bar(zip(sources, outcomes, strict=True), 'reading', total=len(sources), unit='sound')
        for source, (result, failure) in shown:
            if not isinstance(result, media.Media):
                reason, detail = failure or result
                skipped[reason] += 1
                shown.write(f'left out: {source.data_path}: {reason}: {detail}')
                continue
            waveform = result.waveform
            if clip_seconds:
                samples = round(clip_seconds * sample_rate)
                waveform = np.pad(waveform[:samples], (0, max(0, samples - len(waveform))))
            usable.append(source)
            waveforms.append(waveform)
    if skipped:
        reasons = ', '.join(f'{count} {reason}' for reason, count in skipped.items())
        say(f'{sum(skipped.values())} of {len(sources)} sounds left out: {reasons}.')
    if not usable:
        raise UserError(f'none of the {len(sources)} sounds can be read.')
    return usable, waveforms, skipped


def cut_windows(waveform, samples, count):
    """Windows equally spaced from the beginning of a sound to its end: int16 [length] -> int16 [count, samples].

    A sound shorter than a window is padded with silence.
    """
    waveform = np.pad(waveform, (0, max(0, samples - len(waveform))))
    starts = np.linspace(0, len(waveform) - samples, count).round().astype(int)
    return np.stack([waveform[start:start + samples] for start in starts])


class _Tower(NamedTuple):
    """What is probed.

    Attributes:
        sample_rate: Hz.
        audio_tower: that of a run.
        config: its `Config`.
        conv5: function int16 [B, samples] -> float32 [B, C], of an exported tower instead.
    """

    sample_rate: int
    audio_tower: object = None
    config: object = None
    conv5: object = None


def _tower_of_run(run_dir, say):
    model, epochs = load_model(run_dir, say=say)
    say(f'{run_dir}: weights after {epochs} epochs.')
    return _Tower(model.config.clip.sample_rate, model.audio_tower, model.config)


def _exported_tower(path):
    tower = load_tower(path)
    if not isinstance(tower, AudioTower):
        raise UserError(f'--tower={path}: a video tower; sounds need an audio tower.')
    return _Tower(tower.rate, conv5=lambda windows: tower.run(windows)['conv5'])


class _Outcome(NamedTuple):
    """Of one fold: `scores` of its test clips, float [M, C]; what was `chosen`; `vectors` of clips to draw, and their places."""

    scores: np.ndarray
    chosen: dict
    vectors: np.ndarray
    shown: np.ndarray


def _outcomes(protocol, tower, config, waveforms, labels, groups, folds, window_count):
    """Yields an `_Outcome` per fold."""
    class_count, everything = int(labels.max()) + 1, np.arange(len(waveforms))
    if protocol.features == 'scratch':
        for fold in folds:
            network = subnet.train_subnet(config, [waveforms[i] for i in fold.train], labels[fold.train], class_count,
                                          protocol.seed, WINDOW_SECONDS, fold.name)
            found = [network.classify(cut_windows(waveforms[i], network.window_samples, window_count)) for i in fold.test]
            yield _Outcome(np.stack([scores.mean(0) for scores, _ in found]), {'parameters': network.parameters},
                           np.stack([conv5.mean(0) for _, conv5 in found]), fold.test)
    elif protocol.features == 'mfcc':
        shown = progress.bar(waveforms, 'features', unit='clip', leave=False)
        features = np.stack([mfcc.clip_features(waveform) for waveform in shown])
        for fold in folds:
            model = _piczak(protocol.classifier, protocol.seed, len(fold.train)).fit(features[fold.train], labels[fold.train])
            yield _Outcome(np.eye(class_count)[model.predict(features[fold.test])], {}, features, everything)
    else:
        fixed = tower and tower.conv5 and _embed(
            tower.conv5, waveforms, round(WINDOW_SECONDS * tower.sample_rate), window_count, 'features')
        for fold in folds:
            features = fixed
            if features is None:
                learned = [waveforms[i] for i in fold.train]
                extract, samples = adapted_features(config, tower and tower.audio_tower, learned, protocol)
                features = _embed(extract, waveforms, samples, window_count, f'{fold.name}: features')
            scores, chosen = probe(protocol, features[fold.train], labels[fold.train], groups[fold.train], features[fold.test],
                                   class_count, fold.name)
            yield _Outcome(scores, chosen, features.mean(1), everything)


def _piczak(classifier, seed, examples):
    if classifier == 'svm':
        return SVC(C=PICZAK_C, kernel='linear')
    if classifier == 'knn':
        return KNeighborsClassifier(min(PICZAK_NEIGHBOURS, examples))
    return RandomForestClassifier(PICZAK_TREES, random_state=seed)


def adapted_features(config, tower, waveforms, protocol):
    """A tower over windows of 2 s, its front end set to the statistics of given sounds.

    Args:
        config: `Config` of the tower.
        tower: audio tower whose weights are taken; None draws them by the seed.
        waveforms: int16 [samples] each, for mean and deviation of every band.
        protocol: `Protocol`.

    Returns:
        A function int16 [B, samples] -> float32 [B, D], and its number of samples.
    """
    if config.towers.system != 'avts':
        if tower is None:
            train = dataclasses.replace(config.train, seed=protocol.seed)
            tower = build_model(dataclasses.replace(config, train=train)).audio_tower
        tower.get_layer('log_mel').adapt(waveform[None] for waveform in waveforms)
        return _over_parts(tower, config.clip.window_samples), round(WINDOW_SECONDS * config.clip.sample_rate)
    frames = max(1, round(WINDOW_SECONDS * config.clip.fps))
    longer = dataclasses.replace(config, clip=dataclasses.replace(config.clip, frames=frames),
                                 towers=dataclasses.replace(config.towers, bfloat16=False))
    keras.utils.set_random_seed(protocol.seed)
    probed = build_audio_tower(longer)
    front_end, network = probed.get_layer('log_mel'), probed.get_layer('audio_network')
    if tower is not None:
        trained = tower.get_layer('audio_network')
        for layer in network.layers:
            if layer.name.startswith('conv') and layer.weights:
                layer.set_weights(trained.get_layer(layer.name).get_weights())
    front_end.adapt(waveform[None] for waveform in waveforms)
    conv5 = keras.Model(network.inputs, network.get_layer('conv5_relu').output)

    @tf.function(reduce_retracing=True, autograph=False)
    def extract(windows):
        return pool(conv5(front_end(windows), training=False), protocol.pooling)

    return extract, longer.clip.window_samples


def _over_parts(tower, part_samples):
    """Mean of a tower's conv5 over parts end to end, the last one padded: a function int16 [B, samples] -> float32 [B, C].

    A part counts as much as it has samples that are no padding.
    """
    @tf.function(reduce_retracing=True, autograph=False)
    def extract(windows):
        count = -(-windows.shape[1] // part_samples)
        real = np.minimum(part_samples, windows.shape[1] - part_samples * np.arange(count)) / windows.shape[1]
        windows = tf.pad(windows, [[0, 0], [0, count * part_samples - windows.shape[1]]])
        vectors = embed_waveform(tower, tf.reshape(windows, [-1, part_samples]))['conv5']
        return tf.einsum('bpc,p->bc', tf.reshape(vectors, [-1, count, vectors.shape[-1]]), tf.constant(real, vectors.dtype))

    return extract


def pool(maps, pooling):
    """Vectors of conv5's maps: float [B, time, bands, C] -> float [B, D]; see `Protocol`."""
    if pooling == 'mean':
        return tf.reduce_mean(maps, [1, 2])
    if pooling == 'mean_std':
        return tf.concat([tf.reduce_mean(maps, [1, 2]), tf.math.reduce_std(maps, [1, 2])], -1)
    cells = [[part[[0, -1]] + (0, 1) for part in np.array_split(np.arange(size), min(size, count))]
             for size, count in zip(maps.shape[1:3], CELLS, strict=True)]
    return tf.concat([tf.reduce_max(maps[:, first:end, low:high], [1, 2]) for first, end in cells[0] for low, high in cells[1]], -1)


def _embed(extract, waveforms, samples, window_count, title):
    """Features of the windows of all clips: float32 [N, K, D]."""
    parts = []
    for waveform in progress.bar(waveforms, title, unit='clip', leave=False):
        parts.append(np.asarray(extract(cut_windows(waveform, samples, window_count))))
    return np.stack(parts)


def probe(protocol, features, labels, groups, tested, class_count, title=''):
    """Learns from windows, classifies clips.

    Args:
        protocol: `Protocol`.
        features: float [N, K, D] of the training clips.
        labels: int [N].
        groups: [N], their recordings, which stay together where C is chosen.
        tested: float [M, K, D].
        class_count: number of classes.
        title: of the progress bar.

    Returns:
        Scores, float [M, class_count], and a dict of what was chosen.
    """
    classifier, chosen = _piczak(protocol.classifier, protocol.seed, features.shape[0] * features.shape[1]), {}
    if protocol.classifier == 'svm':
        c_value, accuracies = choose_c(features, labels, groups, class_count, protocol.seed, title)
        classifier, chosen = _svm(c_value), {'C': c_value, 'inner_accuracy': accuracies}
    return _clip_scores(_fit(classifier, features, labels), tested, class_count), chosen


def choose_c(features, labels, groups, class_count, seed, title=''):
    """The C with the highest accuracy on clips, by cross-validation inside the training clips; the smallest of equals.

    Clips of one recording are on one side of each split. Where a class has one recording only, there is nothing to choose by: the
    middle value.

    Returns:
        C, and a dict from each tried C to its accuracy.
    """
    recordings = min(len(set(groups[labels == label])) for label in set(labels))
    if recordings < 2:
        return C_VALUES[len(C_VALUES) // 2], {}
    splitter = StratifiedGroupKFold(min(INNER_FOLDS, recordings), shuffle=True, random_state=seed)
    splits = list(splitter.split(labels, labels, groups))

    def accuracy(c_value, train, test):
        model = _fit(_svm(c_value), features[train], labels[train])
        return float(np.mean(_clip_scores(model, features[test], class_count).argmax(1) == labels[test]))

    tasks = [(c_value, *split) for c_value in C_VALUES for split in splits]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool_of_threads:
        found = list(progress.bar(pool_of_threads.map(lambda task: accuracy(*task), tasks), f'{title}: choosing C',
                                  total=len(tasks), unit='fit', leave=False))
    means = np.reshape(found, [len(C_VALUES), -1]).mean(1)
    return C_VALUES[int(means.argmax())], {f'{c_value:g}': float(mean) for c_value, mean in zip(C_VALUES, means, strict=True)}


def _svm(c_value):
    # To a hundredth of the first gradient, where no score moves any more and the large C take a fifth of the time.
    return LinearSVC(C=c_value, dual=False, tol=1e-2)


def _fit(classifier, features, labels):
    """A classifier of windows, which it standardises by those that it learns from."""
    return make_pipeline(StandardScaler(), classifier).fit(
        features.reshape(-1, features.shape[-1]), np.repeat(labels, features.shape[1]))


def _clip_scores(model, features, class_count):
    """Means over the windows of a clip: float [N, K, D] -> float [N, class_count]; a class that was not learned has -inf."""
    flat = features.reshape(-1, features.shape[-1])
    found = model.decision_function(flat) if hasattr(model, 'decision_function') else model.predict_proba(flat)
    if found.ndim == 1:  # two classes: the scores of the second
        found = np.stack([-found, found], 1)
    scores = np.full([len(flat), class_count], -np.inf)
    scores[:, model.classes_] = found
    return scores.reshape(len(features), -1, class_count).mean(1)


def measure(scores, labels, names, folds):
    """What is reported of a cross-validation.

    Args:
        scores: float [N, C]; of clips that no fold tests, anything.
        labels: int [N].
        names: C names.
        folds: list of `Fold`.

    Returns:
        Dict: `clips`; `accuracy`, the mean of the folds', and its 95 % `accuracy_interval` (Wilson, over all tested clips);
        `fold_deviation`; `folds`, name -> {`right`, `clips`, `accuracy`}; `per_class`, the same with an `interval`; `confusion`,
        rows of counts, true by predicted class; `chance`, the part of the largest class.
    """
    tested = np.concatenate([fold.test for fold in folds])
    truth, right = labels[tested], scores[tested].argmax(1) == labels[tested]
    confusion = np.zeros([len(names), len(names)], int)
    np.add.at(confusion, (truth, scores[tested].argmax(1)), 1)
    by_fold = {fold.name: _counts(scores[fold.test].argmax(1) == labels[fold.test]) for fold in folds}
    accuracies = [values['accuracy'] for values in by_fold.values()]
    return {
        'clips': len(tested), 'classes': len(names), 'chance': float(np.bincount(truth).max() / len(tested)),
        'accuracy': float(np.mean(accuracies)), 'accuracy_interval': wilson_interval(int(right.sum()), len(tested)),
        'fold_deviation': float(np.std(accuracies)), 'folds': by_fold,
        'per_class': {name: {**_counts(right[truth == index]),
                             'interval': wilson_interval(int(right[truth == index].sum()), int((truth == index).sum()))}
                      for index, name in enumerate(names) if (truth == index).any()},
        'confusion': confusion.tolist(),
    }


def _counts(right):
    return {'right': int(right.sum()), 'clips': len(right), 'accuracy': float(right.mean())}


def describe(results):
    """Lines for the terminal, from the result of `measure`."""
    width = max(map(len, results['per_class']))
    for name, values in results['per_class'].items():
        yield f'  {name:<{width}} {values["right"]:>4} of {values["clips"]:<4} {percent(values["accuracy"], values["interval"])}'
    yield (f'accuracy: {percent(results["accuracy"], results["accuracy_interval"])} of {results["clips"]} clips, mean of '
           f'{len(results["folds"])} fold(s); chance is {100 * results["chance"]:.1f} %; in brackets 95 % (Wilson, over clips).')


def project(vectors, seed):
    """t-SNE of standardised vectors, after PCA: float [N, D] -> float [N, 2]. Fewer than 8 are shown by PCA alone."""
    vectors = StandardScaler().fit_transform(vectors)
    vectors = PCA(min(30, *vectors.shape), random_state=seed).fit_transform(vectors)
    if len(vectors) < 8:
        return np.pad(vectors, ((0, 0), (0, 2)))[:, :2]
    # The approximation only pays, and its threads only agree with a busy machine, where there are many points.
    method = 'exact' if len(vectors) < 500 else 'barnes_hut'
    return TSNE(perplexity=min(30, (len(vectors) - 1) / 3), init='pca', random_state=seed, method=method).fit_transform(vectors)
