"""Writes videos as records: a folder, a glob, a CSV or a published collection becomes shards that training reads.

    python -m tfrecords_tools.write --input=videos/ --output=data/train
    python -m tfrecords_tools.write --input=kinetics/ --dataset=kinetics --split=train --output=data/train

`avts_tf/data/datasets/` says what `--input` may be and how the collections of `--dataset` are laid
out. `--split` takes one of their published parts, or several with commas. Where a collection has none,
`--hold_out=0.1 --part=train` and the same with `--part=held` give two sides that never share a video. `--sound_only` writes records without
pictures; collections of sounds imply it.

Every record is aligned as it is written, by presentation times: frame i shows time i / fps, sample n sounds at
n / sample_rate, from the same time 0, and both cover the same duration. The rule in full stands at the head of
`avts_tf/data/media/__init__.py`.

Beside the shards `NAME-00000-of-00004` there are then

    NAME.json          counts, settings, durations
    NAME.report.csv    every source with what became of it, in the order of the input: path, start_seconds, end_seconds (where
                       it is cut out), status (written, skipped), reason, detail, seconds, frames, source_fps, volume_db, motion;
                       text that begins with = + - or @ has a ' before it, so that no spreadsheet calculates it
    NAME.labels.txt    the class names of the whole collection, one a line, by index from 0 (where there are labels)

Files that cannot be used are left out and reported; a file that kills or hangs the decoder costs itself only. The same input
gives the same bytes, whatever the number of workers.

All is written in the folder `NAME.writing` and takes its place when it is whole. Whatever ends the writer before that (Ctrl-C,
SIGKILL, a full disk), the same command goes on behind the last finished shard and gives the same bytes as if nothing had
happened. Another command or a changed input on the same output is refused, and so is a second writer beside the first. Where
the set is there already, nothing is done; `--overwrite` makes it anew, and drops unfinished work of another command.
"""

import collections
import contextlib
import csv
import errno
import hashlib
import io
import json
import math
import os
import random
import re
import sys
import uuid
from typing import NamedTuple

import av
from absl import app, flags
from tqdm import tqdm

from avts_tf import files, program
from avts_tf.data import datasets, media, records, workers
from avts_tf.errors import UserError
from avts_tf.lazy import tf
from avts_tf.signals import stop_on_signals

RECORDS_PER_SHARD = 256
REPORT_COLUMNS = (
    'path', 'start_seconds', 'end_seconds', 'status', 'reason', 'detail', 'seconds', 'frames', 'source_fps', 'volume_db', 'motion',
)
_MOST_RECORD_BYTES = 2_000_000_000  # a serialised message must stay below 2 GiB
_PLAN, _PLACING, _LINES = 'plan.json', 'placing.json', '.lines'
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DEFAULTS = media.MediaOptions()


class Recipe(NamedTuple):
    """What one source needs to become a record.

    Attributes:
        options: `media.MediaOptions` without times.
        labels: names of all classes, sorted.
        dataset_name: name of the collection.
        audio_encoding: 'pcm16' or 'float'.
        timeout_seconds: longest time for decoding.
    """

    options: media.MediaOptions
    labels: list
    dataset_name: str
    audio_encoding: str
    timeout_seconds: float


class Plan(NamedTuple):
    """Everything that decides what is written.

    Attributes:
        output: folder and beginning of the shards' names.
        sources: list of `datasets.Source`.
        shards: per shard, the indices of its sources, in their order in the shard.
        recipe: a `Recipe`.
        settings: dict, what the user chose, as NAME.json tells it.
        digest: text that stands for settings, sources and the sizes of their files.
        files: text that stands for the times of the files too, for work under way.
    """

    output: str
    sources: list
    shards: list
    recipe: Recipe
    settings: dict
    digest: str
    files: str

    @property
    def aside(self):
        """The folder of unfinished work: a folder, because a glob for the shards must not find halves."""
        return self.output + '.writing'

    def shard_name(self, index):
        """File name of a shard."""
        return os.path.basename(records.shard_path(self.output, index, len(self.shards)))

    def tasks(self, indices):
        """For each of these sources what `media.try_media` takes."""
        for index in indices:
            source = self.sources[index]
            yield source.path, self.recipe.options._replace(start_seconds=source.start_seconds, end_seconds=source.end_seconds)


