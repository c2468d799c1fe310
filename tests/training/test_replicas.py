"""Replicas are invisible: two of them train as one does, to rounding, for every loss.

This file is the worker too: a fresh process of it, with two logical CPU devices, trains every case
    and writes what it got.
"""

import contextlib
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.helpers import ROOT, light_video_network

pytestmark = pytest.mark.slow  # test_devices.py has a cheap case of it

LENGTH = {'normalize': 'length', 'head': 'average'}
WHITEN = {'normalize': 'whiten', 'head': 'spans', 'head_spans': 4}
CASES = {
    'contrastive': {'loss': 'contrastive', 'easy_negatives': 'drawn', **LENGTH},
    'weighted': {'loss': 'contrastive', 'easy_negatives': 'weighted', **WHITEN},
    'infonce': {'loss': 'infonce', 'learnable_temperature': True, **LENGTH},
    # Far below the norm of these gradients: every step is clipped.
    'clipped': {'loss': 'contrastive', 'easy_negatives': 'drawn', 'clip_norm': 0.05, **LENGTH},
}
QUICK_CASES = ['weighted']  # with a light network; the others and the whole network are slow
# float32 rounds at 6e-8. Sums over replicas are taken in another order, and Keras's synchronised
# batch norm takes the variance as E[x^2] - E[x]^2 where the fused one does not: some 1e-6 per
# layer, through about twenty layers. The learning rate is small, because training itself magnifies
# rounding: at 0.05 the mere order of the clips in a batch moves three steps of one replica by 1 %
# and more. Adam would divide small gradients by their own rounding, therefore SGD.
RTOL, ATOL = 1e-4, 1e-5
# Of all that is learnt in three steps, as one vector; and of one weight, where a single ReLU that
# rounding turns on or off counts: the order of the clips on one replica alone changes the gradient
# of a weight by up to 0.6 %. A doubled gradient is an error of 1.
UPDATE_ERROR, WEIGHT_UPDATE_ERROR = 0.005, 0.05
# What rounding turns at the second step is magnified by what was learnt since: at 0.0019, 0.002 and
# 0.0021 one replica differs by 2.4, 0.3 and 0.03 % from itself with the clips of each batch in
# another order; at this rate by 0.03 %.
LEARNING_RATE, STEPS, BATCH = 0.001, 3, 8


def make_batches(config):
    """Three global batches with an example that comes twice and a slot without a pair."""
    rng = np.random.default_rng(0)
    clips, windows, clip = STEPS * BATCH, 3, config.clip
    kind = np.tile(np.array([0, 1, 2], np.int32), (clips, 1))
    kind[1::3, 2] = 3
    kind[5::8, 2] = -1
    hashes = np.arange(clips).astype(np.int64)
    # the first clip of a batch and the last: one on either replica
    hashes[BATCH - 1::BATCH] = hashes[::BATCH]
    loudness = rng.uniform(0.02, 1.0, [clips, windows, 1])
    brightness = rng.uniform(0.1, 1.0, [clips, 1, 1, 1, 1])
    return {
        'video': (brightness * rng.integers(0, 256, [clips, clip.frames, clip.frame_size,
                                                     clip.frame_size, 3])).astype(np.uint8),
        'audio': (loudness * rng.uniform(-32768, 32767,
                                         [clips, windows, clip.window_samples])).astype(np.int16),
        'kind': kind, 'label': (kind == 0).astype(np.float32), 'example_hash': hashes,
        'audio_hash': np.where(kind == 1, np.roll(hashes, 1)[:, None], hashes[:, None]),
    }


def train_case(case, strategy):
    """Weights before and after training, logs, and the weights with twice the gradient."""
    import keras
    import tensorflow as tf

    from avts_tf import build_two_tower, make_config

    config = make_config('tiny', frame_size=16, video_tower='mc3', video_width=0.05,
                         audio_width=0.05, embedding_size=16,
                         batch_size=BATCH, audio_windows=3, sync_batchnorm=True, bfloat16=False,
                         seed=3, spec_augment=False,
                         **{'clip_norm': 0.0, 'positive_term': 'squared', **CASES[case]})
    data = make_batches(config)
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(BATCH, drop_remainder=True)
    with strategy.scope():
        model = build_two_tower(config)
        model.compile(optimizer=keras.optimizers.SGD(LEARNING_RATE, momentum=0.9))
        model.optimizer.build(model.trainable_variables)
    model.audio_tower.get_layer('log_mel').adapt([data['audio'][:, 0]])
    start = [weight.numpy() for weight in model.weights]
    # The towers have layers of the same name: a path alone is not unique.
    names = [f'{index}-{weight.path}' for index, weight in enumerate(model.weights)]
    results = {f'start/{name}': value for name, value in zip(names, start, strict=True)}

    def fit(learning_rate):
        for weight, value in zip(model.weights, start, strict=True):
            weight.assign(value)
        for variable in model.optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))
        model.optimizer.learning_rate.assign(learning_rate)
        return model.fit(dataset, epochs=1, verbose=0).history

    if case == 'weighted':
        results |= {f'eval/{name}': value for name,
                    value in model.evaluate(dataset, verbose=0, return_dict=True).items()}
    history = fit(LEARNING_RATE)
    results |= {f'end/{name}': weight.numpy() for name,
                weight in zip(names, model.weights, strict=True)}
    results |= {f'log/{name}': values[0] for name, values in history.items()}
    results |= {f'log/{name}': value for name, value in model.kind_results().items()}
    if case == 'weighted':
        results |= read_own_batch(model, dataset, strategy)
    if strategy.num_replicas_in_sync == 1 and case == 'weighted':
        # Twice the gradient is twice the learning rate.
        fit(2 * LEARNING_RATE)
        results |= {f'doubled/{name}': weight.numpy() for name,
                    weight in zip(names, model.weights, strict=True)}
    return results


