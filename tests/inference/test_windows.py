"""The rule of windows, for streams and for graphs, against the rule written down for a whole."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from avts_tf.inference import windows

RATE = 16000


@given(
    items=st.integers(1, 60), window=st.integers(1, 12), rate=st.sampled_from([1, 3, 25.0, 29.97]),
    hop_items=st.floats(1, 20), centered=st.booleans(), repeat_ends=st.booleans(),
    cuts=st.lists(st.integers(0, 60), max_size=6),
)
@settings(max_examples=100, deadline=None)
def test_windows_of_a_stream_are_those_of_the_whole(
    items, window, rate, hop_items, centered, repeat_ends, cuts,
):
    """However a stream comes in blocks, its windows are those that the rule cuts out of it."""
    stream = np.arange(1, items + 1, dtype=np.int64)
    hop_seconds = max(math.ceil(hop_items / rate * 1e6), math.ceil(1e6 / rate)) / 1e6
    blocks = np.split(stream, sorted(cut for cut in cuts if cut < items))
    got = list(windows.sliding_windows(blocks, window, rate, hop_seconds, centered, repeat_ends))

    before = window // 2 if centered else 0
    total, hop = items + (window if centered else 0), hop_seconds * rate
    count = min(1 + math.ceil(max(0, total - window) / hop - 1e-9), math.ceil(total / hop - 1e-9))
    assert len(got) == count
    for number, (centre, values) in enumerate(got):
        start = math.floor(number * hop + 0.5 + 1e-9) - before
        places = np.arange(start, start + window)
        expected = stream[places.clip(0, items - 1)]
        if not repeat_ends:
            expected = np.where((places >= 0) & (places < items), expected, 0)
        np.testing.assert_array_equal(values, expected)
        assert centre == pytest.approx((start + window / 2) / rate)
    if hop <= window:
        assert set(stream) <= {value for _, values in got for value in values}


@tf.function(input_signature=[tf.TensorSpec([], tf.int64)] * 3)
def in_a_graph(items, window, numerator):
    """Number and first items of windows, as the exported towers compute them."""
    hop = (numerator, windows.MICROSECONDS)
    count = windows.count_windows(items, window, hop, tf.minimum, tf.maximum)
    return count, windows.window_start(tf.range(count), hop)


@given(items=st.integers(1, 10**6), window=st.integers(1, 20000), hop_samples=st.floats(1, 10**6))
@settings(max_examples=100, deadline=None)
def test_graphs_and_python_agree(items, window, hop_samples):
    hop_seconds = max(hop_samples, items / 1000) / RATE
    hop = windows.exact_hop(hop_seconds, window, RATE)
    numerator = round(hop_seconds * windows.MICROSECONDS) * RATE
    count, starts = in_a_graph(items, window, numerator)
    assert count == windows.count_windows(items, window, hop)
    np.testing.assert_array_equal(starts, [windows.window_start(i, hop) for i in range(count)])


def test_windows_do_not_drift():
    """Where a hop is no whole number of samples, no window of 15 minutes is off by more than
    half a sample."""
    hop_seconds = 0.022676
    blocks = [np.zeros(RATE, np.int8)] * 900
    centres = [centre for centre, _ in windows.sliding_windows(blocks, 400, RATE, hop_seconds)]
    assert len(centres) == 1 + math.ceil((900 * RATE - 400) / (hop_seconds * RATE))
    expected = np.arange(len(centres)) * hop_seconds + 200 / RATE
    np.testing.assert_allclose(centres, expected, atol=0.5001 / RATE)
