"""The classifier on top of the towers: its learning rates by layer, and its training."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

from avts_tf.config import make_config
from avts_tf.evaluation import action, fine_tune
from avts_tf.models.two_tower import build_two_tower
from avts_tf.training.run_folder import RunFolder


def test_scaled_layers_learn_so_much_slower():
    steps = []
    for factors in (None, [0.5, 1.0, 0.0]):
        variables = [keras.Variable([1.0, 2.0], name=name) for name in 'abc']
        optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.0)
        optimizer.build(variables)
        if factors:
            fine_tune.scale_layers(optimizer, factors)
        before = [variable.numpy() for variable in variables]
        for _ in range(2):
            optimizer.apply_gradients(zip([tf.constant([1.0, -3.0])] * 3, variables, strict=True))
        steps.append([variable.numpy() - old for variable,
                      old in zip(variables, before, strict=True)])
    plain, scaled = steps
    for step, factor in zip(scaled, [0.5, 1.0, 0.0], strict=True):
        np.testing.assert_allclose(step, plain[0] * factor, rtol=1e-5)


def test_stages_below_the_softmax():
    model = build_two_tower(make_config('tiny', frame_size=16))
    classifier = fine_tune.build_classifier(model, 'both', 4)
    depth = {(variable.path, variable.shape[-2:]): depth for variable, depth in
             zip(classifier.trainable_variables, fine_tune.stages_below_softmax(classifier),
                 strict=True)}
    by_path = {}
    for (path, _), stages in depth.items():
        by_path.setdefault(path, set()).add(stages)
    assert by_path['conv1/kernel'] == {5} and by_path['conv3/kernel'] == {3}       # of both towers
    assert by_path['conv5_2_conv2/kernel'] == by_path['conv5_bn/gamma'] == {1}
    assert by_path['softmax/kernel'] == {0}
    # above the pooled features: not trained
    assert not any('fc6' in path or 'projection' in path for path in by_path)


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_same_end(world, tmp_path, monkeypatch, caplog):
    config = make_config('tiny', frame_size=16, batch_size=8, warmup_steps=0, frames=8, epochs=2,
                         audio_width=0.1)
    protocol = action.Protocol(streams='audio', freeze=True, label_prefix='object:',
                               clips_per_video=1)

    def recognise(name):
        path = str(tmp_path / name)
        return action.recognise_actions(config, protocol, world['test'], world['test'], path)

    def save_and_stop(run, model, epochs, **options):
        save(run, model, epochs, **options)
        raise KeyboardInterrupt

    caplog.set_level(logging.INFO, logger='avts_tf')
    save = RunFolder.save
    monkeypatch.setattr(RunFolder, 'save', save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        recognise('stopped')
    monkeypatch.undo()
    recognise('stopped')
    recognise('unbroken')
    assert 'resuming after epoch 1 of 2' in caplog.text
    stopped, unbroken = (RunFolder(str(tmp_path / name), config).read_checkpoint().arrays
                         for name in ('stopped', 'unbroken'))
    assert stopped.keys() == unbroken.keys() and len(stopped) > 10
    for name, values in unbroken.items():
        np.testing.assert_allclose(stopped[name], values, rtol=1e-4, atol=1e-6)
