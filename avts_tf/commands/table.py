"""Make a table of the paper's results: train, measure, set beside the published figures."""

from avts_tf.commands._flags import DEVICES, EVAL_RECORDS, RECORDS, Flag
from avts_tf.commands.action_recognition import LABEL_PREFIX

DATASETS = {
    'kinetics_records': '', 'audioset_records': '', 'soundnet_records': '',
    'ucf101_records': ' and {split} where 1, 2 or 3 goes',
    'hmdb51_records': ' and {split} where 1, 2 or 3 goes',
    'esc10_input': None, 'esc50_input': None, 'dcase2014_input': None,
}


def _dataset_flag(name, split):
    dataset = name.split('_')[0]
    if split is None:
        return Flag(name, None, f'Sounds of {dataset}, as --input of audio_classification.')
    return Flag(name, None, f'Record files of {dataset}, with {{part}} where "train" or "test" '
                f'goes{split}.')


PARAMETERS = True
FLAGS = {
    'Table': [
        Flag('table', None, 'Which one: curriculum, curriculum_downstream, action, audio, '
             'multisensory.'),
        Flag('table_dir', 'runs/tables', 'Folder of its runs and of what it writes.'),
        Flag('seeds', 1, 'Number of seeds, from --seed on.', minimum=1),
        Flag('world_difficulty', 0.8, 'Difficulty of the synthetic world, 0 to 1.', minimum=0.0,
             maximum=1.0),
        DEVICES,
    ],
    'Data': [RECORDS, EVAL_RECORDS, LABEL_PREFIX,
             *(_dataset_flag(name, split) for name, split in DATASETS.items())],
}


def run(flags):
    """Makes the table, or resumes making it."""
    from avts_tf.config import make_config
    from avts_tf.data.records import naming_damage
    from avts_tf.errors import UserError
    from avts_tf.experiments import tables
    from avts_tf.training.devices import refuse_several_machines
    from tfrecords_tools.synthetic import write_world

    refuse_several_machines('mode', 'table', 'runs on the devices of one machine; '
                            'unset TF_CONFIG.')
    if flags.table not in tables.TABLES:
        raise UserError('table', flags.table, f'use one of {", ".join(tables.TABLES)}.')
    given = dict(flags.parameters)
    for name in ('regime', 'system', *(['video_tower'] if flags.table == 'action' else [])):
        if name in given:
            raise UserError(name, given[name], f'`table`={flags.table} has its own in each row; '
                            'leave it out.')
    first = given.pop('seed', 0)
    preset = flags.preset or 'tiny'
    clip = make_config(preset, **given).clip

    def write(prefix, videos, seed, difficulty):
        write_world(prefix, videos=videos, seed=seed, difficulty=difficulty,
                    size=clip.frame_size + 8, fps=clip.fps, sample_rate=clip.sample_rate)

    settings = tables.Settings(
        flags.table_dir, preset, given, tuple(range(first, first + flags.seeds)),
        flags.world_difficulty, flags.records, flags.eval_records, flags.label_prefix,
        {name: getattr(flags, name) for name in DATASETS}, flags.devices)
    with naming_damage(flags.records, flags.eval_records):
        tables.make_table(flags.table, settings, write)
