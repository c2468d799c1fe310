"""Embeds sounds and videos, arrays or files, with exported towers.

    tower = avts_tf.load_tower('saved_models/audio_tower')
    features = tower.embed(waveform, sample_rate)            # embedding [T, D], conv5 [T, C], timestamps [T]

The rule of windows, the same for samples and frames, for arrays and files, and that of the signature `windows`. Window i starts
at round(i * hop_seconds * rate), halves up, the hop taken to the microsecond. There are 1 + ceil((items - window) / hop) windows,
at least one, but none that starts after the end; what the last one lacks is silence, or the last frame again. `timestamps` are the
centres of the windows, in seconds from the first sample or frame. `centered` puts half a window of silence (or of the first and
the last frame) before and after, so that the first centre is 0 (half a frame later where a window has an odd number of them).

The rule of sound. It becomes mono 16-bit PCM at the tower's sample rate, as the towers were trained on, by FFmpeg's resampler
at its defaults: what lies beyond full scale is clipped; 8-bit samples are unsigned with 128 as silence. The channels of an array,
in no known order, are averaged; those of a file are mixed as avts_tf/data/media/__init__.py tells.

TensorFlow is imported when a tower is loaded, and not before: processes that only decode import this file too.
"""

import fractions
import itertools
import json
import math
import os
from typing import NamedTuple

import av
import numpy as np

from avts_tf.data import media
from avts_tf.errors import UserError

BATCH_SIZE = 32
MICROSECONDS = 1_000_000
# Formats of FFmpeg by the dtype of samples.
_FORMATS = {'int16': 's16', 'uint8': 'u8', 'int32': 's32', 'float32': 'flt', 'float64': 'dbl'}
SAMPLE_RATES = range(100, 768_001)  # Hz, that sound may be resampled from
_MOST_CHANNELS = 64
_BLOCK_SAMPLES = 65536


class AudioFeatures(NamedTuple):
    """What the audio tower makes of a sound.

    Attributes:
        embedding: float32 [T, D], comparable with the video tower's.
        conv5: float32 [T, C], the fifth convolution averaged over time and frequency: features for classification.
        timestamps: float64 [T], centre of each window, in seconds.
    """

    embedding: np.ndarray
    conv5: np.ndarray
    timestamps: np.ndarray


class VideoFeatures(NamedTuple):
    """What the video tower makes of a video.

    Attributes:
        embedding: float32 [T, D], comparable with the audio tower's.
        features: float32 [T, C], the last convolution averaged over time and space.
        timestamps: float64 [T], centre of each window, in seconds.
    """

    embedding: np.ndarray
    features: np.ndarray
    timestamps: np.ndarray


class Tower:
    """An exported tower, loaded from its folder alone.

    Attributes:
        path: folder of the version.
        metadata: dict, what the export says of the tower.
        rate: samples or frames per second.
        window: samples or frames in a window.
    """

    def __init__(self, path, metadata, loaded, rate, window):
        self.path, self.metadata, self.rate, self.window = path, metadata, rate, window
        self._loaded = loaded  # its variables live as long as it does
        self._signature = loaded.signatures[self.signature]

    def run(self, windows):
        """Outputs for a batch of windows [batch, window, ...]: dict of float32 [batch, size]."""
        outputs = self._signature(**{self.name_of_input: windows})
        return {name: value.numpy() for name, value in outputs.items()}

    def _embed(self, blocks, hop_seconds, centered, batch_size):
        (_, features), = embed_streams(self, ((None, block) for block in blocks), hop_seconds, centered, batch_size)
        return features


class AudioTower(Tower):
    """Embeds sounds; see `Tower`."""

    name, name_of_input, signature, result, repeat_ends = 'audio_tower', 'waveform', 'pcm', AudioFeatures, False

    def embed(self, waveform, sample_rate, hop_seconds=None, centered=False, batch_size=BATCH_SIZE):
        """Embeds a sound, window by window, by the rules at the head of this file.

        Args:
            waveform: int16, uint8, int32 or, in [-1, 1], float [samples] or [samples, channels].
            sample_rate: Hz.
            hop_seconds: step between windows; None sets them end to end.
            centered: whether the first window's centre is the first sample.
            batch_size: windows that go through the tower at once.

        Returns:
            `AudioFeatures`.

        Raises:
            UserError: the sound is empty, holds NaN or infinity, or has another shape or dtype; or a value is not allowed.
        """
        return self._embed(pcm_blocks(waveform, sample_rate, self.rate), hop_seconds, centered, batch_size)


