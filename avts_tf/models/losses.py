"""Losses on the embeddings of a batch.

Each public class is one loss of the whole batch: `of_batch` is what the training step asks of it.
The functions beside them give the loss of each pair or clip; the reduction over replicas is in
`of_batch`.
"""

import keras
import tensorflow as tf

from avts_tf.config import TrainConfig
from avts_tf.data.sampling import (
    NO_PAIR,
    OTHER_RECORD_NEGATIVES,
    SAME_RECORD_NEGATIVES,
    Kind,
    is_one_of,
)
from avts_tf.errors import UserError
from avts_tf.models.distances import (
    dot_products,
    safe_sqrt,
    squared_distances,
    squared_distances_of_all,
)


def gather_replicas(tensor: tf.Tensor) -> tf.Tensor:
    """Concatenates [B, ...] over replicas; the gradient flows back to every replica."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tensor
    if tensor.shape[0] is None:
        # A replica's input has no device yet, and across machines TensorFlow asks for one.
        return context.all_gather(tf.identity(tensor), axis=0)
    # That first brings the lengths of all parts to the host, which waits for them. Where they are
    # known to be one length, the parts are added up, each at its own place among zeros.
    if tensor.dtype == tf.int64:  # for which TensorFlow has no such exchange on GPUs
        quarters = tf.cast(tf.bitcast(tensor, tf.int16), tf.float32)                 # [B, ..., 4]
        return tf.bitcast(tf.cast(gather_replicas(quarters), tf.int16), tf.int64)
    own = context.replica_id_in_sync_group
    placed = tf.stack([tf.where(tf.equal(own, place), tensor, tf.zeros_like(tensor))
                       for place in range(context.num_replicas_in_sync)])       # [replicas, B, …]
    gathered = context.all_reduce(tf.distribute.ReduceOp.SUM, placed)
    return tf.reshape(gathered, [-1, *tensor.shape[1:]])


def mean_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """The mean of a scalar over the replicas; outside of a strategy the scalar itself."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, value)


