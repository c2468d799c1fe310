"""The two towers as one functional model with a contrastive training step of its own."""

import keras
import tensorflow as tf

from avts_tf.data.sampling import NO_PAIR, Kind
from avts_tf.models.audio import build_audio_tower
from avts_tf.models.frontend import SpecAugment, spec_augment_bank
from avts_tf.models.losses import (
    ContrastiveLoss,
    all_pairs_loss,
    gather_replicas,
    infonce_loss,
    pair_losses,
    safe_sqrt,
    squared_distances,
)
from avts_tf.models.video import build_video_tower


class TwoTower(keras.Model):
    """Functional model from a batch of clips to the embeddings of both towers, trained on pairs.

    Made by `build_two_tower`. Inputs are the batches of `pipeline.make_dataset`; outputs are a dict of `video` float32 [B, D]
    and `audio` float32 [B, K, D].

    Attributes:
        config: `Config`.
        video_tower, audio_tower: functional models that share their layers with this one.
    """

    def prepare(self, config, video_tower, audio_tower):
        """Attaches what the training step needs; called once by `build_two_tower`, in the strategy's scope."""
        self.config = config
        self.video_tower = video_tower
        self.audio_tower = audio_tower
        self.contrastive_loss = ContrastiveLoss(config.train.margin, config.train.positive_term, reduction=None)
        self.loss_metric = keras.metrics.Mean(name='loss')
        self.spread_metric = keras.metrics.Mean(name='spread')
        self.distance_metrics = [keras.metrics.Mean(name=f'distance_{kind}') for kind in Kind]
        self.embed_batch = tf.function(self.embed, reduce_retracing=True, autograph=False)
        self.count_metrics = [keras.metrics.Sum(name=f'pairs_{kind}') for kind in Kind]
        self.replaced_metric = keras.metrics.Sum(name='too_short_for_kind')

    def fit(self, *arguments, shuffle=False, **options):
        """As `keras.Model.fit`; batches come from `pipeline.make_dataset`, which shuffles by itself."""
        return super().fit(*arguments, shuffle=shuffle, **options)

    def train_step(self, batch):
        """One step on a batch of `pipeline.make_dataset`; returns the means so far of loss and spread.

        Gradient and loss are those of the global batch, whatever the number of replicas.
        """
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync
        with tf.GradientTape() as tape:
            outputs = self(self._model_inputs(batch), training=True)
            loss = self._batch_loss(outputs, batch)
            # Keras's optimisers add the gradients of the replicas up, so that each gives its part of the global mean.
            scaled = loss / replicas
        variables = self.trainable_variables
        gradients = tape.gradient(scaled, variables)
        clip_norm = self.config.train.clip_norm
        if clip_norm > 0:
            # The norm is that of the global gradient; dividing undoes the sum that the optimiser takes afterwards.
            if replicas > 1:
                gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            gradients, _ = tf.clip_by_global_norm(gradients, clip_norm)
            gradients = [gradient / replicas for gradient in gradients]
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self._update_metrics(loss, outputs, batch)
        return {'loss': self.loss_metric.result(), 'spread': self.spread_metric.result()}

    def test_step(self, batch):
        """Loss and spread of a batch without training."""
        outputs = self.embed(batch)
        self._update_metrics(self._batch_loss(outputs, batch), outputs, batch)
        return {'loss': self.loss_metric.result(), 'spread': self.spread_metric.result()}

    def predict_step(self, batch):
        """Embeddings of a batch: dict of `video` float32 [B, D] and `audio` float32 [B, K, D]."""
        return self.embed(batch)

    def embed(self, batch):
        """Embeddings of a batch without augmentation or training: dict of `video` [B, D] and `audio` [B, K, D]."""
        # K is read from the batch: evaluation asks for other numbers of windows than training.
        windows, samples = tf.shape(batch['audio'])[1], batch['audio'].shape[2]
        video = self.video_tower(batch['video'], training=False)['embedding']
        audio = self.audio_tower(tf.reshape(batch['audio'], [-1, samples]), training=False)['embedding']
        return {'video': video, 'audio': tf.reshape(audio, [-1, windows, audio.shape[-1]])}

    def distances(self, outputs):
        """Distances of clips to their own audio windows, from the model's outputs: float32 [B, K], lower for "in sync"."""
        return safe_sqrt(squared_distances(outputs['video'], outputs['audio']))

    def _model_inputs(self, batch):
        return {name: batch[name] for name in ('video', 'audio', 'spec_mask') if name in batch}

    def _batch_loss(self, outputs, batch):
        train = self.config.train
        video, audio, kind = outputs['video'], outputs['audio'], batch['kind']
        if train.loss == 'infonce':
            values = infonce_loss(video, audio, kind, batch['example_hash'], train.temperature)
        elif train.easy_negatives != 'drawn':
            values = all_pairs_loss(self.contrastive_loss, video, audio, kind, batch['example_hash'],
                                    batch['audio_hash'], weighted=train.easy_negatives == 'weighted')
        else:
            values = pair_losses(self.contrastive_loss, video, audio, kind)
        if train.loss == 'infonce':
            return tf.reduce_mean(values)
        # The mean over the pairs of the global batch: slots without a pair do not count, and each replica may have others.
        pairs = tf.reduce_sum(tf.cast(kind != NO_PAIR, tf.float32))
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            pairs = context.all_reduce(tf.distribute.ReduceOp.MEAN, pairs)
        return tf.math.divide_no_nan(tf.reduce_sum(values), pairs)

    def _update_metrics(self, loss, outputs, batch):
        rows = tf.cast(tf.shape(batch['kind'])[0], tf.float32)
        self.loss_metric.update_state(loss, sample_weight=rows)
        distances = self.distances(outputs)
        # Total variance of the embeddings over the global batch: 0 when all have met in one point.
        spread = tf.reduce_sum(tf.math.reduce_variance(gather_replicas(outputs['video']), 0))
        self.spread_metric.update_state(spread, sample_weight=rows)
        for kind in Kind:
            is_kind = tf.cast(batch['kind'] == kind, tf.float32)
            self.distance_metrics[kind].update_state(distances, sample_weight=is_kind)
            self.count_metrics[kind].update_state(is_kind)
        if 'replaced' in batch:
            self.replaced_metric.update_state(batch['replaced'])

    def kind_results(self):
        """Dict of floats since the last reset: pair counts, mean distances of the kinds that occurred, and `too_short_for_kind`.

        The last is the number of negatives that became easy because their clip is too short for them.
        """
        results = {'too_short_for_kind': float(self.replaced_metric.result())}
        for kind, distance, count in zip(Kind, self.distance_metrics, self.count_metrics, strict=True):
            results[f'pairs_{kind}'] = float(count.result())
            if results[f'pairs_{kind}']:
                results[f'distance_{kind}'] = float(distance.result())
        return results


