"""The paper's tables, ours beside the published, and the curriculum study (study.py).

A table is rows and columns of cells. A cell's figure comes from steps: trainings, fine-tunings,
probes (see cells.py and steps.py), which cells and tables share. What stands on the synthetic world
(or on given records) runs anywhere; a cell that needs a data set says which parameter brings it,
and one whose step failed says why, beside the others' figures.
"""

import itertools
import logging
import os
from collections.abc import Callable
from typing import Any

from avts_tf import files
from avts_tf.config import make_config
from avts_tf.data.sampling import NEGATIVES
from avts_tf.data.shards import glob_of_set, summary_path
from avts_tf.data.synthetic import write_world
from avts_tf.errors import UserError
from avts_tf.experiments import plots, steps, study
from avts_tf.experiments.cells import (
    ACTION_SETS,
    FIRST_STAGE,
    SOUND_SETS,
    Figure,
    Settings,
    action_cell,
    records_cell,
    sound_cell,
    sync_figure,
)
from avts_tf.experiments.published import PUBLISHED
from avts_tf.experiments.render import as_csv, as_markdown, mean_and_deviation
from avts_tf.experiments.steps import HERE

REGIMES = ('easy', 'mixed', 'hard', FIRST_STAGE, 'curriculum_mixed', 'curriculum_hard')
# A tenth of those to train on is set aside for the threshold.
WORLD_VIDEOS = {'train': 427, 'held': 128, 'labelled': 96, 'test': 192}
WORLD_SEED = 100  # of the world's first set; the others follow
QUICK_SHARE = 8  # of these numbers of videos, with `quick`
# The sustained world's was set by docs/curriculum_study.md, on other videos and seeds.
DIFFICULTY = {'struck': 0.8, 'sustained': 0.5}
WORLD_NOTE = ('On the synthetic world all towers were pretrained on that world, supervised ones '
              'with the motions of other videos.')
LOCK_WAIT_SECONDS = 60.0  # a step whose table was killed writes its checkpoint and ends

Cells = dict[tuple[str, str], Figure | str]  # by (row, column): a figure, or what it needs
logger = logging.getLogger(__name__)


def make_table(name: str, settings: Settings) -> list[dict[str, Any]]:
    """Runs what is missing of a table and writes `NAME.md`, `NAME.csv` and `NAME.png`.

    The tables of regimes have curves beside them, the study `NAME.json` too.

    Args:
        name: key of `TABLES`.
        settings: what it is made with.

    Returns:
        Per cell `row`, `column`, `published`, `source` (of that figure), `unit` ('%' or ''),
        `mean`, `deviation` (over seeds; None for one), `values`, `missing` (why there is no figure,
        or '').

    Raises:
        UserError: a step's folder holds another one's result, or steps failed; the table of the
            others is written before.
        Stopped: a signal came; it was handed on to the step, which keeps what it has.
    """
    folder = settings.table_dir
    # The steps' processes inherit the lock, so that one whose parent was killed keeps it too.
    with files.locked(folder, 'table_dir', LOCK_WAIT_SECONDS) as lock:
        cells = TABLES[name](settings, _sets(name, settings))
        figures = [content for content in cells.values() if isinstance(content, Figure)]
        # Seed by seed, so that fewer seeds make a whole table where there is no time for all.
        chains = itertools.chain(*zip(*(figure.steps for figure in figures), strict=True))
        count, failures = steps.run_all(chains, folder, name, lock)
    lines = [_line(row, column, content, name, folder, failures)
             for (row, column), content in _with_published(name, cells).items()]
    others = ''
    if name == study.NAME:
        markdown = study.write_study(lines, cells, settings)
        others = f', {name}.json, curves of each group'
    else:
        remark = WORLD_NOTE if name == 'action' and not settings.records else ''
        markdown = as_markdown(lines, remark)
        plots.table_bars(lines, os.path.join(folder, f'{name}.png'))
    if name == 'curriculum':
        _draw_regimes(cells, settings, failures)
        others = ', regimes.png'
    files.write_text(os.path.join(folder, f'{name}.md'), markdown)
    files.write_text(os.path.join(folder, f'{name}.csv'), as_csv(lines))
    logger.info(markdown)
    logger.info(f'{folder}: {name}.md, {name}.csv, {name}.png{others}.')
    if failures:
        raise UserError('table_dir', folder, f'{len(failures)} of {count} steps failed; the table '
                        'says why. Once it is mended, the same command runs them.')
    return lines


