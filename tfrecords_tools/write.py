"""Writes videos as records: a folder of video files, or a CSV that names them, becomes shards that training reads.

    python -m tfrecords_tools.write --input=videos/ --output=data/train

A folder is searched with all its subfolders; where the videos lie in subfolders, the name of the one directly below the input
is the label. A CSV has a column `video_path` (relative to the CSV's folder) and, if wanted, columns with labels, of which
`--label_column` names the one to write.

Every record is aligned as it is written, by presentation times: frame i shows time i / fps, sample n sounds at
n / sample_rate, from the same time 0, and both cover the same duration. The rule in full stands at the head of `avts_tf/media.py`.

Beside the shards `NAME-00000-of-00004` there are then

    NAME.json          counts, frame rate, sample rate, durations
    NAME.report.csv    every input file with what became of it: path, status, reason, detail, seconds, frames
    NAME.labels.txt    the class names, one a line, by index from 0 (where there are labels)

Files that cannot be used are left out and reported; a file that kills or hangs the decoder costs itself only. The same input
gives the same bytes, whatever the number of workers.
"""

import collections
import contextlib
import csv
import io
import json
import math
import os
import random
import re
import sys
from typing import NamedTuple

import tensorflow as tf
from absl import app, flags
from tqdm import tqdm

from avts_tf import media, records, workers
from avts_tf.config import UserError

VIDEO_SUFFIXES = frozenset((
    '.3g2', '.3gp', '.asf', '.avi', '.dv', '.f4v', '.flv', '.m2ts', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.mts',
    '.mxf', '.ogv', '.rm', '.rmvb', '.ts', '.vob', '.webm', '.wmv',
))
RECORDS_PER_SHARD = 256
_PATH_COLUMN = 'video_path'


class Source(NamedTuple):
    """One input file.

    Attributes:
        example_id: unique name, the path below the input without its suffix, with '/'.
        path: where to read it.
        data_path: the path below the input, with '/'.
        label: name of its class, or ''.
    """

    example_id: str
    path: str
    data_path: str
    label: str


def find_sources(input_path, label_column=''):
    """Finds the video files of a folder or a CSV.

    Args:
        input_path: folder, or CSV file with a column `video_path`.
        label_column: column of the CSV that holds the label; '' takes the first column besides the path, if there is one.

    Returns:
        List of `Source`, sorted by path. Files that a CSV names need not exist.

    Raises:
        UserError: the input or the column is missing, or no video is in it.
    """
    if os.path.isdir(input_path):
        if label_column:
            raise UserError(f'--label_column={label_column}: only for a CSV; in a folder the subfolders are the labels.')
        root = input_path
        labels = {path: _subfolder(path, root) for path in _video_files(root)}
        if not labels:
            raise UserError(
                f'--input={input_path}: no video file in this folder or below it. Looked for '
                f'{" ".join(sorted(VIDEO_SUFFIXES))}; a CSV may name files of any suffix.'
            )
    elif os.path.isfile(input_path):
        labels = _read_csv(input_path, label_column)
        root = os.path.dirname(os.path.abspath(input_path))
        if any(os.path.relpath(path, root).startswith(os.pardir) for path in labels):
            root = os.path.commonpath([os.path.dirname(path) for path in labels])
    else:
        raise UserError(f'--input={input_path}: there is no such file or folder.')

    # File names are bytes; records and reports hold text.
    names = {path: os.fsencode(os.path.relpath(path, root)).decode('utf-8', 'replace').replace(os.sep, '/') for path in labels}
    stems = {path: os.path.splitext(name)[0] for path, name in names.items()}
    counts = collections.Counter(stems.values())
    ids = {path: stems[path] if counts[stems[path]] == 1 else names[path] for path in names}
    if len(set(ids.values())) < len(ids):
        ids = names
    paths = sorted(labels, key=lambda path: (names[path], path))
    return [Source(ids[path], path, names[path], labels[path]) for path in paths]


