"""The audio tower trained from scratch with a softmax on a small collection ("our audio subnet").

Its last layer gives the scores of the classes instead of an embedding, from the mean over time. A
few hundred clips are soon memorised, so each training window is augmented: it lies at a random
place, its loudness changes, two windows are mixed with their labels (mixup), noise is added, and
spans of time and bands of the spectrogram are masked (SpecAugment).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from avts_tf import progress
from avts_tf.config import Config
from avts_tf.data.records import PCM_SCALE
from avts_tf.models.audio import build_audio_network, build_frontend
from avts_tf.models.spec_augment import spec_augment_bank
from avts_tf.training.optimizer import LearningRate, make_optimizer

GAIN_DB = 10.0              # greatest change of loudness, up or down
MIXUP_ALPHA = 0.4           # of the beta distribution of a window's weight in its mixture
NOISE_DB = -90.0, -50.0     # of full scale
MASK_SECONDS = 0.4          # longest masked span of time
MASK_BANDS = 0.3            # greatest share of the bands masked
LABEL_SMOOTHING = 0.1
DRAWS = 5                   # tries for a window that is not the silence short clips are padded with


class Subnet(NamedTuple):
    """A trained network.

    Attributes:
        front_end: layer int16 [K, window_samples] -> float32 [K, steps, bands].
        network: see `models.audio.build_audio_network`.
        window_samples: length of a window.
        parameters: number of parameters of the network.
    """

    front_end: keras.layers.Layer
    network: keras.Model
    window_samples: int
    parameters: int

    def classify(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores of windows.

        Args:
            windows: int16 [K, window_samples].

        Returns:
            Probabilities float32 [K, classes], and conv5 float32 [K, channels].
        """
        outputs = self.network(self.front_end(windows), training=False)
        return tf.nn.softmax(outputs['embedding']).numpy(), outputs['conv5'].numpy()


def train_subnet(
    config: Config, waveforms: Sequence[np.ndarray], labels: np.ndarray, class_count: int,
    seed: int, window_seconds: float, title: str = '',
) -> Subnet:
    """Trains the network on windows of clips.

    Args:
        config: its log-mel, the width of its audio tower and its `train` are used.
        waveforms: int16 [samples] each.
        labels: int [N].
        class_count: number of classes.
        seed: of weights and augmentation.
        window_seconds: length of a window.
        title: of the progress bar.

    Returns:
        A `Subnet`.
    """
    config = dataclasses.replace(
        config,
        clip=dataclasses.replace(
            config.clip, frames=max(1, round(window_seconds * config.clip.fps))),
        towers=dataclasses.replace(
            config.towers, embedding_size=class_count, head='average', normalize='none'))
    train, samples = config.train, config.clip.window_samples
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    waveforms = [np.pad(waveform, (0, max(0, samples - len(waveform))))
                 for waveform in waveforms]
    front_end = build_frontend(config)
    front_end.build([None, samples])
    front_end.adapt(waveform[None] for waveform in waveforms)
    steps, bands = front_end.compute_output_shape([None, samples])[1:]
    network = build_audio_network(config, steps)
    optimizer = make_optimizer(config)
    optimizer.build(network.trainable_variables)

    @tf.function(autograph=False)
    def step(windows: np.ndarray, targets: np.ndarray, mask: np.ndarray) -> tf.Tensor:
        spectrogram = front_end(windows) * mask
        with tf.GradientTape() as tape:
            scores = network(spectrogram, training=True)['embedding']
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, scores))
        variables = network.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    batch_size = min(train.batch_size, len(waveforms))
    epoch_steps = math.ceil(len(waveforms) * train.passes_per_epoch / batch_size)
    learning_rate = LearningRate(train, train.epochs * epoch_steps)
    order, done = np.empty(0, int), 0
    longest_mask = min(round(MASK_SECONDS / config.logmel.stft_hop_seconds), steps - 1)
    masks = spec_augment_bank(steps, bands, longest_mask + 1, round(MASK_BANDS * bands) + 1, seed)
    bar = progress.bar(range(train.epochs), f'{title}: training', unit='epoch', leave=False)
    for _ in bar:
        losses = []  # read at the end of the epoch: a step need not wait for the one before
        for _ in range(epoch_steps):
            while len(order) < batch_size:
                order = np.concatenate([order, rng.permutation(len(waveforms))])
            chosen, order = order[:batch_size], order[batch_size:]
            windows = np.stack([draw_window(waveforms[i], samples, rng) for i in chosen])
            targets = np.eye(class_count, dtype=np.float32)[labels[chosen]]
            windows, targets = augment(windows, targets, rng)
            mask = masks[rng.integers(0, len(masks), batch_size)]
            learning_rate.set(optimizer, done)
            losses.append(step(windows, targets, mask))
            done += 1
        loss = sum(float(each) for each in losses) / epoch_steps
        learning_rate.end_epoch(loss)
        bar.set_postfix(loss=f'{loss:.3f}')
    return Subnet(front_end, network, samples, network.count_params())


def draw_window(waveform: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """A window at a random place, one that is not all digital silence if a few tries find one.

    Args:
        waveform: int16 [length], at least `samples` long.
        samples: length of the window.
        rng: source of randomness.

    Returns:
        float32 [samples] in [-1, 1].
    """
    for _ in range(DRAWS):
        start = rng.integers(0, len(waveform) - samples + 1)
        window = waveform[start:start + samples]
        if window.any():
            break
    return window.astype(np.float32) / PCM_SCALE


def augment(
    windows: np.ndarray, targets: np.ndarray, rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Changes a batch: loudness, mixtures of two windows and of their targets, noise.

    Args:
        windows: float32 [B, samples] in [-1, 1].
        targets: float32 [B, classes], each row adds up to 1.
        rng: source of randomness.

    Returns:
        The changed windows and targets, float32; rows of targets still add up to 1.
    """
    batch = len(windows)
    gain = 10 ** (rng.uniform(-GAIN_DB, GAIN_DB, [batch, 1]) / 20)
    windows = windows * gain.astype(np.float32)
    weight = rng.beta(MIXUP_ALPHA, MIXUP_ALPHA, [batch, 1]).astype(np.float32)
    weight = np.maximum(weight, 1 - weight)
    other = rng.permutation(batch)
    windows = weight * windows + (1 - weight) * windows[other]
    targets = weight * targets + (1 - weight) * targets[other]
    noise = (10 ** (rng.uniform(*NOISE_DB, [batch, 1]) / 20)).astype(np.float32)
    windows = windows + noise * rng.standard_normal(windows.shape, np.float32)
    return windows, targets * (1 - LABEL_SMOOTHING) + LABEL_SMOOTHING / targets.shape[1]
