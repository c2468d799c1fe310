"""A decoder that is killed by a file whose name begins with "two", as a fault in a codec would."""

import os

from avts_tf.data import media
from avts_tf.inference import embed_files

_try_media, _read_blocks = media.try_media, embed_files.read_blocks


def try_media(task):
    if os.path.basename(task[0]).startswith('two'):
        os.abort()
    return _try_media(task)


def read_blocks(task):
    if os.path.basename(task[1].path).startswith('two'):
        os.abort()
    yield from _read_blocks(task)
