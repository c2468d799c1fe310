"""The record of one video, or of audio alone: a `tf.train.SequenceExample`.

The keys are those of the MediaSequence / DMVR convention:

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
        image/encoded                   bytes    per frame one Feature, a JPEG
        image/timestamp                 int64    per frame one Feature, µs from the record's time 0
        WAVEFORM/feature/bytes          bytes    one Feature: 16-bit little-endian mono PCM
        WAVEFORM/feature/floats         floats   instead, as DMVR writes: mono samples in [-1, 1]
        WAVEFORM/feature/timestamp      int64    one Feature: µs of sample 0; written as 0

A record is aligned when it is written. Frame i shows time i / frame_rate, sample n sounds at time
n / sample_rate, and both cover the same duration:

    time        0                                                             duration
    frames      |  0  |  1  |  2  |  3  |  4  |  5  |  6  |  7  |  8  |  9  |
    samples     |............................................................|

A record of audio alone has no key that begins with "image/". How records lie in files: shards.py.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

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
PCM_SCALE = 32768.0  # int16 sample / PCM_SCALE = float sample in [-1, 1)
HASHES = 2**62  # the number of values of `hash_name`


@dataclasses.dataclass(frozen=True)
class Video:
    """One aligned video, or audio alone, as the writers hand it to `encode`.

    Attributes:
        example_id: unique name.
        frames: list of JPEG bytes, frame i at i / frame_rate seconds; empty for audio alone, and
            then the next three are not used.
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
        frame_seconds: float64 [F], time of each frame, counted from sample 0 of the waveform; none
            is negative.
        frame_rate: float32 scalar, frames per second; 0 where the record states none.
        waveform: int16 [samples]; empty where the record has no audio.
        sample_rate: float32 scalar, Hz; 0 where the record states none.
        label_index: int64 [L].
        label_string: string [L].
        finite_audio: bool scalar; False where float audio held NaN or infinite samples.
        speed: float64 scalar, where the record is played at so many times its speed: then
            `frame_seconds` are the times at which its frames are seen; `waveform` is as recorded.
    """

    example_id: tf.Tensor
    frames: tf.Tensor
    frame_seconds: tf.Tensor
    frame_rate: tf.Tensor
    waveform: tf.Tensor
    sample_rate: tf.Tensor
    label_index: tf.Tensor
    label_string: tf.Tensor
    finite_audio: tf.Tensor
    speed: tf.Tensor | None = None


def _bytes(*values):
    encoded = [value.encode() if isinstance(value, str) else value for value in values]
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))


def _ints(*values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _floats(*values):
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def encode(video: Video, audio_encoding: str = 'pcm16') -> bytes:
    """Serialises a `Video`.

    Args:
        video: a `Video`.
        audio_encoding: 'pcm16' writes 16-bit PCM, 'float' DMVR's list of floats (five times slower
            to read).

    Returns:
        A serialised `tf.train.SequenceExample`; the same bytes for the same video.

    Raises:
        ValueError: the audio encoding is unknown or the waveform is not int16 [samples].

    Example:
        >>> silence = np.zeros(16000, np.int16)
        >>> sound = Video('silence', [], 0.0, 0, 0, silence, sample_rate=16000)
        >>> parse(encode(sound)).waveform.shape
        TensorShape([16000])
    """
    if audio_encoding not in ('pcm16', 'float'):
        raise ValueError(f'audio_encoding={audio_encoding!r}: use "pcm16" or "float".')
    if video.waveform.dtype != np.int16 or video.waveform.ndim != 1:
        given = f'{video.waveform.dtype} {video.waveform.shape}'
        raise ValueError(f'waveform must be int16 [samples], not {given}.')
    start = round(video.start_seconds * MICROSECONDS)
    if video.frames:
        seconds = len(video.frames) / video.frame_rate
    else:
        seconds = len(video.waveform) / video.sample_rate
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
        lists[FRAMES] = [_bytes(frame) for frame in video.frames]
        lists[FRAME_TIMES] = [_ints(time) for time in times]
    if audio_encoding == 'pcm16':
        lists[AUDIO_BYTES] = [_bytes(video.waveform.astype('<i2').tobytes())]
    else:
        lists[AUDIO_FLOATS] = [_floats(*(video.waveform / np.float32(PCM_SCALE)))]
    example = tf.train.SequenceExample(
        context=tf.train.Features(feature=context),
        feature_lists=tf.train.FeatureLists(feature_list={
            name: tf.train.FeatureList(feature=features) for name, features in lists.items()}),
    )
    return example.SerializeToString(deterministic=True)


def as_numpy(record: Record) -> Record:
    """A parsed record with NumPy values in place of tensors."""
    return Record(*(value if value is None else value.numpy() for value in record))


def parse(serialized: tf.Tensor) -> Record:
    """Parses one record with TensorFlow operations, for use inside tf.data.

    Float audio is converted to int16. A record of audio alone has no frames. A record without
    frame times gets them from its frame rate. Where the audio does not begin at the record's time
    0, frame times are counted from where it does, and frames before that are left out. A record
    without a name gets one that follows from its bytes, because clips of one name are never each
    other's easy negatives.

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
    # Without times and without a rate all frames are at time 0: no window can be taken from them.
    frame_rate = context[FRAME_RATE]
    numbers = tf.range(tf.cast(count, tf.float64), dtype=tf.float64)
    grid = tf.math.divide_no_nan(numbers, tf.cast(frame_rate, tf.float64))
    frame_seconds = tf.cond(tf.equal(tf.size(times), count), lambda: times, lambda: grid)
    audio_start = tf.concat([lists[AUDIO_TIME].values, [0]], 0)[0]
    frame_seconds -= tf.cast(audio_start, tf.float64) / MICROSECONDS
    # A time that is NaN is kept, to be found later. A slice shares memory, where a mask would copy.
    kept = tf.math.is_nan(frame_seconds) | (frame_seconds >= 0.0)
    first = tf.reduce_min(tf.where(kept, tf.range(count), count))
    floats = lists[AUDIO_FLOATS].values
    pcm = tf.io.decode_raw(tf.strings.reduce_join(lists[AUDIO_BYTES]), tf.int16)
    waveform = tf.cond(
        tf.greater(tf.size(floats), 0),
        lambda: tf.cast(
            tf.round(tf.clip_by_value(floats * PCM_SCALE, -PCM_SCALE, PCM_SCALE - 1)), tf.int16),
        lambda: pcm,
    )
    return Record(
        example_id=_name(context, serialized),
        frames=frames[first:],
        frame_seconds=frame_seconds[first:],
        frame_rate=frame_rate,
        waveform=waveform,
        sample_rate=context[SAMPLE_RATE],
        label_index=context[LABEL_INDEX],
        label_string=context[LABEL_STRING],
        finite_audio=tf.reduce_all(tf.math.is_finite(floats)),
    )


