"""Files that cannot be read are named."""


import pytest

from avts_tf.data import records
from avts_tf.errors import UserError
from tests.helpers import write_records
from tests.tfrecords_tools.record_files import plain_video
from tfrecords_tools import inspect


def test_broken_files_are_named(tmp_path):
    serialized = records.encode(plain_video('a', 5, 5.0, (16, 16), 16000, 16000))
    cut = tmp_path / 'cut'
    write_records(cut, [serialized, serialized])
    cut.write_bytes(cut.read_bytes()[:-7])
    with pytest.raises(UserError, match=r'cut: cut short after 1 whole record'):
        inspect.inspect([str(cut)])

    damaged = tmp_path / 'damaged'
    write_records(damaged, [serialized, serialized])
    data = bytearray(damaged.read_bytes())
    data[-200] ^= 1
    damaged.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r'damaged: damaged after 1 whole record'):
        inspect.inspect([str(damaged)])

    with pytest.raises(UserError, match=r'other: record 0 .* is not in the form'):
        inspect.inspect([write_records(tmp_path / 'other', [b'something else'])])
