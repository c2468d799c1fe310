"""What is run again, what is not, and what a failing step leaves."""

import pytest

from avts_tf.errors import UserError
from avts_tf.experiments import steps, tables
from tests.experiments.fakes import SETS, FakeRuns, make_settings


def test_a_table_knows_its_folder_by_any_name_and_its_data_by_content(tmp_path, monkeypatch):
    (tmp_path / 'esc.csv').write_text('path,label,fold\na.wav,dog,1\n')
    data = {'esc10_input': str(tmp_path / 'esc.csv')}
    runs = FakeRuns()
    monkeypatch.setattr(steps, 'run', runs)
    monkeypatch.setattr(tables.plots, 'table_bars', lambda *args: None)
    monkeypatch.setattr(tables.plots, 'regime_curves', lambda *args: None)
    monkeypatch.setattr(tables, 'write_world', lambda *args, **options: None)
    tables.make_table('curriculum', make_settings(tmp_path / 'table', [0]))
    assert len(runs.ran) == 6
    (tmp_path / 'table').rename(tmp_path / 'moved')
    runs.ran.clear()
    moved = make_settings(tmp_path / 'moved' / '..' / 'moved', [0])._replace(devices='2')
    tables.make_table('curriculum', moved)
    assert runs.ran == []

    def step():
        chosen = make_settings(tmp_path / 'sounds', [0])._replace(data=data)
        return tables.TABLES['audio'](chosen, SETS)['random forest', 'ESC-10'].steps[0][0]

    FakeRuns()(step(), str(tmp_path / 'sounds'), None, None)
    steps.is_finished(step(), str(tmp_path / 'sounds'))
    (tmp_path / 'esc.csv').write_text('path,label,fold\na.wav,dog,2\n')
    with pytest.raises(UserError,
                       match=r'made from other files than `esc10_input` names now \(.*esc\.csv'):
        steps.is_finished(step(), str(tmp_path / 'sounds'))


@pytest.mark.slow
def test_a_step_that_fails_is_named(tmp_path, capfd, monkeypatch):
    chosen = make_settings(tmp_path, [0])._replace(records='nowhere/*', eval_records='nowhere/*')
    monkeypatch.setattr(tables, 'REGIMES', ('easy',))
    with pytest.raises(UserError, match='1 of 1 steps failed'):
        tables.make_table('curriculum', chosen)
    assert '--records=nowhere/*' in capfd.readouterr().err
    text = (tmp_path / 'curriculum.md').read_text()
    assert 'train-easy-seed0: records=nowhere/*: no file matches' in text


def test_a_stamp_knows_folders_with_signs_of_globs(tmp_path):
    folder = tmp_path / 'sounds, [all]'
    folder.mkdir()
    (folder / 'list.csv').write_text('path,label\n')
    before = {path: steps.stamp(str(path)) for path in (folder, folder / 'list.csv')}
    (folder / 'list.csv').write_text('path,label\na.wav,dog\n')
    for path, value in before.items():
        assert steps.stamp(str(path)) != value
