"""Losses and batch norm are the same on 1, 2 and 4 devices, and those of NumPy.

This file is the worker too: a fresh process of it with logical CPU devices computes all cases.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.helpers import ROOT

CLIPS, SIZE = 8, 5
LOSSES = {'contrastive': 'drawn', 'weighted': 'weighted', 'by_mix': 'by_mix', 'always': 'always'}
SHAPES = {'vectors': (8, 6), 'clips': (8, 3, 2, 2, 6), 'off_centre': (8, 3, 6)}
WAYS = ('', '_gpu')  # of batch norm: as graphs for a CPU compute it, and as those for a GPU do
NORMS = [name + way for name in SHAPES for way in WAYS]
EPSILON = 1e-5


def make_batch():
    """Embeddings with all kinds of pairs; each device has other numbers of them."""
    rng = np.random.default_rng(0)
    kind = np.tile(np.array([0, 1, 2], np.int32), (CLIPS, 1))
    kind[1, 1:] = -1
    kind[3:5, 1:] = 2, 3
    hashes = np.arange(CLIPS)
    hashes[-1] = hashes[0]  # the first clip and the last: one on either device
    owners = np.where(kind == 1, np.roll(hashes, 1)[:, None], hashes[:, None])
    return {
        'video': rng.normal(size=[CLIPS, SIZE]).astype(np.float32),
        'audio': rng.normal(size=[CLIPS, 3, SIZE]).astype(np.float32),
        'kind': kind, 'example_hash': hashes, 'audio_hash': owners,
    }


def make_values(name):
    """What batch norm is given, its gradient, its scale and its shift."""
    rng = np.random.default_rng(1)
    x = rng.normal(30.0 if name == 'off_centre' else 1.0, 2.0, SHAPES[name]).astype(np.float32)
    upstream = rng.normal(size=x.shape).astype(np.float32)
    return x, upstream, rng.uniform(0.5, 2.0, 6), rng.normal(size=6)


def run_loss(strategy, name):
    """Loss of the global batch, and its gradients by the embeddings of every clip."""
    import tensorflow as tf

    from avts_tf.models.losses import ContrastiveLoss, InfoNCELoss

    choice, temperature = LOSSES[name], 0.3
    infonce = choice in ('by_mix', 'always')
    loss = (InfoNCELoss(temperature, choice) if infonce
            else ContrastiveLoss(1.3, easy_negatives=choice))
    replicas, batch = strategy.num_replicas_in_sync, make_batch()

    @tf.function(autograph=False)
    def run():
        def one():
            context = tf.distribute.get_replica_context()
            index, rows = context.replica_id_in_sync_group, CLIPS // replicas
            own = {key: tf.constant(value)[index * rows:(index + 1) * rows]
                   for key, value in batch.items()}
            log_temperature = tf.constant(np.log(temperature), tf.float32)
            with tf.GradientTape() as tape:
                tape.watch([own['video'], own['audio'], log_temperature])
                learned = [tf.exp(log_temperature)] if infonce else []
                value = loss.of_batch(own, own, *learned)
                scaled = value / replicas
            by_video, by_audio, slope = tape.gradient(
                scaled, [own['video'], own['audio'], log_temperature],
                unconnected_gradients=tf.UnconnectedGradients.ZERO)
            return value, by_video, by_audio, slope
        return strategy.run(one)

    value, by_video, by_audio, slope = (
        [part.numpy() for part in strategy.experimental_local_results(each)] for each in run())
    return {'loss': np.mean(value), 'by_video': np.concatenate(by_video),
            'by_audio': np.concatenate(by_audio), 'by_temperature': np.sum(slope)}


def run_norm(strategy, name, dtype='float32'):
    """Outputs, gradients and moving statistics of a training step of `BatchNorm`."""
    import tensorflow as tf

    from avts_tf.models.batch_norm import BatchNorm

    x, upstream, gamma, beta = make_values(name)
    replicas = strategy.num_replicas_in_sync
    with strategy.scope():
        layer = BatchNorm(momentum=0.0, epsilon=EPSILON, synchronized=True, dtype=dtype)
        layer.build(x.shape)
        layer.gamma.assign(gamma)
        layer.beta.assign(beta)

    @tf.function(autograph=False)
    def run():
        def one():
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            rows = len(x) // replicas
            own, gradient = (tf.cast(tf.constant(value)[index * rows:(index + 1) * rows],
                                     layer.compute_dtype) for value in (x, upstream))
            with tf.GradientTape() as tape:
                tape.watch(own)
                outputs = layer(own, training=True)
            return outputs, *tape.gradient(
                outputs, [own, layer.gamma.value, layer.beta.value], gradient)
        return strategy.run(one)

    outputs, by_x, by_gamma, by_beta = (
        [tf.cast(part, tf.float32).numpy() for part in strategy.experimental_local_results(each)]
        for each in run())
    return {'outputs': np.concatenate(outputs), 'by_x': np.concatenate(by_x),
            'by_gamma': np.sum(by_gamma, 0), 'by_beta': np.sum(by_beta, 0),
            'mean': layer.moving_mean.numpy(), 'variance': layer.moving_variance.numpy()}


def main(path, *counts):
    """The worker: writes every case on each number of devices to one file.

    Only one of them may be above 1: TensorFlow mixes up the collectives of two strategies.
    """
    import tensorflow as tf

    from tests.graphs import built_for_gpu

    cpu = tf.config.list_physical_devices('CPU')[0]
    tf.config.set_visible_devices([], 'GPU')
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
    results = {}
    for count in map(int, counts):
        devices = [f'CPU:{index}' for index in range(count)]
        strategy = (tf.distribute.get_strategy() if count == 1
                    else tf.distribute.MirroredStrategy(devices))
        cases = {name: run_loss(strategy, name) for name in LOSSES}
        cases |= {name: run_norm(strategy, name) for name in SHAPES}
        cases['bfloat16'] = run_norm(strategy, 'clips', 'mixed_bfloat16')
        with built_for_gpu():
            cases |= {f'{name}_gpu': run_norm(strategy, name) for name in SHAPES}
            cases['bfloat16_gpu'] = run_norm(strategy, 'clips', 'mixed_bfloat16')
        results |= {f'{case}/{count}/{name}': value
                    for case, values in cases.items() for name, value in values.items()}
    np.savez(path, **results)


def compute(folder, *counts):
    """Dict from (case, devices) to the dict of its results."""
    path = folder / 'results.npz'
    process = subprocess.run(
        [sys.executable, '-W', 'ignore', __file__, str(path), *map(str, counts)],
        capture_output=True, text=True, check=False,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'TF_CPP_MIN_LOG_LEVEL': '3'})
    assert process.returncode == 0, process.stderr[-4000:]
    results = {}
    with np.load(path) as file:
        for key in file.files:
            case, count, name = key.split('/')
            results.setdefault((case, int(count)), {})[name] = file[key]
    return results


@pytest.fixture(scope='module')
def computed(tmp_path_factory):
    """All cases on one device and on two."""
    return compute(tmp_path_factory.mktemp('devices'), 1, 2)


@pytest.mark.parametrize('case', [*LOSSES, *NORMS])
def test_two_devices_compute_what_one_does(computed, case, count=2):
    atol = 2e-3 if case.startswith('off_centre') else 1e-4
    for name, expected in computed[case, 1].items():
        np.testing.assert_allclose(computed[case, count][name], expected, rtol=1e-4,
                                   atol=atol * np.abs(expected).max(), err_msg=name)


@pytest.mark.parametrize('name', ['vectors', 'clips'])
@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('count', [1, 2])
def test_batch_norm_is_that_of_numpy(computed, name, way, count):
    x, upstream, gamma, beta = (np.float64(value) for value in make_values(name))
    axes = tuple(range(x.ndim - 1))
    mean, variance = x.mean(axes), x.var(axes)
    deviation = np.sqrt(variance + EPSILON)
    normal = (x - mean) / deviation
    by_gamma, by_beta = (upstream * normal).sum(axes), upstream.sum(axes)
    values = x[..., 0].size
    by_x = gamma / deviation * (upstream - (by_beta + normal * by_gamma) / values)
    expected = {'outputs': gamma * normal + beta, 'by_x': by_x, 'by_gamma': by_gamma,
                'by_beta': by_beta, 'mean': mean, 'variance': variance}
    for part, truth in expected.items():
        np.testing.assert_allclose(computed[name + way, count][part], truth, rtol=1e-4,
                                   atol=1e-5 * np.abs(truth).max(), err_msg=part)


@pytest.mark.parametrize('way', WAYS)
def test_synchronised_batch_norm_in_bfloat16(computed, way, counts=(1, 2)):
    """As exact on several devices as on one: 8 bits."""
    for count in counts:
        for part, truth in computed['clips', 1].items():
            np.testing.assert_allclose(computed['bfloat16' + way, count][part], truth, rtol=0,
                                       atol=0.02 * np.abs(truth).max(), err_msg=part)


@pytest.mark.slow
def test_four_devices_compute_what_one_does(computed, tmp_path):
    computed = computed | compute(tmp_path, 4)
    for case in (*LOSSES, *NORMS):
        test_two_devices_compute_what_one_does(computed, case, 4)
    for way in WAYS:
        for name in ('vectors', 'clips'):
            test_batch_norm_is_that_of_numpy(computed, name, way, 4)
        test_synchronised_batch_norm_in_bfloat16(computed, way, (4,))


if __name__ == '__main__':
    main(*sys.argv[1:])
