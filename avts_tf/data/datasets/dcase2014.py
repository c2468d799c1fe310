"""DCASE 2014, task 1: 200 recordings of 30 s of ten acoustic scenes.

Scenes are SCENE01.wav. Parts: evaluation, for files in a folder with "test" or "eval" in its name,
and development. Or a CSV as in `plain`. https://dcase.community/challenge2014
"""

import os
import re

from avts_tf.data.datasets import plain
from avts_tf.data.datasets.common import Collection, Dataset, collect, refuse_label_column, stem


def read(input_path: str, label_column: str) -> Collection:
    """Reads the folder of the scenes, or a CSV."""
    if os.path.isfile(input_path):
        return plain.read_csv(input_path, label_column)
    refuse_label_column(label_column)
    sources, name = [], os.path.basename(os.path.abspath(input_path))
    for source in plain.read(input_path, '').sources:
        scene = re.sub(r'\d+$', '', stem(source.data_path))
        folders = '/'.join([name, *source.data_path.split('/')[:-1]]).lower()
        split = 'evaluation' if 'test' in folders or 'eval' in folders else 'development'
        sources.append(source._replace(label=scene, split=split))
    return collect(sources)


# Its clips are six times as long as those of ESC-50, and get six times as many windows.
DATASET = Dataset(read, audio_only=True, windows_per_clip=60)
