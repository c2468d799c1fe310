"""Records and files that cannot be used: each is told by reason and name, the others come through
untouched, nothing hangs.
"""

import dataclasses
import os
import threading

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avts_tf.data import aside, records
from avts_tf.data.pipeline import make_dataset
from avts_tf.data.sampling import Kind
from avts_tf.data.shards import file_stamps, find_shards
from tests.data.truth import RATE, check_truth, clips_of, collect, config_of, state_of
from tests.helpers import PATIENCE_SECONDS, counting_video, edit_record, write_records

SECONDS = 1.4
GRID = np.arange(35) / 25


@pytest.fixture(scope='module')
def good():
    return [records.encode(counting_video(clip, SECONDS)) for clip in range(8)]


def within(seconds, function):
    """What a function returns; fails where it hangs."""
    results, errors = [], []

    def run():
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), 'it hangs'
    if errors:
        raise errors[0]
    return results[0]


def plain_clips(batches):
    return [(int(name), batch['video'][i].tobytes(), batch['audio'][i, 0].tobytes())
            for batch in batches
            for i, name in enumerate(batch['example_hash'])]


def feature(example, name):
    return example.feature_lists.feature_list[name].feature


def jpeg(height, width):
    return tf.io.encode_jpeg(np.zeros([height, width, 3], np.uint8)).numpy()


