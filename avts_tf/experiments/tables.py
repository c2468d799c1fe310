"""`--mode=table`: the tables of the slides on AVTS, ours beside the published.

A table is rows and columns of cells. A cell's figure comes from steps: trainings, fine-tunings, probes, each in a folder of its
own under TABLE_DIR, run in a process of its own. A step whose folder holds its result is not run again, one that was interrupted
goes on, and cells and tables share steps. What stands on the synthetic world (or on --records) runs anywhere; a cell that needs a
data set says which flag brings it, and one whose step failed says why, beside the others' figures.
"""

import contextlib
import csv
import hashlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from avts_tf import files, plots
from avts_tf.config import make_config
from avts_tf.data import workers
from avts_tf.data.records import summary_path
from avts_tf.data.sampling import NEGATIVES
from avts_tf.errors import Stopped, UserError
from avts_tf.evaluation import action, audio
from avts_tf.evaluation.sync import evaluate_sync
from avts_tf.signals import StopSignals
from avts_tf.training.curriculum import parse_regime
from avts_tf.training.run_folder import RunFolder
from avts_tf.training.trainer import train

# What was published, in percent; nothing else in this project may call itself so. All of it is printed in the slides, but ESC-10,
# which is Piczak's (2015). AVTS accuracy is measured with easy negatives, UCF101 and HMDB51 are means of three splits, ESC-10 and
# ESC-50 of five folds. Where the slides contradict themselves, see docs/results_regimes_and_actions.md.
PUBLISHED = {
    'curriculum': {
        'easy': {'AVTS accuracy': 69.0},
        'mixed': {'AVTS accuracy': 58.9},
        'hard': {'AVTS accuracy': 52.3},
        'first stage only': {'AVTS accuracy': 67.2},
        'curriculum_mixed': {'AVTS accuracy': 78.4},
        'curriculum_hard': {'AVTS accuracy': 65.7},
    },
    'curriculum_downstream': {
        'single stage': {'AVTS accuracy': 69.8},
        'curriculum': {'AVTS accuracy': 78.4, 'ESC-50': 82.3, 'DCASE2014': 94.1, 'UCF101': 85.8, 'HMDB51': 56.9},
    },
    'action': {
        'MC2, none': {'UCF101': 67.2, 'HMDB51': 41.2},
        'MC2, AVTS Kinetics': {'UCF101': 83.6, 'HMDB51': 54.3},
        'MC2, supervised Kinetics': {'UCF101': 87.9, 'HMDB51': 62.0},
        'MC3, none': {'UCF101': 69.1, 'HMDB51': 43.9},
        'MC3, AVTS Kinetics': {'UCF101': 85.8, 'HMDB51': 56.9},
        'MC3, AVTS AudioSet': {'UCF101': 89.0, 'HMDB51': 61.6},
        'MC3, supervised Kinetics': {'UCF101': 90.5, 'HMDB51': 66.8},
        'I3D-RGB, none': {'UCF101': 57.1, 'HMDB51': 40.0},
        'I3D-RGB, AVTS Kinetics': {'UCF101': 83.7, 'HMDB51': 53.0},
    },
    'audio': {
        'SVM-MFCC': {'ESC-10': 67.5, 'ESC-50': 39.6},
        'random forest': {'ESC-10': 72.7, 'ESC-50': 44.3},
        'k-NN': {'ESC-10': 66.7},
        'audio subnet from scratch': {'ESC-50': 61.6, 'DCASE2014': 72.0},
        'SoundNet': {'ESC-50': 74.2, 'DCASE2014': 88.0},
        'L3-Net': {'ESC-50': 79.3, 'DCASE2014': 93.0},
        'AVTS Kinetics': {'ESC-50': 76.7, 'DCASE2014': 91.0},
        'AVTS AudioSet': {'ESC-50': 80.6, 'DCASE2014': 93.0},
        'AVTS SoundNet': {'ESC-50': 82.3, 'DCASE2014': 94.0},
    },
    'multisensory': {
        'Owens et al., vision only': {'UCF101': 77.6},
        'Owens et al., multisensory': {'UCF101': 82.1},
        'AVTS, vision only': {'UCF101': 85.8},
        'AVTS, multisensory': {'UCF101': 87.0},
    },
}

