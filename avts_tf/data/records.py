"""The record of one video, or of one sound: one `tf.train.SequenceExample` in the MediaSequence / DMVR convention.

    context
        example/id                      bytes    unique name of the video
        example/dataset_name            bytes    name of the collection
        clip/data_path                  bytes    file that it was made from
        clip/start/timestamp            int64    µs in that file of the record's time 0
        clip/end/timestamp              int64    µs in that file of the record's end
        clip/label/index                int64s   class indices (may be absent)
        clip/label/string               bytes    class names, one per index
        image/format                    bytes    "JPEG"
        image/height, image/width       int64    pixels
        image/frame_rate                float    frames per second of the grid
        WAVEFORM/feature/sample_rate    float    Hz
        WAVEFORM/feature/num_channels   int64    1
        WAVEFORM/feature/num_samples    int64    samples of the waveform
    feature lists
        image/encoded                   bytes    one Feature, one JPEG, per frame
        image/timestamp                 int64    µs per frame from the record's time 0
        WAVEFORM/feature/bytes          bytes    one Feature: 16-bit little-endian mono PCM      (what this project writes)
        WAVEFORM/feature/floats         floats   one Feature: mono samples in [-1, 1]            (what DMVR writes)
        WAVEFORM/feature/timestamp      int64    one Feature: µs of sample 0; this project writes 0

A record is aligned when written: frame i shows time i / frame_rate, sample n sounds at time n / sample_rate, both from the
same time 0, and both cover the same duration. A record of sound alone has no key that begins with "image/". Shards are TFRecord
files `NAME-00000-of-00016`; a file `NAME.json` beside them holds what is worth knowing without reading them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import struct
from typing import NamedTuple

import numpy as np

from avts_tf.errors import UserError
from avts_tf.lazy import tf

EXAMPLE_ID = 'example/id'
DATASET_NAME = 'example/dataset_name'
DATA_PATH = 'clip/data_path'
CLIP_START = 'clip/start/timestamp'
CLIP_END = 'clip/end/timestamp'
LABEL_INDEX = 'clip/label/index'
LABEL_STRING = 'clip/label/string'
IMAGE_FORMAT = 'image/format'
IMAGE_HEIGHT = 'image/height'
IMAGE_WIDTH = 'image/width'
FRAME_RATE = 'image/frame_rate'
SAMPLE_RATE = 'WAVEFORM/feature/sample_rate'
NUM_CHANNELS = 'WAVEFORM/feature/num_channels'
NUM_SAMPLES = 'WAVEFORM/feature/num_samples'
FRAMES = 'image/encoded'
FRAME_TIMES = 'image/timestamp'
AUDIO_BYTES = 'WAVEFORM/feature/bytes'
AUDIO_FLOATS = 'WAVEFORM/feature/floats'
AUDIO_TIME = 'WAVEFORM/feature/timestamp'

MICROSECONDS = 1_000_000
BESIDE_SHARDS = ('.json', '.csv', '.txt', '.png')  # names of files in a folder of shards that are none
PCM_SCALE = 32768.0  # int16 sample / PCM_SCALE = float sample in [-1, 1)


@dataclasses.dataclass(frozen=True)
class Video:
    """One aligned video, or sound alone, as the writers hand it to `encode`.

    Attributes:
        example_id: unique name.
        frames: list of JPEG bytes, frame i at i / frame_rate seconds; empty for sound alone, and then the next three say nothing.
        frame_rate: frames per second.
        height: pixels.
        width: pixels.
        waveform: int16 [samples], mono, sample 0 at the time of frame 0.
        sample_rate: Hz.
        data_path: file that it was made from.
        start_seconds: time in that file of frame 0.
        dataset_name: name of the collection.
        labels: (index, name) of each class.
    """

    example_id: str
    frames: list
    frame_rate: float
    height: int
    width: int
    waveform: np.ndarray
    sample_rate: int
    data_path: str = ''
    start_seconds: float = 0.0
    dataset_name: str = ''
    labels: tuple = ()


class Record(NamedTuple):
    """One parsed record, as tensors.

    Attributes:
        example_id: string scalar.
        frames: string [F], encoded images.
        frame_seconds: float64 [F], time of each frame, counted from sample 0 of the waveform; none is negative.
        frame_rate: float32 scalar, frames per second; 0 where the record states none.
        waveform: int16 [samples]; empty where the record has no audio.
        sample_rate: float32 scalar, Hz; 0 where the record states none.
        label_index: int64 [L].
        label_string: string [L].
        finite_sound: bool scalar; False where float audio held NaN or infinite samples.
    """

    example_id: tf.Tensor
    frames: tf.Tensor
    frame_seconds: tf.Tensor
    frame_rate: tf.Tensor
    waveform: tf.Tensor
    sample_rate: tf.Tensor
    label_index: tf.Tensor
    label_string: tf.Tensor
    finite_sound: tf.Tensor


def _bytes(*values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[v.encode() if isinstance(v, str) else v for v in values]))


def _ints(*values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _floats(*values):
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def encode(video, audio_encoding='pcm16'):
    """Serialises a `Video`.

    Args:
        video: a `Video`.
        audio_encoding: 'pcm16' writes 16-bit PCM, 'float' DMVR's list of floats (five times slower to read).

    Returns:
        bytes, a serialised `tf.train.SequenceExample`; the same bytes for the same video.

    Raises:
        ValueError: the audio encoding is unknown or the waveform is not int16 [samples].
    """
    if audio_encoding not in ('pcm16', 'float'):
        raise ValueError(f'audio_encoding={audio_encoding!r}: use "pcm16" or "float".')
    if video.waveform.dtype != np.int16 or video.waveform.ndim != 1:
        raise ValueError(f'waveform must be int16 [samples], not {video.waveform.dtype} {video.waveform.shape}.')
    start = round(video.start_seconds * MICROSECONDS)
    seconds = len(video.frames) / video.frame_rate if video.frames else len(video.waveform) / video.sample_rate
    context = {
        EXAMPLE_ID: _bytes(video.example_id),
        DATASET_NAME: _bytes(video.dataset_name),
        DATA_PATH: _bytes(video.data_path),
        CLIP_START: _ints(start),
        CLIP_END: _ints(start + round(seconds * MICROSECONDS)),
        SAMPLE_RATE: _floats(video.sample_rate),
        NUM_CHANNELS: _ints(1),
        NUM_SAMPLES: _ints(len(video.waveform)),
    }
    if video.labels:
        context[LABEL_INDEX] = _ints(*(index for index, _ in video.labels))
        context[LABEL_STRING] = _bytes(*(name for _, name in video.labels))
    lists = {AUDIO_TIME: [_ints(0)]}
    if video.frames:
        context |= {
            IMAGE_FORMAT: _bytes('JPEG'),
            IMAGE_HEIGHT: _ints(video.height),
            IMAGE_WIDTH: _ints(video.width),
            FRAME_RATE: _floats(video.frame_rate),
        }
        times = [round(i / video.frame_rate * MICROSECONDS) for i in range(len(video.frames))]
        lists |= {FRAMES: [_bytes(frame) for frame in video.frames], FRAME_TIMES: [_ints(time) for time in times]}
    if audio_encoding == 'pcm16':
        lists[AUDIO_BYTES] = [_bytes(video.waveform.astype('<i2').tobytes())]
    else:
        lists[AUDIO_FLOATS] = [_floats(*(video.waveform / np.float32(PCM_SCALE)))]
    example = tf.train.SequenceExample(
        context=tf.train.Features(feature=context),
        feature_lists=tf.train.FeatureLists(
            feature_list={name: tf.train.FeatureList(feature=features) for name, features in lists.items()}
        ),
    )
    return example.SerializeToString(deterministic=True)


def parse(serialized):
    """Parses one record with TensorFlow operations, for use inside tf.data.

    Float audio is brought to int16, so that what follows sees one kind. A record of sound alone has no frames. A record without
    frame times gets them from its frame rate. Where the sound does not begin at the record's time 0 the frame times are counted
    from where it does, and frames before that are left out. A record without a name gets one that follows from its bytes,
    because clips of one name are never each other's easy negatives.

    Args:
        serialized: string scalar.

    Returns:
        A `Record`.
    """
    context, lists = tf.io.parse_single_sequence_example(
        serialized,
        context_features={
            EXAMPLE_ID: tf.io.FixedLenFeature([], tf.string, ''),
            FRAME_RATE: tf.io.FixedLenFeature([], tf.float32, 0.0),
            SAMPLE_RATE: tf.io.FixedLenFeature([], tf.float32, 0.0),
            LABEL_INDEX: tf.io.RaggedFeature(tf.int64),
            LABEL_STRING: tf.io.RaggedFeature(tf.string),
        },
        sequence_features={
            FRAMES: tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True),
            FRAME_TIMES: tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
            AUDIO_BYTES: tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True),
            AUDIO_FLOATS: tf.io.VarLenFeature(tf.float32),
            AUDIO_TIME: tf.io.VarLenFeature(tf.int64),
        },
    )
    frames = lists[FRAMES]
    count = tf.size(frames)
    times = tf.cast(lists[FRAME_TIMES], tf.float64) / MICROSECONDS
    # Without times and without a rate all frames are at time 0: no window of pictures can be taken from them.
    frame_rate = context[FRAME_RATE]
    grid = tf.math.divide_no_nan(tf.range(tf.cast(count, tf.float64), dtype=tf.float64), tf.cast(frame_rate, tf.float64))
    frame_seconds = tf.cond(tf.equal(tf.size(times), count), lambda: times, lambda: grid)
    sound_starts = tf.concat([lists[AUDIO_TIME].values, [0]], 0)[0]
    frame_seconds -= tf.cast(sound_starts, tf.float64) / MICROSECONDS
    # A time that is no number is heard, to be found out. Slices share memory, where a mask would copy all the frames.
    heard = tf.math.is_nan(frame_seconds) | (frame_seconds >= 0.0)
    first = tf.reduce_min(tf.where(heard, tf.range(count), count))
    example_id = tf.cond(tf.equal(context[EXAMPLE_ID], ''), lambda: unnamed(serialized), lambda: context[EXAMPLE_ID])
    floats = lists[AUDIO_FLOATS].values
    pcm = tf.io.decode_raw(tf.strings.reduce_join(lists[AUDIO_BYTES]), tf.int16)
    waveform = tf.cond(
        tf.greater(tf.size(floats), 0),
        lambda: tf.cast(tf.round(tf.clip_by_value(floats * PCM_SCALE, -PCM_SCALE, PCM_SCALE - 1)), tf.int16),
        lambda: pcm,
    )
    return Record(
        example_id=example_id,
        frames=frames[first:],
        frame_seconds=frame_seconds[first:],
        frame_rate=frame_rate,
        waveform=waveform,
        sample_rate=context[SAMPLE_RATE],
        label_index=context[LABEL_INDEX],
        label_string=context[LABEL_STRING],
        finite_sound=tf.reduce_all(tf.math.is_finite(floats)),
    )


def unnamed(serialized):
    """The name of a record that has none, or that cannot be parsed: string scalar."""
    return 'unnamed-' + tf.strings.as_string(tf.strings.to_hash_bucket_fast(serialized, 2**62))


def parse_labels(serialized):
    """Name and labels of one record, without the cost of the rest: string scalar -> (string scalar, string [L])."""
    context, _ = tf.io.parse_single_sequence_example(
        serialized, {EXAMPLE_ID: tf.io.FixedLenFeature([], tf.string, ''), LABEL_STRING: tf.io.RaggedFeature(tf.string)})
    example_id = tf.cond(tf.equal(context[EXAMPLE_ID], ''), lambda: unnamed(serialized), lambda: context[EXAMPLE_ID])
    return example_id, context[LABEL_STRING]


def shard_path(prefix, index, count):
    """The path of one shard: `PREFIX-00000-of-00016`."""
    return f'{prefix}-{index:05d}-of-{count:05d}'


def summary_path(prefix):
    """The path of the JSON file beside the shards of `PREFIX`."""
    return f'{prefix}.json'


def find_shards(pattern, flag='records', tolerant=False):
    """Record files of a glob, or of several separated by commas, and the number of records in each.

    The files' framing is walked from length to length without reading the records, so that a file that is cut short is
    named before any work begins.

    Args:
        pattern: glob(s). A folder means all record files in it.
        flag: name of the flag, for the messages.
        tolerant: whether a file that is damaged counts as what is whole before the damage and one record more, which is lost when
            it is read, instead of ending the search. One that does not begin as a TFRecord file ends it always.

    Returns:
        List of (path, number of records), sorted by path; shards without records are left out.

    Raises:
        UserError: no file matches, one is cut short or is no TFRecord file, or there is no record in all of them.
    """
    paths, pattern = [], pattern or ''
    for part in pattern.split(','):
        found = list_files(part.strip())
        if not found:
            raise UserError(
                f'--{flag}={pattern}: no file matches{" " + repr(part.strip()) if "," in pattern else ""}. Give a glob of record '
                'files, quoted, such as "data/clips-*"; python -m tfrecords_tools.write makes them from videos.'
            )
        paths += found
    shards = [(path, count_records(path, tolerant)) for path in sorted(set(paths))]
    if not any(count for _, count in shards):
        raise UserError(f'--{flag}={pattern}: {len(shards)} file(s) match, but there is no record in them.')
    return [(path, count) for path, count in shards if count]


def list_files(part):
    """Paths that one glob matches, or that lie in one folder, without the files that writers put beside the shards."""
    if not part:
        return []
    paths = tf.io.gfile.glob(os.path.join(part, '*') if tf.io.gfile.isdir(part) else part)
    return [path for path in paths if not path.endswith(BESIDE_SHARDS) and not tf.io.gfile.isdir(path)]


def files_of(pattern):
    """The real paths of the record files that globs name, separated by commas: a set, empty for None."""
    return {os.path.realpath(path) for part in (pattern or '').split(',') for path in list_files(part.strip())}


def same_files(pattern, other):
    """Whether globs name the same record files; those that are alike do, also where the files are gone."""
    return pattern == other or (bool(pattern and other) and files_of(pattern) == files_of(other))


class _Damage(Exception):
    """A record file is not whole; the message says where."""


def count_records(path, tolerant=False):
    """The number of records in a TFRecord file, by walking its lengths; `tolerant` as in `find_shards`.

    Raises:
        UserError: the file cannot be read, is cut short or is no TFRecord file.
    """
    count, offset = 0, 0
    try:
        size = tf.io.gfile.stat(path).length
        with tf.io.gfile.GFile(path, 'rb') as file:
            while offset < size:
                file.seek(offset)
                header = file.read(12)
                if len(header) < 12:
                    raise _Damage(_cut_short(path, count, offset))
                length, crc = struct.unpack('<QI', header)
                if crc != masked_crc(header[:8]):
                    raise (_Damage if offset else UserError)(
                        f'{path}: not a TFRecord file, or damaged at byte {offset} (after {count} whole records). '
                        'Leave it out or write it again.'
                    )
                offset += 12 + length + 4
                if offset > size:
                    raise _Damage(_cut_short(path, count, offset))
                count += 1
    except _Damage as damage:
        if tolerant:
            return count + 1
        raise UserError(str(damage)) from None
    except tf.errors.OpError as error:
        raise UserError(f'{path}: cannot be read: {error.message}') from error
    return count


def _cut_short(path, count, offset):
    return f'{path}: cut short after {count} whole records (byte {offset}). Leave it out or write it again.'


def _crc_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC32C = _crc_table()


def masked_crc(data):
    """The masked CRC-32C that TFRecord files put after each length."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def stamps(shards):
    """[size, time of change in ns, exact to the second] of each file of `find_shards`, None where it is gone."""
    found = []
    for path, _ in shards:
        try:
            status = tf.io.gfile.stat(path)
            found.append([status.length, status.mtime_nsec])
        except tf.errors.OpError:
            found.append(None)
    return found


