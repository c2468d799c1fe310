"""The systems that AVTS is compared with: each learns what it should from the same batches, and the probes can use it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from avts_tf import metrics
from avts_tf.config import make_config
from avts_tf.data.pipeline import make_dataset
from avts_tf.data.sampling import NO_PAIR, Kind
from avts_tf.data.state import PipelineState
from avts_tf.data.synthetic import OBJECTS, make_video, write_world
from avts_tf.errors import UserError
from avts_tf.evaluation import action
from avts_tf.models.audio import embed_waveform
from avts_tf.models.baselines.common import LogSpectrogram
from avts_tf.models.build import build_model
from avts_tf.training.run_folder import load_model
from avts_tf.training.trainer import train

SMALL = {'frame_size': 16, 'frames': 8, 'batch_size': 8, 'warmup_steps': 0, 'schedule': 'constant', 'flip': False,
         'crop_scale_min': 1.0, 'learning_rate': 3e-3, 'audio_width': 0.1}


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    prefix = str(tmp_path_factory.mktemp('clips') / 'clips')
    write_world(prefix, videos=8, size=16, seconds=1.5, difficulty=0.0)
    return prefix + '-*-of-*'


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    """A SavedModel that tells the synthetic world's objects by their looks: what it is taught is frames and their labels."""
    frames, labels = [], []
    for index in range(48):
        video, _ = make_video(index, seed=7, seconds=0.5, size=16, difficulty=0.0)
        frames += [tf.io.decode_jpeg(jpeg).numpy() for jpeg in video.frames[::4]]
        labels += [video.labels[0][0]] * len(video.frames[::4])
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input([16, 16, 3]), keras.layers.Conv2D(16, 3, activation='relu'),
                            keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(len(OBJECTS), activation='softmax')])
    net.compile(keras.optimizers.Adam(0.02), 'sparse_categorical_crossentropy', metrics=['accuracy'])
    history = net.fit(np.array(frames) / 255.0, np.array(labels), epochs=30, batch_size=32, verbose=0)
    assert history.history['accuracy'][-1] > 0.8
    path = str(tmp_path_factory.mktemp('teacher') / 'objects')
    net.export(path, verbose=False)
    return path


def config_of(system, teacher='', **overrides):
    regime = {'l3': 'easy', 'multisensory': 'hard', 'soundnet': 'easy'}[system]
    teacher = teacher if system == 'soundnet' else ''
    return make_config('tiny', system=system, regime=regime, teacher=teacher, **{**SMALL, **overrides})


@pytest.mark.parametrize('system', [*(pytest.param(name, marks=pytest.mark.slow) for name in ('l3', 'multisensory')), 'soundnet'])
def test_a_batch_is_learnt_by_heart_and_the_probes_take_the_model(system, clips, teacher):
    config = config_of(system, teacher)
    model = build_model(config)
    state = PipelineState()
    state.mix.assign([0.0, 1.0, 0.0] if system == 'multisensory' else [1.0, 0.0, 0.0])
    batch = next(iter(make_dataset(clips, config, state=state)))
    negative = Kind.HARD if system == 'multisensory' else Kind.EASY
    assert set(batch['kind'].numpy().ravel()) == {Kind.POSITIVE, negative}
    model.compile(keras.optimizers.Adam(3e-3))
    step = tf.function(model.train_step)
    losses = []
    for _ in range(30):
        model.loss_metric.reset_state()
        losses.append(float(step(batch)['loss']))
    assert losses[-1] < 0.5 * losses[0]

    pairs = metrics.pair_distances(model, make_dataset(clips, config, training=False))
    assert pairs['distance'].shape == (8, 4) and np.isfinite(pairs['distance']).all()    # K = 4, trained with 2
    sound = np.zeros([3, config.clip.window_samples], np.float32)
    conv5 = embed_waveform(model.audio_tower, tf.constant(sound))['conv5']
    assert conv5.shape[0] == 3 and conv5.shape.rank == 2
    for streams in ('audio',) if system == 'soundnet' else ('audio', 'video', 'both'):
        classifier = action.build_classifier(model, streams, 5, True, 0)
        assert len(classifier.trainable_variables) == 2                                  # the softmax alone
        inputs = {name: tf.zeros([2, *tensor.shape[1:]], tensor.dtype) for name, tensor in classifier.input.items()}
        assert classifier(inputs).shape == (2, 5)


