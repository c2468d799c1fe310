"""Make a table of the paper's results: train, measure, set beside the published figures."""

from types import SimpleNamespace

from avts_tf.commands._flags import DEVICES, EVAL_RECORDS, RECORDS, Flag
from avts_tf.commands.action_recognition import LABEL_PREFIX
from avts_tf.experiments.published import PUBLISHED

RECORD_SETS = ('kinetics_records', 'audioset_records', 'soundnet_records', 'ucf101_records',
               'hmdb51_records')
SPLIT_SETS = ('ucf101_records', 'hmdb51_records')  # which have three official splits
SOUND_SETS = ('esc10_input', 'esc50_input', 'dcase2014_input')


def _data_flag(name: str) -> Flag:
    dataset = name.split('_', maxsplit=1)[0]
    if name in SOUND_SETS:
        return Flag(name, None, f'Sounds of {dataset}, as --input of audio_classification.')
    split = ' and {split} where 1, 2 or 3 goes' if name in SPLIT_SETS else ''
    return Flag(name, None, f'Record files of {dataset}, with {{part}} where "train" or "test" '
                f'goes{split}.')


PARAMETERS = True
FLAGS = {
    'Table': [
        Flag('table', None, 'Which table to make.', choices=tuple(PUBLISHED)),
        Flag('table_dir', 'runs/tables', 'Folder of its runs and of what it writes.'),
        Flag('seeds', 1, 'Number of seeds, from --seed on.', minimum=1),
        Flag('world_difficulty', 0.8, 'Difficulty of the synthetic world, 0 to 1.', minimum=0.0,
             maximum=1.0),
        DEVICES,
    ],
    'Data': [RECORDS, EVAL_RECORDS, LABEL_PREFIX, *map(_data_flag, RECORD_SETS + SOUND_SETS)],
}


def run(flags: SimpleNamespace) -> None:
    """Makes the table, or resumes making it."""
    from avts_tf.data.shards import naming_damage
    from avts_tf.errors import UserError
    from avts_tf.experiments.cells import Settings
    from avts_tf.experiments.tables import make_table
    from avts_tf.training.devices import refuse_several_machines

    refuse_several_machines('mode', 'table', 'runs on the devices of one machine; '
                            'unset TF_CONFIG.')
    if not flags.table:
        raise UserError('table', None, f'needed; one of {", ".join(PUBLISHED)}.')
    given = dict(flags.parameters)
    for name in ('regime', 'system', *(['video_tower'] if flags.table == 'action' else [])):
        if name in given:
            raise UserError(name, given[name], f'`table`={flags.table} has its own in each row; '
                            'leave it out.')
    first = given.pop('seed', 0)
    settings = Settings(
        table_dir=flags.table_dir, preset=flags.preset or 'tiny', given=given,
        seeds=tuple(range(first, first + flags.seeds)), difficulty=flags.world_difficulty,
        records=flags.records, eval_records=flags.eval_records, label_prefix=flags.label_prefix,
        data={name: getattr(flags, name) for name in RECORD_SETS + SOUND_SETS},
        devices=flags.devices)
    with naming_damage(flags.records, flags.eval_records):
        make_table(flags.table, settings)
