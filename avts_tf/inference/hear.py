"""The HEAR 2021 interface, by which audio representations are compared.

    hear-validator avts_tf.inference.hear --model saved_models/audio_tower

https://hearbenchmark.com/hear-api.html defines it. Embeddings are conv5, the features that the
method classifies sounds by. Sounds must come at the tower's sample rate; HEAR offers 16000, 22050,
32000, 44100 and 48000 Hz.
"""

import numpy as np
import tensorflow as tf

from avts_tf.errors import UserError
from avts_tf.inference.embed import embed_streams, pcm_blocks
from avts_tf.inference.saved_towers import AudioFeatures, AudioTower, load_tower

HOP_SECONDS = 0.05  # HEAR counts an onset as found within 50 ms


class Model(tf.Module):
    """An audio tower with the attributes that HEAR asks for.

    Attributes:
        sample_rate: int, Hz.
        scene_embedding_size, timestamp_embedding_size: int.
    """

    def __init__(self, tower: AudioTower) -> None:
        super().__init__(name='avts_audio_tower')
        self.tower = tower
        self.sample_rate = int(tower.rate)
        self.scene_embedding_size = int(tower.metadata['feature_sizes']['conv5'])
        self.timestamp_embedding_size = self.scene_embedding_size


def load_model(model_file_path: str = 'saved_models/audio_tower') -> Model:
    """Loads an exported audio tower.

    Args:
        model_file_path: folder of the tower or of one of its versions.

    Raises:
        UserError: there is no audio tower in the folder.
    """
    tower = load_tower(model_file_path)
    if not isinstance(tower, AudioTower):
        raise UserError('model_file_path', model_file_path,
                        f'is the {tower.name}; HEAR is about audio.')
    return Model(tower)


def get_timestamp_embeddings(
    audio: tf.Tensor, model: Model, hop_seconds: float = HOP_SECONDS,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Embeddings of windows centred at regular times from 0 to the end of the sound.

    Args:
        audio: float32 [sounds, samples] in [-1, 1], mono, at the model's sample rate.
        model: result of `load_model`.
        hop_seconds: step between timestamps.

    Returns:
        (embeddings float32 [sounds, timestamps, size], timestamps in milliseconds, float32
        [sounds, timestamps]).

    Raises:
        UserError: the sound is empty, holds NaN or infinite samples, or is not of this shape.
    """
    audio = _checked(audio)
    # None after the end.
    count = int(audio.shape[1] / model.sample_rate / hop_seconds + 1e-6) + 1
    embedded = _embed(audio, model, hop_seconds, centered=True)
    embeddings = tf.stack([sound.conv5[:count] for sound in embedded])
    milliseconds = tf.constant(1000 * embedded[0].timestamps[:count], tf.float32)
    return embeddings, tf.tile(milliseconds[None], [len(embedded), 1])


def get_scene_embeddings(audio: tf.Tensor, model: Model) -> tf.Tensor:
    """One embedding per sound, the mean over windows that overlap by half.

    Args:
        audio, model: as in `get_timestamp_embeddings`.

    Returns:
        float32 [sounds, size].

    Raises:
        UserError: as in `get_timestamp_embeddings`.
    """
    hop_seconds = model.tower.window / 2 / model.sample_rate
    embedded = _embed(_checked(audio), model, hop_seconds, centered=False)
    return tf.stack([tf.reduce_mean(sound.conv5, 0) for sound in embedded])


def _checked(audio: tf.Tensor) -> np.ndarray:
    audio = tf.convert_to_tensor(audio)
    if audio.shape.rank != 2 or not audio.dtype.is_floating or not audio.shape[0]:
        raise UserError('audio', None, 'must be float [sounds, samples] with at least one sound, '
                        f'not {audio.dtype.name} {audio.shape.as_list()}.')
    return audio.numpy()


def _embed(
    audio: np.ndarray, model: Model, hop_seconds: float, centered: bool,
) -> list[AudioFeatures]:
    """Features of each sound; all share batches."""
    items = ((number, block) for number, sound in enumerate(audio)
             for block in pcm_blocks(sound, model.sample_rate, model.sample_rate))
    found = []
    for _, result in embed_streams(model.tower, items, hop_seconds, centered):
        assert isinstance(result, AudioFeatures)  # an array of samples does not break
        found.append(result)
    return found
