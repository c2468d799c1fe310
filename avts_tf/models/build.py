"""Networks and systems by name.

A video network is a function of the name that `video_tower` gives it, in the module of that name
beside this file or in the one that `VIDEO_MODULES` says. It takes `(x, width, synchronized)`, and
its module says in `SYMMETRIC_PIXELS` whether it wants pixels in [-1, 1] or standardised ones.

A system is a module of `baselines/` named as `system` names it. Its `SYSTEM` is a `SyncModel`
that is built from a `Config`.
"""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import keras

from avts_tf.config import Config

if TYPE_CHECKING:
    from avts_tf.models.sync_model import SyncModel

VIDEO_MODULES = {'mc2': 'mcx', 'mc3': 'mcx'}


def find_video_network(name: str) -> tuple[Callable, bool]:
    """The network that `video_tower` names.

    Returns:
        (function, symmetric): the function that builds it, and whether it wants pixels in [-1, 1].

    Example:
        >>> find_video_network('i3d')[1]
        True
    """
    module = importlib.import_module(f'avts_tf.models.{VIDEO_MODULES.get(name, name)}')
    return getattr(module, name), module.SYMMETRIC_PIXELS


def build_model(config: Config) -> 'SyncModel':
    """Builds the model of a configuration's `system`, with weights that follow from its seed.

    Call it in the scope of the strategy that will train.

    Args:
        config: `Config`.

    Returns:
        `SyncModel`, for `system=avts` a `TwoTower`; not compiled.

    Raises:
        UserError: the configuration does not go with the system.

    Example:
        >>> import avts_tf
        >>> build_model(avts_tf.make_config('tiny', system='l3', regime='easy')).name
        'l3'
    """
    keras.utils.set_random_seed(config.train.seed)
    system = config.towers.system
    name = 'two_tower' if system == 'avts' else f'baselines.{system}'
    module = importlib.import_module(f'avts_tf.models.{name}')
    return (module.TwoTower if system == 'avts' else module.SYSTEM)(config)
