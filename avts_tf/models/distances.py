"""Distances and dot products of embeddings."""

import tensorflow as tf


def squared_distances(video: tf.Tensor, audio: tf.Tensor) -> tf.Tensor:
    """Squared Euclidean distances of clips to their own audio windows.

    Args:
        video: float32 [B, D].
        audio: float32 [B, K, D].

    Returns:
        float32 [B, K].
    """
    return tf.reduce_sum(tf.math.squared_difference(audio, video[:, None]), -1)


def dot_products(rows: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Dot products of all pairs of rows, in float64.

    GPUs may multiply float32 matrices in TF32, which keeps 10 bits of a factor's fraction: the
    distance of two equal embeddings of length 1 could come out as 0.04. They never do so with
    float64. The products of a batch are few beside the convolutions.

    Args:
        rows: float32 [B, D].
        others: float32 [G, D].

    Returns:
        float64 [B, G]. No tensor of B * G * D numbers is made.
    """
    return tf.matmul(tf.cast(rows, tf.float64), tf.cast(others, tf.float64), transpose_b=True)


def squared_distances_of_all(rows: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Squared Euclidean distances of all pairs of rows; see `dot_products`.

    Args:
        rows: float32 [B, D].
        others: float32 [G, D].

    Returns:
        float32 [B, G]; of equal rows 0 to rounding, which may lie below 0.

    Example:
        >>> squared_distances_of_all(tf.constant([[0.0, 3.0]]), tf.constant([[4.0, 0.0]])).numpy()
        array([[25.]], dtype=float32)
    """
    lengths, other_lengths = (tf.reduce_sum(tf.square(tf.cast(each, tf.float64)), -1)
                              for each in (rows, others))                           # [B], [G]
    squared = lengths[:, None] + other_lengths[None] - 2.0 * dot_products(rows, others)
    return tf.cast(squared, tf.float32)


def safe_sqrt(squared: tf.Tensor) -> tf.Tensor:
    """Square root with a finite gradient at zero, where that of `tf.sqrt` is infinite."""
    return tf.sqrt(tf.maximum(squared, 1e-12))
