"""Exported towers, loaded from their folders to embed arrays.

    tower = avts_tf.load_tower('saved_models/audio_tower')
    features = tower.embed(waveform, sample_rate)
    features.embedding, features.conv5, features.timestamps      # [T, D], [T, C], [T]

`windows` states where windows lie, `embed` what becomes of audio. TensorFlow is imported when a
tower is loaded, and not before: processes that only decode import this file too.
"""

import json
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from avts_tf.errors import UserError
from avts_tf.inference.embed import BATCH_SIZE, embed_streams, pcm_blocks

METADATA = os.path.join('assets', 'metadata.json')


class AudioFeatures(NamedTuple):
    """Outputs of the audio tower, window by window.

    Attributes:
        embedding: float32 [T, D], comparable with the video tower's.
        conv5: float32 [T, C], the fifth convolution averaged over time and frequency: features
            for classification.
        timestamps: float64 [T], centre of each window, in seconds.
    """

    embedding: np.ndarray
    conv5: np.ndarray
    timestamps: np.ndarray


class VideoFeatures(NamedTuple):
    """Outputs of the video tower, window by window.

    Attributes:
        embedding: float32 [T, D], comparable with the audio tower's.
        features: float32 [T, C], the last convolution averaged over time and space.
        timestamps: float64 [T], centre of each window, in seconds.
    """

    embedding: np.ndarray
    features: np.ndarray
    timestamps: np.ndarray


