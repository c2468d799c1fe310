"""What the exported towers share: the module whose methods are the signatures, and their checks.

saved_models/README.md states for users what the exported towers hold.
"""

import contextlib
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from avts_tf.config import Config
from avts_tf.training.optimizer import UNDECAYED

Outputs = dict[str, tf.Tensor]

Examples = dict[str, dict[str, np.ndarray | np.floating]]  # from a signature's name to its inputs


class TowerSignatures(tf.Module):
    """A tower as it is exported: the convention of reusable SavedModels, windows, checks.

    The loaded object is callable as `tower(x, training=False)` and has `variables`,
    `trainable_variables` and `regularization_losses`. With training=True all windows go through
    the network at once, batch norm takes the statistics of the batch and updates its averages.
    Otherwise they go through it a few at a time, so that memory does not grow with the length of
    the input beyond the input itself.

    A subclass has a method for each signature, and defines `inputs` (dict from the name of each
    signature to the `tf.TensorSpec` of its arguments), `windows_at_once`, `most_windows` (of all
    examples of a request), `_end_to_end` and `examples`.

    Args:
        tower: Keras model.
        config: `Config` of the training.
        name: 'audio_tower' or 'video_tower'.
    """

    windows_at_once: int
    most_windows: int
    inputs: dict[str, list[tf.TensorSpec]]

    # A tf.Module lists the tf.Variables that it finds, and sees none in Keras's own variables:
    # these make room for lists.
    variables: list[tf.Variable] = []
    trainable_variables: list[tf.Variable] = []

    def __init__(self, tower: keras.Model, config: Config, name: str) -> None:
        super().__init__(name=name)
        self.config = config
        # Behind a function, what is saved is variables and graphs alone, without the objects of
        # Keras's layers.
        self._keras_tower = lambda: tower
        self.variables = [variable.value for variable in tower.variables]
        self.trainable_variables = [variable.value for variable in tower.trainable_variables]
        kernels = [variable.value for variable in tower.trainable_variables
                   if variable.name not in UNDECAYED]
        weight_decay = config.train.weight_decay

        @tf.function(input_signature=[], autograph=False)
        def decay_loss():
            squares = [tf.reduce_sum(tf.square(kernel)) for kernel in kernels]
            return 0.5 * weight_decay * tf.add_n(squares)

        self.regularization_losses = [decay_loss] if weight_decay else []

    @tf.function(autograph=False)
    def __call__(self, inputs: tf.Tensor, training: bool = False) -> Outputs:
        """The outputs of `serving_default`, as in training or as served."""
        return self._average(inputs, training)

    @tf.function(autograph=False)
    def call_training(self, inputs: tf.Tensor) -> Outputs:
        """The call with training=True, under a name of its own for keras.layers.TFSMLayer."""
        return self(inputs, training=True)

    def trace(self) -> dict[str, Callable[..., Outputs]]:
        """Traces what the loaded object can be called by.

        Returns:
            The signatures by name, as tf.functions.
        """
        specification = self.inputs['serving_default'][0]
        for training in (False, True):
            self.__call__.get_concrete_function(specification, training=training)
        self.call_training.get_concrete_function(specification)
        signatures = {
            name: tf.function(getattr(self, name), input_signature=inputs, autograph=False)
            for name, inputs in self.inputs.items()}
        for name, function in signatures.items():
            # An attribute takes arguments by place, as keras.layers.TFSMLayer gives them.
            setattr(self, name, function)
        return signatures

    def sizes(self) -> dict[str, int]:
        """Dict from the name of each output of the network to its last dimension."""
        return {name: value.shape[-1] for name, value in self._keras_tower().output.items()}

    def examples(self, rng: np.random.Generator) -> Examples:
        """An input for each signature."""
        raise NotImplementedError

    def _end_to_end(self, inputs: tf.Tensor, training: bool):
        """Outputs of windows end to end: dict of float32 [batch, windows, size]."""
        raise NotImplementedError

    def _average(self, inputs: tf.Tensor, training: bool):
        """Outputs averaged over windows end to end."""
        outputs = self._end_to_end(inputs, training)
        means = {name: tf.reduce_mean(value, 1) for name, value in outputs.items()}
        if self.config.towers.normalize == 'length':
            means['embedding'] = tf.math.l2_normalize(means['embedding'], -1)
        return means

    def _limited(self, batch: tf.Tensor, windows: tf.Tensor):
        """Windows of an example, int64 scalar, where those of all examples are not too many."""
        total = batch * windows
        message = tf.strings.format(
            f'{self.inputs["serving_default"][0].name}: {{}} windows in one request, of all '
            f'examples together; at most {self.most_windows} are allowed: send them in several '
            'requests', total)
        with tf.control_dependencies([tf.debugging.Assert(total <= self.most_windows, [message])]):
            return tf.identity(windows)

    def _over_windows(
        self, outputs_of: Callable[..., Outputs], batch: tf.Tensor, windows: tf.Tensor,
        training: bool,
    ) -> Outputs:
        """Outputs of the windows of all examples, a few at a time whatever the batch.

        Args:
            outputs_of: function of examples and windows in them, int64 [number] both, that gives
                a dict of float32 [number, size]. Windows come in order, those of an example one
                after the other.
            batch: int64 scalar, number of examples.
            windows: int64 scalar, number of windows of each.
            training: bool; True takes all at once.

        Returns:
            Dict of float32 [batch, windows, size].
        """
        total, sizes = batch * windows, self.sizes()

        def outputs_from(first: tf.Tensor, number: tf.Tensor):
            index = first + tf.range(number)
            return outputs_of(index // windows, index % windows)

        if training:
            outputs = outputs_from(tf.constant(0, tf.int64), total)
        else:
            at_once = tf.constant(self.windows_at_once, tf.int64)
            steps = tf.cast(-(-total // at_once), tf.int32)

            def one_step(step: tf.Tensor, arrays: dict[str, tf.TensorArray]):
                first = tf.cast(step, tf.int64) * at_once
                outputs = outputs_from(first, tf.minimum(at_once, total - first))
                return step + 1, {name: array.write(step, outputs[name])
                                  for name, array in arrays.items()}

            arrays = {name: tf.TensorArray(tf.float32, steps, infer_shape=False,
                                           element_shape=[None, size])
                      for name, size in sizes.items()}
            _, arrays = tf.while_loop(lambda step, _: step < steps, one_step, (0, arrays),
                                      parallel_iterations=1)
            outputs = {name: array.concat() for name, array in arrays.items()}
        return {name: tf.ensure_shape(tf.reshape(outputs[name], [batch, windows, size]),
                                      [None, None, size])
                for name, size in sizes.items()}


@contextlib.contextmanager
def in_float32(tower: keras.Model) -> Iterator[None]:
    """Traces a tower in float32 within it, whatever it was trained in.

    TensorFlow Lite and ONNX have no convolutions in bfloat16. Weights are float32 anyway.
    """
    layers = [layer for layer in tower._flatten_layers() if layer.compute_dtype != 'float32']
    policies = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = 'float32'
        yield
    finally:
        for layer, policy in zip(layers, policies, strict=True):
            layer.dtype_policy = policy


def check_rank(tensor: tf.Tensor, rank: int, name: str, layout: str) -> list[tf.Operation]:
    """Asserts a rank when the graph runs.

    A server lets shapes pass that Python would refuse, and tf.rank believes the graph.
    """
    actual = tf.raw_ops.Rank(input=tensor)
    message = tf.strings.format(f'{name}: must be {layout}, of rank {rank}, not of rank {{}}',
                                actual)
    return [tf.debugging.Assert(tf.equal(actual, rank), [message])]


def check_sizes(tensor: tf.Tensor, name: str, elements: str) -> list[tf.Operation]:
    """Asserts that a tensor [batch, elements, ...] is not empty."""
    shape = tf.shape(tensor)
    return [tf.debugging.Assert(shape[0] > 0, [f'{name}: an empty batch']),
            tf.debugging.Assert(shape[1] > 0, [f'{name}: no {elements}'])]


def check_window(inputs: tf.Tensor, specification: tf.TensorSpec, most: int) -> tf.Tensor:
    """The input of a signature `window`, where its shape is right and examples are not too many.

    The assertion is the bare operation, which converters leave out; they could not leave out one
    whose message is made at run time.
    """
    shape = tf.raw_ops.Shape(input=inputs)
    sizes = specification.shape.as_list()[1:]
    layout = ', '.join(map(str, ['batch', *sizes]))
    message = (f'{specification.name}: must be [{layout}], with at most {most} examples in a '
               'request')
    expected = tf.concat([tf.minimum(shape[:1], most), tf.constant(sizes, tf.int32)], 0)
    equal = tf.raw_ops.Equal(x=shape, y=expected, incompatible_shape_error=False)
    assertion = tf.raw_ops.Assert(condition=tf.reduce_all(equal), data=[message])
    with tf.control_dependencies([assertion]):
        return tf.ensure_shape(tf.identity(inputs), specification.shape)