def test_early_fusion_hears_and_sees(clips):
    model = build_model(config_of('multisensory'))
    batch = next(iter(make_dataset(clips, model.config, training=False)))
    frames, sound = batch['video'], batch['audio'][:, 0]
    fused = model.fused({'video': frames, 'audio': sound}, training=False)
    for changed in ({'video': frames[::-1], 'audio': sound}, {'video': frames, 'audio': sound[::-1]}):
        assert np.abs(model.fused(changed, training=False) - fused).max() > 1e-3
    silent = model.video_tower(frames, training=False)['features']
    assert np.abs(silent - fused).max() > 1e-3


def test_logit_losses_and_distances_by_hand(clips):
    model = build_model(config_of('l3'))
    logit = tf.constant([[2.0, -1.0, 5.0]])
    batch = {'label': tf.constant([[1.0, 0.0, 0.0]]), 'kind': tf.constant([[Kind.POSITIVE, Kind.EASY, NO_PAIR]])}
    expected = (np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-1.0)) + 0.0) / 3
    assert float(model._batch_loss({'logit': logit}, batch)) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(model.distances({'logit': logit})[0], -np.log(1 / (1 + np.exp(-logit[0].numpy()))), rtol=1e-4)


def test_soundnet_distance_is_the_divergence(teacher):
    model = build_model(config_of('soundnet', teacher))
    truth, guess = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.6, 0.3])
    outputs = {'video': tf.constant(truth[None], tf.float32), 'audio': tf.constant(np.log([[truth, guess]]), tf.float32)}
    expected = (truth * np.log(truth / guess)).sum()
    np.testing.assert_allclose(model.distances(outputs)[0], [0.0, expected], atol=1e-5)
    # The teacher's weights are not the student's to learn or to keep.
    assert {id(variable) for variable in model.weights} == {id(variable) for variable in model.audio_tower.weights}


def test_spectrogram_of_l3():
    layer = LogSpectrogram(48000, 0.010, 0.005, 512)
    tone = np.sin(2 * np.pi * 6000 * np.arange(48000) / 48000).astype(np.float32)[None]
    spectrogram = layer(tone).numpy()
    assert spectrogram.shape == (1, 199, 257)               # the published size, for 1 s at 48 kHz
    assert (spectrogram[0].argmax(-1) == 64).all()          # 6000 Hz / (48000 Hz / 512)
    sounds = [tone, np.random.default_rng(0).normal(size=[1, 48000]).astype(np.float32)]
    layer.adapt(sounds)
    values = np.concatenate([layer(sound).numpy()[0] for sound in sounds])
    np.testing.assert_allclose(values.mean(0), 0.0, atol=1e-3)
    np.testing.assert_allclose(values.std(0), 1.0, atol=1e-3)
    assert LogSpectrogram.from_config(layer.get_config())(tone).shape == (1, 199, 257)


@pytest.mark.parametrize(('overrides', 'words'), [
    ({'system': 'l3', 'regime': 'hard'}, 'give --regime=easy'),
    ({'system': 'l3', 'regime': 'easy:1,hard:1'}, 'give --regime=easy'),
    ({'system': 'multisensory', 'regime': 'mixed'}, 'give --regime=hard'),
    ({'system': 'soundnet'}, '--teacher'),
    ({'system': 'soundnet', 'teacher': 'NoSuchNet'}, '--teacher=NoSuchNet: neither'),
    ({'system': 'soundnet', 'audio_windows': 1}, '--audio_windows=1'),
])
def test_mistakes(overrides, words):
    with pytest.raises(UserError, match=words):
        build_model(make_config('tiny', **{**SMALL, **overrides}))


@pytest.mark.slow
def test_trained_and_loaded_by_the_same_commands(clips, teacher, tmp_path):
    config = config_of('soundnet', teacher, epochs=1)
    model = train(config, clips, str(tmp_path / 'run'))
    loaded, epochs = load_model(str(tmp_path / 'run'))
    assert epochs == 1 and loaded.name == 'soundnet'
    batch = next(iter(make_dataset(clips, config, training=False)))
    for name, value in model.embed(batch).items():
        np.testing.assert_allclose(loaded.embed(batch)[name], value, rtol=1e-4, atol=1e-5)
