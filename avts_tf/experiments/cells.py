"""Which steps lead to the figure of a cell: a training without labels, then a fine-tuning or probe.

Cells share steps: a step's folder is named after all that makes it differ.
"""

import os
from typing import Any, NamedTuple

from avts_tf.config import make_config
from avts_tf.data.datasets import DATASETS
from avts_tf.errors import UserError
from avts_tf.evaluation import action, audio
from avts_tf.experiments.steps import HERE, Step, fill_in, result_key, stamp
from avts_tf.training.curriculum import Stage, parse_regime
from avts_tf.training.run_folder import RunFolder

SOUND_SETS = {'ESC-10': 'esc10_input', 'ESC-50': 'esc50_input', 'DCASE2014': 'dcase2014_input'}
ACTION_SETS = {'UCF101': 'ucf101_records', 'HMDB51': 'hmdb51_records'}
SYSTEM_REGIMES = {'avts': 'curriculum_mixed', 'l3': 'easy', 'soundnet': 'easy',
                  'multisensory': 'hard'}
FIRST_STAGE = 'first stage only'  # of the curricula, as a regime


class Figure(NamedTuple):
    """Where the figure of a cell comes from.

    Attributes:
        steps: per seed, a tuple of steps, in the order in which they are run; the last one's result
            holds the figure.
        keys: path in that result.
        scale: what it is multiplied by: 100 for percent.
    """

    steps: tuple[tuple[Step, ...], ...]
    keys: tuple[str, ...]
    scale: float = 100.0

    def histories(self, table_dir: str) -> list[list[dict[str, float]]]:
        """Per seed, the rows of the epochs of its trainings without labels, in order."""
        return [[row for step in chain
                 for row in RunFolder(os.path.join(table_dir, step.folder),
                                      make_config(**step.arguments['config'])).history()]
                for chain in self.steps]


class Settings(NamedTuple):
    """What a table is made with.

    Attributes:
        table_dir: folder of its steps and of what it writes.
        preset, given: preset, and the parameters that override it and the table's own recipe.
        seeds: seeds of the trainings.
        difficulty: of the synthetic worlds; None takes that of `tables.DIFFICULTY`.
        records, eval_records: globs that take the synthetic world's place, or None.
        label_prefix: as in `action.Protocol`, with `records`.
        data: from the name of a data set's parameter, or `weights`, to its value, or None.
        devices: see `devices.make_strategy`.
        quick: whether the synthetic worlds are so small that their figures say nothing.
        recipes: those of the study (keys of `study.recipes`); () takes all of them, and on given
            records `study.RECORDS_RECIPES`.
    """

    table_dir: str
    preset: str
    given: dict[str, Any]
    seeds: tuple[int, ...]
    difficulty: float | None
    records: str | None
    eval_records: str | None
    label_prefix: str
    data: dict[str, str | None]
    devices: str
    quick: bool = False
    recipes: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """What the columns that need no data set are called after."""
        return 'these records' if self.records else 'synthetic world'

    @property
    def stages(self) -> tuple[Stage, Stage]:
        """The two stages of the curricula."""
        epochs = make_config(self.preset, **self.given).train.epochs
        first, second = parse_regime('curriculum_mixed', epochs).stages
        return first, second


def sync_figure(
    settings: Settings, sets: dict[str, str], regime: str, key: str = 'avts_accuracy',
    scale: float = 100.0, **towers: Any,
) -> Figure:
    """How well a training without labels separates pairs in sync from others."""
    steps = tuple((_pretrain(settings, sets, regime, seed, **towers),) for seed in settings.seeds)
    return Figure(steps, ('sync', key), scale)


