"""Files of weights are read, and what else a pickle can hold is refused."""

import os

import numpy as np
import pytest

from avts_tf.errors import UserError
from avts_tf.models.published.weights import read_npy_dict, read_torch
from tests.models.published.torch_files import write_torch

LAYERS = {'conv1': {'weights': np.arange(6, dtype=np.float32).reshape(2, 3), 'mean': np.ones(3)}}


def test_a_dictionary_of_numpy(tmp_path):
    np.save(tmp_path / 'file.npy', LAYERS)
    found = read_npy_dict(str(tmp_path / 'file.npy'), 'weights')
    assert found.keys() == LAYERS.keys() and found['conv1'].keys() == LAYERS['conv1'].keys()
    for key, value in LAYERS['conv1'].items():
        np.testing.assert_array_equal(found['conv1'][key], value)


def of_python_2(shape, kind, order, flags, values):
    """The pickle of an array as Python 2 wrote it, whose text is bytes."""
    return (b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01'
            + shape + b'cnumpy\ndtype\nU\x02' + kind + b'K\x00K\x01\x87R(K\x03U\x01' + order
            + b'NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK' + flags + b'tb\x89' + values + b'tb')


def test_a_dictionary_of_python_2(tmp_path):
    mean = np.array([0.5, -3.25, 1e-20], np.float32)
    array = of_python_2(b'K\x03\x85', b'f4', b'<', b'\x00', b'U\x0c' + mean.tobytes())
    layers = b'}U\x05conv1}U\x04mean' + array + b'ss'
    path = tmp_path / 'file.npy'
    with open(path, 'wb') as file:
        np.lib.format.write_array_header_1_0(
            file, {'descr': '|O', 'fortran_order': False, 'shape': ()})
        file.write(b'\x80\x02' + of_python_2(b')', b'O8', b'|', b'?', b']' + layers + b'a') + b'.')
    found = read_npy_dict(str(path), 'weights')
    np.testing.assert_array_equal(found['conv1']['mean'], mean)


def test_tensors_of_pytorch(tmp_path):
    storage = np.arange(12, dtype=np.float32)
    tensors = {'a.weight': storage.reshape(3, 4).T, 'b': storage[4:6],
               'steps': np.array(7, np.int64)}
    write_torch(tmp_path / 'net.pth', tensors)
    found = read_torch(str(tmp_path / 'net.pth'), 'teacher')
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize('read', [read_npy_dict, read_torch])
def test_nothing_of_the_file_is_run(tmp_path, read):
    path, trap = str(tmp_path / 'file'), tmp_path / 'trap'
    if read is read_npy_dict:
        with open(path, 'wb') as file:
            np.save(file, {'conv1': {'weights': Hostile(trap)}})
    else:
        write_torch(path, {'a': Hostile(trap)})
    with pytest.raises(UserError, match='^weights=.*as weights: asks for posix.mkdir'):
        read(path, 'weights')
    assert not trap.exists()
    if read is read_npy_dict:  # the file does what is said of it
        np.load(path, allow_pickle=True)
        assert trap.exists()


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path):
    path = str(tmp_path / 'net.pth')
    write_torch(path, {'a': np.zeros([4, 4], np.float32)}, stretch=1000)
    with pytest.raises(UserError, match='^teacher=.*cannot be read as weights: strides'):
        read_torch(path, 'teacher')


def test_what_is_no_array_is_named(tmp_path):
    np.save(tmp_path / 'net.npy', {'conv1': {'mean': np.array([None, 1])}})
    with pytest.raises(UserError, match='mean is a list, not an array'):
        read_npy_dict(str(tmp_path / 'net.npy'), 'weights')
    write_torch(tmp_path / 'net.pth', {'epoch': 5, 'a': np.zeros(2, np.float32)})
    with pytest.raises(UserError, match='epoch is a int, not an array'):
        read_torch(str(tmp_path / 'net.pth'), 'teacher')


@pytest.mark.parametrize('content', ['text', 'array', 'cut', 'missing'])
@pytest.mark.parametrize('read', [read_npy_dict, read_torch])
def test_other_files(tmp_path, read, content):
    path = tmp_path / 'file'
    if content == 'text':
        path.write_text('no weights')
    elif content == 'array':
        with open(path, 'wb') as file:
            np.save(file, np.zeros(3))
    elif content == 'cut':
        with open(path, 'wb') as file:
            np.save(file, LAYERS)
        if read is read_torch:
            write_torch(path, LAYERS['conv1'])
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r'^weights=.*(no such file|cannot be read as weights)'):
        read(str(path), 'weights')