REGIMES = ('easy', 'mixed', 'hard', 'first stage only', 'curriculum_mixed', 'curriculum_hard')
WORLD_VIDEOS = {'train': 384, 'held': 128, 'labelled': 96, 'test': 192}
WORLD_SEED = 100  # of the world's first set; the others follow
WORLD_NOTE = 'On the synthetic world all towers were pretrained on that world, supervised ones with the motions of other videos.'
HERE = '{table_dir}'  # in a step's paths: the folder may be moved, or be called by another name
LOCK_WAIT_SECONDS = 60.0  # a step whose table was killed writes its checkpoint and ends


class Step(NamedTuple):
    """One training, fine-tuning or probe.

    Attributes:
        folder: its run folder, under the table's.
        kind: key of `KINDS`.
        arguments: what `KINDS[kind]` is called with, as JSON holds it, with `HERE` for the table's folder.
        inputs: what the files were when the step was planned, flag by flag; see `_stamp`.
    """

    folder: str
    kind: str
    arguments: dict
    inputs: dict


class Figure(NamedTuple):
    """Where the figure of a cell comes from.

    Attributes:
        steps: per seed, a tuple of steps, in the order in which they are run; the last one's result holds the figure.
        keys: path in that result.
        scale: what it is multiplied by: 100 for percent.
    """

    steps: tuple
    keys: tuple
    scale: float = 100.0


class Settings(NamedTuple):
    """What a table is made with.

    Attributes:
        table_dir: folder of its steps and of what it writes.
        preset, given: preset, and the parameters that override it and the table's own recipe.
        seeds: seeds of the trainings.
        difficulty: of the synthetic world.
        records, eval_records: globs that take the synthetic world's place, or None.
        label_prefix: as in `action.Protocol`, with `records`.
        data: dict from the name of a data set's flag to its value, or None.
        devices: see `devices.make_strategy`.
    """

    table_dir: str
    preset: str
    given: dict
    seeds: tuple
    difficulty: float
    records: Any
    eval_records: Any
    label_prefix: str
    data: dict
    devices: str


def make_table(name, settings, write_world, say=print):
    """Runs what is missing of a table, and writes it as `NAME.md`, `NAME.csv` and `NAME.png` in its folder.

    Args:
        name: key of `TABLES`.
        settings: `Settings`.
        write_world: function (prefix, videos, seed, difficulty) that writes a synthetic world.
        say: function that shows a line of text.

    Returns:
        List of dicts, one per cell: `row`, `column`, `published`, `unit` ('%' or ''), `mean`, `deviation` (over seeds; None for
        one), `values`, `missing` (why there is no figure, or '').

    Raises:
        UserError: a step's folder holds another one's result, or steps failed; the table of the others is written before.
        Stopped: a signal came; it was handed on to the step, which keeps what it has.
    """
    # The steps' processes inherit the lock, so that one whose parent was killed keeps it too.
    with files.locked(settings.table_dir, 'table_dir', LOCK_WAIT_SECONDS) as lock:
        cells = TABLES[name](settings, _sets(settings, write_world, say))
        steps, before = {}, {}
        for chain in itertools.chain(*(content.steps for content in cells.values() if isinstance(content, Figure))):
            for place, step in enumerate(chain):
                if steps.setdefault(step.folder, step) != step:
                    raise ValueError(f'two different steps are called {step.folder}')
                before[step.folder] = [earlier.folder for earlier in chain[:place]]
        todo = [step for step in steps.values() if not _finished(step, settings.table_dir)]
        say(f'{name}: {len(steps)} steps, {len(steps) - len(todo)} of them done already.')
        failures = {}
        for number, step in enumerate(todo, 1):
            say(f'[{number}/{len(todo)}] {os.path.join(settings.table_dir, step.folder)}')
            reason = next((failures[folder] for folder in before[step.folder] if folder in failures), None)
            if reason := reason or _run(step, settings.table_dir, lock):
                failures[step.folder] = reason
    lines = [_cell(row, column, content, PUBLISHED[name].get(row, {}).get(column), settings.table_dir, failures)
             for (row, column), content in cells.items()]
    markdown = as_markdown(lines, WORLD_NOTE if name == 'action' and not settings.records else '')
    _write(settings.table_dir, f'{name}.md', markdown)
    _write(settings.table_dir, f'{name}.csv', as_csv(lines))
    plots.table_bars(lines, os.path.join(settings.table_dir, f'{name}.png'))
    if name == 'curriculum':
        _draw_regimes(cells, settings, failures)
    say(markdown)
    say(f'{settings.table_dir}: {name}.md, {name}.csv, {name}.png' + (', regimes.png' if name == 'curriculum' else '') + '.')
    if failures:
        raise UserError(f'--table_dir={settings.table_dir}: {len(failures)} of {len(steps)} steps failed; the table says why. Once '
                        'it is mended, the same command runs them.')
    return lines


