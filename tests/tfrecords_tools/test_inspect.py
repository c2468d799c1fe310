import io
import os
import re
import subprocess
import sys
import types

import av
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from PIL import Image

from avts_tf.data import media, records
from avts_tf.errors import UserError
from tests.helpers import ROOT, edit_record
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
    monkeypatch.setattr(flags, 'FLAGS', types.SimpleNamespace(
        contact_sheet=sheet, records=1, contact_seconds=0.0, verify=False, play=None,
    ))
    inspect.main(['inspect', mixed])
    assert capsys.readouterr().out.endswith(f'contact sheet: {sheet}\n')


def test_command_line_with_a_wrong_glob(tmp_path):
    missing = str(tmp_path / 'none-*')
    command = [sys.executable, '-m', 'tfrecords_tools.inspect', missing, '--records=2']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f'{missing}: no file matches')
    assert 'Traceback' not in done.stderr


def test_sound_alone_and_frames_off_the_grid_are_told(tmp_path):
    def off_grid(example):
        example.feature_lists.feature_list[records.FRAME_TIMES].feature[3].int64_list.value[:] = [612_300]

    path = _write(tmp_path / 'x', [
        _sound_alone('a', 24000), edit_record(records.encode(_video('b', 10, 5.0, (16, 16), 32000, 16000)), off_grid),
    ])
    text = inspect.inspect([path], str(tmp_path / 'sheet.png'))
    assert _line(text, 'pictures') == '1 with, 1 without'
    assert _line(text, 'worst frame time') == '12.3 ms off the grid, in b'
    assert _line(text, 'worst audio - video') == '0.0 ms'
    assert _line(text, 'duration').startswith('3.5 s in all; shortest 1.50 s')


def _sound_alone(example_id, samples):
    def without_pictures(example):
        for key in [key for key in example.context.feature if key.startswith('image/')]:
            del example.context.feature[key]
        for key in (records.FRAMES, records.FRAME_TIMES):
            del example.feature_lists.feature_list[key]
    return edit_record(records.encode(_video(example_id, 1, 25.0, (16, 16), samples, 16000)), without_pictures)


def test_good_sets_are_verified(tmp_path):
    synthetic.write_world(str(tmp_path / 'world'), videos=4, seconds=1.0, size=16, shards=2)
    path = _write(tmp_path / 'more-00000-of-00001', [
        _sound_alone('a', 24000), records.encode(_video('b', 30, 29.97, (40, 30), 16016, 16000), 'float'),
    ])
    assert inspect.verify([str(tmp_path)]) == (6, [])
    assert inspect.verify([path]) == (2, [])


FAULTS = {
    'no example/id': lambda e: e.context.feature.pop(records.EXAMPLE_ID),
    'no WAVEFORM/feature/sample_rate': lambda e: e.context.feature.pop(records.SAMPLE_RATE),
    'no image/frame_rate, image/width': lambda e: [e.context.feature.pop(k) for k in (records.FRAME_RATE, records.IMAGE_WIDTH)],
    'neither image/encoded': lambda e: [e.feature_lists.feature_list.pop(k) for k in (records.FRAMES, records.AUDIO_BYTES)],
    '15999 bytes': lambda e: _set_bytes(e, records.AUDIO_BYTES, 0, lambda data: data[:15999]),
    '15000 audio samples, but .*16000': lambda e: _set_bytes(e, records.AUDIO_BYTES, 0, lambda data: data[:30000]),
    '0.9375 s of audio beside 1.0000 s': lambda e: (
        _set_bytes(e, records.AUDIO_BYTES, 0, lambda data: data[:30000]),
        e.context.feature[records.NUM_SAMPLES].int64_list.value.__setitem__(0, 15000),
    ),
    '5 frames, but 4 times': lambda e: e.feature_lists.feature_list[records.FRAME_TIMES].feature.pop(),
    '50.0 ms off the grid': lambda e: (
        e.feature_lists.feature_list[records.FRAME_TIMES].feature[2].int64_list.value.__setitem__(0, 450_000)
    ),
    'frame 3 is no JPEG': lambda e: _set_bytes(e, records.FRAMES, 3, lambda data: b'no image'),
    'frame 4 cannot be decoded': lambda e: _set_bytes(e, records.FRAMES, 4, lambda data: data[:-8]),
    'frame 0 is 40 x 30, and the record states 41 x 30': lambda e: (
        e.context.feature[records.IMAGE_WIDTH].int64_list.value.__setitem__(0, 41)
    ),
    '0 frames at 5 fps': lambda e: (
        e.feature_lists.feature_list[records.FRAMES].Clear(), e.feature_lists.feature_list[records.FRAME_TIMES].Clear()
    ),
}


