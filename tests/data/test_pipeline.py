"""What comes out of the pipeline, read from frames and samples themselves."""

import collections
import dataclasses
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from avts_tf.data import records
from avts_tf.data.pipeline import make_dataset, steps_per_epoch
from avts_tf.data.sampling import NEGATIVES, NO_PAIR, Kind
from avts_tf.data.shards import find_shards
from avts_tf.data.state import PipelineState
from avts_tf.errors import UserError
from avts_tf.training.curriculum import CurriculumCallback, parse_regime
from tests.data.truth import (
    CLIPS,
    assert_same,
    check_truth,
    clips_of,
    collect,
    config_of,
    kind_counts,
    pair_facts,
    state_of,
)
from tests.helpers import (
    PATIENCE_SECONDS,
    ROOT,
    counting_video,
    edit_record,
    read_frames,
    with_times,
    write_records,
)


@pytest.fixture(scope='module')
def encoded():
    return [records.encode(counting_video(clip, seconds=2.0)) for clip in range(CLIPS)]


@pytest.fixture(scope='module')
def shard(encoded, tmp_path_factory):
    return write_records(tmp_path_factory.mktemp('clips') / 'clips', encoded)


@pytest.mark.parametrize('fps', [
    'irregular',
    *(pytest.param(fps, marks=pytest.mark.slow) for fps in (25.0, 30.0, 23.976, 12.5, 50.0))])
def test_alignment(fps, tmp_path):
    config = config_of(passes_per_epoch=4)
    rng = np.random.default_rng(1)
    times_of_clip, lengths, serialized = {}, {}, []
    for clip in range(8):
        video = counting_video(clip, seconds=1.7, fps=30.0 if fps == 'irregular' else fps)
        count = len(video.frames)
        times = np.arange(count) / video.frame_rate
        if fps == 'irregular':
            times[1:] += rng.uniform(-0.016, 0.016, count - 1)
        times_of_clip[clip] = np.round(times * 1e6) / 1e6
        lengths[clip] = len(video.waveform)
        serialized.append(with_times(records.encode(video), times_of_clip[clip]))
    path = write_records(tmp_path / 'clips', serialized)
    seen = check_truth(collect(make_dataset(path, config, state=state_of())), times_of_clip,
                       lengths, config)
    assert set(seen) == {Kind.POSITIVE, Kind.EASY, Kind.HARD, Kind.SUPER_HARD}
    assert seen[Kind.POSITIVE] == 32


@pytest.mark.parametrize('windows', [1, pytest.param(4, marks=pytest.mark.slow)])
def test_other_numbers_of_audio_windows(windows, shard):
    config = config_of(audio_windows=windows, passes_per_epoch=4)
    batches = collect(make_dataset(shard, config, state=state_of()))
    grid = {clip: np.arange(50) / 25 for clip in range(CLIPS)}
    if windows == 1:
        # The sound that is given away may be a clip's negative, which is still a true window of
        # the clip.
        assert 10 < kind_counts(batches)[Kind.POSITIVE] < 38
    else:
        assert all((batch['kind'][:, 0] == Kind.POSITIVE).all()
                   and (batch['kind'][:, 1:] != Kind.POSITIVE).all() for batch in batches)
    check_truth(batches, grid, dict.fromkeys(grid, 32000), config)


def test_easy_negatives_from_the_same_place(shard):
    config = config_of(easy_place='same', passes_per_epoch=2)
    batches = collect(make_dataset(shard, config, state=state_of([0.6, 0.2, 0.2])))
    grid = {clip: np.arange(50) / 25 for clip in range(CLIPS)}
    check_truth(batches, grid, dict.fromkeys(grid, 32000), config)
    for batch in batches:
        easy = batch['kind'] == Kind.EASY
        assert (batch['audio_start_seconds'] == batch['video_start_seconds'][:, None])[easy].all()
    assert kind_counts(batches)[Kind.EASY] > 5


