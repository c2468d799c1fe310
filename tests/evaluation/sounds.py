"""Made sounds, and sources of none, for the tests of audio classification."""

import numpy as np

from avts_tf.data.datasets import Source

RATE = 16000


def sound(kind, seconds, rng, rate=RATE):
    """A made sound of a class, int16: a low or a high tone with overtones, or noise."""
    time = np.arange(round(seconds * rate)) / rate
    loud = 0.2 + 0.1 * np.sin(2 * np.pi * rng.uniform(1, 3) * time + rng.uniform(0, 6))
    if kind == 'noise':
        return (3000 * loud * rng.standard_normal(len(time))).astype(np.int16)
    pitch = {'low': 200, 'high': 1500}[kind] * rng.uniform(0.9, 1.1)
    tone = sum(np.sin(2 * np.pi * pitch * n * time + rng.uniform(0, 6)) / n for n in (1, 2, 3))
    return (8000 * loud * tone + 20 * rng.standard_normal(len(time))).astype(np.int16)


def source(name, label='a', split='fold1', group=None):
    return Source(name, f'/none/{name}', name, label, split, group or name)


def sources_of(rows):
    """Sources of (label, split, group)."""
    return [source(f'{i}.wav', *row) for i, row in enumerate(rows)]