def records_cell(
    settings: Settings, sets: dict[str, str], init: str, streams: str, freeze: bool,
    regime: str = '', **towers: Any,
) -> Figure | str:
    """Accuracy on the classes of the synthetic world or of `settings.records`.

    In the synthetic world these are the motions of what is seen, or, of audio alone, the objects.

    Args:
        settings: what the table is made with.
        sets: globs of its records.
        init: 'scratch', 'supervised' or a system: where the towers come from.
        streams: 'video', 'audio' or 'both'.
        freeze: whether only the softmax is trained.
        regime: of the training without labels; '' takes the system's own.
        **towers: parameters of the towers.

    Returns:
        The figure, or what it needs.
    """
    prefix = 'object:' if streams == 'audio' else 'motion:'
    if settings.records:
        prefix = settings.label_prefix
    if reason := _needs_teacher(settings, init):
        return reason
    # The world's labelled videos are few: four passes an epoch, so that towers from scratch learn.
    overrides = {**towers, **({} if settings.records else {'passes_per_epoch': 4})}
    chains = []
    for seed in settings.seeds:
        before = _before(settings, sets, init, regime, seed, prefix, towers)
        name = f'{streams}{"-frozen" if freeze else ""}-{prefix.rstrip(":") or "label"}'
        chains.append((*before, _fine_tune(
            settings, name, before, sets['labelled'], sets['test'], seed, streams=streams,
            freeze=freeze, label_prefix=prefix, **overrides)))
    return Figure(tuple(chains), (action.MODE, 'accuracy'))


def action_cell(
    settings: Settings, column: str, init: str, source: str, streams: str, regime: str = '',
    **towers: Any,
) -> Figure | str:
    """Mean accuracy over the three official splits of UCF101 or HMDB51.

    Args:
        column: key of `ACTION_SETS`.
        source: parameter of the records of the training without labels.
        settings, init, streams, regime, **towers: as in `records_cell`.

    Returns:
        The figure, or what it needs.
    """
    parameter = ACTION_SETS[column]
    needs = [parameter] + ([source] if init != 'scratch' else [])
    if reason := _missing(settings, needs) or _needs_teacher(settings, init):
        return reason
    pattern, chains = settings.data[parameter], []
    assert pattern is not None  # `_missing` has looked
    for place, meaning in (('{part}', 'train and test'),
                           ('{split}', '1, 2 and 3, the official splits')):
        if place not in pattern:
            raise UserError(parameter, pattern, f'{place} is missing; it is replaced by '
                            f'{meaning}.')
    for seed in settings.seeds:
        before = _before(settings, _parts(settings, source), init, regime, seed, '', towers,
                         source.split('_', maxsplit=1)[0])
        train, test = (pattern.replace('{part}', part) for part in ('train', 'test'))
        chains.append((*before, _fine_tune(
            settings, f'{column}-{streams}', before, train, test, seed, streams=streams,
            splits=tuple(DATASETS[column.lower()].splits), **towers)))
    return Figure(tuple(chains), (action.MODE, 'accuracy'))


def sound_cell(
    settings: Settings, sets: dict[str, str], column: str, init: str, source: str,
    features: str = 'tower', classifier: str = 'svm', regime: str = '',
) -> Figure | str:
    """Mean accuracy over the folds of a collection of sounds.

    Args:
        column: key of `SOUND_SETS`.
        source: parameter of the records of the training without labels; 'own' takes the synthetic
            world or `settings.records`, '' is no training.
        features, classifier: as in `audio.Protocol`.
        settings, sets, init, regime: as in `records_cell`.

    Returns:
        The figure, or what it needs.
    """
    parameter = SOUND_SETS[column]
    needs = [parameter] + ([source] if source not in ('', 'own') else [])
    if features == 'soundnet':
        needs.append('weights')
    if reason := _missing(settings, needs) or _needs_teacher(settings, init):
        return reason
    path, chains = settings.data[parameter], []
    assert path is not None  # `_missing` has looked
    for seed in settings.seeds:
        before = ()
        if source == 'own':
            before = _before(settings, sets, init, regime, seed, '', {})
        elif source:
            before = _before(settings, _parts(settings, source), init, regime, seed, '', {},
                             source.split('_', maxsplit=1)[0])
        tower = before[-1].folder if before else ''
        # The schedule of tiny is made for the synthetic world; the subnet's, which
        # docs/paper_tables.md describes, is of small.
        own_preset = 'small' if settings.preset == 'tiny' else settings.preset
        preset = own_preset if features == 'scratch' else settings.preset
        folder = f'sound-{column}-{classifier}-{tower or f"{features}-seed{seed}"}'
        arguments = {
            'config': {'preset': preset, **_given(settings), 'seed': seed},
            'protocol': audio.Protocol(features, classifier, seed=seed)._asdict(),
            'input_path': path, 'dataset': parameter.split('_')[0],
            'tower_run_dir': os.path.join(HERE, tower) if tower else '',
        }
        inputs = {parameter: stamp(path)}
        if features == 'soundnet':
            weights = settings.data['weights']
            assert weights is not None  # `_missing` has looked
            arguments['weights'], inputs['weights'] = weights, stamp(weights)
        chains.append((*before, Step(folder, 'audio', arguments, inputs)))
    return Figure(tuple(chains), (result_key(chains[0][-1]), 'accuracy'))


