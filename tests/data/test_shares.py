"""Each machine reads its own share of the records, and all shares together are all records once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avts_tf.data import records
from avts_tf.data.aside import count_aside, is_aside, trained_before
from avts_tf.data.pipeline import make_dataset, position_after, steps_per_epoch
from avts_tf.data.shards import find_shards
from avts_tf.data.shares import Share, least_trained
from avts_tf.errors import UserError
from tests.data.truth import assert_same, collect, config_of, state_of
from tests.helpers import counting_video, write_records

RECORDS, ASIDE = 43, 4
# Files of very different lengths, one more than machines or fewer.
LAYOUTS = {'few': (30, 13), 'many': (3, 15, 1, 9, 10, 5)}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder for each layout, with the same records in the same order."""
    folder = tmp_path_factory.mktemp('shares')
    encoded = [records.encode(counting_video(clip, seconds=1.0)) for clip in range(RECORDS)]
    for layout, counts in LAYOUTS.items():
        (folder / layout).mkdir()
        ends = np.cumsum(counts)
        for number, (count, end) in enumerate(zip(counts, ends, strict=True)):
            write_records(folder / layout / f'clips-{number}', encoded[end - count:end])
    return folder


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.integers(1, 9))
def test_shares_are_disjoint_complete_and_as_long_as_each_other(counts, machines):
    shards, stored = [(f'file-{i}', count) for i, count in enumerate(counts)], sum(counts)
    offsets, lengths, seen = np.cumsum([0, *counts]), [], []
    for number in range(machines):
        share = Share(number, machines)
        own = []
        for part in share.parts(shards):
            assert part.path == f'file-{part.file}' and part.offset == offsets[part.file]
            assert 0 <= part.first < part.end <= counts[part.file]
            own += range(part.offset + part.first, part.offset + part.end)
        seen += own
        lengths.append(len(own))
        assert share.count_trained(stored) == sum(not is_aside(one, stored) for one in own)
    assert seen == list(range(stored)) and np.ptp(lengths) <= 1
    assert least_trained(stored, machines) == min(
        Share(number, machines).count_trained(stored) for number in range(machines))


@given(st.integers(1, 5000), st.data())
def test_records_before_a_number_that_are_trained_on(stored, data):
    number = data.draw(st.integers(0, stored))
    assert trained_before(number, stored) == sum(not is_aside(one, stored)
                                                 for one in range(number))


@pytest.mark.parametrize(('layout', 'machines'), [
    ('few', 2), *(pytest.param(layout, machines, marks=pytest.mark.slow) for layout, machines
                  in (('few', 1), ('few', 4), ('many', 2), ('many', 4)))])
def test_a_machine_parses_and_decodes_its_share_alone(folder, counted, layout, machines):
    config, frames = config_of(batch_size=8, shuffle_records=16), config_of().clip.frames
    seen, per_machine = [], []
    for number in range(machines):
        counted.clear()
        state = state_of(epoch=1)
        # One clip a batch, so that none is left over.
        names = [int(batch['example_hash'][0]) for batch in collect(make_dataset(
            f'{folder}/{layout}/*', config, state=state, batch_size=1,
            share=Share(number, machines)))]
        assert counted == {'parsed': len(names), 'frames': frames * len(names)}
        assert state.skips() == {}
        seen += names
        per_machine.append(len(names))
    assert len(seen) == len(set(seen)) == RECORDS - ASIDE == RECORDS - count_aside(RECORDS)
    assert np.ptp(per_machine) <= 1 and max(per_machine) <= -(-len(seen) // machines)
    assert min(per_machine) == least_trained(RECORDS, machines)
    shards = find_shards(f'{folder}/{layout}/*')
    assert steps_per_epoch(shards, config, machines) == min(per_machine) // (8 // machines)


def test_a_share_is_resumed_from_its_own_position(folder):
    config, share = config_of(batch_size=8, shuffle_records=8, passes_per_epoch=2), Share(1, 2)
    state = state_of()
    dataset = make_dataset(f'{folder}/few/*', config, state=state, share=share)
    batches = collect(dataset)
    shards = find_shards(f'{folder}/few/*')
    assert len(batches[0]['kind']) == 4
    assert len(batches) >= int(dataset.cardinality()) == steps_per_epoch(shards, config, 2) == 9
    # Each batch is of clips of this machine, its easy negatives too.
    own = {int(name) for batch in batches for name in batch['example_hash']}
    assert {int(name) for batch in batches for name in batch['audio_hash'].flat} <= own
    for done in (2, 6):
        state.start.assign(batches[done - 1]['end'][-1])
        assert position_after(done, shards, config, share) == batches[done - 1]['end'][-1]
        assert_same(collect(dataset), batches[done:])


def test_what_a_file_has_lost_is_counted_by_the_machines_whose_share_it_was(folder):
    config = config_of(shuffle_records=8)
    shards = find_shards(f'{folder}/few/*')
    claimed = [(path, count + 10) for path, count in shards]  # as if they had held more before
    lost, read = [], 0
    for number in range(2):
        state = state_of()
        dataset = make_dataset('', config, state=state, shards=claimed, batch_size=1,
                               share=Share(number, 2))
        read += len(collect(dataset))
        lost.append(sum(count for count, _ in state.skips().values()))
    # The first share ends with record 30 of the first file, which held 0 to 29.
    assert lost == [1, 19]
    aside = sum(is_aside(number, 63) for number in (*range(30), *range(40, 53)))
    assert read == 43 - aside


def test_a_share_that_is_too_small_for_a_batch_is_told(folder):
    with pytest.raises(UserError, match='9 records to train on for each of 4 machines make no full '
                                        'batch of 16; lower `batch_size`'):
        make_dataset(f'{folder}/few/*', config_of(batch_size=64), share=Share(0, 4))
    with pytest.raises(UserError, match=r'0 record\(s\) for each of 30 machines, but an easy'):
        make_dataset(f'{folder}/few/*', config_of(batch_size=60), share=Share(0, 30))
