"""It learns at all: eight clips are memorised, and a collapse is said."""

import contextlib

import numpy as np
import pytest

from avts_tf import metrics
from avts_tf.config import PRESETS, make_config
from avts_tf.data.pipeline import make_dataset
from avts_tf.data.sampling import Kind
from avts_tf.data.state import PipelineState
from avts_tf.data.synthetic import write_world
from avts_tf.models.two_tower import build_two_tower
from avts_tf.training.callbacks import EpochMetrics, ShowProgress
from avts_tf.training.collapse import COLLAPSE_STEPS, learns_nothing, remedies
from avts_tf.training.curriculum import parse_regime
from avts_tf.training.state import TrainingState
from avts_tf.training.trainer import train
from tests.helpers import light_video_network

# nothing in the way of memorising
PLAIN = {'crop_scale_min': 1.0, 'flip': False, 'colour_jitter': 0.0}


@pytest.fixture(scope='module')
def eight_clips(tmp_path_factory):
    prefix = str(tmp_path_factory.mktemp('eight') / 'clips')
    write_world(prefix, videos=8, size=24, seconds=2.0, difficulty=0.0)
    return prefix + '-*-of-*'


@pytest.mark.parametrize(('loss', 'network'), [
    pytest.param('contrastive', 'light', marks=pytest.mark.slow),
    pytest.param('contrastive', 'whole', marks=pytest.mark.slow),
    pytest.param('infonce', 'whole', marks=pytest.mark.slow)])
def test_eight_clips_are_memorised(eight_clips, tmp_path, loss, network):
    config = make_config('tiny', frame_size=24, batch_size=8, passes_per_epoch=30,
                         regime='easy=0.5+hard=0.5:5', loss=loss,
                         video_width=0.0625, audio_width=0.125,
                         normalize='length' if loss == 'infonce' else 'whiten', warmup_steps=10,
                         **PLAIN)
    with light_video_network() if network == 'light' else contextlib.nullcontext():
        model = train(config, eight_clips, str(tmp_path / 'run'))
    pairs = metrics.pair_distances(model,
                                   make_dataset(eight_clips, config, training=False, passes=8))
    positive = metrics.of_kind(pairs, Kind.POSITIVE)
    assert metrics.auc(positive, metrics.of_kind(pairs, Kind.EASY)) > 0.95
    assert metrics.auc(positive, metrics.of_kind(pairs, Kind.HARD)) > 0.95


def test_collapse_is_distinguished_from_learning():
    config = make_config('tiny', normalize='length')
    rows = [{'auc_easy': .9, 'auc_hard': .5, 'spread': .5},
            {'auc_easy': .5, 'auc_hard': .9, 'spread': .5},
            {'auc_easy': .52, 'auc_hard': .54, 'spread': .5}, {'auc_easy': .9, 'spread': .001}]
    assert [learns_nothing(row, config) for row in rows] == [False, False, True, True]


def test_other_systems_have_no_embeddings_of_length_1():
    rows = [{'auc_easy': .52, 'auc_hard': .54, 'spread': .5}, {'auc_easy': .9, 'spread': .001}]
    for system, regime, expected in (('l3', 'easy', [True, False]),
                                     ('multisensory', 'hard', [True, False]),
                                     ('soundnet', 'easy', [False, False])):
        config = make_config('tiny', system=system, regime=regime, teacher='MobileNetV2')
        assert [learns_nothing(row, config) for row in rows] == expected


def test_a_collapse_is_warned_of(eight_clips, caplog):
    config = make_config('tiny', frame_size=24, batch_size=8, normalize='length')
    with light_video_network():
        model = build_two_tower(config)
    probe = list(make_dataset(eight_clips, config, training=False))
    for network in (model.video_tower, model.audio_tower.get_layer('audio_network')):
        kernel, bias = network.get_layer('projection').weights
        kernel.assign(kernel * 0)
        # every clip and every sound in one point
        bias.assign(bias + 1)
    epochs = 4
    state = TrainingState(steps_per_epoch=-(-(config.train.warmup_steps
                                              + COLLAPSE_STEPS) // epochs))
    measure = EpochMetrics(model, probe, PipelineState(), state, config)
    said = []
    for _ in range(epochs):
        logs = {'spread': 0.0, 'loss': 1.0}
        measure.on_epoch_end(0, logs)
        said.append(logs['collapsed'])
        state.rows.append(logs)
    assert logs['auc_easy'] == logs['auc_hard'] == 0.5
    assert said == [0] * (epochs - 1) + [1]
    network.get_layer('projection').weights[0].assign(kernel + 1)
    logs = {'spread': 0.0, 'loss': 1.0}
    measure.on_epoch_end(0, logs)
    # the sounds alone spread out: the pictures still do not
    assert logs['collapsed'] == 1

    progress = ShowProgress(parse_regime('easy', 1), PipelineState(), state)
    progress.set_model(model)
    progress.on_train_begin()
    progress.on_epoch_end(0, {'clips_per_second': 1.0, **logs})
    progress.on_train_end()
    assert any('not learning' in message and '`normalize=whiten`' in message
               for message in caplog.messages)


@pytest.mark.parametrize(('steps', 'said'), [(10, False), (9, False), (8, True)])
def test_an_epoch_that_bad_records_cut_short_is_warned_of(caplog, steps, said):
    state = TrainingState(steps_per_epoch=10, step=steps)
    progress = ShowProgress(parse_regime('easy', 1), PipelineState(), state)
    progress.on_train_begin()
    progress.on_epoch_end(0, {'clips_per_second': 1.0, 'loss': 1.0})
    progress.on_train_end()
    assert any(f'{steps} of 10 steps' in message for message in caplog.messages) == said


def _row(auc):
    return {'auc_easy': auc, 'auc_hard': auc, 'spread': 0.5}


@pytest.mark.parametrize(('steps', 'aucs', 'said'), [
    (10, [0.5] * 19, False),        # many short epochs are few steps
    (10, [0.5] * 25, True),
    (3000, [0.5], True),            # one long epoch is many
    (100, [0.5, 0.5, 0.7], False),  # it learns
    (100, [0.7, 0.5], False),       # fell back, not for long yet
    (100, [0.7, 0.5, 0.5], True),
])
def test_plateau_is_judged_by_steps(monkeypatch, steps, aucs, said):
    class Model:
        def kind_results(self):
            return {}

    monkeypatch.setattr(metrics, 'pair_distances', lambda *_: {'distance': np.zeros(1)})
    monkeypatch.setattr(metrics, 'of_kind', lambda *_: [])
    config = make_config('tiny', warmup_steps=50)
    state = TrainingState(steps_per_epoch=steps, rows=[_row(auc) for auc in aucs[:-1]])
    logs = _row(aucs[-1])
    EpochMetrics(Model(), [], PipelineState(), state, config).on_epoch_end(len(aucs) - 1, logs)
    assert logs['collapsed'] == said


@pytest.mark.parametrize('preset', PRESETS)
def test_remedies_are_not_what_the_run_has(preset):
    found = remedies(make_config(preset))
    assert found
    # Whoever follows one of them is not told it again, and whoever follows all has nothing left.
    for values in found:
        assert values not in remedies(make_config(preset, **values))
    everything = {name: value for values in found for name, value in values.items()}
    assert remedies(make_config(preset, **everything)) == []