def make_plan(
    input_path, output_prefix, *, dataset='', split='', hold_out=0.0, part='', fps=25.0, short_side=128, sample_rate=16000,
    shards=0, max_seconds=_DEFAULTS.max_seconds, max_pixels=_DEFAULTS.max_pixels, jpeg_quality=90, audio_encoding='pcm16',
    file_timeout_seconds=120.0, dataset_name='', label_column='', sound_only=False, keep_silent=False, keep_still=False,
    silent_below_db=_DEFAULTS.silent_below_db, still_below=_DEFAULTS.still_below,
):
    """Checks the options and finds the sources; see `write_records`.

    Returns:
        A `Plan`.

    Raises:
        UserError: a value is not allowed, or there is no input.
    """
    limits = {
        'fps': (fps, 0.1, 1000), 'sample_rate': (sample_rate, 1000, 192_000), 'max_seconds': (max_seconds, 0, 86_400),
        'max_pixels': (max_pixels, 64, 2**30), 'jpeg_quality': (jpeg_quality, 1, 100), 'shards': (shards, 0, 99_999),
        'file_timeout_seconds': (file_timeout_seconds, 0.1, 86_400), 'silent_below_db': (silent_below_db, -120, 0),
        'still_below': (still_below, 0, 255), 'hold_out': (hold_out, 0, 1),
        # Below 8 pixels nothing is left to see; 0 has a meaning of its own.
        'short_side': (short_side, 8 if short_side else 0, 8192),
    }
    for name, (value, least, most) in limits.items():
        if not least <= value <= most:
            zero = ', or be 0 to keep the size' if name == 'short_side' else ''
            raise UserError(f'--{name}={value}: must lie between {least} and {most}{zero}.')
    if audio_encoding not in ('pcm16', 'float'):
        raise UserError(f'--audio_encoding={audio_encoding}: must be pcm16 or float.')
    if bool(hold_out) != bool(part) or part not in ('', *datasets.SIDES):
        raise UserError(f'--hold_out={hold_out} --part={part}: give both, and {" or ".join(datasets.SIDES)} for the part.')
    if not output_prefix or output_prefix.endswith('/') or os.path.isdir(output_prefix):
        raise UserError(f'--output={output_prefix}: give a folder and the beginning of a name, such as "data/train".')

    collection = datasets.read_collection(input_path, dataset, label_column)
    sources = datasets.take_split(collection, split)
    if hold_out:
        sources = datasets.hold_out(sources, hold_out, part)
    if not sources:
        raise UserError(f'--input={input_path} --split={split} --hold_out={hold_out} --part={part}: no source is in this part.')
    count = shards or math.ceil(len(sources) / RECORDS_PER_SHARD)
    if count > len(sources):
        raise UserError(f'--shards={count}: more than the {len(sources)} source(s) of {input_path}.')

    # Neighbours are often of one class or one scene; a reader's shuffle is better off when shards are mixed.
    mixed = random.Random(0).sample(range(len(sources)), len(sources))
    name = os.path.splitext(os.path.basename(os.path.abspath(re.split(r'[*?[]', input_path)[0])))[0]
    sound_only = sound_only or datasets.DATASETS[dataset].audio_only
    options = media.MediaOptions(
        fps=float(fps), short_side=short_side, sample_rate=sample_rate, max_seconds=float(max_seconds), max_pixels=max_pixels,
        jpeg_quality=jpeg_quality, silent_below_db=None if keep_silent else float(silent_below_db),
        still_below=None if keep_still or sound_only else float(still_below), audio_only=sound_only,
    )
    recipe = Recipe(options, collection.labels, dataset_name or dataset or name, audio_encoding, float(file_timeout_seconds))
    settings = {
        'dataset_name': recipe.dataset_name, 'split': split, 'hold_out': float(hold_out), 'part': part,
        **{key: value for key, value in options._asdict().items() if key not in ('start_seconds', 'end_seconds')},
        'audio_encoding': audio_encoding, 'file_timeout_seconds': recipe.timeout_seconds,
    }
    facts = [_file_facts(source.path) for source in sources]
    named = [(*source._replace(path=''), size) for source, (size, _) in zip(sources, facts, strict=True)]
    return Plan(
        output_prefix, sources, [mixed[shard::count] for shard in range(count)], recipe, settings,
        _digest([settings, count, collection.labels, named]), _digest(facts),
    )