@keras.saving.register_keras_serializable('avts_tf')
class ContrastiveLoss(keras.losses.Loss):
    """The margin loss E = y d^p + (1 - y) max(margin - d, 0)^2 of each pair.

    d is the distance of the two embeddings, y is 1 in sync and 0 out of sync. p is 2 (Hadsell et
    al. 2006) or, as the slides on AVTS print it, 1.

    Called as a Keras loss it takes distances: `y_true` float [...], 1 in sync and 0 out of sync;
    `y_pred` float [...], the distances. A `TwoTower` gives it whole batches through `of_batch`.

    Args:
        margin: float. The distance that negatives are asked to have.
        positive_term: str. 'squared' (p = 2) or 'unsquared' (p = 1).
        easy_negatives: str. What an easy pair is measured with: 'drawn' is the one other clip
            that was drawn; 'all' the mean over all other clips of the batch; 'weighted' the same
            with each clip weighing by the square of its loss.
        reduction: str or None. As in Keras; a `TwoTower` takes the default alone.
        name: str. The name of the loss.

    Raises:
        UserError: a choice that does not exist.

    Example:
        >>> import avts_tf
        >>> loss = avts_tf.ContrastiveLoss(margin=1.0)
        >>> float(loss([1.0, 0.0], [0.5, 0.5]))
        0.25
        >>> model = avts_tf.build_two_tower(avts_tf.make_config('tiny'))
        >>> model.compile('sgd', loss=loss)
    """

    def __init__(
        self, margin: float = 0.99, positive_term: str = 'squared',
        easy_negatives: str = 'weighted', reduction: str | None = 'sum_over_batch_size',
        name: str = 'contrastive', **kwargs,
    ) -> None:
        super().__init__(reduction=reduction, name=name, **kwargs)
        _check_choice('positive_term', positive_term, ('squared', 'unsquared'))
        _check_choice('easy_negatives', easy_negatives, ('drawn', 'all', 'weighted'))
        self.margin = margin
        self.positive_term = positive_term
        self.easy_negatives = easy_negatives

    @classmethod
    def from_train_config(cls, train: TrainConfig) -> 'ContrastiveLoss':
        """The loss that a configuration asks for."""
        return cls(train.margin, train.positive_term, train.easy_negatives)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        y_pred = tf.convert_to_tensor(y_pred)
        positive = tf.square(y_pred) if self.positive_term == 'squared' else y_pred
        negative = tf.square(tf.maximum(self.margin - y_pred, 0.0))
        y_true = tf.cast(y_true, y_pred.dtype)
        return y_true * positive + (1.0 - y_true) * negative

    def of_batch(self, outputs: dict[str, tf.Tensor], batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """The mean over the pairs of the global batch; slots without a pair do not count.

        Args:
            outputs: `video` float32 [B, D] and `audio` float32 [B, K, D].
            batch: one replica's part of a batch of `make_dataset`.

        Returns:
            float32 scalar of one replica; the mean over the replicas is the loss.
        """
        video, audio, kind = outputs['video'], outputs['audio'], batch['kind']
        if self.easy_negatives == 'drawn':
            values = pair_losses(self, video, audio, kind)                                # [B, K]
        else:
            values = all_pairs_loss(
                self, video, audio, kind, batch['example_hash'], batch['audio_hash'],
                weighted=self.easy_negatives == 'weighted')                               # [B, K]
        # Each replica may have another number of pairs.
        pairs = mean_over_replicas(tf.reduce_sum(tf.cast(kind != NO_PAIR, tf.float32)))   # []
        return tf.math.divide_no_nan(tf.reduce_sum(values), pairs)

    def get_config(self) -> dict:
        return {
            **super().get_config(), 'margin': self.margin, 'positive_term': self.positive_term,
            'easy_negatives': self.easy_negatives,
        }


def pair_losses(
    loss: ContrastiveLoss, video: tf.Tensor, audio: tf.Tensor, kind: tf.Tensor,
) -> tf.Tensor:
    """Loss of each pair by its own distance.

    Args:
        loss: `ContrastiveLoss`.
        video: float32 [B, D].
        audio: float32 [B, K, D].
        kind: int32 [B, K].

    Returns:
        float32 [B, K], 0 for `NO_PAIR`.
    """
    squared = squared_distances(video, audio)                                             # [B, K]
    values = loss.call(tf.cast(kind == Kind.POSITIVE, tf.float32), safe_sqrt(squared))    # [B, K]
    return tf.where(kind == NO_PAIR, 0.0, values)


def all_pairs_loss(
    loss: ContrastiveLoss, video: tf.Tensor, audio: tf.Tensor, kind: tf.Tensor,
    example_hash: tf.Tensor, audio_hash: tf.Tensor, weighted: bool,
) -> tf.Tensor:
    """Contrastive loss in which an easy negative stands for all other clips of the global batch.

    Its loss is the mean over the audio of all other clips to the clip's video, and over the video
    of all other clips to the clip's audio: the expectation of one random other clip, with less
    noise. Weighted, each of them counts by the square of its own loss, so that pairs that are
    already far apart do not dilute those that are not.

    Args:
        loss: `ContrastiveLoss`.
        video: float32 [B, D].
        audio: float32 [B, K, D]; the first window is the clip's own audio, or with K = 1 may be
            another clip's.
        kind: int32 [B, K].
        example_hash: int64 [B], the clips.
        audio_hash: int64 [B, K], the clip that each audio window comes from.
        weighted: whether others count by their loss.

    Returns:
        float32 [B, K], loss per pair; 0 for `NO_PAIR`.
    """
    def mean_over_others(
        anchors: tf.Tensor, anchor_hash: tf.Tensor, others: tf.Tensor, other_hash: tf.Tensor,
    ) -> tf.Tensor:
        others, other_hash = gather_replicas(others), gather_replicas(other_hash)         # [G, D]
        squared = squared_distances_of_all(anchors, others)                               # [B, G]
        negative = loss.call(tf.zeros_like(squared), safe_sqrt(squared))                  # [B, G]
        weight = tf.cast(anchor_hash[:, None] != other_hash[None], tf.float32)            # [B, G]
        if weighted:
            weight *= tf.stop_gradient(negative**2)
        return tf.math.divide_no_nan(tf.reduce_sum(weight * negative, 1), tf.reduce_sum(weight, 1))

    first, first_hash = audio[:, 0], audio_hash[:, 0]                                     # [B, D]
    easy = 0.5 * (mean_over_others(video, example_hash, first, first_hash)
                  + mean_over_others(first, first_hash, video, example_hash))             # [B]
    is_easy = is_one_of(kind, OTHER_RECORD_NEGATIVES)                                     # [B, K]
    return tf.where(is_easy, easy[:, None], pair_losses(loss, video, audio, kind))


# Limits of a temperature that is learned. CLIP's: below 0.01 its training became unstable.
TEMPERATURES = 0.01, 1.0


@keras.saving.register_keras_serializable('avts_tf')
class InfoNCELoss(keras.losses.Loss):
    """InfoNCE: the cross entropy of finding a clip's own window among candidates.

    Called as a Keras loss it takes similarities: `y_true` float [..., C], 1 for the positive and 0
    for the other candidates; `y_pred` float [..., C], dot products. A `TwoTower` gives it whole
    batches through `of_batch`, in both directions (see `infonce_loss`).

    Args:
        temperature: float. The dot products are divided by it before the softmax.
        batch_negatives: str. Which clips have the other clips of the batch as candidates:
            'by_mix' are those for which an easy negative was drawn, so that the candidates follow
            the regime; 'always' are all.
        learnable_temperature: bool. Whether a `TwoTower` learns the logarithm of the temperature,
            from `temperature` on and within `TEMPERATURES`, as CLIP does (Radford et al. 2021).
        reduction: str or None. As in Keras; a `TwoTower` takes the default alone.
        name: str. The name of the loss.

    Example:
        >>> import avts_tf
        >>> loss = avts_tf.InfoNCELoss(temperature=0.1)
        >>> round(float(loss([[1.0, 0.0]], [[0.5, 0.5]])), 4)  # two candidates alike: log 2
        0.6931
        >>> model = avts_tf.build_two_tower(avts_tf.make_config('tiny'))
        >>> model.compile('sgd', loss=loss)

    Raises:
        UserError: a choice that does not exist, or a temperature that cannot be learned.
    """

    def __init__(
        self, temperature: float = 0.07, batch_negatives: str = 'by_mix',
        learnable_temperature: bool = False, reduction: str | None = 'sum_over_batch_size',
        name: str = 'infonce', **kwargs,
    ) -> None:
        super().__init__(reduction=reduction, name=name, **kwargs)
        _check_choice('batch_negatives', batch_negatives, ('by_mix', 'always'))
        low, high = TEMPERATURES
        if learnable_temperature and not low <= temperature <= high:
            raise UserError('temperature', temperature, f'must be from {low} to {high} where it is '
                            'learned (`learnable_temperature`).')
        self.temperature = temperature
        self.batch_negatives = batch_negatives
        self.learnable_temperature = learnable_temperature

    @classmethod
    def from_train_config(cls, train: TrainConfig) -> 'InfoNCELoss':
        """The loss that a configuration asks for."""
        return cls(train.temperature, train.infonce_batch_negatives, train.learnable_temperature)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        y_pred = tf.convert_to_tensor(y_pred)
        return tf.nn.softmax_cross_entropy_with_logits(
            tf.cast(y_true, y_pred.dtype), y_pred / self.temperature)

    def of_batch(
        self, outputs: dict[str, tf.Tensor], batch: dict[str, tf.Tensor],
        temperature: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The mean over the clips of the global batch that have candidates.

        Args:
            outputs: `video` float32 [B, D] and `audio` float32 [B, K, D].
            batch: one replica's part of a batch of `make_dataset`.
            temperature: float32 scalar, one that is learned; None takes `self.temperature`.

        Returns:
            float32 scalar of one replica; the mean over the replicas is the loss.
        """
        values, has_candidates = infonce_loss(
            outputs['video'], outputs['audio'], batch['kind'], batch['example_hash'],
            self.temperature if temperature is None else temperature, self.batch_negatives)
        # Each replica may have another number of such clips.
        clips = mean_over_replicas(tf.reduce_sum(tf.cast(has_candidates, tf.float32)))    # []
        return tf.math.divide_no_nan(tf.reduce_sum(values), clips)

    def get_config(self) -> dict:
        return {
            **super().get_config(), 'temperature': self.temperature,
            'batch_negatives': self.batch_negatives,
            'learnable_temperature': self.learnable_temperature,
        }


def infonce_loss(
    video: tf.Tensor, audio: tf.Tensor, kind: tf.Tensor, example_hash: tf.Tensor,
    temperature: float | tf.Tensor, batch_negatives: str = 'by_mix',
) -> tuple[tf.Tensor, tf.Tensor]:
    """InfoNCE of each clip, the mean of two directions.

    The clip's video looks for the clip's audio, and the clip's audio for its video. The candidates
    follow the negatives that were drawn for the clip: if one of them is easy, the audio of all
    other clips of the global batch, in the other direction their video; its hard and super-hard
    windows, in the first direction alone. A direction without candidates is 0. Other windows of
    the same example never count as negatives.

    Args:
        video: float32 [B, D].
        audio: float32 [B, K, D]; the first window is the positive.
        kind: int32 [B, K].
        example_hash: int64 [B].
        temperature: the dot products are divided by it before the softmax.
        batch_negatives: 'by_mix', or 'always' for other clips of the batch as candidates of every
            clip, whatever was drawn for it.

    Returns:
        (values, has_candidates): float32 [B], loss per clip; bool [B], whether there was anything
        to tell the clip's audio or video from. Where not, its loss is 0.
    """
    positive = tf.reduce_sum(video * audio[:, 0], -1, keepdims=True) / temperature        # [B, 1]
    hashes = gather_replicas(example_hash)                                                # [G]
    in_batch = example_hash[:, None] != hashes[None]                                      # [B, G]
    if batch_negatives == 'by_mix':
        is_easy = is_one_of(kind[:, 1:], OTHER_RECORD_NEGATIVES)                          # [B, K-1]
        in_batch &= tf.reduce_any(is_easy, 1, keepdims=True)

    def similarities(rows: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
        products = dot_products(rows, gather_replicas(others))                            # [B, G]
        return tf.cast(products, tf.float32) / temperature

    to_audio, to_video = similarities(video, audio[:, 0]), similarities(audio[:, 0], video)
    own = tf.reduce_sum(video[:, None] * audio[:, 1:], -1) / temperature                  # [B, K-1]
    minus_infinity = tf.float32.min
    is_own = is_one_of(kind[:, 1:], SAME_RECORD_NEGATIVES)                                # [B, K-1]
    own = tf.where(is_own, own, minus_infinity)
    of_audio = tf.reduce_logsumexp(
        tf.concat([positive, tf.where(in_batch, to_audio, minus_infinity), own], 1), 1)   # [B]
    of_video = tf.reduce_logsumexp(
        tf.concat([positive, tf.where(in_batch, to_video, minus_infinity)], 1), 1)        # [B]
    has_candidates = tf.reduce_any(in_batch, 1) | tf.reduce_any(is_own, 1)                # [B]
    return 0.5 * (of_audio + of_video) - positive[:, 0], has_candidates


# By the value of `loss`: what `TwoTower.compile` makes and takes.
LOSSES: dict[str, type[ContrastiveLoss] | type[InfoNCELoss]] = {
    'contrastive': ContrastiveLoss, 'infonce': InfoNCELoss}


def make_loss(train: TrainConfig) -> ContrastiveLoss | InfoNCELoss:
    """The loss that a configuration names.

    Example:
        >>> import avts_tf
        >>> make_loss(avts_tf.make_config('tiny', margin=1.1).train).margin
        1.1
    """
    return LOSSES[train.loss].from_train_config(train)


def _check_choice(name: str, value: str, choices: tuple[str, ...]):
    if value not in choices:
        raise UserError(name, value, f'use one of {", ".join(choices)}.')