def _curriculum(settings: Settings, sets: dict[str, str]) -> Cells:
    cells: Cells = {}
    for regime in REGIMES:
        cells[regime, 'AVTS accuracy'] = sync_figure(settings, sets, regime)
        for kind in NEGATIVES:
            cells[regime, f'AUC {kind}'] = sync_figure(settings, sets, regime, f'auc_{kind}', 1.0)
    return cells


def _curriculum_downstream(settings: Settings, sets: dict[str, str]) -> Cells:
    cells: Cells = {}
    for row, init, regime in (('single stage', 'avts', 'easy'),
                              ('curriculum', 'avts', 'curriculum_mixed'),
                              ('L3-Net', 'l3', 'easy')):
        system: dict[str, Any] = {} if init == 'avts' else {'system': init}
        cells[row, 'AVTS accuracy'] = sync_figure(settings, sets, regime, **system)
        cells[row, f'sounds, {settings.place}'] = records_cell(
            settings, sets, init, 'audio', True, regime)
        cells[row, f'actions, {settings.place}'] = records_cell(
            settings, sets, init, 'video', False, regime)
        for column in SOUND_SETS:
            cells[row, column] = sound_cell(settings, sets, column, init, 'soundnet_records',
                                            regime=regime)
        for column in ACTION_SETS:
            cells[row, column] = action_cell(settings, column, init, 'kinetics_records', 'video',
                                             regime)
    return cells


def _action(settings: Settings, sets: dict[str, str]) -> Cells:
    cells: Cells = {}
    for row in PUBLISHED['action']:
        name, pretraining = row.split(', ')
        tower = {'MC2': 'mc2', 'MC3': 'mc3', 'I3D-RGB': 'i3d'}.get(name)
        if not tower:  # I3D-RGB*: supervised by others, and published alone
            continue
        init = {'none': 'scratch', 'supervised Kinetics': 'supervised'}.get(pretraining, 'avts')
        column = f'actions, {settings.place}'
        if init == 'supervised' and settings.records:
            cells[row, column] = ('needs other labelled records than those that it is fine-tuned '
                                  'on')
        elif pretraining != 'AVTS AudioSet':
            cells[row, column] = records_cell(settings, sets, init, 'video', False,
                                              video_tower=tower)
        source = 'audioset_records' if 'AudioSet' in pretraining else 'kinetics_records'
        for column in ACTION_SETS:
            cells[row, column] = action_cell(settings, column, init, source, 'video',
                                             video_tower=tower)
    return cells


def _audio(settings: Settings, sets: dict[str, str]) -> Cells:
    cells: Cells = {}
    systems = [(f'{name}, {settings.place}', init)
               for name, init in (('SoundNet', 'soundnet'), ('L3-Net', 'l3'), ('AVTS', 'avts'))]
    for column in SOUND_SETS:
        for row, features, classifier in (
                ('SVM-MFCC', 'mfcc', 'svm'), ('random forest', 'mfcc', 'random_forest'),
                ('k-NN', 'mfcc', 'knn'), ('audio subnet from scratch', 'scratch', 'svm'),
                ('random weights', 'random', 'svm'),
                ('SoundNet, published weights', 'soundnet', 'svm'),
                ('SoundNet, random weights', 'soundnet_random', 'svm')):
            cells[row, column] = sound_cell(settings, sets, column, 'scratch', '', features,
                                            classifier)
        for row, init, source in (
                ('SoundNet', 'soundnet', 'soundnet_records'), ('L3-Net', 'l3', 'soundnet_records'),
                ('AVTS Kinetics', 'avts', 'kinetics_records'),
                ('AVTS AudioSet', 'avts', 'audioset_records'),
                ('AVTS SoundNet', 'avts', 'soundnet_records')):
            cells[row, column] = sound_cell(settings, sets, column, init, source)
        for row, init in systems:
            cells[row, column] = sound_cell(settings, sets, column, init, 'own')
    column = f'sounds, {settings.place}'
    for row, init, freeze in (('audio subnet from scratch', 'scratch', False),
                              ('random weights', 'scratch', True),
                              *((row, init, True) for row, init in systems)):
        cells[row, column] = records_cell(settings, sets, init, 'audio', freeze)
    return cells


def _multisensory(settings: Settings, sets: dict[str, str]) -> Cells:
    cells: Cells = {}
    for name, init in (('Owens et al.', 'multisensory'), ('AVTS', 'avts')):
        for seen, streams in (('vision only', 'video'), ('multisensory', 'both')):
            row = f'{name}, {seen}'
            cells[row, f'actions, {settings.place}'] = records_cell(settings, sets, init, streams,
                                                                    False)
            cells[row, 'UCF101'] = action_cell(settings, 'UCF101', init, 'kinetics_records',
                                               streams)
    return cells