def run_step(table_dir, folder, parent):
    """Runs the step that `step.json` in a folder describes; the entry of its process, which is stopped when its parent ends."""
    workers.end_with(parent, signal.SIGTERM)
    path = os.path.join(table_dir, folder)
    with open(os.path.join(path, 'step.json')) as file:
        step = json.load(file)
    try:
        KINDS[step['kind']](path, **_at(step['arguments'], table_dir))
    except UserError as error:
        _write(path, 'failed.txt', f'{error}\n')
        print(f'{path}: {error}', file=sys.stderr)
        sys.exit(2)
    except Stopped as stop:
        print(f'{path}: {stop}', file=sys.stderr)
        sys.exit(128 + stop.signal_number)
    except KeyboardInterrupt:
        sys.exit(130)


def _at(arguments, table_dir):
    """Arguments as JSON holds them, with the table's folder in the place of `HERE`."""
    if isinstance(arguments, dict):
        return {name: _at(value, table_dir) for name, value in arguments.items()}
    return arguments.replace(HERE, table_dir) if isinstance(arguments, str) else arguments


def _train(run_dir, config, records, eval_records, devices):
    config = make_config(**config)
    model = train(config, records, run_dir, eval_records=eval_records, devices=devices)
    os.makedirs(os.path.join(run_dir, 'plots'), exist_ok=True)
    plots.training_curves(RunFolder(run_dir, config).history(), os.path.join(run_dir, 'plots', 'training.png'))
    evaluate_sync(model, records, eval_records, run_dir)


def _recognise(run_dir, config, protocol, records, eval_records, splits, devices):
    config, protocol = make_config(**config), action.Protocol(**protocol)
    if protocol.init_run_dir:
        config = action.take_sizes(config, {}, protocol.init_run_dir)
    if splits:
        action.recognise_splits(config, protocol, records, eval_records, run_dir, splits, devices)
    else:
        action.recognise_actions(config, protocol, records, eval_records, run_dir, devices)


def _classify_sounds(run_dir, config, protocol, input_path, dataset, tower_run_dir):
    protocol = audio.Protocol(**protocol)
    audio.classify_sounds(input_path, dataset, protocol, make_config(**config), run_dir=tower_run_dir, output=run_dir)


# What each kind of step calls, with its run folder and its arguments, and the entry of result.json that tells that it is done.
KINDS = {'train': _train, 'action': _recognise, 'audio': _classify_sounds}


def _done_key(step):
    if step.kind == 'audio':
        protocol = step.arguments['protocol']
        return f'{audio.MODE}_{step.arguments["dataset"]}_{protocol["features"]}_{protocol["classifier"]}'
    return {'train': 'sync', 'action': action.MODE}[step.kind]


# The tables: functions from `Settings` and the sets of records to a dict from (row, column) to a `Figure`, or to the reason why
# there is none.

def _curriculum(settings, sets):
    cells = {}
    for regime in REGIMES:
        steps = tuple((_pretrain(settings, sets, regime, seed),) for seed in settings.seeds)
        cells[regime, 'AVTS accuracy'] = Figure(steps, ('sync', 'avts_accuracy'))
        for kind in NEGATIVES:
            cells[regime, f'AUC {kind}'] = Figure(steps, ('sync', f'auc_{kind}'), scale=1.0)
    return cells


