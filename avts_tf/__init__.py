"""AVTS for TensorFlow: audio and video features from the question whether a sound and a picture happen at the same moment."""

from avts_tf.config import Config, UserError, make_config
from avts_tf.curriculum import Curriculum, CurriculumCallback, NegativeMix, Stage, parse_regime
from avts_tf.losses import ContrastiveLoss
from avts_tf.pipeline import PipelineState, make_dataset
from avts_tf.two_tower import TwoTower, build_two_tower

__version__ = '0.1.0'

__all__ = [
    'Config', 'ContrastiveLoss', 'Curriculum', 'CurriculumCallback', 'NegativeMix', 'PipelineState', 'Stage', 'TwoTower',
    'UserError', 'build_two_tower', 'make_config', 'make_dataset', 'parse_regime',
]