TABLES: dict[str, Callable[[Settings, dict[str, str]], Cells]] = {
    'curriculum': _curriculum, 'curriculum_downstream': _curriculum_downstream, 'action': _action,
    'audio': _audio, 'multisensory': _multisensory, study.NAME: study.study_cells,
}


def _with_published(name: str, cells: Cells) -> Cells:
    """The cells with those of rows that are published alone, such as human listeners."""
    alone = {(row, column): '' for row, columns in PUBLISHED.get(name, {}).items()
             for column in columns}
    return {**cells, **{place: '' for place in alone if place not in cells}}


def _sets(name: str, settings: Settings) -> dict[str, str]:
    """Globs of a table's records: `train` without labels, `held` for sync, `labelled`, `test`.

    The study has `train` and `held` of several worlds, as 'WORLD train'.
    """
    if settings.records:
        if not settings.eval_records:
            raise UserError('eval_records', None, 'needed with `records`, to measure on.')
        return {'train': settings.records, 'labelled': settings.records,
                'held': settings.eval_records, 'test': settings.eval_records}
    if name == study.NAME:
        return {f'{world} {part}': _write_set(settings, world, part)
                for world in study.WORLDS for part in ('train', 'held')}
    return {part: _write_set(settings, 'struck', part) for part in WORLD_VIDEOS}


def _write_set(settings: Settings, world: str, part: str) -> str:
    """Writes a set of a synthetic world, where it is not there yet; returns its glob."""
    clip = make_config(settings.preset, **settings.given).clip
    difficulty = DIFFICULTY[world] if settings.difficulty is None else settings.difficulty
    videos = WORLD_VIDEOS[part] // (QUICK_SHARE if settings.quick else 1)
    name = os.path.join('world', '-'.join(filter(None, [
        part, world if world != 'struck' else '', f'difficulty{difficulty:g}',
        f'{clip.frame_size}px', f'{clip.fps:g}fps', f'{clip.sample_rate}hz',
        'quick' if settings.quick else ''])))
    path = os.path.join(settings.table_dir, name)
    glob_of_set(path, 'table_dir')  # or it could not be named by one
    if not os.path.exists(summary_path(path)):
        logger.info(f'Writing {videos} videos of the {world} world to {path}-*.')
        write_world(path, videos, size=clip.frame_size + 8, fps=clip.fps,
                    sample_rate=clip.sample_rate,
                    seed=WORLD_SEED + list(WORLD_VIDEOS).index(part), difficulty=difficulty,
                    world=world)
    return glob_of_set(os.path.join(HERE, name), 'table_dir')


def _failure(figure: Figure, failures: dict[str, str]) -> str:
    """Why one of a figure's steps failed, or ''."""
    return next((failures[step.folder] for step in itertools.chain(*figure.steps)
                 if step.folder in failures), '')


def _line(
    row: str, column: str, content: Figure | str, name: str, table_dir: str,
    failures: dict[str, str],
):
    """A cell with its values, or with what is missing."""
    published = PUBLISHED.get(name, {}).get(row, {}).get(column)
    percent, source = published or (None, '')
    line: dict[str, Any] = {
        'row': row, 'column': column, 'published': percent, 'source': source, 'unit': '%',
        'mean': None, 'deviation': None, 'values': [], 'missing': ''}
    if not isinstance(content, Figure):
        return {**line, 'missing': content}
    line['unit'] = '%' if content.scale == 100 else ''
    if failed := _failure(content, failures):
        return {**line, 'missing': failed}
    for chain in content.steps:
        value: Any = steps.read_result(chain[-1], table_dir)
        for key in content.keys:
            if key not in value:
                return {**line, 'missing': f'{chain[-1].folder}: no {key}; no clip is long enough '
                        'for such pairs'}
            value = value[key]
        line['values'].append(value * content.scale)
    return {**line, **mean_and_deviation(line['values'])}


def _draw_regimes(cells: Cells, settings: Settings, failures: dict[str, str]):
    histories = {}
    for (row, _), content in cells.items():
        assert isinstance(content, Figure)  # all cells of that table are
        if row not in histories and not _failure(content, failures):
            histories[row] = content.histories(settings.table_dir)
    first, _ = settings.stages
    plots.regime_curves(histories, first.epochs, os.path.join(settings.table_dir, 'regimes.png'))
