"""A copy that was put in sync is whole and in sync."""

import os
import socket

import av
import numpy as np
import pytest

from avts_tf.data import media, remux
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
    fixed, problem = remux.write_in_sync(path, str(tmp_path / 'out' / 'clip'), late_seconds)
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
    assert remux.write_in_sync('take:1.mkv', 'out/take:1', 0.2) == ('out/take:1.mkv', '')
    with socket.create_server(('127.0.0.1', 0)) as server:
        server.setblocking(False)
        address = f'http://127.0.0.1:{server.getsockname()[1]}/a.mkv'
        fixed, problem = remux.write_in_sync(address, 'out/a', 0.2)
        assert fixed is None and problem
        with pytest.raises(BlockingIOError):  # nobody called
            server.accept()


@pytest.mark.parametrize('delay_seconds', [0.1, 0.05, -0.1])
def test_the_delay_is_not_rounded_to_the_ticks_of_the_file(tmp_path, delay_seconds):
    path = write_file(tmp_path / 'clip.avi', 3, 0.0, 'mpeg4', 'pcm_s16le')
    fixed, problem = remux.write_in_sync(path, str(tmp_path / 'out'), delay_seconds)
    assert fixed, problem
    leads = []
    for file in (path, fixed):
        found = media.read_streams(file, media.MediaOptions(short_side=0), 5.0, 5.0)
        leads.append(found.frame_seconds[0] - found.waveform_seconds)
    assert leads[1] - leads[0] == pytest.approx(delay_seconds, abs=0.005)


@pytest.mark.parametrize('delay_seconds', [0.2, -0.2])
def test_what_cannot_be_copied_in_sync_is_refused(tmp_path, delay_seconds):
    # Frames that are shown in another order than they are stored in, in a file without their times.
    path = write_file(tmp_path / 'clip.avi', 3, 0.0, 'libx264', 'pcm_s16le')
    fixed, problem = remux.write_in_sync(path, str(tmp_path / 'out' / 'clip'), delay_seconds)
    assert fixed is None and 'frames run backwards' in problem
    assert os.listdir(tmp_path / 'out') == []


def test_a_copy_that_is_seen_as_before_is_not_called_in_sync(tmp_path, monkeypatch):
    path = write_file(tmp_path / 'clip.mkv', 3, 0.2)
    copy_delayed = remux._copy_delayed

    def copy_as_it_is(path, output_path, offset_seconds):
        copy_delayed(path, output_path, 0.0)
        return {}

    monkeypatch.setattr(remux, '_copy_delayed', copy_as_it_is)
    monkeypatch.setattr(remux, '_differs', lambda *arguments: '')
    fixed, problem = remux.write_in_sync(path, str(tmp_path / 'out'), 0.2)
    assert fixed is None and 'is seen -200 ms from its place' in problem
    assert not (tmp_path / 'out.mkv').exists()
