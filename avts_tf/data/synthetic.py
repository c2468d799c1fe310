"""Writes a synthetic world as records; `avts_tf/data/worlds/` has the worlds, one file each."""

import contextlib
import csv
import io
import json
import os
import re
from typing import Any

from avts_tf import files, progress
from avts_tf.data import records
from avts_tf.data.shards import shard_path, summary_path
from avts_tf.data.worlds import World, find_world
from avts_tf.errors import UserError
from avts_tf.lazy import tf


def write_world(
    output: str, videos: int = 64, seconds: float = 4.0, fps: float = 25.0, size: int = 40,
    sample_rate: int = 16000, seed: int = 0, shards: int = 1, difficulty: float = 0.2,
    world: str = 'struck',
) -> list[str]:
    """Writes a set of videos of a synthetic world: shards, the truth, and a summary, `OUTPUT.json`.

    The truth stands in a CSV file, `OUTPUT.strikes.csv` of the struck world, `OUTPUT.paths.csv` of
    the sustained one, one item a line: example_id, the time from the record's time 0 in seconds,
    and what happens then. Files take their names when all are whole, the summary last. The same
    arguments give the same bytes. Sets of different seeds share no video and no example id.

    Args:
        output: path and beginning of the shards' names, such as 'data/world'; its folder is made.
        videos: number of videos, at least 1.
        seconds: duration of each, rounded to whole frames, at least 0.5.
        fps: frames per second.
        size: height and width of a frame, in pixels, at least 16.
        sample_rate: Hz, at least 8000.
        seed: seed of the set, at least 0.
        shards: number of files, at most `videos`; video i goes to shard i % shards.
        difficulty: 0 to 1; the head of a world's file says what it adds.
        world: one of `worlds.WORLDS`: 'struck', where things strike and sound, or 'sustained',
            where the pitch of a tone follows the height of a thing.

    Returns:
        List of the shards' paths.

    Raises:
        UserError: a value is not allowed, shards of another number stand under the same name, or a
            file cannot be written.

    Example:
        >>> write_world('/tmp/world', videos=2, seconds=1.0)
        ['/tmp/world-00000-of-00001']
    """
    options = {
        'videos': videos, 'seconds': seconds, 'fps': fps, 'size': size, 'sample_rate': sample_rate,
        'seed': seed, 'shards': shards, 'difficulty': difficulty,
    }
    found = find_world(world)
    paths = [shard_path(output, i, shards) for i in range(shards)]
    _check(output, options, paths)
    try:
        os.makedirs(os.path.dirname(output) or '.', exist_ok=True)
        _write(output, found, options, paths)
    except (tf.errors.OpError, OSError) as error:
        reason = error.message if isinstance(error, tf.errors.OpError) else error.strerror
        raise UserError('output', output, f'cannot be written: {reason}') from error
    return paths


def _check(output: str, options: dict, paths: list[str]):
    if not output or output.endswith('/') or os.path.isdir(output):
        raise UserError('output', output,
                        'give a folder and the beginning of a name, such as "data/world".')
    limits = {
        'videos': (1, 100_000), 'seconds': (0.5, 3600), 'fps': (5, 1000), 'size': (16, 4096),
        'sample_rate': (8000, 192_000), 'seed': (0, 2**31 - 1), 'shards': (1, options['videos']),
        'difficulty': (0, 1),
    }
    for name, (least, most) in limits.items():
        if not least <= options[name] <= most:
            hint = ' (the number of videos)' if name == 'shards' else ''
            raise UserError(name, options[name], f'must lie between {least} and {most}{hint}.')
    folder, name = os.path.split(output)
    shard = re.compile(re.escape(name) + r'-\d{5}-of-\d{5}')
    ours = {os.path.basename(path) for path in paths}
    found = os.listdir(folder or '.') if os.path.isdir(folder or '.') else []
    if strays := sorted(file for file in found if shard.fullmatch(file) and file not in ours):
        raise UserError('output', output, f'{strays[0]} is there from a set of another number of '
                        'shards, and a glob would take both for one; remove it or give another '
                        'name.')


def _write(output: str, world: World, options: dict, paths: list[str]):
    options = dict(options)
    videos, shards, seed = options.pop('videos'), options.pop('shards'), options.pop('seed')
    truths: list[Any] = []
    table = io.StringIO()
    lines = csv.writer(table, lineterminator='\n')
    lines.writerow(('example_id', *world.truth_columns))
    labels: dict[str, int] = {}
    frame_count = sample_count = 0
    with contextlib.ExitStack() as stack:
        writers = [tf.io.TFRecordWriter(stack.enter_context(files.replacing(path)))
                   for path in paths]
        try:
            for i in progress.bar(range(videos), 'synthetic world', unit='video'):
                video, truth = world.make_video(i, seed, **options)
                writers[i % shards].write(records.encode(video))
                lines.writerows((video.example_id, *world.truth_row(item)) for item in truth)
                truths += truth
                for _, label in video.labels:
                    labels[label] = labels.get(label, 0) + 1
                frame_count += len(video.frames)
                sample_count += len(video.waveform)
        finally:
            for writer in writers:
                writer.close()
    summary = {
        'dataset_name': video.dataset_name, 'records': videos, 'shards': shards, 'seed': seed,
        **options, 'frames': frame_count, 'samples': sample_count,
        'duration_seconds': frame_count / options['fps'], **world.totals(truths),
        'labels': dict(sorted(labels.items())),
    }
    files.write_text(f'{output}.{world.truth_name}.csv', table.getvalue())
    files.write_text(summary_path(output), json.dumps(summary, indent=2) + '\n')