def read_own_batch(model, dataset, strategy):
    """What `own_batches` gives, and the first axes of the batch norms of the step that takes it."""
    from avts_tf.training.devices import own_batches
    from avts_tf.training.loop import make_train_step
    from tests.graphs import batch_norm_shapes

    batch = next(iter(own_batches(dataset, strategy)))
    graph = make_train_step(model, strategy).get_concrete_function(batch).graph
    parts = [value for each in batch.values()
             for value in strategy.experimental_local_results(each)]
    return {'own/axes': sorted({shape[0] for shape in batch_norm_shapes(graph)}),
            'own/types': sorted({part.dtype.name for part in parts}),
            'own/devices': sorted({part.device[-5:] for part in parts})}


HALVES = np.random.default_rng(0).normal(size=[2, 4, 3]).astype(np.float32)
HALVES[1] += 5.0


def statistics(strategy):
    """The statistics that each of two replicas keeps after a step without synchronisation."""
    import tensorflow as tf

    from avts_tf.models.batch_norm import BatchNorm

    with strategy.scope():
        norm = BatchNorm(momentum=0.0, synchronized=False)
        norm.build((None, 3))

    @tf.function
    def step():
        def one():
            half = tf.constant(HALVES)[tf.distribute.get_replica_context().replica_id_in_sync_group]
            return norm(half, training=True)
        return strategy.run(one)

    outputs = [value.numpy() for value in step().values]
    return {'outputs': outputs, 'means': [value.numpy() for value in norm.moving_mean.value.values],
            'variances': [value.numpy() for value in norm.moving_variance.value.values]}


