"""SoundNet learns from its teacher, and the probes can use it."""

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.config import make_config
from avts_tf.data.pipeline import make_dataset
from avts_tf.errors import UserError
from avts_tf.models.build import build_model
from avts_tf.training.run_folder import load_model
from avts_tf.training.trainer import train
from tests.models.baselines.shared import SMALL, config_of, learn_by_heart


def test_soundnet_distance_is_the_divergence(teacher):
    model = build_model(config_of('soundnet', teacher))
    truth, guess = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.6, 0.3])
    outputs = {'video': tf.constant(truth[None], tf.float32),
               'audio': tf.constant(np.log([[truth, guess]]), tf.float32)}
    expected = (truth * np.log(truth / guess)).sum()
    np.testing.assert_allclose(model.distances(outputs)[0], [0.0, expected], atol=1e-5)
    # The teacher's weights are not the student's to learn or to keep.
    student = {id(variable) for variable in model.audio_tower.weights}
    assert {id(variable) for variable in model.weights} == student


@pytest.mark.slow
def test_trained_and_loaded_by_the_same_commands(clips, teacher, tmp_path):
    config = config_of('soundnet', teacher, epochs=1)
    model = train(config, clips, str(tmp_path / 'run'))
    loaded, epochs = load_model(str(tmp_path / 'run'))
    assert epochs == 1 and loaded.name == 'soundnet'
    batch = next(iter(make_dataset(clips, config, training=False)))
    for name, value in model.embed(batch).items():
        np.testing.assert_allclose(loaded.embed(batch)[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_batch_is_learnt_by_heart_and_the_probes_take_the_model(clips, teacher):
    learn_by_heart('soundnet', clips, teacher)


@pytest.mark.parametrize(('overrides', 'words'), [
    ({}, '^teacher: `system=soundnet` needs'),
    ({'teacher': 'NoSuchNet'}, '^teacher=NoSuchNet: neither'),
    ({'teacher': __file__}, '^teacher=.*cannot be read as weights'),
    ({'audio_windows': 1}, '^audio_windows=1: '),
])
def test_mistakes(overrides, words):
    with pytest.raises(UserError, match=words):
        build_model(make_config('tiny', **{**SMALL, 'system': 'soundnet', **overrides}))
