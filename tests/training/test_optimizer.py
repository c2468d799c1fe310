"""The learning rate of each step, and which weights decay."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from avts_tf.config import make_config
from avts_tf.models.batch_norm import BatchNorm
from avts_tf.training.optimizer import LearningRate, count_plateaus, make_optimizer


def test_cosine_after_a_warm_up():
    train = make_config('tiny', schedule='cosine', warmup_steps=10, learning_rate=1.0).train
    rate = LearningRate(train, 100)
    assert rate.at(0) == pytest.approx(0.1)
    assert rate.at(50) == pytest.approx(0.5)
    assert rate.at(100) == pytest.approx(0.0)


def test_a_training_from_another_run_has_its_own_cosine_and_no_second_warm_up():
    train = make_config('tiny', schedule='cosine', warmup_steps=10, learning_rate=1.0).train
    rate = LearningRate(train, 100, first_step=200)
    assert rate.at(200) == 1.0 and rate.at(250) == pytest.approx(0.5)


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


def test_an_optimizer_is_given_a_learning_rate_only_where_it_changes(monkeypatch):
    train = make_config('tiny', schedule='plateau', warmup_steps=2, learning_rate=1.0).train
    optimizer, given = make_optimizer(make_config('tiny')), []
    variable = optimizer.learning_rate.value
    assign = variable.assign
    monkeypatch.setattr(variable, 'assign', lambda value: given.append(float(value)) or
                        assign(value))
    rate = LearningRate(train, 100)
    for step in range(10):
        rate.set(optimizer, step)
    for _ in range(6):
        rate.end_epoch(1.0)
    rate.set(optimizer, 10)
    assert given == pytest.approx([0.5, 1.0, 0.1])
    assert float(optimizer.learning_rate) == pytest.approx(0.1)


def test_plateaus_are_counted():
    assert count_plateaus([5, 4, 3, 2, 1]) == 0
    assert count_plateaus([1, 2, 2, 2, 2, 2]) == 1
    assert count_plateaus([1] + [2] * 10) == 2
    assert count_plateaus([1] + [2] * 4 + [0.5] + [2] * 4) == 0


def small_model():
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(2, bias_initializer='ones'),
                              BatchNorm()])
    model.layers[1].beta.assign([1.0, 1.0])
    return model


def test_weight_decay_of_adamw_is_of_kernels_alone():
    model = small_model()
    before = [variable.numpy() for variable in model.trainable_variables]
    optimizer = make_optimizer(make_config('tiny', optimizer='adamw', learning_rate=0.1,
                                           weight_decay=0.5))
    optimizer.build(model.trainable_variables)
    optimizer.apply([tf.zeros_like(value) for value in before], model.trainable_variables)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        factor = 0.95 if variable.name == 'kernel' else 1.0
        np.testing.assert_allclose(variable, factor * value, rtol=1e-5, err_msg=variable.path)


@pytest.mark.parametrize('weight_decay', [0.0, 0.1])
def test_steps_of_sgd_are_those_of_the_formula(weight_decay):
    model, rng = small_model(), np.random.default_rng(0)
    optimizer = make_optimizer(make_config('paper', weight_decay=weight_decay))
    optimizer.build(model.trainable_variables)
    weights = [variable.numpy().astype(np.float64) for variable in model.trainable_variables]
    velocities = [np.zeros_like(weight) for weight in weights]
    decays = [weight_decay if variable.name == 'kernel' else 0.0
              for variable in model.trainable_variables]
    assert sum(decay > 0 for decay in decays) == (weight_decay > 0)
    for learning_rate in (0.01, 0.01, 0.001, 0.01):         # as when it falls and restarts
        gradients = [rng.normal(size=weight.shape).astype(np.float32) for weight in weights]
        optimizer.learning_rate.assign(learning_rate)
        optimizer.apply([tf.constant(gradient) for gradient in gradients],
                        model.trainable_variables)
        for index, decay in enumerate(decays):
            velocities[index] = (0.9 * velocities[index]
                                 - learning_rate * (gradients[index] + decay * weights[index]))
            weights[index] = weights[index] + velocities[index]
        for variable, weight in zip(model.trainable_variables, weights, strict=True):
            np.testing.assert_allclose(variable, weight, rtol=1e-5, atol=1e-7,
                                       err_msg=variable.path)


def test_the_optimizer_goes_through_its_configuration():
    optimizer = make_optimizer(make_config('paper'))
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config() and again.l2 == 1e-4