class VideoTower(Tower):
    """Embeds frames; see `Tower`."""

    name, name_of_input, signature, result, repeat_ends = 'video_tower', 'frames', 'serving_default', VideoFeatures, True

    def embed(self, frames, fps, hop_seconds=None, centered=False, batch_size=BATCH_SIZE):
        """Embeds a video, window by window, by the rules at the head of this file.

        Args:
            frames: uint8 [frames, height, width, 3], RGB. Cropped to the centred square and resized by the tower.
            fps: frames per second. Where the tower's differs, its frame i is the one whose time is nearest to i / the tower's.
            hop_seconds, centered, batch_size: as in `AudioTower.embed`.

        Returns:
            `VideoFeatures`.

        Raises:
            UserError: there is no frame, the shape or the dtype is another, or a value is not allowed.
        """
        frames = np.asarray(frames)
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
            raise UserError(f'frames: must be uint8 [frames, height, width, 3] with at least one pixel, not {frames.dtype} '
                            f'{list(frames.shape)}.')
        if not 0 < fps < float('inf'):
            raise UserError(f'fps={fps}: must be above 0.')
        count = max(1, int(len(frames) / fps * self.rate + 1e-6))
        # Halves go to the earlier frame, as they do when records are written.
        index = np.ceil(np.arange(count) / self.rate * fps - 0.5 - 1e-6).astype(int).clip(0, len(frames) - 1)
        blocks = (frames[index[first:first + self.window]] for first in range(0, count, self.window))
        return self._embed(blocks, hop_seconds, centered, batch_size)


TOWERS = {tower.name: tower for tower in (AudioTower, VideoTower)}


def load_tower(path):
    """Loads an exported tower.

    Args:
        path: folder of a version, or of the tower: then its newest version.

    Returns:
        `AudioTower` or `VideoTower`.

    Raises:
        UserError: there is no tower of this project in the folder.
    """
    version = os.path.abspath(newest_version(path))
    metadata = read_metadata(version)
    import tensorflow as tf  # takes seconds
    try:
        loaded = tf.saved_model.load(version)
        if metadata['tower'] == AudioTower.name:
            return AudioTower(version, metadata, loaded, metadata['sample_rate'], metadata['clip']['window_samples'])
        return VideoTower(version, metadata, loaded, metadata['clip']['fps'], metadata['clip']['frames'])
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        raise UserError(f'{version}: does not load as a tower: {type(error).__name__}: {error}') from error


def newest_version(path):
    """The folder of a tower's newest version, or the path itself where that is a version.

    Raises:
        UserError: there is no SavedModel.
    """
    path = os.fspath(path)
    if not os.path.isdir(path):
        raise UserError(f'{path}: there is no such folder; give one that --mode=export wrote, such as saved_models/audio_tower.')
    if _is_model(path):
        return path
    versions = [int(name) for name in os.listdir(path) if name.isdigit() and _is_model(os.path.join(path, name))]
    if versions:
        return os.path.join(path, str(max(versions)))
    towers = [name for name in TOWERS if os.path.isdir(os.path.join(path, name))]
    hint = f'; it holds {" and ".join(towers)}: give one of them' if towers else ''
    raise UserError(f'{path}: no SavedModel in it, nor in a folder with a number in it{hint}.')


def _is_model(path):
    return os.path.isfile(os.path.join(path, 'saved_model.pb'))


def read_metadata(version):
    """What the export says of a tower: the dict in `assets/metadata.json` of a version's folder.

    Raises:
        UserError: it is missing or none of this project's.
    """
    path = os.path.join(version, 'assets', 'metadata.json')
    if not os.path.exists(path):
        raise UserError(f'{version}: no tower of this project: it has no assets/metadata.json. Export it again with --mode=export.')
    return read_metadata_file(path)


