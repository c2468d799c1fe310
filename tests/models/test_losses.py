"""The losses against tensorflow-addons, plain loops and values by hand."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.config import make_config
from avts_tf.data.sampling import NO_PAIR, Kind
from avts_tf.errors import UserError
from avts_tf.models.losses import (
    ContrastiveLoss,
    InfoNCELoss,
    all_pairs_loss,
    infonce_loss,
    make_loss,
    pair_losses,
)
from tests.graphs import operations

MARGIN = 0.99

# tensorflow-addons wants the Keras of old: it imports only in a process of its own, and with a
# module that is gone put there.
ADDONS = '''
import json, sys, types
for name, attribute in (('keras.src.engine', None), ('keras.src.engine.keras_tensor',
'KerasTensor')):
    module = sys.modules[name] = types.ModuleType(name)
    if attribute:
        setattr(module, attribute, type(attribute, (), {}))
sys.modules['keras.src.engine'].keras_tensor = sys.modules['keras.src.engine.keras_tensor']
import tensorflow as tf
import tensorflow_addons as tfa
case = json.loads(sys.argv[1])
distances = tf.constant(case['distances'])
with tf.GradientTape() as tape:
    tape.watch(distances)
    values = tfa.losses.contrastive_loss(tf.constant(case['labels']), distances, case['margin'])
gradient = tape.gradient(values, distances)
print('RESULT' + json.dumps([values.numpy().tolist(), gradient.numpy().tolist()]))
'''


@pytest.mark.slow
def test_contrastive_loss_equals_tensorflow_addons():
    if importlib.util.find_spec('tensorflow_addons') is None:
        pytest.skip('tensorflow-addons is not installed')
    rng = np.random.default_rng(0)
    distances = [0.0, 0.0, 0.5, 0.5, 0.98, 0.98, 1.5, 1.5, *rng.uniform(0, 2, 30)]
    labels = [float(i % 2) for i in range(len(distances))]
    case = json.dumps({'distances': distances, 'labels': labels, 'margin': MARGIN})
    process = subprocess.run([sys.executable, '-W', 'ignore', '-c', ADDONS, case],
                             capture_output=True, text=True, check=False,
                             env={**os.environ, 'TF_USE_LEGACY_KERAS': '1',
                                  'TF_CPP_MIN_LOG_LEVEL': '3'})
    assert process.returncode == 0, process.stderr[-2000:]
    expected_values, expected_gradient = json.loads(process.stdout.rpartition('RESULT')[2])
    distances = tf.constant(distances, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(distances)
        values = ContrastiveLoss(MARGIN, 'squared', reduction=None)(labels, distances)
    np.testing.assert_allclose(values, expected_values, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(tape.gradient(values, distances), expected_gradient, rtol=1e-5,
                               atol=1e-6)
    mean = ContrastiveLoss(MARGIN, 'squared')(labels, distances)
    np.testing.assert_allclose(mean, np.mean(expected_values), rtol=1e-5)


def test_contrastive_loss_by_hand():
    labels, distances = [1, 1, 0, 0, 0], tf.constant([0.0, 0.5, 0.0, 0.75, 1.5])
    squared = ContrastiveLoss(1.0, 'squared', reduction=None)(labels, distances)
    np.testing.assert_allclose(squared, [0.0, 0.25, 1.0, 0.0625, 0.0], rtol=1e-6)
    unsquared = ContrastiveLoss(1.0, 'unsquared', reduction=None)(labels, distances)
    np.testing.assert_allclose(unsquared, [0.0, 0.5, 1.0, 0.0625, 0.0], rtol=1e-6)
    for name in ('positive_term', 'easy_negatives'):
        with pytest.raises(UserError, match=f'^{name}=cubed: use one of '):
            ContrastiveLoss(**{name: 'cubed'})
    with pytest.raises(UserError, match='^batch_negatives=cubed: use one of by_mix, always'):
        InfoNCELoss(batch_negatives='cubed')
    with pytest.raises(UserError, match='^temperature=2.0: must be from 0.01 to 1.0'):
        InfoNCELoss(2.0, learnable_temperature=True)


def test_losses_survive_serialization():
    loss = ContrastiveLoss(0.7, 'unsquared', 'drawn', reduction='sum')
    twin = ContrastiveLoss.from_config(loss.get_config())
    found = twin.margin, twin.positive_term, twin.easy_negatives, twin.reduction
    assert found == (0.7, 'unsquared', 'drawn', 'sum')
    loss = InfoNCELoss(0.2, 'always', learnable_temperature=True)
    twin = InfoNCELoss.from_config(loss.get_config())
    found = twin.temperature, twin.batch_negatives, twin.learnable_temperature
    assert found == (0.2, 'always', True)


def test_infonce_as_a_keras_loss_by_hand():
    similarities = np.array([[0.9, 0.2, -0.4], [0.1, 0.3, 0.8]])
    labels = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    exponentials = np.exp(similarities / 0.5)
    expected = -np.log((labels * exponentials).sum(1) / exponentials.sum(1))
    np.testing.assert_allclose(InfoNCELoss(0.5, reduction=None)(labels, similarities), expected,
                               rtol=1e-5)
    np.testing.assert_allclose(InfoNCELoss(0.5)(labels, similarities), expected.mean(), rtol=1e-5)


def make_batch(seed=0, clips=6, windows=4, size=5):
    """Embeddings with every kind of pair, one example twice, and slots without a pair."""
    rng = np.random.default_rng(seed)
    kind = np.array([[Kind.POSITIVE, Kind.EASY, Kind.HARD, Kind.SUPER_HARD]] * clips,
                    np.int32)[:, :windows]
    if windows == 4:
        kind[1, 1:] = [Kind.EASY, Kind.EASY, NO_PAIR]
        kind[2, 1:] = NO_PAIR
        kind[3, 1:] = [Kind.HARD, Kind.SUPER_HARD, NO_PAIR]
    # Short vectors, so that the margin cuts some pairs off and others not.
    video, audio = 0.3 * rng.normal(size=[clips,
                                          size]), 0.3 * rng.normal(size=[clips, windows, size])
    example_hash = np.array([11, -5, 2**62, 11, 7, 8], np.int64)[:clips]
    return video.astype(np.float32), audio.astype(np.float32), kind, example_hash


def own_sounds(example_hash, kind):
    """int64 [B, K], owners of audio whose first windows are the clips' own; others do not count."""
    return np.concatenate([example_hash[:, None],
                           np.zeros([len(kind), kind.shape[1] - 1], np.int64)], 1)


