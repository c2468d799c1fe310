"""What the tests of the other systems share: a small configuration of each, and one test of all."""

import keras
import numpy as np
import tensorflow as tf

from avts_tf import metrics
from avts_tf.config import make_config
from avts_tf.data.pipeline import make_dataset
from avts_tf.data.sampling import Kind
from avts_tf.data.state import PipelineState
from avts_tf.evaluation import action
from avts_tf.models.audio import embed_waveform
from avts_tf.models.build import build_model

SMALL = {'frame_size': 16, 'frames': 8, 'batch_size': 8, 'warmup_steps': 0, 'schedule': 'constant',
         'flip': False,
         'crop_scale_min': 1.0, 'learning_rate': 3e-3, 'audio_width': 0.1}


def config_of(system, teacher='', **overrides):
    """A small configuration in the regime that the system learns from."""
    regime = {'l3': 'easy', 'multisensory': 'hard', 'soundnet': 'easy'}[system]
    teacher = teacher if system == 'soundnet' else ''
    return make_config('tiny', system=system, regime=regime, teacher=teacher,
                       **{**SMALL, **overrides})


def learn_by_heart(system, clips, teacher=''):
    """Has a system learn one batch of clips, measures its pairs and takes it through the probes."""
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
    # K = 4, trained with 2
    assert pairs['distance'].shape == (8, 4) and np.isfinite(pairs['distance']).all()
    sound = np.zeros([3, config.clip.window_samples], np.float32)
    conv5 = embed_waveform(model.audio_tower, tf.constant(sound))['conv5']
    assert conv5.shape[0] == 3 and conv5.shape.rank == 2
    for streams in ('audio',) if system == 'soundnet' else ('audio', 'video', 'both'):
        classifier = action.build_classifier(model, streams, 5, True, 0)
        # the softmax alone
        assert len(classifier.trainable_variables) == 2
        inputs = {name: tf.zeros([2, *tensor.shape[1:]], tensor.dtype) for name,
                  tensor in classifier.input.items()}
        assert classifier(inputs).shape == (2, 5)
