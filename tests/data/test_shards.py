"""Shards: found, counted, walked and verified, whatever is damaged."""

import os
import re
import shutil
import struct

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from avts_tf.data import records
from avts_tf.data.shards import (
    Damage,
    count_records,
    find_shards,
    first_damaged,
    glob_of_set,
    masked_crc,
    name_hashes,
    naming_damage,
    shard_path,
    summary_path,
    walk,
)
from avts_tf.errors import UserError
from tests.helpers import counting_video, write_records


@pytest.fixture
def shard(tmp_path):
    return write_records(tmp_path / 'clips-00000-of-00002', [b'x' * 100, b'', b'y' * 7])


def test_find_shards(tmp_path, shard):
    second = write_records(tmp_path / 'clips-00001-of-00002', [b'z'])
    write_records(tmp_path / 'empty', [])
    (tmp_path / 'clips.json').write_text('{}')
    (tmp_path / 'clips.strikes.csv').write_text('a,b\n')
    (tmp_path / 'folder').mkdir()
    (tmp_path / '.DS_Store').write_bytes(b'what a desktop leaves behind')
    both = [(shard, 3), (second, 1)]
    folder = str(tmp_path)
    for pattern in (f'{folder}/*', folder, f'{folder}/clips*', f'{shard}, {second}',
                    f'{second},{folder}/clips-*'):
        assert find_shards(pattern) == both
    assert shard_path(f'{tmp_path}/clips', 1, 2) == second
    assert summary_path(f'{tmp_path}/clips') == f'{tmp_path}/clips.json'


@pytest.mark.parametrize('pattern', ['', None, '{tmp}/nothing-*', '{tmp}/clips*,{tmp}/nothing'])
def test_no_match_names_parameter_and_value(tmp_path, shard, pattern):
    pattern = pattern and pattern.format(tmp=tmp_path)
    with pytest.raises(UserError) as error:
        find_shards(pattern, parameter='eval_records')
    assert f'eval_records={pattern or ""}: no file matches' in str(error.value)
    if pattern and ',' in pattern:
        assert f"'{tmp_path}/nothing'" in str(error.value)


def test_signs_of_globs_in_the_names_of_folders(tmp_path, shard):
    folder = tmp_path / 'run [1]'
    folder.mkdir()
    path = shutil.copy(shard, folder / 'set-00000-of-00001')
    for pattern in (path, folder, str(path).replace('[', '[[]').replace('set', '*')):
        [(found, _)] = find_shards(str(pattern))
        assert found == str(path)
    for sign in '[]*?,':
        with pytest.raises(UserError, match=re.escape(f'run_dir=runs/a{sign}b/set: must not hold')):
            glob_of_set(f'runs/a{sign}b/set', 'run_dir')
    assert glob_of_set('runs/a b/set', 'run_dir') == 'runs/a b/set-*-of-*'


def test_nothing_but_empty_shards(tmp_path):
    write_records(tmp_path / 'a', [])
    write_records(tmp_path / 'b', [])
    with pytest.raises(UserError, match=r'^records=.*2 file\(s\) match.*no record'):
        find_shards(str(tmp_path))


def test_every_cut_is_found_but_one_between_records(tmp_path, shard):
    with open(shard, 'rb') as file:
        content = file.read()
    ends = [0]
    while ends[-1] < len(content):
        ends.append(ends[-1] + 16 + struct.unpack_from('<Q', content, ends[-1])[0])
    assert ends == [0, 116, 132, 155]
    cut = tmp_path / 'cut'
    for size in range(len(content) + 1):
        cut.write_bytes(content[:size])
        whole = sum(end <= size for end in ends[1:])
        if size in ends:
            assert count_records(str(cut)) == whole
        else:
            with pytest.raises(UserError,
                               match=rf'cut: cut short after {whole} whole records') as error:
                count_records(str(cut))
            assert str(cut) in str(error.value)


@pytest.mark.parametrize('content',
                         [b'{"not": "records"}', b'RIFF' + b'\0' * 200, b'\0' * 64, b'\xff' * 64])
def test_not_a_record_file(tmp_path, content):
    (tmp_path / 'clips-0').write_bytes(content)
    with pytest.raises(UserError, match=r'clips-0: not a TFRecord file'):
        find_shards(f'{tmp_path}/clips-*')


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match='gone: cannot be read'):
        count_records(str(tmp_path / 'gone'))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=8))
def test_records_are_counted(tmp_path_factory, contents):
    path = write_records(tmp_path_factory.mktemp('shards') / 'any', contents)
    assert count_records(path) == len(contents)


def test_first_damaged(tmp_path, shard):
    other = write_records(tmp_path / 'other', [b'abc', b'defg', b'h'])
    assert first_damaged([shard, other]) is None
    with open(other, 'r+b') as file:
        # Inside the second record: the framing is whole, the checksum is not.
        file.seek(16 + 3 + 12 + 1)
        file.write(b'!')
    assert count_records(other) == 3
    assert first_damaged([shard, other]) == (other, 1)
    assert os.path.exists(shard)


def test_the_checksum_is_the_masked_crc_32c():
    # RFC 3720, B.4: the CRC-32C of 32 bytes of zeros is 8a9136aa.
    crc = 0x8A9136AA
    assert masked_crc(bytes(32)) == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=6), st.data())
def test_walk_goes_on_after_a_record_that_is_damaged(tmp_path_factory, contents, data):
    path = write_records(tmp_path_factory.mktemp('shards') / 'any', contents)
    assert list(walk(path)) == contents
    bad = data.draw(st.integers(0, len(contents) - 1))
    place = sum(16 + len(content) for content in contents[:bad]) + 12
    place += data.draw(st.integers(0, len(contents[bad]) + 3))  # in the record or in its checksum
    with open(path, 'r+b') as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 16]))
    assert list(walk(path)) == [None if i == bad else content for i, content in enumerate(contents)]
    assert count_records(path) == len(contents)


def test_a_damaged_length_ends_the_walk(tmp_path, shard):
    with open(shard, 'r+b') as file:
        file.seek(116)
        file.write(b'!')
    walked = walk(shard)
    assert next(walked) == b'x' * 100
    with pytest.raises(Damage, match=r'damaged at byte 116 \(after 1 whole records\)'):
        next(walked)
    assert find_shards(shard, tolerant=True) == [(shard, 2)]


def test_names_are_found_by_their_hashes(tmp_path):
    path = write_records(tmp_path / 'clips',
                         [records.encode(counting_video(clip, 0.2)) for clip in range(4)])
    hashes = {int(records.hash_name(name)) for name in ('clip-2', 'clip-1', 'nobody')}
    assert name_hashes([(path, 4)], hashes) == ['clip-1', 'clip-2']


def test_a_file_that_is_damaged_meanwhile_is_named(tmp_path, shard):
    with open(shard, 'r+b') as file:
        file.seek(20)
        file.write(b'!')
    with pytest.raises(UserError) as error, naming_damage(f'{tmp_path}/nothing*,{shard}', None):
        list(tf.data.TFRecordDataset(shard))
    assert error.value.value == shard and 'damaged after 0 whole records' in error.value.problem
