"""The graphs of a training as a GPU would run them: nothing in them waits for the host."""

import collections
import contextlib
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from avts_tf.config import make_config
from avts_tf.models.build import build_model
from avts_tf.training.devices import make_strategy
from avts_tf.training.loop import make_train_step
from avts_tf.training.optimizer import RATES_AHEAD, LearningRate, make_optimizer
from tests.graphs import batch_norm_shapes, built_for_gpu, copies_to_host, operations
from tests.helpers import ROOT, light_video_network

CLIPS, WINDOWS = 5, 3  # of a batch, and of a clip: sizes that nothing else has

# TensorFlow without CUDA does not know the kernels.
CASES = {
    'light': {},
    'mc3': {'optimizer': 'sgd', 'clip_norm': 1.0, 'spec_augment': True},
    'i3d': {'video_tower': 'i3d', 'loss': 'infonce', 'bfloat16': True, 'normalize': 'whiten'},
    'l3': {'system': 'l3', 'regime': 'easy'},
    'multisensory': {'system': 'multisensory', 'regime': 'hard'},
}


@built_for_gpu()
def trace_step(case, devices='auto', jit_compile=False):
    """The graphs of a training step and of an evaluation batch of a small model."""
    config = make_config('tiny', **{
        'frame_size': 16, 'video_width': 0.05, 'audio_width': 0.05, 'batch_size': CLIPS,
        'audio_windows': WINDOWS, **CASES[case]})
    strategy, clip = make_strategy(devices), config.clip
    with light_video_network() if case == 'light' else contextlib.nullcontext(), strategy.scope():
        model = build_model(config)
        model.compile(optimizer=make_optimizer(config), jit_compile=jit_compile)
        model.optimizer.build(model.trainable_variables)
    pairs = ['kind', 'audio_hash', *(['spec_mask'] if config.augment.spec_augment else [])]
    # As `own_batches` gives it.
    batch = {
        'video': tf.TensorSpec([CLIPS, clip.frames, 16, 16, 3], tf.uint8),
        'audio': tf.TensorSpec([CLIPS, WINDOWS, clip.window_samples], tf.int16),
        'label': tf.TensorSpec([CLIPS, WINDOWS]),
        **{name: tf.TensorSpec([CLIPS, WINDOWS], tf.int64)
           for name in pairs},
        **{name: tf.TensorSpec([CLIPS], tf.int64) for name in ('example_hash', 'replaced', 'end')},
    }
    step = make_train_step(model, strategy).get_concrete_function(batch)
    evaluation = model.embed_batch.get_concrete_function(
        {name: batch[name] for name in ('video', 'audio')})
    return step.graph, evaluation.graph


@pytest.mark.parametrize('case', ['light', *(
    pytest.param(case, marks=pytest.mark.slow) for case in CASES if case != 'light')])
def test_no_step_copies_to_the_host_and_clips_stay_the_first_axis(case):
    """cuDNN's batch norm takes 65,535 of the first axis at most: never all places of all clips."""
    training, evaluation = trace_step(case)
    assert batch_norm_shapes(training) == []  # there XLA computes it
    shapes = batch_norm_shapes(evaluation)
    assert shapes and {shape[0] for shape in shapes} <= {CLIPS, CLIPS * WINDOWS}, shapes
    assert all(shape[2] == 1 for shape in shapes)
    for graph in (training, evaluation):
        if tf.sysconfig.get_build_info()['is_cuda_build']:
            assert copies_to_host(graph) == [], copies_to_host(graph)


def test_two_devices_wait_for_no_host_and_xla_compiles_what_both_compute():
    process = subprocess.run([sys.executable, __file__], capture_output=True, text=True, cwd=ROOT,
                             env={**os.environ, 'PYTHONPATH': str(ROOT)}, check=False)
    assert process.returncode == 0, process.stderr[-3000:]


def main():
    """The worker, a fresh process with two logical CPU devices."""
    graph, _ = trace_step('light', '2')
    found = operations(graph)
    exchanges = [op for op in found if op.type.startswith('Collective')]
    assert exchanges and all(op.type == 'CollectiveReduceV2' for op in exchanges), exchanges
    if tf.sysconfig.get_build_info()['is_cuda_build']:
        assert copies_to_host(graph) == [], copies_to_host(graph)
    graph, _ = trace_step('light', '2', jit_compile=True)
    by_replica = collections.Counter(
        ('replica_1' in op.name, op.node_def.attr['_XlaCompile'].b) for op in operations(graph)
        if op.type in ('Conv2D', 'Conv2DBackpropFilter', 'MatMul'))
    assert by_replica[False, True] == by_replica[True, True] > 0, by_replica
    assert not by_replica[False, False] and not by_replica[True, False], by_replica
    check_learning_rates(make_strategy('2'))


def check_learning_rates(strategy):
    """Each device gets the rate of a step, from a value that lies there."""
    config = make_config('tiny', schedule='cosine', warmup_steps=30)
    with strategy.scope():
        optimizer = make_optimizer(config)
        optimizer.build([keras.Variable([1.0])])
    rate = LearningRate(config.train, 1000)
    for step in (0, 1, 2, RATES_AHEAD, 3 * RATES_AHEAD + 7):
        rate.set(optimizer, step)
        held = strategy.experimental_local_results(optimizer.learning_rate.value)
        assert [value.numpy() for value in held] == [np.float32(rate.at(step))] * 2
        given = rate._ahead[step - rate._begin]
        assert [value.device for _, value in given] == [value.device for value in held]
        assert len({value.device for value in held}) == 2


if __name__ == '__main__':
    main()
