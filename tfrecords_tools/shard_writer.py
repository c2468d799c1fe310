"""From what was decoded to records in a shard, with a line of the report for each source."""

import errno
import json
import os
from collections.abc import Iterable
from typing import Any

from avts_tf import files
from avts_tf.data import datasets, media, records
from avts_tf.lazy import tf
from tfrecords_tools.plan import Recipe
from tfrecords_tools.report import report_row, seconds_of

LINES = '.lines'  # the end of the name of the file that says that a shard is finished
_MOST_RECORD_BYTES = 2_000_000_000  # a serialised message must stay below 2 GiB


def make_record(
    recipe: Recipe, source: datasets.Source, outcome: tuple
) -> tuple[bytes | None, dict[str, Any]]:
    """Makes a record of what was decoded.

    Args:
        recipe: what all records of the set have in common.
        source: what was decoded.
        outcome: of `workers.run_in_order(media.try_media, ...)`.

    Returns:
        The serialised record, or None where the source is left out; and its line: 'row' for the
        report, 'frames', 'samples'.
    """
    result, failure = outcome
    if isinstance(result, media.Media):
        sample_bytes = 4 if recipe.audio_encoding == 'float' else 2
        size = sum(map(len, result.frames)) + sample_bytes * len(result.waveform)
        if size > _MOST_RECORD_BYTES:
            failure = 'too_large', (f'its record would have {size} bytes, more than a message can; '
                                    'cut it, or use --short_side')
    else:
        failure = failure or result
    if failure:
        return None, {'row': report_row(source, 'skipped', *failure), 'frames': 0, 'samples': 0}
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
    row = report_row(
        source, 'written', '', result.note, seconds=seconds_of(recipe, frames, samples),
        frames=frames, measured=(result.source_fps if frames else None, result.volume_db,
                                 result.motion))
    return (records.encode(video, recipe.audio_encoding),
            {'row': row, 'frames': frames, 'samples': samples})


def write_shard(
    folder: str, name: str, pieces: Iterable[tuple[int, bytes | None, dict[str, Any]]]
) -> None:
    """Writes one shard, and then its lines, which say that it is finished.

    Args:
        folder: of unfinished work.
        name: file name of the shard.
        pieces: (index of the source, serialised record or None, its line), see `make_record`.
    """
    lines, size = [], 0
    with files.replacing(os.path.join(folder, name)) as aside:
        with tf.io.TFRecordWriter(aside) as writer:
            for index, serialized, line in pieces:
                lines.append({'index': index, **line})
                if serialized is not None:
                    writer.write(serialized)
                    size += len(serialized) + 16  # with its length and two checksums
        if os.path.getsize(aside) != size:
            raise OSError(errno.EIO,
                          f'{os.path.getsize(aside)} bytes were written instead of {size}', aside)
    files.write_text(os.path.join(folder, name + LINES), json.dumps(lines))


def read_lines(folder: str, name: str) -> list[dict[str, Any]]:
    """The lines of a finished shard."""
    with open(os.path.join(folder, name + LINES), encoding='utf-8') as file:
        return json.load(file)


def is_finished(folder: str, name: str) -> bool:
    """Whether a shard is whole."""
    return os.path.exists(os.path.join(folder, name + LINES))
