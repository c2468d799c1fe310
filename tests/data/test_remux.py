"""A copy that was put in sync is whole and in sync."""

import os
import socket

import av
import numpy as np
import pytest

from avts_tf.data import remux
from tests.evaluation.offsets import curve_of, write_file


@pytest.mark.parametrize('late_seconds', [0.3, -0.2])
@pytest.mark.parametrize(('name', 'video_codec', 'audio_codec', 'becomes'), [
    # whose first packets have no time of decoding
    ('clip.mkv', 'libx264', 'aac', 'clip.mkv'),
    ('clip.mp4', 'libx264', 'aac', 'clip.mp4'),
    ('clip.avi', 'mpeg4', 'pcm_s16le', 'clip.mkv'),           # AVI keeps no delay
])
def test_each_kind_of_file_is_whole_and_in_sync(tmp_path, name, video_codec, audio_codec, becomes,
                                                late_seconds):
    path = write_file(tmp_path / name, 3, late_seconds, video_codec, audio_codec)
    (tmp_path / 'out').mkdir()
    fixed, problem = remux.write_in_sync(path, str(tmp_path / 'out'), late_seconds)
    assert problem == '' and fixed == str(tmp_path / 'out' / becomes)
    assert os.listdir(tmp_path / 'out') == [becomes]
    counts = []
    for file in (path, fixed):
        with av.open(file) as container:
            counts.append(sum(1 for _ in container.decode(video=0)))
    assert counts[0] == counts[1] > 50
    assert 1000 * curve_of(fixed).best[0] == pytest.approx(0, abs=30)


def test_a_copy_that_lost_something_is_noticed(tmp_path):
    whole, part = write_file(tmp_path / 'a.mkv', 3, 0.0), str(tmp_path / 'b.mkv')
    expected = remux._copy_delayed(whole, part, 0.2)
    assert remux._differs(part, expected) == ''
    count, first, last = expected['video']
    assert 'packets in the new file' in remux._differs(part, {**expected,
                                                              'video': (count + 1, first, last)})
    assert 'audio lies -200 ms' in remux._differs(part, {**expected,
                                                         'audio': tuple(np.add(expected['audio'],
                                                                               (0, 0.2, 0.2)))})


def test_a_name_with_a_colon_is_a_file_and_an_address_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir('out')
    write_file(tmp_path / 'take:1.mkv', 3, 0.2)
    assert remux.write_in_sync('take:1.mkv', 'out', 0.2) == (os.path.join('out', 'take:1.mkv'), '')
    with socket.create_server(('127.0.0.1', 0)) as server:
        server.setblocking(False)
        address = f'http://127.0.0.1:{server.getsockname()[1]}/a.mkv'
        fixed, problem = remux.write_in_sync(address, 'out', 0.2)
        assert fixed is None and problem
        with pytest.raises(BlockingIOError):  # nobody called
            server.accept()
