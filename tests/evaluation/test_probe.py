"""Classifiers on windows: scores of clips, and C chosen without a leak."""

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from avts_tf.evaluation.probe import C_VALUES, CLASSIFIERS, _svm, choose_c, clip_scores, probe


def test_clips_of_one_recording_do_not_choose_c():
    # A recording's clips are alike and its class is drawn: it is known from the recording only.
    rng = np.random.default_rng(6)
    groups = np.repeat(np.arange(40), 4)
    labels = np.repeat(np.r_[np.arange(4), rng.integers(0, 4, 36)], 4)
    features = (rng.standard_normal([40, 1, 20])[groups] + 0.01
                * rng.standard_normal([160, 3, 20])).astype(np.float32)
    _, accuracies = choose_c(features, labels, groups, 4, 0)
    assert max(accuracies.values()) < 0.5
    _, leaky = choose_c(features, labels, np.arange(160), 4, 0)
    assert max(leaky.values()) > 0.9  # what the same data give where recordings are torn apart


class Known:
    """A classifier whose scores are its features."""

    def __init__(self, classes):
        self.classes_ = np.array(classes)

    def decision_function(self, features):
        return features[:, 0] if len(self.classes_) == 2 else features


def test_scores_are_means_over_the_windows_of_a_clip():
    features = np.arange(24, dtype=float).reshape(2, 4, 3)
    scores = clip_scores(Known([0, 2, 3]), features, 5)
    np.testing.assert_allclose(scores[:, [0, 2, 3]], features.mean(1))
    assert np.all(np.isneginf(scores[:, [1, 4]]))
    two = clip_scores(Known([0, 1]), features[..., :1], 2)
    np.testing.assert_allclose(two[:, 1], features[..., 0].mean(1))
    np.testing.assert_allclose(two[:, 0], -two[:, 1])


@pytest.mark.parametrize('classifier', CLASSIFIERS)
def test_probes_learn(classifier):
    rng = np.random.default_rng(9)
    labels = np.repeat(np.arange(3), 12)
    # of any scale
    features = rng.standard_normal([36, 4, 6]) * 30 + 1000 * np.eye(3, 6)[labels][:, None]
    scores, chosen = probe(classifier, features[::2], labels[::2], np.arange(18), features[1::2], 3)
    assert np.mean(scores.argmax(1) == labels[1::2]) == 1
    assert ('C' in chosen) == (classifier == 'svm')


def test_one_recording_per_class_leaves_nothing_to_choose_by():
    features = np.random.default_rng(10).standard_normal([6, 2, 3])
    c_value, accuracies = choose_c(features, np.array([0, 0, 0, 1, 1, 1]),
                                   np.array([0, 0, 0, 1, 1, 1]), 2, 0)
    assert c_value == C_VALUES[2] and not accuracies


@pytest.mark.parametrize('features', [60, 400])
def test_svms_of_a_small_c_have_converged(features):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 40)
    centres = rng.normal(size=(4, features))
    train, test = (0.3 * centres[labels] + rng.normal(size=(160, features)) for _ in range(2))
    for c_value in C_VALUES[:3]:
        found = _svm(c_value).fit(train, labels).decision_function(test)
        exact = LinearSVC(C=c_value, dual=True, tol=1e-6, max_iter=100_000, random_state=1)
        truth = exact.fit(train, labels).decision_function(test)
        np.testing.assert_allclose(found, truth, rtol=0, atol=0.02 * np.abs(truth).max())
