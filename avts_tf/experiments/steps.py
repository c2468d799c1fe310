"""The steps of a table: trainings, fine-tunings and probes, each in its own folder and process.

A step whose folder holds its result is not run again; one that was interrupted is resumed.
"""

import contextlib
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import tensorflow as tf

from avts_tf import files
from avts_tf.config import make_config
from avts_tf.data import workers
from avts_tf.data.shards import matches
from avts_tf.errors import Stopped, UserError
from avts_tf.evaluation import action, audio
from avts_tf.evaluation.sync import evaluate_sync
from avts_tf.evaluation.tower_features import ProbedTower, soundnet_tower
from avts_tf.program import explaining, show_messages
from avts_tf.signals import Interruption, note_signals
from avts_tf.training.run_folder import (
    RunFolder,
    draw_training_curves,
    load_model,
    load_result,
    update_result,
)
from avts_tf.training.trainer import train

HERE = '{table_dir}'  # in a step's paths: the folder may be moved, or be called by another name
_STEP, _FAILED = 'step.json', 'failed.txt'

logger = logging.getLogger(__name__)


class Step(NamedTuple):
    """One training, fine-tuning or probe.

    Attributes:
        folder: its run folder, under the table's.
        kind: key of `KINDS`.
        arguments: what `KINDS[kind]` is called with, as JSON holds it, with `HERE` for the table's
            folder.
        inputs: what the files were when the step was planned, by parameter; see `stamp`.
    """

    folder: str
    kind: str
    arguments: dict[str, Any]
    inputs: dict[str, Any]


def _train(
    run_dir: str, config: dict, records: str, eval_records: str, devices: str,
    init_run_dir: str | None = None, label_prefix: str | None = None,
):
    parsed_config = make_config(**config)
    model = train(parsed_config, records, run_dir, eval_records=eval_records, devices=devices,
                  init_run_dir=init_run_dir)
    draw_training_curves(RunFolder(run_dir, parsed_config), parsed_config)
    found = evaluate_sync(model, records, eval_records, label_prefix=label_prefix)
    update_result(run_dir, {'sync': found.results})


def _recognise_actions(
    run_dir: str, config: dict, protocol: dict, records: str, eval_records: str, splits: list,
    devices: str,
):
    parsed_config, parsed_protocol = make_config(**config), action.Protocol(**protocol)
    if parsed_protocol.init_run_dir:
        parsed_config = action.take_sizes(parsed_config, {}, parsed_protocol.init_run_dir)
    if splits:
        results = action.recognise_splits(
            parsed_config, parsed_protocol, records, eval_records, run_dir, splits, devices)
    else:
        results = action.recognise_actions(
            parsed_config, parsed_protocol, records, eval_records, run_dir, devices)
    update_result(run_dir, {action.MODE: results})


def _classify_sounds(
    run_dir: str, config: dict, protocol: dict, input_path: str, dataset: str, tower_run_dir: str,
    weights: str = '',
):
    parsed_protocol, tower = audio.Protocol(**protocol), None
    if parsed_protocol.features == 'tower':
        model, _ = load_model(tower_run_dir)
        tower = ProbedTower(model.config.clip.sample_rate, model.audio_tower, model.config)
    elif parsed_protocol.features in audio.SOUNDNET:
        tower = soundnet_tower(weights, parsed_protocol.pooling, parsed_protocol.seed)
    found = audio.classify_sounds(
        input_path, dataset, parsed_protocol, make_config(**config), tower)
    update_result(run_dir, {audio.result_name(dataset, parsed_protocol): found.results})


# What each kind of step calls, with its run folder and its arguments.
KINDS: dict[str, Callable[..., None]] = {
    'train': _train, 'action': _recognise_actions, 'audio': _classify_sounds}


def result_key(step: Step) -> str:
    """The entry of result.json that says that a step is done."""
    if step.kind == 'audio':
        protocol = audio.Protocol(**step.arguments['protocol'])
        return audio.result_name(step.arguments['dataset'], protocol)
    return {'train': 'sync', 'action': action.MODE}[step.kind]


def read_result(step: Step, table_dir: str) -> dict[str, Any]:
    """What result.json of a step holds; {} where there is none."""
    return load_result(os.path.join(table_dir, step.folder))


def is_finished(step: Step, table_dir: str) -> bool:
    """Whether a step's folder holds its result.

    Raises:
        UserError: the folder holds the step with other settings, or from other files.
    """
    folder = os.path.join(table_dir, step.folder)
    try:
        with open(os.path.join(folder, _STEP), encoding='utf-8') as file:
            before = json.load(file)
    except FileNotFoundError:
        return False
    wanted = json.loads(json.dumps(step._asdict()))
    if changed := [name for name, found in wanted['inputs'].items()
                   if before.get('inputs', {}).get(name) != found]:
        given = step.arguments.get(changed[0], step.arguments.get('input_path'))
        raise UserError(
            None, folder, f'was made from other files than `{changed[0]}` names now ({given}). '
            'Remove that folder and those that build on it, or use another `table_dir`.')
    for arguments in (before['arguments'], wanted['arguments']):
        arguments.pop('devices', None)  # does not change the result
    if before != wanted:
        differing = [f'{name}: {before["arguments"].get(name)} there, {value} asked for'
                     for name, value in wanted['arguments'].items()
                     if before['arguments'].get(name) != value]
        raise UserError(
            None, folder, f'holds a step with other settings '
            f'({"; ".join(differing) or "another kind"}). Use another `table_dir`, or the same '
            'parameters.')
    return read_result(step, table_dir).get(result_key(step)) is not None


