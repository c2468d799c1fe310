"""Augmentation in time and of audio; that of frames is in images.py, of spectrograms in
`models/spec_augment.py`.

Speed is one for all records of a pass. If each record had its own, an easy negative, audio of
another record, would be known by a pitch that does not go with the speed of what is seen.
"""

import tensorflow as tf

from avts_tf.config import Config
from avts_tf.data.records import Record
from avts_tf.data.sampling import usable_frames


def strength_at(config: Config, epoch: tf.Tensor) -> tf.Tensor | float:
    """How much of the augmentation an epoch has.

    Args:
        config: `Config`, of which `ramp_epochs` counts.
        epoch: int64 scalar, from 0.

    Returns:
        float32 scalar in [0, 1]: 0 in the first epoch, 1 from epoch `ramp_epochs` on.
    """
    if not config.augment.ramp_epochs:
        return 1.0
    return tf.minimum(tf.cast(epoch, tf.float32) / config.augment.ramp_epochs, 1.0)


def change_speed(record: Record, usable: tf.Tensor, config: Config, number: tf.Tensor,
                 strength: tf.Tensor | float) -> tuple[Record, tf.Tensor]:
    """Plays a record faster or slower, with the speed of a pass.

    Args:
        record: `Record`.
        usable: int64 scalar, result of `usable_frames`, at least 1.
        config: `Config`, of which `speed_change` and `seed` count.
        number: int64 scalar, of the pass, counted over all epochs.
        strength: result of `strength_at`.

    Returns:
        (the record with its `speed`, `usable_frames` of it). A record that would be shorter than a
        window stays as it is.
    """
    most = config.augment.speed_change
    if not most:
        return record, usable
    seed = tf.stack([tf.constant(config.train.seed, tf.int64), number])
    drawn = tf.random.stateless_uniform([], seed, -1.0, 1.0)
    # As many passes are slower as are faster: the factors 1.25 and 0.8 are equally far from 1.
    speed = tf.cast(tf.pow(1.0 + most, drawn * strength), tf.float64)
    speed = tf.where(usable_frames(played(record, speed), config) > 0, speed, 1.0)
    record = played(record, speed)
    return record, usable_frames(record, config)


def played(record: Record, speed: tf.Tensor) -> Record:
    """A record at so many times its speed, float64 scalar."""
    return record._replace(frame_seconds=record.frame_seconds / speed, speed=speed)


def change_audio(audio: tf.Tensor, config: Config, seed: tf.Tensor,
                 strength: tf.Tensor | float) -> tf.Tensor:
    """Makes audio louder or quieter, and brighter or duller, all windows of a clip alike.

    The filter is y[n] = x[n] + a x[n - 1], with a coefficient in [-`tilt`, `tilt`], scaled so that
    white noise keeps its loudness. What would leave the range of int16 is clipped.

    Args:
        audio: int16 [..., samples].
        config: `Config`, of which `gain_db` and `tilt` count.
        seed: int32 [2].
        strength: result of `strength_at`.

    Returns:
        int16 [..., samples].
    """
    augment = config.augment
    if not (augment.gain_db or augment.tilt):
        return audio
    gain, tilt = tf.unstack(tf.random.stateless_uniform([2], seed, -1.0, 1.0) * strength)
    values, tilt = tf.cast(audio, tf.float32), tilt * augment.tilt
    before = tf.concat([values[..., :1], values[..., :-1]], -1)
    factor = tf.pow(10.0, gain * augment.gain_db / 20) / tf.sqrt(1.0 + tilt**2)
    values = tf.clip_by_value(factor * (values + tilt * before), tf.int16.min, tf.int16.max)
    return tf.cast(tf.round(values), tf.int16)
