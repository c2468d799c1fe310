"""AVTS for TensorFlow: audio and video features from the question whether a sound and a picture happen at the same moment."""

import importlib
import os
import sys
import warnings


def _turn_onednn_on() -> None:
    """Has TensorFlow use oneDNN where the user has not said otherwise; warns where it is too late.

    Without AVX512-VNNI TensorFlow leaves it off, and convolutions are 2 to 25 times slower, by the
    processor. It reads the variable once, when it is imported: every program here imports this
    package first, and the processes that it starts inherit the setting.
    """
    if 'TF_ENABLE_ONEDNN_OPTS' in os.environ:
        return
    os.environ['TF_ENABLE_ONEDNN_OPTS'] = '1'
    if 'tensorflow' in sys.modules:
        port = importlib.import_module('tensorflow.python.util._pywrap_util_port')
        if not port.IsMklEnabled():
            warnings.warn(
                'TensorFlow was imported before avts_tf and has oneDNN off on this processor, where '
                'convolutions are many times slower. Import avts_tf first, or set '
                'TF_ENABLE_ONEDNN_OPTS=1.', stacklevel=3)


_turn_onednn_on()

__version__ = '0.1.0'

# Where each public name lives. They are imported when asked for: TensorFlow takes seconds to load, and the command line should
# answer --help and a mistyped flag without it.
_HOMES = {
    'config': ['Config', 'make_config'],
    'data.pipeline': ['make_dataset'],
    'data.state': ['PipelineState'],
    'errors': ['UserError'],
    'inference.export': ['export_towers'],
    'inference.saved_towers': ['load_tower'],
    'models.losses': ['ContrastiveLoss', 'InfoNCELoss'],
    'models.two_tower': ['TwoTower', 'build_two_tower'],
    'training.curriculum': ['Curriculum', 'CurriculumCallback', 'NegativeMix', 'Stage',
                            'parse_regime'],
    'training.run_folder': ['load_model'],
    'training.trainer': ['train'],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'{__name__}.{_HOME[name]}'), name)


def __dir__():
    return __all__
