"""The audio tower against a plain twin."""

import numpy as np
import tensorflow as tf

from avts_tf.config import make_config
from avts_tf.models.audio import build_audio_network, build_audio_tower, embed_waveform
from tests.models.twins import SMALL, batch_norm, randomize, sounds


def test_audio_network_at_full_width():
    config = make_config('tiny', audio_width=1.0, embedding_size=128, head='average',
                         normalize='length')
    network = build_audio_network(config, 99)
    kernels = [tuple(network.get_layer(f'conv{number}').kernel.shape) for number in range(1, 6)]
    assert kernels == [(3, 3, 1, 64), (3, 3, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256),
                       (3, 3, 256, 256)]
    # Two pools by 2 in time, three in frequency: 99 steps of 10 ms -> 25 of 40 ms, 40 bands -> 5.
    assert network.get_layer('pool5').output.shape[1:] == (25, 5, 256)
    assert tuple(network.get_layer('fc6').kernel.shape) == (5 * 256, 512)
    assert {name: output.shape[1:] for name,
            output in network.output.items()} == {'embedding': (128,), 'conv5': (256,)}


def test_audio_network_equals_its_twin():
    config = make_config('tiny', **{**SMALL, 'head': 'average'})
    network = randomize(build_audio_network(config, 46))
    x = tf.constant(np.random.default_rng(0).normal(size=[2, 46, 40]), tf.float32)
    outputs = network(x)
    y = x[..., None]
    for number, stride in ((1, (2, 2)), (2, (2, 2)), (3, None), (4, None), (5, (1, 2))):
        y = tf.nn.conv2d(y, network.get_layer(f'conv{number}').kernel.value, 1, 'SAME')
        y = conv5 = tf.nn.relu(batch_norm(y, network.get_layer(f'conv{number}_bn')))
        y = tf.nn.max_pool2d(y, 3, stride, 'SAME') if stride else y
    y = tf.reshape(y, [2, y.shape[1], -1]) @ network.get_layer('fc6').kernel.value
    y = tf.reduce_mean(tf.nn.relu(batch_norm(y, network.get_layer('fc6_bn'))), 1)
    projection = network.get_layer('projection')
    np.testing.assert_allclose(outputs['conv5'], tf.reduce_mean(conv5, [1, 2]), rtol=1e-4,
                               atol=1e-5)
    np.testing.assert_allclose(outputs['embedding'], y @ projection.kernel.value
                               + projection.bias.value, rtol=1e-4, atol=1e-5)


def test_audio_tower_takes_integers_and_floats():
    config = make_config('tiny', **SMALL)
    tower, waveform = randomize(build_audio_tower(config)), sounds(make_config('tiny', **SMALL))
    outputs = tower(waveform)
    assert np.abs(outputs['embedding'][0] - outputs['embedding'][1]).max() > 1e-2  # it hears at all
    for sound in (waveform, (waveform / np.float32(32768))):
        for name, value in embed_waveform(tower, tf.constant(sound)).items():
            np.testing.assert_allclose(value, outputs[name], rtol=1e-4, atol=1e-5)


def test_without_what_is_static_a_louder_or_filtered_sound_changes_nothing():
    # A filter adds a constant to each band of the log-mel.
    config = make_config('tiny', **SMALL, remove_static='audio')
    network = randomize(build_audio_network(config, 46))
    plain = randomize(build_audio_network(make_config('tiny', **SMALL), 46))
    rng = np.random.default_rng(0)
    spectrogram = rng.normal(size=[2, 46, 40]).astype(np.float32)
    filtered = spectrogram + rng.normal(size=[2, 1, 40]).astype(np.float32)
    one, other = (network(x)['embedding'].numpy() for x in (spectrogram, filtered))
    np.testing.assert_allclose(one, other, atol=1e-4 * abs(one).max())
    assert abs(plain(spectrogram)['embedding'] - plain(filtered)['embedding']).numpy().max() > 1e-2
