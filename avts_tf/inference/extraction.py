"""Embeds files: sounds and videos to .npz files or records, by --mode=features and by the client of a server.

Files are decoded by other processes, because decoders are native code and some files kill them, while the tower runs here. A
file that cannot be used is reported and left out. Imports no TensorFlow, so that decoding processes start fast.
"""

import collections
import contextlib
import csv
import hashlib
import itertools
import json
import math
import os
import queue
import threading
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from avts_tf import files, progress
from avts_tf.data import datasets, media, workers
from avts_tf.data.images import centred_square
from avts_tf.errors import UserError
from avts_tf.inference.features import (
    BATCH_SIZE,
    AudioTower,
    VideoTower,
    check_windows,
    embed_streams,
)

FORMATS = ('npz', 'tfrecord')
TIMEOUT_SECONDS = 120.0
FILES_PER_SHARD = 1000
REPORT_COLUMNS = ('path', 'tower', 'status', 'reason', 'detail', 'seconds', 'windows', 'output')


def read_blocks(task):
    """Decodes the piece of a file that a tower needs; for a worker of `workers.stream_in_order`.

    Args:
        task: (name of the tower, `datasets.Source`, samples or frames per second, shorter side of a frame in pixels).

    Yields:
        Blocks, int16 [samples] or uint8 [frames, height, width, 3], or last (reason, detail) of a `media.Unsuitable`.
    """
    name, source, rate, short_side = task
    first = round(source.start_seconds * rate)
    last = math.inf if source.end_seconds is None else round(source.end_seconds * rate)
    place = 0
    try:
        if name == AudioTower.name:
            blocks = media.audio_blocks(source.path, rate)
        else:
            blocks = (centred_square(np.array(block)) for block in media.video_blocks(source.path, rate, short_side))
        for block in blocks:
            low, high = max(first - place, 0), min(last - place, len(block))
            place += len(block)
            if low < high:
                yield block[low:high]
            if place >= last:
                return
    except media.Unsuitable as error:
        yield error.reason, error.detail


def read_ahead(items, depth):
    """Passes on what an iterable yields while a thread takes up to `depth` items in advance."""
    line, stop = queue.Queue(depth), threading.Event()

    def put(item):
        while not stop.is_set():
            try:
                return line.put(item, timeout=0.1)
            except queue.Full:
                continue

    def fill():
        try:
            for item in items:
                put((item, None))
                if stop.is_set():
                    return
            put((None, StopIteration()))
        except Exception as error:  # raised where the items are taken
            put((None, error))
        finally:
            items.close()

    threading.Thread(target=fill, daemon=True).start()
    try:
        while True:
            item, error = line.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        stop.set()


class _Job(NamedTuple):
    source: datasets.Source
    output: str  # path below the output folder


def find_inputs(inputs):
    """The sources that several files, folders, globs or CSVs name.

    Returns:
        List of `datasets.Source`.

    Raises:
        UserError: there is none, or two of different inputs would go by the same name.
    """
    sources = list(dict.fromkeys(source for path in inputs for source in datasets.find_media(path)))
    names = set()
    for source in sources:
        if source.example_id in names:
            raise UserError(f'--input: {source.example_id} is in two of the inputs; give the folder that holds both, or one input '
                            'and one --output at a time.')
        names.add(source.example_id)
    if not sources:
        raise UserError('--input: give files, folders, a glob or a CSV of sound or video.')
    return sources


def is_video(source):
    """Whether a source has the suffix of a video."""
    return os.path.splitext(source.path)[1].lower() in datasets.VIDEO_SUFFIXES