def test_shapes_and_types(shard):
    batch = next(iter(make_dataset(shard, config_of(audio_windows=3, spec_augment=True))))
    expected = {
        'video': ((4, 12, 32, 32, 3), 'uint8'), 'audio': ((4, 3, 7680), 'int16'),
        'label': ((4, 3), 'float32'),
        'kind': ((4, 3), 'int32'), 'example_hash': ((4,), 'int64'), 'audio_hash': ((4, 3), 'int64'),
        'video_start_seconds': ((4,), 'float64'), 'audio_start_seconds': ((4, 3), 'float64'),
        'end': ((4,), 'int64'), 'replaced': ((4,), 'int32'), 'spec_mask': ((4, 3), 'int32'),
    }
    assert {name: (tuple(value.shape), value.dtype.name) for name,
            value in batch.items()} == expected


def test_pairs_follow_from_seed_epoch_and_name_alone(encoded, shard, tmp_path):
    augmented = {'crop_scale_min': 0.66, 'flip': True, 'colour_jitter': 0.05}
    expected = collect(make_dataset(shard, config_of(**augmented), state=state_of(epoch=3)))
    assert len(expected) == 3
    expected = pair_facts(expected)
    assert len(expected) == CLIPS
    for i in range(4):
        write_records(tmp_path / f'clips-{i}', encoded[i::4][::-1])
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    config = config_of(batch_size=3, shuffle_records=1, **augmented)
    other = make_dataset(f'{tmp_path}/clips-*', config, state=state_of(epoch=3))
    assert pair_facts(collect(other.with_options(options))) == expected
    for seed, epoch in ((1, 3), (0, 4)):
        other = pair_facts(collect(make_dataset(shard, config_of(seed=seed, **augmented),
                                                state=state_of(epoch=epoch))))
        assert sum(other[clip] == expected[clip] for clip in expected) == 0


def test_epochs_differ_and_come_again(shard):
    state = state_of()
    dataset = make_dataset(shard, config_of(), state=state)
    first = collect(dataset)
    state.epoch.assign(1)
    second = collect(dataset)
    state.epoch.assign(0)
    assert_same(collect(dataset), first)
    # The global seed of the caller has no say, nor does a dataset made anew.
    tf.random.set_seed(1234)
    assert_same(collect(make_dataset(shard, config_of(), state=state_of(epoch=1))), second)
    starts = [{clip: entry['video_start_seconds'] for clip, entry in clips_of(batches)}
              for batches in (first, second)]
    assert sum(starts[0][clip] != starts[1][clip] for clip in starts[0]) > CLIPS / 2
    assert [clip for clip, _ in clips_of(first)] != [clip for clip, _ in clips_of(second)]


def test_passes_give_other_windows_of_the_same_records(shard):
    config = config_of(passes_per_epoch=3)
    state = state_of()
    dataset = make_dataset(shard, config, state=state)
    batches = collect(dataset)
    assert len(batches) == steps_per_epoch(find_shards(shard), config) == 9
    starts = collections.defaultdict(list)
    for clip, entry in clips_of(batches):
        starts[clip].append(float(entry['video_start_seconds']))
    assert sorted(starts) == list(range(CLIPS)) and {len(times) for times in starts.values()} == {3}
    assert sum(len(set(times)) == 1 for times in starts.values()) == 0
    # Nor does the next epoch begin with a pass of this one.
    state.epoch.assign(1)
    this, following = ({(clip, float(entry['video_start_seconds']), *entry['kind'],
                         *entry['audio_start_seconds'])
                        for clip, entry in clips_of(b)} for b in (batches, collect(dataset)))
    assert len(this) == len(following) == 3 * CLIPS and len(this & following) < 2