def run_all(
    chains: Iterable[tuple[Step, ...]], table_dir: str, name: str, lock: int | None,
) -> tuple[int, dict[str, str]]:
    """Runs the steps that are not finished.

    Args:
        chains: steps in the order in which they are run; chains may share steps.
        table_dir: folder of the table.
        name: of the table, for messages.
        lock: file descriptor of the table's lock.

    Returns:
        The number of all steps, and why some failed: from a step's folder to the reason.

    Raises:
        UserError: a step's folder holds another one's result.
        Stopped: a signal came.
    """
    found: dict[str, Step] = {}
    before: dict[str, list[str]] = {}  # folders of the steps that a step builds on
    for chain in chains:
        for place, step in enumerate(chain):
            if found.setdefault(step.folder, step) != step:
                raise ValueError(f'two different steps are called {step.folder}')
            before[step.folder] = [earlier.folder for earlier in chain[:place]]
    missing = [step for step in found.values() if not is_finished(step, table_dir)]
    logger.info(f'{name}: {len(found)} steps, {len(found) - len(missing)} of them done already.')
    failures: dict[str, str] = {}
    # Around all steps: a signal that comes between two of them is noted as well.
    with note_signals() as interruption:
        for number, step in enumerate(missing, 1):
            logger.info(f'[{number}/{len(missing)}] {os.path.join(table_dir, step.folder)}')
            reason = next((failures[folder] for folder in before[step.folder]
                           if folder in failures), None)
            if reason := reason or run(step, table_dir, lock, interruption):
                failures[step.folder] = reason
    return len(found), failures


def run(step: Step, table_dir: str, lock: int | None, interruption: Interruption) -> str:
    """Runs a step in a process of its own.

    TensorFlow keeps memory, devices and random state for the life of a process.

    Args:
        step: what is run.
        table_dir: folder of the table.
        lock: file descriptor of the table's lock, which the process inherits.
        interruption: notes the signals that come meanwhile.

    Returns:
        Why it failed, or ''.

    Raises:
        Stopped: a signal came, which the step got too.
    """
    folder = os.path.join(table_dir, step.folder)
    os.makedirs(folder, exist_ok=True)
    files.write_text(os.path.join(folder, _STEP), json.dumps(step._asdict(), indent=2) + '\n')
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(folder, _FAILED))
    code = (f'import sys; sys.path[:] = {sys.path!r}; from {__name__} import run_step; '
            f'run_step({table_dir!r}, {step.folder!r}, {os.getpid()})')
    # In a session of its own: Ctrl-C in a terminal would reach it as well, and a second signal
    # ends it at once.
    process = subprocess.Popen(
        [sys.executable, '-c', code], pass_fds=[] if lock is None else [lock],
        stdin=subprocess.DEVNULL, start_new_session=True)
    passed_on = False
    try:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
            if interruption.signal_number and not passed_on:
                process.send_signal(interruption.signal_number)
                passed_on = True
    except KeyboardInterrupt:
        process.kill()
        process.wait()
        raise
    if interruption.signal_number:
        name = signal.Signals(interruption.signal_number).name
        raise Stopped(f'stopped by {name}. The same command resumes with {folder}.',
                      interruption.signal_number)
    if not process.returncode:
        return ''
    try:
        with open(os.path.join(folder, _FAILED), encoding='utf-8') as file:
            return f'{step.folder}: {file.read().strip()}'
    except FileNotFoundError:
        return f'{step.folder}: ended with exit status {process.returncode}'


def run_step(table_dir: str, folder: str, parent: int) -> None:
    """The entry of a step's process: runs what its folder describes.

    Args:
        table_dir: folder of the table.
        folder: of the step, under it.
        parent: process id of the table; when it ends, the step is stopped.
    """
    workers.end_with(parent, signal.SIGTERM)
    path = os.path.join(table_dir, folder)
    with open(os.path.join(path, _STEP), encoding='utf-8') as file:
        step = json.load(file)
    show_messages()
    with explaining(path):
        try:
            KINDS[step['kind']](path, **fill_in(step['arguments'], table_dir))
        except UserError as error:
            files.write_text(os.path.join(path, _FAILED), f'{error}\n')
            raise
        except KeyboardInterrupt:  # the table has said it
            sys.exit(130)


def fill_in(arguments: Any, table_dir: str) -> Any:
    """Arguments as JSON holds them, with the table's folder in the place of `HERE`."""
    if isinstance(arguments, dict):
        return {name: fill_in(value, table_dir) for name, value in arguments.items()}
    return arguments.replace(HERE, table_dir) if isinstance(arguments, str) else arguments


def stamp(pattern: str) -> str:
    """A hexadecimal digest of the files that a glob, a list or a folder names.

    It holds names, sizes and the content of lists, so that a finished step is not taken for one on
    files that have changed since.
    """
    digest = hashlib.sha256()
    parts = [pattern] if tf.io.gfile.exists(pattern) else map(str.strip, pattern.split(','))
    for part in parts:
        found = [path for path in matches(part) if not tf.io.gfile.isdir(path)]
        for folder, _, names in tf.io.gfile.walk(part):
            found += [os.path.join(folder, name) for name in names]
        for path in sorted(found):
            size = tf.io.gfile.stat(path).length
            digest.update(f'{os.path.basename(path)} {size}\n'.encode())
            if path.endswith(('.csv', '.txt')):
                with tf.io.gfile.GFile(path, 'rb') as content:
                    digest.update(content.read())
    return digest.hexdigest()[:16]