def _curriculum_downstream(settings, sets):
    cells = {}
    for row, regime in (('single stage', 'easy'), ('curriculum', 'curriculum_mixed')):
        cells[row, 'AVTS accuracy'] = Figure(
            tuple((_pretrain(settings, sets, regime, seed),) for seed in settings.seeds), ('sync', 'avts_accuracy'))
        cells[row, f'sounds, {_place(settings)}'] = _records_cell(settings, sets, 'avts', 'audio', True, regime=regime)
        cells[row, f'actions, {_place(settings)}'] = _records_cell(settings, sets, 'avts', 'video', False, regime=regime)
        for column in SOUND_SETS:
            cells[row, column] = _sound_cell(settings, sets, column, 'avts', 'soundnet_records', regime=regime)
        for column in ACTION_SETS:
            cells[row, column] = _action_cell(settings, column, 'avts', 'kinetics_records', 'video', regime=regime)
    return cells


def _action(settings, sets):
    cells, place = {}, _place(settings)
    for name, tower in (('MC2', 'mc2'), ('MC3', 'mc3'), ('I3D-RGB', 'i3d')):
        for init, pretraining in (('scratch', 'none'), ('avts', 'AVTS Kinetics'), ('avts', 'AVTS AudioSet'),
                                  ('supervised', 'supervised Kinetics')):
            row = f'{name}, {pretraining}'
            if row not in PUBLISHED['action']:
                continue
            if init == 'supervised' and settings.records:
                cells[row, f'actions, {place}'] = 'needs other labelled records than those that it is fine-tuned on'
            elif pretraining != 'AVTS AudioSet':
                cells[row, f'actions, {place}'] = _records_cell(settings, sets, init, 'video', False, video_tower=tower)
            source = 'audioset_records' if 'AudioSet' in pretraining else 'kinetics_records'
            for column in ACTION_SETS:
                cells[row, column] = _action_cell(settings, column, init, source, 'video', video_tower=tower)
    return cells


def _audio(settings, sets):
    cells, place = {}, _place(settings)
    for column in SOUND_SETS:
        for row, features, classifier in (('SVM-MFCC', 'mfcc', 'svm'), ('random forest', 'mfcc', 'random_forest'),
                                          ('k-NN', 'mfcc', 'knn'), ('audio subnet from scratch', 'scratch', 'svm'),
                                          ('random weights', 'random', 'svm')):
            cells[row, column] = _sound_cell(settings, sets, column, 'scratch', '', features, classifier)
        for row, init, source in (('SoundNet', 'soundnet', 'soundnet_records'), ('L3-Net', 'l3', 'soundnet_records'),
                                  ('AVTS Kinetics', 'avts', 'kinetics_records'), ('AVTS AudioSet', 'avts', 'audioset_records'),
                                  ('AVTS SoundNet', 'avts', 'soundnet_records')):
            cells[row, column] = _sound_cell(settings, sets, column, init, source)
        for name, init in (('SoundNet', 'soundnet'), ('L3-Net', 'l3'), ('AVTS', 'avts')):
            cells[f'{name}, {place}', column] = _sound_cell(settings, sets, column, init, 'own')
    column = f'sounds, {place}'
    cells['audio subnet from scratch', column] = _records_cell(settings, sets, 'scratch', 'audio', False)
    cells['random weights', column] = _records_cell(settings, sets, 'scratch', 'audio', True)
    for name, init in (('SoundNet', 'soundnet'), ('L3-Net', 'l3'), ('AVTS', 'avts')):
        cells[f'{name}, {place}', column] = _records_cell(settings, sets, init, 'audio', True)
    return cells


def _multisensory(settings, sets):
    cells = {}
    for name, init in (('Owens et al.', 'multisensory'), ('AVTS', 'avts')):
        for seen, streams in (('vision only', 'video'), ('multisensory', 'both')):
            cells[f'{name}, {seen}', f'actions, {_place(settings)}'] = _records_cell(settings, sets, init, streams, False)
            cells[f'{name}, {seen}', 'UCF101'] = _action_cell(settings, 'UCF101', init, 'kinetics_records', streams)
    return cells


