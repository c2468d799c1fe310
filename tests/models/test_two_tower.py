"""The two towers together: their graph, their precision, their loss."""

import contextlib
import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import avts_tf
from avts_tf.config import make_config
from avts_tf.errors import UserError
from avts_tf.models.audio import build_audio_tower
from avts_tf.models.two_tower import TwoTower, build_two_tower
from avts_tf.models.video import build_video_tower
from avts_tf.training.optimizer import make_optimizer
from tests.graphs import built_for_gpu, operations
from tests.helpers import light_video_network
from tests.models.twins import SMALL, randomize, sounds


def rounding_of_bfloat16_convolutions():
    """Relative error of a 3-D convolution of bfloat16 numbers.

    It is 0.002 where its sums are taken in float32, as they should be.
    Without AVX-512 they are taken in bfloat16: oneDNN knows no bfloat16 there, and TensorFlow falls
    back to kernels whose error grows with the number of terms.
    """
    rng = np.random.default_rng(0)
    x, kernel = (tf.cast(rng.normal(size=shape), tf.bfloat16)
                 for shape in ([1, 4, 8, 8, 256], [1, 1, 1, 256, 16]))
    exact = tf.reshape(tf.cast(x, tf.float64), [-1, 256]) @ tf.cast(kernel[0, 0, 0], tf.float64)
    found = tf.cast(tf.reshape(tf.nn.conv3d(x, kernel, [1] * 5, 'SAME'), [-1, 16]), tf.float64)
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize('tower', [
    'mc3', *(pytest.param(name, marks=pytest.mark.slow) for name in ('i3d', 'audio'))])
def test_bfloat16_is_close_to_float32(tower):
    results = {}
    for policy in ('float32', 'mixed_bfloat16'):
        config = make_config('tiny', **{**SMALL, 'video_tower': 'mc3' if tower == 'audio'
                                        else tower, 'frame_size': 32})
        keras.utils.set_random_seed(1)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            model = randomize(build_audio_tower(config) if tower == 'audio'
                              else build_video_tower(config))
        finally:
            keras.config.set_dtype_policy(before)
        assert {variable.dtype for variable in model.variables} == {'float32'}
        rng = np.random.default_rng(0)
        # Two clips as unlike as noise and near darkness.
        brightness = np.array([1.0, 0.2]).reshape(2, 1, 1, 1, 1)
        frames = (rng.integers(0, 256, [2, 12, 32, 32, 3]) * brightness).astype(np.uint8)
        outputs = model(sounds(config) if tower == 'audio' else frames)
        results[policy] = {name: value.numpy() for name, value in outputs.items()}
    sums_in_float32 = tower == 'audio' or rounding_of_bfloat16_convolutions() < 0.003
    for name, exact in results['float32'].items():
        rounded = results['mixed_bfloat16'][name]
        assert rounded.dtype == np.float32
        error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
        # A number keeps 8 bits (0.4 %), over some twenty layers; far less than what tells the two
        # clips apart.
        assert 0 < error < (0.03 if sums_in_float32 else 0.1), (name, error)
        if sums_in_float32:
            assert np.linalg.norm(rounded - exact) < 0.2 * np.linalg.norm(exact[0] - exact[1]), name


def test_bfloat16_is_for_the_networks_alone():
    model = build_two_tower(make_config('tiny', **{**SMALL, 'bfloat16': True}))
    audio = model.audio_tower
    assert model.video_tower.get_layer('conv1').compute_dtype == 'bfloat16'
    assert audio.get_layer('audio_network').get_layer('conv1').compute_dtype == 'bfloat16'
    assert audio.get_layer('log_mel').compute_dtype == 'float32'
    assert {value.dtype for value in [*model.weights, *model.output.values()]} == {'float32'}
    assert keras.config.dtype_policy().name == 'float32'


@pytest.fixture(scope='module')
def model():
    return build_two_tower(make_config('tiny', **{**SMALL, 'normalize': 'length'}))


