"""The curriculum study: its trainings, what is decided from their figures, and what is written."""

import contextlib
import json

import numpy as np
import pytest
import scipy.stats

from avts_tf.config import make_config
from avts_tf.errors import UserError
from avts_tf.experiments import plots, steps, study, tables
from avts_tf.experiments.steps import HERE
from tests.experiments.fakes import SETS, FakeRuns, make_settings


def _steps(cells):
    return {step.folder: step for figure in cells.values() for chain in figure.steps
            for step in chain}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes the study of made-up results, with two of its recipes."""
    def make(runs, write=lambda *args, **options: None, draw=False, **changed):
        if not draw:
            monkeypatch.setattr(tables.plots, 'study_panels', lambda *args: None)
            monkeypatch.setattr(tables.plots, 'regime_curves', lambda *args: None)
        monkeypatch.setattr(steps, 'run', runs)
        monkeypatch.setattr(tables, 'write_world', write)
        settings = make_settings(tmp_path)._replace(**{'recipes': ('paper', 'ours'), **changed})
        lines = tables.make_table('curriculum_study', settings)
        return lines, (tmp_path / 'curriculum_study.md').read_text()
    return make


def test_recipes_are_at_the_presets_sizes_and_differ_in_what_they_are_called_after():
    published = make_config('paper').values()
    for preset in ('tiny', 'small', 'large', 'paper'):
        made = {name: make_config(preset, **recipe).values()
                for name, recipe in study.recipes(preset).items()}
        sizes = {name: make_config(preset).values()[name] for name in study.SIZES}
        assert {**published, **sizes} == made['paper']
        changed = {name: {key for key in values if values[key] != made['paper'][key]}
                   for name, values in made.items()}
        assert changed['paper with spans'] == {'head'}
        assert changed['paper with AdamW'] == {'optimizer', 'learning_rate'}
        assert made['ours']['easy_negatives'] == 'drawn'
    assert {'margin', 'crop_scale_min', 'schedule'} <= study.fixed_parameters('tiny')


def test_all_arms_of_a_group_are_measured_on_the_same_records_and_branch_from_one_checkpoint(
        tmp_path):
    cells = study.study_cells(make_settings(tmp_path, seeds=[3, 4], epochs=90), {
        f'{world} {part}': f'{world}/{part}-*' for world in study.WORLDS
        for part in ('train', 'held')})
    found = _steps(cells)
    # Two worlds, four recipes, two seeds; seven trainings each, of which three share the first.
    assert len(found) == 2 * 4 * 2 * 7
    assert {(step.arguments['records'], step.arguments['eval_records'])
            for step in found.values()} == {('struck/train-*', 'struck/held-*'),
                                            ('sustained/train-*', 'sustained/held-*')}
    assert {step.arguments['label_prefix'] for step in found.values()} == {'object:'}
    figure = cells['sustained, paper with spans: curriculum_mixed', 'AVTS accuracy']
    assert figure.keys == ('sync', 'avts_accuracy')
    before, branch = figure.steps[1]
    assert before == cells['sustained, paper with spans: first stage only',
                           'AUC hard'].steps[1][-1]
    assert before.arguments['config']['regime'] == 'easy:50'
    assert branch.arguments['config']['regime'] == 'easy=0.75+hard=0.25:40'
    assert branch.arguments['init_run_dir'] == f'{HERE}/{before.folder}'
    assert branch.arguments['config']['seed'] == before.arguments['config']['seed'] == 4
    for arm, mix in (('curriculum_easy', 'easy'), ('curriculum_hard', 'hard')):
        chain = cells[f'sustained, paper with spans: {arm}', 'AVTS accuracy'].steps[1]
        assert chain[0] == before and chain[1].arguments['config']['regime'] == f'{mix}:40'
    alone, = cells['struck, ours: hard', 'AVTS accuracy'].steps[0]
    assert alone.arguments['config']['regime'] == 'hard' and 'init_run_dir' not in alone.arguments


def test_on_given_records_the_papers_recipe_has_three_arms(tmp_path):
    settings = make_settings(tmp_path, [0])._replace(records='a', eval_records='b')
    cells = study.study_cells(settings, {'train': 'a', 'held': 'b'})
    assert {row for row, _ in cells} == {
        f'these records, paper: {arm}' for arm in ('easy', 'hard', 'curriculum_mixed')}
    assert ('these records, paper: hard', 'AUC super_hard') in cells
    assert ('these records, paper: hard', study.SUPER_HARD) in cells
    # Without a prefix of labels easy pairs are not split: the records may have none.
    assert not any('class' in column for _, column in cells)
    assert all('label_prefix' not in step.arguments for step in _steps(cells).values())
    split = study.study_cells(settings._replace(label_prefix='word:'), {'train': 'a', 'held': 'b'})
    assert ('these records, paper: easy', 'easy, same class') in split
    assert {step.arguments['label_prefix'] for step in _steps(split).values()} == {'word:'}


def test_a_part_of_the_recipes_makes_a_part_of_the_study(tmp_path):
    sets = {f'{world} {part}': 'a' for world in study.WORLDS for part in ('train', 'held')}
    settings = make_settings(tmp_path)
    whole = study.study_cells(settings, sets)
    part = study.study_cells(settings._replace(recipes=('ours', 'paper')), sets)
    assert {row.partition(':')[0] for row, _ in part} == {
        'struck, ours', 'struck, paper', 'sustained, ours', 'sustained, paper'}
    assert all(figure == whole[cell] for cell, figure in part.items())
    given = settings._replace(records='a', eval_records='b', recipes=('ours',))
    assert {row.partition(':')[0] for row, _ in study.study_cells(
        given, {'train': 'a', 'held': 'b'})} == {'these records, ours'}
    with pytest.raises(UserError, match='^recipes=papers: not known; known are paper, paper with'):
        study.study_cells(settings._replace(recipes=('paper', 'papers')), sets)


def test_given_records_are_decided_by_super_hard_pairs(made, tmp_path):
    class Runs(FakeRuns):
        def __call__(self, step, table_dir, *others):
            reason = super().__call__(step, table_dir, *others)
            path = tmp_path / step.folder / 'result.json'
            content = json.loads(path.read_text())
            content['sync']['accuracy_super_hard'] = (
                0.9 if 'mixed' in step.folder else 0.52) + step.arguments['config']['seed'] / 100
            path.write_text(json.dumps(content))
            return reason

    runs = Runs()
    _, text = made(runs, seeds=(0, 1), records='a-*', eval_records='b-*', recipes=())
    assert runs.ran == [f'study-paper-{arm}-seed{seed}' for seed in (0, 1)
                        for arm in ('easy', 'hard', 'first_stage_only', 'curriculum_mixed')]
    content = json.loads((tmp_path / 'curriculum_study.json').read_text())
    assert content['measure'] == study.SUPER_HARD
    assert [(found['condition'], found['verdict']) for found in content['claim']] == [
        ('curriculum_mixed − easy > 0', 'shown'), ('hard < 60', 'shown')]
    np.testing.assert_allclose(content['claim'][0]['values'], [38.0, 38.0])
    assert 'are shown in: these records, paper.' in text


def test_no_step_has_two_meanings(tmp_path):
    folders = {}
    for figure in study.study_cells(make_settings(tmp_path), SETS).values():
        for chain in figure.steps:
            for step in chain:
                assert folders.setdefault(step.folder, step) == step


def test_the_interval_is_that_of_students_test():
    values = [1.0, 3.5, 2.0, 0.5, 2.5]
    expected = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    np.testing.assert_allclose(study.interval_of_mean(values), expected)
    assert study.interval_of_mean([1.0]) is None


MORE, LESS = [70.0, 72.0, 71.0], [60.0, 61.5, 61.0]


@pytest.mark.parametrize(('condition', 'accuracy', 'verdict'), [
    (study.CLAIM[0], {'curriculum_mixed': MORE, 'easy': LESS}, 'shown'),
    (study.CLAIM[0], {'curriculum_mixed': LESS, 'easy': MORE}, 'refuted'),
    (study.CLAIM[0], {'curriculum_mixed': [61.0, 59.0, 62.0], 'easy': LESS}, 'open'),
    (study.CLAIM[0], {'curriculum_mixed': [70.0], 'easy': [60.0]}, 'open: one seed'),
    (study.CLAIM[0], {'curriculum_mixed': MORE}, 'not measured'),
    (study.CLAIM[1], {'hard': [51.0, 52.0, 50.0]}, 'shown'),
    (study.CLAIM[1], {'hard': [59.0, 58.0, 61.0]}, 'open'),
    (study.CLAIM[1], {'hard': MORE}, 'refuted'),
    (study.CLAIM[2], {'mixed': LESS, 'easy': MORE}, 'shown'),
    (study.CLAIM[2], {'mixed': MORE, 'easy': LESS}, 'refuted'),
])
def test_a_condition_is_decided_by_its_interval(condition, accuracy, verdict):
    found = study.decide(condition, accuracy)
    assert found['verdict'] == verdict
    if condition.minus and verdict == 'shown':
        values = np.subtract(accuracy[condition.arm], accuracy[condition.minus])
        assert found['values'] == values.tolist()
        assert found['mean'] == pytest.approx(values.mean())


def test_differences_are_paired_by_seed():
    # Seeds differ far more than arms, as seeds do; what is left of each pair is one point.
    easy = [50.0, 70.0, 90.0]
    found = study.decide(study.CLAIM[0], {
        'curriculum_mixed': [value + 1.0 + 0.1 * k for k, value in enumerate(easy)], 'easy': easy})
    assert found['verdict'] == 'shown' and found['mean'] == pytest.approx(1.1)


def test_the_study_is_written(made, tmp_path):
    runs = FakeRuns()
    lines, text = made(runs, seeds=(0, 1, 2))
    assert len(runs.ran) == 2 * 2 * 3 * 7
    by_place = {(line['row'], line['column']): line for line in lines}
    # FakeRuns: easy 0.70, hard 0.50, others 0.60, and 0.02 more for each seed.
    assert by_place['sustained, paper: easy', 'AVTS accuracy']['mean'] == pytest.approx(72.0)
    assert '### sustained, ours' in text and '| hard | 52.0 ± 2.0 |' in text
    content = json.loads((tmp_path / 'curriculum_study.json').read_text())
    verdicts = {(found['group'], found['condition']): found['verdict']
                for found in content['claim']}
    assert verdicts == {(f'{world}, paper', condition): verdict for world in study.WORLDS
                        for condition, verdict in (('curriculum_mixed − easy > 0', 'refuted'),
                                                   ('hard < 60', 'shown'),
                                                   ('mixed − easy < 0', 'shown'))}
    difference = next(found for found in content['differences']
                      if (found['group'], found['arm'], found['minus'])
                      == ('struck, ours', 'hard', 'easy'))
    np.testing.assert_allclose(difference['values'], [-20.0] * 3)
    assert 'All of its conditions are shown in: none.' in text
    again = FakeRuns()
    made(again, seeds=(0, 1, 2))
    # Of a part of the recipes, without the paper's, no claim is decided.
    _, text = made(again, seeds=(0, 1, 2), recipes=('ours',))
    assert again.ran == []
    assert '### struck, ours' in text and 'claim' not in text


def test_the_study_is_drawn_with_all_arms(made, tmp_path, monkeypatch):
    monkeypatch.setattr(study, 'WORLDS', ('sustained',))

    def run(step, *others):
        reason = FakeRuns()(step, *others)
        (tmp_path / step.folder / 'history.csv').write_text(
            'epoch,loss,auc_easy,auc_hard\n1,0.5,0.6,0.5\n')
        return reason

    axes = []
    figure = plots.figure
    monkeypatch.setattr(plots, 'figure', lambda path, *sizes, **options: _noting(
        figure(path, *sizes, **options), axes))
    made(run, draw=True, seeds=(0,))
    curves, panels = axes[:2], axes[2]  # of two groups
    for drawn in curves:
        names = drawn[0, 1].get_legend_handles_labels()[1]
        assert names == list(study.ARMS)
        # A branch goes on after the first stage.
        assert [len(line.get_xdata()) for line in drawn[0, 1].get_lines()[:7]] == [
            1, 1, 1, 1, 2, 2, 2]
    assert [axis.get_title() for axis in panels.flat] == [
        'sustained, paper', 'sustained, ours']
    assert (tmp_path / 'curriculum_study.png').stat().st_size > 5000
    assert (tmp_path / 'sustained-paper.png').stat().st_size > 5000


@contextlib.contextmanager
def _noting(figure, axes):
    with figure as (drawn, found):
        axes.append(found)
        yield drawn, found


@pytest.mark.parametrize(('changed', 'written'), [
    ({'difficulty': None}, {'train-difficulty0.8-32px-25fps-16000hz': (427, 0.8, 100, 'struck'),
                            'held-difficulty0.8-32px-25fps-16000hz': (128, 0.8, 101, 'struck'),
                            'train-sustained-difficulty0.5-32px-25fps-16000hz':
                                (427, 0.5, 100, 'sustained'),
                            'held-sustained-difficulty0.5-32px-25fps-16000hz':
                                (128, 0.5, 101, 'sustained')}),
    ({'difficulty': 0.1, 'quick': True},
     {'train-difficulty0.1-32px-25fps-16000hz-quick': (53, 0.1, 100, 'struck'),
      'held-difficulty0.1-32px-25fps-16000hz-quick': (16, 0.1, 101, 'struck'),
      'train-sustained-difficulty0.1-32px-25fps-16000hz-quick': (53, 0.1, 100, 'sustained'),
      'held-sustained-difficulty0.1-32px-25fps-16000hz-quick': (16, 0.1, 101, 'sustained')}),
])
def test_each_world_is_written_with_its_difficulty(made, tmp_path, changed, written):
    found = {}

    def write(path, videos, **options):
        assert (options['size'], options['fps'], options['sample_rate']) == (40, 25.0, 16000)
        found[path.rpartition('/')[2]] = (videos, *(
            options[name] for name in ('difficulty', 'seed', 'world')))

    made(FakeRuns(), write, seeds=(0,), **changed)
    assert found == written
    records = {json.loads(path.read_text())['arguments']['records'] for path in tmp_path.glob(
        'study-*/step.json')}
    assert records == {f'{HERE}/world/{name}-*-of-*' for name in written
                       if name.startswith('train')}


def test_a_failed_first_stage_costs_what_branches_from_it(made, tmp_path):
    first = 'study-struck-paper-first_stage_only-seed0'
    runs = FakeRuns(failing={first: f'{first}: no room'})
    with pytest.raises(UserError, match='4 of 28 steps failed'):
        made(runs, seeds=(0,))
    assert len(runs.ran) == 28 - 3  # what branches from it is not run
    text = (tmp_path / 'curriculum_study.md').read_text()
    assert '| curriculum_easy | – [1] |' in text and 'no room' in text
    content = json.loads((tmp_path / 'curriculum_study.json').read_text())
    assert [found['verdict'] for found in content['claim'][:3]] == [
        'not measured', 'open: one seed', 'open: one seed']


def test_the_spread_is_that_of_the_last_epochs(made, tmp_path):
    runs = FakeRuns()
    made(runs, seeds=(0,))
    aucs = [0.5, 0.9, 0.6, 0.7, 0.6, 0.8, 0.7]
    (tmp_path / 'study-struck-ours-hard-seed0/history.csv').write_text(
        'epoch,loss,auc_easy\n' + ''.join(f'{epoch},0.5,{auc}\n'
                                          for epoch, auc in enumerate(aucs, 1)))
    made(FakeRuns(), seeds=(0,))
    content = json.loads((tmp_path / 'curriculum_study.json').read_text())
    spread, = (line for line in content['lines'] if line['column'] == study.SPREAD)
    assert spread['row'] == 'struck, ours: hard'
    assert spread['values'] == [pytest.approx(np.std(aucs[-5:], ddof=1))]
