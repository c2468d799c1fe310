"""Values that do not go together, or do not exist, are named."""

import pytest

from avts_tf.config import PRESETS, Config, describe_parameter, make_config, parameters
from avts_tf.errors import UserError
from avts_tf.training.curriculum import parse_regime
from tests.helpers import ROOT


@pytest.mark.parametrize(('values', 'words'), [
    ({'super_hard_min_shift': 0.6}, 'super_hard_min_shift=0.6'),
    ({'mel_max_hz': 9000.0}, 'mel_max_hz=9000'),
    ({'fft_size': 256}, 'fft_size=256'), ({'frames': 3}, 'frames=3.*fewer than 16 STFT'),
    ({'head_spans': 7}, 'head_spans=7'),
    ({'loss': 'infonce', 'audio_windows': 1}, 'audio_windows=1'),
    ({'nonsense': 1}, 'nonsense=1: unknown parameter'),
    ({'momentum': 1.5}, 'momentum=1.5'), ({'margin': float('nan')}, 'margin=nan'),
    ({'head': 'x'}, 'head=x: use one of'),
])
def test_values_that_do_not_go_together(values, words):
    with pytest.raises(UserError, match='^' + words):
        make_config('tiny', **values)


def test_a_preset_that_does_not_exist():
    with pytest.raises(UserError, match='^preset=huge: unknown preset; use one of paper'):
        make_config('huge')


@pytest.mark.parametrize('preset', PRESETS)
def test_presets_are_allowed_values_and_go_through_json(preset):
    config = make_config(preset)
    assert Config.from_json(config.to_json()) == config
    assert config.values().keys() == {field.name for _, field in parameters()}
    assert all(config.values()[name] == value for name, value in PRESETS[preset].items())


def test_each_parameter_is_described_with_unit_range_and_default():
    described = {field.name: describe_parameter(field) for _, field in parameters()}
    assert described['sample_rate'] == 'audio sample rate [Hz, at least 1000]. Default: 16000.'
    assert 'Default: 224 (large 112, small 48, faces 48, tiny 32)' in described['frame_size']
    assert described['momentum'] == 'momentum of SGD [0.0 to 1.0]. Default: 0.9.'
    assert '[pixels, at least 8]' in described['frame_size']
    assert '[mc2, mc3, i3d]' in described['video_tower']


# What the method does not depend on, or what its other values leave unused.
NOT_OF_THE_METHOD = {
    'head_spans', 'spec_freq_bands', 'spec_time_seconds', 'temperature', 'seed', 'teacher',
    'learnable_temperature', 'infonce_batch_negatives',
    'shuffle_records',
}


def test_the_preset_paper_is_the_table_of_the_method():
    page = (ROOT / 'docs' / 'method.md').read_text()
    table = page[page.index('| parameter |'):].split('\n\n')[0]
    rows = [[cell.strip() for cell in line.strip('|').split('|')]
            for line in table.splitlines() if line.startswith('| ')]
    assert rows.pop(0) == ['parameter', 'value', 'standing', 'remark']
    assert {row[2] for row in rows} <= {'slides', 'code', 'recall', 'choice'}
    preset = {name: str(value).lower() if isinstance(value, bool) else str(value)
              for name, value in make_config('paper').values().items()
              if name not in NOT_OF_THE_METHOD}
    assert {row[0]: row[1] for row in rows} == preset and len(rows) == len(preset)


def test_the_paper_changes_the_negatives_after_50_of_90_epochs():
    train = make_config('paper').train
    assert str(parse_regime(train.regime, train.epochs)) == 'easy:50,easy=0.75+hard=0.25:40'
    assert make_config('paper').clip.window_seconds == 1.0


def test_the_command_line_and_python_begin_with_the_same_preset():
    assert make_config() == make_config('small')
