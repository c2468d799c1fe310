"""The output of a writer: held by one process, resumed, and moved into place as a whole.

All is written in the folder `NAME.writing`, which holds

    plan.json       what the work is of: settings, number of shards, digests, versions of libraries
    SHARD, SHARD.lines   a shard and, once it is whole, a line for each of its sources
    placing.json    there when all is whole: from then on nothing is left but to move it

so that whatever ends the writer, the same command can continue and gives the same bytes.
"""

import contextlib
import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

import av

from avts_tf import files
from avts_tf.data.shards import shard_path, summary_path
from avts_tf.errors import UserError
from avts_tf.lazy import tf
from tfrecords_tools import report
from tfrecords_tools.plan import Plan
from tfrecords_tools.shard_writer import is_finished, read_lines

_PLAN, _PLACING = 'plan.json', 'placing.json'
_FULL = (errno.ENOSPC, errno.EDQUOT)

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def hold_output(
    plan: Plan, overwrite: bool
) -> Iterator[tuple[dict[str, Any] | None, list[int]]]:
    """Holds the output of a plan for this process alone, and says what is left to do.

    Args:
        plan: what is to be written.
        overwrite: whether to make a set anew that is there, and to drop another plan's work.

    Yields:
        (summary, []) where the set is there, or (None, indices of the shards that are to be
        written); what follows then writes them with `write_shard` and calls `place`.

    Raises:
        UserError: the output is in use, or of another plan; also for what cannot be written while
            it is held.
    """
    try:
        asked = not overwrite and not os.path.isdir(plan.work_folder)  # asking leaves no trace
        if asked and (summary := _finished_set(plan)):
            yield summary, []
            return
        with files.locked(plan.work_folder, 'output', value=plan.output):
            yield _open(plan, overwrite)
    except (tf.errors.OpError, OSError) as error:
        reason = error.message if isinstance(error, tf.errors.OpError) else str(error)
        full = (isinstance(error, tf.errors.ResourceExhaustedError)
                or getattr(error, 'errno', None) in _FULL)
        if full:
            raise UserError(
                'output', plan.output, f'the disk is full. {count_finished(plan)} of '
                f'{len(plan.shards)} shard(s) are finished and stay in {plan.work_folder}; make '
                f'room, and the same command continues after them ({reason}).'
            ) from error
        raise UserError('output', plan.output, f'cannot be written: {reason}') from error


def _open(plan: Plan, overwrite: bool):
    """What is left to do, under the lock: see `hold_output`."""
    ours = {'settings': plan.settings, 'shards': len(plan.shards), 'digest': plan.digest,
            'files': plan.files, **_versions()}
    theirs = _read_json(os.path.join(plan.work_folder, _PLAN))
    if theirs and theirs != ours and not overwrite:
        raise UserError(
            'output', plan.output, f'{plan.work_folder} holds unfinished work of another command: '
            f'{_difference(theirs, ours)}. Give that command again to resume it, `overwrite` to '
            'drop it, or another `output`.'
        )
    if theirs == ours:
        if placing := _read_json(os.path.join(plan.work_folder, _PLACING)):
            return _finish_placing(plan, placing), []
        if done := count_finished(plan):
            logger.info(f'{plan.work_folder}: resumed; {done} of {len(plan.shards)} shard(s) are '
                        'finished.')
    else:
        summary = None if overwrite else _finished_set(plan)
        _clear(plan.work_folder)
        if summary:
            _remove(plan.work_folder)
            return summary, []
        files.write_text(os.path.join(plan.work_folder, _PLAN), json.dumps(ours))
    for name in os.listdir(plan.work_folder):
        if name.endswith(files.ASIDE):  # of a writer that was killed
            _delete(os.path.join(plan.work_folder, name))
    shards = range(len(plan.shards))
    return None, [i for i in shards if not is_finished(plan.work_folder, plan.shard_name(i))]


def count_finished(plan: Plan) -> int:
    """Number of shards that are written and wait in the folder of unfinished work."""
    return sum(is_finished(plan.work_folder, plan.shard_name(i)) for i in range(len(plan.shards)))


def _versions():
    """The libraries that decide bytes: another version of one may write others."""
    return {'PyAV': av.__version__, 'TensorFlow': tf.__version__}


def _difference(theirs: dict[str, Any], ours: dict[str, Any]):
    """In what two plans differ, in words."""
    changes = [
        f'`{key}`={theirs["settings"].get(key)} there, {value} here'
        for key, value in ours['settings'].items() if theirs['settings'].get(key) != value
    ]
    if theirs['shards'] != ours['shards']:
        changes.append(f'{theirs["shards"]} shards there, {ours["shards"]} here')
    changes += [f'{key} {theirs[key]} there, {ours[key]} here' for key in _versions()
                if theirs[key] != ours[key]]
    return ', '.join(changes) or ('the input has changed since (files or lines were added, removed '
                                  'or changed)')