def _missing(settings: Settings, needs: list[str]):
    absent = [f'`{name}`' for name in needs if not settings.data.get(name)]
    return f'needs {" and ".join(absent)}' if absent else ''


def _needs_teacher(settings: Settings, init: str):
    return 'needs `teacher`' if init == 'soundnet' and not settings.given.get('teacher') else ''


def _given(settings: Settings, system: str = 'avts'):
    """The parameters that were given, as far as a system knows them."""
    return {name: value for name, value in settings.given.items()
            if name != 'teacher' or system == 'soundnet'}


def _parts(settings: Settings, source: str):
    """The sets of a collection whose glob has {part} in it, or one glob for all."""
    pattern = settings.data.get(source) or ''
    train, test = (pattern.replace('{part}', part) for part in ('train', 'test'))
    return {'train': train, 'held': test}


def _before(
    settings: Settings, sets: dict[str, str], init: str, regime: str, seed: int, prefix: str,
    towers: dict[str, Any], source: str = '',
):
    """The steps that lead to the towers: none, a training without labels, or one with."""
    if init == 'scratch':
        return ()
    if init == 'supervised':
        name = '-'.join(filter(None, ['supervised', source]))
        return (_fine_tune(settings, name, (), sets['train'], sets['held'], seed,
                           label_prefix=prefix, **towers),)
    system = {} if init == 'avts' else {'system': init}
    return (_pretrain(settings, sets, regime or SYSTEM_REGIMES[init], seed, source, **system,
                      **towers),)


def _pretrain(
    settings: Settings, sets: dict[str, str], regime: str, seed: int, source: str = '',
    **overrides: str,
):
    """The step of a training without labels."""
    # The slides draw one other clip for an easy negative.
    config = {'preset': settings.preset, 'easy_negatives': 'drawn', **overrides,
              **_given(settings, overrides.get('system', 'avts')), 'seed': seed, 'regime': regime}
    if regime == FIRST_STAGE:
        first, _ = settings.stages
        config['regime'] = f'{first.mix}:{first.epochs}'
    parts = ['train', *overrides.values(), regime.replace(' ', '_'), source and f'on_{source}',
             f'seed{seed}']
    return records_step('-'.join(filter(None, parts)), 'train', settings, sets['train'],
                         sets['held'], {'config': config})


def _fine_tune(
    settings: Settings, name: str, before: tuple[Step, ...], records: str, eval_records: str,
    seed: int, streams: str = 'video', freeze: bool = False, label_prefix: str = '',
    splits: tuple[str, ...] = (), **overrides: Any,
):
    """The step of a training with labels, from the towers of the step before or from scratch."""
    run_dir = os.path.join(HERE, before[-1].folder) if before else ''
    protocol = action.Protocol('trained' if before else 'scratch', run_dir, streams, freeze,
                               label_prefix=label_prefix)
    config = {'preset': settings.preset, **overrides, **_given(settings), 'seed': seed}
    after = ['from_scratch', overrides.get('video_tower', ''), f'seed{seed}']
    if before:
        after = [before[-1].folder]
    arguments = {'config': config, 'protocol': protocol._asdict(), 'splits': list(splits)}
    folder = '-'.join(filter(None, ['tune', name, *after]))
    return records_step(folder, 'action', settings, records, eval_records, arguments,
                         splits or ('',))


def records_step(
    folder: str, kind: str, settings: Settings, records: str, eval_records: str,
    arguments: dict[str, Any], splits: tuple[str, ...] = ('',),
) -> Step:
    """A step that reads records.

    Args:
        folder, kind: as in `Step`.
        settings: what the table is made with.
        records, eval_records: globs, with `HERE` for the table's folder.
        arguments: further ones of what the step calls.
        splits: what takes the place of {split} in the globs, one after the other.
    """
    inputs = {}
    for name, pattern in (('records', records), ('eval_records', eval_records)):
        pattern = fill_in(pattern, settings.table_dir)
        inputs[name] = [stamp(pattern.replace('{split}', split)) for split in splits]
    return Step(folder, kind, {**arguments, 'records': records, 'eval_records': eval_records,
                               'devices': settings.devices}, inputs)