@keras.saving.register_keras_serializable('avts_tf')
class JoinWindows(keras.layers.Layer):
    """[B, K, ...] -> [B * K, ...]: one audio window, one example of the audio tower."""

    def call(self, inputs):
        return tf.reshape(inputs, [-1, *inputs.shape[2:]])

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((None, *inputs.shape[2:]), inputs.dtype)


@keras.saving.register_keras_serializable('avts_tf')
class SplitWindows(keras.layers.Layer):
    """[B * K, ...] -> [B, K, ...]."""

    def __init__(self, windows, **kwargs):
        super().__init__(**kwargs)
        self.windows = windows

    def call(self, inputs):
        return tf.reshape(inputs, [-1, self.windows, *inputs.shape[1:]])

    def get_config(self):
        return {**super().get_config(), 'windows': self.windows}


def build_two_tower(config):
    """Builds both towers and the model that trains them.

    Weights follow from `config.train.seed`. Call it in the scope of the strategy that will train.

    Args:
        config: `Config`.

    Returns:
        `TwoTower`, not compiled.
    """
    keras.utils.set_random_seed(config.train.seed)
    clip, windows = config.clip, config.pairs.audio_windows
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy('mixed_bfloat16' if config.towers.bfloat16 else 'float32')
    try:
        video_tower, audio_tower = build_video_tower(config), build_audio_tower(config)
    finally:
        keras.config.set_dtype_policy(policy)
    inputs = {
        'video': keras.Input([clip.frames, clip.frame_size, clip.frame_size, 3], dtype='uint8', name='video'),
        'audio': keras.Input([windows, clip.window_samples], dtype='int16', name='audio'),
    }
    waveforms = JoinWindows(autocast=False, name='join_windows')(inputs['audio'])
    if config.augment.spec_augment:
        # Masks come between the front end and the network, which the tower shares with this model.
        inputs['spec_mask'] = keras.Input([windows], dtype='int32', name='spec_mask')
        spectrogram = audio_tower.get_layer('log_mel')(waveforms)
        logmel, augment = config.logmel, config.augment
        bank = spec_augment_bank(spectrogram.shape[1], logmel.mel_bands, round(augment.spec_time_seconds / logmel.stft_hop_seconds),
                                 augment.spec_freq_bands, config.train.seed)
        index = JoinWindows(autocast=False, name='join_masks')(inputs['spec_mask'])
        spectrogram = SpecAugment(bank, name='spec_augment')(spectrogram, index)
        audio = audio_tower.get_layer('audio_network')(spectrogram)['embedding']
    else:
        audio = audio_tower(waveforms)['embedding']
    outputs = {'video': video_tower(inputs['video'])['embedding'], 'audio': SplitWindows(windows, name='split_windows')(audio)}
    model = TwoTower(inputs, outputs, name='two_tower')
    model.prepare(config, video_tower, audio_tower)
    return model