def test_evaluation_holds_every_kind_and_stays_the_same(shard):
    state = state_of(mix=[1.0, 0.0, 0.0])
    config = config_of(batch_size=5, crop_scale_min=0.5, flip=True, colour_jitter=0.5)
    dataset = make_dataset(shard, config, training=False, state=state, batch_size=5)
    batches = collect(dataset)
    assert [len(batch['kind']) for batch in batches] == [5, 5, 2]
    for batch in batches:
        np.testing.assert_array_equal(batch['kind'],
                                      np.tile(np.arange(len(Kind)), (len(batch['kind']), 1)))
    grid = {clip: np.arange(50) / 25 for clip in range(CLIPS)}
    check_truth(batches, grid, dict.fromkeys(grid, 32000), config)
    state.epoch.assign(7)
    assert_same(collect(dataset), batches)
    # The training's seed and its easy negatives have no say: the same test for all models.
    other = config_of(batch_size=5, seed=9, easy_place='same')
    assert_same(collect(make_dataset(shard, other, training=False, batch_size=5)), batches)
    more = clips_of(collect(make_dataset(shard, config, training=False, passes=2)))
    starts = collections.defaultdict(set)
    for clip, entry in more:
        starts[clip].add(float(entry['video_start_seconds']))
    assert len(more) == 2 * CLIPS and sum(len(times) == 2 for times in starts.values()) > CLIPS / 2


def test_only_the_frames_of_the_window_are_decoded(encoded, tmp_path):
    def used_frames(batches):
        return {clip: set(read_frames(entry['video'])[1]) for clip, entry in clips_of(batches)}

    whole = write_records(tmp_path / 'whole', encoded)
    expected = collect(make_dataset(whole, config_of(), state=state_of()))
    used = used_frames(expected)

    def spoil(clip):
        def edit(example):
            for i, feature in enumerate(example.feature_lists.feature_list[records.FRAMES].feature):
                if i not in used[clip]:
                    feature.bytes_list.value[:] = [b'no picture']
        return edit

    spoilt = write_records(tmp_path / 'spoilt', [edit_record(record, spoil(clip)) for clip,
                                                 record in enumerate(encoded)])
    assert_same(collect(make_dataset(spoilt, config_of(), state=state_of())), expected)
    state = state_of(epoch=1)
    with pytest.raises(tf.errors.InvalidArgumentError):
        collect(make_dataset(spoilt, config_of(), state=state, on_bad_record='stop'))
    assert state.first_fault()[0] == 'bad_frame'


@pytest.mark.slow
@pytest.mark.parametrize('training', [True, False])
def test_float_audio_equals_pcm(training, shard, tmp_path):
    floats = write_records(tmp_path / 'floats', [records.encode(counting_video(clip, 2.0), 'float')
                                                 for clip in range(CLIPS)])
    assert_same(*(collect(make_dataset(path, config_of(), training=training, state=state_of()))
                  for path in (shard, floats)))


def test_skipped_records_are_counted_with_the_first_of_each(tmp_path):
    def named(name, **changes):
        return dataclasses.replace(counting_video(0, 2.0), example_id=name, **changes)

    sound = counting_video(0, 2.0).waveform
    good = [records.encode(counting_video(clip, 2.0)) for clip in range(6)]
    bad = [
        named('mute-1', waveform=sound[:0]), named('mute-2', waveform=sound[:0]),
        named('blind', frames=[]),
        named('44k', sample_rate=44100), named('short-sound', waveform=sound[:7679]),
        named('short-picture', frames=counting_video(0, 0.44).frames),
        named('short-both', waveform=sound[:10], frames=[b'']),
    ]

    def no_times(example):
        del example.context.feature[records.FRAME_RATE]
        del example.feature_lists.feature_list[records.FRAME_TIMES]
    timeless = edit_record(records.encode(named('timeless')), no_times)
    path = write_records(tmp_path / 'clips', [*good[:3], *(records.encode(video) for video in bad),
                                              timeless, *good[3:]])
    state = state_of([0, 1, 0])
    # A buffer of one record keeps the order.
    config = config_of(shuffle_records=1, batch_size=3)
    batches = collect(make_dataset(path, config, state=state))
    assert sorted(clip for clip, _ in clips_of(batches)) == list(range(6))
    assert state.skips() == {
        'no_audio': (2, ['mute-1', 'mute-2']), 'no_frames': (1, ['blind']),
        'other_sample_rate': (1, ['44k']),
        'too_short': (3, ['short-sound', 'short-picture', 'short-both']),
        'no_frame_times': (1, ['timeless']),
    }
    text = state.describe_skips()
    assert text.startswith('records skipped: ') and "2 no_audio (first: 'mute-1', 'mute-2')" in text
    state.reset_counts()
    assert state.skips() == {} and state.describe_skips() == ''