def read_metadata_file(path):
    """As `read_metadata`, of the file itself."""
    try:
        with open(path, encoding='utf-8') as file:
            metadata = json.load(file)
        if metadata['tower'] in TOWERS:
            return metadata
        reason = f'its "tower" is {metadata["tower"]!r}'
    except OSError as error:
        reason = f'{error.strerror}'
    except (ValueError, KeyError, TypeError) as error:
        reason = f'{type(error).__name__}: {error}'
    raise UserError(f'{path}: not the metadata of a tower of this project: {reason}.')


def pcm_blocks(waveform, sample_rate, target_rate):
    """Turns a sound into mono 16-bit PCM by the rule at the head of this file.

    Args:
        waveform, sample_rate: see `AudioTower.embed`.
        target_rate: Hz.

    Returns:
        Iterator of int16 [samples], together round(samples / sample_rate * target_rate), at least 1.

    Raises:
        UserError: see `AudioTower.embed`.
    """
    waveform = np.asarray(waveform)
    if waveform.dtype == np.float16:
        waveform = waveform.astype(np.float32)
    if waveform.dtype.name not in _FORMATS:
        raise UserError(f'waveform: samples must be {", ".join(_FORMATS)}, not {waveform.dtype}.')
    if waveform.ndim not in (1, 2):
        raise UserError(f'waveform: must be [samples] or [samples, channels], not of shape {list(waveform.shape)}.')
    if not waveform.size:
        raise UserError('waveform: is empty; there is nothing to embed.')
    if waveform.ndim == 2 and waveform.shape[1] > _MOST_CHANNELS:
        raise UserError(f'waveform: {waveform.shape[1]} channels in {list(waveform.shape)}; must be [samples, channels] with at '
                        f'most {_MOST_CHANNELS}.')
    if sample_rate not in SAMPLE_RATES:
        raise UserError(f'sample_rate={sample_rate}: must be a whole number of Hz, from {SAMPLE_RATES[0]} to {SAMPLE_RATES[-1]}.')
    if waveform.dtype.kind == 'f' and not np.isfinite(waveform).all():
        raise UserError('waveform: holds NaN or infinity.')
    return _pcm_blocks(waveform.reshape(len(waveform), -1), int(sample_rate), target_rate)


def _pcm_blocks(waveform, sample_rate, target_rate):
    resampler = av.AudioResampler('s16', 'mono', target_rate)
    missing = max(1, round(len(waveform) / sample_rate * target_rate))
    for first in itertools.chain(range(0, len(waveform), _BLOCK_SAMPLES), [None]):
        frame = None  # the end: what the resampler still holds
        if first is not None:
            block = _mono(waveform[first:first + _BLOCK_SAMPLES])
            frame = av.AudioFrame.from_ndarray(block[None], format=_FORMATS[block.dtype.name], layout='mono')
            frame.sample_rate = sample_rate
        for resampled in resampler.resample(frame):
            block = resampled.to_ndarray().reshape(-1)[:missing]
            missing -= len(block)
            yield block
    if missing:
        yield np.zeros(missing, np.int16)


def _mono(samples):
    """[samples, channels] of any dtype -> [samples], of the same dtype if there is but one channel, else float64 in [-1, 1]."""
    if samples.shape[1] == 1:
        return np.ascontiguousarray(samples[:, 0])
    mean = samples.mean(1, dtype=np.float64)
    if samples.dtype.kind == 'f':
        return mean
    bits = 8 * samples.itemsize - 1
    return (mean - 128 if samples.dtype == np.uint8 else mean) / 2**bits


