"""UCF101: 13,320 videos of 101 actions, with three official splits.

CLASS/v_CLASS_g01_c01.avi, where clips of one g are of one video. Parts: train1, test1, ... of
trainlist01.txt, testlist01.txt, ... https://www.crcv.ucf.edu/data/UCF101.php
"""

import re

from avts_tf.data.datasets.common import Collection, Dataset, refuse_label_column
from avts_tf.data.datasets.lists import read_listed, read_lists
from avts_tf.errors import UserError

_NAME = re.compile(r'v_(.+)_g(\d+)_c\d+')


def read(input_path: str, label_column: str) -> Collection:
    """Reads the folder with the videos and the lists."""
    refuse_label_column(label_column)
    lists = {}
    for name, lines in read_lists(input_path, '*list0[1-3].txt'):
        found = re.fullmatch(r'(train|test)list0(\d)\.txt', name)
        if found:
            lists[''.join(found.groups())] = [words[0] for words in lines]
    bad = [member for members in lists.values() for member in members
           if member.count('/') != 1 or not {'', '.', '..'}.isdisjoint(member.split('/'))]
    if bad:
        raise UserError(
            'input', input_path, f'a line of the lists reads {bad[0]}, not CLASS/FILE.')
    return read_listed(input_path, lists, 'trainlist01.txt, testlist01.txt, ...', _group)


def _group(folder: str, stem: str) -> str:
    found = _NAME.fullmatch(stem)
    return f'{found[1]}_g{found[2]}' if found else f'{folder}/{stem}'


DATASET = Dataset(read, splits=('1', '2', '3'))
