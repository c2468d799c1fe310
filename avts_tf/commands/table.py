"""Make a table of the paper's results: train, measure, set beside the published figures."""

from types import SimpleNamespace

from avts_tf.commands._flags import DEVICES, EVAL_RECORDS, RECORDS, Flag
from avts_tf.commands.action_recognition import LABEL_PREFIX
from avts_tf.commands.audio_classification import WEIGHTS
from avts_tf.experiments.published import PUBLISHED

RECORD_SETS = ('kinetics_records', 'audioset_records', 'soundnet_records', 'ucf101_records',
               'hmdb51_records')
SPLIT_SETS = ('ucf101_records', 'hmdb51_records')  # which have three official splits
STUDY = 'curriculum_study'  # of which nothing is published
QUICK_EPOCHS = 2
TABLES = (*PUBLISHED, STUDY)
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
        Flag('table', None, 'Which table to make.', choices=TABLES),
        Flag('table_dir', 'runs/tables', 'Folder of its runs and of what it writes.'),
        Flag('seeds', 1, 'Number of seeds, from --seed on.', minimum=1),
        Flag('world_difficulty', None, 'Difficulty of the synthetic worlds, 0 to 1. Default: that '
             'of each world.', float, minimum=0.0, maximum=1.0),
        Flag('quick', False, 'Few videos and 2 epochs: shows that all steps run; the figures say '
             'nothing.'),
        Flag('recipes', '', f'Recipes of {STUDY}, separated by commas. Default: all four, on given '
             'records the paper\'s alone.'),
        DEVICES,
    ],
    'Data': [RECORDS, EVAL_RECORDS, LABEL_PREFIX, *map(_data_flag, RECORD_SETS + SOUND_SETS),
             WEIGHTS],
}


def run(flags: SimpleNamespace) -> None:
    """Makes the table, or resumes making it."""
    from avts_tf.data.shards import naming_damage
    from avts_tf.errors import UserError
    from avts_tf.experiments.cells import Settings
    from avts_tf.experiments.study import fixed_parameters
    from avts_tf.experiments.tables import make_table
    from avts_tf.training.devices import refuse_several_machines

    refuse_several_machines('mode', 'table', 'runs on the devices of one machine; '
                            'unset TF_CONFIG.')
    if not flags.table:
        raise UserError('table', None, f'needed; one of {", ".join(TABLES)}.')
    given, preset = dict(flags.parameters), flags.preset or 'tiny'
    own = {'regime', 'system'}
    if flags.table == 'action':
        own.add('video_tower')
    if flags.table == STUDY:
        own |= fixed_parameters(preset)
    for name, value in given.items():
        if name in own:
            raise UserError(name, value, f'`table`={flags.table} has its own in each row; '
                            'leave it out.')
    first = given.pop('seed', 0)
    if flags.quick:
        given.setdefault('epochs', QUICK_EPOCHS)
    settings = Settings(
        table_dir=flags.table_dir, preset=preset, given=given,
        seeds=tuple(range(first, first + flags.seeds)), difficulty=flags.world_difficulty,
        records=flags.records, eval_records=flags.eval_records, label_prefix=flags.label_prefix,
        data={name: getattr(flags, name) for name in (*RECORD_SETS, *SOUND_SETS, 'weights')},
        devices=flags.devices, quick=flags.quick,
        recipes=tuple(filter(None, map(str.strip, flags.recipes.split(',')))))
    with naming_damage(flags.records, flags.eval_records):
        make_table(flags.table, settings)
