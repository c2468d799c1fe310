"""What becomes of sound before a tower, and streams that share batches."""

import math

import numpy as np
import pytest
import scipy.signal

from avts_tf.data import media
from avts_tf.errors import UserError
from avts_tf.inference import embed
from tests.helpers import noise

RATE, WINDOW = 16000, 7680


def pcm(sound, rate):
    return np.concatenate(list(embed.pcm_blocks(sound, rate, RATE)))


@pytest.mark.parametrize('channels', [2, 6, 12])
@pytest.mark.parametrize('dtype', ['int16', 'uint8', 'int32', 'float32'])
def test_channels_are_averaged(channels, dtype):
    coarse = np.stack([noise(9000, seed) >> 8 for seed in range(channels)], 1)  # 8 bits hold it
    coarse = coarse.astype(float)
    sound = {'int16': coarse * 2**8, 'uint8': coarse + 128, 'int32': coarse * 2**24,
             'float32': coarse / 128}[dtype].astype(dtype)
    np.testing.assert_allclose(pcm(sound, RATE), coarse.mean(1) * 2**8, atol=1)


def tones(seconds, rate):
    time = np.arange(round(seconds * rate)) / rate
    return sum(0.2 * np.sin(2 * np.pi * hertz * time + hertz) for hertz in (180.0, 1000.0, 2900.0))


@pytest.mark.parametrize('rate', [8000, 11025, 22050, 44100, 48000, 96000])
def test_other_rates(rate):
    """Tones below half of both rates come through, to -50 dB, at their time and duration."""
    sound = tones(1.37, rate)
    got = pcm(sound, rate) / 32768
    assert len(got) == round(len(sound) / rate * RATE)
    expected, inner = tones(len(got) / RATE, RATE), slice(400, -400)
    error, power = np.mean((got - expected)[inner]**2), np.mean(expected**2)
    assert error < 10 ** (-50 / 10) * power
    # An independent resampler gives the same sound.
    divisor = math.gcd(rate, RATE)
    other = scipy.signal.resample_poly(sound, RATE // divisor, rate // divisor)[:len(got)]
    assert np.abs(got[:len(other)] - other)[inner].max() < 0.01


def test_tones_above_half_the_rate_are_silenced():
    tone = 0.5 * np.sin(2 * np.pi * 15000 * np.arange(48000) / 48000)
    assert np.abs(pcm(tone, 48000)[400:-400]).max() < 32768 * 0.5 * 10 ** (-40 / 20)


@pytest.mark.parametrize(('sound', 'rate', 'message'), [
    (np.array([0.1, np.nan]), RATE, 'waveform: holds NaN or infinite'),
    (np.array([0.1, -np.inf], np.float32), RATE, 'NaN or infinite'),
    (np.zeros(0, np.float32), RATE, 'is empty'),
    (np.zeros((0, 2), np.int16), RATE, 'is empty'),
    (np.zeros((2, 9000), np.int16), RATE, '9000 channels.*samples, channels'),
    (np.zeros((2, 3, 4), np.int16), RATE, r'not of shape \[2, 3, 4\]'),
    (np.zeros(9000, np.int64), RATE, 'not int64'),
    (np.zeros(9000, bool), RATE, 'not bool'),
    (np.zeros(9000, np.int16), 0, 'sample_rate=0: '),
    (np.zeros(9000, np.int16), 44100.5, 'sample_rate=44100.5: '),
])
def test_sounds_that_are_refused(sound, rate, message):
    with pytest.raises(UserError, match=message):
        embed.pcm_blocks(sound, rate, RATE)


class Counter:
    """A tower that embeds a window as its sum."""

    name, rate, window, repeat_ends = 'counter', 10.0, 4, False

    def __init__(self):
        self.batches = []

    def run(self, windows):
        self.batches.append(len(windows))
        return {'sums': windows.sum(1)}

    @staticmethod
    def result(sums, timestamps):
        return sums.tolist(), timestamps.tolist()


def test_streams_share_batches():
    tower = Counter()
    items = [('a', np.arange(6)), ('a', np.arange(6, 12)), ('broken', np.ones(8)),
             ('broken', media.Unsuitable('unreadable', 'in the middle')), ('b', np.ones(2)),
             ('c', np.arange(20)), ('d', np.ones(1)), ('nothing', np.zeros(0))]
    got = dict(embed.embed_streams(tower, items, batch_size=4))
    assert list(got) == ['a', 'broken', 'b', 'c', 'd', 'nothing']
    assert got.pop('broken').detail == 'in the middle'
    assert got.pop('nothing').reason == 'too_short'
    assert got == {'a': ([6, 22, 38], [0.2, 0.6, 1.0]), 'b': ([2], [0.2]), 'd': ([1], [0.2]),
                   'c': ([6, 22, 38, 54, 70], [0.2, 0.6, 1.0, 1.4, 1.8])}
    assert tower.batches == [4, 4, 4]   # 3 + 2 of the broken one + 1 + 5 + 1 windows


def test_streams_come_out_as_they_end():
    """Features come with their batch, and no stream is read before it is needed."""
    read = []

    def items():
        for number in range(100):
            read.append(number)
            yield number, np.ones(8)

    for number, _ in embed.embed_streams(Counter(), items(), batch_size=4):
        assert len(read) <= number + 4
        if number == 6:
            break
    else:
        pytest.fail('it ended before')


def test_windows_of_other_shapes_are_batches_of_their_own():
    tower = Counter()
    items = [('small', np.ones([4, 2])), ('large', np.ones([4, 3])), ('large', np.ones([4, 3]))]
    got = dict(embed.embed_streams(tower, items, batch_size=4))
    assert tower.batches == [1, 2]
    assert got['small'][0] == [[4, 4]] and got['large'][0] == [[4, 4, 4]] * 2


@pytest.mark.parametrize(('options', 'message'), [
    ({'hop_seconds': 0.0}, 'hop_seconds=0.0: '), ({'hop_seconds': -1.0}, 'hop_seconds=-1.0: '),
    ({'hop_seconds': math.nan}, 'hop_seconds=nan: '), ({'batch_size': 0}, 'batch_size=0: '),
])
def test_windows_that_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        list(embed.embed_streams(Counter(), [], **options))
