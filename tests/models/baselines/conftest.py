"""What the tests of the other systems share: a few clips, and the classifier that teaches one."""

import avts_tf  # noqa: F401  first, because it sets how TensorFlow runs

# isort: split

import keras
import numpy as np
import pytest
import tensorflow as tf

from avts_tf.data.synthetic import write_world
from avts_tf.data.worlds.struck import OBJECTS, make_video


@pytest.fixture(scope='session')
def clips(tmp_path_factory):
    prefix = str(tmp_path_factory.mktemp('clips') / 'clips')
    write_world(prefix, videos=8, size=16, seconds=1.5, difficulty=0.0)
    return prefix + '-*-of-*'


@pytest.fixture(scope='session')
def teacher(tmp_path_factory):
    """A SavedModel that classifies the synthetic world's objects by their looks."""
    frames, labels = [], []
    for index in range(48):
        video, _ = make_video(index, seed=7, seconds=0.5, size=16, difficulty=0.0)
        frames += [tf.io.decode_jpeg(jpeg).numpy() for jpeg in video.frames[::4]]
        labels += [video.labels[0][0]] * len(video.frames[::4])
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input([16, 16, 3]), keras.layers.Conv2D(16, 3, activation='relu'),
                            keras.layers.GlobalMaxPooling2D(),
                            keras.layers.Dense(len(OBJECTS), activation='softmax')])
    net.compile(keras.optimizers.Adam(0.02), 'sparse_categorical_crossentropy',
                metrics=['accuracy'])
    history = net.fit(np.array(frames) / 255.0, np.array(labels), epochs=30, batch_size=32,
                      verbose=0)
    assert history.history['accuracy'][-1] > 0.8
    path = str(tmp_path_factory.mktemp('teacher') / 'objects')
    net.export(path, verbose=False)
    return path
