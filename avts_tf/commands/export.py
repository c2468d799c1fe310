"""Export both towers of a run as SavedModels."""

from avts_tf.commands._flags import CHECKPOINT, EXPORT_DIR, RUN_DIR

PARAMETERS = False
FLAGS = {'Files': [RUN_DIR, EXPORT_DIR, CHECKPOINT]}


def run(flags):
    """Exports the towers of a run folder."""
    from avts_tf.training.run_folder import load_model
    export(*load_model(flags.run_dir, flags.checkpoint), flags.run_dir, flags.export_dir)


def export(model, epochs, run_dir, export_dir):
    """Exports the towers of a model that was trained for some epochs in a run folder."""
    from avts_tf.inference.export import describe_training, export_towers
    from avts_tf.training.run_folder import update_result
    if model.config.towers.system != 'avts':
        print(f'--system={model.config.towers.system} is a baseline: no tower is exported.')
        return
    print(f'Exporting the towers to {export_dir}: each is loaded in a fresh process and compared, '
          'which takes a minute or so.')
    paths = export_towers(model, export_dir, training=describe_training(run_dir, epochs))
    update_result(run_dir, {'exported': paths})
