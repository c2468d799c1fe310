"""HMDB51: 6,766 clips of 51 actions, mostly from films, with three official splits.

CLASS/NAME.avi. Parts: train1, test1, ... of CLASS_test_split1.txt, ..., where 1 trains, 2 tests and
0 does neither. https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/
"""

import re

from avts_tf.data.datasets.common import Collection, Dataset, check_name, refuse_label_column
from avts_tf.data.datasets.lists import read_listed, read_lists
from avts_tf.errors import UserError

# What follows the class in a name: visible body parts, camera motion, people, view, quality, number
# of the clip.
_TAIL = re.compile(r'_[a-z]+_(?:nm|cm)_np\d+_[a-z]+_[a-z]+_\d+$')


def read(input_path: str, label_column: str) -> Collection:
    """Reads the folder with the videos and the lists."""
    refuse_label_column(label_column)
    lists: dict[str, list[str]] = {}
    for name, lines in read_lists(input_path, '*_test_split[1-3].txt'):
        label, _, split = name.removesuffix('.txt').rpartition('_test_split')
        for line, words in enumerate(lines, 1):
            if len(words) != 2 or words[1] not in ('0', '1', '2'):
                raise UserError(
                    None, name, f'the line "{" ".join(words)}" is not FILE and 0, 1 or 2.')
            check_name(name, line, 'the file', words[0])
            for part, code in (('train', '1'), ('test', '2')):
                members = lists.setdefault(part + split, [])
                if words[1] == code:
                    members.append(f'{label}/{words[0]}')
    return read_listed(input_path, lists, 'CLASS_test_split1.txt, ...', _group)


def _group(folder: str, stem: str) -> str:
    # The title of the film is before the class; clips of one film can be in several classes.
    return _TAIL.sub('', stem).removesuffix('_' + folder)


DATASET = Dataset(read, splits=('1', '2', '3'))
