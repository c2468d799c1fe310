"""The examples in the docstrings of the models say what they print."""

import doctest
import importlib

import pytest

MODULES = ('audio', 'build', 'convolutions', 'distances', 'frontend', 'i3d', 'layers', 'losses',
           'mcx', 'spec_augment', 'two_tower', 'video')


@pytest.mark.slow
@pytest.mark.parametrize('name', MODULES)
def test_examples(name):
    module = importlib.import_module(f'avts_tf.models.{name}')
    failed, tried = doctest.testmod(module)
    assert tried and not failed
