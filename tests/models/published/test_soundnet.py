"""SoundNet's layers are those of its authors, and its weights are the file's."""

import os

import numpy as np
import pytest

from avts_tf.errors import UserError
from avts_tf.evaluation.tower_features import soundnet_tower
from avts_tf.models.published.soundnet import load_soundnet

# Channels in and out, kernel and pool, written out a second time.
LAYERS = {'conv1': (1, 16, 64, 8), 'conv2': (16, 32, 32, 8), 'conv3': (32, 64, 16, 1),
          'conv4': (64, 128, 8, 1), 'conv5': (128, 256, 4, 4), 'conv6': (256, 512, 4, 1),
          'conv7': (512, 1024, 4, 1)}

# Of the test with the published weights, as PyTorch printed them: mean, maximum and its place.
GOLDEN = {
    'conv5': (0.278835, 20.1445, (82, 198)), 'conv7': (0.0686184, 2.72361, (14, 443)),
    'conv8': (-2.60061, 1.82375, (3, 920)), 'conv8_2': (-2.52829, 2.21826, (3, 188)),
}


@pytest.fixture(scope='module')
def weights():
    """Random weights as the published file holds them."""
    rng = np.random.default_rng(1)
    return {name: {
        'weights': rng.normal(0, (inputs * kernel / 2) ** -0.5,
                              [kernel, 1, inputs, outputs]).astype(np.float32),
        **{key: rng.uniform(low, 1, outputs).astype(np.float32)
           for key, low in (('biases', -1), ('mean', -1), ('var', 0.1), ('gamma', 0.5),
                            ('beta', -1))},
    } for name, (inputs, outputs, kernel, _) in LAYERS.items()}


def in_numpy(waveform, weights):
    """{layer: its ReLU}, of int16 [samples]."""
    x, found = waveform[:, None].astype(np.float64) / 32768 * 256, {}
    for name, (_, _, kernel, pool) in LAYERS.items():
        layer = weights[name]
        padded = np.pad(x, ((kernel // 2, kernel // 2), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, 0)[::2]  # [t, in, k]
        x = np.einsum('tik,kio->to', windows, layer['weights'][:, 0], optimize=True)
        x = (x + layer['biases'] - layer['mean']) / np.sqrt(layer['var'] + 1e-5)
        x = found[name] = np.maximum(x * layer['gamma'] + layer['beta'], 0)
        steps = len(x) // pool
        x = x[:steps * pool].reshape(steps, pool, -1).max(1)
    return found


def test_every_layer_as_in_numpy(tmp_path, weights):
    np.save(tmp_path / 'weights.npy', weights)
    waveform = np.random.default_rng(2).integers(-9000, 9000, 44100).astype(np.int16)
    expected = in_numpy(waveform, weights)
    found = load_soundnet(str(tmp_path / 'weights.npy'))(waveform[None])
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name][0], value, rtol=1e-3, atol=1e-3 * value.max())
    tower = soundnet_tower(str(tmp_path / 'weights.npy'), 'cells', 0)
    for name, vectors in tower.layers(waveform[None]).items():
        np.testing.assert_allclose(vectors[0], expected[name].max(0), rtol=1e-3, atol=0.02)
    mean = soundnet_tower(str(tmp_path / 'weights.npy'), 'mean', 0).layers(waveform[None])
    np.testing.assert_allclose(mean['conv6'][0], expected['conv6'].mean(0), rtol=1e-3, atol=0.02)
    assert list(mean) == ['conv5', 'conv6', 'conv7']
    assert tower.sample_rate == 22050


@pytest.mark.parametrize(('change', 'words'), [
    ({'conv4': {}}, 'weights of conv4 is missing, not .8, 64, 128.'),
    ({'conv1': {'weights': np.zeros([64, 1, 2, 16])}}, 'of conv1 is of shape .64, 2, 16., not'),
    ({'conv2': {'weights': np.zeros([32, 3, 16, 32])}}, 'weights of conv2 is of shape .32, 3, 16'),
])
def test_a_file_of_another_net(tmp_path, weights, change, words):
    np.save(tmp_path / 'weights.npy', {**weights, **change})
    with pytest.raises(UserError, match=f'^weights=.*is not sound8.npy.*{words}'):
        load_soundnet(str(tmp_path / 'weights.npy'))


@pytest.mark.slow
@pytest.mark.skipif('AVTS_SOUNDNET' not in os.environ, reason='needs the path of sound8.npy')
def test_the_published_weights_give_what_pytorch_gives():
    """PyTorch 2.13 with the layers of the authors' training script and the same file."""
    time = np.arange(20 * 22050) / 22050
    waveform = (12000 * np.sin(2 * np.pi * (200 + 50 * time) * time)).astype(np.int16)
    found = load_soundnet(os.environ['AVTS_SOUNDNET'], heads=True)(waveform[None])
    for name, (mean, largest, place) in GOLDEN.items():
        value = found[name].numpy()[0]
        np.testing.assert_allclose([value.mean(), value.max()], [mean, largest], rtol=1e-4)
        assert np.unravel_index(value.argmax(), value.shape) == place
