"""Networks and systems by name."""

import pytest

from avts_tf import config
from avts_tf.models.build import build_model, find_video_network
from avts_tf.models.two_tower import TwoTower


def choices(name):
    """The values that a parameter can take."""
    return next(field.metadata['choices'] for _, field in config.parameters() if field.name == name)


def test_every_video_network_of_the_configuration_is_found():
    networks = {name: find_video_network(name) for name in choices('video_tower')}
    assert {name: network.__name__ for name, (network, _) in networks.items()} == {
        name: name for name in networks}
    assert {name for name, (_, symmetric) in networks.items() if symmetric} == {'i3d'}


@pytest.mark.parametrize('system', ['avts', 'l3', 'multisensory'])
def test_every_system_is_built_by_its_name(system):
    regime = {'multisensory': 'hard'}.get(system, 'easy')
    model = build_model(config.make_config(
        'tiny', system=system, regime=regime, frame_size=16, video_width=0.05, audio_width=0.05))
    assert model.name == {'avts': 'two_tower'}.get(system, system)
    assert isinstance(model, TwoTower) == (system == 'avts')
    assert type(model).from_config(model.get_config()).count_params() == model.count_params()