def _file_facts(path):
    """Size and time of change of a file, both None where it is missing."""
    try:
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns
    except (OSError, ValueError):  # a NUL in the path
        return None, None


def _digest(value):
    return hashlib.sha256(json.dumps(value).encode('utf-8', 'surrogatepass')).hexdigest()[:32]


def write_records(input_path, output_prefix, *, num_workers=0, overwrite=False, **options):
    """Writes the sources of an input as records; see the head of this file for what is written and what may interrupt it.

    Where no record could be made, only the report is written.

    Args:
        input_path: folder, glob, CSV or file; see `avts_tf/data/datasets/`.
        output_prefix: folder and beginning of the shards' names, such as 'data/train'; the folder is made where missing.
        num_workers: decoding processes; 0 takes one per processor.
        overwrite: whether to make a set anew that is there already, and to drop unfinished work of other options.
        **options: all that changes what is written:
            dataset: layout of the collection, a key of `datasets.DATASETS`.
            split: name(s) of published parts; '' is everything.
            hold_out, part: see `datasets.hold_out`; 0 and '' take everything.
            fps: frames per second of the records.
            short_side: pixels of the shorter side of a frame; 0 keeps the size, and nothing is enlarged.
            sample_rate: Hz.
            shards: number of files; 0 makes one for about every 256 sources.
            max_seconds: a source that lasts longer is left out; 0 is no limit.
            max_pixels: a source whose frames have more is left out.
            jpeg_quality: 1 to 100.
            audio_encoding: 'pcm16', or 'float' for readers of DMVR records.
            file_timeout_seconds: longest time for decoding one source.
            dataset_name: written into each record; '' takes the name of the dataset or of the input.
            label_column: column of a CSV that holds the label.
            sound_only: whether to write records without pictures.
            keep_silent, keep_still: whether to keep sources without sound to hear or without motion to see.
            silent_below_db, still_below: what that means; see `avts_tf/data/media/__init__.py`.

    Returns:
        dict, what `NAME.json` holds: 'records', 'skipped' (reason → count), 'duration_seconds' and so on.

    Raises:
        UserError: a value is not allowed, there is no input, the output is of another command or in use, or cannot be written.
    """
    if not 0 <= num_workers <= 1024:
        raise UserError(f'--workers={num_workers}: must lie between 0 and 1024.')
    plan = make_plan(input_path, output_prefix, **options)
    with output(plan, overwrite) as (summary, shards):
        return summary or _write(plan, shards, num_workers or os.cpu_count())


@contextlib.contextmanager
def output(plan, overwrite):
    """Holds the output of a plan for this process alone, and says what is left to do.

    Args:
        plan: a `Plan`.
        overwrite: see `write_records`.

    Yields:
        (summary, None) where the set is there, or (None, indices of the shards that are to be written); what follows then
        writes them with `write_shard` and calls `place`.

    Raises:
        UserError: the output is in use, or of another plan; also for what cannot be written while it is held.
    """
    try:
        if not overwrite and not os.path.isdir(plan.aside):  # asking leaves no trace
            summary = _finished(plan)
            if summary:
                yield summary, None
                return
        with files.locked(plan.aside, 'output'):
            yield _open_output(plan, overwrite)
    except (tf.errors.OpError, OSError) as error:
        reason = error.message if isinstance(error, tf.errors.OpError) else str(error)
        full = isinstance(error, tf.errors.ResourceExhaustedError) or getattr(error, 'errno', None) in _FULL
        if full:
            raise UserError(
                f'--output={plan.output}: the disk is full. {finished_shards(plan)} of {len(plan.shards)} shard(s) are finished '
                f'and stay in {plan.aside}; make room, and the same command goes on behind them ({reason}).'
            ) from error
        raise UserError(f'--output={plan.output}: cannot be written: {reason}') from error


