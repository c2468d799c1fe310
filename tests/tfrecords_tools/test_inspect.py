"""What the inspector shows of a set of records, and the lines of the docs that read one."""

import os
import re
import types

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from PIL import Image

from avts_tf.data import records
from avts_tf.data.synthetic import write_world
from avts_tf.errors import UserError
from tests.helpers import ROOT, edit_record, write_records
from tests.tfrecords_tools.record_files import audio_record, plain_video
from tfrecords_tools import inspect


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
    write_world(prefix, videos=4, seconds=1.0, size=16, shards=2)
    text = inspect.inspect([prefix + '-*'])
    assert _line(text, 'records') == '4'
    assert _line(text, 'audio') == '4 with, 0 without'
    assert _line(text, 'worst audio - video') == '0.0 ms'
    assert inspect.inspect([str(tmp_path)]) == text  # a folder means the shards in it


def test_the_same_file_twice_counts_once_and_repeated_ids_are_told(tmp_path):
    record = records.encode(plain_video('same', 5, 5.0, (16, 16), 16000, 16000))
    path = write_records(tmp_path / 'x-00000-of-00001', [record, record])
    text = inspect.inspect([path, str(tmp_path / 'x-*')])
    assert _line(text, 'records') == '2'
    assert _line(text, 'repeated ids') == "1, such as 'same'"


def test_frames_that_are_no_images_and_rates_not_stated(tmp_path):
    example = tf.train.SequenceExample()
    lists = example.feature_lists.feature_list
    for i in range(4):
        lists[records.FRAMES].feature.add().bytes_list.value.append(b'no image')
        lists[records.FRAME_TIMES].feature.add().int64_list.value.append(i * 500_000)
    path = write_records(tmp_path / 'x', [example.SerializeToString(),
                                          tf.train.SequenceExample().SerializeToString()])
    sheet = tmp_path / 'sheet.png'
    text = inspect.inspect([path], str(sheet))
    assert _line(text, 'frame sizes') == 'no image'
    assert _line(text, 'frame rates') == 'not stated'
    assert 'longest 2.00 s' in text
    assert Image.open(sheet).format == 'PNG'


def test_sound_alone_and_frames_off_the_grid_are_told(tmp_path):
    def off_grid(example):
        times = example.feature_lists.feature_list[records.FRAME_TIMES].feature
        times[3].int64_list.value[:] = [612_300]

    path = write_records(tmp_path / 'x', [
        audio_record('a', 24000),
        edit_record(records.encode(plain_video('b', 10, 5.0, (16, 16), 32000, 16000)), off_grid),
    ])
    text = inspect.inspect([path], str(tmp_path / 'sheet.png'))
    assert _line(text, 'video') == '1 with, 1 without'
    assert _line(text, 'worst frame time') == '12.3 ms off the grid, in b'
    assert _line(text, 'worst audio - video') == '0.0 ms'
    assert _line(text, 'duration').startswith('3.5 s in all; shortest 1.50 s')


def test_mistakes_are_told(tmp_path, mixed):
    with pytest.raises(UserError, match='no record files given'):
        inspect.inspect([])
    missing = str(tmp_path / 'none-*')
    with pytest.raises(UserError) as error:
        inspect.inspect([mixed, missing])
    assert str(error.value).startswith(f'{missing}: no file matches')
    with pytest.raises(UserError, match='^contact_sheet=.*there is no folder'):
        inspect.inspect([mixed], str(tmp_path / 'nowhere' / 'sheet.png'))
    with pytest.raises(UserError, match='^records=0: '):
        inspect.inspect([mixed], records=0)


def test_importing_defines_no_flags():
    assert not [name for name in flags.FLAGS.flags_by_module_dict()
                if 'tfrecords_tools.inspect' in name]


def test_main_prints(mixed, tmp_path, monkeypatch, capsys):
    sheet = str(tmp_path / 'sheet.png')
    monkeypatch.setattr(flags, 'FLAGS', types.SimpleNamespace(
        contact_sheet=sheet, records=1, contact_seconds=0.0, verify=False, play=None,
    ))
    inspect.main(['inspect', mixed])
    assert capsys.readouterr().out.endswith(f'contact sheet: {sheet}\n')


def test_verify_from_the_command_line(tmp_path, mixed, monkeypatch, capsys):
    values = types.SimpleNamespace(verify=True, play=None)
    monkeypatch.setattr(flags, 'FLAGS', values)
    write_world(str(tmp_path / 'world'), videos=2, seconds=1.0, size=16)
    with pytest.raises(SystemExit) as done:
        inspect.main(['inspect', str(tmp_path / 'world-*')])
    assert done.value.code == 0 and capsys.readouterr().out == '2 record(s) read, 0 bad\n'
    with pytest.raises(SystemExit) as done:
        inspect.main(['inspect', mixed])
    assert done.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert 'record 1 (b): 1.9000 s of audio beside 2.0000 s of video' in lines[0]
    assert lines[1].endswith('record 0 (c): 0 audio samples at 0 Hz')
    assert lines[2] == '3 record(s) read, 2 bad'
    with pytest.raises(UserError, match='none-.*: no file matches'):
        inspect.main(['inspect', str(tmp_path / 'none-*')])


def _documented_lines():
    path = os.path.join(str(ROOT), 'docs', 'records.md')
    with open(path, encoding='utf-8') as file:
        [code] = re.findall('```python\n(.*?)```', file.read(), re.DOTALL)
    return code


def test_the_documented_lines_read_a_shard(tmp_path, monkeypatch):
    code = _documented_lines()
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    (tmp_path / 'data').mkdir()
    videos = [plain_video('a', 3, 5.0, (40, 30), 9600, 16000),
              plain_video('b', 5, 5.0, (24, 24), 16000, 16000)]
    write_records(tmp_path / 'data' / 'train-00000-of-00001',
                  [records.encode(video) for video in videos])
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    for video, found in zip(videos, names['dataset'], strict=True):
        assert found['id'].numpy().decode() == video.example_id
        assert found['frames'].shape == (len(video.frames), video.height, video.width, 3)
        np.testing.assert_array_equal(found['frames'][-1], tf.io.decode_jpeg(video.frames[-1]))
        np.testing.assert_array_equal(found['waveform'], video.waveform)


def test_float_records_open_by_the_conventions_of_dmvr():
    # The features that DMVR's add_image, add_audio and add_label ask for, and what they make of the
    # sound.
    video = plain_video('a', 4, 5.0, (40, 30), 12800, 16000, ((3, 'dog'),))
    context, lists = tf.io.parse_single_sequence_example(
        records.encode(video, 'float'), {'clip/label/index': tf.io.VarLenFeature(tf.int64)},
        {'image/encoded': tf.io.FixedLenSequenceFeature([], tf.string),
         'WAVEFORM/feature/floats': tf.io.VarLenFeature(tf.float32)},
    )
    assert lists['image/encoded'].numpy().tolist() == video.frames
    sound = tf.sparse.to_dense(lists['WAVEFORM/feature/floats'])[0].numpy()
    np.testing.assert_array_equal(sound * 32768, video.waveform)
    assert tf.sparse.to_dense(context['clip/label/index']).numpy().tolist() == [3]