TABLES = {'curriculum': _curriculum, 'curriculum_downstream': _curriculum_downstream, 'action': _action, 'audio': _audio,
          'multisensory': _multisensory}
SOUND_SETS = {'ESC-10': 'esc10_input', 'ESC-50': 'esc50_input', 'DCASE2014': 'dcase2014_input'}
ACTION_SETS = {'UCF101': 'ucf101_records', 'HMDB51': 'hmdb51_records'}
SYSTEM_REGIMES = {'avts': 'curriculum_mixed', 'l3': 'easy', 'soundnet': 'easy', 'multisensory': 'hard'}


def _place(settings):
    return 'these records' if settings.records else 'synthetic world'


def _records_cell(settings, sets, init, streams, freeze, regime='', **towers):
    """Classes of the synthetic world (motions of what is seen, objects of what is heard alone), or of --records."""
    prefix = settings.label_prefix if settings.records else ('object:' if streams == 'audio' else 'motion:')
    if reason := _no_teacher(settings, init):
        return reason
    # The world's labelled videos are few: four passes an epoch, so that towers from scratch get to see enough.
    overrides = {**towers, **({} if settings.records else {'passes_per_epoch': 4})}
    chains = []
    for seed in settings.seeds:
        before = _before(settings, sets, init, regime, seed, prefix, towers)
        name = f'{streams}{"-frozen" if freeze else ""}-{prefix.rstrip(":") or "label"}'
        chains.append((*before, _fine_tune(settings, name, before, sets['labelled'], sets['test'], seed, streams=streams,
                                           freeze=freeze, label_prefix=prefix, **overrides)))
    return Figure(tuple(chains), (action.MODE, 'top1'))


def _action_cell(settings, column, init, source, streams, regime='', **towers):
    """Mean over the three official splits of UCF101 or HMDB51."""
    needs = [ACTION_SETS[column]] + ([source] if init != 'scratch' else [])
    if reason := _missing(settings, needs) or _no_teacher(settings, init):
        return reason
    pattern, chains = settings.data[ACTION_SETS[column]], []
    for place in ('{part}', '{split}'):
        if place not in pattern:
            raise UserError(f'--{ACTION_SETS[column]}={pattern}: {place} is not in it, which stands for '
                            f'{"train and test" if place == "{part}" else "1, 2 and 3, the official splits"}.')
    for seed in settings.seeds:
        before = _before(settings, _parts(settings, source), init, regime, seed, '', towers, source.split('_')[0])
        train, test = (pattern.replace('{part}', part) for part in ('train', 'test'))
        chains.append((*before, _fine_tune(settings, f'{column}-{streams}', before, train, test, seed, streams=streams,
                                           splits=['1', '2', '3'], **towers)))
    return Figure(tuple(chains), (action.MODE, 'top1'))


def _sound_cell(settings, sets, column, init, source, features='tower', classifier='svm', regime=''):
    """Mean over the folds of a collection of sounds; `source` 'own' trains on the synthetic world or on --records."""
    flag = SOUND_SETS[column]
    needs = [flag] + ([source] if source not in ('', 'own') else [])
    if reason := _missing(settings, needs) or _no_teacher(settings, init):
        return reason
    chains = []
    for seed in settings.seeds:
        before = ()
        if source:
            trained_on = sets if source == 'own' else _parts(settings, source)
            before = _before(settings, trained_on, init, regime, seed, '', {}, '' if source == 'own' else source.split('_')[0])
        tower = before[-1].folder if before else ''
        # The schedule of tiny is made for the synthetic world; the subnet's, which docs/results_sounds.md describes, is of small.
        preset = 'small' if features == 'scratch' and settings.preset == 'tiny' else settings.preset
        chains.append((*before, Step(f'sound-{column}-{classifier}-{tower or f"{features}-seed{seed}"}', 'audio', {
            'config': {'preset': preset, **_given(settings), 'seed': seed},
            'protocol': audio.Protocol(features, classifier, seed=seed)._asdict(), 'input_path': settings.data[flag],
            'dataset': flag.split('_')[0], 'tower_run_dir': os.path.join(HERE, tower) if tower else '',
        }, {flag: _stamp(settings.data[flag])})))
    return Figure(tuple(chains), (_done_key(chains[0][-1]), 'accuracy'))


