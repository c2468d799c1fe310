"""The mix that is drawn, and the easy negatives across a batch."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.config import make_config
from avts_tf.data import records
from avts_tf.data.sampling import NO_PAIR, Kind, draw_kinds, fill_easy, sample_clip, usable_frames
from tests.helpers import counting_video


@tf.function(reduce_retracing=True)
def _kinds(mix, draws, audio_windows):
    seeds = tf.stack([tf.range(draws), tf.fill([draws], 3)], 1)
    return tf.map_fn(lambda seed: draw_kinds(seed, mix, audio_windows)[0], seeds)


def kinds_of(mix, draws, audio_windows):
    return _kinds(tf.constant(mix, tf.float32), tf.constant(draws), audio_windows).numpy()


def assert_part(count, total, part):
    """A count of `total` independent draws of a probability lies within 4.5 standard deviations; 0 and 1 are exact."""
    assert abs(count - total * part) <= 4.5 * np.sqrt(total * part * (1 - part))


@pytest.mark.parametrize('mix', [
    (1, 0, 0), (0, 1, 0), (0, 0, 1), (0.75, 0.25, 0), (0.5, 0, 0.5), (0, 0.3, 0.7), (0.9, 0.1, 0), (1 / 3, 1 / 3, 1 / 3),
    (0.7, 0.2, 0.1), (0.02, 0.97, 0.01),
])
def test_the_drawn_mix_is_the_requested_one(mix):
    kinds = kinds_of(mix, 4000, 3)
    assert (kinds[:, 0] == Kind.POSITIVE).all()
    for kind, part in zip((Kind.EASY, Kind.HARD, Kind.SUPER_HARD), mix, strict=True):
        assert_part((kinds[:, 1:] == kind).sum(), 8000, part)
    # Two negatives of one clip are drawn independently.
    assert_part((kinds[:, 1] == kinds[:, 2]).sum(), 4000, sum(part**2 for part in mix))


@pytest.mark.parametrize('mix', [(0.9999995, 0, 0), (0.25, 0.7499995, 0), (1, 0, 0)])
def test_a_part_of_0_is_never_drawn_though_the_others_are_rounded(mix, monkeypatch):
    greatest = np.nextafter(np.float32(1), np.float32(0))
    monkeypatch.setattr(tf.random, 'stateless_uniform', lambda shape, seed: tf.fill(shape, greatest))
    assert draw_kinds(tf.constant([0, 0]), tf.constant(mix, tf.float32), 2)[0].numpy()[1] == (Kind.HARD if mix[1] else Kind.EASY)


def test_one_window_is_a_fair_coin_and_independent_of_the_kind():
    kinds = kinds_of((0.5, 0.25, 0.25), 6000, 1)[:, 0]
    for kind, part in ((Kind.POSITIVE, 0.5), (Kind.EASY, 0.25), (Kind.HARD, 0.125), (Kind.SUPER_HARD, 0.125)):
        assert_part((kinds == kind).sum(), 6000, part)


def make_batch(hashes, kinds, seed=0):
    """A batch whose sample n of window k of row i is 1000 i + 100 k + n, and whose start says the same."""
    rows, slots = np.shape(kinds)
    audio = 1000 * np.arange(rows)[:, None, None] + 100 * np.arange(slots)[:, None] + np.arange(5)
    return {
        'audio': tf.constant(audio, tf.int16), 'kind': tf.constant(kinds, tf.int32),
        'example_hash': tf.constant(hashes, tf.int64),
        'audio_start_seconds': tf.constant(audio[..., 0], tf.float64),
        'seed': tf.stack([tf.range(rows), tf.fill([rows], seed)], 1),
    }


@functools.cache
def _function(slots):
    # The number of windows is known when the pipeline is traced, the number of clips is not.
    signature = {
        'audio': tf.TensorSpec([None, slots, 5], tf.int16), 'kind': tf.TensorSpec([None, slots], tf.int32),
        'example_hash': tf.TensorSpec([None], tf.int64), 'audio_start_seconds': tf.TensorSpec([None, slots], tf.float64),
        'seed': tf.TensorSpec([None, 2], tf.int32),
    }
    return tf.function(fill_easy, input_signature=[signature])


def filled(hashes, kinds, seed=0):
    return {name: value.numpy() for name, value in _function(len(kinds[0]))(make_batch(hashes, kinds, seed)).items()}


def test_easy_windows_are_the_first_windows_of_other_clips():
    rng = np.random.default_rng(0)
    for seed in range(30):
        rows = int(rng.integers(2, 9))
        hashes = rng.integers(0, 4, rows) * 10**15  # ids occur twice and more
        kinds = np.concatenate([np.full((rows, 1), Kind.POSITIVE), rng.integers(Kind.EASY, Kind.SUPER_HARD + 1, (rows, 2))], 1)
        batch = make_batch(hashes, kinds, seed)
        out = filled(hashes, kinds, seed)
        assert 'seed' not in out
        np.testing.assert_array_equal(out['label'], kinds == Kind.POSITIVE)
        for i, k in np.ndindex(rows, 3):
            if kinds[i, k] != Kind.EASY:
                np.testing.assert_array_equal(out['audio'][i, k], batch['audio'][i, k])
                assert out['audio_start_seconds'][i, k] == batch['audio_start_seconds'][i, k].numpy()
                assert out['audio_hash'][i, k] == hashes[i] and out['kind'][i, k] == kinds[i, k]
            elif len(set(hashes)) == 1:
                assert out['kind'][i, k] == NO_PAIR
            else:
                source = out['audio'][i, k, 0] // 1000
                assert out['kind'][i, k] == Kind.EASY
                assert hashes[source] != hashes[i] and out['audio_hash'][i, k] == hashes[source]
                np.testing.assert_array_equal(out['audio'][i, k], batch['audio'][source, 0])
                assert out['audio_start_seconds'][i, k] == batch['audio_start_seconds'][source, 0].numpy()


@pytest.mark.parametrize('hashes', [[7], [7, 7, 7]])
def test_no_pair_where_there_is_no_other_clip(hashes):
    out = filled(hashes, [[Kind.POSITIVE, Kind.EASY, Kind.HARD]] * len(hashes))
    np.testing.assert_array_equal(out['kind'], [[Kind.POSITIVE, NO_PAIR, Kind.HARD]] * len(hashes))
    np.testing.assert_array_equal(out['label'], [[1, 0, 0]] * len(hashes))


def test_all_other_clips_are_equally_likely():
    hashes, draws = np.array([1, 2, 3, 1, 4, 5]), 1500
    sources = np.stack([filled(hashes, [[Kind.POSITIVE, Kind.EASY]] * 6, seed)['audio'][:, 1, 0] // 1000 for seed in range(draws)])
    for i in range(6):
        others = np.flatnonzero(hashes != hashes[i])
        for j in range(6):
            assert_part((sources[:, i] == j).sum(), draws, 1 / len(others) if j in others else 0)
    # Rows choose on their own: 2 and 3 have three of four sources in common.
    assert_part((sources[:, 1] == sources[:, 2]).sum(), draws, 4 / 25)


def test_a_choice_depends_on_the_seed_of_its_own_row_only():
    kinds = [[Kind.POSITIVE, Kind.EASY]] * 6
    first, batch = filled(np.arange(6), kinds), make_batch(np.arange(6), kinds)
    batch['seed'] += tf.constant([[0], [9], [9], [9], [9], [9]])
    other = _function(2)(batch)['audio_hash'].numpy()
    assert other[0, 1] == first['audio_hash'][0, 1] and (other != first['audio_hash']).any()


def test_where_the_picture_lies_does_not_tell_the_label():
    # With one window of sound: a hard negative needs room beside the picture, and so must the positive that stands in its place.
    config = make_config(frames=12, audio_windows=1)
    record = records.parse(records.encode(counting_video(0, 2.0)))
    usable, draws = usable_frames(record, config), 6000

    @tf.function
    def sample(mix):
        def one(number):
            seeds = tf.random.split(tf.stack([number, 7]), 2)
            kinds, room_for = draw_kinds(seeds[0], mix, 1)
            clip = sample_clip(record, usable, kinds, room_for, seeds[1], config)
            return tf.cast(tf.round(clip['video_start_seconds'] * 25), tf.int32), clip['kind'][0]
        return tf.map_fn(one, tf.range(draws), fn_output_signature=(tf.int32, tf.int32))

    for mix in ([0.0, 1.0, 0.0], [0.4, 0.3, 0.3]):
        starts, kinds = (value.numpy() for value in sample(tf.constant(mix)))
        counts = np.stack([np.bincount(starts[chosen], minlength=39) for chosen in (kinds == Kind.POSITIVE, kinds != Kind.POSITIVE)])
        assert counts.sum(1).min() > 0.45 * draws
        seen = counts[:, counts.sum(0) > 0]
        expected = seen.sum(1, keepdims=True) * seen.sum(0) / seen.sum()
        statistic, freedom = ((seen - expected) ** 2 / expected).sum(), seen.shape[1] - 1
        assert statistic < freedom + 4.5 * np.sqrt(2 * freedom)