def naive_pair(distance, in_sync, positive_term):
    if in_sync:
        return distance**2 if positive_term == 'squared' else distance
    return max(MARGIN - distance, 0.0) ** 2


@pytest.mark.parametrize('positive_term', ['squared', 'unsquared'])
def test_pair_losses_equal_a_loop(positive_term):
    video, audio, kind, _ = make_batch()
    expected = np.zeros(kind.shape)
    for i, k in np.ndindex(*kind.shape):
        if kind[i, k] != NO_PAIR:
            expected[i, k] = naive_pair(np.linalg.norm(video[i] - audio[i, k]),
                                        kind[i, k] == Kind.POSITIVE, positive_term)
    assert (expected[kind == Kind.EASY] > 0).any() and (expected[kind == Kind.EASY] == 0).any()
    values = pair_losses(ContrastiveLoss(MARGIN, positive_term, reduction=None), video, audio, kind)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def naive_mean(distances, weighted):
    """Mean loss of negatives at these distances, 0 of none; if weighted, by the loss squared."""
    values = [naive_pair(distance, False, 'squared') for distance in distances]
    weights = [value**2 if weighted else 1.0 for value in values]
    return np.dot(values, weights) / np.sum(weights) if np.sum(weights) > 0 else 0.0


@pytest.mark.parametrize('positive_term', ['squared', 'unsquared'])
@pytest.mark.parametrize('weighted', [False, True])
def test_all_pairs_loss_equals_a_loop(positive_term, weighted):
    video, audio, kind, example_hash = make_batch()
    expected = np.zeros(kind.shape)
    for i, k in np.ndindex(*kind.shape):
        if kind[i, k] == Kind.EASY:
            others = [j for j in range(len(kind)) if example_hash[j] != example_hash[i]]
            to_sounds = naive_mean([np.linalg.norm(video[i] - audio[j, 0]) for j in others],
                                   weighted)
            to_pictures = naive_mean([np.linalg.norm(video[j] - audio[i, 0]) for j in others],
                                     weighted)
            expected[i, k] = (to_sounds + to_pictures) / 2
        elif kind[i, k] != NO_PAIR:
            expected[i, k] = naive_pair(np.linalg.norm(video[i] - audio[i, k]),
                                        kind[i, k] == Kind.POSITIVE, positive_term)
    assert len(set(expected[kind == Kind.EASY])) > 3
    values = all_pairs_loss(ContrastiveLoss(MARGIN, positive_term, reduction=None), video, audio,
                            kind, example_hash,
                            own_sounds(example_hash, kind), weighted)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('weighted', [False, True])