def _video_files(root):
    seen = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        if os.path.realpath(folder) in seen:  # a link back up
            subfolders.clear()
            continue
        seen.add(os.path.realpath(folder))
        for file in files:
            # Names with a leading dot are other systems' notes about the file of that name.
            if os.path.splitext(file)[1].lower() in VIDEO_SUFFIXES and not file.startswith('.'):
                yield os.path.join(folder, file)


def _subfolder(path, root):
    parts = os.path.relpath(path, root).split(os.sep)
    return os.fsencode(parts[0]).decode('utf-8', 'replace') if len(parts) > 1 else ''


def _read_csv(csv_path, label_column):
    """Absolute path → label, of each line of a CSV."""
    root = os.path.dirname(os.path.abspath(csv_path))
    labels = {}
    try:
        with open(csv_path, encoding='utf-8-sig', newline='') as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if _PATH_COLUMN not in columns:
                raise UserError(
                    f'{csv_path}: no column {_PATH_COLUMN!r} in the first line, which has {", ".join(columns) or "none"}.'
                )
            others = [column for column in columns if column != _PATH_COLUMN]
            if label_column and label_column not in others:
                raise UserError(
                    f'--label_column={label_column}: {csv_path} has no such label column; '
                    f'it has {", ".join(others) or "none"}.'
                )
            label_column = label_column or (others[0] if others else '')
            for row in reader:
                value = (row[_PATH_COLUMN] or '').strip()
                if not value:
                    raise UserError(f'{csv_path}, line {reader.line_num}: {_PATH_COLUMN} is empty.')
                path = os.path.normpath(os.path.join(root, value))
                if path in labels:
                    raise UserError(
                        f'{csv_path}, line {reader.line_num}: {value} stands in an earlier line already; keep one.'
                    )
                labels[path] = (row.get(label_column) or '').strip() if label_column else ''
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'{csv_path}: not a CSV in UTF-8: {error}. --input takes a folder or a CSV.') from error
    except OSError as error:
        raise UserError(f'{csv_path}: cannot be read: {error.strerror}.') from error
    if not labels:
        raise UserError(f'{csv_path}: no video in it, only the first line.')
    return labels


def write_records(
    input_path, output_prefix, *, fps=25.0, short_side=128, sample_rate=16000, shards=0, num_workers=0, max_seconds=0.0,
    jpeg_quality=90, audio_encoding='pcm16', file_timeout_seconds=120.0, dataset_name='', label_column='',
):
    """Writes the videos of a folder or a CSV as records; see the head of this file for what is written.

    Files take their names when all are whole; where no record could be made, only the report is written.

    Args:
        input_path: folder or CSV, see `find_sources`.
        output_prefix: folder and beginning of the shards' names, such as 'data/train'; the folder is made where missing.
        fps: frames per second of the records.
        short_side: pixels of the shorter side of a frame; 0 keeps the size, and nothing is enlarged.
        sample_rate: Hz.
        shards: number of files; 0 makes one for about every 256 videos.
        num_workers: decoding processes; 0 takes one per processor.
        max_seconds: longest duration of a record; 0 is no limit.
        jpeg_quality: 1 to 100.
        audio_encoding: 'pcm16', or 'float' for readers of DMVR records.
        file_timeout_seconds: longest time for decoding one file.
        dataset_name: written into each record; '' takes the name of the input.
        label_column: see `find_sources`.

    Returns:
        dict, what `NAME.json` holds: 'records', 'skipped' (reason → count), 'duration_seconds' and so on.

    Raises:
        UserError: a value is not allowed, there is no input, or the output cannot be written.
    """
    limits = {
        'fps': (fps, 0.1, 1000), 'sample_rate': (sample_rate, 1000, 192_000), 'max_seconds': (max_seconds, 0, math.inf),
        'jpeg_quality': (jpeg_quality, 1, 100), 'shards': (shards, 0, 99_999), 'workers': (num_workers, 0, 1024),
        'file_timeout_seconds': (file_timeout_seconds, 0.1, 86_400),
        # Below 8 pixels nothing is left to see; 0 has a meaning of its own.
        'short_side': (short_side, 8 if short_side else 0, 8192),
    }
    for name, (value, least, most) in limits.items():
        if not least <= value <= most:
            zero = ', or be 0 to keep the size' if name == 'short_side' else ''
            raise UserError(f'--{name}={value}: must lie between {least} and {most}{zero}.')
    if audio_encoding not in ('pcm16', 'float'):
        raise UserError(f'--audio_encoding={audio_encoding}: must be pcm16 or float.')
    if not output_prefix or output_prefix.endswith('/') or tf.io.gfile.isdir(output_prefix):
        raise UserError(f'--output={output_prefix}: give a folder and the beginning of a name, such as "data/train".')

    sources = find_sources(input_path, label_column)
    shards = shards or math.ceil(len(sources) / RECORDS_PER_SHARD)
    if shards > len(sources):
        raise UserError(f'--shards={shards}: more than the {len(sources)} video(s) of {input_path}.')
    settings = {
        'dataset_name': dataset_name or os.path.splitext(os.path.basename(os.path.abspath(input_path)))[0],
        'fps': float(fps), 'short_side': short_side, 'sample_rate': sample_rate, 'max_seconds': float(max_seconds),
        'jpeg_quality': jpeg_quality, 'audio_encoding': audio_encoding,
    }
    try:
        return _write(sources, output_prefix, shards, num_workers or os.cpu_count(), file_timeout_seconds, settings)
    except tf.errors.OpError as error:
        raise UserError(f'--output={output_prefix}: cannot be written: {error.message}') from error