class Tower:
    """An exported tower, loaded from its folder alone; `load_tower` makes it.

    Attributes:
        path: folder of the version.
        metadata: dict, what the export states about the tower; see saved_models/README.md.
        rate: samples or frames per second.
        window: samples or frames in a window.
    """

    name: str              # 'audio_tower' or 'video_tower'
    name_of_input: str     # of the signature
    signature: str         # that windows are run by
    result: type[AudioFeatures] | type[VideoFeatures]
    repeat_ends: bool      # what is missing of a window: the first or last item again, or zeros

    def __init__(
        self, path: str, metadata: dict[str, Any], loaded: Any, rate: float, window: int,
    ) -> None:
        self.path, self.metadata, self.rate, self.window = path, metadata, rate, window
        self._loaded = loaded  # its variables live as long as it does
        self._signature = loaded.signatures[self.signature]

    def run(self, windows: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs for a batch of windows [batch, window, ...]: dict of float32 [batch, size]."""
        outputs = self._signature(**{self.name_of_input: windows})
        return {name: value.numpy() for name, value in outputs.items()}

    def _embed(
        self, blocks: Iterable[np.ndarray], hop_seconds: float | None, centered: bool,
        batch_size: int,
    ) -> Any:
        items = ((None, block) for block in blocks)
        (_, features), = embed_streams(self, items, hop_seconds, centered, batch_size)
        return features


class AudioTower(Tower):
    """An exported audio tower; see `Tower`."""

    rate: int

    name, name_of_input, signature = 'audio_tower', 'waveform', 'pcm'
    result, repeat_ends = AudioFeatures, False

    def embed(
        self, waveform: np.ndarray, sample_rate: int, hop_seconds: float | None = None,
        centered: bool = False, batch_size: int = BATCH_SIZE,
    ) -> AudioFeatures:
        """Embeds audio, window by window.

        Args:
            waveform: int16, uint8, int32 or, in [-1, 1], float [samples] or [samples, channels].
                Channels are averaged.
            sample_rate: Hz. Where the tower's differs, the audio is resampled.
            hop_seconds: step between windows; None sets them end to end.
            centered: whether the first window's centre is the first sample.
            batch_size: windows that go through the tower at once.

        Returns:
            `AudioFeatures`.

        Raises:
            UserError: the audio is empty, holds NaN or infinite samples, or has another shape or
                dtype; or a value is not allowed.
        """
        blocks = pcm_blocks(waveform, sample_rate, self.rate)
        return self._embed(blocks, hop_seconds, centered, batch_size)


class VideoTower(Tower):
    """An exported video tower; see `Tower`."""

    name, name_of_input, signature = 'video_tower', 'frames', 'serving_default'
    result, repeat_ends = VideoFeatures, True

    def embed(
        self, frames: np.ndarray, fps: float, hop_seconds: float | None = None,
        centered: bool = False, batch_size: int = BATCH_SIZE,
    ) -> VideoFeatures:
        """Embeds a video, window by window.

        Args:
            frames: uint8 [frames, height, width, 3], RGB. The tower crops them to the centred
                square and resizes them.
            fps: frames per second. Where the tower's differs, its frame i is the one whose time
                is nearest to i / the tower's.
            hop_seconds, centered, batch_size: as in `AudioTower.embed`.

        Returns:
            `VideoFeatures`.

        Raises:
            UserError: there is no frame, the shape or the dtype is another, or a value is not
                allowed.
        """
        frames = np.asarray(frames)
        fits = frames.ndim == 4 and frames.shape[-1] == 3 and frames.dtype == np.uint8
        if not fits or not frames.size:
            raise UserError('frames', None, 'must be uint8 [frames, height, width, 3] with at '
                            f'least one pixel, not {frames.dtype} {list(frames.shape)}.')
        if not 0 < fps < float('inf'):
            raise UserError('fps', fps, 'must be above 0.')
        count = max(1, int(len(frames) / fps * self.rate + 1e-6))
        # Halves go to the earlier frame, as they do when records are written.
        index = np.ceil(np.arange(count) / self.rate * fps - 0.5 - 1e-6).astype(int)
        index = index.clip(0, len(frames) - 1)
        blocks = (frames[index[first:first + self.window]]
                  for first in range(0, count, self.window))
        return self._embed(blocks, hop_seconds, centered, batch_size)


TOWERS = {tower.name: tower for tower in (AudioTower, VideoTower)}


def load_tower(path: str | os.PathLike) -> AudioTower | VideoTower:
    """Loads an exported tower.

    Example:
        >>> import numpy as np
        >>> import avts_tf
        >>> tower = avts_tf.load_tower('saved_models/audio_tower')
        >>> waveform = np.random.uniform(-0.5, 0.5, 3 * 44100)         # 3 s of noise
        >>> features = tower.embed(waveform, 44100, hop_seconds=0.1)
        >>> assert len(features.embedding) == len(features.timestamps)

    Args:
        path: folder of a version, or of the tower: then its newest version.

    Returns:
        `AudioTower` or `VideoTower`, by what the folder holds.

    Raises:
        UserError: there is no tower of this project in the folder.
    """
    version = os.path.abspath(newest_version(path))
    metadata = read_metadata(version)
    import tensorflow as tf  # takes seconds
    try:
        loaded = tf.saved_model.load(version)
        clip = metadata['clip']
        if metadata['tower'] == AudioTower.name:
            rate, window = metadata['sample_rate'], clip['window_samples']
        else:
            rate, window = clip['fps'], clip['frames']
        return TOWERS[metadata['tower']](version, metadata, loaded, rate, window)
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        problem = f'does not load as a tower: {type(error).__name__}: {error}'
        raise UserError(None, version, problem) from error


def newest_version(path: str | os.PathLike) -> str:
    """The folder of a tower's newest version, or the path itself where that is a version.

    Raises:
        UserError: there is no SavedModel.
    """
    path = os.fspath(path)
    if not os.path.isdir(path):
        raise UserError(None, path, 'there is no such folder; give one that an export wrote, '
                        'such as saved_models/audio_tower.')
    if _is_model(path):
        return path
    versions = [int(name) for name in os.listdir(path)
                if name.isdigit() and _is_model(os.path.join(path, name))]
    if versions:
        return os.path.join(path, str(max(versions)))
    towers = [name for name in TOWERS if os.path.isdir(os.path.join(path, name))]
    hint = f'; it holds {" and ".join(towers)}: give one of them' if towers else ''
    raise UserError(None, path, f'no SavedModel in it, nor in a folder with a number in it{hint}.')


def _is_model(path: str):
    return os.path.isfile(os.path.join(path, 'saved_model.pb'))


def read_metadata(version: str) -> dict[str, Any]:
    """The metadata of an exported tower, from the folder of a version.

    Raises:
        UserError: it is missing, or not of a tower of this project.
    """
    path = os.path.join(version, METADATA)
    if not os.path.exists(path):
        raise UserError(None, version, f'no tower of this project: it has no {METADATA}. Export '
                        'it again.')
    return read_metadata_file(path)


def read_metadata_file(path: str) -> dict[str, Any]:
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
    raise UserError(None, path, f'not the metadata of a tower of this project: {reason}.')
