"""Embeds files and writes their features, as .npz files or records, with a report of every file.

Imports no TensorFlow unless records are written.
"""

import collections
import contextlib
import csv
import hashlib
import itertools
import json
import os
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from avts_tf import files, progress
from avts_tf.data import datasets, media
from avts_tf.data.shards import shard_path
from avts_tf.errors import UserError
from avts_tf.inference.embed import BATCH_SIZE, check_windows
from avts_tf.inference.embed_files import TIMEOUT_SECONDS, embed_sources, is_video
from avts_tf.inference.saved_towers import AudioFeatures, Tower, VideoFeatures, VideoTower

FORMATS = ('npz', 'tfrecord')
FILES_PER_SHARD = 1000
_DIGEST_BYTES = 2**16
REPORT_COLUMNS = ('path', 'tower', 'status', 'reason', 'detail', 'seconds', 'windows', 'output')


class _Job(NamedTuple):
    source: datasets.Source
    output: str  # path below the output folder


def extract_features(
    sources: list[datasets.Source], output_dir: str, towers: Sequence[Tower], *,
    hop_seconds: float | None = None, centered: bool = False, batch_size: int = BATCH_SIZE,
    output_format: str = 'npz', overwrite: bool = False, skip_existing: bool = False,
    num_workers: int = 0, timeout_seconds: float = TIMEOUT_SECONDS,
) -> dict[str, Any]:
    """Embeds files and writes their features; a file that cannot be used is left out.

    Written below `output_dir`, each file whole or not at all:

        ID.npz          the fields of `AudioFeatures` or `VideoFeatures`, and `source`, a digest of
                        the file; ID is its path below the input, without its suffix, and with it
                        where two files differ by nothing else
        report.csv      every file with what became of it
        features.json   which tower and which windows they are of

    With two towers the names are ID.audio.npz and ID.video.npz. With `output_format='tfrecord'`
    the files of each tower make one set `audio_tower-00000-of-00001` instead, one
    `tf.train.Example` per file; see `encode`.

    Args:
        sources: what to embed, such as `embed_files.find_inputs` finds.
        output_dir: folder.
        towers: an `AudioTower`, a `VideoTower`, or one of each. Of two, the video tower takes only
            files with the suffix of a video.
        hop_seconds, centered, batch_size: see `AudioTower.embed`.
        output_format: 'npz' or 'tfrecord'.
        overwrite: whether existing output is written anew.
        skip_existing: whether existing output of the same files is left as it is. Without either,
            nothing is begun where there is some.
        num_workers, timeout_seconds: see `embed_files.embed_sources`.

    Returns:
        dict: 'written' and 'existing' files, 'skipped' (reason → files), 'seconds' of input that
        was embedded.

    Raises:
        UserError: a value is not allowed, output is in the way, or it cannot be written.
    """
    if output_format not in FORMATS:
        allowed = f'must be one of {", ".join(FORMATS)}.'
        raise UserError('output_format', output_format, allowed)
    if overwrite and skip_existing:
        raise UserError('overwrite', None, 'contradicts `skip_existing`; take one of them.')
    if len({tower.name for tower in towers}) < len(towers):
        raise UserError('tower', None, 'give one audio tower, one video tower, or one of each.')
    for tower in towers:
        check_windows(tower, hop_seconds, batch_size)
    jobs = {tower: _jobs(tower, sources, len(towers) > 1, output_format) for tower in towers}
    settings = json.dumps({
        tower.name: _settings(tower, hop_seconds, centered, jobs[tower], output_format)
        for tower in towers}, indent=2) + '\n'
    options = hop_seconds, centered, batch_size, num_workers, timeout_seconds
    report = {}  # by tower and job
    try:
        with files.locked(output_dir, 'output'):
            _check_output(output_dir, jobs, settings, overwrite, skip_existing)
            files.write_text(os.path.join(output_dir, 'features.json'), settings)
            try:
                for tower in towers:
                    todo = []
                    for job in jobs[tower]:
                        row = report[tower, job] = {
                            'path': job.source.data_path, 'tower': tower.name,
                            **_status_before(output_dir, job, skip_existing)}
                        if 'status' not in row:
                            todo.append(job)
                    if not todo:
                        continue
                    for job, row in _extract(tower, todo, output_dir, output_format, *options):
                        report[tower, job].update(row)
            finally:
                _write_report(output_dir, [row for row in report.values() if 'status' in row])
    except OSError as error:
        problem = f'cannot be written: {error.filename or ""} {error.strerror or error}.'
        raise UserError('output', output_dir, problem) from error
    return _summary(report.values())