def _missing(settings, needs):
    absent = [f'--{name}' for name in needs if not settings.data.get(name)]
    return f'needs {" and ".join(absent)}' if absent else ''


def _no_teacher(settings, init):
    return 'needs --teacher' if init == 'soundnet' and not settings.given.get('teacher') else ''


def _given(settings, system='avts'):
    """The parameters that were given, as far as a system knows them."""
    return {name: value for name, value in settings.given.items() if name != 'teacher' or system == 'soundnet'}


def _parts(settings, source):
    """The sets of a collection whose glob has {part} in it, or one glob for all."""
    pattern = settings.data.get(source) or ''
    train, test = (pattern.replace('{part}', part) for part in ('train', 'test'))
    return {'train': train, 'held': test}


def _before(settings, sets, init, regime, seed, prefix, towers, source=''):
    """The steps that lead to the towers that are fine-tuned or probed: none, a training without labels, or one with."""
    if init == 'scratch':
        return ()
    if init == 'supervised':
        name = '-'.join(filter(None, ['supervised', source]))
        return (_fine_tune(settings, name, (), sets['train'], sets['held'], seed, label_prefix=prefix, **towers),)
    system = {} if init == 'avts' else {'system': init}
    return (_pretrain(settings, sets, regime or SYSTEM_REGIMES[init], seed, source, **system, **towers),)


def _pretrain(settings, sets, regime, seed, source='', **overrides):
    """The step of a training without labels."""
    # The slides draw one other clip for an easy negative. The mean over all others, this project's default, is another method.
    given = _given(settings, overrides.get('system'))
    config = {'preset': settings.preset, 'easy_negatives': 'drawn', **overrides, **given, 'seed': seed, 'regime': regime}
    if regime == 'first stage only':
        first = parse_regime('curriculum_mixed', make_config(settings.preset, **settings.given).train.epochs).stages[0]
        config['regime'] = f'{first.mix}:{first.epochs}'
    parts = ['train', *overrides.values(), regime.replace(' ', '_'), source and f'on_{source}', f'seed{seed}']
    return _records_step('-'.join(filter(None, parts)), 'train', settings, sets['train'], sets['held'], {'config': config})


def _records_step(folder, kind, settings, records, eval_records, arguments, splits=('',)):
    """A step that reads records."""
    inputs = {flag: [_stamp(_at(pattern, settings.table_dir).replace('{split}', split)) for split in splits]
              for flag, pattern in (('records', records), ('eval_records', eval_records))}
    return Step(folder, kind, {**arguments, 'records': records, 'eval_records': eval_records, 'devices': settings.devices}, inputs)


def _fine_tune(settings, name, before, records, eval_records, seed, streams='video', freeze=False, label_prefix='', splits=(),
               **overrides):
    """The step of a training with labels, from the towers of the step before or from scratch."""
    run_dir = os.path.join(HERE, before[-1].folder) if before else ''
    protocol = action.Protocol('trained' if before else 'scratch', run_dir, streams, freeze, label_prefix=label_prefix)
    config = {'preset': settings.preset, **overrides, **_given(settings), 'seed': seed}
    after = [before[-1].folder] if before else ['from_scratch', overrides.get('video_tower', ''), f'seed{seed}']
    arguments = {'config': config, 'protocol': protocol._asdict(), 'splits': list(splits)}
    folder = '-'.join(filter(None, ['tune', name, *after]))
    return _records_step(folder, 'action', settings, records, eval_records, arguments, splits or [''])


def _stamp(path):
    """What the files are that a glob, a list or a folder stands for: names, sizes and what lists hold, as a hexadecimal digest.

    So a finished step is not taken for one on files that have changed since.
    """
    digest = hashlib.sha256()
    for part in path.split(','):
        files = [path for path in tf.io.gfile.glob(part.strip()) if not tf.io.gfile.isdir(path)]
        for folder, _, names in tf.io.gfile.walk(part.strip()):
            files += [os.path.join(folder, name) for name in names]
        for file in sorted(files):
            digest.update(f'{os.path.basename(file)} {tf.io.gfile.stat(file).length}\n'.encode())
            if file.endswith(('.csv', '.txt')):
                with tf.io.gfile.GFile(file, 'rb') as content:
                    digest.update(content.read())
    return digest.hexdigest()[:16]


