"""The program that asks a server, in this process; `test_remote_towers` tests the requests."""

import json

import pytest
from absl import flags

from avts_tf.errors import UserError
from avts_tf.inference import client
from tests.helpers import noise, write_sound


@pytest.fixture
def values(monkeypatch):
    """Function from flags of a command line to their values."""
    defined = flags.FlagValues()
    for name in ('string', 'enum', 'integer', 'float', 'boolean', 'multi_string'):
        define = getattr(flags, f'DEFINE_{name}')
        monkeypatch.setattr(client.flags, f'DEFINE_{name}',
                            lambda *args, define=define, **options: define(
                                *args, flag_values=defined, **options))
    monkeypatch.setattr(client.flags, 'mark_flag_as_required', lambda name: None)
    client._define_flags()

    def parse(*given):
        defined(['client', *given])
        return defined

    return parse


@pytest.fixture
def sounds(tmp_path):
    write_sound(tmp_path / 'a.wav', noise(20000))
    (tmp_path / 'c.wav').write_text('no sound')
    return tmp_path


def test_features_are_printed(values, audio, sounds, monkeypatch, capsys):
    """A loaded tower stands in for the server's."""
    monkeypatch.setattr(client, 'connect', lambda *_, **__: audio)
    assert client.query(values(f'--input={sounds}', '--workers=1', '--hop_seconds=0.1')) == 1
    lines = {line['path']: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    expected = audio.embed(noise(20000), 16000, hop_seconds=0.1)
    assert lines['a.wav'] == {'path': 'a.wav', **{
        name: pytest.approx(value.ravel().tolist(), abs=1e-4) if value.ndim == 1 else
        [pytest.approx(row, abs=1e-4) for row in value.tolist()]
        for name, value in expected._asdict().items()}}
    assert lines['c.wav']['reason'] == 'unreadable'


def test_features_are_written(values, audio, sounds, monkeypatch, capsys):
    monkeypatch.setattr(client, 'connect', lambda *_, **__: audio)
    given = [f'--input={sounds}/a.wav', f'--output={sounds}/out', '--workers=1']
    assert client.query(values(*given)) == 1
    assert (sounds / 'out' / 'a.npz').exists() and '1 written' in capsys.readouterr().out
    assert client.query(values(*given, '--skip_existing')) == 1
    assert '1 there already' in capsys.readouterr().out


def test_no_server(values, sounds):
    with pytest.raises(UserError) as caught:
        client.query(values('--server=localhost:1', f'--input={sounds}', '--retries=0'))
    assert caught.value.on_command_line().startswith('localhost:1: no server answers there')
