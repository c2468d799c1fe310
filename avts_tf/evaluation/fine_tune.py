"""Towers with a softmax, and their training on labelled records."""

import logging
import re
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from avts_tf import progress
from avts_tf.config import Config
from avts_tf.data.reading import in_plain_tensorflow
from avts_tf.data.state import PipelineState
from avts_tf.data.window_datasets import make_labelled_dataset
from avts_tf.errors import UserError
from avts_tf.models.batch_norm import BatchNorm
from avts_tf.models.two_tower import TwoTower
from avts_tf.training.devices import own_batches
from avts_tf.training.optimizer import LearningRate
from avts_tf.training.run_folder import RunFolder
from avts_tf.training.trainer import ADAPT_BATCHES

STREAMS = {'video': ('video',), 'audio': ('audio',), 'both': ('video', 'audio')}
LAST_STAGE = 5  # AVTS's towers name their layers by stage: conv1... to conv5... or mixed_5...

logger = logging.getLogger(__name__)


def build_classifier(
    model: TwoTower, streams: str, classes: int, freeze: bool = False, seed: int = 0,
) -> keras.Model:
    """Towers with a softmax.

    The pooled features of the towers (the last convolution of the video tower, conv5 of the audio
    tower) are standardised, concatenated and classified.

    Args:
        model: its towers are shared, not copied.
        streams: key of `STREAMS`.
        classes: number of classes.
        freeze: whether the towers' weights and batch-norm statistics stay as they are.
        seed: of the softmax's weights.

    Returns:
        `keras.Model` from a dict of `video` uint8 [B, frames, size, size, 3] and `audio` int16
        [B, samples], as far as `streams` asks for them, to logits float32 [B, classes].

    Raises:
        UserError: the model has no such tower.

    Example:
        >>> build_classifier(build_two_tower(make_config('tiny')), 'both', 51).output.shape
        (None, 51)
    """
    inputs, features = {}, []
    names = STREAMS[streams]
    if streams == 'both' and hasattr(model, 'fused'):
        # A network that joins the two itself: multisensory.
        inputs = {name: keras.Input(like.shape[1:], dtype=like.dtype, name=name)
                  for name, like in model.fused.input.items()}
        model.fused.trainable = not freeze
        features, names = [model.fused(inputs)], ()
    if 'video' in names:
        tower = model.video_tower
        if tower is None:
            raise UserError('streams', streams,
                            f'{model.name} has no video tower; use `streams`=audio.')
        inputs['video'] = keras.Input(tower.input.shape[1:], dtype='uint8', name='video')
        network = keras.Model(tower.input, tower.output['features'], name='video_features')
        network.trainable = not freeze
        features.append(network(inputs['video']))
    if 'audio' in names:
        tower, network = model.audio_tower, model.audio_tower.get_layer('audio_network')
        inputs['audio'] = keras.Input(tower.input.shape[1:], dtype='int16', name='audio')
        network = keras.Model(network.input, network.output['conv5'], name='audio_features')
        network.trainable = not freeze
        features.append(network(tower.get_layer('log_mel')(inputs['audio'])))
    # The two towers' features differ in scale by orders of magnitude.
    synchronized = model.config.towers.sync_batchnorm
    features = [BatchNorm(center=False, scale=False, synchronized=synchronized,
                          name=f'standardise{i}')(x) for i, x in enumerate(features)]
    x = keras.layers.Concatenate(name='join')(features) if len(features) > 1 else features[0]
    logits = keras.layers.Dense(classes, kernel_initializer=keras.initializers.GlorotUniform(seed),
                                dtype='float32', name='softmax')(x)
    return keras.Model(inputs, logits, name='classifier')


def scale_layers(optimizer: keras.optimizers.Optimizer, factors: Sequence[float]) -> None:
    """Multiplies an optimiser's learning rate of each trainable variable by a factor.

    Only the step is scaled; the decoupled weight decay, which is small beside it, is not.

    Args:
        optimizer: changed in place.
        factors: one for each trainable variable, in their order.
    """
    plain = optimizer.update_step

    def update_step(
        gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor,
    ) -> None:
        factor = factors[optimizer._get_variable_index(variable)]
        plain(gradient, variable, learning_rate * factor)

    optimizer.update_step = update_step


def stages_below_softmax(classifier: keras.Model) -> list[int]:
    """How many stages below the softmax each trainable variable lies; 0 for what is no tower's."""
    stage = {}
    for network in classifier.layers:
        if isinstance(network, keras.Model):
            for layer in network.layers:
                digit = re.search(r'\d', layer.name)
                number = int(digit[0]) if digit else LAST_STAGE
                stage.update({id(variable): number for variable in layer.trainable_variables})
    return [LAST_STAGE + 1 - stage.get(id(variable), LAST_STAGE + 1)
            for variable in classifier.trainable_variables]


