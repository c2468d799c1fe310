"""The contact sheet shows frames and audio at their times."""

import io

import numpy as np
import pytest
from PIL import Image

from avts_tf.data import records
from tests.helpers import write_records
from tests.tfrecords_tools.record_files import plain_video
from tfrecords_tools import inspect


@pytest.mark.parametrize('seconds', [0.0, 0.01, 0.5])
def test_contact_sheet(mixed, tmp_path, seconds):
    sheet = tmp_path / 'sheet.png'
    inspect.inspect([mixed], str(sheet), records=2, contact_seconds=seconds)
    image = Image.open(sheet)
    assert image.format == 'PNG' and image.width > 1000
    colours = np.asarray(image.convert('RGB')).reshape(-1, 3)
    # the frames are grey 90
    assert (np.abs(colours.astype(int) - 90).max(axis=1) < 3).mean() > 0.03


def test_frames_lie_over_their_audio(tmp_path):
    # One white frame in the middle, and a sound while it stands: both must appear in the same
    # columns of the sheet.
    video = plain_video('flash', 9, 10.0, (16, 16), 14400, 16000)
    white = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), 255, np.uint8)).save(white, 'JPEG')
    video.frames[5] = white.getvalue()
    video.waveform[:] = 0
    video.waveform[8000:9600] = 20000
    sheet = tmp_path / 'sheet.png'
    inspect.inspect([write_records(tmp_path / 'x', [records.encode(video)])], str(sheet))
    pixels = np.asarray(Image.open(sheet).convert('RGB')).astype(int)
    blue = (pixels[..., 2] - pixels[..., 0] > 80).sum(axis=0)
    sound = np.flatnonzero(blue > 20)
    grey = np.abs(pixels - 90).max(axis=2) < 3
    grey = grey[grey.mean(axis=1) > 0.5].any(axis=0)
    columns = np.flatnonzero(grey)
    inner = np.arange(columns[0], columns[-1])
    missing = inner[~grey[inner]]
    gap = max(np.split(missing, np.flatnonzero(np.diff(missing) > 1) + 1), key=len)
    # The sound begins at the white frame's time, which is the middle of its picture.
    assert abs(sound[0] - (gap[0] + gap[-1]) / 2) < 0.1 * len(gap)
