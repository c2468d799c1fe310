"""What every model here is: clips and their audio windows in, distances out, trained on pairs."""

import contextlib

import keras
import tensorflow as tf

from avts_tf.config import Config
from avts_tf.data.sampling import Kind
from avts_tf.errors import UserError
from avts_tf.models.distances import safe_sqrt, squared_distances
from avts_tf.models.losses import gather_replicas

Batch = dict[str, tf.Tensor]


class SyncModel(keras.Model):
    """A functional model on batches of `make_dataset`, with a training step of its own.

    Subclasses build their graph in `__init__` and give it to this one. `TwoTower` is the project's
    own model; those of `baselines/` are the systems that it is compared with. They may have other
    outputs, another loss (`batch_loss`) and another distance of a pair (`distances`).

    Args:
        config: `Config`.
        inputs: dict of Keras tensors: `video` uint8 [B, T, S, S, 3], `audio` int16
            [B, K, samples] and perhaps `spec_mask` int64 [B, K].
        outputs: dict of Keras tensors; `video` float32 [B, D] is one of them.
        video_tower: functional model that shares its layers with this one, or None.
        audio_tower: the same for audio; its layer `log_mel` can be adapted to training audio.
        name: name of the model.

    Attributes:
        config, video_tower, audio_tower: as given.
        pair_loss: the loss that `compile` took; None before, and where a system has its own.
    """

    def __init__(
        self, config: Config, inputs: dict, outputs: dict, video_tower: keras.Model | None,
        audio_tower: keras.Model, name: str,
    ) -> None:
        super().__init__(inputs, outputs, name=name)
        self.config = config
        self.video_tower = video_tower
        self.audio_tower = audio_tower
        self.pair_loss: keras.losses.Loss | None = None
        self.loss_metric = keras.metrics.Mean(name='loss')
        self.spread_metric = keras.metrics.Mean(name='spread')
        self.distance_metrics = [keras.metrics.Mean(name=f'distance_{kind}') for kind in Kind]
        self.embed_batch = tf.function(self.embed, reduce_retracing=True, autograph=False)
        self.count_metrics = [keras.metrics.Sum(name=f'pairs_{kind}') for kind in Kind]
        self.replaced_metric = keras.metrics.Sum(name='too_short_for_kind')

    def take_loss(self, loss: keras.losses.Loss | None) -> keras.losses.Loss | None:
        """The loss to train with, from what `compile` was given; subclasses may take one.

        Raises:
            UserError: a loss that the model cannot be trained with.
        """
        if loss is not None:
            raise UserError('loss', loss, f'{self.name} has a loss of its own; leave it out.')
        return None

    def compile(
        self, optimizer: str | keras.optimizers.Optimizer = 'rmsprop',
        loss: keras.losses.Loss | None = None, **options,
    ) -> None:
        """As `keras.Model.compile`.

        Args:
            optimizer: as in Keras.
            loss: what the model is trained with; None takes what its configuration says.
            **options: as in Keras, but for metrics and weights of losses: the training step has
                its own metrics.

        Raises:
            UserError: a loss or an option that the training step would not heed.
        """
        for name in ('metrics', 'weighted_metrics', 'loss_weights'):
            if options.get(name):
                raise UserError(name, options[name], 'the training step does not heed it; leave '
                                'it out. Loss, spread and distances are measured anyway.')
        self.pair_loss = self.take_loss(loss)
        super().compile(optimizer=optimizer, **options)

    def fit(self, *arguments, shuffle: bool = False, **options) -> keras.callbacks.History:
        """As `keras.Model.fit`; batches come from `make_dataset`, which shuffles by itself."""
        return super().fit(*arguments, shuffle=shuffle, **options)

    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """One step on a batch of `make_dataset`.

        Gradient and loss are those of the global batch, whatever the number of replicas.

        Returns:
            Dict of the means so far of `loss` and `spread`.
        """
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync
        with tf.GradientTape() as tape:
            with compiled(self.jit_compile and replicas == 1):
                outputs = self(self.model_inputs(batch), training=True)
            loss = self.batch_loss(outputs, batch)
            # Keras's optimisers add the gradients of the replicas up, so that each gives its part
            # of the global mean.
            scaled = loss / replicas
        variables = self.trainable_variables
        with compiled(self.jit_compile and replicas == 1):
            gradients = tape.gradient(scaled, variables)
        clip_norm = self.config.train.clip_norm
        if clip_norm > 0:
            # The norm is that of the global gradient; dividing undoes the sum that the optimiser
            # takes afterwards.
            if replicas > 1:
                gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            gradients, _ = tf.clip_by_global_norm(gradients, clip_norm)
            gradients = [gradient / replicas for gradient in gradients]
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self._update_metrics(loss, outputs, batch)
        return {'loss': self.loss_metric.result(), 'spread': self.spread_metric.result()}

    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Loss and spread of a batch without training."""
        outputs = self.embed(batch)
        self._update_metrics(self.batch_loss(outputs, batch), outputs, batch)
        return {'loss': self.loss_metric.result(), 'spread': self.spread_metric.result()}

    def predict_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """As `embed`."""
        return self.embed(batch)

    def embed(self, batch: Batch) -> dict[str, tf.Tensor]:
        """The model's outputs for a batch, without augmentation or training."""
        return self(self.model_inputs(batch), training=False)

    def distances(self, outputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Distances of clips to their own audio windows; the lower, the more in sync.

        Args:
            outputs: the model's outputs, here `video` float32 [B, D] and `audio` float32
                [B, K, D].

        Returns:
            float32 [B, K].
        """
        return safe_sqrt(squared_distances(outputs['video'], outputs['audio']))

    def batch_loss(self, outputs: dict[str, tf.Tensor], batch: Batch) -> tf.Tensor:
        """Loss of one replica's part of a batch, float32 scalar; the mean over replicas counts."""
        assert self.pair_loss is not None  # else this method is overridden
        return self.pair_loss.of_batch(outputs, batch)

    def model_inputs(self, batch: Batch) -> dict[str, tf.Tensor]:
        """What the model is called with, out of a batch of `make_dataset`."""
        return {name: batch[name] for name in ('video', 'audio', 'spec_mask') if name in batch}

    def _update_metrics(self, loss: tf.Tensor, outputs: dict[str, tf.Tensor], batch: Batch):
        rows = tf.cast(tf.shape(batch['kind'])[0], tf.float32)
        self.loss_metric.update_state(loss, sample_weight=rows)
        distances = self.distances(outputs)                                               # [B, K]
        # Total variance of the embeddings over the global batch: 0 when all are in one point.
        spread = tf.reduce_sum(tf.math.reduce_variance(gather_replicas(outputs['video']), 0))
        self.spread_metric.update_state(spread, sample_weight=rows)
        for kind in Kind:
            is_kind = tf.cast(batch['kind'] == kind, tf.float32)                          # [B, K]
            self.distance_metrics[kind].update_state(distances, sample_weight=is_kind)
            self.count_metrics[kind].update_state(is_kind)
        if 'replaced' in batch:
            self.replaced_metric.update_state(batch['replaced'])

    def kind_results(self) -> dict[str, float]:
        """Results per kind of pair since the last reset of the metrics.

        Returns:
            `pairs_KIND`, their number; `distance_KIND`, their mean distance, of the kinds that
            occurred; `too_short_for_kind`, the number of negatives that became easy because their
            clip is too short for them.
        """
        results = {'too_short_for_kind': float(self.replaced_metric.result())}
        metrics = zip(Kind, self.distance_metrics, self.count_metrics, strict=True)
        for kind, distance, count in metrics:
            results[f'pairs_{kind}'] = float(count.result())
            if results[f'pairs_{kind}']:
                results[f'distance_{kind}'] = float(distance.result())
        return results

    def get_config(self) -> dict:
        """What `from_config` makes the same model of; weights are not part of it."""
        return {'config': self.config.to_json()}

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> 'SyncModel':
        """The model that `get_config` described, with new weights."""
        # Subclasses take the configuration alone.
        return cls(Config.from_json(config['config']))  # type: ignore[call-arg]


def compiled(jit_compile: bool) -> contextlib.AbstractContextManager:
    """Within it XLA compiles what it can, where that is wanted; not the exchange of replicas.

    `tf.function(jit_compile=True)` would have to compile all of it, and cannot. The graphs of
    several replicas are built by turns, and each would leave this scope in the middle of another's:
    there it has to be around all of them.
    """
    return tf.xla.experimental.jit_scope() if jit_compile else contextlib.nullcontext()


@keras.saving.register_keras_serializable('avts_tf')
class JoinWindows(keras.layers.Layer):
    """[B, K, ...] -> [B * K, ...]: one audio window, one example of the audio tower."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.reshape(inputs, [-1, *inputs.shape[2:]])

    def compute_output_spec(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor((None, *inputs.shape[2:]), inputs.dtype)
