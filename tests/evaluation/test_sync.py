"""The figures of synchronisation: where the threshold comes from, and what is said of them."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.config import make_config
from avts_tf.data import records
from avts_tf.errors import UserError
from avts_tf.evaluation import sync
from tests.helpers import counting_video, write_records


class Oracle:
    """Stands for a model: the distance is 1 if the audio is another clip's, else 0, plus noise."""

    def __init__(self):
        self.config = make_config('tiny', frames=10, frame_size=32)
        self.batches = []

    def embed_batch(self, batch):
        self.batches.append(len(batch['video']))
        clip = np.round((batch['video'].numpy()[:, 0, :, 20:].mean((1, 2, 3)) - 8) / 2)
        heard = -1 - batch['audio'].numpy()[..., :2].min(-1)
        return np.abs(heard - clip[:, None]) > 0.5

    def distances(self, outputs):
        rng = np.random.default_rng(len(self.batches))
        return tf.constant(outputs + 0.1 * rng.random(outputs.shape), tf.float32)


@pytest.fixture(scope='module')
def globs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('records')
    return [write_records(folder / name,
                          [records.encode(counting_video(clip)) for clip in range(first, last)])
            for name, first, last in (('train', 0, 70), ('test', 70, 80))]


@pytest.fixture(scope='module')
def evaluated(globs):
    """The result of an evaluation, and the sizes of the batches that the model was given."""
    model = Oracle()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sync, 'THRESHOLD_CLIPS', 40)  # of the 7 records set aside: 5 windows each
        found = sync.evaluate_sync(model, *globs, windows_per_record=2, epochs=3)
    return found, model.batches


def test_threshold_is_chosen_on_a_bounded_number_of_clips_set_aside(evaluated):
    (results, distances), batches = evaluated
    assert results['threshold_clips'] == 35 and batches == [32, 3, 20]
    assert results['threshold_set_aside']
    assert (results['clips'], results['examples'], results['epochs']) == (20, 10, 3)
    assert results['avts_accuracy'] == 1.0 and results['held_out']
    assert not results['chosen_on_these']
    assert len(distances['easy']) == 20 and distances['easy'].min() > results['threshold'] > 0.1
    lines = list(sync.describe(results))
    assert '20 windows of 10 records not trained on' in lines[0]
    assert '35 clips set aside from training' in lines[0]
    assert 'AVTS accuracy (balanced, easy negatives): 100.0 % [100.0, 100.0]' in lines[1]


def test_figures_on_training_records_and_chosen_ones_say_so(evaluated):
    results = {**evaluated[0].results, 'held_out': False, 'chosen_on_these': True,
               'threshold_set_aside': False}
    lines = list(sync.describe(results))
    assert 'TRAINING records' in lines[0] and '35 clips that training did not set aside' in lines[0]
    assert 'CHOSEN on these records' in lines[1]


@pytest.mark.parametrize(('records', 'measured_on', 'trained_on', 'set_aside', 'held_out'), [
    (0, 1, None, True, True), (0, 0, None, True, False), (0, 1, 0, True, True),
    (0, 1, 1, False, False),  # measured on what it was trained on, threshold of other records
    (0, None, 1, False, True),
    (0, 1, 'moved', True, True),  # what it was trained on is gone: `records` are taken for these
])
def test_results_say_what_was_trained_on(globs, records, measured_on, trained_on, set_aside,
                                         held_out):
    def glob_of(which):
        return globs[which] if isinstance(which, int) else which

    results = sync.evaluate_sync(Oracle(), glob_of(records), glob_of(measured_on),
                                 windows_per_record=1, trained_on=glob_of(trained_on)).results
    assert (results['threshold_set_aside'], results['held_out']) == (set_aside, held_out)


def test_easy_pairs_are_split_by_the_labels_of_the_records(tmp_path):
    """A model that knows the class, one half of the clips or the other, and nothing else."""
    class WhatAlone(Oracle):
        def embed_batch(self, batch):
            clip = np.round((batch['video'].numpy()[:, 0, :, 20:].mean((1, 2, 3)) - 8) / 2)
            heard = -1 - batch['audio'].numpy()[..., :2].min(-1)
            return (heard >= 12) != (clip[:, None] >= 12)

        def distances(self, outputs):
            return tf.constant(outputs, tf.float32)

    videos = [dataclasses.replace(counting_video(clip), labels=((0, f'half:{clip >= 12}'),
                                                                (0, 'other:x')))
              for clip in range(24)]
    path = write_records(tmp_path / 'labelled', map(records.encode, videos))
    found = sync.evaluate_sync(WhatAlone(), path, windows_per_record=1, label_prefix='half:')
    results = found.results
    assert results['accuracy_easy_other_class'] == results['auc_easy_other_class'] == 1.0
    assert results['accuracy_easy_same_class'] == results['auc_easy_same_class'] == 0.5
    assert results['pairs_easy_same_class'] + results['pairs_easy_other_class'] == 24
    assert 4 < results['pairs_easy_same_class'] < 20
    with pytest.raises(UserError, match='needs one; choose one with `label_prefix`'):
        sync.evaluate_sync(WhatAlone(), path, label_prefix='word:')


def test_records_without_a_usable_clip_are_refused(tmp_path):
    short = [records.encode(counting_video(clip, seconds=0.2)) for clip in range(2)]
    with pytest.raises(UserError, match='records=.*no usable clip; records skipped: 16 too_short'):
        sync.evaluate_sync(Oracle(), write_records(tmp_path / 'short', short))
