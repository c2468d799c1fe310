"""Small towers, inputs for them, and comparisons of outputs."""

import math

import numpy as np
import tensorflow as tf

from avts_tf import build_two_tower, make_config

WINDOW, FRAMES, SIZE = 7680, 12, 16     # samples, frames and pixels of a window


def small_model(**overrides):
    """Both towers, with variables from a fixed generator: the same on every machine, for good."""
    model = build_two_tower(small_config(**overrides))
    fill(model.audio_tower)
    fill(model.video_tower)
    return model


def small_config(**overrides):
    return make_config('tiny', **{
        'frames': FRAMES, 'fps': 25.0, 'frame_size': SIZE, 'sample_rate': 16000,
        'video_tower': 'mc3', 'video_width': 0.0625, 'audio_width': 0.0625, 'embedding_size': 16,
        'head': 'spans', 'head_spans': 4, 'normalize': 'length', 'audio_windows': 2,
        'bfloat16': False, **overrides})


def fill(tower):
    """Gives every variable a value that it might have after training."""
    rng = np.random.RandomState(0)
    for variable in tower.variables:
        if variable.name in ('moving_variance', 'gamma'):
            value = rng.uniform(0.5, 2.0, variable.shape)
        elif variable.name == 'mean':
            value = rng.uniform(-4.0, -2.0, variable.shape)
        elif variable.name == 'deviation':
            value = rng.uniform(1.0, 2.0, variable.shape)
        elif variable.name in ('moving_mean', 'beta', 'bias'):
            value = rng.normal(0.0, 0.3, variable.shape)
        else:
            fan_in = math.prod(variable.shape[:-1])
            value = rng.normal(0.0, (2.0 / fan_in)**0.5, variable.shape)
        variable.assign(value)


def random_sounds(batch, samples):
    rng = np.random.default_rng(batch)
    steps = rng.uniform(0.01, 0.9, [batch, -(-samples // 800)])
    loudness = np.repeat(steps, 800, axis=1)[:, :samples]
    return (rng.uniform(-32768, 32767, [batch, samples]) * loudness).astype(np.int16)


def floats(sounds):
    """Every int16 sample is a float32 exactly."""
    return (sounds / 32768).astype(np.float32)


def random_frames(batch, frames, height=SIZE, width=SIZE):
    rng = np.random.default_rng(frames)
    brightness = rng.uniform(0.2, 1.0, [batch, frames, 1, 1, 1])
    pixels = rng.integers(0, 256, [batch, frames, height, width, 3])
    return (pixels * brightness).astype(np.uint8)


def formula_sounds(samples, rate=16000):
    """Sounds that formulas make: dict from a name to float32 [samples]."""
    seconds = np.arange(samples) / rate
    sounds = {
        'tone': 0.5 * np.sin(2 * np.pi * 440 * seconds),
        'chord': sum(0.2 * np.sin(2 * np.pi * hertz * seconds) for hertz in (220, 1320, 5000)),
        'clicks': np.where(np.arange(samples) % 1601 == 0, 0.9, 0.0),
        'noise': np.random.RandomState(1).uniform(-0.3, 0.3, samples),
        'chirp': 0.7 * np.sin(2 * np.pi * (100 * seconds + 4000 * seconds**2)),
        'silence': np.zeros(samples),
        'constant': np.full(samples, 0.5),
        'clipped': 3.0 * np.sin(2 * np.pi * 300 * seconds),
    }
    return {name: sound.astype(np.float32) for name, sound in sounds.items()}


def formula_frames(frames, height, width):
    """A disc that moves over a coloured ground, and a chequerboard that blinks.

    Returns:
        uint8 [2, frames, height, width, 3].
    """
    shape = np.arange(frames), np.arange(height), np.arange(width)
    time, y, x = np.meshgrid(*shape, indexing='ij')
    disc = (y - height / 2)**2 + (x - 2 * time)**2 < (height / 4)**2
    ground = np.stack([10 * y % 90, 5 * x % 70, 60 + 0 * x], -1)
    moving = np.where(disc[..., None], [250, 200, 40], ground)
    fields = (y // 4 + x // 4 + time // 3) % 2
    blinking = np.stack([fields * level for level in (255, 120, 30)], -1)
    return np.stack([moving, blinking]).astype(np.uint8)


def as_jpegs(frames):
    """uint8 [batch, frames, height, width, 3] -> array of bytes [batch, frames]."""
    return np.array([[tf.io.encode_jpeg(frame, quality=95).numpy() for frame in clip]
                     for clip in frames], object)


def call(function, **inputs):
    """Outputs of a signature as arrays."""
    outputs = function(**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in outputs.items()}


def keras_outputs(tower, windows):
    return {name: value.numpy() for name, value in tower(windows).items()}


def average(outputs):
    """Mean of the outputs of several windows; embeddings back to length 1."""
    means = {name: np.mean([output[name] for output in outputs], axis=0) for name in outputs[0]}
    means['embedding'] /= np.linalg.norm(means['embedding'], axis=-1, keepdims=True)
    return means


def relative_error(got, expected):
    assert got.shape == expected.shape and got.dtype == np.float32
    return np.abs(got - expected).max() / np.abs(expected).max()


def check(got, expected, tolerance=1e-4):
    """Asserts that outputs are equal, to a part of the greatest value of each.

    Another batch size may take another order of sums: float32 rounding through twenty layers.
    """
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert relative_error(got[name], np.asarray(value)) < tolerance, name
