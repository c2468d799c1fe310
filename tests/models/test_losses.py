"""The losses against tensorflow-addons, plain loops and values by hand."""

import importlib.util
import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.config import make_config
from avts_tf.data.sampling import NO_PAIR, Kind
from avts_tf.models.losses import (
    ContrastiveLoss,
    all_pairs_loss,
    infonce_loss,
    pair_losses,
    safe_sqrt,
    squared_distances,
)
from avts_tf.models.two_tower import TwoTower

MARGIN = 0.99

# tensorflow-addons wants the Keras of old: it imports only in a process of its own, and with a module that is gone put there.
ADDONS = '''
import json, sys, types
for name, attribute in (('keras.src.engine', None), ('keras.src.engine.keras_tensor', 'KerasTensor')):
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


def test_contrastive_loss_equals_tensorflow_addons():
    if importlib.util.find_spec('tensorflow_addons') is None:
        pytest.skip('tensorflow-addons is not installed')
    rng = np.random.default_rng(0)
    distances = [0.0, 0.0, 0.5, 0.5, 0.98, 0.98, 1.5, 1.5, *rng.uniform(0, 2, 30)]
    labels = [float(i % 2) for i in range(len(distances))]
    case = json.dumps({'distances': distances, 'labels': labels, 'margin': MARGIN})
    process = subprocess.run([sys.executable, '-W', 'ignore', '-c', ADDONS, case], capture_output=True, text=True, check=False,
                             env={**os.environ, 'TF_USE_LEGACY_KERAS': '1', 'TF_CPP_MIN_LOG_LEVEL': '3'})
    assert process.returncode == 0, process.stderr[-2000:]
    expected_values, expected_gradient = json.loads(process.stdout.rpartition('RESULT')[2])
    distances = tf.constant(distances, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(distances)
        values = ContrastiveLoss(MARGIN, 'squared', reduction=None)(labels, distances)
    np.testing.assert_allclose(values, expected_values, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(tape.gradient(values, distances), expected_gradient, rtol=1e-5, atol=1e-6)
    mean = ContrastiveLoss(MARGIN, 'squared')(labels, distances)
    np.testing.assert_allclose(mean, np.mean(expected_values), rtol=1e-5)


def test_contrastive_loss_by_hand():
    labels, distances = [1, 1, 0, 0, 0], tf.constant([0.0, 0.5, 0.0, 0.75, 1.5])
    squared = ContrastiveLoss(1.0, 'squared', reduction=None)(labels, distances)
    np.testing.assert_allclose(squared, [0.0, 0.25, 1.0, 0.0625, 0.0], rtol=1e-6)
    unsquared = ContrastiveLoss(1.0, 'unsquared', reduction=None)(labels, distances)
    np.testing.assert_allclose(unsquared, [0.0, 0.5, 1.0, 0.0625, 0.0], rtol=1e-6)
    with pytest.raises(ValueError, match='positive_term'):
        ContrastiveLoss(positive_term='cubed')


def test_contrastive_loss_survives_serialization():
    loss = ContrastiveLoss(0.7, 'unsquared', reduction='sum')
    twin = ContrastiveLoss.from_config(loss.get_config())
    assert (twin.margin, twin.positive_term, twin.reduction) == (0.7, 'unsquared', 'sum')


def test_distances():
    rng = np.random.default_rng(0)
    video, audio = rng.normal(size=[3, 4]).astype(np.float32), rng.normal(size=[3, 2, 4]).astype(np.float32)
    expected = [[np.sum((video[i] - audio[i, k]) ** 2) for k in range(2)] for i in range(3)]
    np.testing.assert_allclose(squared_distances(video, audio), expected, rtol=1e-5)


def make_batch(seed=0, clips=6, windows=4, size=5):
    """Embeddings with every kind of pair, one example twice in the batch, and slots without a pair."""
    rng = np.random.default_rng(seed)
    kind = np.array([[Kind.POSITIVE, Kind.EASY, Kind.HARD, Kind.SUPER_HARD]] * clips, np.int32)[:, :windows]
    if windows == 4:
        kind[1, 1:] = [Kind.EASY, Kind.EASY, NO_PAIR]
        kind[2, 1:] = NO_PAIR
        kind[3, 1:] = [Kind.HARD, Kind.SUPER_HARD, NO_PAIR]
    # Short vectors, so that the margin cuts some pairs off and others not.
    video, audio = 0.3 * rng.normal(size=[clips, size]), 0.3 * rng.normal(size=[clips, windows, size])
    example_hash = np.array([11, -5, 2**62, 11, 7, 8], np.int64)[:clips]
    return video.astype(np.float32), audio.astype(np.float32), kind, example_hash


def own_sounds(example_hash, kind):
    """The hashes of sounds of which the first ones are the clips' own, int64 [B, K]; of the others the loss asks nothing."""
    return np.concatenate([example_hash[:, None], np.zeros([len(kind), kind.shape[1] - 1], np.int64)], 1)


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
            expected[i, k] = naive_pair(np.linalg.norm(video[i] - audio[i, k]), kind[i, k] == Kind.POSITIVE, positive_term)
    assert (expected[kind == Kind.EASY] > 0).any() and (expected[kind == Kind.EASY] == 0).any()
    values = pair_losses(ContrastiveLoss(MARGIN, positive_term, reduction=None), video, audio, kind)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def naive_mean(distances, weighted):
    """Mean loss of negatives at these distances, 0 of none; weighted by the square of each one's loss where asked."""
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
            to_sounds = naive_mean([np.linalg.norm(video[i] - audio[j, 0]) for j in others], weighted)
            to_pictures = naive_mean([np.linalg.norm(video[j] - audio[i, 0]) for j in others], weighted)
            expected[i, k] = (to_sounds + to_pictures) / 2
        elif kind[i, k] != NO_PAIR:
            expected[i, k] = naive_pair(np.linalg.norm(video[i] - audio[i, k]), kind[i, k] == Kind.POSITIVE, positive_term)
    assert len(set(expected[kind == Kind.EASY])) > 3
    values = all_pairs_loss(ContrastiveLoss(MARGIN, positive_term, reduction=None), video, audio, kind, example_hash,
                            own_sounds(example_hash, kind), weighted)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('weighted', [False, True])
def test_all_pairs_loss_without_any_negative(weighted):
    video, audio, kind, example_hash = make_batch()
    loss, same = ContrastiveLoss(MARGIN, reduction=None), np.zeros_like(example_hash)
    values = all_pairs_loss(loss, video, audio, kind, same, own_sounds(same, kind), weighted)
    assert (values.numpy()[kind == Kind.EASY] == 0).all()
    values = all_pairs_loss(loss, 9.0 + video, audio, kind, example_hash, own_sounds(example_hash, kind), weighted)
    assert (values.numpy()[kind == Kind.EASY] == 0).all()


def test_all_pairs_loss_with_one_window_per_clip():
    """An easy clip's only sound is another clip's: that sound is in sync with its owner, and no negative of it."""
    video, audio, _, _ = make_batch(clips=3, windows=1)
    kind, example_hash = np.array([[Kind.POSITIVE], [Kind.EASY], [Kind.EASY]], np.int32), np.array([1, 2, 3], np.int64)
    audio_hash = np.array([[1], [1], [2]], np.int64)
    audio[1, 0] = audio[0, 0]

    def distances(pairs):
        return [np.linalg.norm(video[i] - audio[j, 0]) for i, j in pairs]

    # Clip 2's own sound lies in the slot of clip 3; the sounds in slots 1 and 2 are clip 1's, that in slot 3 is clip 2's.
    expected = [distances([(0, 0)])[0] ** 2,
                (naive_mean(distances([(1, 0), (1, 1)]), False) + naive_mean(distances([(1, 1), (2, 1)]), False)) / 2,
                (naive_mean(distances([(2, 0), (2, 1), (2, 2)]), False) + naive_mean(distances([(0, 2), (2, 2)]), False)) / 2]
    values = all_pairs_loss(ContrastiveLoss(MARGIN, reduction=None), video, audio, kind, example_hash, audio_hash, weighted=False)
    np.testing.assert_allclose(values[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_infonce_loss_equals_a_loop():
    video, audio, kind, example_hash = make_batch()
    temperature, expected = 0.1, []
    for i in range(len(kind)):
        def score(picture, sound):
            return np.exp(np.float64(picture @ sound) / temperature)

        own = score(video[i], audio[i, 0])
        others = [j for j in range(len(kind)) if example_hash[j] != example_hash[i]]
        hard = [k for k in range(1, kind.shape[1]) if kind[i, k] in (Kind.HARD, Kind.SUPER_HARD)]
        among_sounds = own + sum(score(video[i], audio[j, 0]) for j in others) + sum(score(video[i], audio[i, k]) for k in hard)
        among_pictures = own + sum(score(video[j], audio[i, 0]) for j in others)
        expected.append(-0.5 * (np.log(own / among_sounds) + np.log(own / among_pictures)))
    np.testing.assert_allclose(infonce_loss(video, audio, kind, example_hash, temperature), expected, rtol=1e-4, atol=1e-5)


def test_slots_without_a_pair_have_no_influence():
    video, audio, kind, example_hash = make_batch()
    other = np.where((kind == NO_PAIR)[..., None], 9.0, audio).astype(np.float32)
    loss = ContrastiveLoss(MARGIN, reduction=None)
    for function in (lambda a: pair_losses(loss, video, a, kind),
                     lambda a: all_pairs_loss(loss, video, a, kind, example_hash, own_sounds(example_hash, kind), True),
                     lambda a: infonce_loss(video, a, kind, example_hash, 0.1)):
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
    assert safe_sqrt(tf.constant(4.0)) == 2.0
    _, _, kind, example_hash = make_batch()
    loss = ContrastiveLoss(MARGIN, positive_term, reduction=None)
    for function in (lambda v, a: pair_losses(loss, v, a, kind),
                     lambda v, a: all_pairs_loss(loss, v, a, kind, example_hash, own_sounds(example_hash, kind), True),
                     lambda v, a: infonce_loss(v, a, kind, example_hash, 0.1)):
        video, audio = tf.fill([6, 5], 0.3), tf.fill([6, 4, 5], 0.3)
        with tf.GradientTape() as tape:
            tape.watch([video, audio])
            values = function(video, audio)
        assert np.isfinite(values).all()
        for gradient in tape.gradient(values, [video, audio]):
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize('values', [{'easy_negatives': 'drawn'}, {'easy_negatives': 'all'}, {'easy_negatives': 'weighted'},
                                    {'loss': 'infonce', 'temperature': 0.2}])
def test_the_model_takes_the_loss_that_was_asked_for(values):
    video, audio, kind, hashes = make_batch()
    sounds, loss = own_sounds(hashes, kind), ContrastiveLoss(MARGIN, reduction=None)
    model = types.SimpleNamespace(config=make_config('tiny', **values), contrastive_loss=loss)
    batch = {'kind': tf.constant(kind), 'example_hash': tf.constant(hashes), 'audio_hash': tf.constant(sounds)}
    found = TwoTower._batch_loss(model, {'video': tf.constant(video), 'audio': tf.constant(audio)}, batch)
    if 'loss' in values:
        expected = np.mean(infonce_loss(video, audio, kind, hashes, 0.2))
    else:
        each = (pair_losses(loss, video, audio, kind) if values['easy_negatives'] == 'drawn' else
                all_pairs_loss(loss, video, audio, kind, hashes, sounds, values['easy_negatives'] == 'weighted'))
        expected = np.sum(each) / (kind != NO_PAIR).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize('easy_negatives', ['drawn', 'weighted'])
def test_slots_without_a_pair_do_not_count(easy_negatives):
    rng = np.random.default_rng(1)
    config = make_config('tiny', easy_negatives=easy_negatives)
    model = types.SimpleNamespace(config=config, contrastive_loss=ContrastiveLoss(MARGIN))
    shapes = {'video': (4, 3), 'audio': (4, 2, 3)}
    outputs = {name: tf.constant(rng.normal(size=shape), tf.float32) for name, shape in shapes.items()}
    kind = np.array([[Kind.POSITIVE, Kind.HARD], [Kind.POSITIVE, NO_PAIR], [Kind.POSITIVE, NO_PAIR], [Kind.POSITIVE, Kind.HARD]], np.int32)
    batch = {'kind': tf.constant(kind), 'example_hash': tf.range(4, dtype=tf.int64), 'audio_hash': tf.zeros([4, 2], tf.int64)}
    distances = np.linalg.norm(outputs['audio'].numpy() - outputs['video'].numpy()[:, None], axis=-1)
    pairs = [distance**2 if slot == Kind.POSITIVE else max(MARGIN - distance, 0.0) ** 2
             for distance, slot in zip(distances.flat, kind.flat, strict=True) if slot != NO_PAIR]
    assert len(pairs) == 6
    np.testing.assert_allclose(TwoTower._batch_loss(model, outputs, batch), np.mean(pairs), rtol=1e-5)
