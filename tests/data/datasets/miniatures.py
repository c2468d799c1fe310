"""Miniatures of collections, as they are published."""

import pytest

from avts_tf.data import datasets
from avts_tf.errors import UserError


def make(root, *names, **texts):
    """Makes empty files of such names, and files with texts; returns the folder as text."""
    for name, text in {**dict.fromkeys(names, ''), **texts}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding='utf-8')
    return str(root)


def brief(sources):
    """What counts of sources, without the place where they are."""
    return [(s.example_id, s.data_path, s.label, s.split, s.group, s.start_seconds, s.end_seconds)
            for s in sources]


def message(*args, **kwargs):
    """The error of `find_sources`."""
    with pytest.raises(UserError) as caught:
        datasets.find_sources(*args, **kwargs)
    assert '\n' not in str(caught.value) and '--' not in str(caught.value)
    return str(caught.value)
