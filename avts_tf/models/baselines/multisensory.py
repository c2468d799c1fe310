"""The multisensory net of Owens and Efros 2018: is the audio shifted?

Video and audio meet half-way up one net: 1-D convolutions on the waveform and 3-D ones on the
frames, joined where both have a quarter of the frames' rate, then 3-D residual blocks and one
sigmoid. The published clips last 4.2 s and the audio is shifted by 2 to 6 s of the same video:
hard negatives, with `frames` for the length and `hard_gap_seconds` for the shift.
"""

import keras
import tensorflow as tf

from avts_tf.config import Config
from avts_tf.models.baselines.common import (
    FRONTEND,
    PairClassifier,
    RepeatClips,
    SplitLike,
    Waveform,
    batch_inputs,
    need_regime,
)
from avts_tf.models.batch_norm import BatchNorm
from avts_tf.models.layers import ResampleTime, scaled
from avts_tf.models.sync_model import JoinWindows
from avts_tf.models.video import NormalizePixels

# Channels, kernel and stride of the 1-D convolutions; the audio is then averaged to the steps of
# the video.
AUDIO = ((64, 65, 4), (128, 15, 4), (128, 15, 4), (256, 15, 4))
JOINT_CHANNELS = (128, 256, 512)


class Multisensory(PairClassifier):
    """A `PairClassifier` by early fusion.

    Its audio tower is the part below the fusion; its video tower is the whole net with silent
    audio.

    Args:
        config: `Config` with `regime=hard`.

    Attributes:
        fused: functional model from a dict of `video` uint8 [B, T, S, S, 3] and `audio` int16
            [B, samples] to features float32 [B, C].

    Raises:
        UserError: another regime.
    """

    def __init__(self, config: Config) -> None:
        need_regime(config, 'hard', 'whether the audio is shifted')
        clip = config.clip

        waveform = keras.Input([clip.window_samples], dtype='int16', name='audio')
        samples = Waveform(name=FRONTEND)(waveform)                        # [batch, samples, 1]
        network = _audio_network(config, samples.shape[1:])
        audio_outputs = network(samples)
        audio_tower = keras.Model(
            waveform, {name: audio_outputs[name] for name in ('embedding', 'conv5')},
            name='audio_tower')
        steps_tower = keras.Model(waveform, audio_outputs['steps'], name='steps_tower')

        size = [clip.frames, clip.frame_size, clip.frame_size, 3]
        frames = keras.Input(size, dtype='uint8', name='video')
        steps_shape = audio_outputs['steps'].shape[1:]                      # [steps, channels]
        fusion = _fusion(config, frames, steps_shape)
        silence = Silence(steps_shape, autocast=False, name='silence')(frames)
        silent = fusion([frames, silence])
        video_tower = keras.Model(
            frames, {'embedding': silent, 'features': silent}, name='video_tower')

        inputs = batch_inputs(config)
        windows = JoinWindows(autocast=False, name='join_windows')(inputs['audio'])
        steps = steps_tower(windows)                                # [B * K, steps, channels]
        clips = RepeatClips(name='repeat')([inputs['video'], inputs['audio']])
        features = fusion([clips, steps])                                       # [B * K, 512]
        logit = keras.layers.Dense(1, name='sigmoid', dtype='float32')(features)  # [B * K, 1]
        logit = SplitLike(name='split_windows')([logit[:, 0], inputs['audio']])        # [B, K]
        super().__init__(config, inputs, {'video': features, 'logit': logit}, video_tower,
                         audio_tower, name='multisensory')
        both = {'video': frames, 'audio': waveform}
        self.fused = keras.Model(both, fusion([frames, steps_tower(waveform)]), name='fused')


SYSTEM = Multisensory


