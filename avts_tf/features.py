"""Embeds sounds and videos, arrays or files, with exported towers.

    tower = avts_tf.load_tower('saved_models/audio_tower')
    features = tower.embed(waveform, sample_rate)            # embedding [T, D], conv5 [T, C], timestamps [T]

The rule of windows, the same for samples and frames, for arrays and files. Window i starts at round(i * hop_seconds * rate);
windows are taken until one reaches the end, and what the last one lacks is silence, or the last frame again. `timestamps` are
the centres of the windows, in seconds from the first sample or frame. `centered` puts half a window of silence (or of the first
and the last frame) before and after, so that the first centre is 0.

The rule of sound. It becomes mono 16-bit PCM at the tower's sample rate, as the towers were trained on: what lies beyond full
scale is clipped, channels are mixed and rates are changed by FFmpeg's resampler at its defaults (stereo is the mean of both
channels; a count of channels stands for its usual layout, so 6 are 5.1), 8-bit samples are unsigned with 128 as silence.

TensorFlow is imported when a tower is loaded, and not before: decoding processes import this file.
"""

import csv
import itertools
import json
import os
import queue
import threading
from typing import NamedTuple

import av
import numpy as np

from avts_tf import media, workers
from avts_tf.config import UserError

BATCH_SIZE = 32
# Formats of FFmpeg by the dtype of samples.
_FORMATS = {'int16': 's16', 'uint8': 'u8', 'int32': 's32', 'float32': 'flt', 'float64': 'dbl'}
_LAYOUTS = ('mono', 'stereo', '2.1', '4.0', '5.0', '5.1', '6.1', '7.1')  # FFmpeg's own choice by the count of channels
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
            waveform: int16, uint8, int32 or, in [-1, 1], float [samples] or [samples, channels]; 1 to 8 channels.
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
    version = newest_version(path)
    metadata = read_metadata(version)
    import tensorflow as tf  # takes seconds
    try:
        loaded = tf.saved_model.load(version)
        if metadata['tower'] == AudioTower.name:
            return AudioTower(version, metadata, loaded, metadata['sample_rate'], metadata['window_samples'])
        return VideoTower(version, metadata, loaded, metadata['fps'], metadata['frames'])
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
    try:
        with open(path, encoding='utf-8') as file:
            metadata = json.load(file)
        if metadata['tower'] in TOWERS:
            return metadata
        reason = f'"tower" is {metadata["tower"]!r}'
    except FileNotFoundError:
        reason = 'it has no assets/metadata.json'
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f'assets/metadata.json: {type(error).__name__}: {error}'
    raise UserError(f'{version}: no tower of this project ({reason}). Export it again with --mode=export.')


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
    if waveform.ndim == 2 and waveform.shape[1] > len(_LAYOUTS):
        raise UserError(f'waveform: {waveform.shape[1]} channels in {list(waveform.shape)}; must be [samples, channels] with at '
                        f'most {len(_LAYOUTS)}.')
    if sample_rate != int(sample_rate) or not 100 <= sample_rate <= 768_000:
        raise UserError(f'sample_rate={sample_rate}: must be a whole number of Hz, from 100 to 768000.')
    if waveform.dtype.kind == 'f' and not np.isfinite(waveform).all():
        raise UserError('waveform: holds NaN or infinity.')
    return _pcm_blocks(waveform.reshape(len(waveform), -1), int(sample_rate), target_rate)


def _pcm_blocks(waveform, sample_rate, target_rate):
    layout, sample_format = _LAYOUTS[waveform.shape[1] - 1], _FORMATS[waveform.dtype.name]
    resampler = av.AudioResampler('s16', 'mono', target_rate)
    missing = max(1, round(len(waveform) / sample_rate * target_rate))
    for first in itertools.chain(range(0, len(waveform), _BLOCK_SAMPLES), [None]):
        frame = None  # the end: what the resampler still holds
        if first is not None:
            packed = np.ascontiguousarray(waveform[first:first + _BLOCK_SAMPLES]).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, format=sample_format, layout=layout)
            frame.sample_rate = sample_rate
        for resampled in resampler.resample(frame):
            block = resampled.to_ndarray().reshape(-1)[:missing]
            missing -= len(block)
            yield block
    if missing:
        yield np.zeros(missing, np.int16)


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
    hop = window if hop_seconds is None else hop_seconds * rate
    before = window // 2 if centered else 0
    held, first, number = None, -before, 0  # first: place of held[0] in the stream, whose first item has place 0

    def padded(items, front, back):
        mode = {'mode': 'edge'} if repeat_ends else {}
        return np.pad(items, [(front, back)] + [(0, 0)] * (items.ndim - 1), **mode)

    def whole_windows():
        nonlocal held, first, number
        while (start := round(number * hop) - before) + window <= first + len(held):
            yield (start + window / 2) / rate, held[start - first:start - first + window]
            number += 1
        passed = min(max(start - first, 0), len(held) - 1)  # the last one stays: it may have to be repeated
        held, first = held[passed:], first + passed

    for block in blocks:
        if not len(block):
            continue
        held = padded(block, before, 0) if held is None else np.concatenate([held, block])
        yield from whole_windows()
    if held is None:
        return
    if centered:
        held = padded(held, 0, window - before)
        yield from whole_windows()
    end = first + len(held)
    if number == 0 or round((number - 1) * hop) - before + window < end:
        start = round(number * hop) - before
        held = padded(held, 0, max(0, start + window - end))
        yield (start + window / 2) / rate, held[start - first:start - first + window]