def test_all_pairs_loss_without_any_negative(weighted):
    video, audio, kind, example_hash = make_batch()
    loss, same = ContrastiveLoss(MARGIN, reduction=None), np.zeros_like(example_hash)
    values = all_pairs_loss(loss, video, audio, kind, same, own_sounds(same, kind), weighted)
    assert (values.numpy()[kind == Kind.EASY] == 0).all()
    values = all_pairs_loss(loss, 9.0 + video, audio, kind, example_hash,
                            own_sounds(example_hash, kind), weighted)
    assert (values.numpy()[kind == Kind.EASY] == 0).all()


@pytest.mark.parametrize('name', ['contrastive', 'infonce'])
def test_pairs_are_compared_by_no_multiplication_that_a_gpu_does_in_tf32(name):
    """TF32 is of float32 matrices: forward and backward there is none."""
    batch = dict(zip(('video', 'audio', 'kind', 'example_hash'), make_batch(), strict=True))
    batch['audio_hash'] = own_sounds(batch['example_hash'], batch['kind'])
    loss = InfoNCELoss() if name == 'infonce' else ContrastiveLoss(MARGIN)

    @tf.function(autograph=False)
    def gradients(video, audio):
        outputs = {'video': video, 'audio': audio}
        return tf.gradients(loss.of_batch(outputs, batch), [video, audio])

    graph = gradients.get_concrete_function(batch['video'], batch['audio']).graph
    found = [op for op in operations(graph) if op.type in ('MatMul', 'BatchMatMulV2', 'Einsum')]
    assert len(found) >= 4 and {op.outputs[0].dtype for op in found} == {tf.float64}


def test_all_pairs_loss_with_one_window_per_clip():
    """An easy clip's only audio is another clip's, with which it is in sync: no negative of it."""
    video, audio, _, _ = make_batch(clips=3, windows=1)
    kind, example_hash = np.array([[Kind.POSITIVE], [Kind.EASY], [Kind.EASY]],
                                  np.int32), np.array([1, 2, 3], np.int64)
    audio_hash = np.array([[1], [1], [2]], np.int64)
    audio[1, 0] = audio[0, 0]

    def distances(pairs):
        return [np.linalg.norm(video[i] - audio[j, 0]) for i, j in pairs]

    # Clip 2's own sound lies in the slot of clip 3; the sounds in slots 1 and 2 are clip 1's, that
    # in slot 3 is clip 2's.
    expected = [distances([(0, 0)])[0] ** 2,
                (naive_mean(distances([(1, 0), (1, 1)]),
                            False) + naive_mean(distances([(1, 1), (2, 1)]), False)) / 2,
                (naive_mean(distances([(2, 0), (2, 1), (2, 2)]),
                            False) + naive_mean(distances([(0, 2), (2, 2)]), False)) / 2]
    values = all_pairs_loss(ContrastiveLoss(MARGIN, reduction=None), video, audio, kind,
                            example_hash, audio_hash, weighted=False)
    np.testing.assert_allclose(values[:, 0], expected, rtol=1e-4, atol=1e-5)