def fine_tune(
    classifier: keras.Model, strategy: tf.distribute.Strategy, records: str,
    class_of: Mapping[str, int], streams: str, config: Config, run: RunFolder,
    front_end: keras.layers.Layer | None = None,
) -> None:
    """Trains a classifier until all epochs are done, resuming after those that are.

    Args:
        classifier: result of `build_classifier`, compiled with its optimiser.
        strategy: what it was built under.
        records: glob of training records.
        class_of: from example id to class; other records are left out.
        streams: key of `STREAMS`.
        config: of the training.
        run: gets a checkpoint and a row of the history after each epoch.
        front_end: log-mel layer to set to the statistics of the first batches, before a new run.

    Raises:
        UserError: the records make no full batch, or the loss is NaN or infinite.
    """
    state, train = PipelineState(), config.train
    dataset = make_labelled_dataset(records, config, class_of, streams=STREAMS[streams],
                                    state=state)
    steps = len(class_of) * train.passes_per_epoch // train.batch_size
    if not steps:
        raise UserError('batch_size', train.batch_size,
                        f'{len(class_of)} training videos make no full batch; lower it, or raise '
                        '`passes_per_epoch`.')
    done = run.epochs_done()
    if done:
        run.restore(classifier)
        logger.info('%s: resuming after epoch %d of %d.' if done < train.epochs else
                    '%s: %d of %d epochs are done.', run.path, done, train.epochs)
    elif front_end is not None:
        front_end.adapt([inputs['audio'] for inputs, _ in dataset.take(ADAPT_BATCHES)])
    if done >= train.epochs:
        return
    state.reset_counts()
    labelled = dataset.map(
        in_plain_tensorflow(lambda inputs, classes: {**inputs, 'class': classes}))
    batches = own_batches(labelled, strategy)
    rows, optimizer = run.history()[:done], classifier.optimizer
    with strategy.scope():
        mean_loss = keras.metrics.Mean()
        accuracy = keras.metrics.SparseCategoricalAccuracy()
    train_step = _make_train_step(classifier, strategy, mean_loss, accuracy)

    total = steps * train.epochs
    learning_rate = LearningRate(train, total, [row['loss'] for row in rows])
    # Counted here: a step need not wait until the device is asked.
    step = int(optimizer.iterations.numpy())
    with progress.bar(total=total, initial=steps * done, unit='step') as bar:
        for epoch in range(done, train.epochs):
            state.epoch.assign(epoch)
            before = step
            mean_loss.reset_state()
            accuracy.reset_state()
            for batch in batches:
                learning_rate.set(optimizer, step)
                train_step(batch)
                step += 1
                bar.update()
            if step == before:
                raise UserError('records', records, 'the usable records make no full batch of '
                                f'`batch_size`={train.batch_size}; {state.describe_skips()}.')
            loss, right = float(mean_loss.result()), float(accuracy.result())
            if not np.isfinite(loss):
                raise UserError('learning_rate', train.learning_rate,
                                f'the loss is {loss} in epoch {epoch + 1}; lower it and use a new '
                                '`run_dir`.')
            rows.append({'epoch': epoch + 1, 'loss': loss, 'accuracy': right})
            learning_rate.end_epoch(loss)
            run.write_history(rows)
            run.save(classifier, epoch + 1)
            logger.info('epoch %d/%d loss %.4f | accuracy on training windows %.1f %%',
                        epoch + 1, train.epochs, loss, 100 * right)
    if state.skips():
        logger.info('%s', state.describe_skips())


def _make_train_step(
    classifier: keras.Model, strategy: tf.distribute.Strategy, mean_loss: keras.metrics.Metric,
    accuracy: keras.metrics.Metric,
) -> tf.types.experimental.PolymorphicFunction:
    """A function of a batch. Keras's own loop ends an epoch on replicas with a batch of zeros."""
    @tf.function(reduce_retracing=True, autograph=False)
    def train_step(batch: dict[str, tf.Tensor]) -> None:
        def on_replica(batch: dict[str, tf.Tensor]) -> None:
            classes = batch.pop('class')
            with tf.GradientTape() as tape:
                logits = classifier(batch, training=True)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
                # Keras's optimisers sum the gradients over the replicas.
                scaled = tf.reduce_mean(losses) / strategy.num_replicas_in_sync
            variables = classifier.trainable_variables
            gradients = tape.gradient(scaled, variables)
            classifier.optimizer.apply_gradients(zip(gradients, variables, strict=True))
            mean_loss.update_state(losses)
            accuracy.update_state(classes, logits)
        strategy.run(on_replica, args=(dict(batch),))

    return train_step
