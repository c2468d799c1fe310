"""What the tests of traced graphs share: their operations, and where a GPU would keep their values.

The kernels of TensorFlow's builds for CUDA are registered on machines without a GPU too.
"""

import functools
from unittest import mock

import tensorflow as tf
from tensorflow.python.framework import kernels, op_def_registry

# A function takes these from the host's memory and gives them back there.
ON_HOST = (tf.int32, tf.string, tf.resource)


def built_for_gpu():
    """Within it layers build their graphs as on a machine with a GPU."""
    return mock.patch.object(tf.config, 'list_logical_devices', lambda kind=None: ['GPU:0'])


def operations(graph):
    """The operations of a function's graph and of the functions that it calls, each once."""
    found, waiting, seen = [], [graph], set()
    while waiting:
        graph = waiting.pop()
        for op in graph.get_operations():
            found.append(op)
            for name in called_by(op):
                if name not in seen:
                    seen.add(name)
                    waiting.append(graph._get_function(name).graph)
    return found


def called_by(op):
    """The names of the functions that an operation calls."""
    definition = op_def_registry.get(op.type)
    return [op.get_attr(attribute.name).name for attribute in definition.attr
            if attribute.type == 'func']


def batch_norm_shapes(graph):
    """The shapes of what each fused batch norm takes, and each gradient of one: lists of 4 sizes.
    """
    place = {'FusedBatchNormV3': 0, 'FusedBatchNormGradV3': 1}
    return [op.inputs[place[op.type]].shape.as_list() for op in operations(graph)
            if op.type in place]


def copies_to_host(graph):
    """What a GPU would copy to the host, and wait for, each time that a graph runs.

    Returns:
        A line for each operation that has no kernel for GPUs but an input from one, or whose
        kernel for GPUs takes an input from the host's memory that another leaves on the GPU.
    """
    found = []
    for op in operations(graph):
        if called_by(op) or not op.inputs:
            continue
        kernel = gpu_kernel(op)
        names = names_of(op_def_registry.get(op.type).input_arg, op)
        for name, tensor in zip(names, op.inputs, strict=True):
            wants_host = kernel is None or name in kernel.host_memory_arg
            if wants_host and not is_on_host(tensor) and not is_constant(tensor.op):
                found.append(f'{op.name} ({op.type}) takes {tensor.name} ({tensor.dtype.name})')
    return found


def is_on_host(tensor):
    """Whether a tensor would be in the host's memory on a machine with a GPU."""
    op = tensor.op
    if op.type == 'Placeholder' or called_by(op):
        return tensor.dtype in ON_HOST
    kernel = gpu_kernel(op)
    names = names_of(op_def_registry.get(op.type).output_arg, op)
    return kernel is None or names[tensor.value_index] in kernel.host_memory_arg


@functools.cache
def is_constant(op):
    """Whether TensorFlow computes an operation once, before the graph runs."""
    if op.type == 'Shape':
        return op.inputs[0].shape.is_fully_defined()
    return op.type == 'Const' or (bool(op.inputs) and not op.op_def.is_stateful
                                  and all(is_constant(each.op) for each in op.inputs))


@functools.cache
def gpu_kernel(op):
    """The registered kernel that an operation would have on a GPU, or None."""
    def fits(kernel):
        return kernel.device_type in ('GPU', 'DEFAULT') and all(
            tf.as_dtype(each).as_datatype_enum in constraint.allowed_values.list.type
            for constraint in kernel.constraint
            for each in as_list(op.get_attr(constraint.name)))

    # One for GPUs goes before one for any device.
    found = sorted(filter(fits, kernels.get_registered_kernels_for_op(op.type).kernel),
                   key=lambda kernel: (kernel.device_type == 'GPU', kernel.priority))
    return found[-1] if found else None


def names_of(arguments, op):
    """The name of the argument that each input, or each output, of an operation belongs to."""
    names = []
    for argument in arguments:
        count = 1
        if argument.number_attr:
            count = op.get_attr(argument.number_attr)
        elif argument.type_list_attr:
            count = len(op.get_attr(argument.type_list_attr))
        names += [argument.name] * count
    return names


def as_list(value):
    return value if isinstance(value, list) else [value]
