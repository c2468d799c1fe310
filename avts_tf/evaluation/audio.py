"""Audio classification: how well features of an audio tower separate the classes of a collection.

Features:

    tower    a trained audio tower, frozen: conv5 of windows of 2 s that are equally spaced over the
             clip, 10 of them (60 for DCASE2014). Its convolutions run over the 2 s as one piece; an
             exported tower, or another system, takes parts of its own length, whose outputs are
             averaged. One-vs-all linear SVMs on the windows; a clip's scores are the means of those
             of its windows.
    random   the same tower with random weights.
    soundnet SoundNet with its published weights, frozen: its conv5, conv6 or conv7, whichever the
             training folds choose, of the same windows.
    soundnet_random  SoundNet with random weights.
    mfcc     26 numbers of the whole clip, see `mfcc.py`, and Piczak's classifiers and settings.
    scratch  the audio tower trained on the collection itself, see `subnet.py`.

Each published fold is tested once, by a classifier trained on all others. All that is fitted or
chosen comes from the training folds: mean and standard deviation of the front end's bands and of
the features, and C and SoundNet's layer, by a cross-validation in which clips of one recording stay
together. Sounds are decoded from their files and padded with silence or cut to the length that the
collection states.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

from avts_tf import progress
from avts_tf.config import Config
from avts_tf.data.datasets import DATASETS, find_sources
from avts_tf.evaluation import mfcc, subnet
from avts_tf.evaluation.classification import (
    classification_report,
    count_right,
    describe_classes,
    rank_of_truth,
)
from avts_tf.evaluation.folds import Fold, plan_folds
from avts_tf.evaluation.probe import piczak_classifier, probe
from avts_tf.evaluation.sounds import cut_windows, read_sounds
from avts_tf.evaluation.tower_features import (
    WINDOW_SECONDS,
    ProbedTower,
    adapted_features,
    window_features,
)
from avts_tf.metrics import percent

MODE = 'audio_classification'
SOUNDNET = 'soundnet', 'soundnet_random'  # the features of `soundnet_tower`

logger = logging.getLogger(__name__)


class Protocol(NamedTuple):
    """How sounds are classified.

    Attributes:
        features: 'tower', 'random', 'mfcc', 'scratch', 'soundnet' or 'soundnet_random', see the
            head of this file.
        classifier: one of `probe.CLASSIFIERS`; without meaning for "scratch".
        pooling: how conv5 of a window becomes a vector, see `tower_features.pool`. Exported towers
            and the other systems give their mean only.
        make_folds: number of folds to make of whole recordings, instead of the published; 0 takes
            those.
        seed: of everything random: weights, forests, splits, augmentation.
    """

    features: str = 'tower'
    classifier: str = 'svm'
    pooling: str = 'cells'
    make_folds: int = 0
    seed: int = 0


class SoundClassification(NamedTuple):
    """Result of `classify_sounds`.

    Attributes:
        results: dict for `result.json`, see `classify_sounds`.
        names: names of the classes.
        vectors: float [N, D], a vector of each clip to draw (see `project`): all clips, or those of
            the last fold where the features were trained on the others.
        labels: int [N], their classes.
        vectors_of: whose vectors these are, in words.
    """

    results: dict
    names: list[str]
    vectors: np.ndarray
    labels: np.ndarray
    vectors_of: str


def classify_sounds(
    input_path: str, dataset: str, protocol: Protocol, config: Config,
    tower: ProbedTower | None = None, label_column: str = '',
) -> SoundClassification:
    """Measures features on a collection of sounds.

    Args:
        input_path: collection, as `datasets.find_sources` takes it.
        dataset: its layout, such as 'esc50'; '' for a folder per class or a CSV.
        protocol: what is measured and how.
        config: of the tower for the features "random" and "scratch".
        tower: trained tower for the features "tower"; `soundnet_tower` for those of SoundNet.
        label_column: column of a CSV that holds the class.

    Returns:
        A `SoundClassification`. Its `results` are those of `report`, with the protocol and
        `dataset`, `input`, `left_out` (reasons of clips that could not be read, with counts),
        `windows_per_clip`, `chosen` (by fold) and `seconds`.

    Raises:
        UserError: the collection or its folds are unfit for it.

    Example:
        >>> protocol = Protocol(features='mfcc', classifier='random_forest')
        >>> found = classify_sounds('esc10.csv', 'esc10', protocol, make_config('small'))
        >>> found.results['accuracy']
        0.72...
    """
    started = time.perf_counter()
    sources = find_sources(input_path, dataset, label_column=label_column)
    # Before any sound is decoded, so that a mistake in the lists shows at once.
    plan_folds(sources, input_path, protocol.make_folds, protocol.seed)
    if tower and tower.config:
        config = tower.config
    exported = tower is not None and tower.layers is not None
    if protocol.features in ('tower', 'random') and (exported or config.towers.system != 'avts'):
        protocol = protocol._replace(pooling='mean')  # these have no maps
    if protocol.features == 'mfcc':
        sample_rate, window_count = mfcc.SAMPLE_RATE, 1
    else:
        sample_rate = (tower or config.clip).sample_rate
        window_count = DATASETS[dataset].windows_per_clip

    sources, waveforms, skipped = read_sounds(sources, sample_rate, DATASETS[dataset].clip_seconds)
    names = sorted({source.label for source in sources})
    folds = plan_folds(sources, input_path, protocol.make_folds, protocol.seed)
    labels = np.array([names.index(source.label) for source in sources])
    groups = np.array([source.group for source in sources])
    logger.info('%d sounds of %d classes; tested: %s.', len(sources), len(names),
                ', '.join(fold.name for fold in folds))
    published = DATASETS[dataset].folds
    if not protocol.make_folds and len(folds) < published:
        logger.warning(
            '%d of the %d published folds are there: each test is trained on %d folds, not on %d, '
            'so that its accuracy is not that of the full protocol.',
            len(folds), published, len(folds) - 1, published - 1)

    scores, chosen = np.zeros([len(sources), len(names)]), {}
    outcomes = _outcomes(protocol, tower, config, waveforms, labels, groups, folds, window_count)
    for fold, outcome in zip(folds, outcomes, strict=True):
        scores[fold.test], chosen[fold.name] = outcome.scores, outcome.chosen
        right = rank_of_truth(outcome.scores, labels[fold.test]) < 1
        logger.info('  %s: %d of %d, %.1f %%', fold.name, right.sum(), len(right),
                    100 * right.mean())
    results = {
        'dataset': dataset, 'input': input_path, **protocol._asdict(),
        **report(scores, labels, names, folds), 'left_out': dict(skipped),
        'windows_per_clip': window_count, 'chosen': chosen,
        'seconds': round(time.perf_counter() - started, 1),
    }
    vectors_of = ('all clips' if len(outcome.shown) == len(sources) else
                  f'the clips of {folds[-1].name}, which it was not trained on')
    return SoundClassification(results, names, outcome.vectors, labels[outcome.shown], vectors_of)


def result_name(dataset: str, protocol: Protocol) -> str:
    """The entry of `result.json` that holds the results of a collection and a protocol."""
    return f'{MODE}_{dataset or "sounds"}_{protocol.features}_{protocol.classifier}'


class _Outcome(NamedTuple):
    """Of one fold.

    Attributes:
        scores: float [M, C], of its test clips.
        chosen: dict of what was chosen.
        vectors: float [N, D], vectors of clips to draw.
        shown: int [N], indices of these clips.
    """

    scores: np.ndarray
    chosen: dict
    vectors: np.ndarray
    shown: np.ndarray


def _outcomes(
    protocol: Protocol, tower: ProbedTower | None, config: Config, waveforms: Sequence[np.ndarray],
    labels: np.ndarray, groups: np.ndarray, folds: Sequence[Fold], window_count: int,
) -> Iterator[_Outcome]:
    """Yields an `_Outcome` per fold."""
    class_count, everything = int(labels.max()) + 1, np.arange(len(waveforms))
    if protocol.features == 'scratch':
        for fold in folds:
            network = subnet.train_subnet(
                config, [waveforms[i] for i in fold.train], labels[fold.train], class_count,
                protocol.seed, WINDOW_SECONDS, fold.name)
            found = [network.classify(
                cut_windows(waveforms[i], network.window_samples, window_count))
                for i in fold.test]
            yield _Outcome(np.stack([scores.mean(0) for scores, _ in found]),
                           {'parameters': network.parameters},
                           np.stack([conv5.mean(0) for _, conv5 in found]), fold.test)
    elif protocol.features == 'mfcc':
        shown = progress.bar(waveforms, 'features', unit='clip', leave=False)
        numbers = np.stack([mfcc.clip_features(waveform) for waveform in shown])
        for fold in folds:
            model = piczak_classifier(protocol.classifier, protocol.seed, len(fold.train))
            model.fit(numbers[fold.train], labels[fold.train])
            predicted = model.predict(numbers[fold.test])
            yield _Outcome(np.eye(class_count)[predicted], {}, numbers, everything)
    else:
        fixed = None
        if tower and tower.layers:
            samples = round(WINDOW_SECONDS * tower.sample_rate)
            fixed = window_features(tower.layers, waveforms, samples, window_count, 'features')
        for fold in folds:
            if fixed is not None:
                features = fixed
            else:
                extract, samples = adapted_features(
                    config, tower and tower.audio_tower, [waveforms[i] for i in fold.train],
                    protocol.pooling, protocol.seed)
                features = window_features(
                    extract, waveforms, samples, window_count, f'{fold.name}: features')
            tried = {
                layer: probe(protocol.classifier, vectors[fold.train], labels[fold.train],
                             groups[fold.train], vectors[fold.test], class_count, protocol.seed,
                             f'{fold.name}, {layer}')
                for layer, vectors in features.items()}
            layer = max(tried, key=lambda name: max(
                tried[name][1].get('inner_accuracy', {}).values(), default=0.0))
            scores, chosen = tried[layer]
            yield _Outcome(scores, {'layer': layer, **chosen}, features[layer].mean(1), everything)


def report(scores: np.ndarray, labels: np.ndarray, names: Sequence[str],
           folds: Sequence[Fold]) -> dict:
    """What is reported of a cross-validation.

    Args:
        scores: float [N, C]; of clips that no fold tests, anything.
        labels: int [N].
        names: C names.
        folds: the folds.

    Returns:
        The dict of `classification.classification_report` over all tested clips, but with
        `accuracy` the mean of those of the folds; `fold_deviation`, their standard deviation;
        `folds`, name -> {`right`, `examples`, `accuracy`}.
    """
    tested = np.concatenate([fold.test for fold in folds])
    whole = classification_report(scores[tested], labels[tested], names)
    by_fold = {fold.name: count_right(rank_of_truth(scores[fold.test], labels[fold.test]) < 1)
               for fold in folds}
    accuracies = [values['accuracy'] for values in by_fold.values()]
    return {**whole, 'classes': len(names), 'accuracy': float(np.mean(accuracies)),
            'fold_deviation': float(np.std(accuracies)), 'folds': by_fold}


def describe(results: dict) -> Iterator[str]:
    """Lines for the terminal, from the result of `report`."""
    yield from describe_classes(results)
    yield (f'accuracy: {percent(results["accuracy"], results["accuracy_interval"])} of '
           f'{results["examples"]} clips, mean of {len(results["folds"])} fold(s); chance is '
           f'{100 * results["chance"]:.1f} %; in brackets 95 % (Wilson, over clips).')


def project(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Vectors in the plane: t-SNE after standardising and PCA.

    Args:
        vectors: float [N, D]; fewer than 8 are shown by PCA only.
        seed: of t-SNE.

    Returns:
        float [N, 2].
    """
    vectors = StandardScaler().fit_transform(vectors)
    vectors = PCA(min(30, *vectors.shape), random_state=seed).fit_transform(vectors)
    if len(vectors) < 8:
        return np.pad(vectors, ((0, 0), (0, 2)))[:, :2]
    # Barnes-Hut is worth its threads only where there are many points.
    method = 'exact' if len(vectors) < 500 else 'barnes_hut'
    return TSNE(perplexity=min(30, (len(vectors) - 1) / 3), init='pca', random_state=seed,
                method=method).fit_transform(vectors)
