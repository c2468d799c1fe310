"""The exported towers, loaded once for all tests of this folder, which do not change them."""

import pytest

from avts_tf import load_tower
from tests.inference.small import small_model


@pytest.fixture(scope='session')
def audio(towers):
    """The audio tower, by `load_tower`."""
    return load_tower(towers / 'audio_tower')


@pytest.fixture(scope='session')
def video(towers):
    """The video tower, by `load_tower`."""
    return load_tower(towers / 'video_tower')


@pytest.fixture(scope='session')
def loaded(audio, video):
    """Dict from the name of each tower to what TensorFlow loads."""
    return {'audio_tower': audio._loaded, 'video_tower': video._loaded}


@pytest.fixture(scope='session')
def model():
    """The Keras towers that were exported."""
    return small_model()