def _sets(settings, write_world, say):
    """Globs of the records that a table runs on: `train` without labels, `held` for sync, `labelled` and `test` with."""
    if settings.records:
        if not settings.eval_records:
            raise UserError('--eval_records: --mode=table with --records needs it, to measure on.')
        return {**dict.fromkeys(('train', 'labelled'), settings.records), **dict.fromkeys(('held', 'test'), settings.eval_records)}
    sets, clip = {}, make_config(settings.preset, **settings.given).clip
    world = f'difficulty{settings.difficulty:g}-{clip.frame_size}px-{clip.fps:g}fps-{clip.sample_rate}hz'
    for number, (part, videos) in enumerate(WORLD_VIDEOS.items()):
        name = os.path.join('world', f'{part}-{world}')
        prefix = os.path.join(settings.table_dir, name)
        if not os.path.exists(summary_path(prefix)):
            say(f'Writing {videos} videos of the synthetic world to {prefix}-*.')
            write_world(prefix, videos, WORLD_SEED + number, settings.difficulty)
        sets[part] = os.path.join(HERE, f'{name}-*-of-*')
    return sets


def _finished(step, table_dir):
    """Whether a step's folder holds its result."""
    folder = os.path.join(table_dir, step.folder)
    try:
        with open(os.path.join(folder, 'step.json')) as file:
            before = json.load(file)
    except FileNotFoundError:
        return False
    wanted = json.loads(json.dumps(step._asdict()))
    if changed := [flag for flag, stamp in wanted['inputs'].items() if before.get('inputs', {}).get(flag) != stamp]:
        given = step.arguments.get(changed[0], step.arguments.get('input_path'))
        raise UserError(f'{folder}: was made from other files than --{changed[0]} stands for now ({given}). '
                        'Remove that folder and those that build on it, or use another --table_dir.')
    for arguments in (before['arguments'], wanted['arguments']):
        arguments.pop('devices', None)  # does not change the result
    if before != wanted:
        differing = [f'{name}: {before["arguments"].get(name)} there, {value} asked for'
                     for name, value in wanted['arguments'].items() if before['arguments'].get(name) != value]
        raise UserError(f'{folder}: holds a step with other settings ({"; ".join(differing) or "another kind"}). Use another '
                        '--table_dir, or the same flags.')
    return _result(step, table_dir).get(_done_key(step)) is not None


def _result(step, table_dir):
    try:
        with open(os.path.join(table_dir, step.folder, 'result.json')) as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


def _run(step, table_dir, lock):
    """Runs a step in a process of its own: TensorFlow keeps memory, devices and random state for the life of a process.

    Returns:
        Why it failed, or ''.

    Raises:
        Stopped: a signal came, which the step got too.
    """
    folder = os.path.join(table_dir, step.folder)
    os.makedirs(folder, exist_ok=True)
    _write(folder, 'step.json', json.dumps(step._asdict(), indent=2) + '\n')
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(folder, 'failed.txt'))
    code = (f'import sys; sys.path[:] = {sys.path!r}; from {__name__} import run_step; '
            f'run_step({table_dir!r}, {step.folder!r}, {os.getpid()})')
    with StopSignals() as signals:
        # In a session of its own: Ctrl-C in a terminal would reach it as well, and a second signal ends it at once.
        process = subprocess.Popen(
            [sys.executable, '-c', code], pass_fds=[lock], stdin=subprocess.DEVNULL, start_new_session=True)
        told = False
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
                if signals.received and not told:
                    process.send_signal(signals.received)
                    told = True
        except KeyboardInterrupt:
            process.kill()
            process.wait()
            raise
        if signals.received:
            raise Stopped(f'stopped by {signal.Signals(signals.received).name}. The same command goes on with {folder}.',
                          signals.received)
    if not process.returncode:
        return ''
    try:
        with open(os.path.join(folder, 'failed.txt')) as file:
            return f'{step.folder}: {file.read().strip()}'
    except FileNotFoundError:
        return f'{step.folder}: ended with exit status {process.returncode}'


