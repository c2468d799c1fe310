"""The record format: what is written is what is read, and by the names of the format; shards and their damage."""

import dataclasses
import hashlib
import os
import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from avts_tf.data import records
from avts_tf.errors import UserError
from tests.helpers import counting_video, edit_record, with_times, write_records

parse = tf.function(records.parse, input_signature=[tf.TensorSpec([], tf.string)])


def drop(*names):
    """A change to a record: these context features and feature lists are gone."""
    def edit(example):
        for name in names:
            example.context.feature.pop(name, None)
            example.feature_lists.feature_list.pop(name, None)
    return edit


@pytest.fixture(scope='module')
def video():
    labelled = counting_video(3, seconds=0.8, fps=30.0)
    return dataclasses.replace(
        labelled, data_path='films/a.mp4', start_seconds=1.25, dataset_name='films', labels=((4, 'dog'), (0, 'bark')))


@pytest.mark.parametrize('audio_encoding', ['pcm16', 'float'])
def test_parse_gives_back_what_was_encoded(video, audio_encoding):
    record = parse(records.encode(video, audio_encoding))
    assert record.example_id.numpy() == b'clip-3'
    assert record.frames.numpy().tolist() == video.frames
    np.testing.assert_allclose(record.frame_seconds, np.arange(24) / 30, rtol=0, atol=0.5e-6)
    assert record.frame_rate.numpy() == 30.0 and record.sample_rate.numpy() == 16000.0
    assert record.waveform.dtype == tf.int16
    np.testing.assert_array_equal(record.waveform, video.waveform)
    assert record.label_index.numpy().tolist() == [4, 0] and record.label_string.numpy().tolist() == [b'dog', b'bark']


def test_float_audio_is_exact_over_the_whole_range_and_clipped_beyond():
    waveform = np.arange(-32768, 32768).astype(np.int16)
    full = dataclasses.replace(counting_video(0, 0.2), waveform=waveform)
    encoded = records.encode(full, 'float')
    np.testing.assert_array_equal(parse(encoded).waveform, waveform)

    def louder(example):
        values = example.feature_lists.feature_list[records.AUDIO_FLOATS].feature[0].float_list.value
        values[:] = [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]
    assert parse(edit_record(encoded, louder)).waveform.numpy().tolist() == [-32768, -32768, -16384, 0, 16384, 32767, 32767]


def test_encoded_fields_are_those_of_the_docstring(video):
    example = tf.train.SequenceExample.FromString(records.encode(video))
    context, lists = example.context.feature, example.feature_lists.feature_list
    for name in (*context, *lists):
        assert name in records.__doc__ or (name == 'image/width' and 'image/height, image/width' in records.__doc__)
    assert context['clip/start/timestamp'].int64_list.value[0] == 1_250_000
    assert context['clip/end/timestamp'].int64_list.value[0] == 2_050_000
    assert context['WAVEFORM/feature/num_samples'].int64_list.value[0] == len(video.waveform) == 12800
    assert context['clip/data_path'].bytes_list.value[0] == b'films/a.mp4'
    assert context['example/dataset_name'].bytes_list.value[0] == b'films'
    assert [feature.int64_list.value[0] for feature in lists['image/timestamp'].feature][:4] == [0, 33333, 66667, 100000]
    assert lists['WAVEFORM/feature/bytes'].feature[0].bytes_list.value[0] == video.waveform.astype('<i2').tobytes()
    assert 'WAVEFORM/feature/floats' not in lists


def test_sound_alone(video):
    encoded = records.encode(dataclasses.replace(video, frames=[], frame_rate=0.0, height=0, width=0))
    example = tf.train.SequenceExample.FromString(encoded)
    context, lists = example.context.feature, example.feature_lists.feature_list
    assert not [name for name in (*context, *lists) if name.startswith('image/')]
    assert context['clip/end/timestamp'].int64_list.value[0] == 1_250_000 + 12800 * 1_000_000 // 16000
    record = parse(encoded)
    assert record.frames.shape == record.frame_seconds.shape == (0,) and record.frame_rate == 0.0
    np.testing.assert_array_equal(record.waveform, video.waveform)
    assert record.label_string.numpy().tolist() == [b'dog', b'bark'] and record.sample_rate == 16000.0


def test_same_video_same_bytes():
    # In every process, of every version: the entries of a protocol buffer's map have no order of their own.
    video = records.Video('a', [b'j'], 25.0, 8, 8, np.zeros(640, np.int16), 16000)
    assert hashlib.sha256(records.encode(video)).hexdigest() == '93674b291eddbde6476ab74bfe6f74796a30c940e90b76ef3ea35df80da5ec78'


def test_encode_refuses_what_it_cannot_write(video):
    with pytest.raises(ValueError, match='audio_encoding'):
        records.encode(video, 'mp3')
    for waveform in (video.waveform.astype(np.float32), video.waveform[:, None]):
        with pytest.raises(ValueError, match='int16'):
            records.encode(dataclasses.replace(video, waveform=waveform))


