"""The README's Python runs, word for word but for sizes, and without a warning."""

import re
import warnings

import pytest

from avts_tf.data.synthetic import write_world
from tests.helpers import ROOT

BLOCKS = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL)
# What would take long, and what stands for it here.
SMALLER = {"'small', batch_size=16": "'tiny', frame_size=16, batch_size=4", 'epochs=90': 'epochs=2'}


@pytest.mark.parametrize('number', range(len(BLOCKS)))
def test_python_of_the_readme(towers, tmp_path, monkeypatch, number):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'saved_models').symlink_to(towers)
    write_world('data/train', videos=8, size=24, seconds=2.0)
    code = BLOCKS[number]
    for words, others in SMALLER.items():
        code = code.replace(words, others)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter('always', UserWarning)
        exec(compile(code, f'README.md, Python block {number}', 'exec'), {})
    assert [str(warning.message) for warning in given if issubclass(warning.category, UserWarning)] == []


def test_what_is_made_smaller_stands_in_the_readme():
    assert all(any(words in block for block in BLOCKS) for words in SMALLER)