def sliding_windows(blocks, window, rate, hop_seconds=None, centered=False, repeat_ends=False):
    """Cuts a stream into windows by the rule at the head of this file. Holds a window and a block in memory.

    Args:
        blocks: iterable of arrays [items, ...].
        window: items in a window.
        rate: items per second.
        hop_seconds: step between windows; None sets them end to end.
        centered: whether the first window's centre is the first item.
        repeat_ends: whether what is missing is the first or last item again, and not zeros.

    Yields:
        (centre in seconds, array [window, ...]).
    """
    hop = fractions.Fraction(window)
    if hop_seconds is not None:
        hop = fractions.Fraction(round(hop_seconds * MICROSECONDS), MICROSECONDS) * fractions.Fraction(rate)
    before = window // 2 if centered else 0
    held, first, number = None, -before, 0  # first: place of held[0] in the stream, whose first item has place 0

    def padded(items, front, back):
        mode = {'mode': 'edge'} if repeat_ends else {}
        return np.pad(items, [(front, back)] + [(0, 0)] * (items.ndim - 1), **mode)

    def take(until):
        """Yields the windows that end within what is held, up to number `until`."""
        nonlocal held, first, number
        while number < until:
            start = (2 * number * hop.numerator + hop.denominator) // (2 * hop.denominator) - before
            if start + window > first + len(held):
                passed = min(start - first, len(held) - 1)  # the last item stays: it may have to be repeated
                held, first = held[passed:], first + passed
                return
            yield (start + window / 2) / rate, held[start - first:start - first + window]
            number += 1

    for block in blocks:
        if not len(block):
            continue
        held = padded(block, before, 0) if held is None else np.concatenate([held, block])
        yield from take(math.inf)
    if held is None:
        return
    if centered:
        held = padded(held, 0, window - before)
    items = first + before + len(held)
    count = min(1 + math.ceil(max(0, items - window) / hop), math.ceil(items / hop))
    held = padded(held, 0, window)
    yield from take(count)


def check_windows(tower, hop_seconds, batch_size):
    """Raises a `UserError` where a tower cannot have such windows."""
    if hop_seconds is not None and not 1 / tower.rate <= hop_seconds < math.inf:
        raise UserError(f'--hop_seconds={hop_seconds}: must be at least one step of the {tower.name}, {1 / tower.rate:g} s.')
    if batch_size < 1:
        raise UserError(f'--batch_size={batch_size}: must be at least 1.')


def embed_streams(tower, items, hop_seconds=None, centered=False, batch_size=BATCH_SIZE):
    """Embeds several streams, one after the other; windows of neighbours share batches.

    Args:
        tower: `Tower`.
        items: iterable of (key, block): the blocks of one stream follow each other under one key. In the place of a block may
            stand a `media.Unsuitable`: the stream broke there.
        hop_seconds, centered: see `sliding_windows`.
        batch_size: windows that go through the tower at once.

    Yields:
        (key, features), or (key, `media.Unsuitable`), in the order of the streams.

    Raises:
        UserError: a value is not allowed.
    """
    check_windows(tower, hop_seconds, batch_size)
    batch, marks = [], []  # marks: (windows of the batch that lie before it, key, failure), one per stream that has ended
    parts, centres = [], []  # of the stream that has not

    def run():
        """Runs what is in the batch, and yields the streams that have ended."""
        nonlocal parts, centres
        outputs = tower.run(np.stack([window for _, window in batch])) if batch else {}
        first = 0
        for last, key, failure in [*marks, (len(batch), None, None)]:
            if last > first:
                parts.append({name: values[first:last].copy() for name, values in outputs.items()})
                centres += [centre for centre, _ in batch[first:last]]
            first = last
            if key is not None:
                yield key[0], failure or tower.result(
                    **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, timestamps=np.array(centres))
                parts, centres = [], []
        batch.clear()
        marks.clear()

    for key, stream in itertools.groupby(items, key=lambda item: item[0]):
        empty, failure = True, None
        try:
            for timed_window in sliding_windows(_blocks(stream), tower.window, tower.rate, hop_seconds, centered,
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
            failure = media.Unsuitable('too_short', 'there is nothing in it')
        marks.append((len(batch), (key,), failure))
        if not batch:
            yield from run()
    yield from run()


def _blocks(stream):
    for _, block in stream:
        if isinstance(block, media.Unsuitable):
            raise block
        yield block