def _finished_set(plan: Plan):
    """The summary of the set that is there, if it is of this plan; None where there is none."""
    there = _set_files(plan.output)
    if not there:
        return None
    path = summary_path(plan.output)
    summary = _read_json(path)
    if not summary or summary.get('plan') != plan.digest:
        raise UserError(
            'output', plan.output, f'{there[0]} is there already, of another command or another '
            'input, and a glob would take both for one set. Give another name, or `overwrite` to '
            'write it anew.'
        )
    shards = [name for name in there if name != path]
    count = len(plan.shards)
    if sorted(shards) != [shard_path(plan.output, i, count) for i in range(count)]:
        raise UserError(
            'output', plan.output, f'{path} is there, but its shards are not all there, or '
            'others are. `overwrite` writes the set anew.'
        )
    logger.info(f'{path}: there already, from the same input and options; nothing is done. '
                '--overwrite writes it anew.')
    return summary


def _set_files(output: str):
    """Paths of the shards and the summary of all sets of that name, sorted."""
    pattern = re.compile(re.escape(os.path.basename(output)) + r'(-\d{5}-of-\d{5}|\.json)')
    folder = os.path.dirname(output)
    names = os.listdir(folder or '.') if os.path.isdir(folder or '.') else []
    return sorted(os.path.join(folder, name) for name in names if pattern.fullmatch(name))


def _read_json(path: str):
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)
    except (FileNotFoundError, ValueError):
        return None


def place(plan: Plan) -> dict[str, Any]:
    """Writes report and summary of a set whose shards are all finished, and moves all into place.

    Args:
        plan: what was written; its output is held.

    Returns:
        The summary, see `write.write_records`.
    """
    lines: list[dict[str, Any]] = [{}] * len(plan.sources)  # each is replaced
    for index in range(len(plan.shards)):
        for line in read_lines(plan.work_folder, plan.shard_name(index)):
            lines[line['index']] = line
    summary = report.summarize(plan, lines)
    texts = {'.report.csv': report.as_csv(line['row'] for line in lines)}
    if summary['records']:
        if plan.recipe.labels:
            texts['.labels.txt'] = ''.join(f'{name}\n' for name in plan.recipe.labels)
        texts['.json'] = json.dumps(summary, indent=2) + '\n'
    name = os.path.basename(plan.output)
    for suffix, text in texts.items():
        files.write_text(os.path.join(plan.work_folder, name + suffix), text)
    shards = [plan.shard_name(i) for i in range(len(plan.shards))] if summary['records'] else []
    # From here on the set is whole, and all that is left is to move it. The summary comes last.
    placing = {'names': [*shards, *(name + suffix for suffix in texts)], 'summary': summary}
    files.write_text(os.path.join(plan.work_folder, _PLACING), json.dumps(placing))
    return _finish_placing(plan, placing)


def _finish_placing(plan: Plan, placing: dict[str, Any]):
    """Moves the files of a set into their places; what is there already stays."""
    folder = os.path.dirname(plan.output)
    ours = {os.path.join(folder, name) for name in placing['names']}
    texts = [plan.output + suffix for suffix in ('.json', '.report.csv', '.labels.txt')]
    # An older set goes first and as a whole, so that none is ever a mixture.
    for path in [*texts, *_set_files(plan.output)]:
        moved = os.path.join(plan.work_folder, os.path.basename(path))
        if path not in ours or os.path.exists(moved):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
    for name in placing['names']:
        with contextlib.suppress(FileNotFoundError):
            os.replace(os.path.join(plan.work_folder, name), os.path.join(folder, name))
    files.bring_to_disk(folder or '.')
    _clear(plan.work_folder)
    _remove(plan.work_folder)
    return placing['summary']


def _clear(folder: str):
    """Empties a folder of unfinished work, but for its lock."""
    others = [name for name in os.listdir(folder) if name not in (_PLAN, _PLACING, files.LOCK)]
    for name in [_PLACING, _PLAN, *others]:  # first what says that the rest counts
        with contextlib.suppress(FileNotFoundError):
            _delete(os.path.join(folder, name))


def _delete(path: str):
    shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


def _remove(folder: str):
    os.remove(os.path.join(folder, files.LOCK))
    with contextlib.suppress(OSError):  # the next writer has come in
        os.rmdir(folder)
