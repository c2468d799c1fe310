"""The multisensory net hears and sees, and the probes can use it."""

import numpy as np
import pytest

from avts_tf.config import make_config
from avts_tf.data.pipeline import make_dataset
from avts_tf.errors import UserError
from avts_tf.models.build import build_model
from tests.models.baselines.shared import SMALL, config_of, learn_by_heart


def test_early_fusion_hears_and_sees(clips):
    model = build_model(config_of('multisensory'))
    batch = next(iter(make_dataset(clips, model.config, training=False)))
    frames, sound = batch['video'], batch['audio'][:, 0]
    fused = model.fused({'video': frames, 'audio': sound}, training=False)
    for changed in ({'video': frames[::-1], 'audio': sound},
                    {'video': frames, 'audio': sound[::-1]}):
        assert np.abs(model.fused(changed, training=False) - fused).max() > 1e-3
    silent = model.video_tower(frames, training=False)['features']
    assert np.abs(silent - fused).max() > 1e-3


@pytest.mark.slow
def test_a_batch_is_learnt_by_heart_and_the_probes_take_the_model(clips):
    learn_by_heart('multisensory', clips)


def test_another_regime_is_refused():
    config = make_config('tiny', **{**SMALL, 'system': 'multisensory', 'regime': 'mixed'})
    with pytest.raises(UserError, match='^regime=mixed: .*give `regime=hard`'):
        build_model(config)