def infonce_oracle(video, audio, kind, example_hash, temperature, batch_negatives):
    """InfoNCE by its definition in float64, one softmax after another.

    Returns:
        Loss per clip, whether it has candidates, and the gradients of the summed losses with
        respect to `video`, `audio` and the logarithm of the temperature.
    """
    video, audio = video.astype(np.float64), audio.astype(np.float64)
    losses, counted, slope = np.zeros(len(kind)), np.zeros(len(kind), bool), 0.0
    to_video, to_audio = np.zeros_like(video), np.zeros_like(audio)
    for i in range(len(kind)):
        easy = batch_negatives == 'always' or (kind[i, 1:] == Kind.EASY).any()
        others = [j for j in range(len(kind)) if easy and example_hash[j] != example_hash[i]]
        own = [k for k in range(1, kind.shape[1]) if kind[i, k] in (Kind.HARD, Kind.SUPER_HARD)]
        # Each pair of a direction is (clip of the video, clip and window of the audio).
        directions = ([(i, i, 0), *((i, j, 0) for j in others), *((i, i, k) for k in own)],
                      [(i, i, 0), *((j, i, 0) for j in others)])
        counted[i] = bool(others or own)
        for pairs in directions:
            scores = np.array([video[v] @ audio[a, k] for v, a, k in pairs]) / temperature
            shares = np.exp(scores) / np.exp(scores).sum()
            losses[i] -= 0.5 * np.log(shares[0])
            for index, (v, a, k) in enumerate(pairs):
                weight = 0.5 * (shares[index] - (index == 0))  # by the score
                to_video[v] += weight * audio[a, k] / temperature
                to_audio[a, k] += weight * video[v] / temperature
                slope -= weight * scores[index]
    return losses, counted, to_video, to_audio, slope


