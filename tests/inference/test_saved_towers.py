"""Embedding arrays with loaded towers; the exported signatures are the oracle."""

import doctest
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

import avts_tf
from avts_tf.errors import UserError
from avts_tf.inference import saved_towers
from tests.helpers import noise

RATE, WINDOW = 16000, 7680


def random_frames(count, height=16, width=16, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, [count, height, width, 3], np.uint8)


# Sound.

@pytest.mark.parametrize('samples', [1, 5000, WINDOW, WINDOW + 1, 20001])
@pytest.mark.parametrize('hop_seconds', [None, 0.1, 0.3333333, 0.7])
def test_sound_equals_the_signature(audio, samples, hop_seconds):
    sound = noise(samples, seed=samples)
    got = audio.embed(sound, RATE, hop_seconds, batch_size=3)
    hop = np.float32(hop_seconds or WINDOW / RATE)
    signature = audio._loaded.signatures['windows']
    expected = signature(waveform=sound[None] / np.float32(32768), hop_seconds=hop)
    assert got.embedding.shape == expected['embedding'].shape[1:]
    assert got.embedding.dtype == np.float32
    np.testing.assert_allclose(got.embedding, expected['embedding'][0], atol=2e-5)
    np.testing.assert_allclose(got.conv5, expected['conv5'][0], atol=1e-4)
    np.testing.assert_allclose(got.timestamps, expected['timestamps'], atol=1e-6)


def test_centered(audio):
    """The window whose centre is t s lies half a window before and after it, with silence beyond
    the ends."""
    sound = noise(20000)
    got = audio.embed(sound, RATE, 0.1, centered=True)
    # The last centre is at or after the end of 1.25 s.
    np.testing.assert_allclose(got.timestamps, np.arange(14) / 10)
    padded = np.pad(sound, WINDOW)
    for number in (0, 1, 7, 13):
        start = number * 1600 + WINDOW - WINDOW // 2
        alone = audio.embed(padded[start:start + WINDOW], RATE)
        np.testing.assert_allclose(got.embedding[number], alone.embedding[0], atol=2e-5)


def test_all_dtypes_of_a_sound_give_the_same(audio):
    coarse = (noise(12000) >> 8).astype(np.int16)       # what 8 bits can hold
    expected = audio.embed(coarse << 8, RATE).embedding
    same = {
        'uint8': (coarse + 128).astype(np.uint8), 'int32': coarse.astype(np.int32) << 24,
        'float32': coarse / np.float32(128), 'float64': coarse / 128.0,
        'float16': (coarse / 128).astype(np.float16), 'stereo': np.stack([coarse << 8] * 2, 1),
        'one channel': (coarse << 8)[:, None], 'list': (coarse / 128).tolist(),
    }
    for name, sound in same.items():
        np.testing.assert_array_equal(audio.embed(sound, RATE).embedding, expected, name)
    softer = audio.embed(coarse, RATE).embedding
    assert np.abs(softer - expected).max() > 1e-3       # the test can fail


@pytest.mark.parametrize('sound', [
    np.zeros(9000, np.int16), np.full(9000, 20000, np.int16), np.full(9000, -1.0),
    np.ones(1, np.float32), np.zeros(1, np.int16),
], ids=['silence', 'DC', 'full scale', 'one loud sample', 'one sample'])
def test_sounds_without_much_in_them(audio, sound):
    got = audio.embed(sound, RATE)
    assert all(np.isfinite(values).all() for values in got)
    np.testing.assert_allclose(np.linalg.norm(got.embedding, axis=1), 1, atol=1e-5)


def test_beyond_full_scale_is_clipped(audio):
    sound = np.sin(np.arange(9000) / 7)
    got = audio.embed(3 * sound, RATE).embedding
    clipped = audio.embed(np.clip(3 * sound, -1, 1), RATE).embedding
    np.testing.assert_array_equal(got, clipped)
    assert np.abs(got - audio.embed(sound, RATE).embedding).max() > 1e-3


# Video.

def test_video_equals_the_signature(video):
    frames = random_frames(31, 20, 26)
    got = video.embed(frames, 25.0, hop_seconds=0.4, batch_size=2)
    padded = np.concatenate([frames, frames[-1:].repeat(12, 0)])
    cut = np.stack([padded[start:start + 12] for start in (0, 10, 20)])
    expected = video._loaded.signatures['serving_default'](frames=cut)
    np.testing.assert_allclose(got.embedding, expected['embedding'], atol=2e-5)
    np.testing.assert_allclose(got.features, expected['features'], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got.timestamps, [0.24, 0.64, 1.04])
    assert np.abs(got.embedding[0] - got.embedding[1]).max() > 1e-3