def _failure(figure, failures):
    """Why one of a figure's steps failed, or ''."""
    return next((failures[step.folder] for step in itertools.chain(*figure.steps) if step.folder in failures), '')


def _cell(row, column, content, published, table_dir, failures):
    line = {'row': row, 'column': column, 'published': published, 'unit': '%', 'mean': None, 'deviation': None, 'values': [],
            'missing': ''}
    if not isinstance(content, Figure):
        return {**line, 'missing': content}
    line['unit'] = '%' if content.scale == 100 else ''
    if failed := _failure(content, failures):
        return {**line, 'missing': failed}
    for chain in content.steps:
        value = _result(chain[-1], table_dir)
        for key in content.keys:
            if key not in value:
                return {**line, 'missing': f'{chain[-1].folder}: no {key}; no clip is long enough for such pairs'}
            value = value[key]
        line['values'].append(value * content.scale)
    return {**line, **mean_and_deviation(line['values'])}


def mean_and_deviation(values):
    """Dict of `mean` and `deviation`, the sample standard deviation, None for one value."""
    return {'mean': float(np.mean(values)), 'deviation': float(np.std(values, ddof=1)) if len(values) > 1 else None}


def as_markdown(lines, remark=''):
    """A table with a column of ours and, where anything is published, one of the published beside it; a remark stands below."""
    columns = list(dict.fromkeys(line['column'] for line in lines))
    rows = list(dict.fromkeys(line['row'] for line in lines))
    by_place = {(line['row'], line['column']): line for line in lines}
    with_published = {line['column'] for line in lines if line['published'] is not None}
    head, notes, text = [''], [], []
    for column in columns:
        head += [column, f'{column}, published'] if column in with_published else [column]
    for row in rows:
        cells = [row]
        for column in columns:
            line = by_place.get((row, column))
            cells.append(_ours(line, notes) if line else '')
            if column in with_published:
                cells.append('' if not line or line['published'] is None else f'{line["published"]:.1f}')
        text.append('| ' + ' | '.join(cells) + ' |')
    seeds = max((len(line['values']) for line in lines), default=0)
    note = [remark] if remark else []
    note += [f'Ours: mean ± standard deviation over {seeds} seeds.'] if seeds > 1 else []
    note += [f'[{number}] {reason}' for number, reason in enumerate(notes, 1)]
    return '\n'.join(['| ' + ' | '.join(head) + ' |', '|---' * len(head) + '|', *text, '', *note]).rstrip() + '\n'


def _ours(line, notes):
    if line['missing']:
        if line['missing'] not in notes:
            notes.append(line['missing'])
        return f'– [{notes.index(line["missing"]) + 1}]'
    digits = 1 if line['unit'] else 3
    deviation = '' if line['deviation'] is None else f' ± {line["deviation"]:.{digits}f}'
    return f'{line["mean"]:.{digits}f}{deviation}'


def as_csv(lines):
    """One line per cell."""
    text = io.StringIO()
    names = ['row', 'column', 'published', 'unit', 'mean', 'deviation', 'values', 'missing']
    writer = csv.DictWriter(text, names, lineterminator='\n')
    writer.writeheader()
    for line in lines:
        writer.writerow({**line, 'values': ' '.join(f'{value:.6g}' for value in line['values'])})
    return text.getvalue()


def _draw_regimes(cells, settings, failures):
    histories = {}
    for (row, _), content in cells.items():
        if row not in histories and not _failure(content, failures):
            histories[row] = [RunFolder(os.path.join(settings.table_dir, chain[-1].folder),
                                        make_config(**chain[-1].arguments['config'])).history() for chain in content.steps]
    epochs = make_config(settings.preset, **settings.given).train.epochs
    switch = parse_regime('curriculum_mixed', epochs).stages[0].epochs
    plots.regime_curves(histories, switch, os.path.join(settings.table_dir, 'regimes.png'))


def _write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path + '.writing', 'w') as file:
        file.write(text)
    os.replace(path + '.writing', path)
