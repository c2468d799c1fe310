import io
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from PIL import Image

from avts_tf import records
from avts_tf.config import UserError
from tfrecords_tools import inspect, synthetic


def _video(example_id, frames, frame_rate, size, samples, sample_rate, labels=()):
    buffer = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8)).save(buffer, 'JPEG')
    return records.Video(
        example_id=example_id, frames=[buffer.getvalue()] * frames, frame_rate=frame_rate, height=size[1], width=size[0],
        waveform=np.full(samples, 1000, np.int16), sample_rate=sample_rate, labels=labels,
    )


def _write(path, serialized):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in serialized:
            writer.write(record)
    return str(path)


@pytest.fixture(name='mixed')
def _mixed(tmp_path):
    """Two shards of records that differ in everything."""
    _write(tmp_path / 'mixed-00000-of-00002', [
        records.encode(_video('a', 25, 25.0, (40, 30), 16000, 16000, ((0, 'dog'),))),
        records.encode(_video('b', 60, 30.0, (40, 30), 15200 * 2, 16000, ((0, 'dog'), (1, 'cat'))), 'float'),
    ])
    _write(tmp_path / 'mixed-00001-of-00002', [records.encode(_video('c', 100, 25.0, (24, 24), 0, 0))])
    return str(tmp_path / 'mixed-*')


def _line(text, name):
    [line] = [line for line in text.splitlines() if line.strip().startswith(name)]
    return line.split(maxsplit=1)[1].strip() if ':' not in line else line.split(':', 1)[1].strip()


def test_counts_of_a_mixed_set(mixed):
    text = inspect.inspect([mixed])
    assert _line(text, 'shards') == '2'
    assert _line(text, 'records') == '3'
    assert _line(text, 'duration') == '7.0 s in all; shortest 1.00 s, median 2.00 s, longest 4.00 s'
    assert _line(text, 'frame rates') == '25 fps (2), 30 fps (1)'
    assert _line(text, 'frame sizes') == '40x30 (2), 24x24 (1)'
    assert _line(text, 'sample rates') == '16000 Hz'
    assert _line(text, 'audio') == '2 with, 1 without'
    assert _line(text, 'worst audio - video') == '-100.0 ms, in b'
    assert _line(text, 'classes') == '2'
    assert _line(text, 'dog') == '2'
    assert _line(text, 'cat') == '1'
    assert 'repeated' not in text


def test_counts_of_a_synthetic_set(tmp_path):
    prefix = str(tmp_path / 'world')
    synthetic.write_world(prefix, videos=4, seconds=1.0, size=16, shards=2)
    text = inspect.inspect([prefix + '-*'])
    assert _line(text, 'records') == '4'
    assert _line(text, 'audio') == '4 with, 0 without'
    assert _line(text, 'worst audio - video') == '0.0 ms'
    assert inspect.inspect([str(tmp_path)]) == text  # a folder means the shards in it


def test_the_same_file_twice_counts_once_and_repeated_ids_are_told(tmp_path):
    record = records.encode(_video('same', 5, 5.0, (16, 16), 16000, 16000))
    path = _write(tmp_path / 'x-00000-of-00001', [record, record])
    text = inspect.inspect([path, str(tmp_path / 'x-*')])
    assert _line(text, 'records') == '2'
    assert _line(text, 'repeated ids') == "1, such as 'same'"


def test_frames_that_are_no_images_and_rates_not_stated(tmp_path):
    example = tf.train.SequenceExample()
    for i in range(4):
        example.feature_lists.feature_list[records.FRAMES].feature.add().bytes_list.value.append(b'no image')
        example.feature_lists.feature_list[records.FRAME_TIMES].feature.add().int64_list.value.append(i * 500_000)
    path = _write(tmp_path / 'x', [example.SerializeToString(), tf.train.SequenceExample().SerializeToString()])
    sheet = tmp_path / 'sheet.png'
    text = inspect.inspect([path], str(sheet))
    assert _line(text, 'frame sizes') == 'no image'
    assert _line(text, 'frame rates') == 'not stated'
    assert 'longest 2.00 s' in text
    assert Image.open(sheet).format == 'PNG'


@pytest.mark.parametrize('seconds', [0.0, 0.01, 0.5])
def test_contact_sheet(mixed, tmp_path, seconds):
    sheet = tmp_path / 'sheet.png'
    inspect.inspect([mixed], str(sheet), sheet_records=2, sheet_seconds=seconds)
    image = Image.open(sheet)
    assert image.format == 'PNG' and image.width > 1000
    colours = np.asarray(image.convert('RGB')).reshape(-1, 3)
    assert (np.abs(colours.astype(int) - 90).max(axis=1) < 3).mean() > 0.03  # the frames are grey 90


def test_contact_sheet_puts_sight_over_sound(tmp_path):
    # One white frame in the middle, and a sound while it stands: both must appear in the same columns of the sheet.
    video = _video('flash', 9, 10.0, (16, 16), 14400, 16000)
    white = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), 255, np.uint8)).save(white, 'JPEG')
    video.frames[5] = white.getvalue()
    video.waveform[:] = 0
    video.waveform[8000:9600] = 20000
    sheet = tmp_path / 'sheet.png'
    inspect.inspect([_write(tmp_path / 'x', [records.encode(video)])], str(sheet))
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


def test_mistakes_are_told(tmp_path, mixed):
    with pytest.raises(UserError, match='no record files given'):
        inspect.inspect([])
    missing = str(tmp_path / 'none-*')
    with pytest.raises(UserError) as error:
        inspect.inspect([mixed, missing])
    assert str(error.value).startswith(f'{missing}: no file matches')
    with pytest.raises(UserError, match='--contact_sheet=.*there is no folder'):
        inspect.inspect([mixed], str(tmp_path / 'nowhere' / 'sheet.png'))
    with pytest.raises(UserError, match='--records=0'):
        inspect.inspect([mixed], sheet_records=0)


def test_broken_files_are_named(tmp_path):
    serialized = records.encode(_video('a', 5, 5.0, (16, 16), 16000, 16000))
    cut = tmp_path / 'cut'
    _write(cut, [serialized, serialized])
    cut.write_bytes(cut.read_bytes()[:-7])
    with pytest.raises(UserError, match=r'cut: cut short after 1 whole record'):
        inspect.inspect([str(cut)])

    damaged = tmp_path / 'damaged'
    _write(damaged, [serialized, serialized])
    data = bytearray(damaged.read_bytes())
    data[-200] ^= 1
    damaged.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r'damaged: damaged after 1 whole record'):
        inspect.inspect([str(damaged)])

    with pytest.raises(UserError, match=r'other: record 0 .* is not in the form'):
        inspect.inspect([_write(tmp_path / 'other', [b'something else'])])


def test_importing_defines_no_flags():
    assert not [name for name in flags.FLAGS.flags_by_module_dict() if 'tfrecords_tools.inspect' in name]


def test_main_prints(mixed, tmp_path, monkeypatch, capsys):
    sheet = str(tmp_path / 'sheet.png')
    monkeypatch.setattr(flags, 'FLAGS', types.SimpleNamespace(contact_sheet=sheet, records=1, contact_seconds=0.0))
    inspect.main(['inspect', mixed])
    assert capsys.readouterr().out.endswith(f'contact sheet: {sheet}\n')


def test_command_line_with_a_wrong_glob(tmp_path):
    missing = str(tmp_path / 'none-*')
    command = [sys.executable, '-m', 'tfrecords_tools.inspect', missing, '--records=2']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f'{missing}: no file matches')
    assert 'Traceback' not in done.stderr