def extract_features(sources, output_dir, towers, *, hop_seconds=None, centered=False, batch_size=BATCH_SIZE,
                     output_format='npz', overwrite=False, skip_existing=False, num_workers=0, timeout_seconds=TIMEOUT_SECONDS):
    """Embeds files and writes what comes out; a file that cannot be used is reported and left out.

    Written below `output_dir`, each aside and then renamed:

        ID.npz          the fields of `AudioFeatures` or `VideoFeatures`; ID is the file's path below the input, without its
                        suffix, and with it where two files differ by nothing else
        report.csv      every file with what became of it
        features.json   which tower and which windows they are of

    With two towers the names are ID.audio.npz and ID.video.npz. With `output_format='tfrecord'` the files of each tower make one
    set `audio_tower-00000-of-00001` instead, one `tf.train.Example` per file; see `encode`.

    Args:
        sources: list of `datasets.Source`.
        output_dir: folder.
        towers: list of an `AudioTower`, a `VideoTower`, or one of each. Of two, the video tower takes only files with the suffix
            of a video.
        hop_seconds, centered, batch_size: see `AudioTower.embed`.
        output_format: 'npz' or 'tfrecord'.
        overwrite: writes anew what is there already.
        skip_existing: leaves what is there already. Without either, nothing is begun where something is there.
        num_workers: decoding processes; 0 takes one per two processors, the rest is for the tower.
        timeout_seconds: longest wait for the next block of a file.

    Returns:
        dict: 'written' and 'existing' files, 'skipped' (reason → files), 'seconds' of input that was embedded.

    Raises:
        UserError: a value is not allowed, output is in the way, or it cannot be written.
    """
    if output_format not in FORMATS:
        raise UserError(f'--output_format={output_format}: must be one of {", ".join(FORMATS)}.')
    if overwrite and skip_existing:
        raise UserError('--overwrite --skip_existing: take one of them.')
    if len({tower.name for tower in towers}) < len(towers):
        raise UserError('--tower: give one audio tower, one video tower, or one of each.')
    for tower in towers:
        check_windows(tower, hop_seconds, batch_size)
    jobs = {tower: _jobs(tower, sources, len(towers) > 1, output_format) for tower in towers}
    settings = {tower.name: _settings(tower, hop_seconds, centered, jobs[tower], output_format) for tower in towers}
    try:
        with files.locked(output_dir, 'output'):
            _check_output(output_dir, jobs, settings, overwrite, skip_existing)
            with _aside(os.path.join(output_dir, 'features.json')) as path, open(path, 'w') as file:
                file.write(json.dumps(settings, indent=2) + '\n')
            report = {}
            try:
                for tower in towers:
                    todo = []
                    for job in jobs[tower]:
                        report[tower, job] = {'path': job.source.data_path, 'tower': tower.name}
                        why = _why_not(output_dir, job)
                        if why:
                            report[tower, job].update(status='skipped', reason=why[0], detail=why[1])
                        elif skip_existing and os.path.exists(os.path.join(output_dir, job.output)):
                            report[tower, job].update(status='existing', output=job.output)
                        else:
                            todo.append(job)
                    if not todo:
                        continue
                    for job, line in _extract(
                            tower, todo, output_dir, output_format, hop_seconds, centered, batch_size, num_workers,
                            timeout_seconds):
                        report[tower, job].update(line)
            finally:
                with _aside(os.path.join(output_dir, 'report.csv')) as path, open(path, 'w', newline='', encoding='utf-8') as file:
                    writer = csv.DictWriter(file, REPORT_COLUMNS, lineterminator='\n')
                    writer.writeheader()
                    writer.writerows({name: files.csv_cell(value) for name, value in line.items()}
                                     for line in report.values() if 'status' in line)
    except OSError as error:
        raise UserError(f'--output={output_dir}: cannot be written: {error.filename or ""} {error.strerror or error}.') from error
    statuses = collections.Counter(line['status'] for line in report.values())
    reasons = collections.Counter(line['reason'] for line in report.values() if line['status'] == 'skipped')
    return {'written': statuses['written'], 'existing': statuses['existing'], 'skipped': dict(sorted(reasons.items())),
            'seconds': sum(line.get('seconds', 0.0) for line in report.values())}


def _why_not(output_dir, job):
    """(reason, detail) for which a file is not even tried, or None."""
    missing = files.file_problem(job.source.path)
    if missing:
        return 'missing', missing
    length = max(len(os.fsencode(name)) for name in job.output.split('/'))
    most = os.pathconf(output_dir, 'PC_NAME_MAX')
    whole = len(os.fsencode(os.path.abspath(os.path.join(output_dir, job.output))))
    if length > most or whole >= os.pathconf(output_dir, 'PC_PATH_MAX'):
        return 'name_too_long', f'{job.output} would be the name of its features, too long for the file system of {output_dir}'
    return None


def describe(summary, output_dir, towers):
    """What `extract_features` did, in a line of text."""
    skipped = ', '.join(f'{count} {reason}' for reason, count in summary['skipped'].items())
    return (f'{summary["written"]} written, {summary["existing"]} there already, {sum(summary["skipped"].values())} skipped'
            f'{f" ({skipped})" if skipped else ""}; '
            f'{progress.duration(summary["seconds"])} of input embedded by '
            f'{" and ".join(tower.path for tower in towers)}. Every file: {os.path.join(output_dir, "report.csv")}')