def main(folder, network, *cases):
    """The worker: FOLDER/CASE-REPLICAS.npz of each case, FOLDER/statistics.npz and one.npz."""
    import tensorflow as tf

    from avts_tf.training.devices import own_batches

    cpu = tf.config.list_physical_devices('CPU')[0]
    tf.config.set_visible_devices([], 'GPU')
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    # One strategy for all cases: TensorFlow mixes up the collectives of two over the same devices
    # in one process.
    strategies = {1: tf.distribute.get_strategy(),
                  2: tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])}
    np.savez(os.path.join(folder, 'statistics.npz'), **statistics(strategies[2]))
    one = tf.distribute.MirroredStrategy(['CPU:1'])  # not where tf.data is
    batch = next(iter(own_batches(tf.data.Dataset.from_tensors({'end': [1]}), one)))
    np.savez(os.path.join(folder, 'one.npz'), device=batch['end'].device[-5:])
    for case in cases:
        for replicas, strategy in strategies.items():
            with light_video_network() if network == 'light' else contextlib.nullcontext():
                results = train_case(case, strategy)
            np.savez(os.path.join(folder, f'{case}-{replicas}.npz'), **results)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Dict from (case, replicas) to what `train_case` returned."""
    return train_cases(tmp_path_factory.mktemp('replicas'), 'light', QUICK_CASES)


@pytest.fixture(scope='module')
def trained_slowly(tmp_path_factory):
    """The same of every case."""
    return train_cases(tmp_path_factory.mktemp('replicas'), 'whole', CASES)


def train_cases(folder, network, cases):
    process = subprocess.run(
        [sys.executable, '-W', 'ignore', __file__, str(folder), network, *cases],
        capture_output=True, text=True, check=False,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'TF_CPP_MIN_LOG_LEVEL': '3'})
    assert process.returncode == 0, process.stderr[-4000:]
    return {(case, replicas): dict(np.load(folder / f'{case}-{replicas}.npz')) for case in cases
            for replicas in (1, 2)} | {
        name: dict(np.load(folder / f'{name}.npz')) for name in ('statistics', 'one')}


def part(results, prefix):
    return {name.removeprefix(prefix + '/'): value for name, value in results.items()
            if name.startswith(prefix + '/')}


def update_errors(one, two, end='end'):
    """Error of the update relative to the update, on the whole, and per weight that moved."""
    start, other, errors, lengths = part(one, 'start'), part(two, end), {}, {}
    for name, value in part(one, 'end').items():
        if (length := np.linalg.norm(value - start[name])) > 0:
            errors[name], lengths[name] = np.linalg.norm(other[name] - value), length
    learnt = [name for name in errors if 'moving' not in name]
    whole = np.linalg.norm([errors[name] for name in learnt]) / np.linalg.norm([lengths[name]
                                                                                for name in learnt])
    return whole, {name: error / lengths[name] for name, error in errors.items()}


@pytest.mark.parametrize('case', QUICK_CASES)
def test_weights_and_statistics_agree(trained, case):
    one, two = trained[case, 1], trained[case, 2]
    for name, value in part(one, 'start').items():
        np.testing.assert_array_equal(part(two, 'start')[name], value, err_msg=name)
    for name, value in part(one, 'end').items():
        np.testing.assert_allclose(part(two, 'end')[name], value, rtol=RTOL, atol=ATOL,
                                   err_msg=name)
    whole, errors = update_errors(one, two)
    # Everything moved: all the kernels and both statistics of every batch norm.
    still = set(part(one, 'start')) - set(errors)
    assert not [name for name in still if 'log_mel' not in name and 'seed' not in name], still
    worst = max(errors, key=errors.get)
    assert whole < UPDATE_ERROR and errors[worst] < WEIGHT_UPDATE_ERROR, (whole, worst,
                                                                          errors[worst])


@pytest.mark.parametrize('case', QUICK_CASES)
def test_logs_agree(trained, case):
    one, two = trained[case, 1], trained[case, 2]
    assert {'loss', 'spread', 'distance_positive', 'distance_super_hard',
            'pairs_easy'} <= set(part(one, 'log'))
    for prefix in ('log', 'eval'):
        assert part(one, prefix).keys() == part(two, prefix).keys()
        for name, value in part(one, prefix).items():
            np.testing.assert_allclose(part(two, prefix)[name], value, rtol=RTOL, atol=ATOL,
                                       err_msg=f'{prefix}/{name}')
    counts = [int(part(two, 'log')[f'pairs_{kind}'])
              for kind in ('positive', 'easy', 'hard', 'super_hard')]
    kind = make_kinds()
    assert counts == [(kind == index).sum() for index in range(4)]


def make_kinds():
    class Config:
        class clip:
            frames = frame_size = window_samples = 1
    return make_batches(Config)['kind']


def test_batches_come_to_their_devices_without_int32_and_clips_stay_the_first_axis(trained):
    """An int32 on a GPU would be copied back to the host at each step."""
    assert trained['one']['device'] == 'CPU:1'
    for replicas in (1, 2):
        own = part(trained['weighted', replicas], 'own')
        assert own['devices'].tolist() == [f'CPU:{index}' for index in range(replicas)]
        assert 'int32' not in own['types'] and 'int64' in own['types']
        clips = BATCH // replicas
        assert own['axes'].tolist() == [clips, 3 * clips]


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES)
def test_all_cases_agree(trained_slowly, case):
    test_weights_and_statistics_agree(trained_slowly, case)
    test_logs_agree(trained_slowly, case)


def test_a_doubled_gradient_would_be_found(trained):
    one = trained['weighted', 1]
    doubled = part(one, 'doubled')
    whole, _ = update_errors(one, one, 'doubled')
    assert whole > 100 * UPDATE_ERROR
    with pytest.raises(AssertionError):
        for name, value in part(one, 'end').items():
            np.testing.assert_allclose(doubled[name], value, rtol=RTOL, atol=ATOL)


def test_statistics_that_are_not_synchronised_are_kept_as_the_mean_over_replicas(trained):
    found = trained['statistics']
    for half, output in zip(HALVES, found['outputs'], strict=True):
        np.testing.assert_allclose(output, (half - half.mean(0)) / np.sqrt(half.var(0) + 1e-5),
                                   atol=1e-4)
    for mean, variance in zip(found['means'], found['variances'], strict=True):
        np.testing.assert_allclose(mean, HALVES.mean((0, 1)), atol=1e-5)
        np.testing.assert_allclose(variance, HALVES.var(1).mean(0), atol=1e-4)


@pytest.mark.slow
def test_clipping_takes_effect(trained_slowly):
    def moved(case):
        """Length of the update of all kernels."""
        start, end = part(trained_slowly[case, 2], 'start'), part(trained_slowly[case, 2], 'end')
        kernels = [name for name in start if name.endswith('kernel')]
        return np.sqrt(sum(np.sum((end[name] - start[name]) ** 2) for name in kernels))

    # Momentum 0.9 gathers at most 1 + 1.9 + 2.71 clipped gradients in three steps.
    assert 0 < moved('clipped') <= LEARNING_RATE * 0.05 * 5.61 * 1.01
    assert moved('contrastive') > 2 * moved('clipped')


if __name__ == '__main__':
    main(*sys.argv[1:])
