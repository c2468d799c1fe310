"""The report of a classifier, by hand."""

import numpy as np
import pytest

from avts_tf.evaluation.classification import (
    classification_report,
    rank_of_truth,
    wilson_interval,
)


def test_wilson_interval_by_hand():
    # Newcombe 1998: 81 of 263 gives 0.2553 to 0.3662.
    assert wilson_interval(81, 263) == pytest.approx([0.2553, 0.3662], abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx([0.0, 0.1611], abs=1e-4)
    assert wilson_interval(20, 20)[1] == 1.0
    assert wilson_interval(0, 0) == [0.0, 1.0]


def test_report_by_hand():
    scores = np.array([[5, 1, 0, 0, 0, 0], [1, 5, 0, 0, 0, 0], [5, 4, 3, 2, 1, 0],
                       [1, 1, 1, 1, 1, 1]], float)
    truth = np.array([0, 0, 5, 1])
    assert rank_of_truth(scores, truth).tolist() == [0, 1, 5, 5]  # equal scores count as wrong
    assert rank_of_truth(np.full([1, 2], np.nan), np.array([0])) == [1]  # and so does NaN
    results = classification_report(scores, truth, list('abcdef'))
    assert results['accuracy'] == 0.25 and results['top5'] == 0.5
    assert results['per_class']['a'] == {'right': 1, 'examples': 2, 'accuracy': 0.5,
                                         'interval': wilson_interval(1, 2)}
    assert 'c' not in results['per_class'] and results['chance'] == 0.5
    assert np.array(results['confusion'])[0].tolist() == [1, 1, 0, 0, 0,
                                                          0] and np.sum(results['confusion']) == 4
    assert 'top5' not in classification_report(scores[:, :3], np.array([0, 0, 1, 2]), list('abc'))
