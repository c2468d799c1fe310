"""The learning rate of each step, and which weights decay."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from avts_tf.config import make_config
from avts_tf.models.layers import BatchNorm
from avts_tf.training.optimizer import LearningRate, count_plateaus, make_optimizer


def test_cosine_after_a_warm_up():
    train = make_config('tiny', schedule='cosine', warmup_steps=10, learning_rate=1.0).train
    rate = LearningRate(train, 100)
    assert rate.at(0) == pytest.approx(0.1)
    assert rate.at(50) == pytest.approx(0.5)
    assert rate.at(100) == pytest.approx(0.0)


def test_a_tenth_after_five_epochs_without_a_lower_loss():
    train = make_config('tiny', schedule='plateau', warmup_steps=0, learning_rate=1.0).train
    rate = LearningRate(train, 100, [3.0, 2.0] + [2.5] * 4)
    assert rate.at(7) == 1.0
    rate.end_epoch(2.5)
    assert rate.at(7) == pytest.approx(0.1)


# Two stages, each of which learns: hard negatives raise the loss at first.
LOSSES = [*np.linspace(0.50, 0.20, 50), *np.linspace(0.30, 0.21, 40)]


def rates(losses, stage_starts, **values):
    """The learning rate in each epoch."""
    train = make_config('tiny', schedule='plateau', warmup_steps=0, learning_rate=1e-2,
                        **values).train
    rate, found = LearningRate(train, 9000, stage_starts=stage_starts), []
    for epoch, loss in enumerate(losses):
        found.append(rate.at(epoch))
        resumed = LearningRate(train, 9000, losses[:epoch], stage_starts)
        assert resumed.at(epoch) == found[-1]
        rate.end_epoch(loss)
    return found


@pytest.mark.parametrize('stage_learning_rate', ['restart', 'keep'])
def test_a_stage_is_not_judged_by_the_losses_of_the_one_before(stage_learning_rate):
    found = rates(LOSSES, (0, 50), stage_learning_rate=stage_learning_rate)
    assert found == [1e-2] * 90


def test_a_new_stage_restarts_or_keeps_the_learning_rate():
    losses = [0.5] * 8 + [0.9, 0.8, 0.7] + [0.7] * 6
    restarted = rates(losses, (0, 8))
    assert restarted == pytest.approx([1e-2] * 6 + [1e-3] * 2 + [1e-2] * 8 + [1e-3])
    kept = rates(losses, (0, 8), stage_learning_rate='keep')
    assert kept == pytest.approx([1e-2] * 6 + [1e-3] * 10 + [1e-4])


def test_plateaus_are_counted():
    assert count_plateaus([5, 4, 3, 2, 1]) == 0
    assert count_plateaus([1, 2, 2, 2, 2, 2]) == 1
    assert count_plateaus([1] + [2] * 10) == 2
    assert count_plateaus([1] + [2] * 4 + [0.5] + [2] * 4) == 0


def test_weight_decay_is_of_kernels_alone():
    for optimizer in ('sgd', 'adamw'):
        model = keras.Sequential([keras.Input([3]), keras.layers.Dense(2, bias_initializer='ones'), BatchNorm()])
        model.layers[1].beta.assign([1.0, 1.0])
        before = [variable.numpy() for variable in model.trainable_variables]
        chosen = make_optimizer(make_config('tiny', optimizer=optimizer, learning_rate=0.1, weight_decay=0.5))
        chosen.learning_rate.assign(0.1)
        chosen.build(model.trainable_variables)
        chosen.apply([tf.zeros_like(value) for value in before], model.trainable_variables)
        for variable, value in zip(model.trainable_variables, before, strict=True):
            factor = 0.95 if variable.name == 'kernel' else 1.0
            np.testing.assert_allclose(variable, factor * value, rtol=1e-5, err_msg=f'{optimizer} {variable.path}')
