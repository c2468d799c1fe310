"""What the graph that is being built will run on, for layers with more than one way to compute."""

import contextlib
import contextvars
from collections.abc import Iterator

import tensorflow as tf

_for_any_device = contextvars.ContextVar('for_any_device', default=False)


@contextlib.contextmanager
def plain_operations() -> Iterator[None]:
    """Within it graphs are built of plain operations, because they will run anywhere.

    Example:
        >>> from avts_tf.models.convolutions import FramewiseConv3D
        >>> layer = FramewiseConv3D(4, (1, 3, 3), strides=(1, 2, 2), use_bias=False)
        >>> with plain_operations():
        ...     graph = tf.function(layer).get_concrete_function(tf.zeros([2, 5, 9, 9, 3])).graph
        >>> {op.type for op in graph.get_operations() if op.type.startswith('Conv')}
        {'Conv3D'}
    """
    token = _for_any_device.set(True)
    try:
        yield
    finally:
        _for_any_device.reset(token)


def is_for_cpu() -> bool:
    """Whether the graph that is being built will run on a CPU of this machine."""
    return not (_for_any_device.get() or tf.config.list_logical_devices('GPU'))


def is_for_gpu() -> bool:
    """Whether the graph that is being built will run on a GPU of this machine."""
    return bool(not _for_any_device.get() and tf.config.list_logical_devices('GPU'))
