"""The layers against Keras's own, NumPy and what their docstrings promise."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from avts_tf.config import TowerConfig
from avts_tf.models.batch_norm import BatchNorm
from avts_tf.models.layers import (
    L2Normalize,
    ResampleTime,
    embedding_head,
    overlap_weights,
)
from tests.graphs import built_for_gpu, operations

# few values per channel: biased and unbiased variance lie far apart
SHAPES = [(6, 5), (3, 2, 5), (2, 3, 2, 5), (2, 2, 2, 3, 5)]
WAYS = {'CPU': contextlib.nullcontext, 'GPU': built_for_gpu}


def pair_of_norms(shape, **arguments):
    """Our layer and the stock one, with the same random weights and moving statistics."""
    rng = np.random.default_rng(1)
    layers = [BatchNorm(momentum=0.8, epsilon=1e-3, **arguments),
              keras.layers.BatchNormalization(momentum=0.8, epsilon=1e-3, **arguments)]
    for layer in layers:
        layer.build(shape)
    weights = [rng.uniform(0.5, 2.0, weight.shape) for weight in layers[0].weights]
    for layer in layers:
        layer.set_weights(weights)
    return layers


def random_inputs(shape):
    return tf.constant(np.random.default_rng(0).normal(0.7, 3.0, shape), tf.float32)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('arguments', [{}, {'scale': False}, {'center': False, 'scale': False}])
@pytest.mark.parametrize('way', WAYS)
def test_batch_norm_equals_keras(shape, arguments, way):
    ours, stock = pair_of_norms(shape, **arguments)
    for step in range(3):
        inputs = random_inputs(shape) * (step + 1.0)
        np.testing.assert_allclose(ours(inputs, training=False), stock(inputs, training=False),
                                   rtol=1e-5, atol=1e-5)
        with WAYS[way]():
            outputs = ours(inputs, training=True)
        np.testing.assert_allclose(outputs, stock(inputs, training=True), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(ours.moving_mean, stock.moving_mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours.moving_variance, stock.moving_variance, rtol=1e-5,
                                   atol=1e-6)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('way', WAYS)
def test_batch_norm_gradients_equal_keras(shape, training, way):
    weights = tf.constant(np.random.default_rng(2).normal(size=shape), tf.float32)
    gradients = []
    for layer in pair_of_norms(shape):
        inputs = random_inputs(shape)
        with WAYS[way](), tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(weights * tf.sin(layer(inputs, training=training)))
        gradients.append(tape.gradient(loss, [inputs, layer.gamma.value, layer.beta.value]))
    for ours, stock in zip(*gradients, strict=True):
        assert np.abs(stock).max() > 1e-2
        np.testing.assert_allclose(ours, stock, rtol=1e-4, atol=1e-5)


def test_frozen_batch_norm_keeps_its_statistics():
    ours, stock = pair_of_norms((6, 5))
    ours.trainable = stock.trainable = False
    inputs, before = random_inputs((6, 5)), ours.moving_mean.numpy()
    np.testing.assert_allclose(ours(inputs, training=True), stock(inputs, training=True), rtol=1e-5,
                               atol=1e-5)
    np.testing.assert_array_equal(ours.moving_mean.numpy(), before)


@pytest.mark.parametrize('way', WAYS)
def test_batch_norm_in_bfloat16_keeps_float32_statistics(way):
    layer = BatchNorm(dtype='mixed_bfloat16')
    inputs = tf.cast(random_inputs((64, 4, 5)), tf.bfloat16)
    with WAYS[way]():
        outputs = layer(inputs, training=True)
    assert outputs.dtype == tf.bfloat16 and layer.moving_mean.dtype == 'float32'
    outputs = tf.cast(outputs, tf.float32).numpy().reshape(-1, 5)
    # bfloat16 keeps 8 bits: half a unit in the last place of numbers around 1 is 0.004.
    np.testing.assert_allclose(outputs.mean(0), 0.0, atol=0.004)
    np.testing.assert_allclose(outputs.std(0), 1.0, atol=0.008)
    # The statistics are taken of the rounded inputs, but in float32.
    np.testing.assert_allclose(layer.moving_mean,
                               0.1 * tf.reduce_mean(tf.cast(inputs, tf.float32), [0, 1]), rtol=1e-4)


def test_batch_norm_that_is_trained_on_a_gpu_copies_no_activations_to_another_layout():
    layer = BatchNorm()
    layer.build((4, 3, 2, 5))

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True))
        return tape.gradient(loss, x)

    for way, count in (('CPU', 2), ('GPU', 0)):
        with WAYS[way]():
            graph = tf.function(step).get_concrete_function(tf.TensorSpec((4, 3, 2, 5))).graph
        found = operations(graph)
        assert sum(op.type.startswith('FusedBatchNorm') for op in found) == count
        compiled = [op for op in found if op.node_def.attr['_XlaMustCompile'].b]
        assert len(compiled) == (0 if count else 4)


@pytest.mark.parametrize('way', WAYS)
def test_batch_norm_of_values_far_from_zero(way):
    values = 300.0 + np.random.default_rng(0).normal(size=(256, 5))
    with WAYS[way]():
        outputs = BatchNorm()(tf.constant(values, tf.float32), training=True)
    expected = (values - values.mean(0)) / np.sqrt(values.var(0) + 1e-5)
    np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-3)


def test_batch_norm_of_unknown_batch_inside_a_function():
    layer = BatchNorm()
    layer.build((None, 4, 5))
    run = tf.function(lambda x: layer(x, training=True),
                      input_signature=[tf.TensorSpec([None, 4, 5])])
    for batch in (2, 7):
        outputs = run(random_inputs((batch, 4, 5)))
        assert outputs.shape == (batch, 4, 5)
        np.testing.assert_allclose(tf.reduce_mean(outputs, [0, 1]), np.zeros(5), atol=1e-5)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('shape', [(4, 3, 2, 2, 5), (4, None, 5), (None, 6, 5), (4, 5)])
def test_the_batch_stays_the_first_axis_of_the_fused_operation(shape, training):
    """cuDNN takes 65,535 of it at most; space and time are many more."""
    layer = BatchNorm()
    layer.build(shape)
    run = tf.function(lambda x: layer(x, training=training), autograph=False)
    graph = run.get_concrete_function(tf.TensorSpec(shape)).graph
    inputs, = (op.inputs[0] for op in graph.get_operations() if op.type.startswith('FusedBatch'))
    inner = {(4, 3, 2, 2, 5): 12, (None, 6, 5): 6, (4, 5): 1}.get(shape)
    assert inputs.shape.as_list()[1:] == [inner, 1, 5]
    values = random_inputs([4, *(3 if size is None else size for size in shape[1:])])
    reshaped = BatchNorm()
    reshaped.build((None, 5))
    expected = reshaped(tf.reshape(values, [-1, 5]), training=training)
    np.testing.assert_allclose(tf.reshape(run(values), [-1, 5]), expected, rtol=1e-5, atol=1e-5)


def test_l2_normalize():
    inputs = np.array([[3.0, 4.0], [0.0, 0.0], [-1e3, 0.0]], np.float32)
    np.testing.assert_allclose(L2Normalize()(inputs), [[0.6, 0.8], [0.0, 0.0], [-1.0, 0.0]],
                               rtol=1e-6)
    assert L2Normalize()(tf.constant(inputs, tf.bfloat16)).dtype == tf.float32


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20))
def test_overlap_weights_are_means_by_overlap(steps, spans):
    weights = overlap_weights(steps, spans)
    assert weights.shape == (steps, spans) and weights.dtype == np.float32 and (weights >= 0).all()
    # The oracle cuts the window into so many equal pieces that every step and every span is a whole
    # number of them.
    piece = np.arange(steps * spans)
    oracle = np.zeros([steps, spans])
    np.add.at(oracle, (piece // spans, piece // steps), 1.0 / steps)
    np.testing.assert_allclose(weights, oracle, atol=1e-6)
    np.testing.assert_allclose(weights.sum(0), 1.0, atol=1e-6)
    # No step counts more than another: the mean over the spans is the mean over the steps.
    np.testing.assert_allclose(weights.sum(1) / spans, 1.0 / steps, atol=1e-6)


def test_resample_time():
    inputs = np.random.default_rng(0).normal(size=[2, 6, 3]).astype(np.float32)
    np.testing.assert_allclose(ResampleTime(6)(inputs), inputs, rtol=1e-6)
    np.testing.assert_allclose(ResampleTime(3)(inputs), inputs.reshape(2, 3, 2, 3).mean(2),
                               atol=1e-6)
    np.testing.assert_allclose(ResampleTime(12)(inputs), inputs.repeat(2, 1), atol=1e-6)
    np.testing.assert_allclose(ResampleTime(1)(inputs)[:, 0], inputs.mean(1), atol=1e-6)
    constant = np.broadcast_to(inputs[:, :1], [2, 25, 3])
    np.testing.assert_allclose(ResampleTime(8)(constant), np.broadcast_to(inputs[:, :1], [2, 8, 3]),
                               rtol=1e-5)


@pytest.mark.parametrize('layer', [BatchNorm(momentum=0.7, synchronized=True), L2Normalize(),
                                   ResampleTime(5)])
def test_configuration_survives(layer):
    twin = type(layer).from_config(layer.get_config())
    assert twin.get_config() == layer.get_config()


def head_model(steps=6, channels=5, **towers):
    inputs = keras.Input([steps, channels])
    defaults = {'embedding_size': 8, 'head': 'average', 'head_spans': 4, 'normalize': 'none'}
    return keras.Model(inputs, embedding_head(inputs, TowerConfig(**{**defaults, **towers})))


def head_inputs(batch=3, steps=6, channels=5):
    return np.random.default_rng(3).normal(0.5, 1.0, [batch, steps, channels]).astype(np.float32)


def test_heads():
    x = head_inputs()
    spans = np.stack([x[:, :2].mean(1), x[:, 2:4].mean(1), x[:, 4:].mean(1)], 1)
    cases = {'average': x.mean(1), 'spans': spans}
    for head, features in cases.items():
        model = head_model(head=head, head_spans=3, embedding_size=9)
        projection = model.get_layer('projection')
        projection.bias.assign(np.arange(projection.bias.shape[0]))
        expected = (features @ projection.kernel.numpy() + projection.bias.numpy()).reshape(3, -1)
        assert expected.shape == (3, 9)
        np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-5)


def test_only_average_forgets_the_order():
    x = head_inputs()
    for head in ('average', 'spans'):
        model = head_model(head=head)
        same = np.allclose(model(x), model(x[:, ::-1]), atol=1e-5)
        assert same == (head == 'average')


@pytest.mark.parametrize('head', ['average', 'spans'])
def test_scale_of_embeddings(head):
    x = head_inputs(batch=32)
    lengths = np.linalg.norm(head_model(head=head, normalize='length')(x), axis=1)
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)
    model = head_model(head=head, normalize='whiten')
    whitened = model(x, training=True).numpy()
    np.testing.assert_allclose(whitened.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(whitened.var(0), 0.5 / 8, rtol=1e-2)
    # Unrelated clips then lie at distance 1, root mean square.
    np.testing.assert_allclose(2 * whitened.var(0).sum(), 1.0, rtol=1e-2)
    for _ in range(200):
        model(x, training=True)
    # the moving statistics have come to those of the batch
    np.testing.assert_allclose(model(x), whitened, atol=1e-3)
