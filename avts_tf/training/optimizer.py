"""The optimiser and its learning rate."""

import itertools
import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from avts_tf.config import Config, TrainConfig
from avts_tf.training.devices import local_parts

PLATEAU_EPOCHS = 5  # epochs without a lower loss until the learning rate falls
PLATEAU_FACTOR = 0.1
RATES_AHEAD = 100  # learning rates that are copied to the devices at once
UNDECAYED = ['bias', 'beta', 'gamma', 'log_temperature']  # names of variables without weight decay


@keras.saving.register_keras_serializable('avts_tf')
class SGD(keras.optimizers.SGD):
    """SGD with momentum and the classic weight decay, which is a part of the gradient (L2).

    Keras's own weight decay is decoupled and does not go through the momentum: at momentum 0.9 the
    same number decays by a tenth in the long run.

        v <- momentum * v - learning_rate * (gradient + weight_decay * w)
        w <- w + v

    Args:
        learning_rate, momentum: as in Keras.
        l2: weight decay; 0 is none.
        **kwargs: further ones of `keras.optimizers.SGD`.
    """

    def __init__(self, learning_rate: float = 0.01, momentum: float = 0.0, l2: float = 0.0,
                 **kwargs: object) -> None:
        super().__init__(learning_rate, momentum, **kwargs)
        self.l2 = l2

    def build(self, variables: list) -> None:
        super().build(variables)
        self._decays = [variable.name not in UNDECAYED for variable in variables]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable,
                    learning_rate: tf.Tensor) -> None:
        if self.l2 and self._decays[self._get_variable_index(variable)]:
            gradient = gradient + self.l2 * tf.convert_to_tensor(variable)
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict:
        return {**super().get_config(), 'l2': self.l2}


def make_optimizer(config: Config) -> keras.optimizers.Optimizer:
    """The optimiser of a configuration; see `UNDECAYED`.

    Example:
        >>> optimizer = make_optimizer(make_config('tiny'))
        >>> float(optimizer.learning_rate)
        0.002
    """
    train = config.train
    if train.optimizer == 'sgd':
        return SGD(train.learning_rate, train.momentum, train.weight_decay)
    optimizer = keras.optimizers.AdamW(train.learning_rate, weight_decay=train.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=UNDECAYED)
    return optimizer


class LearningRate:
    """The learning rate of each step of a training; one for all training loops of the project.

    Keras's schedules are functions of the step alone, but the plateau schedule follows the loss of
    the epochs. And Keras's cosine begins after the warm-up, where this one is the product of both.

    Args:
        train: `TrainConfig`.
        total_steps: steps of the whole training.
        losses: mean loss of each epoch that was done before, where a training is resumed.
        stage_starts: epochs, from 0, with which a stage begins. The loss may rise with harder
            negatives: the plateau schedule compares the losses of one stage only.
        first_step: step with which this training begins, where the optimiser has done others
            before; the warm-up counts them, the cosine does not.

    Example:
        >>> rate = LearningRate(make_config('tiny').train, total_steps=100)
        >>> rate.at(0)                       # the first of 50 steps of warm-up
        4e-05
        >>> rate.end_epoch(loss=0.7)

    A loop calls `set` before each step, and `end_epoch` after each epoch.
    """

    def __init__(self, train: TrainConfig, total_steps: int, losses: Sequence[float] = (),
                 stage_starts: Sequence[int] = (0,), first_step: int = 0) -> None:
        self._train = train
        self._total_steps = total_steps
        self._losses = list(losses)
        self._stage_starts = stage_starts
        self._first_step = first_step
        self._set: float | None = None
        self._begin = 0
        self._ahead: list[list[tuple[tf.Variable, tf.Tensor]]] = []  # of the steps from there on

    def at(self, step: int) -> float:
        """The learning rate of a step; those of the optimiser count from 0."""
        train = self._train
        rate = train.learning_rate * min(1.0, (step + 1) / max(1, train.warmup_steps))
        if train.schedule == 'cosine':
            done = min(1.0, (step - self._first_step) / max(1, self._total_steps))
            return rate * 0.5 * (1.0 + math.cos(math.pi * done))
        if train.schedule == 'plateau':
            return rate * PLATEAU_FACTOR ** self._plateaus()
        return rate

    def set(self, optimizer: keras.optimizers.Optimizer, step: int) -> None:
        """Gives an optimiser the learning rate of a step, where it has another."""
        rate = self.at(step)
        if rate == self._set:
            return
        if not self._begin <= step < self._begin + len(self._ahead):
            self._begin, self._ahead = step, self._rates_on_devices(optimizer, step)
        for variable, value in self._ahead[step - self._begin]:
            variable.assign(value)
        self._set = rate

    def _rates_on_devices(
        self, optimizer: keras.optimizers.Optimizer, step: int,
    ) -> list[list[tuple[tf.Variable, tf.Tensor]]]:
        """For each of the next steps, the variable of each device and a value that lies there.

        A copy of each rate when it is due would wait for the step before it.
        """
        rates = [self.at(step + ahead) for ahead in range(RATES_AHEAD)]
        variables = local_parts(optimizer.learning_rate.value)
        values = []
        for variable in variables:
            with tf.device(variable.device):
                values.append(tf.unstack(tf.constant(rates, variable.dtype)))
        return [list(zip(variables, of_step, strict=True))
                for of_step in zip(*values, strict=True)]

    def end_epoch(self, loss: float) -> None:
        """Takes note of the mean loss of an epoch."""
        self._losses.append(loss)
        self._ahead = []  # the loss may lower them

    def _plateaus(self) -> int:
        """How often the learning rate has fallen."""
        epoch = len(self._losses)
        bounds = [*(start for start in self._stage_starts if start <= epoch), epoch]
        of_stages = [count_plateaus(self._losses[first:last])
                     for first, last in itertools.pairwise(bounds)]
        return of_stages[-1] if self._train.stage_learning_rate == 'restart' else sum(of_stages)


def count_plateaus(losses: Sequence[float]) -> int:
    """How often `PLATEAU_EPOCHS` epochs in a row brought no lower loss."""
    best, waited, count = math.inf, 0, 0
    for loss in losses:
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited >= PLATEAU_EPOCHS:
            count, waited = count + 1, 0
    return count