def _set_bytes(example, key, index, change):
    values = example.feature_lists.feature_list[key].feature[index].bytes_list.value
    values[0] = change(values[0])


def test_each_bad_record_is_named_with_its_reason(tmp_path):
    good = records.encode(_video('x', 5, 5.0, (40, 30), 16000, 16000))
    other = [edit_record(good, lambda e, i=i: _rename(e, f'good-{i}')) for i in range(2)]
    bad = [edit_record(edit_record(good, lambda e, i=i: _rename(e, f'bad-{i}')), fault) for i, fault in enumerate(FAULTS.values())]
    first = _write(tmp_path / 'x-00000-of-00002', [other[0], *bad])
    second = _write(tmp_path / 'x-00001-of-00002', [b'something else', other[1], other[0]])
    count, found = inspect.verify([str(tmp_path / 'x-*')])
    assert count == len(FAULTS) + 4 and len(found) == len(FAULTS) + 2
    for i, (reason, (path, index, name, told)) in enumerate(zip(FAULTS, found, strict=False)):
        assert (path, index, name) == (first, i + 1, '' if reason == 'no example/id' else f'bad-{i}')
        assert re.search(reason, told), (reason, told)
    assert found[-2] == (second, 0, '', 'no tf.train.SequenceExample')
    assert found[-1] == (second, 2, 'good-0', f'the id is that of record 0 of {first} too')


def _rename(example, name):
    example.context.feature[records.EXAMPLE_ID].bytes_list.value[:] = [name.encode()]


def test_damage_is_named_and_the_rest_still_read(tmp_path):
    serialized = [records.encode(_video(f'v{i}', 5, 5.0, (16, 16), 16000, 16000)) for i in range(6)]
    path = _write(tmp_path / 'x-00000-of-00001', serialized)
    whole = (tmp_path / 'x-00000-of-00001').read_bytes()
    size = len(whole) // 6

    def verify(data):
        (tmp_path / 'x-00000-of-00001').write_bytes(data)
        count, bad = inspect.verify([path])
        assert all(place == path and name == '' for place, _, name, _ in bad)
        return count, [(index, reason) for _, index, _, reason in bad]

    damaged = bytearray(whole)
    damaged[2 * size + 500] ^= 1
    damaged[4 * size + 100] ^= 1
    assert verify(bytes(damaged)) == (6, [(2, 'the checksum is wrong'), (4, 'the checksum is wrong')])
    count, [(index, reason)] = verify(whole[:-7])
    assert (count, index) == (6, 5) and '7 of its bytes are missing' in reason
    damaged = bytearray(whole)
    damaged[3 * size] ^= 1
    count, [(index, reason)] = verify(bytes(damaged))
    assert (count, index) == (4, 3) and f'the length is damaged at byte {3 * size}' in reason and 'lost' in reason


def test_verify_from_the_command_line(tmp_path, mixed, monkeypatch, capsys):
    values = types.SimpleNamespace(verify=True, play=None)
    monkeypatch.setattr(flags, 'FLAGS', values)
    synthetic.write_world(str(tmp_path / 'world'), videos=2, seconds=1.0, size=16)
    with pytest.raises(SystemExit) as done:
        inspect.main(['inspect', str(tmp_path / 'world-*')])
    assert done.value.code == 0 and capsys.readouterr().out == '2 record(s) read, 0 bad\n'
    with pytest.raises(SystemExit) as done:
        inspect.main(['inspect', mixed])
    assert done.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and 'record 1 (b): 1.9000 s of audio beside 2.0000 s of video' in lines[0]
    assert lines[1].endswith('record 0 (c): 0 audio samples at 0 Hz') and lines[2] == '3 record(s) read, 2 bad'
    with pytest.raises(SystemExit) as done:
        inspect.main(['inspect', str(tmp_path / 'none-*')])
    assert done.value.code == 2 and 'no file matches' in capsys.readouterr().err


