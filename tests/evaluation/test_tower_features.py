"""conv5 of a tower over windows that are longer than its own."""

import keras
import numpy as np

from avts_tf.config import make_config
from avts_tf.evaluation.tower_features import adapted_features, pool
from avts_tf.models.audio import build_audio_tower
from avts_tf.models.build import build_model
from tests.evaluation.sounds import sound


def test_pooling_by_hand():
    maps = np.random.default_rng(4).random([2, 6, 10, 3]).astype(np.float32)
    np.testing.assert_allclose(pool(maps, 'mean'), maps.mean((1, 2)), rtol=1e-5)
    cells = np.asarray(pool(maps, 'cells'))
    assert cells.shape == (2, 2 * 5 * 3)
    # first half, second pair of bands
    np.testing.assert_array_equal(cells[:, 3:6], maps[:, :3, 2:4].max((1, 2)))
    # no more cells than there are places
    assert pool(maps[:, :1, :4], 'cells').shape[1] == 4 * 3


def test_probed_features_are_conv5_of_the_tower():
    config = make_config('tiny', frames=50)
    keras.utils.set_random_seed(7)
    tower = build_audio_tower(config)
    rng = np.random.default_rng(5)
    waveforms = [sound(kind, 2.0, rng) for kind in ('low', 'high', 'noise')]
    tower.get_layer('log_mel').adapt(waveform[None] for waveform in waveforms)
    # A configuration whose window is shorter: the probe makes it 2 s.
    shorter = make_config('tiny')
    extract, samples = adapted_features(shorter, tower, waveforms, 'mean', 0)
    assert samples == 32000
    windows = np.stack(waveforms)
    np.testing.assert_allclose(extract(windows)['conv5'], tower(windows)['conv5'], rtol=1e-4,
                               atol=1e-5)
    random, _ = adapted_features(shorter, None, waveforms, 'mean', 0)
    again, _ = adapted_features(shorter, None, waveforms, 'mean', 0)
    other, _ = adapted_features(shorter, None, waveforms, 'mean', 1)
    np.testing.assert_array_equal(random(windows)['conv5'], again(windows)['conv5'])
    assert np.abs(random(windows)['conv5'] - extract(windows)['conv5']).max() > 0.01
    assert np.abs(random(windows)['conv5'] - other(windows)['conv5']).max() > 0.01


def test_other_systems_are_probed_by_parts_of_their_own_length():
    config = make_config('tiny', system='l3', regime='easy', frame_size=16, seed=3)
    waveforms = [sound(kind, 2.0, np.random.default_rng(13)) for kind in ('low', 'noise')]
    extract, samples = adapted_features(config, None, waveforms, 'mean', 3)
    vectors, part = np.asarray(extract(np.stack(waveforms))['conv5']), config.clip.window_samples
    assert samples == 32000 and part == 7680
    tower = build_model(config).audio_tower
    tower.get_layer('log_mel').adapt(waveform[None] for waveform in waveforms)
    padded = np.pad(np.stack(waveforms), ((0, 0), (0, 5 * part - samples)))
    # Four whole parts, and one of 1280 samples and padding.
    expected = np.average([tower(padded[:, i * part:(i + 1) * part])['conv5'] for i in range(5)], 0,
                          [7680] * 4 + [1280])
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)
