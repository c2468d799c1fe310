"""Search for the best parameters by many trainings."""

import types

from avts_tf.commands._flags import (
    DEVICES,
    EVAL_RECORDS,
    RECORDS_OR_DEMO,
    RUN_DIR,
    SELECT_RECORDS,
    Flag,
)

PARAMETERS = True
FLAGS = {
    'Files': [RUN_DIR, RECORDS_OR_DEMO, EVAL_RECORDS, SELECT_RECORDS],
    'Running': [DEVICES, Flag('trials', 20, 'Trainings in all.', minimum=1)],
}


def run(flags: types.SimpleNamespace) -> None:
    """Searches the space of training/tune.py; parameters that are given as flags are held."""
    from avts_tf.commands._demo import records_or_demo
    from avts_tf.data.shards import naming_damage
    from avts_tf.training.devices import refuse_several_machines
    from avts_tf.training.run_folder import hold_run
    from avts_tf.training.tune import tune

    preset, _, records, eval_records = records_or_demo(flags)
    refuse_several_machines('mode', 'tune', 'runs on the devices of one machine; '
                            'unset TF_CONFIG.')
    with hold_run(flags.run_dir), naming_damage(records, eval_records, flags.select_records):
        tune(preset, flags.parameters, records, flags.run_dir, flags.trials,
             eval_records=eval_records, select_records=flags.select_records,
             devices=flags.devices)
