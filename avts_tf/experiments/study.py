"""The curriculum study: in which world, and by which part of a recipe, does a curriculum help?

Each combination of a world and a recipe is a group of trainings, the same arms in each.
docs/curriculum_study.md says why, and what was laid down before any figure was seen.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

from avts_tf import files
from avts_tf.config import PRESETS, make_config
from avts_tf.data.sampling import NEGATIVES
from avts_tf.errors import UserError
from avts_tf.experiments import plots
from avts_tf.experiments.cells import FIRST_STAGE, Figure, Settings, records_step
from avts_tf.experiments.render import as_markdown, mean_and_deviation
from avts_tf.experiments.steps import HERE, Step
from avts_tf.training.curriculum import REGIMES

NAME = 'curriculum_study'
WORLDS = ('struck', 'sustained')
ARMS = ('easy', 'mixed', 'hard', FIRST_STAGE, 'curriculum_easy', 'curriculum_mixed',
        'curriculum_hard')
RECORDS_ARMS = ('easy', 'hard', 'curriculum_mixed')  # on given records
RECORDS_RECIPES = ('paper',)  # where none are asked for
# Parameters of a preset that are no part of a recipe: how large and how long, not how.
SIZES = ('frames', 'frame_size', 'video_width', 'audio_width', 'embedding_size', 'batch_size',
         'epochs', 'bfloat16')
ACCURACY = 'AVTS accuracy'
SUPER_HARD = 'accuracy, super-hard'  # what is decided by on given records
SPREAD = 'AUC easy, spread over epochs'
SPREAD_EPOCHS = 5  # the last ones of a training
CONFIDENCE = 0.95

# Differences that are taken seed by seed. Both arms have the same number of steps, but for the
# first stage alone.
DIFFERENCES = (
    ('curriculum_mixed', 'easy'), ('curriculum_mixed', 'curriculum_easy'),
    ('curriculum_hard', 'curriculum_easy'), ('curriculum_mixed', FIRST_STAGE), ('mixed', 'easy'),
    ('hard', 'easy'),
)


class Condition(NamedTuple):
    """A part of the claim: an arm's accuracy, or what it has more than another's, and a bound.

    Attributes:
        arm: one of `ARMS`.
        minus: the arm that is subtracted, seed by seed, or ''.
        above: whether the figure must lie above the bound, or below it.
        bound: in percent, or points.
    """

    arm: str
    minus: str
    above: bool
    bound: float

    def __str__(self) -> str:
        minus = f' − {self.minus}' if self.minus else ''
        return f'{self.arm}{minus} {">" if self.above else "<"} {self.bound:g}'


# The paper's claim, in the paper's recipe; of given records as far as they have the arms.
CLAIM = (
    Condition('curriculum_mixed', 'easy', True, 0.0), Condition('hard', '', False, 60.0),
    Condition('mixed', 'easy', False, 0.0),
)


def recipes(preset: str) -> dict[str, dict[str, Any]]:
    """Name → what each recipe changes of a preset, all at the preset's sizes.

    `ours` is the preset, but with easy negatives drawn one by one as in the paper; `paper` has the
    paper's value for all that is no size; the others differ from `paper` in one thing each.
    """
    published = make_config('paper').values()
    paper = {name: published[name] for name in PRESETS[preset] if name not in SIZES}
    adamw = {name: PRESETS['tiny'][name] for name in ('optimizer', 'learning_rate')}
    return {
        'paper': paper,
        'paper with spans': {**paper, 'head': 'spans'},
        'paper with AdamW': {**paper, **adamw},
        'ours': {'easy_negatives': 'drawn'},
    }


def fixed_parameters(preset: str) -> set[str]:
    """Parameters that the study sets itself, and that cannot be given."""
    return {'regime', 'system'}.union(*recipes(preset).values())


def study_cells(settings: Settings, sets: Mapping[str, str]) -> dict[tuple[str, str], Figure | str]:
    """The cells of the study, by ('GROUP: ARM', measure).

    Args:
        settings: what it is made with.
        sets: globs of records by '`WORLD` train' and '`WORLD` held', or, with given records, by
            'train' and 'held'.

    Raises:
        UserError: a recipe that is asked for is not known.
    """
    given = settings.records is not None
    all_recipes = recipes(settings.preset)
    chosen = settings.recipes or (RECORDS_RECIPES if given else tuple(all_recipes))
    for name in chosen:
        if name not in all_recipes:
            raise UserError('recipes', name, f'not known; known are {", ".join(all_recipes)}.')
    columns = [(ACCURACY, 'avts_accuracy', 100.0)]
    if not given or settings.label_prefix:
        columns += [('easy, same class', 'accuracy_easy_same_class', 100.0),
                    ('easy, other class', 'accuracy_easy_other_class', 100.0)]
    columns.append((SUPER_HARD, 'accuracy_super_hard', 100.0))
    columns += [(f'AUC {kind}', f'auc_{kind}', 1.0) for kind in NEGATIVES]
    cells: dict[tuple[str, str], Figure | str] = {}
    for world in [''] if given else WORLDS:
        for recipe in chosen:
            for arm in RECORDS_ARMS if given else ARMS:
                chains = tuple(_chain(settings, sets, world, recipe, all_recipes[recipe], arm, seed)
                               for seed in settings.seeds)
                row = f'{world or settings.place}, {recipe}: {arm}'
                cells.update({(row, column): Figure(chains, ('sync', key), scale)
                              for column, key, scale in columns})
    return cells


def _chain(
    settings: Settings, sets: Mapping[str, str], world: str, recipe: str,
    overrides: Mapping[str, Any], arm: str, seed: int,
) -> tuple[Step, ...]:
    """The steps of an arm: one training, or the shared first stage and what branches from it."""
    records, eval_records = (sets[f'{world} {part}'.strip()] for part in ('train', 'held'))
    prefix = settings.label_prefix if settings.records else 'object:'
    labels = {'label_prefix': prefix} if prefix else {}

    def step(name: str, regime: str, **more: str) -> Step:
        config = {'preset': settings.preset, **overrides, **settings.given, 'seed': seed,
                  'regime': regime}
        folder = '-'.join(filter(None, ['study', world, recipe, name, f'seed{seed}']))
        return records_step(folder.replace(' ', '_'), 'train', settings, records, eval_records,
                            {'config': config, **labels, **more})

    if arm in ('easy', 'mixed', 'hard'):
        return (step(arm, arm),)
    first, second = settings.stages
    before = step(FIRST_STAGE, f'easy:{first.epochs}')
    if arm == FIRST_STAGE:
        return (before,)
    [mix] = REGIMES[arm.removeprefix('curriculum_')]
    return (before, step(arm, f'{mix}:{second.epochs}',
                         init_run_dir=os.path.join(HERE, before.folder)))


def write_study(
    lines: Sequence[dict[str, Any]], cells: Mapping[tuple[str, str], Figure | str],
    settings: Settings,
) -> str:
    """Writes `curriculum_study.json`, `.png` and the curves of each group.

    Args:
        lines: the cells with their values, see `tables.make_table`.
        cells: result of `study_cells`.
        settings: what the study is made with.

    Returns:
        The study as Markdown.
    """
    lines = [*lines, *_spreads(lines, cells, settings)]
    # Real clips may be all of one class, so that easy pairs tell little.
    measure = SUPER_HARD if settings.records else ACCURACY
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        group, _, arm = line['row'].partition(': ')
        groups.setdefault(group, []).append({**line, 'row': arm})
    differences, claim = [], []
    text = []
    for group, found in groups.items():
        accuracy = {line['row']: line['values'] for line in found if line['column'] == measure}
        differences += [
            {'group': group, 'arm': arm, 'minus': minus, **values}
            for arm, minus in DIFFERENCES if (values := _difference(accuracy, arm, minus))]
        if group.endswith(', paper'):
            claim += [{'group': group, 'condition': str(condition),
                       **decide(condition, accuracy)} for condition in CLAIM
                      if condition.arm in accuracy]
        text.append(f'### {group}\n\n{as_markdown(found)}')
        _draw_curves(group, cells, settings, found)
    files.write_text(
        os.path.join(settings.table_dir, f'{NAME}.json'),
        json.dumps({'measure': measure, 'lines': lines, 'differences': differences,
                    'claim': claim}, indent=2) + '\n')
    plots.study_panels(groups, measure, os.path.join(settings.table_dir, f'{NAME}.png'))
    return '\n'.join([*text, _differences_text(differences, measure),
                      _claim_text(claim, measure)])


def interval_of_mean(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the mean of a few values by Student's t; None for fewer than two.

    Example:
        >>> interval_of_mean([1.0, 2.0, 3.0])
        (-0.48..., 4.48...)
    """
    if len(values) < 2:
        return None
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / len(values)**0.5
    reach = float(student.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return mean - reach, mean + reach


def decide(condition: Condition, accuracy: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Whether a condition of the claim holds.

    Args:
        condition: a `Condition`.
        accuracy: from an arm to its accuracy in percent, seed by seed, in the same order for all.

    Returns:
        Dict: `values` per seed, `mean`, `interval`, and `verdict`: 'shown' where the whole interval
        lies on the side that was asked for, 'refuted' where it lies on the other, 'open' where it
        holds the bound, and 'not measured'.
    """
    values = list(accuracy.get(condition.arm, ()))
    if condition.minus:
        values = _paired(accuracy, condition.arm, condition.minus)
    interval = interval_of_mean(values)
    if not interval:
        verdict = 'not measured' if not values else 'open: one seed'
    else:
        nearest, farthest = interval if condition.above else (-interval[1], -interval[0])
        bound = condition.bound if condition.above else -condition.bound
        verdict = 'shown' if nearest > bound else 'refuted' if farthest < bound else 'open'
    return {'values': values, 'mean': float(np.mean(values)) if values else None,
            'interval': interval, 'verdict': verdict}


def _paired(accuracy: Mapping[str, Sequence[float]], arm: str, minus: str):
    """What an arm has more than another, seed by seed; [] where one is missing."""
    both = accuracy.get(arm, ()), accuracy.get(minus, ())
    return [a - b for a, b in zip(*both, strict=True)] if all(both) else []


def _difference(accuracy: Mapping[str, Sequence[float]], arm: str, minus: str):
    values = _paired(accuracy, arm, minus)
    return {'values': values, 'mean': float(np.mean(values)),
            'interval': interval_of_mean(values)} if values else {}


def _spreads(
    lines: Sequence[Mapping[str, Any]], cells: Mapping[tuple[str, str], Figure | str],
    settings: Settings,
):
    """A line per arm: how far the AUC after each of the last epochs lies from their mean."""
    spreads = []
    for line in lines:
        if line['column'] != ACCURACY or line['missing']:
            continue
        values = []
        for rows in _histories(cells[line['row'], ACCURACY], settings):
            last = [row['auc_easy'] for row in rows if 'auc_easy' in row][-SPREAD_EPOCHS:]
            values += [float(np.std(last, ddof=1))] if len(last) > 1 else []
        if values:
            spreads.append({**line, 'column': SPREAD, 'unit': '', 'values': values,
                            **mean_and_deviation(values)})
    return spreads


def _histories(figure: Figure | str, settings: Settings) -> list[list[dict[str, float]]]:
    """Per seed the epochs of an arm, its first stage's before its own."""
    assert isinstance(figure, Figure)  # all cells of the study are
    return figure.histories(settings.table_dir)


def _draw_curves(
    group: str, cells: Mapping[tuple[str, str], Figure | str], settings: Settings,
    lines: Sequence[Mapping[str, Any]],
):
    arms = [line['row'] for line in lines if line['column'] == ACCURACY and not line['missing']]
    first, _ = settings.stages
    histories = {arm: _histories(cells[f'{group}: {arm}', ACCURACY], settings) for arm in arms}
    plots.regime_curves(
        histories, first.epochs,
        os.path.join(settings.table_dir, f'{group.replace(", ", "-").replace(" ", "_")}.png'))


def _differences_text(differences: Sequence[Mapping[str, Any]], measure: str):
    return _table(
        f'Differences in {measure}, seed by seed',
        ['world, recipe', 'arms', 'per seed, points', 'mean [95 % interval]'],
        [[found['group'], f'{found["arm"]} − {found["minus"]}', _figures(found)]
         for found in differences])


def _claim_text(claim: Sequence[Mapping[str, Any]], measure: str):
    if not claim:  # the paper's recipe was left out
        return ''
    table = _table(
        f"The paper's claim, in {measure}",
        ['world, recipe', 'condition', 'per seed', 'mean [95 % interval]', 'verdict'],
        [[found['group'], found['condition'], _figures(found), found['verdict']]
         for found in claim])
    shown = [group for group in dict.fromkeys(found['group'] for found in claim)
             if all(found['verdict'] == 'shown' for found in claim if found['group'] == group)]
    conclusion = f'All of its conditions are shown in: {"; ".join(shown) or "none"}.'
    return '\n'.join([table, conclusion, ''])


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]):
    """A table in Markdown under its title; an empty line ends it."""
    head, *lines = [f'| {" | ".join(cells)} |' for cells in (columns, *rows)]
    return '\n'.join([f'### {title}', '', head, '|---' * len(columns) + '|', *lines, ''])


def _figures(found: Mapping[str, Any]):
    """Two columns: the values, and their mean with its interval."""
    if found['mean'] is None:
        return ' | '
    interval = found['interval']
    reach = f' [{interval[0]:.1f}, {interval[1]:.1f}]' if interval else ''
    values = ', '.join(f'{value:.1f}' for value in found['values'])
    return f'{values} | {found["mean"]:.1f}{reach}'
