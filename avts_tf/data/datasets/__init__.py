"""The published collections: which files they have, with classes, published parts and groups.

One file per collection holds all that is known of it. To add a collection, add one file NAME.py
to this folder; nothing else need change, and `--dataset=NAME` takes it:

    from avts_tf.data.datasets.common import Collection, Dataset, Source, collect

    def read(input_path: str, label_column: str) -> Collection:
        return collect([Source('a/1', '/data/a/1.wav', 'a/1.wav', label='a', split='fold1'), ...])

    DATASET = Dataset(read, audio_only=True, folds=5, clip_seconds=4.0)

`common` has what the files share: `Source`, `Collection`, `Dataset`, and the reading of tables
and folders. `plain` is for your own files, in a folder or named by a CSV.

A file that a list names and that is not there is a source too, so that a report can say that it
is missing. Labels are all names of the whole collection, sorted, so that all parts give a class
the same index. TensorFlow is not imported.

Example:
    >>> from avts_tf.data import datasets
    >>> sources = datasets.find_sources('ESC-50/', 'esc50', split='fold1')
    >>> sources[0].label, sources[0].split
    ('dog', 'fold1')
"""

from avts_tf.data.datasets.common import (
    AUDIO_SUFFIXES,
    VIDEO_SUFFIXES,
    Collection,
    Dataset,
    Source,
    seconds_text,
)
from avts_tf.data.datasets.find import (
    DATASETS,
    SIDES,
    find_media,
    find_sources,
    hold_out,
    read_collection,
    take_split,
)

__all__ = [
    'AUDIO_SUFFIXES', 'DATASETS', 'SIDES', 'VIDEO_SUFFIXES', 'Collection', 'Dataset', 'Source',
    'find_media', 'find_sources', 'hold_out', 'read_collection', 'seconds_text', 'take_split',
]
