"""Owens and Efros 2018, multisensory: picture and sound meet half-way up one net that tells whether the sound is shifted.

1-D convolutions on the waveform and 3-D ones on the frames, joined where both have a quarter of the frames' rate, then 3-D residual
blocks and one sigmoid. The published clips last 4.2 s and the sound is shifted by 2 to 6 s of the same video: hard negatives, with
`--frames` for the length and `--hard_gap_seconds` for the shift.
"""

import keras
import tensorflow as tf

from avts_tf.models.baselines.common import (
    FRONTEND,
    PairClassifier,
    RepeatClips,
    SplitLike,
    Waveform,
    batch_inputs,
)
from avts_tf.models.build import need_regime
from avts_tf.models.layers import BatchNorm, ResampleTime
from avts_tf.models.mcx import scaled
from avts_tf.models.two_tower import JoinWindows
from avts_tf.models.video import NormalizePixels

# Channels, kernel and stride of the 1-D convolutions; the sound is then averaged to the steps of the video.
AUDIO = ((64, 65, 4), (128, 15, 4), (128, 15, 4), (256, 15, 4))
JOINT_CHANNELS = (128, 256, 512)


class Multisensory(PairClassifier):
    """A `PairClassifier` by early fusion.

    Attributes:
        fused: model from a dict of `video` uint8 [B, T, S, S, 3] and `audio` int16 [B, samples] to features float32 [B, C].
    """


def build_multisensory(config):
    """Builds the fused net.

    Its audio tower is the part below the fusion; its video tower is the whole net in silence.
    """
    need_regime(config, 'hard', 'whether the sound is shifted')
    keras.utils.set_random_seed(config.train.seed)
    clip, towers = config.clip, config.towers

    def unit(x, layer, channels, kernel, stride, name):
        x = layer(channels, kernel, strides=stride, padding='same', use_bias=False, kernel_initializer='he_normal', name=name)(x)
        return keras.layers.ReLU(name=f'{name}_relu')(BatchNorm(synchronized=towers.sync_batchnorm, name=f'{name}_bn')(x))

    waveform = keras.Input([clip.window_samples], dtype='int16', name='audio')
    sound = Waveform(name=FRONTEND)(waveform)
    samples = x = keras.Input(sound.shape[1:], name='samples')
    for number, (channels, kernel, stride) in enumerate(AUDIO, 1):
        x = unit(x, keras.layers.Conv1D, scaled(channels, towers.audio_width), kernel, stride, f'conv{number}')
    steps = -(-clip.frames // 4)
    x = ResampleTime(steps, name='video_steps')(x)                                             # [batch, steps, channels]
    heard = keras.layers.GlobalAveragePooling1D(name='conv5_mean', dtype='float32')(x)
    network = keras.Model(samples, {'embedding': heard, 'conv5': heard, 'steps': x}, name='audio_network')
    audio_outputs = network(sound)
    audio_tower = keras.Model(waveform, {name: audio_outputs[name] for name in ('embedding', 'conv5')}, name='audio_tower')
    steps_tower = keras.Model(waveform, audio_outputs['steps'], name='steps_tower')

    frames = keras.Input([clip.frames, clip.frame_size, clip.frame_size, 3], dtype='uint8', name='video')
    steps_input = keras.Input(x.shape[1:], name='sound_steps')
    y = NormalizePixels(False, name='normalize_pixels')(frames)
    y = unit(y, keras.layers.Conv3D, scaled(64, towers.video_width), (5, 7, 7), 2, 'seen1')
    y = keras.layers.MaxPooling3D((1, 3, 3), (1, 2, 2), padding='same', name='seen_pool')(y)
    y = unit(y, keras.layers.Conv3D, scaled(64, towers.video_width), 3, (2, 1, 1), 'seen2')      # [batch, steps, h, w, channels]
    tiled = SpreadOver(name='spread')([steps_input, y])
    y = keras.layers.Concatenate(name='fuse')([y, tiled])
    y = unit(y, keras.layers.Conv3D, scaled(128, towers.video_width), 1, 1, 'fused0')
    for number, channels in enumerate(JOINT_CHANNELS, 1):
        stride = 1 if number == 1 else 2
        y = _residual(y, unit, scaled(channels, towers.video_width), stride, towers.sync_batchnorm, f'fused{number}')
    features = keras.layers.GlobalAveragePooling3D(name='features', dtype='float32')(y)
    fusion = keras.Model([frames, steps_input], features, name='fusion')
    silent = fusion([frames, Silence(x.shape[1:], autocast=False, name='silence')(frames)])
    video_tower = keras.Model(frames, {'embedding': silent, 'features': silent}, name='video_tower')

    inputs = batch_inputs(config)
    sounds = steps_tower(JoinWindows(autocast=False, name='join_windows')(inputs['audio']))
    pair_features = fusion([RepeatClips(name='repeat')([inputs['video'], inputs['audio']]), sounds])
    logit = keras.layers.Dense(1, name='sigmoid', dtype='float32')(pair_features)
    outputs = {'video': pair_features, 'logit': SplitLike(name='split_windows')([logit[:, 0], inputs['audio']])}
    model = Multisensory(inputs, outputs, name='multisensory')
    model.prepare(config, video_tower, audio_tower)
    both = {'video': frames, 'audio': waveform}
    model.fused = keras.Model(both, fusion([frames, steps_tower(waveform)]), name='fused')
    return model


def _residual(x, unit, channels, stride, synchronized, name):
    y = unit(x, keras.layers.Conv3D, channels, 3, (1, stride, stride), f'{name}_a')
    y = keras.layers.Conv3D(channels, 3, padding='same', use_bias=False, kernel_initializer='he_normal', name=f'{name}_b')(y)
    y = BatchNorm(synchronized=synchronized, name=f'{name}_b_bn')(y)
    if stride > 1 or x.shape[-1] != channels:
        x = keras.layers.Conv3D(channels, 1, strides=(1, stride, stride), name=f'{name}_shortcut')(x)
    return keras.layers.ReLU(name=f'{name}_relu')(keras.layers.Add(name=f'{name}_add')([x, y]))


@keras.saving.register_keras_serializable('avts_tf')
class SpreadOver(keras.layers.Layer):
    """Sound [batch, steps, channels] to every place of a picture [batch, steps, height, width, ...]."""

    def call(self, inputs):
        sound, picture = inputs
        return tf.tile(sound[:, :, None, None], [1, 1, *picture.shape[2:4], 1])


@keras.saving.register_keras_serializable('avts_tf')
class Silence(keras.layers.Layer):
    """What a silent sound leaves for the fusion: float32 zeros [batch, *shape]."""

    def __init__(self, shape, **kwargs):
        super().__init__(**kwargs)
        self.shape = tuple(shape)

    def call(self, frames):
        return tf.zeros([tf.shape(frames)[0], *self.shape])

    def compute_output_spec(self, frames):
        return keras.KerasTensor((frames.shape[0], *self.shape), 'float32')

    def get_config(self):
        return {**super().get_config(), 'shape': self.shape}