def test_a_record_just_long_enough_is_used(tmp_path):
    path = write_records(tmp_path / 'clips',
                         [records.encode(counting_video(clip, 0.48)) for clip in range(4)])
    state = state_of([0, 0.5, 0.5])
    batches = collect(make_dataset(path, config_of(), state=state))
    assert state.skips() == {}
    # Neither a hard nor a super-hard negative has room: easy ones stand in, and are counted.
    assert kind_counts(batches) == {Kind.POSITIVE: 4, Kind.EASY: 4}
    assert batches[0]['replaced'].tolist() == [1] * 4
    assert [entry['video_start_seconds'] for _, entry in clips_of(batches)] == [0.0] * 4


def test_frames_never_run_out_before_the_sound(tmp_path):
    # Records whose sound goes on after the last frame, and that do not state a frame rate.
    def edit(example):
        del example.context.feature[records.FRAME_RATE]
    videos = [dataclasses.replace(counting_video(clip, 2.0),
                                  frames=counting_video(clip, 0.8).frames) for clip in range(8)]
    path = write_records(tmp_path / 'clips',
                         [edit_record(records.encode(video), edit) for video in videos])
    for _, entry in clips_of(collect(make_dataset(path, config_of(passes_per_epoch=4),
                                                  state=state_of()))):
        _, frames = read_frames(entry['video'])
        np.testing.assert_array_equal(frames, frames[0] + np.arange(12))


def test_records_of_one_name_are_no_easy_negatives_of_each_other(encoded, tmp_path):
    path = write_records(tmp_path / 'clips', [encoded[0]] * 6)
    batches = collect(make_dataset(path, config_of(batch_size=3), state=state_of([1, 0, 0])))
    assert kind_counts(batches) == {Kind.POSITIVE: 6, NO_PAIR: 6}
    assert all((batch['label'] == [[1, 0]] * 3).all() for batch in batches)


# What Keras does with the dataset counts, on one device and on two: the kinds that reach the
# training step in each epoch.

SCHEDULE = 'easy:1,hard:1,easy=0.5+super_hard=0.5:1,super_hard:1,easy:1'


class KindCounter(keras.Model):
    """Trains nothing and counts kinds, each under its number + 1."""

    def __init__(self):
        super().__init__()
        self.counts = tf.Variable(
            tf.zeros([1 + len(Kind)], tf.int64), trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM)
        self.built = True

    def train_step(self, data):
        kinds = tf.reshape(data['kind'], [-1])
        self.counts.assign_add(tf.math.bincount(kinds + 1, minlength=1 + len(Kind),
                                                maxlength=1 + len(Kind), dtype=tf.int64))
        return {'clips': tf.shape(kinds)[0]}  # Keras wants something


def fitted_kinds(path, strategy):
    """The count of each kind in each epoch of `SCHEDULE`."""
    state = PipelineState()
    dataset = make_dataset(path, config_of(passes_per_epoch=2), state=state)
    with strategy.scope():
        model = KindCounter()
        model.compile(optimizer='sgd')
    curriculum, totals = parse_regime(SCHEDULE, 1), [np.zeros(1 + len(Kind), int)]
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch,
                                           logs: totals.append(model.counts.numpy()))
    model.fit(dataset, epochs=curriculum.epochs,
              callbacks=[CurriculumCallback(curriculum, state), count], verbose=0)
    return dict(zip(('no_pair', *map(str, Kind)), np.diff(totals, axis=0).T.tolist(), strict=True))


def check_fitted_kinds(counts):
    assert counts['no_pair'] == [0] * 5 and counts['positive'] == [24] * 5
    assert [counts[kind][0] for kind in map(str, NEGATIVES)] == [24, 0, 0]
    assert [counts[kind][1] for kind in map(str, NEGATIVES)] == [0, 24, 0]
    assert counts['hard'][2] == 0
    assert counts['easy'][2] + counts['super_hard'][2] == 24
    assert 3 < counts['easy'][2] < 21
    assert [counts[kind][3] for kind in map(str, NEGATIVES)] == [0, 0, 24]
    assert [counts[kind][4] for kind in map(str, NEGATIVES)] == [24, 0, 0]


