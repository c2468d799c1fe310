"""Embedding arrays: windows, sound of all kinds, mistakes; the exported signatures are the oracle."""

import json
import math
import shutil

import numpy as np
import pytest
import scipy.signal
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import avts_tf
from avts_tf.data import media
from avts_tf.errors import UserError
from avts_tf.inference import features
from tests.helpers import noise

RATE, WINDOW = 16000, 7680


def random_frames(count, height=16, width=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, [count, height, width, 3], np.uint8)


# Windows.

@given(
    items=st.integers(1, 60), window=st.integers(1, 12), rate=st.sampled_from([1, 3, 25.0, 29.97]), hop_items=st.floats(1, 20),
    centered=st.booleans(), repeat_ends=st.booleans(), cuts=st.lists(st.integers(0, 60), max_size=6),
)
@settings(max_examples=300, deadline=None)
def test_windows_are_those_of_the_whole_stream(items, window, rate, hop_items, centered, repeat_ends, cuts):
    """However a stream comes in blocks, its windows are those that the rule, written down for the whole of it, cuts out."""
    stream = np.arange(1, items + 1, dtype=np.int64)
    hop_seconds = max(math.ceil(hop_items / rate * 1e6), math.ceil(1e6 / rate)) / 1e6
    blocks = np.split(stream, sorted(cut for cut in cuts if cut < items))
    got = list(features.sliding_windows(blocks, window, rate, hop_seconds, centered, repeat_ends))

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


def test_no_drift():
    """Where a hop is no whole number of samples, no window is more than half a sample off, the last one of a quarter hour too."""
    centres = [centre for centre, _ in features.sliding_windows([np.zeros(RATE, np.int8)] * 900, 400, RATE, 0.022676)]
    assert len(centres) == 1 + math.ceil((900 * RATE - 400) / (0.022676 * RATE))
    np.testing.assert_allclose(centres, np.arange(len(centres)) * 0.022676 + 200 / RATE, atol=0.5001 / RATE)


@pytest.mark.parametrize('samples', [1, 5000, WINDOW, WINDOW + 1, 20001])
@pytest.mark.parametrize('hop_seconds', [None, 0.1, 0.3333333, 0.7])
def test_sound_equals_the_signature(audio, samples, hop_seconds):
    sound = noise(samples, seed=samples)
    got = audio.embed(sound, RATE, hop_seconds, batch_size=3)
    hop = np.float32(hop_seconds or WINDOW / RATE)
    expected = audio._loaded.signatures['windows'](waveform=sound[None] / np.float32(32768), hop_seconds=hop)
    assert got.embedding.shape == expected['embedding'].shape[1:] and got.embedding.dtype == np.float32
    np.testing.assert_allclose(got.embedding, expected['embedding'][0], atol=2e-5)
    np.testing.assert_allclose(got.conv5, expected['conv5'][0], atol=1e-4)
    np.testing.assert_allclose(got.timestamps, expected['timestamps'], atol=1e-6)


def test_centered(audio):
    """The window whose centre is t s is the one that lies half a window before and after it, with silence beyond the ends."""
    sound = noise(20000)
    got = audio.embed(sound, RATE, 0.1, centered=True)
    np.testing.assert_allclose(got.timestamps, np.arange(14) / 10)      # the last centre is at or after the end of 1.25 s
    padded = np.pad(sound, WINDOW)
    for number in (0, 1, 7, 13):
        start = number * 1600 + WINDOW - WINDOW // 2
        alone = audio.embed(padded[start:start + WINDOW], RATE)
        np.testing.assert_allclose(got.embedding[number], alone.embedding[0], atol=2e-5)


# Sound.

def test_dtypes_tell_the_same_sound(audio):
    coarse = (noise(12000) >> 8).astype(np.int16)                       # what 8 bits can hold
    expected = audio.embed(coarse << 8, RATE).embedding
    same = {
        'uint8': (coarse + 128).astype(np.uint8), 'int32': coarse.astype(np.int32) << 24, 'float32': coarse / np.float32(128),
        'float64': coarse / 128.0, 'float16': (coarse / 128).astype(np.float16), 'stereo': np.stack([coarse << 8] * 2, 1),
        'one channel': (coarse << 8)[:, None], 'list': (coarse / 128).tolist(),
    }
    for name, sound in same.items():
        np.testing.assert_array_equal(audio.embed(sound, RATE).embedding, expected, name)
    assert np.abs(audio.embed(coarse, RATE).embedding - expected).max() > 1e-3   # the test can fail


@pytest.mark.parametrize('channels', [2, 6, 8, 12])
@pytest.mark.parametrize('dtype', ['int16', 'uint8', 'int32', 'float32'])
def test_channels_are_averaged(channels, dtype):
    coarse = np.stack([noise(9000, seed) >> 8 for seed in range(channels)], 1).astype(float)     # what 8 bits can hold
    sound = {'int16': coarse * 2**8, 'uint8': coarse + 128, 'int32': coarse * 2**24, 'float32': coarse / 128}[dtype].astype(dtype)
    got = np.concatenate(list(features.pcm_blocks(sound, RATE, RATE)))
    np.testing.assert_allclose(got, coarse.mean(1) * 2**8, atol=1)


