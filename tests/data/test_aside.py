"""Records that are set aside from training."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from avts_tf.data import records
from avts_tf.data.aside import count_aside, is_aside
from avts_tf.data.pipeline import make_dataset, steps_per_epoch
from avts_tf.data.shards import find_shards
from tests.data.truth import config_of, state_of
from tests.helpers import counting_video, write_records


def test_a_tenth_of_the_records_is_set_aside_from_training(tmp_path):
    config = config_of(batch_size=5, shuffle_records=64)
    encoded = [records.encode(counting_video(clip, seconds=1.0)) for clip in range(43)]
    for index, part in enumerate((encoded[:17], encoded[17:])):
        write_records(tmp_path / f'clips{index}', part)
    pattern = f'{tmp_path}/clips*'

    def names(**options):
        batches = make_dataset(pattern, config, state=state_of(), **options)
        return [number for batch in batches for number in batch['example_hash'].numpy().tolist()]

    every, aside = names(training=False), names(training=False, aside=True)
    trained = names(batch_size=1)
    assert len(every) == 43 and len(aside) == 4
    assert sorted(trained + aside) == sorted(every)
    assert steps_per_epoch(find_shards(pattern), config) == len(names()) // 5 == 7
    # They lie in both files.
    first = {int(records.hash_name(records.parse(one).example_id)) for one in encoded[:17]}
    assert 1 <= len(first & set(aside)) <= 3


@given(st.integers(2, 50_000))
def test_records_set_aside_are_a_tenth_spread_evenly(total):
    numbers = [number for number in range(total) if is_aside(number, total)]
    assert len(numbers) == count_aside(total)
    assert len(numbers) in ((0,) if total < 20 else (min(total // 10, 2000),))
    assert len(numbers) < 2 or np.ptp(np.diff(numbers)) <= 1
