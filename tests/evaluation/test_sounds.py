"""Sounds are read whole, and windows of them are equally spaced."""

import logging

import numpy as np
import pytest

from avts_tf.data.datasets import find_sources
from avts_tf.errors import UserError
from avts_tf.evaluation.sounds import cut_windows, read_sounds
from tests.evaluation.sounds import RATE, source


def test_bad_sounds_are_counted_and_left_out(collection, caplog):
    caplog.set_level(logging.INFO, logger='avts_tf')
    sources, waveforms, skipped = read_sounds(find_sources(str(collection)), RATE)
    assert len(sources) == len(waveforms) == 28
    assert dict(skipped) == {'unreadable': 1, 'missing': 1}
    assert caplog.messages[-1] == '2 of 30 sounds left out: 1 unreadable, 1 missing.'
    assert all(f'left out: {name}' in caplog.text for name in ('text.wav', 'gone.wav'))
    assert [len(waveform) for waveform in waveforms[:3]] == [38400, 41600, 44800]


def test_clips_get_the_length_of_the_collection(collection):
    _, waveforms, _ = read_sounds(find_sources(str(collection))[:4], RATE, 2.5)
    assert [len(waveform) for waveform in waveforms] == [40000] * 4
    assert not waveforms[0][38400:].any() and waveforms[0][:38400].any()


def test_nothing_to_read_is_an_error(tmp_path):
    (tmp_path / 'a.wav').write_text('nothing')
    with pytest.raises(UserError, match='none of the 1 sounds'):
        read_sounds([source('a.wav')._replace(path=str(tmp_path / 'a.wav'))], RATE)


def test_windows_are_equally_spaced():
    windows = cut_windows(np.arange(1000, dtype=np.int16), 100, 10)
    assert windows.shape == (10, 100)
    assert windows[:, 0].tolist() == list(range(0, 901, 100))
    assert all(np.all(np.diff(window) == 1) for window in windows)
    short = cut_windows(np.arange(1, 61, dtype=np.int16), 100, 3)
    assert short.shape == (3, 100) and np.all(short[:, :60]
                                              == np.arange(1, 61)) and not short[:, 60:].any()
