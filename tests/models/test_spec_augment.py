"""SpecAugment: its bank of masks, and where a model applies them."""

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.config import make_config
from avts_tf.models.spec_augment import SpecAugment, spec_augment_bank
from avts_tf.models.two_tower import build_two_tower
from tests.helpers import noise


def masked_run(kept):
    """Length of the masked places of a mask over one axis, which must be neighbours."""
    places = np.flatnonzero(~kept)
    assert len(places) == 0 or places[-1] - places[0] + 1 == len(places)
    return len(places)


def test_spec_augment():
    """The masks are within limits and follow from the seed; training has them, `embed` not."""
    pytest.importorskip('tensorflow_io')
    bank = spec_augment_bank(30, 20, max_steps=6, max_bands=4, seed=5, size=64)
    assert bank.shape == (64, 30, 20) and set(np.unique(bank)) == {0.0, 1.0}
    steps, bands = [], []
    for mask in bank:
        kept_steps, kept_bands = mask.any(1), mask.any(0)
        np.testing.assert_array_equal(mask, np.outer(kept_steps, kept_bands))
        steps.append(masked_run(kept_steps))
        bands.append(masked_run(kept_bands))
    # 64 draws miss one of six with chance 5e-5
    assert set(steps) == set(range(6)) and set(bands) == set(range(4))
    np.testing.assert_array_equal(bank, spec_augment_bank(30, 20, 6, 4, seed=5, size=64))
    assert (bank != spec_augment_bank(30, 20, 6, 4, seed=6, size=64)).any()

    spectrogram = np.random.default_rng(0).normal(size=[3, 30, 20]).astype(np.float32)
    masked = SpecAugment(bank)(spectrogram, tf.constant([2, 63, 64 + 7]))
    np.testing.assert_array_equal(masked, spectrogram * bank[[2, 63, 7]])

    config = make_config('tiny', frame_size=16, video_tower='mc2', video_width=0.05,
                         audio_width=0.05, embedding_size=8,
                         head='average', normalize='length', audio_windows=2, spec_augment=True)
    model = build_two_tower(config)
    batch = {'video': np.zeros([2, config.clip.frames, 16, 16, 3], np.uint8),
             'audio': noise(4 * config.clip.window_samples).reshape(2, 2, -1),
             'spec_mask': np.array([[1, 2], [3, 4]], np.int32)}
    one = model(batch)['audio'].numpy()
    other = model({**batch, 'spec_mask': np.array([[5, 2], [3, 4]], np.int32)})['audio'].numpy()
    assert np.abs(one - other)[0, 0].max() > 1e-4
    np.testing.assert_allclose(np.delete(one.reshape(4, -1), 0, 0),
                               np.delete(other.reshape(4, -1), 0, 0), atol=1e-6)
    expected = model.audio_tower(batch['audio'].reshape(4, -1))['embedding'].numpy()
    expected = expected.reshape(2, 2, -1)
    np.testing.assert_allclose(model.embed(batch)['audio'], expected, atol=1e-6)
    assert np.abs(expected - one).max() > 1e-4
