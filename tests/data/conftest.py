"""What tests of pipelines share."""

import collections

import pytest
import tensorflow as tf

from avts_tf.data import clips, pipeline, records


@pytest.fixture
def counted(monkeypatch):
    """A counter of `parsed` records and decoded `frames`, of all pipelines made within the test."""
    counts = collections.Counter()

    def counting(name, function, size):
        def wrapped(*arguments):
            tf.numpy_function(lambda many: counts.update({name: int(many)}),
                              [size(arguments[0])], [])
            return function(*arguments)
        return wrapped

    monkeypatch.setattr(clips.records, 'parse',
                        counting('parsed', records.parse, lambda _: tf.constant(1)))
    monkeypatch.setattr(pipeline, 'decode_window',
                        counting('frames', pipeline.decode_window, tf.size))
    return counts
