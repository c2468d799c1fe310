"""A small collection of sounds, and a small synthetic world."""

import csv

import numpy as np
import pytest

from avts_tf.data.synthetic import write_world
from tests.evaluation.sounds import RATE, sound
from tests.helpers import write_sound


@pytest.fixture(scope='session')
def collection(tmp_path_factory):
    """A CSV of 28 sounds of three classes in three folds; one silent, one no sound, one missing."""
    folder, rng = tmp_path_factory.mktemp('sounds'), np.random.default_rng(0)
    rows = []
    for fold in (1, 2, 3):
        for kind in ('low', 'high', 'noise'):
            for number in range(3):
                name = f'{kind}{fold}{number}.wav'
                write_sound(folder / name, sound(kind, 2.4 + 0.2 * number, rng))
                rows.append((name, fold, kind))
    (folder / 'text.wav').write_text('no sound at all')
    write_sound(folder / 'zero.wav', np.zeros(RATE, np.int16))
    rows += [('text.wav', 1, 'low'), ('zero.wav', 2, 'high'), ('gone.wav', 3, 'noise')]
    with open(folder / 'sounds.csv', 'w', newline='') as file:
        csv.writer(file).writerows([('audio_path', 'fold', 'label'), *rows])
    return folder / 'sounds.csv'


@pytest.fixture(scope='session')
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp('world')
    for name, videos, seed in (('train', 48, 0), ('test', 24, 1)):
        write_world(str(folder / name), videos=videos, seconds=1.5, size=24, seed=seed,
                    difficulty=0.0)
    return {name: f'{folder}/{name}-*-of-*' for name in ('train', 'test')}
