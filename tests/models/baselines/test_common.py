"""Front ends and the logit of pairs."""

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.data.sampling import NO_PAIR, Kind
from avts_tf.errors import UserError
from avts_tf.models.baselines.common import LogSpectrogram
from avts_tf.models.build import build_model
from tests.models.baselines.shared import config_of


def test_logit_losses_and_distances_by_hand():
    model = build_model(config_of('l3'))
    logit = tf.constant([[2.0, -1.0, 5.0]])
    batch = {'label': tf.constant([[1.0, 0.0, 0.0]]),
             'kind': tf.constant([[Kind.POSITIVE, Kind.EASY, NO_PAIR]])}
    expected = (np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-1.0)) + 0.0) / 3
    with pytest.raises(UserError, match='^loss=mse: l3 has a loss of its own'):
        model.compile('sgd', loss='mse')
    assert float(model.batch_loss({'logit': logit}, batch)) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(model.distances({'logit': logit})[0],
                               -np.log(1 / (1 + np.exp(-logit[0].numpy()))), rtol=1e-4)


def test_spectrogram_of_all_bins():
    layer = LogSpectrogram(48000, 0.010, 0.005, 512)
    tone = np.sin(2 * np.pi * 6000 * np.arange(48000) / 48000).astype(np.float32)[None]
    spectrogram = layer(tone).numpy()
    assert spectrogram.shape == (1, 199, 257)               # the published size, for 1 s at 48 kHz
    assert (spectrogram[0].argmax(-1) == 64).all()          # 6000 Hz / (48000 Hz / 512)
    sounds = [tone, np.random.default_rng(0).normal(size=[1, 48000]).astype(np.float32)]
    layer.adapt(sounds)
    values = np.concatenate([layer(sound).numpy()[0] for sound in sounds])
    np.testing.assert_allclose(values.mean(0), 0.0, atol=1e-3)
    np.testing.assert_allclose(values.std(0), 1.0, atol=1e-3)
    assert LogSpectrogram.from_config(layer.get_config())(tone).shape == (1, 199, 257)
