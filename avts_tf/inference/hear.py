"""The HEAR 2021 interface, by which audio representations are compared: https://hearbenchmark.com/hear-api.html

    hear-validator avts_tf.inference.hear --model saved_models/audio_tower

Embeddings are conv5, the features that the method classifies sounds by. Sounds must come at the tower's sample rate; HEAR offers
16000, 22050, 32000, 44100 and 48000 Hz.
"""

import tensorflow as tf

from avts_tf.errors import UserError
from avts_tf.inference import features

HOP_SECONDS = 0.05  # HEAR counts an onset as found within 50 ms


class Model(tf.Module):
    """An audio tower with the attributes that HEAR asks for.

    Attributes:
        sample_rate: int, Hz.
        scene_embedding_size, timestamp_embedding_size: int.
    """

    def __init__(self, tower):
        super().__init__(name='avts_audio_tower')
        self.tower = tower
        self.sample_rate = int(tower.rate)
        self.scene_embedding_size = self.timestamp_embedding_size = int(tower.metadata['feature_sizes']['conv5'])


def load_model(model_file_path='saved_models/audio_tower'):
    """Loads an exported audio tower.

    Args:
        model_file_path: folder of the tower or of one of its versions.

    Returns:
        `Model`.

    Raises:
        UserError: there is no audio tower in the folder.
    """
    tower = features.load_tower(model_file_path)
    if not isinstance(tower, features.AudioTower):
        raise UserError(f'{model_file_path}: is the {tower.name}; HEAR is about sounds.')
    return Model(tower)


def get_timestamp_embeddings(audio, model, hop_seconds=HOP_SECONDS):
    """Embeddings of windows centred at regular times from 0 to the end of the sound.

    Args:
        audio: float32 [sounds, samples] in [-1, 1], mono, at the model's sample rate.
        model: `Model`.
        hop_seconds: step between timestamps.

    Returns:
        (embeddings float32 [sounds, timestamps, size], timestamps in milliseconds, float32 [sounds, timestamps]).

    Raises:
        UserError: the sound is empty, holds NaN, or is not of this shape.
    """
    audio, count = _checked(audio), int(audio.shape[1] / model.sample_rate / hop_seconds + 1e-6) + 1  # none after the end
    embedded = _embed(audio, model, hop_seconds, centered=True)
    embeddings = tf.stack([sound.conv5[:count] for sound in embedded])
    milliseconds = tf.constant(1000 * embedded[0].timestamps[:count], tf.float32)
    return embeddings, tf.tile(milliseconds[None], [len(embedded), 1])


def get_scene_embeddings(audio, model):
    """One embedding per sound, the mean over windows that overlap by half.

    Args:
        audio, model: as in `get_timestamp_embeddings`.

    Returns:
        float32 [sounds, size].

    Raises:
        UserError: as in `get_timestamp_embeddings`.
    """
    embedded = _embed(_checked(audio), model, model.tower.window / 2 / model.sample_rate, centered=False)
    return tf.stack([tf.reduce_mean(sound.conv5, 0) for sound in embedded])


def _checked(audio):
    audio = tf.convert_to_tensor(audio)
    if audio.shape.rank != 2 or not audio.dtype.is_floating or not audio.shape[0]:
        raise UserError(f'audio: must be float [sounds, samples] with at least one sound, not {audio.dtype.name} '
                        f'{audio.shape.as_list()}.')
    return audio.numpy()


def _embed(audio, model, hop_seconds, centered):
    """List of `features.AudioFeatures`, one per sound; all share batches."""
    items = ((number, block) for number, sound in enumerate(audio)
             for block in features.pcm_blocks(sound, model.sample_rate, model.sample_rate))
    return [result for _, result in features.embed_streams(model.tower, items, hop_seconds, centered)]
