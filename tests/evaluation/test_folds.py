"""Folds are tested once each and never share a recording with what is trained on."""

import numpy as np
import pytest

from avts_tf.errors import UserError
from avts_tf.evaluation.folds import plan_folds
from tests.evaluation.sounds import source, sources_of


def test_each_fold_is_tested_by_the_others():
    sources = sources_of([(label, f'fold{fold}', '') for fold in (1, 2, 10) for label in 'ab'])
    folds = plan_folds(sources, 'x')
    assert [fold.name for fold in folds] == ['fold1', 'fold2', 'fold10']
    for fold in folds:
        assert not set(fold.train) & set(fold.test)
        assert len(fold.train) + len(fold.test) == len(sources)
        assert {sources[i].split for i in fold.test} == {fold.name}


@pytest.mark.parametrize('parts', [('development', 'evaluation'), ('train', 'test')])
def test_one_part_to_learn_from_and_one_to_test(parts):
    sources = sources_of([(label, part, '') for part in parts for label in 'ab'])
    [fold] = plan_folds(sources, 'x')
    assert fold.name == parts[1] and fold.train.tolist() == [0, 1] and fold.test.tolist() == [2, 3]


@pytest.mark.parametrize(('rows', 'words'), [
    ([('a', 'fold1', ''), ('b', 'fold1', ''), ('a', 'fold2', '')], ["'b'", 'fold1 only']),
    ([('a', 'fold1', 'r'), ('b', 'fold1', ''), ('a', 'fold2', 'r'), ('b', 'fold2', '')],
     ['0.wav', '2.wav', 'one recording (r)']),
    ([('a', '', ''), ('b', '', '')], ['0.wav is in no fold', '`make_folds`']),
    ([('a', 'fold1', ''), ('b', 'fold1', '')], ['one part only', 'fold1']),
    ([('a', 'fold1', ''), ('', 'fold2', '')], ['1.wav has no class']),
    ([('a', 'fold1', ''), ('a', 'fold2', '')], ['1 class']),
    ([('a', 'train', ''), ('b', 'train', ''), ('a', 'fold2', '')],
     ['fold2, train', 'neither folds']),
])
def test_collections_that_cannot_be_tested(rows, words):
    with pytest.raises(UserError) as error:
        plan_folds(sources_of(rows), 'x')
    assert all(word in str(error.value) for word in words), error.value


def test_a_class_may_be_missing_in_a_fold_that_others_can_teach():
    rows = [('a', 'fold1', ''), ('b', 'fold1', ''), ('a', 'fold2', ''), ('a', 'fold3', ''),
            ('b', 'fold3', '')]
    assert len(plan_folds(sources_of(rows), 'x')) == 3


def test_made_folds_keep_recordings_together():
    rows = [(label, '', f'{label}{recording}') for label in 'abc' for recording in range(5)
            for _ in range(3)]
    sources = sources_of(rows)
    folds = plan_folds(sources, 'x', 4)
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(len(rows)))
    for fold in folds:
        assert not {sources[i].group for i in fold.train} & {sources[i].group for i in fold.test}
    folds = plan_folds(sources, 'x', 12)   # more than a class has recordings
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(len(rows)))
    assert not any({sources[i].group for i in fold.train} & {sources[i].group for i in fold.test}
                   for fold in folds)
    for count in (1, 16):
        with pytest.raises(UserError, match=f'make_folds={count}: .* 15 recordings of 3 classes'):
            plan_folds(sources, 'x', count)
    with pytest.raises(UserError, match="class 'd' .* one recording"):
        plan_folds([*sources, source('d.wav', 'd')], 'x', 2)
