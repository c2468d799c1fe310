"""L3-Net learns whether a frame goes with audio, and the probes can use it."""

import pytest

from avts_tf.config import make_config
from avts_tf.errors import UserError
from avts_tf.models.build import build_model
from tests.models.baselines.shared import SMALL, learn_by_heart


@pytest.mark.slow
def test_a_batch_is_learnt_by_heart_and_the_probes_take_the_model(clips):
    learn_by_heart('l3', clips)


@pytest.mark.parametrize('regime', ['hard', 'easy:1,hard:1'])
def test_another_regime_is_refused(regime):
    config = make_config('tiny', **{**SMALL, 'system': 'l3', 'regime': regime})
    with pytest.raises(UserError, match=f'^regime={regime}: .*give `regime=easy`') as error:
        build_model(config)
    assert '--system=l3 learns' in error.value.on_command_line()
