"""The program that writes the synthetic world."""

import os
import types

import pytest
from absl import flags

from avts_tf.errors import UserError
from tfrecords_tools import synthetic


def _values(output, **changed):
    values = {'videos': 1, 'seconds': 0.5, 'fps': 5.0, 'size': 16, 'sample_rate': 16000, 'seed': 9,
              'shards': 1, 'difficulty': 0.0, 'world': 'struck'}
    return types.SimpleNamespace(output=str(output), **{**values, **changed})


def test_importing_defines_no_flags():
    assert not [name for name in flags.FLAGS.flags_by_module_dict() if 'synthetic' in name]


def test_the_program_says_what_it_wrote(tmp_path, monkeypatch, capsys):
    prefix = tmp_path / 'new' / 'world'
    monkeypatch.setattr(flags, 'FLAGS', _values(prefix))
    synthetic.main(['synthetic'])
    assert capsys.readouterr().out == (
        f'1 videos of 0.5 s in 1 file(s): {prefix}-00000-of-00001\n'
        f'true strikes: {prefix}.strikes.csv, summary: {prefix}.json\n')
    assert sorted(os.listdir(prefix.parent)) == [
        'world-00000-of-00001', 'world.json', 'world.strikes.csv']


def test_the_program_writes_another_world(tmp_path, monkeypatch, capsys):
    prefix = tmp_path / 'world'
    monkeypatch.setattr(flags, 'FLAGS', _values(prefix, world='sustained'))
    synthetic.main(['synthetic'])
    assert f'true paths: {prefix}.paths.csv' in capsys.readouterr().out
    assert (tmp_path / 'world.paths.csv').read_text().startswith(
        'example_id,seconds,height,pitch_hz\nsustained-9-00000,0.000000,')


def test_a_wrong_value_is_named_with_dashes(tmp_path, monkeypatch):
    monkeypatch.setattr(flags, 'FLAGS', _values(tmp_path / 'world', size=3))
    with pytest.raises(UserError) as error:
        synthetic.main(['synthetic'])
    assert error.value.on_command_line() == '--size=3: must lie between 16 and 4096.'
