"""What the tests of several folders share: the towers, and the flag that renews golden values."""

import avts_tf  # noqa: F401  first, because it sets how TensorFlow runs

# isort: split

import numpy as np
import pytest

from avts_tf import build_two_tower, load_tower, make_config
from avts_tf.inference.export import export_towers


def pytest_addoption(parser):
    """The flag with which golden values are renewed."""
    parser.addoption('--update_goldens', action='store_true', help='write tests/goldens/ anew from what is computed now')


@pytest.fixture(scope='session')
def towers(tmp_path_factory):
    """Folder of both exported towers, small ones of 0.48 s windows that tell inputs apart; of the features and the client."""
    config = make_config('tiny', frames=12, frame_size=16, video_width=0.0625, audio_width=0.0625, embedding_size=16,
                         head_spans=4)
    model = build_two_tower(config)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.path.endswith(('moving_variance', 'gamma')):
            variable.assign(rng.uniform(0.5, 2.0, variable.shape))
    folder = tmp_path_factory.mktemp('towers')
    export_towers(model, str(folder), say=lambda line: None)
    return folder


@pytest.fixture(scope='session')
def audio(towers):
    """The small audio tower, loaded."""
    return load_tower(towers / 'audio_tower')


@pytest.fixture(scope='session')
def video(towers):
    """The small video tower, loaded."""
    return load_tower(towers / 'video_tower')