def _open_output(plan, overwrite):
    """What is left to do, under the lock: see `output`."""
    ours = {'settings': plan.settings, 'shards': len(plan.shards), 'digest': plan.digest, 'files': plan.files, **_makers()}
    theirs = _read_json(os.path.join(plan.aside, _PLAN))
    if theirs and theirs != ours and not overwrite:
        raise UserError(
            f'--output={plan.output}: {plan.aside} holds unfinished work of another command: {_difference(theirs, ours)}. Give '
            'that command again to go on with it, --overwrite to drop it, or another --output.'
        )
    if theirs == ours:
        placing = _read_json(os.path.join(plan.aside, _PLACING))
        if placing:
            return _finish_placing(plan, placing), None
        done = finished_shards(plan)
        if done:
            _say(f'{plan.aside}: goes on, {done} of {len(plan.shards)} shard(s) are finished.')
    else:
        summary = None if overwrite else _finished(plan)
        _clear(plan.aside)
        if summary:
            _remove(plan.aside)
            return summary, None
        _write_text(os.path.join(plan.aside, _PLAN), json.dumps(ours))
    for name in os.listdir(plan.aside):
        if name.endswith('.part'):
            os.remove(os.path.join(plan.aside, name))
    return None, [i for i in range(len(plan.shards)) if not _is_finished(plan, i)]


def _makers():
    """Dict from a library to its version: another one may write other bytes."""
    return {'PyAV': av.__version__, 'TensorFlow': tf.__version__}


def _difference(theirs, ours):
    """What distinguishes two plans, in words."""
    changes = [
        f'--{key}={theirs["settings"].get(key)} there, {value} here'
        for key, value in ours['settings'].items() if theirs['settings'].get(key) != value
    ]
    if theirs['shards'] != ours['shards']:
        changes.append(f'{theirs["shards"]} shards there, {ours["shards"]} here')
    changes += [f'{key} {theirs[key]} there, {ours[key]} here' for key in _makers() if theirs[key] != ours[key]]
    return ', '.join(changes) or 'the input has changed since (files or lines were added, removed or changed)'


def _finished(plan):
    """The summary of the set that is there, if it is of this plan; nothing where there is none."""
    there = _set_files(plan.output)
    summary_path = records.summary_path(plan.output)
    shards = [name for name in there if name != summary_path]
    if not there:
        return None
    summary = _read_json(summary_path)
    paths = [records.shard_path(plan.output, i, len(plan.shards)) for i in range(len(plan.shards))]
    if not summary or summary.get('plan') != plan.digest:
        raise UserError(
            f'--output={plan.output}: {there[0]} is there already, of another command or another input, and a glob would take '
            'both for one set. Give another name, or --overwrite to write it anew.'
        )
    if sorted(shards) != paths:
        raise UserError(
            f'--output={plan.output}: {summary_path} is there, but its shards are not all there, or others are. --overwrite '
            'writes the set anew.'
        )
    _say(f'{summary_path}: there already, from the same input and options; nothing is done. --overwrite writes it anew.')
    return summary


def _set_files(prefix):
    """Paths of the shards and the summary of all sets of that name, sorted."""
    pattern = re.compile(re.escape(os.path.basename(prefix)) + r'(-\d{5}-of-\d{5}|\.json)')
    folder = os.path.dirname(prefix)
    names = os.listdir(folder or '.') if os.path.isdir(folder or '.') else []
    return sorted(os.path.join(folder, name) for name in names if pattern.fullmatch(name))


def _say(text):
    print(text, file=sys.stderr)


def _read_json(path):
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)
    except (FileNotFoundError, ValueError):
        return None


def _write_text(path, text):
    """Writes a file that is there as a whole or not at all, also after a loss of power."""
    part = f'{path}.{uuid.uuid4().hex}.part'
    with open(part, 'w', encoding='utf-8', errors='surrogateescape', newline='') as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    _sync(os.path.dirname(path))