def test_irregular_times_are_taken_as_they_are(video):
    seconds = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.06, 24))
    np.testing.assert_allclose(parse(with_times(records.encode(video), seconds)).frame_seconds, seconds, atol=0.5e-6)


def test_frame_times_follow_from_the_rate(video):
    encoded = records.encode(video)
    no_times = parse(edit_record(encoded, drop(records.FRAME_TIMES)))
    np.testing.assert_allclose(no_times.frame_seconds, np.arange(24) / 30, atol=1e-9)
    no_rate = parse(edit_record(encoded, drop(records.FRAME_RATE)))
    np.testing.assert_allclose(no_rate.frame_seconds, np.arange(24) / 30, atol=0.5e-6)
    neither = parse(edit_record(encoded, drop(records.FRAME_RATE, records.FRAME_TIMES)))
    assert no_rate.frame_rate.numpy() == neither.frame_rate.numpy() == 0.0
    assert neither.frame_seconds.numpy().tolist() == [0.0] * 24


def test_a_bare_record_parses(video):
    record = parse(tf.train.SequenceExample().SerializeToString())
    parts = (record.frames, record.frame_seconds, record.waveform, record.label_index)
    assert [int(tf.size(part)) for part in parts] == [0] * 4
    assert record.sample_rate.numpy() == 0.0


def test_records_without_a_name_are_told_apart():
    # Were their names the same, none could be an easy negative of another.
    unnamed = [edit_record(records.encode(counting_video(clip, 0.2)), drop(records.EXAMPLE_ID)) for clip in (0, 1)]
    first, second = (parse(record).example_id.numpy() for record in unnamed)
    assert first and second and first != second
    assert parse(unnamed[0]).example_id.numpy() == first


@pytest.fixture
def shard(tmp_path):
    return write_records(tmp_path / 'clips-00000-of-00002', [b'x' * 100, b'', b'y' * 7])


def test_find_shards(tmp_path, shard):
    second = write_records(tmp_path / 'clips-00001-of-00002', [b'z'])
    write_records(tmp_path / 'empty', [])
    (tmp_path / 'clips.json').write_text('{}')
    (tmp_path / 'clips.strikes.csv').write_text('a,b\n')
    (tmp_path / 'folder').mkdir()
    both = [(shard, 3), (second, 1)]
    folder = str(tmp_path)
    for pattern in (f'{folder}/*', folder, f'{folder}/clips*', f'{shard}, {second}', f'{second},{folder}/clips-*'):
        assert records.find_shards(pattern) == both
    assert records.shard_path(f'{tmp_path}/clips', 1, 2) == second
    assert records.summary_path(f'{tmp_path}/clips') == f'{tmp_path}/clips.json'


@pytest.mark.parametrize('pattern', ['', None, '{tmp}/nothing-*', '{tmp}/clips*,{tmp}/nothing'])
def test_no_match_names_flag_and_value(tmp_path, shard, pattern):
    pattern = pattern and pattern.format(tmp=tmp_path)
    with pytest.raises(UserError) as error:
        records.find_shards(pattern, flag='eval_records')
    assert f'--eval_records={pattern or ""}: no file matches' in str(error.value)
    if pattern and ',' in pattern:
        assert f"'{tmp_path}/nothing'" in str(error.value)


def test_nothing_but_empty_shards(tmp_path):
    write_records(tmp_path / 'a', [])
    write_records(tmp_path / 'b', [])
    with pytest.raises(UserError, match=r'--records=.*2 file\(s\) match.*no record'):
        records.find_shards(str(tmp_path))


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
            assert records.count_records(str(cut)) == whole
        else:
            with pytest.raises(UserError, match=rf'cut: cut short after {whole} whole records') as error:
                records.count_records(str(cut))
            assert str(cut) in str(error.value)


@pytest.mark.parametrize('content', [b'{"not": "records"}', b'RIFF' + b'\0' * 200, b'\0' * 64, b'\xff' * 64])
def test_not_a_record_file(tmp_path, content):
    (tmp_path / 'clips-0').write_bytes(content)
    with pytest.raises(UserError, match=r'clips-0: not a TFRecord file'):
        records.find_shards(f'{tmp_path}/clips-*')


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match='gone: cannot be read'):
        records.count_records(str(tmp_path / 'gone'))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=8))
def test_records_are_counted(tmp_path_factory, contents):
    path = write_records(tmp_path_factory.mktemp('shards') / 'any', contents)
    assert records.count_records(path) == len(contents)


def test_first_damaged(tmp_path, shard):
    other = write_records(tmp_path / 'other', [b'abc', b'defg', b'h'])
    assert records.first_damaged([shard, other]) is None
    with open(other, 'r+b') as file:
        file.seek(16 + 3 + 12 + 1)  # inside the second record: the framing is whole, the checksum is not
        file.write(b'!')
    assert records.count_records(other) == 3
    assert records.first_damaged([shard, other]) == (other, 1)
    assert os.path.exists(shard)
