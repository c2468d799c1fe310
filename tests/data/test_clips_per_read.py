"""Several clips of a record that is read once: true windows, mixed with others, resumed exactly."""

import collections
import dataclasses

import numpy as np
import pytest

from avts_tf.data import records
from avts_tf.data.pipeline import make_dataset, position_after, steps_per_epoch
from avts_tf.data.sampling import NO_PAIR, Kind
from avts_tf.data.shards import find_shards
from avts_tf.data.shares import ALL, Share
from tests.data.truth import (
    CLIPS,
    assert_same,
    check_truth,
    clips_of,
    collect,
    config_of,
    kind_counts,
    state_of,
)
from tests.helpers import counting_video, edit_record, write_records

# Blocks of 6 records beside batches of 4: here and there a batch has a record twice.
SETTINGS = {'clips_per_read': 4, 'batch_size': 4, 'shuffle_records': 6}


@pytest.fixture(scope='module')
def shard(tmp_path_factory):
    return write_records(tmp_path_factory.mktemp('clips') / 'clips', [
        records.encode(counting_video(clip, seconds=2.0)) for clip in range(CLIPS)])


@pytest.fixture(scope='module')
def faulty(tmp_path_factory):
    """Records among which some are too short, one is no record and one has a bad picture."""
    def spoil(example):
        for feature in example.feature_lists.feature_list[records.FRAMES].feature:
            feature.bytes_list.value[:] = [b'no picture']
    good = [records.encode(counting_video(clip, seconds=1.5)) for clip in range(14)]
    short = [records.encode(dataclasses.replace(counting_video(0, 0.2), example_id=name))
             for name in ('short-0', 'short-1')]
    blind = edit_record(
        records.encode(dataclasses.replace(counting_video(0, 1.0), example_id='blind')), spoil)
    folder = tmp_path_factory.mktemp('faulty')
    write_records(folder / 'clips-0', [short[0], *good[:5], b'no record', *good[5:8]])
    write_records(folder / 'clips-1', [*good[8:12], blind, short[1], *good[12:]])
    return f'{folder}/clips-*'


def test_a_record_is_parsed_once_and_gives_clips_of_other_windows(shard, counted):
    config = config_of(**SETTINGS)
    dataset = make_dataset(shard, config, state=state_of())
    batches = collect(dataset)
    assert counted == {'parsed': CLIPS, 'frames': 4 * CLIPS * config.clip.frames}
    assert len(batches) == int(dataset.cardinality()) == CLIPS
    assert len(batches) == steps_per_epoch(find_shards(shard), config)
    grid = {clip: np.arange(50) / 25 for clip in range(CLIPS)}
    check_truth(batches, grid, dict.fromkeys(grid, 32000), config)  # an easy one is another clip's
    assert set(kind_counts(batches)) == {*Kind}
    starts, order = collections.defaultdict(list), []
    for clip, entry in clips_of(batches):
        starts[clip].append(float(entry['video_start_seconds']))
        order.append(clip)
    assert {len(times) for times in starts.values()} == {4}
    assert sum(len(set(times)) == 4 for times in starts.values()) > CLIPS / 2
    # Two blocks of six records, four rounds in each, in another order each time.
    rounds = np.reshape(order, [8, 6])
    assert all(len(set(one)) == 6 for one in rounds)
    assert all(set(one) == set(rounds[4 * (number // 4)]) for number, one in enumerate(rounds))
    assert len({tuple(one) for one in rounds}) > 6
    # There was something to guard: batches with two clips of one record.
    assert any(len(set(batch['example_hash'])) < 4 for batch in batches)


def test_clips_of_one_record_alone_have_no_easy_negative(tmp_path):
    path = write_records(tmp_path / 'clips', [records.encode(counting_video(0, 2.0))] * 3)
    config = config_of(**SETTINGS, easy_place='same')
    batches = collect(make_dataset(path, config, state=state_of([1, 0, 0])))
    assert kind_counts(batches) == {Kind.POSITIVE: 12, NO_PAIR: 12}


@pytest.mark.parametrize('easy_place', [
    'any', pytest.param('same', marks=pytest.mark.slow)])
def test_it_resumes_after_each_batch_and_decodes_only_the_rest(faulty, counted, easy_place):
    config = config_of(**SETTINGS, passes_per_epoch=2, easy_place=easy_place)
    state = state_of(epoch=2)
    dataset = make_dataset(faulty, config, state=state)
    batches = collect(dataset)
    assert len(batches) == 2 * 14 * 4 // 4
    skips = state.skips()
    count, (name,) = skips.pop('unreadable')
    assert count == 2 and name.endswith('clips-0: record 6')
    assert {reason: (many, sorted(named)) for reason, (many, named) in skips.items()} == {
        'too_short': (4, ['short-0', 'short-1']), 'bad_frame': (8, ['blind'])}
    ends = [int(batch['end'][-1]) for batch in batches]
    assert ends == sorted(set(ends))
    for done in (5, 6, 27):
        counted.clear()
        state.start.assign(ends[done - 1])
        rest = collect(dataset)
        assert_same(rest, batches[done:])
        # Those of the bad picture are tried again; what comes before is not decoded.
        assert counted['frames'] <= (4 * len(rest) + 8) * config.clip.frames
    assert counted['parsed'] <= 2 * 6 + 2


@pytest.mark.slow
def test_a_fault_that_stops_is_the_first(faulty):
    import tensorflow as tf

    state = state_of()
    with pytest.raises(tf.errors.InvalidArgumentError):
        collect(make_dataset(faulty, config_of(**SETTINGS), state=state, on_bad_record='stop'))
    assert state.first_fault()[0] in ('too_short', 'bad_frame', 'unreadable')
    whole = state_of()
    collect(make_dataset(faulty, config_of(**SETTINGS), state=whole))
    assert state.first_fault() == whole.first_fault()


@pytest.mark.parametrize('share', [ALL, pytest.param(Share(1, 2), marks=pytest.mark.slow)])
def test_the_position_after_steps_is_that_of_the_batch(shard, share):
    config = config_of(**{**SETTINGS, 'batch_size': 4 * share.machines}, passes_per_epoch=3)
    batches = collect(make_dataset(shard, config, state=state_of(), share=share))
    positions = [position_after(step, find_shards(shard), config, share)
                 for step in range(1, len(batches))]
    # At the end of a block the next one's beginning means the same.
    same = [position == batch['end'][-1] for position, batch
            in zip(positions, batches, strict=False)]
    block_ends = [(step * 4) % 24 == 0 for step in range(1, len(batches))]
    assert same == [not at_end for at_end in block_ends] and 0 < sum(block_ends) < len(same)
