"""The kinds, the mix that is drawn, and the easy negatives across a batch."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.config import make_config
from avts_tf.data.sampling import (
    NEGATIVES,
    NO_PAIR,
    OTHER_RECORD_NEGATIVES,
    SAME_RECORD_NEGATIVES,
    Kind,
    draw_kinds,
    fill_easy,
    in_mix,
    is_one_of,
)

CONFIG = make_config(frames=12)


def test_kinds_are_numbers_with_names_and_properties():
    assert [int(kind) for kind in Kind] == [0, 1, 2, 3]
    assert [f'{kind}' for kind in Kind] == ['positive', 'easy', 'hard', 'super_hard']
    assert f'{Kind.HARD:>6}' == '  hard' and str(Kind(3)) == 'super_hard'
    assert (*OTHER_RECORD_NEGATIVES, *SAME_RECORD_NEGATIVES) == NEGATIVES == (1, 2, 3)
    kinds = tf.constant([[0, 1], [2, 3], [NO_PAIR, 2]])
    own = is_one_of(kinds, SAME_RECORD_NEGATIVES).numpy()
    assert own.tolist() == [[False, False], [True, True], [False, True]]
    allowed = in_mix(tf.constant([0.75, 0.25, 0.0]))
    assert [bool(allowed[kind]) for kind in NEGATIVES] == [True, True, False]


def kinds_of(mix, draws, audio_windows):
    return draw_kinds([3, 7], tf.constant(mix, tf.float32), audio_windows, (draws,)).numpy()


def assert_part(count, total, part):
    """`total` independent draws of a probability: within 4.5 deviations; 0 and 1 are exact."""
    assert abs(count - total * part) <= 4.5 * np.sqrt(total * part * (1 - part))


@pytest.mark.parametrize('mix', [
    (1, 0, 0), (0, 1, 0), (0, 0, 1), (0.75, 0.25, 0), (0.5, 0, 0.5), (0, 0.3, 0.7), (0.9, 0.1, 0),
    (1 / 3, 1 / 3, 1 / 3), (0.7, 0.2, 0.1), (0.02, 0.97, 0.01),
])
def test_the_drawn_mix_is_the_requested_one(mix):
    kinds = kinds_of(mix, 40_000, 3)
    assert (kinds[:, 0] == Kind.POSITIVE).all()
    for kind, part in zip(NEGATIVES, mix, strict=True):
        assert_part((kinds[:, 1:] == kind).sum(), 80_000, part)
    # Two negatives of one clip are drawn independently.
    assert_part((kinds[:, 1] == kinds[:, 2]).sum(), 40_000, sum(part**2 for part in mix))


@pytest.mark.parametrize('mix', [(0.9999995, 0, 0), (0.25, 0.7499995, 0), (1, 0, 0)])
def test_a_part_of_0_is_never_drawn_though_the_others_are_rounded(mix, monkeypatch):
    greatest = np.nextafter(np.float32(1), np.float32(0))
    monkeypatch.setattr(tf.random, 'stateless_uniform', lambda shape,
                        seed: tf.fill(shape, greatest))
    drawn = draw_kinds(tf.constant([0, 0]), tf.constant(mix, tf.float32), 2).numpy()
    assert drawn[1] == (Kind.HARD if mix[1] else Kind.EASY)


def test_one_window_is_a_fair_coin_and_independent_of_the_kind():
    kinds = kinds_of((0.5, 0.25, 0.25), 60_000, 1)[:, 0]
    for kind, part in zip(Kind, (0.5, 0.25, 0.125, 0.125), strict=True):
        assert_part((kinds == kind).sum(), 60_000, part)


def make_batch(hashes, kinds, seed=0):
    """A batch whose sample n of window k of row i is 1000 i + 100 k + n, and whose start says the
    same.
    """
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
        'audio': tf.TensorSpec([None, slots, 5], tf.int16),
        'kind': tf.TensorSpec([None, slots], tf.int32),
        'example_hash': tf.TensorSpec([None], tf.int64),
        'audio_start_seconds': tf.TensorSpec([None, slots], tf.float64),
        'seed': tf.TensorSpec([None, 2], tf.int32),
    }
    return tf.function(lambda batch: fill_easy(batch, CONFIG), input_signature=[signature])


def filled(hashes, kinds, seed=0):
    return {name: value.numpy() for name,
            value in _function(len(kinds[0]))(make_batch(hashes, kinds, seed)).items()}


def test_easy_windows_are_the_first_windows_of_other_clips():
    rng = np.random.default_rng(0)
    for seed in range(30):
        rows = int(rng.integers(2, 9))
        hashes = rng.integers(0, 4, rows) * 10**15  # ids occur twice and more
        kinds = np.concatenate([np.full((rows, 1), Kind.POSITIVE),
                                rng.choice(NEGATIVES, (rows, 2))], 1)
        batch = make_batch(hashes, kinds, seed)
        out = filled(hashes, kinds, seed)
        assert 'seed' not in out
        np.testing.assert_array_equal(out['label'], kinds == Kind.POSITIVE)
        for i, k in np.ndindex(rows, 3):
            if kinds[i, k] != Kind.EASY:
                np.testing.assert_array_equal(out['audio'][i, k], batch['audio'][i, k])
                assert out['audio_start_seconds'][i, k] == batch['audio_start_seconds'][i,
                                                                                        k].numpy()
                assert out['audio_hash'][i, k] == hashes[i] and out['kind'][i, k] == kinds[i, k]
            elif len(set(hashes)) == 1:
                assert out['kind'][i, k] == NO_PAIR
            else:
                source = out['audio'][i, k, 0] // 1000
                assert out['kind'][i, k] == Kind.EASY
                assert hashes[source] != hashes[i] and out['audio_hash'][i, k] == hashes[source]
                np.testing.assert_array_equal(out['audio'][i, k], batch['audio'][source, 0])
                assert out['audio_start_seconds'][i, k] == batch['audio_start_seconds'][source,
                                                                                        0].numpy()


@pytest.mark.parametrize('hashes', [[7], [7, 7, 7]])
def test_no_pair_where_there_is_no_other_clip(hashes):
    out = filled(hashes, [[Kind.POSITIVE, Kind.EASY, Kind.HARD]] * len(hashes))
    np.testing.assert_array_equal(out['kind'], [[Kind.POSITIVE, NO_PAIR, Kind.HARD]] * len(hashes))
    np.testing.assert_array_equal(out['label'], [[1, 0, 0]] * len(hashes))


def test_all_other_clips_are_equally_likely():
    hashes, draws = np.array([1, 2, 3, 1, 4, 5]), 500
    sources = np.stack([filled(hashes, [[Kind.POSITIVE, Kind.EASY]] * 6,
                               seed)['audio'][:, 1, 0] // 1000 for seed in range(draws)])
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


def test_easy_windows_from_the_same_place():
    # Sample n of clip i is 1000 i + n / 100; the clips differ in length.
    rate, window, lengths = CONFIG.clip.sample_rate, CONFIG.clip.window_samples, [9000, 30000,
                                                                                  20000]
    rows = len(lengths)
    waveforms = [1000 * i + np.arange(length) // 100 for i, length in enumerate(lengths)]
    places = np.array([[1280], [22000], [12000]])           # of the video windows, in samples
    audio = np.stack([waveforms[i][places[i, 0]:][:window][None].repeat(2, 0)
                      if places[i, 0] + window <= lengths[i] else np.zeros((2, window), int)
                      for i in range(rows)])
    sources = set()
    for seed in range(12):
        batch = {
            'audio': tf.constant(audio, tf.int16), 'example_hash': tf.constant([1, 2, 3], tf.int64),
            'kind': tf.constant([[Kind.POSITIVE, Kind.EASY]] * rows, tf.int32),
            'audio_start_seconds': tf.constant(places.repeat(2, 1) / rate, tf.float64),
            'seed': tf.stack([tf.range(rows), tf.fill([rows], seed)], 1),
            'waveform': tf.ragged.stack([tf.constant(waveform, tf.int16)
                                         for waveform in waveforms]),
        }
        out = {name: value.numpy() for name, value in fill_easy(batch, CONFIG).items()}
        assert 'waveform' not in out
        np.testing.assert_array_equal(out['audio'][:, 0], audio[:, 0])
        for i in range(rows):
            source = int(out['audio_hash'][i, 1]) - 1
            start = round(out['audio_start_seconds'][i, 1] * rate)
            assert source != i
            np.testing.assert_array_equal(out['audio'][i, 1],
                                          waveforms[source][start:start + window])
            # Of clips that hold the place one is taken, else one's last window.
            holding = [j for j in range(rows) if j != i and places[i, 0] + window <= lengths[j]]
            if holding:
                assert source in holding and start == places[i, 0]
            else:
                assert start == lengths[source] - window
            sources.add((i, source))
    assert sources == {(0, 1), (0, 2), (1, 0), (1, 2), (2, 1)}
