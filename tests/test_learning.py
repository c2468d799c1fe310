"""It learns at all: eight clips are memorised, and a collapse is said."""

import pytest

from avts_tf import metrics
from avts_tf.config import make_config
from avts_tf.curriculum import parse_regime
from avts_tf.pipeline import PipelineState, make_dataset
from avts_tf.training import COLLAPSE_EPOCHS, Measure, Progress, Standing, train
from avts_tf.two_tower import build_two_tower
from avts_tf.windows import EASY, HARD, POSITIVE
from tfrecords_tools.synthetic import write_world

PLAIN = {'crop_scale_min': 1.0, 'flip': False, 'colour_jitter': 0.0}  # nothing in the way of memorising


@pytest.fixture(scope='module')
def eight_clips(tmp_path_factory):
    prefix = str(tmp_path_factory.mktemp('eight') / 'clips')
    write_world(prefix, videos=8, size=24, seconds=2.0, difficulty=0.0)
    return prefix + '-*-of-*'


@pytest.mark.parametrize('loss', ['contrastive', pytest.param('infonce', marks=pytest.mark.slow)])
def test_eight_clips_are_memorised(eight_clips, tmp_path, loss):
    config = make_config('tiny', frame_size=24, batch_size=8, passes_per_epoch=60, regime='easy=0.5+hard=0.5:3', loss=loss,
                         normalize='length' if loss == 'infonce' else 'whiten', warmup_steps=10, **PLAIN)
    model = train(config, eight_clips, str(tmp_path / 'run'), say=lambda line: None)
    pairs = metrics.pair_distances(model, make_dataset(eight_clips, config, training=False, passes=8))
    positive = metrics.of_kind(pairs, POSITIVE)[0]
    assert metrics.auc(positive, metrics.of_kind(pairs, EASY)[0]) > 0.95
    assert metrics.auc(positive, metrics.of_kind(pairs, HARD)[0]) > 0.95


def test_collapse_is_told_from_learning():
    measure = Measure(None, [], None, Standing(), make_config('tiny', normalize='length'))
    rows = [{'auc_easy': .9, 'auc_hard': .5, 'spread': .5}, {'auc_easy': .5, 'auc_hard': .9, 'spread': .5},
            {'auc_easy': .52, 'auc_hard': .54, 'spread': .5}, {'auc_easy': .9, 'spread': .001}]
    assert [measure._learns_nothing(row) for row in rows] == [False, False, True, True]


def test_collapse_is_said(eight_clips):
    config = make_config('tiny', frame_size=24, batch_size=8, normalize='length')
    model = build_two_tower(config)
    probe = list(make_dataset(eight_clips, config, training=False))
    for network in (model.video_tower, model.audio_tower.get_layer('audio_network')):
        kernel, bias = network.get_layer('projection').weights
        kernel.assign(kernel * 0)
        bias.assign(bias + 1)                               # every clip and every sound in one point
    standing = Standing()
    measure = Measure(model, probe, PipelineState(), standing, config)
    said = []
    for _ in range(COLLAPSE_EPOCHS):
        logs = {'spread': 0.0, 'loss': 1.0}
        measure.on_epoch_end(0, logs)
        said.append(logs['collapsed'])
        standing.rows.append(logs)
    assert logs['auc_easy'] == logs['auc_hard'] == 0.5
    assert said == [0] * (COLLAPSE_EPOCHS - 1) + [1]
    network.get_layer('projection').weights[0].assign(kernel + 1)
    logs = {'spread': 0.0, 'loss': 1.0}
    measure.on_epoch_end(0, logs)
    assert logs['collapsed'] == 1                           # the sounds alone spread out: the pictures still do not

    lines = []
    progress = Progress(parse_regime('easy', 1), PipelineState(), standing, lines.append)
    progress.on_train_begin()
    progress.on_epoch_end(0, {'clips_per_second': 1.0, **logs})
    progress.on_train_end()
    assert any('not learning' in line and '--normalize=whiten' in line for line in lines)