def test_a_new_mix_takes_effect_with_the_epoch(shard):
    state = state_of([1, 0, 0])
    dataset = make_dataset(shard, config_of(), state=state)
    for mix, kind in (([1, 0, 0], Kind.EASY), ([0, 1, 0], Kind.HARD), ([0, 0, 1], Kind.SUPER_HARD),
                      ([1, 0, 0], Kind.EASY)):
        state.mix.assign(mix)
        assert kind_counts(collect(dataset)) == {Kind.POSITIVE: CLIPS, kind: CLIPS}


@pytest.mark.slow
def test_keras_sees_no_pair_of_the_old_mix(shard):
    check_fitted_kinds(fitted_kinds(shard, tf.distribute.get_strategy()))


@pytest.mark.slow
def test_two_replicas_see_the_same_mix(shard):
    code = (
        'import json, sys, tensorflow as tf\n'
        'tf.config.set_visible_devices([], "GPU")\n'
        'cpu = tf.config.list_physical_devices("CPU")[0]\n'
        'devices = [tf.config.LogicalDeviceConfiguration()] * 2\n'
        'tf.config.set_logical_device_configuration(cpu, devices)\n'
        'from tests.data import test_pipeline\n'
        'strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])\n'
        'assert strategy.num_replicas_in_sync == 2\n'
        'print(json.dumps(test_pipeline.fitted_kinds(sys.argv[1], strategy)))\n'
    )
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'TF_CPP_MIN_LOG_LEVEL': '3'}
    done = subprocess.run([sys.executable, '-c', code, shard], env=environment, capture_output=True,
                          text=True,
                          timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout.strip().splitlines()[-1])
    check_fitted_kinds(counts)
    assert counts == fitted_kinds(shard, tf.distribute.get_strategy())


@pytest.mark.parametrize('training', [True, pytest.param(False, marks=pytest.mark.slow)])
def test_errors_of_the_records_name_parameter_or_file(training, encoded, shard, tmp_path):
    def fails(pattern, *words, **overrides):
        with pytest.raises(UserError) as error:
            make_dataset(pattern, config_of(**overrides), training=training,
                         parameter='eval_records')
        for word in words:
            assert word in str(error.value)

    missing = f'{tmp_path}/none-*'
    fails(missing, f'eval_records={missing}', 'no file matches')
    empty = write_records(tmp_path / 'empty', [])
    fails(empty, f'eval_records={empty}', 'no record')
    one = write_records(tmp_path / 'one', encoded[:1])
    fails(f'{tmp_path}/[eo]*', '1 record', 'at least 2', 'eval_records=')
    with open(shard, 'rb') as file:
        content = file.read()
    for size in (5, 1000, len(content) - 1) if training else (1000,):
        cut = tmp_path / 'cut'
        cut.write_bytes(content[:size])
        if training:
            fails(f'{one},{cut}', str(cut), 'cut short')
        else:  # what is measured is measured on the rest, and the loss is told
            state = PipelineState()
            clips = sum(len(batch['kind']) for batch in make_dataset(f'{one},{cut}', config_of(),
                                                                     training=False, state=state))
            assert clips >= 1 and state.skips()['lost'] == (1, [str(cut)]), size
    (tmp_path / 'film.mp4').write_bytes(b'\0\0\0\x20ftypisom' * 20)
    fails(f'{tmp_path}/film*', f'{tmp_path}/film.mp4', 'not a TFRecord file')
    if training:
        fails(shard, f'{CLIPS} records', 'full batch of 13', '`batch_size`', '`passes_per_epoch`',
              batch_size=13)
        make_dataset(shard, config_of(batch_size=13, passes_per_epoch=2))
    else:
        make_dataset(shard, config_of(batch_size=13), training=False)