def edits():
    """Dict from a name to (reason, function of a `SequenceExample` that spoils it)."""
    def drop(*names):
        def edit(example):
            for name in names:
                example.feature_lists.feature_list.pop(name, None)
        return edit

    def frames(change):
        def edit(example):
            values = feature(example, records.FRAMES)
            for i in range(len(values)):
                values[i].bytes_list.value[:] = [change(i, values[i].bytes_list.value[0])]
        return edit

    def keep_frames(count):
        def edit(example):
            for name in (records.FRAMES, records.FRAME_TIMES):
                del feature(example, name)[count:]
        return edit

    def times(change):
        def edit(example):
            for i, value in enumerate(feature(example, records.FRAME_TIMES)):
                value.int64_list.value[:] = [change(i, value.int64_list.value[0])]
        return edit

    def floats(*bad):
        def edit(example):
            drop(records.AUDIO_BYTES)(example)
            feature(example,
                    records.AUDIO_FLOATS).add().float_list.value[:] = [
                        *[0.1] * 10000, *bad, *[0.1] * 12399]
        return edit

    def context(name, value):
        def edit(example):
            example.context.feature[name].float_list.value[:] = [value]
        return edit

    def both(*edits):
        def edit(example):
            for one in edits:
                one(example)
        return edit

    def odd_sound(example):
        value = feature(example, records.AUDIO_BYTES)[0].bytes_list
        value.value[:] = [value.value[0][:-1]]

    def bomb(i, data):
        at = data.index(b'\xff\xc0')  # the header of the image: height and width follow
        return data[:at + 5] + b'\xff\xdc\xff\xdc' + data[at + 9:]

    no_times = drop(records.FRAME_TIMES)
    return {
        'mute': ('no_audio', drop(records.AUDIO_BYTES)),
        'blind': ('no_frames', drop(records.FRAMES, records.FRAME_TIMES)),
        'one-frame': ('too_short', keep_frames(1)), 'odd-sound': ('unreadable', odd_sound),
        'no-jpeg': ('bad_frame', frames(lambda i, data: b'no picture')),
        'empty-jpeg': ('bad_frame', frames(lambda i, data: b'')),
        'cut-jpeg': ('bad_frame', frames(lambda i, data: data[:len(data) // 2])),
        'bomb': ('bad_frame', frames(bomb)),
        'sizes': ('bad_frame', frames(lambda i, data: jpeg(32 + 8 * (i % 2), 40))),
        'nan': ('bad_audio', floats(float('nan'))), 'infinite': ('bad_audio', floats(float('inf'))),
        'negative': ('no_frames', times(lambda i, time: time - 10_000_000)),
        'backwards': ('bad_frame_times', times(lambda i, t: 2_000_000 - t)),
        'hole': ('bad_frame_times', times(lambda i, time: time + (3_600_000_000 if i > 9 else 0))),
        'absurd': ('bad_frame_times', times(lambda i, time: 2**62 if i == 20 else time)),
        'extreme': ('bad_frame_times', times(lambda i, time: (2**63 - 1) * (-1) ** i)),
        'late': ('too_short', times(lambda i, time: time + 2**55)),
        'timeless': ('no_frame_times', both(no_times, context(records.FRAME_RATE, 0.0))),
        'rate-nan': ('bad_frame_times', both(no_times, context(records.FRAME_RATE, float('nan')))),
        'rate-negative': ('no_frames',
                          both(no_times, context(records.FRAME_RATE, -25.0), keep_frames(0))),
        'sample-rate-nan': ('other_sample_rate', context(records.SAMPLE_RATE, float('nan'))),
        'sample-rate-huge': ('other_sample_rate', context(records.SAMPLE_RATE, 3e38)),
    }


def spoilt_records():
    """Dict from a name to (reason, serialised record of that name)."""
    made = {}
    for name, (reason, edit) in edits().items():
        video = dataclasses.replace(counting_video(9, SECONDS), example_id=name)
        made[name] = reason, edit_record(records.encode(video), edit)
    return made


@pytest.mark.parametrize('training', [True, pytest.param(False, marks=pytest.mark.slow)])
def test_every_fault_is_told_by_reason_and_name(good, tmp_path, training, monkeypatch):
    monkeypatch.setattr(aside, 'ASIDE_PART', 0.0)  # what is set aside is not looked at
    spoilt = spoilt_records()
    garbage = [b'', b'no record', b'\xff' * 300]
    mixed = [*good[:4], *(record for _, record in spoilt.values()), *garbage, *good[4:]]
    config, state = config_of(shuffle_records=1), state_of()
    path = write_records(tmp_path / 'mixed', mixed)
    batches = collect(make_dataset(path, config, training=training, state=state))
    expected = {}
    for name, (reason, _) in spoilt.items():
        expected.setdefault(reason, []).append(name)
    # An empty record is a record of nothing.
    expected['no_frames'].append(records.unnamed('').numpy().decode())
    # What cannot be parsed has no name but its place.
    expected['unreadable'] = [f'{path}: record {4 + place}'
                              for place in (list(spoilt).index('odd-sound'), len(spoilt) + 1,
                                                                          len(spoilt) + 2)]
    assert state.skips() == {reason: (len(names), names[:5]) for reason, names in expected.items()}
    alone = collect(make_dataset(write_records(tmp_path / 'good', good), config, training=training,
                                 state=state_of()))
    assert plain_clips(batches) == plain_clips(alone)
    check_truth(batches, dict.fromkeys(range(8), GRID), dict.fromkeys(range(8), 22400), config)


@pytest.mark.parametrize('offset', [0.2, *(pytest.param(offset, marks=pytest.mark.slow)
                                           for offset in (-0.2, 0.013))])
def test_sound_that_does_not_begin_with_the_pictures(tmp_path, offset):
    def edit(example):
        feature(example, records.AUDIO_TIME)[0].int64_list.value[:] = [round(offset * 1e6)]
    encoded = [edit_record(records.encode(counting_video(clip, SECONDS)), edit)
               for clip in range(6)]
    state = state_of([1, 0, 0])
    batches = collect(make_dataset(write_records(tmp_path / 'clips', encoded),
                                   config_of(passes_per_epoch=4), state=state))
    assert state.skips() == {}
    # Frame i shows i / 25 s, sample n sounds at offset + n / 16000 s.
    times = {clip: GRID - offset for clip in range(6)}
    seen = set()
    for batch in batches:
        for i in range(len(batch['kind'])):
            from tests.helpers import read_frames, read_sound
            clip, indices = read_frames(batch['video'][i])
            owner, start = read_sound(batch['audio'][i, 0])
            assert owner == clip
            assert abs(start / RATE - times[clip][indices[0]]) <= 0.5 / RATE + 1e-9
            seen.add(int(indices[0]))
    assert min(seen) >= (round(offset * 25) if offset > 0 else 0)
    assert max(seen) <= 23
    assert len(seen) > 6


def spoil_file(path, how, encoded):
    with open(path, 'rb') as file:
        content = bytearray(file.read())
    if how == 'flipped':
        content[len(content) * 5 // 8] ^= 4
    elif how == 'flipped length':
        content[0] ^= 1
    elif how == 'cut':
        del content[len(content) * 5 // 8:]
    if how == 'gone':
        os.remove(path)
    elif how == 'folder':
        os.remove(path)
        os.mkdir(path)
    elif how == 'shorter':
        write_records(path, encoded[:1])
    elif how == 'longer':
        write_records(path, [*encoded, *encoded[::-1]])
    else:
        with open(path, 'wb') as file:
            file.write(content)


@pytest.mark.parametrize('how', ['flipped', *(
    pytest.param(how, marks=pytest.mark.slow)
    for how in ('gone', 'shorter', 'flipped length', 'cut', 'folder', 'longer'))])
def test_a_file_that_is_damaged_in_mid_epoch(good, tmp_path, how):
    paths = [write_records(tmp_path / f'clips-{i}', good[4 * i:4 * i + 4]) for i in range(2)]
    config, state = config_of(batch_size=3, passes_per_epoch=2), state_of()
    dataset = make_dataset(f'{tmp_path}/clips-*', config, state=state)
    stopping = make_dataset(f'{tmp_path}/clips-*', config, state=state_of(), on_bad_record='stop')
    # Times of change are exact to the second only, and the file is spoilt within the same one.
    os.utime(paths[1], (0, 0))
    before = file_stamps([(path, 4) for path in paths])
    spoil_file(paths[1], how, good[4:])
    assert [a != b for a, b in zip(before, file_stamps([(path, 4) for path in paths]),
                                   strict=True)] == [False, True]
    batches = within(PATIENCE_SECONDS, lambda: collect(dataset))
    check_truth(batches, dict.fromkeys(range(8), GRID), dict.fromkeys(range(8), 22400), config)
    lost = {'longer': 0, 'flipped': 2, 'cut': 2, 'shorter': 3}.get(how, 4)
    assert state.skips() == ({'lost': (2 * lost, [paths[1]])} if lost else {})
    assert len(batches) == (2 * (8 - lost)) // 3
    if lost:
        with pytest.raises((tf.errors.DataLossError, tf.errors.NotFoundError,
                            tf.errors.InvalidArgumentError,
                            tf.errors.FailedPreconditionError, tf.errors.UnknownError)):
            within(PATIENCE_SECONDS, lambda: collect(stopping))


def test_an_epoch_resumes_after_any_batch(good, tmp_path):
    spoilt = [record for _, record in spoilt_records().values()][:12]
    mixed = [record for pair in zip(good + good[:4], spoilt, strict=True) for record in pair]
    for index in range(3):
        write_records(tmp_path / f'clips-{index}', mixed[index::3])
    state, config = state_of([0.4, 0.3, 0.3]), config_of(batch_size=3, passes_per_epoch=3,
                                                         shuffle_records=5)
    shards = find_shards(f'{tmp_path}/clips-*')
    dataset = make_dataset(f'{tmp_path}/clips-*', config, state=state, shards=shards)
    spoil_file(f'{tmp_path}/clips-1', 'flipped', None)
    state.epoch.assign(2)
    whole = collect(dataset)
    assert state.skips()['lost'][0] == 3 * 3 and len(state.skips()) > 5 and len(whole) > 7
    again = state_of([0.4, 0.3, 0.3], epoch=2)
    dataset = make_dataset(f'{tmp_path}/clips-*', config, state=again, shards=shards)
    for done in (1, len(whole) // 2, len(whole) - 1):
        again.reset_counts()
        again.start.assign(int(whole[done - 1]['end'][0]))
        rest = collect(dataset)
        assert len(rest) == len(whole) - done
        for one, other in zip(rest, whole[done:], strict=True):
            for name in one:
                np.testing.assert_array_equal(one[name], other[name], err_msg=name)
        # What comes before is not looked at again.
        assert all(count <= state.skips()[reason][0] for reason,
                   (count, _) in again.skips().items())


@pytest.mark.parametrize('bad', [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_record_in_flight_is_no_fault(good, tmp_path, bad):
    muted = dataclasses.replace(counting_video(9, SECONDS), example_id='mute',
                                waveform=np.zeros(0, np.int16))
    path = write_records(tmp_path / 'clips', [*[records.encode(muted)] * bad, *good * 12])
    state = state_of()
    dataset = make_dataset(path, config_of(shuffle_records=1), training=False, state=state,
                           batch_size=4)
    for _ in range(4):
        state.reset_counts()
        next(iter(dataset))  # drops what has been begun
        assert state.skips() == ({'no_audio': (1, ['mute'])} if bad else {})


# Fuzzing: a file of which every second record is spoilt, written anew for each example, and read
# by one pipeline.

FUZZED, CLEAN = 16, 16


def mutate(data, changes):
    """Bytes after a list of (what, place in [0, 1), value)."""
    data = bytearray(data)
    for what, place, value in changes:
        at = int(place * len(data))
        if not data:
            break
        if what == 'flip':
            data[at] ^= 1 << value % 8
        elif what == 'set':
            data[at] = value
        elif what == 'cut':
            del data[at:]
        elif what == 'drop':
            del data[at:at + value]
        elif what == 'double':
            data[at:at] = data[at:at + 7 * value]
        elif what == 'insert':
            data[at:at] = bytes([value]) * (value % 9)
    return bytes(data)


# Half of the places are among the keys and numbers, at the front; the rest is mostly pixels.
PLACES = st.floats(0, 0.999) | st.floats(0, 0.05)
CHANGES = st.lists(st.tuples(st.sampled_from(['flip', 'set', 'cut', 'drop', 'double', 'insert']),
                             PLACES, st.integers(0, 255)),
                   min_size=1, max_size=6)
SPOILT = st.binary(max_size=200) | st.tuples(CHANGES, st.booleans())


class Fuzzer:
    """One pipeline over a file that changes."""

    def __init__(self, folder):
        clean = [records.encode(counting_video(clip, 0.8)) for clip in range(CLEAN)]
        self.clean, self.path = clean, str(folder / 'fuzzed')
        self.base = [records.encode(counting_video(100, 0.8)),
                     records.encode(counting_video(101, 0.8), 'float')]
        self.state = state_of()
        self.write([self.base[0]] * FUZZED)
        config = config_of(shuffle_records=1, batch_size=3)
        self.dataset = make_dataset(self.path, config, training=False, state=self.state,
                                    batch_size=8)
        self.expected = self.clean_clips(collect(self.dataset))
        assert len(self.expected) == CLEAN

    def write(self, spoilt):
        write_records(self.path,
                      [record for pair in zip(self.clean, spoilt, strict=True) for record in pair])

    def clean_clips(self, batches):
        names = {int(records.hash_name(f'clip-{clip}')) for clip in range(CLEAN)}
        return [clip for clip in plain_clips(batches) if clip[0] in names]

    def run(self):
        self.state.reset_counts()
        batches = within(PATIENCE_SECONDS, lambda: collect(self.dataset))
        return batches, sum(len(batch['kind'])
                            for batch in batches), sum(count for count,
                                                       _ in self.state.skips().values())


@pytest.fixture(scope='module')
def fuzzer(tmp_path_factory):
    return Fuzzer(tmp_path_factory.mktemp('fuzz'))


def fuzz(examples):
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck),
                    derandomize=examples < 100)


def check_records(fuzzer, spoilt):
    fuzzer.write([item if isinstance(item, bytes) else mutate(fuzzer.base[item[1]], item[0])
                  for item in spoilt])
    batches, used, skipped = fuzzer.run()
    assert used + skipped == CLEAN + FUZZED                     # nothing is lost without a word
    # A spoilt record may bear a clean one's name: then there is one more of it.
    clean = [clip for clip in fuzzer.clean_clips(batches) if clip in fuzzer.expected]
    assert [clip for clip in fuzzer.expected if clip in clean] == fuzzer.expected
    for batch in batches:
        np.testing.assert_array_equal(batch['label'], batch['kind'] == Kind.POSITIVE)
        own = batch['kind'] != Kind.EASY
        assert (batch['audio_hash'] == batch['example_hash'][:, None])[
            own & (batch['kind'] >= 0)].all()


def check_file(fuzzer, changes):
    fuzzer.write([fuzzer.base[0]] * FUZZED)
    with open(fuzzer.path, 'rb') as file:
        content = file.read()
    with open(fuzzer.path, 'wb') as file:
        file.write(mutate(content, changes))
    batches, used, skipped = fuzzer.run()
    assert used + skipped == CLEAN + FUZZED
    # Every record has a checksum: what comes through is whole and true.
    for clip, entry in clips_of(batches):
        from tests.helpers import read_sound
        assert clip in (*range(CLEAN), 100) and read_sound(entry['audio'][0])[0] == clip


@pytest.mark.parametrize('examples', [3, pytest.param(2000, marks=pytest.mark.slow)])
def test_fuzzed_records(fuzzer, examples):
    """`examples` times 16 spoilt records, of bytes that mean nothing or of good records that were
    changed.
    """
    fuzz(examples)(given(st.lists(SPOILT, min_size=FUZZED,
                                  max_size=FUZZED))(lambda spoilt: check_records(fuzzer, spoilt)))()


@pytest.mark.parametrize('examples', [4, pytest.param(3000, marks=pytest.mark.slow)])
def test_fuzzed_files(fuzzer, examples):
    """`examples` files, changed anywhere."""
    fuzz(examples)(given(CHANGES)(lambda changes: check_file(fuzzer, changes)))()
