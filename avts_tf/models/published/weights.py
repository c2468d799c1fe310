"""Reads files of weights that are pickles, without running what a pickle can ask for.

A pickle names functions and calls them, so that a file from elsewhere can run anything when it is
loaded. Here each of the few names that arrays need stands for something of this module, and every
other name is refused.
"""

import collections
import io
import os
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from avts_tf.errors import UserError

_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # the first thing in a file of torch.save before PyTorch 1.6
_STORAGES = {'FloatStorage': np.dtype('<f4'), 'LongStorage': np.dtype('<i8')}


def read_npy_dict(path: str, parameter: str) -> dict[str, dict[str, np.ndarray]]:
    """Reads a dictionary that `numpy.save` wrote.

    Args:
        path: `.npy` file whose one object is {layer: {name of a weight: array}}.
        parameter: what the path was given as, for the message.

    Returns:
        The dictionary.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    def read(file: io.BufferedReader) -> Any:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if shape or dtype != np.dtype(object):
            raise ValueError(f'an array {list(shape)} of {dtype}, not a dictionary')
        # latin1, because Python 2 wrote bytes where Python 3 reads text.
        layers, = _Arrays(file, encoding='latin1').load().values
        return {layer: _only_arrays({name: array.values for name, array in weights.items()})
                for layer, weights in layers.items()}

    return _reading(read, path, parameter)


def read_torch(path: str, parameter: str) -> dict[str, np.ndarray]:
    """Reads the tensors of a `.pth` file as PyTorch wrote them before version 1.6.

    Args:
        path: the file, a dictionary of tensors.
        parameter: what the path was given as, for the message.

    Returns:
        {name: array}, float32 or int64.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    def read(file: io.BufferedReader) -> Any:
        if _Tensors(file).load() != _TORCH_MAGIC:
            raise ValueError('not in the format of PyTorch before 1.6')
        for _ in ('version of the format', 'sizes of types'):
            _Tensors(file).load()
        tensors = _Tensors(file)
        found = tensors.load()
        # The values follow the pickles, in the order of this list.
        for key in _Tensors(file).load():
            values = tensors.storages[key]
            if int.from_bytes(file.read(8), 'little') != len(values):
                raise ValueError(f'storage {key} has another length than its tensor')
            if file.readinto(values.data) != values.nbytes:
                raise EOFError('the file is cut short')
        return _only_arrays(dict(found))

    return _reading(read, path, parameter)


def _reading(read: Callable[[io.BufferedReader], Any], path: str, parameter: str) -> Any:
    if not os.path.isfile(path):
        raise UserError(parameter, path, 'there is no such file.')
    try:
        with open(path, 'rb') as file:
            return read(file)
    except Exception as error:  # damaged pickles raise whatever they run into
        raise UserError(parameter, path, f'cannot be read as weights: {error}.') from error


def _only_arrays(weights: dict[str, Any]) -> dict[str, np.ndarray]:
    for name, value in weights.items():
        if not isinstance(value, np.ndarray):
            raise ValueError(f'{name} is a {type(value).__name__}, not an array')
    return weights


class _Type:
    """What a pickled dtype says: its code, such as f4, and the order of its bytes."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, '<'

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]


class _Array:
    """What a pickled array says; `values` is an array of numbers, or a list of objects."""

    def __init__(self, *_: Any) -> None:
        self.values: Any = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, by_column, self.values = state
        if isinstance(self.values, list):
            return
        if not re.fullmatch('[<>|][fi][1248]', kind.order + kind.code):
            raise ValueError(f'an array of {kind.order + kind.code}, not of numbers')
        data = self.values.encode('latin1') if isinstance(self.values, str) else self.values
        numbers = np.frombuffer(data, kind.order + kind.code)
        self.values = numbers.reshape(shape, order='F' if by_column else 'C')


class _Arrays(pickle.Unpickler):
    """Makes an `_Array` of each numpy array, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        # numpy.core is called numpy._core from numpy 2 on.
        if (module.replace('_core', 'core'), name) == ('numpy.core.multiarray', '_reconstruct'):
            return _Array
        if (module, name) == ('numpy', 'dtype'):
            return _Type
        if (module, name) == ('numpy', 'ndarray'):
            return None  # an argument without meaning here
        raise pickle.UnpicklingError(f'asks for {module}.{name}, which is no array')


class _Tensors(pickle.Unpickler):
    """Makes arrays of tensors; their values are filled in later, in `storages` by key."""

    def __init__(self, file: io.BufferedReader) -> None:
        super().__init__(file)
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ('collections', 'OrderedDict'):
            return collections.OrderedDict
        if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
            return _tensor
        if module == 'torch' and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f'asks for {module}.{name}, which is no tensor')

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, dtype, key, _, count, _ = pid
        return self.storages.setdefault(key, np.zeros(count, dtype))


def _tensor(
    storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any,
) -> np.ndarray:
    """An array that shares memory with its storage; numpy refuses one that reaches beyond it."""
    size = storage.itemsize
    return np.ndarray(shape, storage.dtype, storage.data, offset * size,
                      [stride * size for stride in strides])