def _sync(path):
    """Waits until a file's content, or a folder's names, are on the disk."""
    file = os.open(path or '.', os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _is_finished(plan, index):
    return os.path.exists(os.path.join(plan.aside, plan.shard_name(index)) + _LINES)


def finished_shards(plan):
    """Number of shards that are written and wait in the folder of unfinished work."""
    return sum(_is_finished(plan, i) for i in range(len(plan.shards)))


def _write(plan, shards, num_workers):
    order = [index for shard in shards for index in plan.shards[shard]]
    with contextlib.closing(
        workers.run_in_order(media.try_media, list(plan.tasks(order)), num_workers, plan.recipe.timeout_seconds)
    ) as outcomes, tqdm(total=len(plan.sources), initial=len(plan.sources) - len(order), unit='file') as progress:

        def pieces(indices):
            for index in indices:
                yield index, *make_record(plan.recipe, plan.sources[index], next(outcomes))
                progress.update()

        for shard in shards:
            write_shard(plan.aside, plan.shard_name(shard), pieces(plan.shards[shard]))
    return place(plan)


def make_record(recipe, source, outcome):
    """Makes a record of what was decoded.

    Args:
        recipe: a `Recipe`.
        source: a `datasets.Source`.
        outcome: of `workers.run_in_order(media.try_media, ...)`.

    Returns:
        The serialised record, or None where the source is left out; and a dict: 'row' for the report, 'frames', 'samples'.
    """
    result, failure = outcome
    row = [source.data_path, datasets.seconds_text(source.start_seconds) if source.start_seconds else '',
           '' if source.end_seconds is None else datasets.seconds_text(source.end_seconds)]
    if isinstance(result, media.Media):
        size = sum(map(len, result.frames)) + (4 if recipe.audio_encoding == 'float' else 2) * len(result.waveform)
        if size > _MOST_RECORD_BYTES:
            failure = 'too_large', f'its record would have {size} bytes, more than a message can; cut it, or use --short_side'
    else:
        failure = failure or result
    if failure:
        return None, {'row': [*row, 'skipped', *failure, '', '', '', '', ''], 'frames': 0, 'samples': 0}
    video = records.Video(
        example_id=source.example_id,
        frames=result.frames,
        frame_rate=recipe.options.fps,
        height=result.height,
        width=result.width,
        waveform=result.waveform,
        sample_rate=recipe.options.sample_rate,
        data_path=source.data_path,
        start_seconds=result.start_seconds,
        dataset_name=recipe.dataset_name,
        labels=((recipe.labels.index(source.label), source.label),) if source.label else (),
    )
    frames, samples = len(result.frames), len(result.waveform)
    row += ['written', '', result.note, f'{_duration(recipe, frames, samples):.6f}', frames]
    measured = result.source_fps if frames else None, result.volume_db, result.motion
    row += ['' if value is None else f'{value:.3f}' for value in measured]
    return records.encode(video, recipe.audio_encoding), {'row': row, 'frames': frames, 'samples': samples}


def _duration(recipe, frames, samples):
    return samples / recipe.options.sample_rate if recipe.options.audio_only else frames / recipe.options.fps


def write_shard(folder, name, pieces):
    """Writes one shard and the lines that tell of it; it is finished when the lines are there.

    Args:
        folder: of unfinished work.
        name: file name of the shard.
        pieces: iterable of (index of the source, serialised record or None, dict), see `make_record`.
    """
    path = os.path.join(folder, name)
    part = f'{path}.{uuid.uuid4().hex}.part'
    lines, size = [], 0
    with tf.io.TFRecordWriter(part) as writer:
        for index, serialized, line in pieces:
            lines.append({'index': index, **line})
            if serialized is not None:
                writer.write(serialized)
                size += len(serialized) + 16  # with its length and two checksums
        writer.flush()
    _sync(part)
    if os.path.getsize(part) != size:
        raise OSError(errno.EIO, f'{os.path.getsize(part)} bytes were written instead of {size}', part)
    os.replace(part, path)
    _write_text(path + _LINES, json.dumps(lines))


def place(plan):
    """Writes report and summary of a set whose shards are all finished, and puts all into its place.

    Args:
        plan: a `Plan`, whose output is held.

    Returns:
        The summary, see `write_records`.
    """
    lines = [None] * len(plan.sources)
    for index in range(len(plan.shards)):
        for line in _read_json(os.path.join(plan.aside, plan.shard_name(index)) + _LINES):
            lines[line['index']] = line
    summary = _summary(plan, lines)
    texts = {'.report.csv': _report(line['row'] for line in lines)}
    if summary['records']:
        if plan.recipe.labels:
            texts['.labels.txt'] = ''.join(f'{name}\n' for name in plan.recipe.labels)
        texts['.json'] = json.dumps(summary, indent=2) + '\n'
    name = os.path.basename(plan.output)
    for suffix, text in texts.items():
        _write_text(os.path.join(plan.aside, name + suffix), text)
    shards = [plan.shard_name(i) for i in range(len(plan.shards))] if summary['records'] else []
    # From here on the set is whole, and all that is left is to move it. The summary comes last.
    placing = {'names': [*shards, *(name + suffix for suffix in texts)], 'summary': summary}
    _write_text(os.path.join(plan.aside, _PLACING), json.dumps(placing))
    return _finish_placing(plan, placing)


def _finish_placing(plan, placing):
    """Moves the files of a set into their places, as often as it takes: what is there already stays."""
    folder = os.path.dirname(plan.output)
    ours = {os.path.join(folder, name) for name in placing['names']}
    texts = [plan.output + suffix for suffix in ('.json', '.report.csv', '.labels.txt')]
    # An older set goes first and as a whole, so that none is ever a mixture.
    for path in [*texts, *_set_files(plan.output)]:
        if path not in ours or os.path.exists(os.path.join(plan.aside, os.path.basename(path))):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
    for name in placing['names']:
        with contextlib.suppress(FileNotFoundError):
            os.replace(os.path.join(plan.aside, name), os.path.join(folder, name))
    _sync(folder)
    _clear(plan.aside)
    _remove(plan.aside)
    return placing['summary']


def _clear(folder):
    """Empties a folder of unfinished work, but for its lock; first goes what says that the rest counts."""
    for name in [_PLACING, _PLAN, *(name for name in os.listdir(folder) if name not in (_PLAN, _PLACING, files.LOCK))]:
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(folder, name))