@pytest.mark.parametrize('batch_negatives', ['by_mix', 'always'])
def test_infonce_values_and_gradients_are_those_of_numpy(batch_negatives):
    video, audio, kind, example_hash = make_batch()
    expected = infonce_oracle(video, audio, kind, example_hash, 0.1, batch_negatives)
    # Clip 2 has no negative, clip 3 only its own windows.
    assert expected[1].tolist() == [True, True, batch_negatives == 'always', True, True, True]
    inputs = [tf.constant(video), tf.constant(audio), tf.constant(np.log(0.1), tf.float32)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        values, counted = infonce_loss(
            *inputs[:2], kind, example_hash, tf.exp(inputs[2]), batch_negatives)
        total = tf.reduce_sum(values)
    np.testing.assert_array_equal(counted, expected[1])
    found = values, *tape.gradient(total, inputs)
    for ours, truth in zip(found, (expected[0], *expected[2:]), strict=True):
        np.testing.assert_allclose(ours, truth, rtol=1e-4, atol=1e-4 * np.abs(truth).max())


@pytest.mark.parametrize('mix', [{Kind.HARD}, {Kind.EASY}, {Kind.SUPER_HARD}])
def test_candidates_of_infonce_follow_the_mix(mix):
    """With hard negatives alone the loss of a clip is the same whatever clips are beside it."""
    rng = np.random.default_rng(2)
    video, audio = rng.normal(size=[5, 4]), rng.normal(size=[5, 2, 4])
    video, audio = video.astype(np.float32), audio.astype(np.float32)
    kind = np.array([[Kind.POSITIVE, *mix]] * 5, np.int32)
    hashes = np.arange(5)

    def first(rows, batch_negatives):
        values, _ = infonce_loss(video[rows], audio[rows], kind[rows], hashes[rows], 0.5,
                                 batch_negatives)
        return float(values[0])

    same = np.isclose(first([0, 1, 2], 'by_mix'), first([0, 3, 4], 'by_mix'))
    assert same == (mix != {Kind.EASY})
    assert not np.isclose(first([0, 1, 2], 'always'), first([0, 3, 4], 'always'))


def test_slots_without_a_pair_have_no_influence():
    video, audio, kind, example_hash = make_batch()
    other = np.where((kind == NO_PAIR)[..., None], 9.0, audio).astype(np.float32)
    loss = ContrastiveLoss(MARGIN, reduction=None)
    for function in (lambda a: pair_losses(loss, video, a, kind),
                     lambda a: all_pairs_loss(loss, video, a, kind, example_hash,
                                              own_sounds(example_hash, kind), True),
                     lambda a: infonce_loss(video, a, kind, example_hash, 0.1)[0]):
        gradients = []
        for sound in (tf.constant(audio), tf.constant(other)):
            with tf.GradientTape() as tape:
                tape.watch(sound)
                values = function(sound)
            gradients.append(tape.gradient(values, sound).numpy())
            assert (gradients[-1][kind == NO_PAIR] == 0).all()
        np.testing.assert_allclose(gradients[0], gradients[1], atol=1e-6)


@pytest.mark.parametrize('positive_term', ['squared', 'unsquared'])
def test_gradient_is_finite_at_distance_zero(positive_term):
    _, _, kind, example_hash = make_batch()
    loss = ContrastiveLoss(MARGIN, positive_term, reduction=None)
    for function in (lambda v, a: pair_losses(loss, v, a, kind),
                     lambda v, a: all_pairs_loss(loss, v, a, kind, example_hash,
                                                 own_sounds(example_hash, kind), True),
                     lambda v, a: infonce_loss(v, a, kind, example_hash, 0.1)[0]):
        video, audio = tf.fill([6, 5], 0.3), tf.fill([6, 4, 5], 0.3)
        with tf.GradientTape() as tape:
            tape.watch([video, audio])
            values = function(video, audio)
        assert np.isfinite(values).all()
        for gradient in tape.gradient(values, [video, audio]):
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize('values', [{'easy_negatives': 'drawn'}, {'easy_negatives': 'all'},
                                    {'easy_negatives': 'weighted'},
                                    {'loss': 'infonce', 'temperature': 0.2}])
def test_the_loss_of_a_batch_is_the_one_that_was_asked_for(values):
    video, audio, kind, hashes = make_batch()
    sounds, loss = own_sounds(hashes, kind), ContrastiveLoss(MARGIN)
    made = make_loss(make_config('tiny', margin=MARGIN, **values).train)
    batch = {'kind': tf.constant(kind), 'example_hash': tf.constant(hashes),
             'audio_hash': tf.constant(sounds)}
    found = made.of_batch({'video': tf.constant(video), 'audio': tf.constant(audio)}, batch)
    if 'loss' in values:
        each, counted = infonce_loss(video, audio, kind, hashes, 0.2)
        expected = each.numpy()[counted].mean()
        assert not counted.numpy().all()
    else:
        each = (pair_losses(loss, video, audio, kind) if values['easy_negatives'] == 'drawn' else
                all_pairs_loss(loss, video, audio, kind, hashes, sounds,
                               values['easy_negatives'] == 'weighted'))
        expected = np.sum(each) / (kind != NO_PAIR).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize('easy_negatives', ['drawn', 'weighted'])
def test_slots_without_a_pair_do_not_count(easy_negatives):
    rng = np.random.default_rng(1)
    loss = ContrastiveLoss(MARGIN, easy_negatives=easy_negatives)
    shapes = {'video': (4, 3), 'audio': (4, 2, 3)}
    outputs = {name: tf.constant(rng.normal(size=shape), tf.float32) for name,
               shape in shapes.items()}
    kind = np.array([[Kind.POSITIVE, Kind.HARD], [Kind.POSITIVE, NO_PAIR], [Kind.POSITIVE, NO_PAIR],
                     [Kind.POSITIVE, Kind.HARD]], np.int32)
    batch = {'kind': tf.constant(kind), 'example_hash': tf.range(4, dtype=tf.int64),
             'audio_hash': tf.zeros([4, 2], tf.int64)}
    distances = np.linalg.norm(outputs['audio'].numpy() - outputs['video'].numpy()[:, None],
                               axis=-1)
    pairs = [distance**2 if slot == Kind.POSITIVE else max(MARGIN - distance, 0.0) ** 2
             for distance, slot in zip(distances.flat, kind.flat, strict=True) if slot != NO_PAIR]
    assert len(pairs) == 6
    np.testing.assert_allclose(loss.of_batch(outputs, batch), np.mean(pairs), rtol=1e-5)
