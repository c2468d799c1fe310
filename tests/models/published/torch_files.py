"""Writes files as PyTorch did before version 1.6, without it."""

import collections
import pickle
import sys
import types

import numpy as np

STORAGES = {np.dtype('f4'): 'FloatStorage', np.dtype('i8'): 'LongStorage',
            np.dtype('f8'): 'FloatStorage'}


def _named(module, name):
    """What is pickled as a name of a module that is not there."""
    found = type(name, (), {})
    found.__module__, found.__qualname__ = module, name
    return found


class _Tensor:
    """A tensor that is a view of a storage, by its strides."""

    def __init__(self, key, array, rebuild, storage, stretch):
        base = array if array.base is None else array.base
        base = base.reshape(-1)
        offset = (array.__array_interface__['data'][0]
                  - base.__array_interface__['data'][0]) // base.itemsize
        strides = tuple(stretch * stride // array.itemsize for stride in array.strides)
        self.base, self.made_by = base, rebuild
        self.arguments = (_Storage(('storage', storage, key, 'cpu', len(base), None)), offset,
                          array.shape, strides, False, collections.OrderedDict())

    def __reduce__(self):
        return self.made_by, self.arguments


class _Storage:
    def __init__(self, persistent_id):
        self.persistent_id = persistent_id


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        return obj.persistent_id if isinstance(obj, _Storage) else None


def write_torch(path, tensors, stretch=1):
    """Writes {name: array} as a `.pth` file; what is no array is pickled as it is.

    Args:
        path: the file.
        tensors: float32 or int64 arrays by name, contiguous or views of a contiguous one.
        stretch: factor of all strides, where a damaged file is wanted.
    """
    torch, utils = types.ModuleType('torch'), types.ModuleType('torch._utils')
    torch._utils = utils
    for name in set(STORAGES.values()):
        setattr(torch, name, _named('torch', name))
    utils._rebuild_tensor_v2 = _named('torch._utils', '_rebuild_tensor_v2')
    before = {name: sys.modules.get(name) for name in ('torch', 'torch._utils')}
    sys.modules.update({'torch': torch, 'torch._utils': utils})
    try:
        state = collections.OrderedDict(
            (name, _Tensor(str(number), array, utils._rebuild_tensor_v2,
                           getattr(torch, STORAGES[array.dtype]), stretch)
             if isinstance(array, np.ndarray) else array)
            for number, (name, array) in enumerate(tensors.items()))
        with open(path, 'wb') as file:
            for header in (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}):
                pickle.dump(header, file, protocol=2)
            _Pickler(file, protocol=2).dump(state)
            made = [tensor for tensor in state.values() if isinstance(tensor, _Tensor)]
            pickle.dump([tensor.arguments[0].persistent_id[2] for tensor in made], file, protocol=2)
            for tensor in made:
                file.write(len(tensor.base).to_bytes(8, 'little') + tensor.base.tobytes())
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