def _write(sources, output_prefix, shards, num_workers, file_timeout_seconds, settings):
    paths = [records.shard_path(output_prefix, i, shards) for i in range(shards)]
    _refuse_strays(output_prefix, paths)
    # Neighbours are often of one class or one scene; a reader's shuffle is better off when shards are mixed. The order is
    # that of the shards, one after the other, so that one is open at a time.
    mixed = random.Random(0).sample(sources, len(sources))
    order = [source for shard in range(shards) for source in mixed[shard::shards]]
    label_names = sorted({source.label for source in sources} - {''})
    options = media.MediaOptions(
        settings['fps'], settings['short_side'], settings['sample_rate'], settings['max_seconds'], settings['jpeg_quality']
    )
    tasks = [(source.path, options) for source in order]

    # Aside means in a folder, because a glob for the shards must not find halves.
    aside = output_prefix + '.writing'
    tf.io.gfile.makedirs(aside)
    lines, label_counts, sample_count = {}, collections.Counter(), 0
    try:
        with contextlib.closing(
            workers.run_in_order(media.try_media, tasks, num_workers, file_timeout_seconds)
        ) as outcomes, tqdm(total=len(sources), unit='video') as progress:
            todo = iter(order)
            for shard, path in enumerate(paths):
                with tf.io.TFRecordWriter(os.path.join(aside, os.path.basename(path))) as writer:
                    for _ in mixed[shard::shards]:
                        source, (result, failure) = next(todo), next(outcomes)
                        progress.update()
                        if not isinstance(result, media.Media):
                            lines[source] = (source.data_path, 'skipped', *(failure or result), '', '')
                            continue
                        writer.write(records.encode(_video(source, result, settings, label_names), settings['audio_encoding']))
                        seconds = len(result.frames) / settings['fps']
                        lines[source] = (source.data_path, 'written', '', '', f'{seconds:.6f}', len(result.frames))
                        label_counts[source.label] += 1
                        sample_count += len(result.waveform)

        frame_count = sum(line[-1] for line in lines.values() if line[1] == 'written')
        reasons = collections.Counter(line[2] for line in lines.values() if line[1] == 'skipped')
        summary = {
            'dataset_name': settings.pop('dataset_name'),
            'records': sum(label_counts.values()), 'shards': shards, **settings,
            'frames': frame_count, 'samples': sample_count, 'duration_seconds': frame_count / settings['fps'],
            'labels': {name: label_counts[name] for name in label_names},
            'skipped': {reason: reasons[reason] for reason in media.REASONS if reason in reasons},
        }
        texts = {f'{output_prefix}.report.csv': _report(lines[source] for source in sources)}
        if summary['records']:
            texts[records.summary_path(output_prefix)] = json.dumps(summary, indent=2) + '\n'
            if label_names:
                texts[f'{output_prefix}.labels.txt'] = ''.join(f'{name}\n' for name in label_names)
        for path, text in texts.items():
            with tf.io.gfile.GFile(os.path.join(aside, os.path.basename(path)), 'w') as file:
                file.write(text)
        for path in [*(paths if summary['records'] else ()), *texts]:
            tf.io.gfile.rename(os.path.join(aside, os.path.basename(path)), path, overwrite=True)
    finally:
        tf.io.gfile.rmtree(aside)
    return summary


