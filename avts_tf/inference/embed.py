"""Embeds streams of samples and frames, window by window, with a tower.

Windows lie by the rule of `windows`. Audio becomes mono 16-bit PCM at the tower's sample rate, as
the towers were trained on, by FFmpeg's resampler at its defaults: what lies beyond full scale is
clipped; 8-bit samples are unsigned with 128 as silence. The channels of an array, in no known
order, are averaged; those of a file are mixed as `avts_tf.data.media` says.

Imports no TensorFlow: processes that only decode import this file too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import av
import numpy as np

from avts_tf.data import media
from avts_tf.errors import UserError
from avts_tf.inference.windows import sliding_windows

if TYPE_CHECKING:
    from avts_tf.inference.saved_towers import AudioFeatures, Tower, VideoFeatures

_Key = TypeVar('_Key', bound=Hashable)  # of a stream

BATCH_SIZE = 32
SAMPLE_RATES = range(100, 768_001)  # Hz, that audio may be resampled from
# Formats of FFmpeg by the dtype of samples.
_FORMATS = {'int16': 's16', 'uint8': 'u8', 'int32': 's32', 'float32': 'flt', 'float64': 'dbl'}
_MOST_CHANNELS = 64
_BLOCK_SAMPLES = 65536


def pcm_blocks(waveform: np.ndarray, sample_rate: int, target_rate: int) -> Iterator[np.ndarray]:
    """Turns audio into mono 16-bit PCM, by the rule at the head of this file.

    Args:
        waveform: int16, uint8, int32 or, in [-1, 1], float [samples] or [samples, channels].
        sample_rate: Hz.
        target_rate: Hz.

    Returns:
        Iterator of int16 [samples], together round(samples / sample_rate * target_rate), at
        least 1.

    Raises:
        UserError: the audio is empty, holds NaN or infinite samples, or has another shape or
            dtype; or the sample rate is not allowed.
    """
    waveform = np.asarray(waveform)
    if waveform.dtype == np.float16:
        waveform = waveform.astype(np.float32)
    shape = list(waveform.shape)
    if waveform.dtype.name not in _FORMATS:
        raise UserError('waveform', None,
                        f'samples must be {", ".join(_FORMATS)}, not {waveform.dtype}.')
    if waveform.ndim not in (1, 2):
        raise UserError('waveform', None,
                        f'must be [samples] or [samples, channels], not of shape {shape}.')
    if not waveform.size:
        raise UserError('waveform', None, 'is empty; there is nothing to embed.')
    if waveform.ndim == 2 and waveform.shape[1] > _MOST_CHANNELS:
        raise UserError('waveform', None, f'{waveform.shape[1]} channels in {shape}; must be '
                        f'[samples, channels] with at most {_MOST_CHANNELS}.')
    if sample_rate not in SAMPLE_RATES:
        raise UserError('sample_rate', sample_rate, 'must be a whole number of Hz, from '
                        f'{SAMPLE_RATES[0]} to {SAMPLE_RATES[-1]}.')
    if waveform.dtype.kind == 'f' and not np.isfinite(waveform).all():
        raise UserError('waveform', None, 'holds NaN or infinite samples.')
    return _pcm_blocks(waveform.reshape(len(waveform), -1), int(sample_rate), target_rate)


def _pcm_blocks(waveform: np.ndarray, sample_rate: int, target_rate: int):
    resampler = av.AudioResampler('s16', 'mono', target_rate)
    missing = max(1, round(len(waveform) / sample_rate * target_rate))
    for first in itertools.chain(range(0, len(waveform), _BLOCK_SAMPLES), [None]):
        frame = None  # the end: what the resampler still holds
        if first is not None:
            block = _mono(waveform[first:first + _BLOCK_SAMPLES])
            sample_format = _FORMATS[block.dtype.name]
            frame = av.AudioFrame.from_ndarray(block[None], format=sample_format, layout='mono')
            frame.sample_rate = sample_rate
        for resampled in resampler.resample(frame):
            block = resampled.to_ndarray().reshape(-1)[:missing]
            missing -= len(block)
            yield block
    if missing:
        yield np.zeros(missing, np.int16)


def _mono(samples: np.ndarray):
    """[samples, channels] of any dtype -> [samples].

    Of the same dtype where there is one channel, else float64 in [-1, 1].
    """
    if samples.shape[1] == 1:
        return np.ascontiguousarray(samples[:, 0])
    mean = samples.mean(1, dtype=np.float64)
    if samples.dtype.kind == 'f':
        return mean
    bits = 8 * samples.itemsize - 1
    return (mean - 128 if samples.dtype == np.uint8 else mean) / 2**bits


def check_windows(tower: Tower, hop_seconds: float | None, batch_size: int) -> None:
    """Raises a `UserError` where a tower cannot have such windows."""
    if hop_seconds is not None and not 1 / tower.rate <= hop_seconds < math.inf:
        raise UserError('hop_seconds', hop_seconds, f'must be at least one step of the '
                        f'{tower.name}, {1 / tower.rate:g} s.')
    if batch_size < 1:
        raise UserError('batch_size', batch_size, 'must be at least 1.')


def embed_streams(
    tower: Tower, items: Iterable[tuple[_Key, Any]], hop_seconds: float | None = None,
    centered: bool = False, batch_size: int = BATCH_SIZE,
) -> Iterator[tuple[_Key, AudioFeatures | VideoFeatures | media.Unsuitable]]:
    """Embeds several streams, one after the other; windows of neighbours share batches.

    Args:
        tower: what embeds the windows.
        items: (key, block): the blocks of one stream follow each other under one key. A
            `media.Unsuitable` in the place of a block says that the stream broke there.
        hop_seconds, centered: see `windows.sliding_windows`.
        batch_size: windows that go through the tower at once.

    Yields:
        (key, features), or (key, `media.Unsuitable`), in the order of the streams.

    Raises:
        UserError: a value is not allowed.
    """
    check_windows(tower, hop_seconds, batch_size)
    # marks: (windows of the batch that lie before it, key, failure), one per stream that has ended
    batch: list[tuple[float, np.ndarray]] = []
    marks: list[tuple[int, tuple[_Key] | None, media.Unsuitable | None]] = []
    # Of the stream that has not:
    parts: list[dict[str, np.ndarray]] = []
    centres: list[float] = []

    def run():
        """Runs what is in the batch, and yields the streams that have ended."""
        nonlocal parts, centres
        outputs = tower.run(np.stack([window for _, window in batch])) if batch else {}
        first = 0
        for last, key, failure in [*marks, (len(batch), None, None)]:
            if last > first:
                part = {name: values[first:last].copy() for name, values in outputs.items()}
                parts.append(part)
                centres += [centre for centre, _ in batch[first:last]]
            first = last
            if key is not None:
                yield key[0], failure or _features(tower, parts, centres)
                parts, centres = [], []
        batch.clear()
        marks.clear()

    for key, stream in itertools.groupby(items, key=lambda item: item[0]):
        empty, failure = True, None
        try:
            for timed_window in sliding_windows(
                    _blocks(stream), tower.window, tower.rate, hop_seconds, centered,
                    tower.repeat_ends):
                empty = False
                if batch and batch[0][1].shape != timed_window[1].shape:  # frames of another size
                    yield from run()
                batch.append(timed_window)
                if len(batch) == batch_size:
                    yield from run()
        except media.Unsuitable as error:
            failure = error
        if empty and failure is None:
            failure = media.Unsuitable('too_short', 'it holds no samples or frames')
        marks.append((len(batch), (key,), failure))
        if not batch:
            yield from run()
    yield from run()


def _features(tower: Tower, parts: list[dict[str, np.ndarray]], centres: list[float]):
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return tower.result(**outputs, timestamps=np.array(centres))


def _blocks(stream: Iterable[tuple[Hashable, Any]]):
    for _, block in stream:
        if isinstance(block, media.Unsuitable):
            raise block
        yield block
