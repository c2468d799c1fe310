"""Classifiers of sounds on features that stay as they are: linear SVM, random forest, neighbours.

A clip has several windows. The classifier is trained on windows; the scores of a clip are the means
of those of its windows.
"""

import concurrent.futures
import os

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from avts_tf import progress

CLASSIFIERS = ('svm', 'random_forest', 'knn')
C_VALUES = tuple(10.0**power for power in range(-4, 1))
INNER_FOLDS = 3
PICZAK_C, PICZAK_TREES, PICZAK_NEIGHBOURS = 0.1, 500, 8


def piczak_classifier(classifier: str, seed: int, examples: int) -> ClassifierMixin:
    """A classifier with the settings of Piczak's baselines (ESC, 2015).

    Args:
        classifier: one of `CLASSIFIERS`.
        seed: of the random forest.
        examples: number of examples that it will be trained on, which bounds the neighbours.
    """
    if classifier == 'svm':
        return SVC(C=PICZAK_C, kernel='linear')
    if classifier == 'knn':
        return KNeighborsClassifier(min(PICZAK_NEIGHBOURS, examples))
    return RandomForestClassifier(PICZAK_TREES, random_state=seed)


def probe(
    classifier: str, features: np.ndarray, labels: np.ndarray, groups: np.ndarray,
    tested: np.ndarray, class_count: int, seed: int = 0, title: str = '',
) -> tuple[np.ndarray, dict]:
    """Trains a classifier on windows and scores clips.

    Args:
        classifier: one of `CLASSIFIERS`.
        features: float [N, K, D], K windows of each training clip.
        labels: int [N].
        groups: [N], recordings, which stay together where C is chosen.
        tested: float [M, K, D].
        class_count: number of classes.
        seed: of forests and inner folds.
        title: of the progress bar.

    Returns:
        Scores, float [M, class_count], and a dict of what was chosen: `C` and `inner_accuracy` of
        the SVM.

    Example:
        >>> features, labels = np.eye(4).repeat(2, 0)[:, None], np.arange(4).repeat(2)
        >>> scores, _ = probe('knn', features, labels, np.arange(8), features, class_count=4)
        >>> scores.shape
        (8, 4)
    """
    if classifier == 'svm':
        c_value, accuracies = choose_c(features, labels, groups, class_count, seed, title)
        model, chosen = _svm(c_value), {'C': c_value, 'inner_accuracy': accuracies}
    else:
        windows = features.shape[0] * features.shape[1]
        model, chosen = piczak_classifier(classifier, seed, windows), {}
    return clip_scores(_fit(model, features, labels), tested, class_count), chosen


def choose_c(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, class_count: int, seed: int,
    title: str = '',
) -> tuple[float, dict[str, float]]:
    """The C with the highest accuracy on clips, by cross-validation; the smallest of equals.

    Clips of one recording are on one side of each split. Where a class has one recording only,
    there is nothing to choose by: the middle value is taken.

    Args:
        features, labels, groups, class_count, seed, title: as in `probe`.

    Returns:
        C, and a dict from each tried C to its accuracy.
    """
    recordings = min(len(set(groups[labels == label])) for label in set(labels))
    if recordings < 2:
        return C_VALUES[len(C_VALUES) // 2], {}
    folds = min(INNER_FOLDS, recordings)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    splits = list(splitter.split(labels, labels, groups))

    def accuracy(task: tuple[float, np.ndarray, np.ndarray]) -> float:
        c_value, train, test = task
        model = _fit(_svm(c_value), features[train], labels[train])
        scores = clip_scores(model, features[test], class_count)
        return float(np.mean(scores.argmax(1) == labels[test]))

    tasks = [(c_value, *split) for c_value in C_VALUES for split in splits]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        found = list(progress.bar(threads.map(accuracy, tasks), f'{title}: choosing C',
                                  total=len(tasks), unit='fit', leave=False))
    means = np.reshape(found, [len(C_VALUES), -1]).mean(1)
    accuracies = {f'{c_value:g}': float(mean)
                  for c_value, mean in zip(C_VALUES, means, strict=True)}
    return C_VALUES[int(means.argmax())], accuracies


def _svm(c_value: float) -> LinearSVC:
    # To a hundredth of the first gradient, in a fifth of the time: up to a C of 0.01 scores are
    # within two hundredths of the exact ones. With more, and fewer than some 20 windows for each
    # feature, it stops early, like a smaller C; to the end it would take many times as long.
    return LinearSVC(C=c_value, dual=False, tol=1e-2)


def _fit(classifier: ClassifierMixin, features: np.ndarray, labels: np.ndarray) -> Pipeline:
    """A classifier of windows behind a `StandardScaler`, both fitted to the training windows."""
    return make_pipeline(StandardScaler(), classifier).fit(
        features.reshape(-1, features.shape[-1]), np.repeat(labels, features.shape[1]))


def clip_scores(model: Pipeline | ClassifierMixin, features: np.ndarray,
                class_count: int) -> np.ndarray:
    """Scores of clips: the means over their windows.

    Args:
        model: fitted classifier of windows.
        features: float [N, K, D].
        class_count: number of classes.

    Returns:
        float [N, class_count]; -inf for a class that the model was not trained on.
    """
    flat = features.reshape(-1, features.shape[-1])
    if hasattr(model, 'decision_function'):
        found = model.decision_function(flat)
    else:
        found = model.predict_proba(flat)
    if found.ndim == 1:  # two classes: the scores of the second
        found = np.stack([-found, found], 1)
    scores = np.full([len(flat), class_count], -np.inf)
    scores[:, model.classes_] = found
    return scores.reshape(len(features), -1, class_count).mean(1)