def unnamed(serialized: tf.Tensor) -> tf.Tensor:
    """The name of a record that has none, or that cannot be parsed: string scalar."""
    return 'unnamed-' + tf.strings.as_string(tf.strings.to_hash_bucket_fast(serialized, HASHES))


def _name(context: dict[str, tf.Tensor], serialized: tf.Tensor) -> tf.Tensor:
    name = context[EXAMPLE_ID]
    return tf.cond(tf.equal(name, ''), lambda: unnamed(serialized), lambda: name)


def require(condition: tf.Tensor) -> tf.Operation:
    """An operation that fails when it runs and a condition does not hold.

    Lighter than `tf.debugging.Assert`, which is a conditional.
    """
    return tf.raw_ops.Assert(condition=condition, data=['the record cannot be used'])


def parse_labels(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Name and labels of one record, without the cost of the rest.

    Args:
        serialized: string scalar.

    Returns:
        (string scalar, string [L]).
    """
    context, _ = tf.io.parse_single_sequence_example(serialized, {
        EXAMPLE_ID: tf.io.FixedLenFeature([], tf.string, ''),
        LABEL_STRING: tf.io.RaggedFeature(tf.string),
    })
    return _name(context, serialized), context[LABEL_STRING]


def hash_name(example_id: tf.Tensor) -> tf.Tensor:
    """The number of a record's name in batches, `example_hash`: string of any shape -> int64."""
    return tf.strings.to_hash_bucket_fast(example_id, HASHES)
