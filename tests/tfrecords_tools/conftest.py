"""A folder of good and bad videos, for the writers, and record files, for the inspector."""

import avts_tf  # noqa: F401  first, because it sets how TensorFlow runs

# isort: split

import numpy as np
import pytest

from avts_tf.data import records
from tests.helpers import write_records
from tests.tfrecords_tools.record_files import plain_video
from tests.tfrecords_tools.writing import make_video


@pytest.fixture(scope='session')
def video_folder(tmp_path_factory):
    """A folder of classes with good and bad files."""
    root = tmp_path_factory.mktemp('videos')
    for i, name in enumerate(('bark/one.mp4', 'bark/two.MP4', 'clap/one.mkv', 'clap/same.mkv',
                              'clap/same.avi')):
        (root / name).parent.mkdir(exist_ok=True)
        make_video(root / name, seed=i)
    make_video(root / 'clap' / 'mute.mp4', sound=False)
    make_video(root / 'clap' / 'deaf.mp4', frames=False)
    make_video(root / 'clap' / 'hush.avi', loud=False)
    make_video(root / 'clap' / 'slide.mkv', moving=False)
    make_video(root / 'clap' / 'long.mkv', seconds=4.0)
    (root / 'clap' / 'noise.mp4').write_bytes(np.random.default_rng(0).bytes(5000))
    (root / 'clap' / 'readme.txt').write_text('no video')
    return root


@pytest.fixture
def mixed(tmp_path):
    """Two shards of records that differ in everything."""
    write_records(tmp_path / 'mixed-00000-of-00002', [
        records.encode(plain_video('a', 25, 25.0, (40, 30), 16000, 16000, ((0, 'dog'),))),
        records.encode(plain_video('b', 60, 30.0, (40, 30), 15200 * 2, 16000,
                                   ((0, 'dog'), (1, 'cat'))), 'float'),
    ])
    write_records(tmp_path / 'mixed-00001-of-00002',
                  [records.encode(plain_video('c', 100, 25.0, (24, 24), 0, 0))])
    return str(tmp_path / 'mixed-*')