def name_hashes(shards, hashes):
    """The names of the records whose names have given hashes, by reading on until all are found.

    Args:
        shards: result of `find_shards`.
        hashes: set of integers, as `example_hash` in a batch.

    Returns:
        Sorted list of names; of those that are not found there is none.
    """
    def name(serialized):
        context, _ = tf.io.parse_single_sequence_example(serialized, {EXAMPLE_ID: tf.io.FixedLenFeature([], tf.string, '')})
        return tf.cond(tf.equal(context[EXAMPLE_ID], ''), lambda: unnamed(serialized), lambda: context[EXAMPLE_ID])

    names = {}
    for path, count in shards:
        # Bounded: a file that cannot be opened fails as often as it is asked.
        counted = tf.data.Dataset.zip((tf.data.Dataset.range(count), tf.data.TFRecordDataset(path).map(lambda data: name(data))))
        for _, found in counted.ignore_errors():
            found_hash = int(tf.strings.to_hash_bucket_fast(found, 2**62))
            if found_hash in hashes:
                names[found_hash] = found.numpy().decode(errors='replace')
                if len(names) == len(hashes):  # there can be hours of records after it
                    return sorted(names.values())
    return sorted(names.values())


def first_damaged(paths):
    """The first file among `paths` in which a record fails its checksum, and the number of whole records before it.

    Returns:
        (path, count), or None where every record is whole.
    """
    for path in paths:
        count = 0
        try:
            for _ in tf.data.TFRecordDataset(path):
                count += 1
        except (tf.errors.DataLossError, tf.errors.NotFoundError):
            return path, count
    return None


@contextlib.contextmanager
def naming_damage(*patterns):
    """Turns TensorFlow's error on a damaged, vanished or unusable record file into a `UserError` that names it.

    Args:
        *patterns: globs of the record files that are read inside; None is passed over.
    """
    paths = [path for pattern in patterns if pattern for part in pattern.split(',') for path in list_files(part.strip())]
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.NotFoundError) as error:
        damaged = first_damaged(paths)
        if not damaged:
            raise
        raise UserError(
            f'{damaged[0]}: damaged after {damaged[1]} whole records, or gone. Leave it out or write it again; the same command '
            'then goes on.'
        ) from error
    except tf.errors.InvalidArgumentError as error:
        # What fails inside an iterator is a record's content, such as a frame that is no JPEG; the rest would be a fault here.
        if 'Iterator' not in error.message:
            raise
        reason = error.message.splitlines()[0]
        raise UserError(f'{", ".join(filter(None, patterns))}: the content of a record cannot be used: {reason}') from error
