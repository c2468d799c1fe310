"""The systems that AVTS is compared with, each a model that the same trainer, evaluation and probes take.

A model is a `TwoTower` with other networks, another loss and, where it has no common space, another distance of a pair: a figure
that is lower for "in sync". Each is as simple as what is known of the published one allows; they exist to be compared with.
"""

from avts_tf.errors import UserError
from avts_tf.models.two_tower import build_two_tower


def build_model(config):
    """Builds the model of a configuration's `system`, not compiled; call it in the scope of the strategy that will train it.

    Raises:
        UserError: the configuration does not go with the system.
    """
    system = config.towers.system
    if system == 'avts':
        return build_two_tower(config)
    if system == 'l3':
        from avts_tf.models.baselines.l3 import build_l3
        return build_l3(config)
    if system == 'multisensory':
        from avts_tf.models.baselines.multisensory import build_multisensory
        return build_multisensory(config)
    from avts_tf.models.baselines.soundnet import build_soundnet
    return build_soundnet(config)


def need_regime(config, regime, why):
    """Raises a `UserError` where the regime is not the one that a system learns from."""
    if config.train.regime.split(':')[0] != regime or ',' in config.train.regime:
        raise UserError(f'--regime={config.train.regime}: --system={config.towers.system} learns {why}; give --regime={regime}.')