@pytest.mark.parametrize('frame_rate, sample_rate, size, coder', [
    (25.0, 16000, (48, 32), 'libx264'), (29.97, 44100, (47, 33), 'libx264'), (12.5, 48000, (48, 32), 'mpeg4'),
])
def test_a_record_played_back_is_in_sync(frame_rate, sample_rate, size, coder, tmp_path, monkeypatch):
    # Each frame has a brightness of its own, and the sound is noise: both tell exactly where they are.
    monkeypatch.setattr(av, 'codecs_available', {coder, 'aac'})
    frames = []
    for i in range(30):
        buffer = io.BytesIO()
        Image.fromarray(np.full((size[1], size[0], 3), 20 + 7 * i, np.uint8)).save(buffer, 'JPEG')
        frames.append(buffer.getvalue())
    samples = round(30 / frame_rate * sample_rate)
    noise = np.convolve(np.random.default_rng(0).normal(size=samples), np.ones(8) / 8, 'same')
    video = records.Video(
        example_id='clap/one', frames=frames, frame_rate=frame_rate, height=size[1], width=size[0],
        waveform=(8000 * noise).astype(np.int16), sample_rate=sample_rate,
    )
    path = _write(tmp_path / 'x', [records.encode(_video('a', 5, 5.0, (16, 16), 16000, 16000)), records.encode(video)])
    output = str(tmp_path / 'clip.mp4')
    inspect.play([path], 'clap/one', output)
    options = media.MediaOptions(frame_rate, 0, sample_rate, silent_below_db=None, still_below=None)
    played = media.read_media(output, options)
    assert played.start_seconds == 0.0 and 29 <= len(played.frames) <= 30
    assert (played.width, played.height) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    shown = [np.asarray(Image.open(io.BytesIO(frame)).convert('L')).mean() for frame in played.frames]
    np.testing.assert_allclose(shown, 20 + 7 * np.arange(len(shown)), atol=3)
    heard = played.waveform.astype(float)
    scores = [np.dot(np.roll(heard, shift), video.waveform[:len(heard)].astype(float)) for shift in range(-5, 6)]
    assert int(np.argmax(scores)) == 5  # not one sample off


def test_play_explains_what_it_cannot_do(tmp_path, mixed):
    with pytest.raises(UserError, match='--play=z: no record has this id; there are 3, such as a, b, c'):
        inspect.play([mixed], 'z', str(tmp_path / 'clip.mp4'))
    with pytest.raises(UserError, match='--output=clip.mp4'):
        inspect.play([mixed], 'a', None)
    with pytest.raises(UserError, match='--output=.*cannot be written'):
        inspect.play([mixed], 'a', str(tmp_path / 'none' / 'clip.mp4'))
    sound = _write(tmp_path / 'y', [_sound_alone('s', 16000)])
    inspect.play([sound], 's', str(tmp_path / 'sound.mp4'))
    options = media.MediaOptions(audio_only=True, silent_below_db=None)
    assert len(media.read_media(str(tmp_path / 'sound.mp4'), options).waveform) == pytest.approx(16000, abs=1)


def _documented_lines():
    path = os.path.join(str(ROOT), 'docs', 'records.md')
    with open(path, encoding='utf-8') as file:
        [code] = re.findall('```python\n(.*?)```', file.read(), re.DOTALL)
    return code


def test_the_documented_lines_read_a_shard(tmp_path, monkeypatch):
    code = _documented_lines()
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    (tmp_path / 'data').mkdir()
    videos = [_video('a', 3, 5.0, (40, 30), 9600, 16000), _video('b', 5, 5.0, (24, 24), 16000, 16000)]
    _write(tmp_path / 'data' / 'train-00000-of-00001', [records.encode(video) for video in videos])
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    for video, found in zip(videos, names['dataset'], strict=True):
        assert found['id'].numpy().decode() == video.example_id
        assert found['frames'].shape == (len(video.frames), video.height, video.width, 3)
        np.testing.assert_array_equal(found['frames'][-1], tf.io.decode_jpeg(video.frames[-1]))
        np.testing.assert_array_equal(found['waveform'], video.waveform)


def test_float_records_open_by_the_conventions_of_dmvr():
    # The features that DMVR's add_image, add_audio and add_label ask for, and what they make of the sound.
    video = _video('a', 4, 5.0, (40, 30), 12800, 16000, ((3, 'dog'),))
    context, lists = tf.io.parse_single_sequence_example(
        records.encode(video, 'float'), {'clip/label/index': tf.io.VarLenFeature(tf.int64)},
        {'image/encoded': tf.io.FixedLenSequenceFeature([], tf.string), 'WAVEFORM/feature/floats': tf.io.VarLenFeature(tf.float32)},
    )
    assert lists['image/encoded'].numpy().tolist() == video.frames
    sound = tf.sparse.to_dense(lists['WAVEFORM/feature/floats'])[0].numpy()
    np.testing.assert_array_equal(sound * 32768, video.waveform)
    assert tf.sparse.to_dense(context['clip/label/index']).numpy().tolist() == [3]