def _remove(folder):
    os.remove(os.path.join(folder, files.LOCK))
    with contextlib.suppress(OSError):  # the next writer has come in
        os.rmdir(folder)


def _summary(plan, lines):
    written = [(source, line) for source, line in zip(plan.sources, lines, strict=True) if line['row'][3] == 'written']
    labels = collections.Counter(source.label for source, _ in written)
    reasons = collections.Counter(line['row'][4] for line in lines if line['row'][3] == 'skipped')
    frames, samples = (sum(line[key] for _, line in written) for key in ('frames', 'samples'))
    return {
        **plan.settings, 'records': len(written), 'shards': len(plan.shards), 'frames': frames, 'samples': samples,
        'duration_seconds': _duration(plan.recipe, frames, samples),
        'labels': {name: labels[name] for name in plan.recipe.labels},
        'skipped': {reason: reasons[reason] for reason in media.REASONS if reason in reasons},
        'plan': plan.digest,
    }


def _report(rows):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(REPORT_COLUMNS)
    writer.writerows([files.csv_cell(value) for value in row] for row in rows)
    return text.getvalue()


def define_flags():
    """Defines the flags that say what is written; not at import, so that other programs' flags are left alone."""
    flags.DEFINE_string('input', None, 'folder, glob in quotes, CSV with a column video_path, audio_path or path, or one file')
    flags.DEFINE_string('output', None, 'folder and beginning of the name of what is written, such as data/train')
    flags.DEFINE_enum('dataset', '', list(datasets.DATASETS), 'layout of a published collection; empty for your own files')
    flags.DEFINE_string('split', '', 'published part of the collection, such as train, test1 or fold3; several with commas')
    flags.DEFINE_float('hold_out', 0.0, 'about this part of the videos is held out, 0 to 1; needs --part')
    flags.DEFINE_enum('part', '', ['', *datasets.SIDES], 'side of --hold_out to write')
    flags.DEFINE_float('fps', 25.0, 'frames per second')
    flags.DEFINE_integer('short_side', 128, 'shorter side of a frame, in pixels; 0 keeps the size, and nothing is enlarged')
    flags.DEFINE_integer('sample_rate', 16000, 'audio sample rate, in Hz')
    flags.DEFINE_integer('shards', 0, f'number of files; 0 makes one for about every {RECORDS_PER_SHARD} sources')
    flags.DEFINE_float('max_seconds', _DEFAULTS.max_seconds, 'what lasts longer is left out, in seconds; 0 is no limit')
    flags.DEFINE_integer('max_pixels', _DEFAULTS.max_pixels, 'what has more pixels in a frame is left out')
    flags.DEFINE_integer('jpeg_quality', 90, 'quality of the frames, 1 to 100')
    flags.DEFINE_string('audio_encoding', 'pcm16', 'pcm16, or float for readers of DMVR records')
    flags.DEFINE_float('file_timeout_seconds', 120.0, 'longest time for decoding one file, in seconds')
    flags.DEFINE_string('dataset_name', '', "name written into each record; empty takes the dataset's or the input's")
    flags.DEFINE_string('label_column', '', 'column of the CSV that holds the label; empty takes the first without another meaning')
    flags.DEFINE_bool('sound_only', False, 'write records without pictures; collections of sounds imply it')
    flags.DEFINE_bool('keep_silent', False, 'keep what has no sound to hear')
    flags.DEFINE_bool('keep_still', False, 'keep what has no motion to see')
    flags.DEFINE_float('silent_below_db', _DEFAULTS.silent_below_db, 'mean volume below which a source is silent, in dBFS')
    flags.DEFINE_float('still_below', _DEFAULTS.still_below, 'mean motion below which a source is still, in grey levels of 255')
    flags.DEFINE_bool('overwrite', False, 'make a set anew that is there already, and drop unfinished work of another command')
    flags.mark_flags_as_required(['input', 'output'])


