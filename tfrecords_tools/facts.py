"""What is worth knowing of one record, and how the inspector reads records."""

import io
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from avts_tf.data import records, shards
from avts_tf.errors import UserError
from avts_tf.lazy import tf


class Facts(NamedTuple):
    """What is worth knowing of one record.

    Attributes:
        example_id: name of the video.
        frames: number of frames.
        frame_rate: frames per second.
        frame_size: (width, height) of the first frame in pixels, or None where it is no image.
        samples: number of audio samples; 0 without audio.
        sample_rate: Hz; 0 where the record states none.
        video_seconds: duration of the frames.
        audio_seconds: duration of the audio; 0 without audio.
        grid_error_seconds: greatest difference of a frame's stated time from its place on the grid
            of the frame rate.
        labels: names of the classes, or indices where they have no names.
    """

    example_id: str
    frames: int
    frame_rate: float
    frame_size: tuple[int, int] | None
    samples: int
    sample_rate: float
    video_seconds: float
    audio_seconds: float
    grid_error_seconds: float
    labels: tuple[str, ...]


def find_shards(patterns: Iterable[str]) -> list[tuple[str, int]]:
    """Record files of several paths, globs or folders.

    Args:
        patterns: paths, globs or folders; several in one, with commas.

    Returns:
        List of (path, number of records), sorted by path.

    Raises:
        UserError: nothing is given, a pattern matches no file, a file is cut short or holds no
            records.
    """
    if not patterns:
        raise UserError(None, None, 'no record files given; say which, such as: '
                        'python -m tfrecords_tools.inspect "data/clips-*"')
    found = set()
    for pattern in patterns:
        try:
            found.update(shards.find_shards(pattern))
        except UserError as error:
            if error.name:  # here the files are plain arguments
                raise UserError(None, error.value, error.problem) from error
            raise
    return sorted(found)


def read_records(found: Iterable[tuple[str, int]]) -> Iterator[records.Record]:
    """Yields every record of the files that `find_shards` found, as NumPy values.

    Raises:
        UserError: a record is damaged or is no SequenceExample.
    """
    for path, count in found:
        serialized = iter(tf.data.TFRecordDataset(path))
        for i in range(count):
            try:
                record = records.parse(next(serialized))
            except tf.errors.DataLossError as error:
                raise UserError(None, path, f'damaged after {i} whole records. Leave the file out '
                                'or write it again.') from error
            except tf.errors.InvalidArgumentError as error:
                raise UserError(
                    None, path, f'record {i} (counted from 0) is not in the form that '
                    f'avts_tf/data/records.py describes: {error.message.splitlines()[0]}'
                ) from error
            yield records.as_numpy(record)


def facts_of(record: records.Record) -> Facts:
    """The `Facts` of a record of NumPy values."""
    frames, rate = len(record.frames), float(record.frame_rate)
    if rate > 0:
        video_seconds = frames / rate
    elif frames > 1:  # a record that states no rate: the last frame lasts as long as the others
        video_seconds = float(record.frame_seconds[-1] + np.median(np.diff(record.frame_seconds)))
    else:
        video_seconds = 0.0
    image = read_image(record.frames[0]) if frames else None
    labels = [name.decode(errors='replace')
              for name in record.label_string] or [str(i) for i in record.label_index]
    return Facts(
        example_id=record.example_id.decode(errors='replace'),
        frames=frames,
        frame_rate=rate,
        frame_size=image.size if image else None,
        samples=len(record.waveform),
        sample_rate=float(record.sample_rate),
        video_seconds=video_seconds,
        audio_seconds=len(record.waveform) / float(record.sample_rate) if record.sample_rate > 0
        else 0.0,
        grid_error_seconds=float(np.abs(record.frame_seconds - np.arange(frames) / rate).max())
        if rate > 0 and frames else 0.0,
        labels=tuple(labels),
    )


def read_image(encoded: bytes) -> Image.Image | None:
    """The image of a frame, not decoded yet; None where it is no image."""
    try:
        return Image.open(io.BytesIO(encoded))
    except UnidentifiedImageError:
        return None