def _jobs(tower, sources, several, output_format):
    if several and tower.name == VideoTower.name:
        sources = [source for source in sources if is_video(source)]
    if output_format == 'npz':
        suffix = f'.{tower.name.removesuffix("_tower")}.npz' if several else '.npz'
        return [_Job(source, source.example_id + suffix) for source in sources]
    from avts_tf.data.shards import shard_path  # imports TensorFlow
    shards = -(-len(sources) // FILES_PER_SHARD)
    return [_Job(source, shard_path(tower.name, i // FILES_PER_SHARD, shards)) for i, source in enumerate(sources)]


def _settings(tower, hop_seconds, centered, jobs, output_format):
    settings = {
        'tower': tower.path, 'checksum': tower.metadata['checksum'], 'rate': tower.rate,
        'window_seconds': tower.window / tower.rate,
        'hop_seconds': tower.window / tower.rate if hop_seconds is None else hop_seconds, 'centered': centered,
    }
    if output_format == 'tfrecord':  # what a shard holds follows from the whole list
        names = '\n'.join(job.source.example_id for job in jobs)
        settings['files'] = hashlib.sha256(names.encode('utf-8', 'surrogateescape')).hexdigest()
    return settings


def _check_output(output_dir, jobs, settings, overwrite, skip_existing):
    if overwrite:
        return
    path = os.path.join(output_dir, 'features.json')
    if os.path.exists(path):
        with open(path) as file:
            text = file.read()
        if text != json.dumps(settings, indent=2) + '\n':
            raise UserError(f'--output={output_dir}: holds features of another tower, other windows or other files, as its '
                            'features.json says; give another folder, or --overwrite.')
    existing = [job.output for tower_jobs in jobs.values() for job in tower_jobs
                if os.path.exists(os.path.join(output_dir, job.output))]
    if existing and not skip_existing:
        raise UserError(f'--output={output_dir}: {existing[0]} is there already, {len(existing)} such in all; --skip_existing goes '
                        'on with the others, --overwrite writes them anew.')


def embed_sources(tower, sources, hop_seconds=None, centered=False, batch_size=BATCH_SIZE, num_workers=0,
                  timeout_seconds=TIMEOUT_SECONDS):
    """Embeds files, decoded by other processes while the tower runs, and shows the progress.

    Args:
        tower, hop_seconds, centered, batch_size: see `embed_streams`.
        sources: list of `datasets.Source`.
        num_workers, timeout_seconds: see `extract_features`.

    Yields:
        (seconds of input, features or `media.Unsuitable`), in the order of the sources.
    """
    num_workers = num_workers or max(1, os.cpu_count() // 2)
    counts = collections.Counter()  # samples or frames of each source
    tasks = [(tower.name, source, tower.rate, tower.metadata['clip']['frame_size']) for source in sources]
    stream = read_ahead(workers.stream_in_order(read_blocks, tasks, num_workers, timeout_seconds), 2 * num_workers)

    def items():
        for number, part, failure in stream:
            if part is None:
                part = media.Unsuitable(*failure) if failure else ()
            elif isinstance(part, tuple):
                part = media.Unsuitable(*part)
            else:
                counts[number] += len(part)
                shown.set_postfix_str(progress.duration(counts.total() / tower.rate), refresh=False)
            yield number, part

    with contextlib.closing(stream), tqdm(total=len(sources), desc=tower.name, unit='file', smoothing=0.05) as shown:
        for number, result in embed_streams(tower, items(), hop_seconds, centered, batch_size):
            shown.update()
            yield counts[number] / tower.rate, result


def _extract(tower, jobs, output_dir, output_format, *options):
    """Embeds and writes files with one tower.

    Yields:
        (job, dict of columns of the report), in the order of the jobs.
    """
    writer = {'npz': _npz_writer, 'tfrecord': _record_writer}[output_format]
    results = embed_sources(tower, [job.source for job in jobs], *options)
    for output, group in itertools.groupby(jobs, key=lambda job: job.output):
        lines = []
        with _aside(os.path.join(output_dir, output)) as path, writer(path) as write:
            for job in group:
                seconds, result = next(results)
                if isinstance(result, media.Unsuitable):
                    lines.append((job, {'status': 'skipped', 'reason': result.reason, 'detail': result.detail}))
                    continue
                write(job.source, result)
                lines.append((job, {'status': 'written', 'seconds': round(seconds, 6), 'windows': len(result.timestamps),
                                    'output': output}))
        yield from lines  # not before they are in place


@contextlib.contextmanager
def _aside(path):
    """A path to write to, which takes the place of `path` once all went well; if nothing is written there, nothing is there."""
    # Of a fixed length: a name may be as long as the file system takes.
    aside = os.path.join(os.path.dirname(path), f'.{hashlib.sha256(os.fsencode(os.path.basename(path))).hexdigest()[:16]}.writing')
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        yield aside
        if os.path.exists(aside):
            os.replace(aside, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(aside)


@contextlib.contextmanager
def _npz_writer(path):
    def write(_, features):
        with open(path, 'wb') as file:
            np.savez(file, **features._asdict())

    yield write


@contextlib.contextmanager
def _record_writer(path):
    import tensorflow as tf
    with contextlib.ExitStack() as stack:
        writers = []

        def write(source, features):
            if not writers:  # no file without a record in it
                writers.append(stack.enter_context(tf.io.TFRecordWriter(path)))
            writers[0].write(encode(source, features))

        try:
            yield write
            stack.close()
        except tf.errors.OpError as error:
            raise OSError(error.message) from error


def encode(source, features):
    """A serialised `tf.train.Example`.

        example/id, clip/data_path    bytes: unique name, path below the input
        clip/label/string             bytes, where the input tells a class
        embedding, conv5 or features  float [T * size], window after window
        timestamps                    float [T], seconds
    """
    import tensorflow as tf
    texts = {'example/id': source.example_id, 'clip/data_path': source.data_path, 'clip/label/string': source.label}
    example = tf.train.Example()
    for name, text in texts.items():
        if text:
            example.features.feature[name].bytes_list.value.append(text.encode())
    for name, values in features._asdict().items():
        example.features.feature[name].float_list.value.extend(values.ravel().tolist())
    return example.SerializeToString(deterministic=True)