def describe(summary: dict[str, Any], output_dir: str, towers: Sequence[Tower]) -> str:
    """The result of `extract_features` as a line of text."""
    counts = ', '.join(f'{count} {reason}' for reason, count in summary['skipped'].items())
    skipped = f'{sum(summary["skipped"].values())} skipped' + (f' ({counts})' if counts else '')
    paths = ' and '.join(tower.path for tower in towers)
    return (f'{summary["written"]} written, {summary["existing"]} there already, {skipped}; '
            f'{progress.duration(summary["seconds"])} of input embedded by {paths}. Every file: '
            f'{os.path.join(output_dir, "report.csv")}')


def _summary(rows: Collection[dict[str, Any]]):
    statuses = collections.Counter(row['status'] for row in rows)
    reasons = collections.Counter(row['reason'] for row in rows if row['status'] == 'skipped')
    return {'written': statuses['written'], 'existing': statuses['existing'],
            'skipped': dict(sorted(reasons.items())),
            'seconds': sum(row.get('seconds', 0.0) for row in rows)}


def _write_report(output_dir: str, rows: Collection[dict[str, Any]]):
    path = os.path.join(output_dir, 'report.csv')
    with (files.replacing(path) as aside,
          open(aside, 'w', newline='', encoding='utf-8') as file):
        writer = csv.DictWriter(file, REPORT_COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows({name: files.csv_cell(value) for name, value in row.items()}
                         for row in rows)


def _status_before(output_dir: str, job: _Job, skip_existing: bool):
    """Columns of the report for a file that is not even tried; else an empty dict."""
    missing = files.file_problem(job.source.path)
    if missing:
        return {'status': 'skipped', 'reason': 'missing', 'detail': missing}
    path = os.path.join(output_dir, job.output)
    length = max(len(os.fsencode(name)) for name in job.output.split('/'))
    most = os.pathconf(output_dir, 'PC_NAME_MAX')
    whole = len(os.fsencode(os.path.abspath(path)))
    if length > most or whole >= os.pathconf(output_dir, 'PC_PATH_MAX'):
        return {'status': 'skipped', 'reason': 'name_too_long',
                'detail': f'{job.output} would be the name of its features, too long for the file '
                          f'system of {output_dir}'}
    if skip_existing and os.path.exists(path):
        return {'status': 'existing', 'output': job.output}
    return {}


def _jobs(tower: Tower, sources: list[datasets.Source], several: bool, output_format: str):
    if several and tower.name == VideoTower.name:
        sources = [source for source in sources if is_video(source)]
    if output_format == 'npz':
        suffix = f'.{tower.name.removesuffix("_tower")}.npz' if several else '.npz'
        return [_Job(source, source.example_id + suffix) for source in sources]
    shards = -(-len(sources) // FILES_PER_SHARD)
    return [_Job(source, shard_path(tower.name, i // FILES_PER_SHARD, shards))
            for i, source in enumerate(sources)]


def _settings(
    tower: Tower, hop_seconds: float | None, centered: bool, jobs: list[_Job], output_format: str,
) -> dict[str, Any]:
    window_seconds = tower.window / tower.rate
    settings = {
        'tower': tower.path, 'checksum': tower.metadata['checksum'], 'rate': tower.rate,
        'window_seconds': window_seconds,
        'hop_seconds': window_seconds if hop_seconds is None else hop_seconds,
        'centered': centered,
    }
    if output_format == 'tfrecord':  # what a shard holds follows from the whole list
        names = '\n'.join(f'{job.source.example_id} {_digest(job)}' for job in jobs)
        digest = hashlib.sha256(names.encode('utf-8', 'surrogateescape'))
        settings['files'] = digest.hexdigest()
    return settings


def _check_output(
    output_dir: str, jobs: dict[Tower, list[_Job]], settings: str, overwrite: bool,
    skip_existing: bool,
) -> None:
    if overwrite:
        return
    path = os.path.join(output_dir, 'features.json')
    if os.path.exists(path):
        with open(path) as file:
            text = file.read()
        if text != settings:
            raise UserError('output', output_dir, 'holds features of another tower, other windows '
                            'or other files, as its features.json says; give another folder, or '
                            '`overwrite`.')
    existing = [job for tower_jobs in jobs.values() for job in tower_jobs
                if os.path.exists(os.path.join(output_dir, job.output))]
    if existing and not skip_existing:
        raise UserError('output', output_dir, f'{existing[0].output} is there already, '
                        f'{len(existing)} such in all; `skip_existing` resumes with the others, '
                        '`overwrite` writes them anew.')
    for job in existing:
        if not job.output.endswith('.npz') or not (digest := _digest(job)):
            continue
        with np.load(os.path.join(output_dir, job.output)) as features:
            if features.get('source') != digest:
                raise UserError('output', output_dir, f'{job.output} holds features of another '
                                f'file than {job.source.path}; give another folder, or '
                                '`overwrite`.')


def _digest(job: _Job) -> str:
    """A hexadecimal digest of a file's size, beginning and end; '' where it cannot be read."""
    if files.file_problem(job.source.path):
        return ''
    try:
        with open(job.source.path, 'rb') as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(f'{size} '.encode() + file.read(_DIGEST_BYTES))
            file.seek(max(0, size - _DIGEST_BYTES))
            digest.update(file.read(_DIGEST_BYTES))
    except OSError:
        return ''
    return digest.hexdigest()[:16]


def _extract(tower: Tower, jobs: list[_Job], output_dir: str, output_format: str, *options):
    """Embeds and writes files with one tower.

    Yields:
        (job, dict of columns of the report), in the order of the jobs.
    """
    writer = {'npz': _npz_writer, 'tfrecord': _record_writer}[output_format]
    results = embed_sources(tower, [job.source for job in jobs], *options)
    for output, group in itertools.groupby(jobs, key=lambda job: job.output):
        rows: list[tuple[_Job, dict[str, Any]]] = []
        with writer(os.path.join(output_dir, output)) as write:
            for job in group:
                seconds, result = next(results)
                if isinstance(result, media.Unsuitable):
                    rows.append((job, {'status': 'skipped', 'reason': result.reason,
                                       'detail': result.detail}))
                    continue
                write(job, result)
                rows.append((job, {'status': 'written', 'seconds': round(seconds, 6),
                                   'windows': len(result.timestamps), 'output': output}))
        yield from rows  # not before they are in place


@contextlib.contextmanager
def _npz_writer(path: str):
    def write(job: _Job, features: AudioFeatures | VideoFeatures):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with files.replacing(path) as aside, open(aside, 'wb') as file:
            np.savez(file, **features._asdict(), source=_digest(job))

    yield write


@contextlib.contextmanager
def _record_writer(path: str):
    import tensorflow as tf
    with contextlib.ExitStack() as stack:
        writers: list[tf.io.TFRecordWriter] = []

        def write(job: _Job, features: AudioFeatures | VideoFeatures):
            if not writers:  # no file without a record in it
                os.makedirs(os.path.dirname(path), exist_ok=True)
                aside = stack.enter_context(files.replacing(path))
                writers.append(stack.enter_context(tf.io.TFRecordWriter(aside)))
            writers[0].write(encode(job.source, features))

        try:
            yield write
            stack.close()
        except tf.errors.OpError as error:
            raise OSError(error.message) from error


def encode(source: datasets.Source, features: AudioFeatures | VideoFeatures) -> bytes:
    """A serialised `tf.train.Example` of the features of a file.

        example/id, clip/data_path    bytes: unique name, path below the input
        clip/label/string             bytes, where the input names a class
        embedding, conv5 or features  float [T * size], window after window
        timestamps                    float [T], seconds
    """
    import tensorflow as tf
    texts = {'example/id': source.example_id, 'clip/data_path': source.data_path,
             'clip/label/string': source.label}
    example = tf.train.Example()
    for name, text in texts.items():
        if text:
            example.features.feature[name].bytes_list.value.append(text.encode())
    for name, values in features._asdict().items():
        example.features.feature[name].float_list.value.extend(values.ravel().tolist())
    return example.SerializeToString(deterministic=True)
