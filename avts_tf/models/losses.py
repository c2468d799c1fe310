"""Losses on the embeddings of a batch; every function is per pair, the reduction over replicas is the model's."""

import keras
import tensorflow as tf

from avts_tf.data.sampling import (
    NO_PAIR,
    OTHER_RECORD_NEGATIVES,
    SAME_RECORD_NEGATIVES,
    Kind,
    is_one_of,
)


def squared_distances(video, audio):
    """Squared Euclidean distances of clips to their own audio windows: [B, D], [B, K, D] -> float32 [B, K]."""
    return tf.reduce_sum(tf.math.squared_difference(audio, video[:, None]), -1)


def safe_sqrt(squared):
    """Square root with a finite gradient at zero."""
    return tf.sqrt(tf.maximum(squared, 1e-12))


@keras.saving.register_keras_serializable('avts_tf')
class ContrastiveLoss(keras.losses.Loss):
    """The margin loss E = y d^p + (1 - y) max(margin - d, 0)^2 of each pair.

    p is 2 (Hadsell et al. 2006) or, as the slides on AVTS print it, 1.

    Args:
        margin: distance that is asked of negatives.
        positive_term: 'squared' or 'unsquared'.
        reduction: as in Keras.

    Call:
        y_true: float [...], 1 in sync, 0 out of sync.
        y_pred: float [...], distances.
    """

    def __init__(self, margin=0.99, positive_term='squared', reduction='sum_over_batch_size', name='contrastive', **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)
        if positive_term not in ('squared', 'unsquared'):
            raise ValueError(f'positive_term={positive_term!r}: use "squared" or "unsquared".')
        self.margin = margin
        self.positive_term = positive_term

    def call(self, y_true, y_pred):
        positive = tf.square(y_pred) if self.positive_term == 'squared' else y_pred
        negative = tf.square(tf.maximum(self.margin - y_pred, 0.0))
        y_true = tf.cast(y_true, y_pred.dtype)
        return y_true * positive + (1.0 - y_true) * negative

    def get_config(self):
        return {**super().get_config(), 'margin': self.margin, 'positive_term': self.positive_term}


def gather_replicas(tensor):
    """Concatenates a tensor over replicas along the batch; the gradient flows back to every replica."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tensor
    # A replica's input has no device yet, and across machines TensorFlow asks for one.
    return context.all_gather(tf.identity(tensor), axis=0)


def all_pairs_loss(loss, video, audio, kind, example_hash, audio_hash, weighted):
    """Contrastive loss in which an easy negative stands for all other clips of the global batch.

    Its loss is the mean over all other clips' sounds to the clip's picture, and over all other clips' pictures to the clip's
    sound: the expectation of one random other clip, with less noise. Weighted, each of them counts by the square of its own
    loss, so that what is already told apart does not dilute what is not.

    Args:
        loss: `ContrastiveLoss`.
        video: float32 [B, D].
        audio: float32 [B, K, D]; the first window is the clip's own sound, or with K = 1 may be another clip's.
        kind: int32 [B, K].
        example_hash: int64 [B], the clips.
        audio_hash: int64 [B, K], the clip that each sound comes from; the first may be another clip's.
        weighted: whether others count by their loss.

    Returns:
        float32 [B, K], loss per pair; 0 for NO_PAIR.
    """
    def mean_over_others(anchors, anchor_hash, others, other_hash):
        others, other_hash = gather_replicas(others), gather_replicas(other_hash)
        squared = (tf.reduce_sum(anchors**2, -1)[:, None] + tf.reduce_sum(others**2, -1)[None]
                   - 2.0 * tf.matmul(anchors, others, transpose_b=True))                     # [B, G]
        negative = loss.call(tf.zeros_like(squared), safe_sqrt(squared))
        weight = tf.cast(anchor_hash[:, None] != other_hash[None], tf.float32)
        if weighted:
            weight *= tf.stop_gradient(negative**2)
        return tf.math.divide_no_nan(tf.reduce_sum(weight * negative, 1), tf.reduce_sum(weight, 1))

    sound, sound_hash = audio[:, 0], audio_hash[:, 0]
    easy = 0.5 * (mean_over_others(video, example_hash, sound, sound_hash)
                  + mean_over_others(sound, sound_hash, video, example_hash))
    return tf.where(is_one_of(kind, OTHER_RECORD_NEGATIVES), easy[:, None], pair_losses(loss, video, audio, kind))


def pair_losses(loss, video, audio, kind):
    """Loss of each pair by its own distance: float32 [B, K], 0 for NO_PAIR."""
    squared = squared_distances(video, audio)
    values = loss.call(tf.cast(kind == Kind.POSITIVE, tf.float32), safe_sqrt(squared))
    return tf.where(kind == NO_PAIR, 0.0, values)


def infonce_loss(video, audio, kind, example_hash, temperature):
    """InfoNCE of each clip, both ways: its own sound among all sounds of the global batch, its own picture among all pictures.

    Picture to sound, the clip's hard and super-hard windows are among the candidates too. Other windows of the same example
    never count as negatives.

    Args:
        video: float32 [B, D].
        audio: float32 [B, K, D]; the first window is the positive.
        kind: int32 [B, K].
        example_hash: int64 [B].
        temperature: of the softmax over the dot products.

    Returns:
        float32 [B], loss per clip.
    """
    positive = tf.reduce_sum(video * audio[:, 0], -1, keepdims=True) / temperature           # [B, 1]
    hashes = gather_replicas(example_hash)
    same = example_hash[:, None] == hashes[None]                                             # [B, G]
    minus_infinity = tf.float32.min
    to_sounds = tf.matmul(video, gather_replicas(audio[:, 0]), transpose_b=True) / temperature
    to_pictures = tf.matmul(audio[:, 0], gather_replicas(video), transpose_b=True) / temperature
    own = tf.einsum('bd,bkd->bk', video, audio[:, 1:]) / temperature
    own = tf.where(is_one_of(kind[:, 1:], SAME_RECORD_NEGATIVES), own, minus_infinity)
    sound = tf.reduce_logsumexp(tf.concat([positive, tf.where(same, minus_infinity, to_sounds), own], 1), 1)
    picture = tf.reduce_logsumexp(tf.concat([positive, tf.where(same, minus_infinity, to_pictures)], 1), 1)
    return 0.5 * (sound + picture) - positive[:, 0]
