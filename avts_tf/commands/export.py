"""Export both towers of a run as SavedModels."""

import types
from typing import TYPE_CHECKING

from avts_tf.commands._flags import CHECKPOINT, EXPORT_DIR, RUN_DIR

PARAMETERS = False
FLAGS = {'Files': [RUN_DIR, EXPORT_DIR, CHECKPOINT]}

if TYPE_CHECKING:
    from avts_tf.models.two_tower import TwoTower


def run(flags: types.SimpleNamespace) -> None:
    """Exports the towers of a run folder."""
    from avts_tf.training.run_folder import load_model
    export(*load_model(flags.run_dir, flags.checkpoint), flags.run_dir, flags.export_dir)


def export(model: 'TwoTower', epochs: int, run_dir: str, export_dir: str) -> None:
    """Exports the towers of a model that was trained for some epochs in a run folder."""
    from avts_tf.inference.export import export_towers
    from avts_tf.inference.metadata import describe_training
    from avts_tf.training.run_folder import update_result
    if model.config.towers.system != 'avts':
        print(f'--system={model.config.towers.system} is a baseline: no tower is exported.')
        return
    print(f'Exporting the towers to {export_dir}: each is loaded in a fresh process and compared, '
          'which takes a minute or so.')
    paths = export_towers(model, export_dir, training=describe_training(run_dir, epochs))
    update_result(run_dir, {'exported': paths})