def run_command(write):
    """Runs a writer with the values of `define_flags`, prints what came of it and ends the program.

    Args:
        write: function of input, output and the options of `write_records`, to its result.
    """
    names = (
        'overwrite', 'dataset', 'split', 'hold_out', 'part', 'fps', 'short_side', 'sample_rate', 'shards', 'max_seconds',
        'max_pixels', 'jpeg_quality', 'audio_encoding', 'file_timeout_seconds', 'dataset_name', 'label_column', 'sound_only',
        'keep_silent', 'keep_still', 'silent_below_db', 'still_below',
    )
    values = flags.FLAGS
    try:
        with stop_on_signals(f'The same command resumes the work: finished shards stay in {values.output}.writing.'):
            summary = write(values.input, values.output, **{name: values[name].value for name in names})
    except UserError as error:
        print(error.on_command_line(), file=sys.stderr)
        sys.exit(2)
    skipped = ', '.join(f'{count} {reason}' for reason, count in summary['skipped'].items())
    print(f'{summary["records"]} written, {sum(summary["skipped"].values())} skipped{f" ({skipped})" if skipped else ""}')
    if not summary['records']:
        print(f'no record could be made of {values.input}; {values.output}.report.csv says why.', file=sys.stderr)
        sys.exit(1)
    print(
        f'{summary["duration_seconds"]:.1f} s in {summary["shards"]} shard(s) {values.output}-*; '
        f'every file: {values.output}.report.csv'
    )


def main(argv):
    """Runs the command line; see `python -m tfrecords_tools.write --help`."""
    if len(argv) > 1:
        raise app.UsageError(f'unexpected argument {argv[1]!r}; every value has a flag.')
    run_command(lambda *args, **options: write_records(*args, num_workers=flags.FLAGS.workers, **options))


if __name__ == '__main__':
    define_flags()
    flags.DEFINE_integer('workers', 0, 'decoding processes; 0 takes one per processor')
    program.run(main)