def _audio_network(config: Config, shape: tuple[int, ...]) -> keras.Model:
    """[batch, samples, 1] -> `embedding`, `conv5` [batch, C], `steps` [batch, steps, C]."""
    towers = config.towers
    samples = x = keras.Input(shape, name='samples')
    for number, (channels, kernel, stride) in enumerate(AUDIO, 1):
        x = _unit(x, keras.layers.Conv1D, scaled(channels, towers.audio_width), kernel, stride,
                  towers.sync_batchnorm, f'conv{number}')
    steps = -(-config.clip.frames // 4)
    x = ResampleTime(steps, name='video_steps')(x)                    # [batch, steps, channels]
    heard = keras.layers.GlobalAveragePooling1D(name='conv5_mean', dtype='float32')(x)
    outputs = {'embedding': heard, 'conv5': heard, 'steps': x}
    return keras.Model(samples, outputs, name='audio_network')


def _fusion(config: Config, frames: keras.KerasTensor, steps_shape: tuple[int, ...]) -> keras.Model:
    """Frames and the audio's steps [batch, steps, channels] -> features [batch, 512 * width]."""
    width, synchronized = config.towers.video_width, config.towers.sync_batchnorm
    conv = keras.layers.Conv3D
    steps = keras.Input(steps_shape, name='sound_steps')
    y = NormalizePixels(False, name='normalize_pixels')(frames)
    y = _unit(y, conv, scaled(64, width), (5, 7, 7), 2, synchronized, 'seen1')
    y = keras.layers.MaxPooling3D((1, 3, 3), (1, 2, 2), padding='same', name='seen_pool')(y)
    y = _unit(y, conv, scaled(64, width), 3, (2, 1, 1), synchronized, 'seen2')
    tiled = SpreadOver(name='spread')([steps, y])                  # [batch, steps, h, w, channels]
    y = keras.layers.Concatenate(name='fuse')([y, tiled])
    y = _unit(y, conv, scaled(128, width), 1, 1, synchronized, 'fused0')
    for number, channels in enumerate(JOINT_CHANNELS, 1):
        stride = 1 if number == 1 else 2
        y = _residual(y, scaled(channels, width), stride, synchronized, f'fused{number}')
    features = keras.layers.GlobalAveragePooling3D(name='features', dtype='float32')(y)
    return keras.Model([frames, steps], features, name='fusion')


def _unit(
    x: keras.KerasTensor, layer: type[keras.layers.Layer], channels: int,
    kernel: int | tuple[int, ...], stride: int | tuple[int, ...], synchronized: bool, name: str,
) -> keras.KerasTensor:
    """Convolution, batch norm and ReLU."""
    x = layer(channels, kernel, strides=stride, padding='same', use_bias=False,
              kernel_initializer='he_normal', name=name)(x)
    x = BatchNorm(synchronized=synchronized, name=f'{name}_bn')(x)
    return keras.layers.ReLU(name=f'{name}_relu')(x)


def _residual(
    x: keras.KerasTensor, channels: int, stride: int, synchronized: bool, name: str,
) -> keras.KerasTensor:
    """A residual block with a stride over space."""
    conv, strides = keras.layers.Conv3D, (1, stride, stride)
    y = _unit(x, conv, channels, 3, strides, synchronized, f'{name}_a')
    y = conv(channels, 3, padding='same', use_bias=False, kernel_initializer='he_normal',
             name=f'{name}_b')(y)
    y = BatchNorm(synchronized=synchronized, name=f'{name}_b_bn')(y)
    if stride > 1 or x.shape[-1] != channels:
        x = conv(channels, 1, strides=strides, name=f'{name}_shortcut')(x)
    return keras.layers.ReLU(name=f'{name}_relu')(keras.layers.Add(name=f'{name}_add')([x, y]))


@keras.saving.register_keras_serializable('avts_tf')
class SpreadOver(keras.layers.Layer):
    """Audio [batch, steps, channels] to every place of a video [batch, steps, height, width, ...].
    """

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        audio, video = inputs
        return tf.tile(audio[:, :, None, None], [1, 1, *video.shape[2:4], 1])


@keras.saving.register_keras_serializable('avts_tf')
class Silence(keras.layers.Layer):
    """What silent audio gives to the fusion: float32 zeros [batch, *shape].

    Args:
        shape: tuple of ints.
    """

    def __init__(self, shape: tuple[int, ...], **kwargs) -> None:
        super().__init__(**kwargs)
        self.shape = tuple(shape)

    def call(self, frames: tf.Tensor) -> tf.Tensor:
        return tf.zeros([tf.shape(frames)[0], *self.shape])

    def compute_output_spec(self, frames: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor((frames.shape[0], *self.shape), 'float32')

    def get_config(self) -> dict:
        return {**super().get_config(), 'shape': self.shape}
