"""What the tests of several folders share: exported towers, and the flag that renews goldens."""

import avts_tf  # noqa: F401  first, because it sets how TensorFlow runs

# isort: split

import os

import filelock
import pytest

from avts_tf.inference.export import export_towers
from tests.inference.small import small_model


def pytest_addoption(parser):
    """The flag with which golden values are renewed."""
    parser.addoption('--update_goldens', action='store_true',
                     help='write tests/goldens/ anew from what is computed now')


@pytest.fixture(scope='session')
def towers(tmp_path_factory):
    """Folder of both exported towers: small ones, of 0.48 s windows, that separate inputs.

    All processes of pytest-xdist share one export. No test changes it.
    """
    folder = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        folder = folder.parent
    with filelock.FileLock(folder / 'towers.lock'):
        if not (folder / 'towers' / 'video_tower' / '1').exists():
            export_towers(small_model(), folder / 'towers', training={'epochs': 3})
    return folder / 'towers'
