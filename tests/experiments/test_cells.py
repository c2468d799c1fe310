"""Which steps a cell is made of, and which data it needs."""

import itertools

from avts_tf.experiments.published import PUBLISHED
from avts_tf.experiments.steps import HERE
from avts_tf.experiments.tables import TABLES
from tests.experiments.fakes import DATA, SETS, make_settings


def test_data_make_cells(tmp_path):
    chosen = make_settings(tmp_path, [3], ['ucf101_records', 'kinetics_records'])
    chain, = TABLES['action'](chosen, SETS)['MC2, AVTS Kinetics', 'UCF101'].steps
    pretraining, tuning = chain
    assert pretraining.arguments['records'] == 'kinetics/train-*'
    assert pretraining.arguments['eval_records'] == 'kinetics/test-*'
    assert pretraining.arguments['config']['video_tower'] == 'mc2'
    assert pretraining.arguments['config']['seed'] == 3
    assert tuning.arguments['records'] == 'ucf/train{split}-*'
    assert tuning.arguments['splits'] == ['1', '2', '3']
    assert tuning.arguments['protocol']['init_run_dir'] == f'{HERE}/{pretraining.folder}'
    sounds = TABLES['audio'](make_settings(tmp_path, [0], ['esc10_input']), SETS)
    assert [step.kind for step in sounds['L3-Net, synthetic world', 'ESC-10'].steps[0]] == ['train',
                                                                                            'audio']
    assert sounds['random forest', 'ESC-10'].steps[0][0].arguments['protocol']['features'] == 'mfcc'
    assert sounds['AVTS Kinetics', 'ESC-10'] == 'needs `kinetics_records`'


def test_soundnets_published_weights_make_a_cell(tmp_path):
    row = 'SoundNet, published weights', 'ESC-10'
    without = make_settings(tmp_path, [0], ['esc10_input'])
    weights = tmp_path / 'sound8.npy'
    weights.write_text('a file')
    given = without._replace(data={**without.data, 'weights': str(weights)})
    control = 'SoundNet, random weights', 'ESC-10'
    assert TABLES['audio'](without, SETS)[row] == 'needs `weights`'
    assert TABLES['audio'](without, SETS)[control] == TABLES['audio'](given, SETS)[control]
    [step], = TABLES['audio'](given, SETS)[row].steps
    assert step.arguments['weights'] == str(weights)
    assert step.arguments['protocol']['features'] == 'soundnet'
    weights.write_text('another file')  # of another size: a finished step is not taken for it
    [changed], = TABLES['audio'](given, SETS)[row].steps
    assert changed.inputs['weights'] != step.inputs['weights'] and changed.folder == step.folder


# Rows of others, which no system of this project stands for.
PUBLISHED_ALONE = {
    'action': {f'I3D-RGB*, supervised {data}'
               for data in ('ImageNet', 'Kinetics', 'ImageNet and Kinetics')},
    'audio': {'human', 'RBM'},
}


def test_every_published_figure_has_a_cell_and_no_step_two_meanings(tmp_path):
    for data in ((), DATA):
        values = {name: f'{name}/{{part}}{{split}}' for name in data}
        chosen = make_settings(tmp_path, teacher='MobileNetV2')._replace(data=values)
        for name, table in TABLES.items():
            cells, folders = table(chosen, SETS), {}
            missing = {row for row, columns in PUBLISHED.get(name, {}).items()
                       for column in columns if (row, column) not in cells}
            assert missing == PUBLISHED_ALONE.get(name, set())
            for content in cells.values():
                chains = () if isinstance(content, str) else content.steps
                for step in itertools.chain(*chains):
                    assert folders.setdefault(step.folder, step) == step


def test_a_teacher_is_soundnets_alone(tmp_path):
    plain, taught = (TABLES['audio'](make_settings(tmp_path, [0], **given), SETS)
                     for given in ({}, {'teacher': 'MobileNetV2'}))
    column = 'sounds, synthetic world'
    for row in ('audio subnet from scratch', 'random weights', 'L3-Net, synthetic world',
                'AVTS, synthetic world'):
        assert plain[row, column] == taught[row, column]
    assert taught['SoundNet, synthetic world',
                  column].steps[0][0].arguments['config']['teacher'] == 'MobileNetV2'
