"""The classes of records, and a draw that keeps their proportions."""

import pytest

from avts_tf.data import records
from avts_tf.errors import UserError
from avts_tf.evaluation.labels import read_labels, stratified
from tests.helpers import counting_video, edit_record, write_records


def test_labels_and_prefix(world):
    labels = read_labels(world['train'], 'object:', 'records')
    assert len(labels) == 48 and set(labels.values()) == {'disc', 'square', 'triangle', 'diamond',
                                                          'cross', 'ring'}
    with pytest.raises(UserError, match='has 2 labels.*object:.*motion:.*`label_prefix`'):
        read_labels(world['train'], '', 'records')
    with pytest.raises(UserError, match="no labels that begin with 'shape:'"):
        read_labels(world['train'], 'shape:', 'records')


def test_stratified_by_hand():
    labels = {f'{name}{i}': name for name, count in (('a', 60), ('b', 30), ('c', 10))
              for i in range(count)}
    chosen = stratified(labels, 20, seed=3)
    assert len(set(chosen)) == 20
    assert [sum(example[0] == name for example in chosen) for name in 'abc'] == [12, 6, 2]
    assert sorted(stratified(labels, 100, 0)) == sorted(labels)
    assert {example[0] for example in stratified(labels, 3, 0)} == set('abc')
    assert stratified(labels, 20, 3) == chosen != stratified(labels, 20, 4)
    with pytest.raises(UserError, match='train_clips=2'):
        stratified(labels, 2, 0)


def test_two_records_of_one_name_and_two_labels_are_refused(tmp_path):
    def label_of(name):
        return lambda example: example.context.feature[
            records.LABEL_STRING].bytes_list.value.append(name)

    twice = [edit_record(records.encode(counting_video(0)), label_of(name))
             for name in (b'a', b'b')]
    with pytest.raises(UserError, match="two records are called 'clip-0'"):
        read_labels(write_records(tmp_path / 'twice', twice))
