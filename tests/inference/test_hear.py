"""The rules of the HEAR 2021 interface, as its specification and its validator state them."""

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.errors import UserError
from avts_tf.inference import hear
from tests.helpers import noise

RATE, WINDOW = 16000, 7680


@pytest.fixture(scope='module')
def model(audio):
    return hear.Model(audio)


def white_noise(sounds, seconds):
    return tf.random.stateless_uniform([sounds, int(seconds * RATE)], [1, 2], -1.0, 1.0)


def test_model(model):
    assert isinstance(model, tf.Module)
    assert model.sample_rate in (16000, 22050, 32000, 44100, 48000)
    assert isinstance(model.scene_embedding_size, int)
    assert isinstance(model.timestamp_embedding_size, int)


@pytest.mark.parametrize('seconds', [0.02, 0.3, 1.07, 1.98, 4.0])
def test_timestamp_embeddings(model, seconds):
    embeddings, timestamps = hear.get_timestamp_embeddings(white_noise(2, seconds), model)
    assert embeddings.dtype == timestamps.dtype == tf.float32
    assert embeddings.shape[2] == model.timestamp_embedding_size
    assert embeddings.shape[:2] == timestamps.shape and timestamps.shape[0] == 2
    milliseconds = timestamps.numpy()
    np.testing.assert_allclose(milliseconds[0], milliseconds[1])
    np.testing.assert_allclose(np.diff(milliseconds), 50.0, atol=1e-3)
    last = milliseconds[0, -1]
    assert milliseconds[0, 0] == 0
    assert 1000 * seconds - 50 < last + 1e-3 and last <= 1000 * seconds + 1e-3


def test_embeddings_are_centred_on_their_timestamps(model):
    """A click changes the embeddings of the windows around it and no others."""
    silence = np.zeros([1, 2 * RATE], np.float32)
    click = silence.copy()
    click[0, RATE - 40:RATE + 40] = 0.9
    without, timestamps = hear.get_timestamp_embeddings(silence, model)
    with_it, _ = hear.get_timestamp_embeddings(click, model)
    changed = np.abs(with_it - without).max(-1)[0] > 1e-4
    middle = timestamps.numpy()[0, changed].mean()
    assert middle == pytest.approx(1000, abs=30)
    assert changed.sum() == pytest.approx(1000 * WINDOW / RATE / 50, abs=2)


def test_scene_embeddings(model):
    sounds = np.stack([noise(43840, 1), noise(43840, 2), np.zeros(43840)]) / np.float32(32768)
    embeddings = hear.get_scene_embeddings(tf.constant(sounds, tf.float32), model)
    assert embeddings.dtype == tf.float32
    assert embeddings.shape == [3, model.scene_embedding_size]
    # One sound's embedding does not depend on its neighbours in the batch, and sounds differ.
    alone = hear.get_scene_embeddings(tf.constant(sounds[1:2], tf.float32), model)
    np.testing.assert_allclose(embeddings[1], alone[0], rtol=1e-4, atol=1e-5)
    assert np.abs(embeddings[0] - embeddings[2]).max() > 1e-2
    expected = model.tower.embed(sounds[0].astype(np.float32), RATE, WINDOW / 2 / RATE)
    np.testing.assert_allclose(embeddings[0], expected.conv5.mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('sound', 'message'), [
    (np.zeros(100, np.float32), r'audio: must be float \[sounds, samples\]'),
    (np.zeros([0, 100], np.float32), 'at least one'), (np.zeros([1, 100], np.int16), 'int16'),
    (np.zeros([2, 0], np.float32), 'is empty'),
    (np.full([1, 100], np.nan, np.float32), 'NaN'),
])
def test_mistakes(model, sound, message):
    for function in (hear.get_scene_embeddings, hear.get_timestamp_embeddings):
        with pytest.raises(UserError, match=message):
            function(sound, model)


@pytest.mark.parametrize('name', ['audio', 'video'])
def test_only_audio_towers_are_taken(name, request, monkeypatch):
    tower = request.getfixturevalue(name)
    monkeypatch.setattr(hear, 'load_tower', lambda path: tower)
    if name == 'audio':
        assert hear.load_model('saved_models/audio_tower').tower is tower
    else:
        with pytest.raises(UserError, match='model_file_path=x: is the video_tower'):
            hear.load_model('x')