def test_built_in_its_constructor_and_again_from_its_configuration(model):
    keras.utils.set_random_seed(model.config.train.seed)
    twin = TwoTower.from_config(model.get_config())
    assert all((a == b).all()
               for a, b in zip(model.get_weights(), twin.get_weights(), strict=True))
    assert twin.config == model.config and set(twin.output) == {'video', 'audio'}
    rng = np.random.default_rng(0)
    batch = {name: rng.integers(0, 200, [2, *tensor.shape[1:]]).astype(tensor.dtype)
             for name, tensor in model.input.items()}
    for name, value in model(batch).items():
        np.testing.assert_array_equal(twin(batch)[name], value)


def test_weights_follow_from_the_seed(model):
    other = build_two_tower(dataclasses.replace(
        model.config, train=dataclasses.replace(model.config.train, seed=1)))
    differs = {name for name, tower in (('video', 'video_tower'), ('audio', 'audio_tower'))
               for a, b in zip(getattr(model, tower).get_weights(),
                               getattr(other, tower).get_weights(), strict=True) if (a != b).any()}
    assert differs == {'video', 'audio'}


def random_batch(config, rows=4):
    """A batch as the pipeline gives it, with an easy and a hard negative."""
    rng = np.random.default_rng(0)
    clip, kind = config.clip, np.array([[0, 1], [0, 2]] * (rows // 2), np.int32)
    size = [rows, clip.frames, clip.frame_size, clip.frame_size, 3]
    hashes = np.arange(rows)
    return {
        'video': tf.constant(rng.integers(0, 256, size), tf.uint8),
        'audio': tf.constant(rng.integers(-9999, 9999, [rows, 2, clip.window_samples]), tf.int16),
        'kind': tf.constant(kind), 'label': tf.cast(kind == 0, tf.float32),
        'example_hash': tf.constant(hashes),
        'audio_hash': tf.constant(np.where(kind == 1, np.roll(hashes, 1)[:, None],
                                           hashes[:, None])),
    }


def test_compile_obeys_the_loss_that_it_is_given(model):
    batch = random_batch(model.config)
    outputs = model.embed(batch)
    given = [avts_tf.ContrastiveLoss(margin=1.0, easy_negatives='drawn'),
             avts_tf.ContrastiveLoss(margin=5.0, easy_negatives='drawn'),
             avts_tf.InfoNCELoss(temperature=0.5)]
    losses = []
    for loss in given:
        model.compile('sgd', loss=loss)
        losses.append(float(model.batch_loss(outputs, batch)))
        np.testing.assert_allclose(losses[-1], loss.of_batch(outputs, batch), rtol=1e-6)
    logs = model.evaluate(tf.data.Dataset.from_tensors(batch), verbose=0, return_dict=True)
    np.testing.assert_allclose(logs['loss'], losses[-1], rtol=1e-5)
    assert len(set(np.round(losses, 3))) == 3
    distances = model.distances(outputs).numpy()
    expected = np.where(batch['label'] == 1, distances**2, np.maximum(5.0 - distances, 0) ** 2)
    np.testing.assert_allclose(losses[1], expected.mean(), rtol=1e-4)


def test_without_a_loss_compile_takes_the_one_of_the_configuration(model):
    model.compile('sgd')
    assert isinstance(model.pair_loss, avts_tf.ContrastiveLoss)
    train = model.config.train
    assert (model.pair_loss.margin, model.pair_loss.easy_negatives) == (train.margin, 'weighted')


def test_a_learnable_temperature_is_trained_kept_in_its_range_and_not_decayed():
    config = make_config('tiny', **{**SMALL, 'normalize': 'length'}, loss='infonce',
                         learnable_temperature=True, temperature=0.0101, weight_decay=0.5)
    model = build_two_tower(config)
    count = len(model.weights)
    model.compile(optimizer=make_optimizer(config))
    variable = model.log_temperature
    assert len(model.weights) == count + 1 and any(each is variable for each in model.weights)
    assert any(each is variable for each in model.trainable_variables)
    model.optimizer.build(model.trainable_variables)
    assert not model.optimizer._use_weight_decay(variable)
    batch = random_batch(config)
    outputs = model.embed(batch)
    with tf.GradientTape() as tape:
        loss = model.batch_loss(outputs, batch)
    slope = tape.gradient(loss, variable.value)
    expected = avts_tf.InfoNCELoss(0.0101).of_batch(outputs, batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    # AdamW's first step is its rate, against the sign of the gradient.
    model.optimizer.learning_rate.assign(1e-3)
    model.optimizer.apply_gradients([(slope, variable)])
    moved = float(variable.numpy()) - np.log(0.0101)
    np.testing.assert_allclose(moved, -np.sign(slope) * 1e-3, rtol=0.05)
    np.testing.assert_allclose(model.kind_results()['temperature'], np.exp(variable.numpy()))
    for start, sign in ((0.01, -1.0), (1.0, 1.0)):
        variable.assign(np.log(start) + sign)
        model.optimizer.apply_gradients([(slope, variable)])
        np.testing.assert_allclose(np.exp(variable.numpy()), start, rtol=1e-5)
    # Another loss trains without it; the towers have none to export.
    model.compile('sgd', loss=avts_tf.ContrastiveLoss())
    assert not any(each is variable for each in model.trainable_variables)
    assert 'temperature' in model.get_config()['config']
    assert len(model.video_tower.weights) + len(model.audio_tower.weights) == count


def test_infonce_needs_the_positive_window():
    model = build_two_tower(make_config('tiny', **SMALL, audio_windows=1))
    with pytest.raises(UserError, match='^loss=InfoNCELoss: needs the positive window'):
        model.compile('sgd', loss=avts_tf.InfoNCELoss())


@pytest.mark.parametrize(('options', 'words'), [
    ({'loss': 'mse'}, '^loss=mse: .*ContrastiveLoss.*InfoNCELoss'),
    ({'loss': keras.losses.MeanSquaredError()}, '^loss=MeanSquaredError: '),
    ({'loss': avts_tf.ContrastiveLoss(reduction='sum')}, '^reduction=sum: '),
    ({'metrics': ['accuracy']}, '^metrics='),
    ({'loss_weights': [1.0]}, '^loss_weights='),
])
def test_compile_refuses_what_it_would_not_heed(model, options, words):
    with pytest.raises(UserError, match=words):
        model.compile('sgd', **options)


@pytest.mark.slow
@pytest.mark.parametrize(('build_for', 'gradient_of_norm'), [
    (contextlib.nullcontext, 'FusedBatchNormGradV3'), (built_for_gpu, 'PartitionedCall')])
def test_a_step_that_xla_compiles_is_the_same_to_rounding(build_for, gradient_of_norm):
    config = make_config('tiny', **{**SMALL, 'normalize': 'length'})
    rng, clip = np.random.default_rng(0), config.clip
    frames = rng.integers(0, 256, [4, clip.frames, clip.frame_size, clip.frame_size, 3])
    audio = rng.integers(-9000, 9000, [4, config.pairs.audio_windows, clip.window_samples])
    windows = np.arange(config.pairs.audio_windows)
    batch = {'video': tf.constant(frames, tf.uint8), 'audio': tf.constant(audio, tf.int16),
             'kind': tf.constant(np.minimum(windows, 1) + np.zeros([4, 1], int)),
             'example_hash': tf.range(4, dtype=tf.int64),
             'audio_hash': (tf.range(4, dtype=tf.int64)[:, None] + np.minimum(windows, 1)) % 4}
    losses, compiled = [], []
    for jit_compile in (False, True):
        with light_video_network():
            model = build_two_tower(config)
        model.compile(keras.optimizers.SGD(0.01), jit_compile=jit_compile)
        step = tf.function(model.train_step, autograph=False)
        with build_for() if jit_compile else contextlib.nullcontext():
            losses.append([float(step(batch)['loss']) for _ in range(2)])
        compiled.append({op.type for op in operations(step.get_concrete_function(batch).graph)
                         if op.node_def.attr['_XlaCompile'].b})
    (first, second), (other_first, other_second) = losses
    assert other_first == pytest.approx(first, rel=1e-5)
    # What a step of the gradient gains; rounding is a larger part of the difference.
    assert other_first - other_second == pytest.approx(first - second, rel=1e-3)
    assert first - second > 0.01
    assert not compiled[0]
    assert {'Conv3D', 'Conv2D', 'Conv2DBackpropFilter', gradient_of_norm} <= compiled[1]