@pytest.mark.parametrize('rate', [8000, 11025, 22050, 44100, 48000, 96000])
def test_other_rates(rate):
    """Tones below half of both rates come through, to -50 dB, at their time; as many samples as the duration asks for."""
    seconds = 1.37
    time = np.arange(round(seconds * rate)) / rate
    tone = sum(0.2 * np.sin(2 * np.pi * hz * time + hz) for hz in (180.0, 1000.0, 2900.0))
    got = np.concatenate(list(features.pcm_blocks(tone, rate, RATE))) / 32768
    assert len(got) == round(len(tone) / rate * RATE)
    time = np.arange(len(got)) / RATE
    expected = sum(0.2 * np.sin(2 * np.pi * hz * time + hz) for hz in (180.0, 1000.0, 2900.0))
    inner = slice(400, -400)
    assert np.sqrt(np.mean((got - expected)[inner] ** 2)) < 10 ** (-50 / 20) * np.sqrt(np.mean(expected**2))
    # An independent resampler tells the same embedding's input.
    gcd = math.gcd(rate, RATE)
    other = scipy.signal.resample_poly(tone, RATE // gcd, rate // gcd)[:len(got)]
    assert np.abs(got[:len(other)] - other)[inner].max() < 0.01


def test_tones_above_half_the_rate_are_silenced():
    tone = 0.5 * np.sin(2 * np.pi * 15000 * np.arange(48000) / 48000)
    got = np.concatenate(list(features.pcm_blocks(tone, 48000, RATE)))
    assert np.abs(got[400:-400]).max() < 32768 * 0.5 * 10 ** (-40 / 20)


@pytest.mark.parametrize('sound', [
    np.zeros(9000, np.int16), np.full(9000, 20000, np.int16), np.full(9000, -1.0), np.ones(1, np.float32), np.zeros(1, np.int16),
], ids=['silence', 'DC', 'full scale', 'one loud sample', 'one sample'])
def test_sounds_without_much_in_them(audio, sound):
    got = audio.embed(sound, RATE)
    assert all(np.isfinite(values).all() for values in got)
    np.testing.assert_allclose(np.linalg.norm(got.embedding, axis=1), 1, atol=1e-5)


def test_beyond_full_scale_is_clipped(audio):
    sound = np.sin(np.arange(9000) / 7)
    got = audio.embed(3 * sound, RATE)
    np.testing.assert_array_equal(got.embedding, audio.embed(np.clip(3 * sound, -1, 1), RATE).embedding)
    assert np.abs(got.embedding - audio.embed(sound, RATE).embedding).max() > 1e-3


@pytest.mark.parametrize(('sound', 'rate', 'options', 'message'), [
    (np.array([0.1, np.nan]), RATE, {}, 'NaN or infinity'),
    (np.array([0.1, -np.inf], np.float32), RATE, {}, 'NaN or infinity'),
    (np.zeros(0, np.float32), RATE, {}, 'is empty'),
    (np.zeros((0, 2), np.int16), RATE, {}, 'is empty'),
    (np.zeros((2, 9000), np.int16), RATE, {}, '9000 channels.*samples, channels'),
    (np.zeros((2, 3, 4), np.int16), RATE, {}, r'not of shape \[2, 3, 4\]'),
    (np.zeros(9000, np.int64), RATE, {}, 'not int64'),
    (np.zeros(9000, bool), RATE, {}, 'not bool'),
    (np.zeros(9000, np.int16), 0, {}, 'sample_rate=0'),
    (np.zeros(9000, np.int16), 44100.5, {}, 'sample_rate=44100.5'),
    (np.zeros(9000, np.int16), RATE, {'hop_seconds': 0.0}, 'hop_seconds=0.0'),
    (np.zeros(9000, np.int16), RATE, {'hop_seconds': -1.0}, 'hop_seconds=-1.0'),
    (np.zeros(9000, np.int16), RATE, {'hop_seconds': math.nan}, 'hop_seconds=nan'),
    (np.zeros(9000, np.int16), RATE, {'batch_size': 0}, 'batch_size=0'),
])
def test_sounds_that_are_refused(audio, sound, rate, options, message):
    with pytest.raises(UserError, match=message):
        audio.embed(sound, rate, **options)


# Video.

def test_video_equals_the_signature(towers, video):
    frames = random_frames(31, 20, 26)
    got = video.embed(frames, 25.0, hop_seconds=0.4, batch_size=2)
    padded = np.concatenate([frames, frames[-1:].repeat(12, 0)])
    cut = np.stack([padded[start:start + 12] for start in (0, 10, 20)])
    expected = tf.saved_model.load(str(towers / 'video_tower' / '1')).signatures['serving_default'](frames=cut)
    np.testing.assert_allclose(got.embedding, expected['embedding'], atol=2e-5)
    np.testing.assert_allclose(got.features, expected['features'], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got.timestamps, [0.24, 0.64, 1.04])
    assert np.abs(got.embedding[0] - got.embedding[1]).max() > 1e-3


@pytest.mark.parametrize('fps', [12.5, 50.0, 30.0])
def test_other_frame_rates_take_the_nearest_frame(video, fps):
    frames = random_frames(30)
    got = video.embed(frames, fps)
    wanted = [np.abs(np.arange(30) * 25 - i * fps).argmin() for i in range(int(30 / fps * 25))]     # the first of two equally near
    np.testing.assert_allclose(got.embedding, video.embed(frames[wanted], 25.0).embedding, atol=1e-6)


def test_centered_video_repeats_the_first_frame(video):
    frames = random_frames(13)
    got = video.embed(frames, 25.0, 0.04, centered=True)
    first = np.concatenate([frames[:1].repeat(6, 0), frames[:6]])
    np.testing.assert_allclose(got.embedding[0], video.embed(first, 25.0).embedding[0], atol=2e-5)
    np.testing.assert_allclose(got.timestamps, np.arange(14) * 0.04)


@pytest.mark.parametrize(('frames', 'fps', 'message'), [
    (np.zeros((0, 16, 16, 3), np.uint8), 25.0, r'\[0, 16, 16, 3\]'),
    (np.zeros((5, 16, 16), np.uint8), 25.0, r'\[5, 16, 16\]'),
    (np.zeros((5, 16, 16, 3), np.float32), 25.0, 'float32'),
    (np.zeros((5, 16, 16, 3), np.uint8), 0.0, 'fps=0.0'),
])
def test_frames_that_are_refused(video, frames, fps, message):
    with pytest.raises(UserError, match=message):
        video.embed(frames, fps)


# Streams that share batches.

def test_streams_share_batches(audio, monkeypatch):
    sounds = {name: noise(samples, seed=samples) for name, samples in (('a', 3 * WINDOW), ('b', 100), ('c', 5 * WINDOW), ('d', 1))}
    expected = {name: audio.embed(sound, RATE).embedding for name, sound in sounds.items()}
    sizes, run = [], audio.run
    monkeypatch.setattr(audio, 'run', lambda windows: (sizes.append(len(windows)), run(windows))[1])
    items = [(name, block) for name, sound in sounds.items() for block in np.array_split(sound, 3)]
    items.insert(3, ('broken', noise(2 * WINDOW)))
    items.insert(4, ('broken', media.Unsuitable('unreadable', 'in the middle')))
    items.append(('nothing', np.zeros(0, np.int16)))
    got = dict(features.embed_streams(audio, items, batch_size=4))
    assert list(got) == ['a', 'broken', 'b', 'c', 'd', 'nothing']
    assert got.pop('broken').detail == 'in the middle' and got.pop('nothing').reason == 'too_short'
    for name, values in got.items():
        np.testing.assert_allclose(values.embedding, expected[name], atol=2e-5, err_msg=name)
    assert sizes == [4, 4, 4]                                  # 3 + 2 of the broken one + 1 + 5 + 1 windows


def test_streams_come_out_as_they_end(audio):
    """What is embedded is handed on with its batch, and the next stream is not read before it is needed."""
    read = []

    def items():
        for number in range(100):
            read.append(number)
            yield number, noise(2 * WINDOW)

    for number, _ in features.embed_streams(audio, items(), batch_size=4):
        assert len(read) <= number + 4
        if number == 6:
            break
    else:
        pytest.fail('it ended before')


# Loading.

def test_newest_version(towers, tmp_path):
    shutil.copytree(towers / 'audio_tower' / '1', tmp_path / 'audio_tower' / '9')
    shutil.copytree(towers / 'audio_tower' / '1', tmp_path / 'audio_tower' / '10')
    (tmp_path / 'audio_tower' / '11').mkdir()                  # being copied, say: no model in it yet
    assert features.newest_version(tmp_path / 'audio_tower') == str(tmp_path / 'audio_tower' / '10')
    assert features.newest_version(tmp_path / 'audio_tower' / '9') == str(tmp_path / 'audio_tower' / '9')


def test_metadata(audio, video):
    assert audio.metadata['embedding_size'] == 16 and audio.rate == RATE and audio.window == WINDOW
    assert video.metadata['tower'] == 'video_tower' and video.rate == 25.0 and video.window == 12


def test_what_is_no_tower(towers, tmp_path):
    foreign = tmp_path / 'foreign'
    tf.saved_model.save(tf.Module(), str(foreign))
    strange = tmp_path / 'strange'
    shutil.copytree(foreign, strange)
    (strange / 'assets').mkdir(exist_ok=True)
    (strange / 'assets' / 'metadata.json').write_text(json.dumps({'tower': 'leaning'}))
    damaged = tmp_path / 'damaged'
    shutil.copytree(towers / 'audio_tower' / '1', damaged)
    (damaged / 'saved_model.pb').write_bytes(b'not a model')
    for path, message in [
        (tmp_path / 'nowhere', 'there is no such folder'), (tmp_path, 'no SavedModel in it'),
        (towers, 'holds audio_tower and video_tower: give one'), (foreign, 'no assets/metadata.json'),
        (strange, "'leaning'"), (damaged, 'does not load'),
    ]:
        with pytest.raises(UserError, match=message):
            avts_tf.load_tower(path)
