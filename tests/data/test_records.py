"""The record format: what is written is what is read, by the names of the format."""

import dataclasses
import hashlib

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.data import records
from tests.helpers import counting_video, edit_record, with_times

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
        labelled, data_path='films/a.mp4', start_seconds=1.25, dataset_name='films',
        labels=((4, 'dog'), (0, 'bark')))


@pytest.mark.parametrize('audio_encoding', ['pcm16', 'float'])
def test_parse_gives_back_what_was_encoded(video, audio_encoding):
    record = parse(records.encode(video, audio_encoding))
    assert record.example_id.numpy() == b'clip-3'
    assert record.frames.numpy().tolist() == video.frames
    np.testing.assert_allclose(record.frame_seconds, np.arange(24) / 30, rtol=0, atol=0.5e-6)
    assert record.frame_rate.numpy() == 30.0 and record.sample_rate.numpy() == 16000.0
    assert record.waveform.dtype == tf.int16
    np.testing.assert_array_equal(record.waveform, video.waveform)
    assert record.label_index.numpy().tolist() == [4, 0]
    assert record.label_string.numpy().tolist() == [b'dog', b'bark']


def test_float_audio_is_exact_over_the_whole_range_and_clipped_beyond():
    waveform = np.arange(-32768, 32768).astype(np.int16)
    full = dataclasses.replace(counting_video(0, 0.2), waveform=waveform)
    encoded = records.encode(full, 'float')
    np.testing.assert_array_equal(parse(encoded).waveform, waveform)

    def louder(example):
        values = example.feature_lists.feature_list[records.AUDIO_FLOATS].feature[0].float_list
        values.value[:] = [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]
    waveform = parse(edit_record(encoded, louder)).waveform.numpy()
    assert waveform.tolist() == [-32768, -32768, -16384, 0, 16384, 32767, 32767]


def test_encoded_fields_are_those_of_the_docstring(video):
    example = tf.train.SequenceExample.FromString(records.encode(video))
    context, lists = example.context.feature, example.feature_lists.feature_list
    for name in (*context, *lists):
        assert name in records.__doc__
    assert context['clip/start/timestamp'].int64_list.value[0] == 1_250_000
    assert context['clip/end/timestamp'].int64_list.value[0] == 2_050_000
    assert context['WAVEFORM/feature/num_samples'].int64_list.value[0] == 12800
    assert context['clip/data_path'].bytes_list.value[0] == b'films/a.mp4'
    assert context['example/dataset_name'].bytes_list.value[0] == b'films'
    times = [feature.int64_list.value[0] for feature in lists['image/timestamp'].feature]
    assert times[:4] == [0, 33333, 66667, 100000]
    pcm = lists['WAVEFORM/feature/bytes'].feature[0].bytes_list.value[0]
    assert pcm == video.waveform.astype('<i2').tobytes()
    assert 'WAVEFORM/feature/floats' not in lists


def test_sound_alone(video):
    sound = dataclasses.replace(video, frames=[], frame_rate=0.0, height=0, width=0)
    encoded = records.encode(sound)
    example = tf.train.SequenceExample.FromString(encoded)
    context, lists = example.context.feature, example.feature_lists.feature_list
    assert not [name for name in (*context, *lists) if name.startswith('image/')]
    assert context['clip/end/timestamp'].int64_list.value[0] == 2_050_000
    record = parse(encoded)
    assert record.frames.shape == record.frame_seconds.shape == (0,) and record.frame_rate == 0.0
    np.testing.assert_array_equal(record.waveform, video.waveform)
    assert record.label_string.numpy().tolist() == [b'dog', b'bark']
    assert record.sample_rate == 16000.0


def test_same_video_same_bytes():
    # In every process, of every version: the entries of a protocol buffer's map have no order of
    # their own.
    video = records.Video('a', [b'j'], 25.0, 8, 8, np.zeros(640, np.int16), 16000)
    digest = hashlib.sha256(records.encode(video)).hexdigest()
    assert digest == '93674b291eddbde6476ab74bfe6f74796a30c940e90b76ef3ea35df80da5ec78'


def test_encode_refuses_what_it_cannot_write(video):
    with pytest.raises(ValueError, match='audio_encoding'):
        records.encode(video, 'mp3')
    for waveform in (video.waveform.astype(np.float32), video.waveform[:, None]):
        with pytest.raises(ValueError, match='int16'):
            records.encode(dataclasses.replace(video, waveform=waveform))


def test_irregular_times_are_taken_as_they_are(video):
    seconds = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.06, 24))
    np.testing.assert_allclose(parse(with_times(records.encode(video), seconds)).frame_seconds,
                               seconds, atol=0.5e-6)


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
    unnamed = [edit_record(records.encode(counting_video(clip, 0.2)), drop(records.EXAMPLE_ID))
               for clip in (0, 1)]
    first, second = (parse(record).example_id.numpy() for record in unnamed)
    assert first and second and first != second
    assert parse(unnamed[0]).example_id.numpy() == first
