"""The two towers as one functional model, trained on pairs."""

import math

import keras
import tensorflow as tf

from avts_tf.config import Config
from avts_tf.errors import UserError
from avts_tf.models.audio import build_audio_tower
from avts_tf.models.losses import (
    LOSSES,
    TEMPERATURES,
    ContrastiveLoss,
    InfoNCELoss,
    make_loss,
)
from avts_tf.models.spec_augment import SpecAugment, spec_augment_bank
from avts_tf.models.sync_model import Batch, JoinWindows, SyncModel
from avts_tf.models.video import build_video_tower


@keras.saving.register_keras_serializable('avts_tf')
class TwoTower(SyncModel):
    """A video tower and an audio tower that share nothing but the space they embed into.

    A functional model, built here. Inputs are the batches of `make_dataset`: `video` uint8
    [B, T, S, S, 3], `audio` int16 [B, K, samples] and, with SpecAugment, `spec_mask` int64
    [B, K]. Outputs are a dict of `video` float32 [B, D] and `audio` float32 [B, K, D].

    Build it in the scope of the strategy that will train. `build_two_tower` seeds the weights.

    Args:
        config: `Config`.

    Attributes:
        config: `Config`.
        video_tower: functional model from uint8 [B, T, S, S, 3] to `embedding` and `features`.
        audio_tower: functional model from int16 [B, samples] to `embedding` and `conv5`. Both
            share their layers with this model.
        log_temperature: variable, float32 scalar, if `InfoNCELoss` learns its temperature.

    Example:
        >>> import avts_tf
        >>> model = avts_tf.TwoTower(avts_tf.make_config('tiny'))
        >>> {name: tuple(output.shape) for name, output in model.output.items()}
        {'video': (None, 64), 'audio': (None, 2, 64)}
        >>> model.compile('sgd', loss=avts_tf.ContrastiveLoss(margin=1.0))
    """

    video_tower: keras.Model

    def __init__(self, config: Config) -> None:
        clip, windows = config.clip, config.pairs.audio_windows
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy('mixed_bfloat16' if config.towers.bfloat16 else 'float32')
        try:
            video_tower, audio_tower = build_video_tower(config), build_audio_tower(config)
        finally:
            keras.config.set_dtype_policy(policy)

        size = clip.frame_size
        inputs = {
            'video': keras.Input([clip.frames, size, size, 3], dtype='uint8', name='video'),
            'audio': keras.Input([windows, clip.window_samples], dtype='int16', name='audio'),
        }
        video = video_tower(inputs['video'])['embedding']                                # [B, D]
        waveforms = JoinWindows(autocast=False, name='join_windows')(inputs['audio'])
        if config.augment.spec_augment:
            # Masks come between the front end and the network; the tower has none.
            inputs['spec_mask'] = keras.Input([windows], dtype='int64', name='spec_mask')
            index = JoinWindows(autocast=False, name='join_masks')(inputs['spec_mask'])
            spectrogram = audio_tower.get_layer('log_mel')(waveforms)        # [B * K, steps, bands]
            steps, bands = spectrogram.shape[1:]
            bank = spec_augment_bank(
                steps, bands,
                round(config.augment.spec_time_seconds / config.logmel.stft_hop_seconds),
                config.augment.spec_freq_bands, config.train.seed)
            spectrogram = SpecAugment(bank, name='spec_augment')(spectrogram, index)
            audio = audio_tower.get_layer('audio_network')(spectrogram)['embedding']
        else:
            audio = audio_tower(waveforms)['embedding']                              # [B * K, D]
        audio = SplitWindows(windows, name='split_windows')(audio)                    # [B, K, D]
        super().__init__(config, inputs, {'video': video, 'audio': audio}, video_tower,
                         audio_tower, name='two_tower')
        self.log_temperature = None

    def take_loss(self, loss: keras.losses.Loss | None) -> ContrastiveLoss | InfoNCELoss:
        """The loss to train with: the one given to `compile`, or the configuration's.

        If it learns its temperature, the model gets the variable.

        Raises:
            UserError: another loss than `ContrastiveLoss` and `InfoNCELoss`, or one that does not
                go with the model.
        """
        if loss is None:
            loss = make_loss(self.config.train)
        if not any(isinstance(loss, known) for known in LOSSES.values()):
            names = ', '.join(f'avts_tf.{known.__name__}(...)' for known in LOSSES.values())
            shown = loss if isinstance(loss, str) else type(loss).__name__
            raise UserError('loss', shown, f'a TwoTower is trained with one of {names}; or leave '
                            'it out for the one that the configuration names.')
        if loss.reduction != 'sum_over_batch_size':
            raise UserError('reduction', loss.reduction, 'a TwoTower takes the mean over the '
                            'global batch; leave it out.')
        if isinstance(loss, InfoNCELoss) and self.config.pairs.audio_windows < 2:
            raise UserError('loss', 'InfoNCELoss', 'needs the positive window of every clip; '
                            'build the model with 2 `audio_windows` or more.')
        learnable = isinstance(loss, InfoNCELoss) and loss.learnable_temperature
        if learnable and self.log_temperature is None:
            self.log_temperature = self.add_weight(
                name='log_temperature', shape=[], dtype='float32', aggregation='mean',
                initializer=keras.initializers.Constant(math.log(loss.temperature)),
                constraint=LogTemperatureRange())
        if self.log_temperature is not None:
            self.log_temperature.trainable = learnable
        return loss

    def batch_loss(self, outputs: dict[str, tf.Tensor], batch: Batch) -> tf.Tensor:
        if self.log_temperature is None or not self.log_temperature.trainable:
            return super().batch_loss(outputs, batch)
        return self.pair_loss.of_batch(outputs, batch, tf.exp(self.log_temperature))

    def kind_results(self) -> dict[str, float]:
        """As of `SyncModel`, and `temperature` where it is learned."""
        results = super().kind_results()
        if self.log_temperature is not None:
            results['temperature'] = math.exp(float(self.log_temperature.numpy()))
        return results

    def embed(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Embeddings of a batch without augmentation or training.

        Args:
            batch: dict with `video` uint8 [B, T, S, S, 3] and `audio` int16 [B, K, samples], for
                any K: evaluation asks for other numbers of windows than training.

        Returns:
            Dict of `video` float32 [B, D] and `audio` float32 [B, K, D].
        """
        windows, samples = tf.shape(batch['audio'])[1], batch['audio'].shape[2]
        video = self.video_tower(batch['video'], training=False)['embedding']            # [B, D]
        waveforms = tf.reshape(batch['audio'], [-1, samples])                   # [B * K, samples]
        audio = self.audio_tower(waveforms, training=False)['embedding']             # [B * K, D]
        return {'video': video, 'audio': tf.reshape(audio, [-1, windows, audio.shape[-1]])}


@keras.saving.register_keras_serializable('avts_tf')
class LogTemperatureRange(keras.constraints.Constraint):
    """Keeps the logarithm of a temperature within that of `TEMPERATURES`, after each step."""

    def __call__(self, value: tf.Tensor) -> tf.Tensor:
        low, high = TEMPERATURES
        return tf.clip_by_value(tf.convert_to_tensor(value), math.log(low), math.log(high))


@keras.saving.register_keras_serializable('avts_tf')
class SplitWindows(keras.layers.Layer):
    """[B * K, ...] -> [B, K, ...].

    Args:
        windows: int. K.
    """

    def __init__(self, windows: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.windows = windows

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.reshape(inputs, [-1, self.windows, *inputs.shape[1:]])

    def get_config(self) -> dict:
        return {**super().get_config(), 'windows': self.windows}


def build_two_tower(config: Config) -> TwoTower:
    """Builds the `TwoTower` of a configuration, with weights that follow from its seed.

    Call it in the scope of the strategy that will train.

    Args:
        config: `Config`.

    Returns:
        `TwoTower`, not compiled.

    Example:
        >>> import avts_tf
        >>> model = avts_tf.build_two_tower(avts_tf.make_config('tiny', seed=1))
        >>> model.video_tower.name
        'video_tower'
    """
    keras.utils.set_random_seed(config.train.seed)
    return TwoTower(config)
