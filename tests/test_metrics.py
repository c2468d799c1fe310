"""The figures of synchronisation on cases whose answer is known, and by brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avts_tf import metrics
from avts_tf.data.sampling import NO_PAIR, Kind
from avts_tf.metrics import auc, balanced_accuracy, best_threshold, of_kind, sync_metrics

distances = st.lists(st.floats(0, 100, width=32), min_size=1,
                     max_size=12).map(lambda values: np.array(values, np.float32))


@pytest.fixture(autouse=True, scope='module')
def _fewer_bootstraps():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, 'BOOTSTRAPS', 100)
        yield


def test_auc_by_hand():
    low, high = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.6])
    assert auc(low, high) == 1.0
    assert auc(high, low) == 0.0
    assert auc(np.ones(4), np.ones(3)) == 0.5
    assert auc(np.array([1.0, 3.0]), np.array([2.0, 4.0])) == 0.75
    assert np.isnan(auc(np.array([]), high)) and np.isnan(auc(low, np.array([])))


@settings(max_examples=60, deadline=None)
@given(distances, distances)
def test_auc_is_the_chance_of_the_right_order(positive, negative):
    right = np.mean([(p < n) + 0.5 * (p == n) for p in positive for n in negative])
    assert auc(positive, negative) == pytest.approx(right, abs=1e-9)


def test_balanced_accuracy_by_hand():
    positive, negative = np.array([0.1, 0.2, 0.9, 0.3]), np.array([0.5, 1.0])
    assert balanced_accuracy(positive, negative, 0.4) == (3 / 4 + 1) / 2
    assert balanced_accuracy(positive, negative, 0.0) == 0.5
    assert balanced_accuracy(positive, negative, 9.0) == 0.5
    # A distance at the threshold is out of sync.
    assert balanced_accuracy(np.array([0.5]), np.array([0.5]), 0.5) == 0.5


def test_best_threshold_by_hand():
    assert 0.3 < best_threshold(np.array([0.1, 0.3]), np.array([0.4, 0.8])) <= 0.4
    # Even where float32 has no number between the two.
    one, next_to_one = np.float32([1.0]), np.nextafter(np.float32([1.0]), np.float32(2.0))
    assert balanced_accuracy(one, next_to_one, best_threshold(one, next_to_one)) == 1.0
    reversed_threshold = best_threshold(np.array([0.4, 0.8]), np.array([0.1, 0.3]))
    assert balanced_accuracy(np.array([0.4, 0.8]), np.array([0.1, 0.3]), reversed_threshold) == 0.5


@settings(max_examples=60, deadline=None)
@given(distances, distances)
def test_best_threshold_is_the_best(positive, negative):
    found = balanced_accuracy(positive, negative, best_threshold(positive, negative))
    candidates = [*positive.astype(float), *negative.astype(float), 1e9]
    best = max((np.mean(positive < np.float64(t)) + np.mean(negative >= np.float64(t))) / 2
               for t in candidates)
    assert found == pytest.approx(best, abs=1e-9)


def make_pairs(clips=60, shift=1.0, seed=0):
    """Pairs of 30 examples, two clips each: one of each kind, but super-hard for half of them."""
    rng = np.random.default_rng(seed)
    kind = np.tile(np.array([Kind.POSITIVE, Kind.EASY, Kind.HARD, Kind.SUPER_HARD], np.int32),
                   (clips, 1))
    kind[::2, 3] = NO_PAIR
    distance = rng.normal(1.0, 0.3,
                          [clips, 4]) + shift * (kind == Kind.EASY) + 0.1 * (kind == Kind.HARD)
    example = np.arange(clips) // 2 * 7 - 100
    audio = np.where(kind == Kind.EASY, np.roll(example, 2)[:, None], example[:, None])
    return {'distance': distance.astype(np.float32), 'kind': kind, 'example_hash': example,
            'audio_hash': audio}


def test_of_kind():
    pairs = make_pairs()
    np.testing.assert_array_equal(of_kind(pairs, Kind.SUPER_HARD), pairs['distance'][1::2, 3])


def test_sync_metrics_equals_its_parts():
    pairs = make_pairs()
    results = sync_metrics(pairs, 1.5)
    positive = pairs['distance'][:, 0]
    assert (results['clips'], results['examples'], results['threshold']) == (60, 30, 1.5)
    assert (results['pairs_easy'], results['pairs_hard'],
            results['pairs_super_hard']) == (60, 60, 30)
    assert results['distance_positive'] == pytest.approx(positive.mean())
    for column, name in ((1, 'easy'), (2, 'hard'), (3, 'super_hard')):
        negative = pairs['distance'][:, column][pairs['kind'][:, column] >= 0]
        assert results[f'distance_{name}'] == pytest.approx(negative.mean())
        assert results[f'auc_{name}'] == auc(positive, negative)
        assert results[f'accuracy_{name}'] == ((positive < 1.5).mean()
                                               + (negative >= 1.5).mean()) / 2
        for figure in ('auc', 'accuracy'):
            low, high = results[f'{figure}_{name}_interval']
            assert low < results[f'{figure}_{name}'] < high
    assert results['avts_accuracy'] == results['accuracy_easy']
    assert results['avts_accuracy_interval'] == results['accuracy_easy_interval']
    # Easy pairs were made to differ, super-hard ones were not.
    assert results['auc_easy_interval'][0] > 0.9
    assert results['auc_super_hard_interval'][0] < 0.5 < results['auc_super_hard_interval'][1]
    assert sync_metrics(pairs, 1.5) == results


@pytest.mark.parametrize(('shift', 'accuracy'), [(9.0, 1.0), (-9.0, 0.0)])
def test_perfect_and_reversed(shift, accuracy):
    pairs = make_pairs(shift=shift)
    threshold = 5.0 if shift > 0 else -3.0
    results = sync_metrics(pairs, threshold)
    assert results['auc_easy'] == accuracy
    assert results['auc_easy_interval'] == pytest.approx([accuracy, accuracy])
    assert results['avts_accuracy'] == accuracy


def test_intervals_respect_examples():
    """Ten copies of a clip are one piece of evidence: they widen nothing and narrow nothing."""
    pairs = make_pairs(clips=40)
    copies = {name: np.repeat(values, 10, axis=0) for name, values in pairs.items()}
    few, many = sync_metrics(pairs, 1.5), sync_metrics(copies, 1.5)
    np.testing.assert_allclose(many['auc_hard_interval'], few['auc_hard_interval'], atol=1e-9)
    naive = {**copies, 'example_hash': np.arange(400),
             'audio_hash': np.tile(np.arange(400)[:, None], 4)}
    low, high = sync_metrics(naive, 1.5)['auc_hard_interval']
    assert high - low < 0.6 * (few['auc_hard_interval'][1] - few['auc_hard_interval'][0])


def test_a_kind_that_is_absent_is_left_out():
    pairs = make_pairs()
    pairs['kind'][pairs['kind'] == Kind.EASY] = NO_PAIR
    results = sync_metrics(pairs, 1.5)
    assert results['pairs_easy'] == 0 and 'auc_easy' not in results
    assert 'avts_accuracy' not in results


def test_weighted_resampling_equals_repeated_pairs(monkeypatch):
    """A sample in which each record is drawn once has the figures of the pairs themselves."""
    pairs = make_pairs()

    class Once:
        def multinomial(self, count, parts, samples):
            return np.ones([1, count], int)

    monkeypatch.setattr(np.random, 'default_rng', lambda seed: Once())
    results = sync_metrics(pairs, 1.5)
    for figure in ('auc_easy', 'accuracy_easy', 'auc_super_hard', 'accuracy_super_hard'):
        assert results[f'{figure}_interval'] == pytest.approx([results[figure]] * 2, abs=1e-12)


def test_easy_pairs_are_split_by_class():
    """Against a loop over pairs; hard pairs, and pairs that were not drawn, have no part in it."""
    rng = np.random.default_rng(0)
    class_of = {2**61 + record: 'abc'[record % 3] for record in range(12)}
    records = np.array(list(class_of))
    owners = rng.choice(records, 80)
    kinds = np.tile([Kind.POSITIVE, Kind.EASY, Kind.HARD, NO_PAIR], (80, 1))
    heard = np.stack([owners, rng.choice(records, 80), owners, owners], 1)
    pairs = {'kind': kinds, 'example_hash': owners, 'audio_hash': heard,
             'distance': rng.random((80, 4)).astype(np.float32)}
    found = metrics.split_easy(pairs, 0.4, class_of)
    positive = pairs['distance'][:, 0]
    for name, same in (('same_class', True), ('other_class', False)):
        negative = np.array([pairs['distance'][n, 1] for n in range(80)
                             if (class_of[owners[n]] == class_of[heard[n, 1]]) == same])
        assert found[f'pairs_easy_{name}'] == len(negative) > 10
        assert found[f'accuracy_easy_{name}'] == balanced_accuracy(positive, negative, 0.4)
        assert found[f'auc_easy_{name}'] == auc(positive, negative)
    # The split loses no pair: weighed by their numbers, the parts are the whole.
    whole = sync_metrics(pairs, 0.4)['auc_easy']
    assert whole == pytest.approx(sum(found[f'auc_easy_{name}'] * found[f'pairs_easy_{name}']
                                      for name in ('same_class', 'other_class')) / 80)
    alone = metrics.split_easy(pairs, 0.4, dict.fromkeys(class_of, 'one'))
    assert alone['pairs_easy_other_class'] == 0 and 'auc_easy_other_class' not in alone


def simulated(rng, records=40, windows=8):
    """Easy pairs whose distance depends on video, audio and chance; positive ones are close."""
    video, audio = rng.normal(0, 0.1, records), rng.normal(0, 0.3, records)
    owner = np.repeat(np.arange(records), windows)
    other = (owner + rng.integers(1, records, len(owner))) % records
    easy = 1 + video[owner] + audio[other] + rng.normal(0, 0.1, len(owner))
    positive = rng.normal(0.6, 0.1, len(owner))
    return {'distance': np.stack([positive, easy], 1),
            'kind': np.tile([Kind.POSITIVE, Kind.EASY], (len(owner), 1)),
            'example_hash': owner, 'audio_hash': np.stack([owner, other], 1)}


def test_intervals_respect_both_owners_of_an_easy_pair():
    """95 % intervals cover the true figure about as often as they say."""
    rng, trials = np.random.default_rng(1), 60
    truth = sync_metrics(simulated(rng, 2000), 0.8)
    covered = {'both': 0, 'video': 0}
    for _ in range(trials):
        pairs = simulated(rng)
        for owners in covered:
            if owners == 'video':
                pairs['audio_hash'] = np.stack([pairs['example_hash']] * 2, 1)
            low, high = sync_metrics(pairs, 0.8)['avts_accuracy_interval']
            covered[owners] += low <= truth['avts_accuracy'] <= high
    assert covered['both'] >= 0.9 * trials
    assert covered['video'] <= 0.8 * trials