@pytest.mark.parametrize('fps', [12.5, 50.0, 30.0])
def test_other_frame_rates_take_the_nearest_frame(video, fps):
    frames = random_frames(30)
    got = video.embed(frames, fps)
    # argmin takes the first of two that are equally near.
    nearest = [np.abs(np.arange(30) * 25 - i * fps).argmin() for i in range(int(30 / fps * 25))]
    expected = video.embed(frames[nearest], 25.0)
    np.testing.assert_allclose(got.embedding, expected.embedding, atol=1e-6)


def test_centered_video_repeats_the_first_frame(video):
    frames = random_frames(13)
    got = video.embed(frames, 25.0, 0.04, centered=True)
    first = np.concatenate([frames[:1].repeat(6, 0), frames[:6]])
    alone = video.embed(first, 25.0)
    np.testing.assert_allclose(got.embedding[0], alone.embedding[0], atol=2e-5)
    np.testing.assert_allclose(got.timestamps, np.arange(14) * 0.04)


@pytest.mark.parametrize(('frames', 'fps', 'message'), [
    (np.zeros((0, 16, 16, 3), np.uint8), 25.0, r'\[0, 16, 16, 3\]'),
    (np.zeros((5, 16, 16), np.uint8), 25.0, r'\[5, 16, 16\]'),
    (np.zeros((5, 16, 16, 3), np.float32), 25.0, 'float32'),
    (np.zeros((5, 16, 16, 3), np.uint8), 0.0, 'fps=0.0: '),
])
def test_frames_that_are_refused(video, frames, fps, message):
    with pytest.raises(UserError, match=message):
        video.embed(frames, fps)


# Loading.

def run_example(function, folder, monkeypatch):
    """Runs the example in the docstring of a function, in a folder."""
    monkeypatch.chdir(folder)
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder(recurse=False).find(function, function.__name__):
        runner.run(example)
    assert runner.tries > 3 and not runner.failures


def test_the_example_of_load_tower_runs(towers, tmp_path, monkeypatch):
    (tmp_path / 'saved_models').symlink_to(towers)
    run_example(avts_tf.load_tower, tmp_path, monkeypatch)


@pytest.mark.slow
def test_the_example_of_export_towers_runs(tmp_path, monkeypatch):
    run_example(avts_tf.export_towers, tmp_path, monkeypatch)


def test_newest_version(towers, tmp_path):
    for version in ('9', '10'):
        shutil.copytree(towers / 'audio_tower' / '1', tmp_path / 'audio_tower' / version)
    (tmp_path / 'audio_tower' / '11').mkdir()       # being copied, say: no model in it yet
    for folder in ('audio_tower', 'audio_tower/9'):
        found = saved_towers.newest_version(tmp_path / folder)
        assert found == str(tmp_path / 'audio_tower' / ('10' if folder == 'audio_tower' else '9'))


def test_metadata(audio, video):
    assert audio.metadata['embedding_size'] == 16 and audio.rate == RATE and audio.window == WINDOW
    assert video.metadata['tower'] == 'video_tower' and video.rate == 25.0 and video.window == 12


def test_what_is_no_tower(towers, tmp_path):
    foreign, strange, damaged = tmp_path / 'foreign', tmp_path / 'strange', tmp_path / 'damaged'
    tf.saved_model.save(tf.Module(), str(foreign))
    shutil.copytree(foreign, strange)
    (strange / 'assets').mkdir(exist_ok=True)
    (strange / 'assets' / 'metadata.json').write_text(json.dumps({'tower': 'leaning'}))
    shutil.copytree(towers / 'audio_tower' / '1', damaged)
    (damaged / 'saved_model.pb').write_bytes(b'not a model')
    for path, message in [
        (tmp_path / 'nowhere', 'there is no such folder'), (tmp_path, 'no SavedModel in it'),
        (towers, 'holds audio_tower and video_tower: give one'),
        (foreign, 'no assets/metadata.json'), (strange, "'leaning'"), (damaged, 'does not load'),
    ]:
        with pytest.raises(UserError, match=f'^{path}.*: .*{message}'):
            avts_tf.load_tower(path)
