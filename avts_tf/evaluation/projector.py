"""Embeddings of held-out clips for TensorBoard's projector: video and audio of one moment."""

from typing import NamedTuple

import numpy as np

from avts_tf import progress
from avts_tf.data.window_datasets import make_offset_dataset
from avts_tf.models.two_tower import TwoTower

CLIPS = 200


class ProjectorClip(NamedTuple):
    """One clip as two points, the embeddings of its middle window.

    Attributes:
        example_id: name of the record.
        labels: labels of the record.
        frame: uint8 [size, size, 3], the middle frame of the window.
        video: float32 [D], embedding of the video.
        audio: float32 [D], embedding of the audio.
    """

    example_id: str
    labels: list[str]
    frame: np.ndarray
    video: np.ndarray
    audio: np.ndarray


def embed_clips(
    model: TwoTower, records: str, parameter: str = 'eval_records',
) -> list[ProjectorClip]:
    """Embeds the middle window of `CLIPS` clips at most.

    Args:
        model: trained model.
        records: glob of records, of which the first are taken.
        parameter: name of the parameter that the glob comes from, for messages.

    Returns:
        A list, empty where no record can be used.

    Example:
        >>> clips = embed_clips(model, 'data/test-*')
        >>> clips[0].video.shape
        (128,)
    """
    found = []
    dataset = make_offset_dataset(records, model.config, [0.0], parameter=parameter).take(CLIPS)
    for clip in progress.bar(dataset, f'{parameter}: projector', unit='clip'):
        outputs = model.embed_batch({'video': clip['video'], 'audio': clip['audio']})
        frames = clip['video'][0].numpy()
        found.append(ProjectorClip(
            clip['example_id'].numpy().decode(errors='replace'),
            [label.decode(errors='replace') for label in clip['label_string'].numpy()],
            frames[len(frames) // 2], outputs['video'][0].numpy(), outputs['audio'][0, 0].numpy()))
    return found