def embed_streams(tower, items, hop_seconds=None, centered=False, batch_size=BATCH_SIZE):
    """Embeds several streams, one after the other; windows of neighbours share batches.

    Args:
        tower: `Tower`.
        items: iterable of (key, block): blocks of one stream follow each other under one key; in the place of a block stands a
            `media.Unsuitable` where the stream broke, and it is the last of its key.
        hop_seconds, centered: see `sliding_windows`.
        batch_size: windows that go through the tower at once.

    Yields:
        (key, features), or (key, `media.Unsuitable`), in the order of the streams.

    Raises:
        UserError: a value is not allowed.
    """
    if hop_seconds is not None and not 1 / tower.rate <= hop_seconds < float('inf'):
        raise UserError(f'--hop_seconds={hop_seconds}: must be at least one step of the tower, {1 / tower.rate:g} s.')
    if batch_size < 1:
        raise UserError(f'--batch_size={batch_size}: must be at least 1.')

    def windows_and_ends():
        for key, stream in itertools.groupby(items, key=lambda item: item[0]):
            count = 0
            try:
                for centre, window in sliding_windows(_blocks(stream), tower.window, tower.rate, hop_seconds, centered,
                                                      tower.repeat_ends):
                    count += 1
                    yield key, centre, window
                error = None if count else media.Unsuitable('too_short', 'there is nothing in it')
            except media.Unsuitable as caught:
                error = caught
            yield key, None, error

    batch, waiting, rows, centres = [], [], {}, []

    def flush():
        nonlocal batch, waiting, rows, centres
        outputs = tower.run(np.stack(batch)) if batch else {}
        taken = 0
        for key, centre, error in waiting:
            if centre is not None:
                for name, values in outputs.items():
                    rows.setdefault(name, []).append(values[taken])
                centres.append(centre)
                taken += 1
                continue
            if error is None:
                error = tower.result(**{name: np.stack(values) for name, values in rows.items()}, timestamps=np.array(centres))
            yield key, error
            rows, centres = {}, []
        batch, waiting = [], []

    for key, centre, third in windows_and_ends():
        if centre is None:
            waiting.append((key, None, third))
        else:
            waiting.append((key, centre, None))
            batch.append(third)
        if len(batch) == batch_size or not batch:
            yield from flush()
    yield from flush()


def _blocks(stream):
    for _, block in stream:
        if isinstance(block, media.Unsuitable):
            raise block
        yield block


def extract_features(inputs, output_dir, towers, *, hop_seconds=None, centered=False, batch_size=BATCH_SIZE,
                     output_format='npz', overwrite=False, skip_existing=False, num_workers=0, timeout_seconds=120.0, say=print):
    """Embeds files and writes what comes out; a file that cannot be used is reported and left out.

    Written below `output_dir`, each aside and then renamed:

        ID.npz          the fields of `AudioFeatures` or `VideoFeatures`; ID is the file's path below the input, without its suffix
        report.csv      every file with what became of it
        features.json   which tower and which windows they are of

    With two towers the names are ID.audio.npz and ID.video.npz. With `output_format='tfrecord'` all files of a tower make one set
    `audio_tower-00000-of-00001` instead: one `tf.train.Example` per file, see `encode_features`.

    Args:
        inputs: files, folders, globs or CSVs.
        output_dir: folder.
        towers: dict of tower folder → which of the sources it embeds, a function of a `layouts.Source`.
        hop_seconds, centered, batch_size: see `AudioTower.embed`.
        output_format: 'npz' or 'tfrecord'.
        overwrite, skip_existing: what to do about output that is there already; neither refuses to begin.
        num_workers: decoding processes; 0 takes one per processor.
        timeout_seconds: longest wait for the next block of a file.
        say: what to print with.

    Returns:
        dict: 'written', 'existing', 'skipped' (reason → count), 'seconds' of input embedded.

    Raises:
        UserError: an input, a tower or a value is no good, output is in the way, or it cannot be written.
    """