def _refuse_strays(output_prefix, paths):
    folder, name = os.path.split(output_prefix)
    if not tf.io.gfile.isdir(folder or '.'):
        return
    pattern = re.compile(re.escape(name) + r'-\d{5}-of-\d{5}')
    ours = {os.path.basename(path) for path in paths}
    strays = sorted(file for file in tf.io.gfile.listdir(folder or '.') if pattern.fullmatch(file) and file not in ours)
    if strays:
        raise UserError(
            f'--output={output_prefix}: {strays[0]} is there from a set of another number of shards, and a glob would take '
            'both for one; remove it or give another name.'
        )


def _video(source, result, settings, label_names):
    return records.Video(
        example_id=source.example_id,
        frames=result.frames,
        frame_rate=settings['fps'],
        height=result.height,
        width=result.width,
        waveform=result.waveform,
        sample_rate=settings['sample_rate'],
        data_path=source.data_path,
        start_seconds=result.start_seconds,
        dataset_name=settings['dataset_name'],
        labels=((label_names.index(source.label), source.label),) if source.label else (),
    )


def _report(lines):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(('path', 'status', 'reason', 'detail', 'seconds', 'frames'))
    writer.writerows(lines)
    return text.getvalue()


def _define_flags():
    # Here and not at import, so that importing this file leaves other programs' flags alone.
    flags.DEFINE_string('input', None, 'folder with videos, or CSV with a column video_path')
    flags.DEFINE_string('output', None, 'folder and beginning of the name of what is written, such as data/train')
    flags.DEFINE_float('fps', 25.0, 'frames per second')
    flags.DEFINE_integer('short_side', 128, 'shorter side of a frame, in pixels; 0 keeps the size, and nothing is enlarged')
    flags.DEFINE_integer('sample_rate', 16000, 'audio sample rate, in Hz')
    flags.DEFINE_integer('shards', 0, f'number of files; 0 makes one for about every {RECORDS_PER_SHARD} videos')
    flags.DEFINE_integer('workers', 0, 'decoding processes; 0 takes one per processor')
    flags.DEFINE_float('max_seconds', 0.0, 'longest duration of a record, in seconds; 0 is no limit')
    flags.DEFINE_integer('jpeg_quality', 90, 'quality of the frames, 1 to 100')
    flags.DEFINE_string('audio_encoding', 'pcm16', 'pcm16, or float for readers of DMVR records')
    flags.DEFINE_float('file_timeout_seconds', 120.0, 'longest time for decoding one file, in seconds')
    flags.DEFINE_string('dataset_name', '', "name written into each record; empty takes the input's name")
    flags.DEFINE_string('label_column', '', 'column of the CSV that holds the label; empty takes the first besides video_path')
    flags.mark_flags_as_required(['input', 'output'])


def main(argv):
    """Runs the command line; see `python -m tfrecords_tools.write --help`."""
    if len(argv) > 1:
        raise app.UsageError(f'unexpected argument {argv[1]!r}; every value has a flag.')
    values = flags.FLAGS
    try:
        summary = write_records(
            values.input, values.output, fps=values.fps, short_side=values.short_side, sample_rate=values.sample_rate,
            shards=values.shards, num_workers=values.workers, max_seconds=values.max_seconds, jpeg_quality=values.jpeg_quality,
            audio_encoding=values.audio_encoding, file_timeout_seconds=values.file_timeout_seconds,
            dataset_name=values.dataset_name, label_column=values.label_column,
        )
    except UserError as error:
        print(error, file=sys.stderr)
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


if __name__ == '__main__':
    _define_flags()
    app.run(main)
