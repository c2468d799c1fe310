"""Each bad record is named with its reason, and the others are still read."""

import re

from avts_tf.data import records
from avts_tf.data.synthetic import write_world
from tests.helpers import edit_record, write_records
from tests.tfrecords_tools.record_files import audio_record, plain_video
from tfrecords_tools.verify import verify


def test_good_sets_are_verified(tmp_path):
    write_world(str(tmp_path / 'world'), videos=4, seconds=1.0, size=16, shards=2)
    path = write_records(tmp_path / 'more-00000-of-00001', [
        audio_record('a', 24000),
        records.encode(plain_video('b', 30, 29.97, (40, 30), 16016, 16000), 'float'),
    ])
    assert verify([str(tmp_path)]) == (6, [])
    assert verify([path]) == (2, [])


FAULTS = {
    'no example/id': lambda e: e.context.feature.pop(records.EXAMPLE_ID),
    'no WAVEFORM/feature/sample_rate': lambda e: e.context.feature.pop(records.SAMPLE_RATE),
    'no image/frame_rate, image/width': lambda e: [e.context.feature.pop(k)
                                                   for k in (records.FRAME_RATE,
                                                             records.IMAGE_WIDTH)],
    'neither image/encoded': lambda e: [e.feature_lists.feature_list.pop(k)
                                        for k in (records.FRAMES, records.AUDIO_BYTES)],
    '15999 bytes': lambda e: _set_bytes(e, records.AUDIO_BYTES, 0, lambda data: data[:15999]),
    '15000 audio samples, but .*16000': lambda e: _set_bytes(e, records.AUDIO_BYTES, 0,
                                                             lambda data: data[:30000]),
    '0.9375 s of audio beside 1.0000 s': lambda e: (
        _set_bytes(e, records.AUDIO_BYTES, 0, lambda data: data[:30000]),
        e.context.feature[records.NUM_SAMPLES].int64_list.value.__setitem__(0, 15000),
    ),
    '5 frames, but 4 times': lambda e: _times(e).pop(),
    '50.0 ms off the grid': lambda e: _times(e)[2].int64_list.value.__setitem__(0, 450_000),
    'frame 3 is no JPEG': lambda e: _set_bytes(e, records.FRAMES, 3, lambda data: b'no image'),
    'frame 4 cannot be decoded': lambda e: _set_bytes(e, records.FRAMES, 4, lambda data: data[:-8]),
    'frame 0 is 40 x 30, and the record states 41 x 30': lambda e: (
        e.context.feature[records.IMAGE_WIDTH].int64_list.value.__setitem__(0, 41)
    ),
    'cannot be parsed: .*image/encoded': lambda e: (
        e.feature_lists.feature_list[records.FRAMES].feature[2].Clear()
    ),
    'cannot be parsed: .*sample_rate': lambda e: (
        e.context.feature[records.SAMPLE_RATE].int64_list.value.append(16000)
    ),
    'num_samples is no integer': lambda e: (
        e.context.feature[records.NUM_SAMPLES].float_list.value.append(16000.0)
    ),
    '0 frames at 5 fps': lambda e: (
        e.feature_lists.feature_list[records.FRAMES].Clear(),
        e.feature_lists.feature_list[records.FRAME_TIMES].Clear()
    ),
}


def _times(example):
    return example.feature_lists.feature_list[records.FRAME_TIMES].feature


def _set_bytes(example, key, index, change):
    values = example.feature_lists.feature_list[key].feature[index].bytes_list.value
    values[0] = change(values[0])


def test_each_bad_record_is_named_with_its_reason(tmp_path):
    good = records.encode(plain_video('x', 5, 5.0, (40, 30), 16000, 16000))
    other = [edit_record(good, lambda e, i=i: _rename(e, f'good-{i}')) for i in range(2)]
    bad = [edit_record(edit_record(good, lambda e, i=i: _rename(e, f'bad-{i}')), fault) for i,
           fault in enumerate(FAULTS.values())]
    first = write_records(tmp_path / 'x-00000-of-00002', [other[0], *bad])
    second = write_records(tmp_path / 'x-00001-of-00002', [b'something else', other[1], other[0]])
    count, found = verify([str(tmp_path / 'x-*')])
    assert count == len(FAULTS) + 4 and len(found) == len(FAULTS) + 2
    for i, (reason,
            (path, index, name, found_reason)) in enumerate(zip(FAULTS, found, strict=False)):
        assert (path, index, name) == (first, i + 1, '' if reason == 'no example/id'
                                       else f'bad-{i}')
        assert re.search(reason, found_reason), (reason, found_reason)
    assert found[-2] == (second, 0, '', 'no tf.train.SequenceExample')
    assert found[-1] == (second, 2, 'good-0', f'the id is that of record 0 of {first} too')


def _rename(example, name):
    example.context.feature[records.EXAMPLE_ID].bytes_list.value[:] = [name.encode()]


def test_damage_is_named_and_the_rest_still_read(tmp_path):
    serialized = [records.encode(plain_video(f'v{i}', 5, 5.0, (16, 16), 16000, 16000))
                  for i in range(6)]
    path = write_records(tmp_path / 'x-00000-of-00001', serialized)
    whole = (tmp_path / 'x-00000-of-00001').read_bytes()
    size = len(whole) // 6

    def verify_bytes(data):
        (tmp_path / 'x-00000-of-00001').write_bytes(data)
        count, bad = verify([path])
        assert all(place == path and name == '' for place, _, name, _ in bad)
        return count, [(index, reason) for _, index, _, reason in bad]

    damaged = bytearray(whole)
    damaged[2 * size + 500] ^= 1
    damaged[4 * size + 100] ^= 1
    assert verify_bytes(bytes(damaged)) == (6, [(2, 'the checksum is wrong'),
                                                (4, 'the checksum is wrong')])
    count, [(index, reason)] = verify_bytes(whole[:-7])
    assert (count, index) == (6, 5) and '7 of its bytes are missing' in reason
    damaged = bytearray(whole)
    damaged[3 * size] ^= 1
    count, [(index, reason)] = verify_bytes(bytes(damaged))
    assert (count, index) == (4, 3) and f'the length is damaged at byte {3 * size}' in reason
    assert 'lost' in reason
