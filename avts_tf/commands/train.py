"""Train the two towers, or resume a training; then measure and export them."""

import os
import types
from typing import TYPE_CHECKING

from avts_tf.commands._flags import (
    DEVICES,
    EVAL_RECORDS,
    EXPORT_DIR,
    RECORDS_OR_DEMO,
    RUN_DIR,
    SELECT_RECORDS,
    Flag,
)
from avts_tf.config import CHECKPOINT_MINUTES, KEPT_CHECKPOINTS, LOG_EVERY, Config

if TYPE_CHECKING:
    from avts_tf.models.two_tower import TwoTower

PARAMETERS = True
FLAGS = {
    'Files': [RUN_DIR, RECORDS_OR_DEMO, EVAL_RECORDS, SELECT_RECORDS, EXPORT_DIR],
    'Starting': [
        Flag('init_run_dir', None, 'Run folder of a finished training whose weights this one '
             'starts from, such as the first stage of a curriculum.'),
    ],
    'Running': [
        DEVICES,
        Flag('on_bad_record', 'skip', 'What to do with a record that cannot be used: leave it '
             'out, count and name it; or stop.', choices=('skip', 'stop')),
        Flag('checkpoint_minutes', CHECKPOINT_MINUTES, 'Minutes between checkpoints within an '
             'epoch; 0 writes one after every step.', minimum=0.0),
        Flag('log_every', LOG_EVERY, 'Steps after which the loss is read, checked and shown; in '
             'between the device is not waited for.', minimum=1),
        Flag('keep_checkpoints', KEPT_CHECKPOINTS, 'Newest checkpoints to keep; the best is kept '
             'beside them.', minimum=1),
        Flag('deterministic', False, 'Have TensorFlow give the same bits each time on GPUs too; '
             'a CPU does anyway.'),
        Flag('jit_compile', False, 'Have XLA compile the towers of the training step. It may be '
             'faster on GPUs; on CPUs convolutions become several times slower.'),
    ],
}


def run(flags: types.SimpleNamespace) -> None:
    """Trains on --records, or on a small synthetic world where there are none."""
    from avts_tf.commands._demo import records_or_demo
    from avts_tf.data.shards import naming_damage
    from avts_tf.training.devices import is_chief
    from avts_tf.training.run_folder import hold_run
    from avts_tf.training.trainer import train

    _, config, records, eval_records = records_or_demo(flags)
    with hold_run(flags.run_dir), naming_damage(records, eval_records, flags.select_records):
        before = _epochs_done(flags.run_dir, config)
        model = train(
            config, records, flags.run_dir, eval_records=eval_records,
            select_records=flags.select_records, devices=flags.devices,
            on_bad_record=flags.on_bad_record, checkpoint_minutes=flags.checkpoint_minutes,
            keep_checkpoints=flags.keep_checkpoints, log_every=flags.log_every,
            deterministic=flags.deterministic, jit_compile=flags.jit_compile,
            init_run_dir=flags.init_run_dir)
        if is_chief():
            _finish(flags, model, config, records, eval_records, before)


def _epochs_done(run_dir: str, config: Config) -> int:
    """Epochs that a run folder, which may not be there yet, holds."""
    from avts_tf.training.run_folder import RunFolder
    if not os.path.exists(os.path.join(run_dir, 'config.json')):
        return 0
    return RunFolder(run_dir, config).epochs_done()


def _finish(flags: types.SimpleNamespace, model: 'TwoTower', config: Config, records: str,
            eval_records: str | None, before: int) -> None:
    """Draws the curves, measures and exports; of a finished training, what is missing of that."""
    from avts_tf.commands.evaluate import measure
    from avts_tf.commands.export import export
    from avts_tf.evaluation.sync import describe
    from avts_tf.training.devices import worker_count
    from avts_tf.training.run_folder import (
        RunFolder,
        draw_training_curves,
        load_model,
        load_result,
    )

    run_dir = flags.run_dir
    run = RunFolder(run_dir, config)
    rows = run.history()
    if before == len(rows) and _is_complete(run_dir, before, eval_records or records,
                                            flags.export_dir):
        print('It has been measured and exported too; --mode=evaluate and --mode=export do that '
              'again. The result:')
        print(*describe(load_result(run_dir)['sync']), sep='\n')
        return
    if worker_count() > 1:
        model, _ = load_model(run_dir)  # on this machine's own devices: the others have finished
    draw_training_curves(run, config)
    measure(model, records, eval_records, run_dir, epochs=len(rows),
            chosen_on=flags.select_records)
    export(model, len(rows), run_dir, flags.export_dir)
    print(f'Everything of this run is in {run_dir}: result.json, history.csv, plots/, '
          f'checkpoints/, tensorboard/ (look: tensorboard --logdir={run_dir}).')


def _is_complete(run_dir: str, epochs: int, records: str, export_dir: str) -> bool:
    """Whether a training of so many epochs is measured on these records and exported."""
    from avts_tf.data.shards import same_files
    from avts_tf.training.run_folder import load_result
    result = load_result(run_dir)
    sync, exported = result.get('sync', {}), list(result.get('exported', {}).values())
    root = os.path.realpath(export_dir) + os.sep
    return (sync.get('epochs') == epochs and same_files(sync.get('measured_on'), records)
            and exported != []
            and all(os.path.isdir(path) and os.path.realpath(path).startswith(root)
                    for path in exported))
