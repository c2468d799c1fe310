from .config import PRESETS, Config, make_config
from .data.pipeline import make_dataset
from .data.sampling import Kind
from .data.state import PipelineState
from .errors import Diverged, Stopped, UserError
from .evaluation.sync import evaluate_sync
from .inference.export import export_towers
from .inference.saved_towers import AudioFeatures, AudioTower, VideoFeatures, VideoTower, load_tower
from .models.build import build_model
from .models.losses import ContrastiveLoss, InfoNCELoss
from .models.two_tower import TwoTower, build_two_tower
from .training.curriculum import (
    Curriculum,
    CurriculumCallback,
    NegativeMix,
    Stage,
    parse_regime,
)
from .training.run_folder import load_config, load_model
from .training.trainer import train
from .training.tune import tune

__all__ = [
    'PRESETS', 'AudioFeatures', 'AudioTower', 'Config', 'ContrastiveLoss', 'Curriculum',
    'CurriculumCallback', 'Diverged', 'InfoNCELoss', 'Kind', 'NegativeMix', 'PipelineState',
    'Stage', 'Stopped', 'TwoTower', 'UserError', 'VideoFeatures', 'VideoTower', 'build_model',
    'build_two_tower', 'evaluate_sync', 'export_towers', 'load_config', 'load_model', 'load_tower',
    'make_config', 'make_dataset', 'parse_regime', 'train', 'tune',
]
__version__: str
