"""Files that no record can be made of are named with a reason; the right streams are taken."""

import os
import random
import time

import av
import numpy as np
import pytest
from PIL import Image

from avts_tf.data import media, workers
from avts_tf.data.media import read, video
from avts_tf.data.media.container import own_formats
from tests.media_files import (
    CFR,
    DATA,
    KEEP_ALL,
    audio_frame,
    chirp,
    make_file,
    needs_data,
    reason,
    remux,
)


def test_volume_and_motion(tmp_path):
    def step(seconds):
        return np.full((64, 96, 3), 100 + 50 * int(seconds >= 1.0), np.uint8)

    path = make_file(tmp_path / 'a.mkv', draw=step, audio='pcm_s16le',
                     wave=lambda seconds: 0.5 * np.sin(2 * np.pi * 440 * seconds))
    result = media.read_media(path, KEEP_ALL)
    assert result.volume_db == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.05)
    # 5 of the 45 pairs of frames 0.2 s apart lie on both sides of the step.
    assert result.motion == pytest.approx(50 * 5 / 45, rel=0.05)
    assert reason(path, still_below=6.0) == 'still'
    assert reason(path, silent_below_db=-9.0) == 'silent'
    limits = KEEP_ALL._replace(still_below=5.0, silent_below_db=-9.1)
    assert media.read_media(path, limits).motion == result.motion


def test_silent_and_still_by_default(tmp_path):
    def still(seconds):
        # A frame with detail, the same each time: what moves is the codec's noise.
        noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
        return noise.repeat(10, 0).repeat(10, 1)

    defaults = media.MediaOptions()
    limits = {'silent_below_db': defaults.silent_below_db, 'still_below': defaults.still_below}
    silence = make_file(tmp_path / 'a.mp4', wave=np.zeros_like)
    picture = make_file(tmp_path / 'b.mp4', draw=still)
    assert reason(silence, **limits) == 'silent' and reason(picture, **limits) == 'still'
    assert media.read_media(silence, KEEP_ALL).volume_db < -100
    assert 0 < media.read_media(picture, KEEP_ALL).motion < 0.5
    media.read_media(make_file(tmp_path / 'c.mp4'), defaults)


@needs_data
@pytest.mark.slow
def test_talking_heads_are_neither_silent_nor_still():
    folder = os.path.join(DATA, 'grid_s1')
    for name in sorted(os.listdir(folder))[::30]:
        result = media.read_media(os.path.join(folder, name), media.MediaOptions())
        assert result.volume_db > media.SILENT_BELOW_DB + 30
        assert result.motion > 2 * media.STILL_BELOW


def test_too_long_is_known_before_it_is_decoded(tmp_path, monkeypatch):
    path = make_file(tmp_path / 'a.mp4', [i / 25 for i in range(250)], audio_seconds=10.0)
    assert len(media.read_media(path, KEEP_ALL._replace(max_seconds=10.1)).frames) == 250
    part = KEEP_ALL._replace(max_seconds=2.0, start_seconds=3.0, end_seconds=5.0)
    assert len(media.read_media(path, part).frames) == 50
    count = []
    monkeypatch.setattr(video, '_jpeg', lambda *_: count.append(1) or b'')
    assert reason(path, max_seconds=9.5) == 'too_long' and not count
    assert reason(path, max_seconds=2.0, start_seconds=3.0) == 'too_long' and not count
    # Where the header is wrong, the decoding stops a frame later.
    monkeypatch.setattr(read, 'refuse_long', lambda *_: None)
    assert reason(path, max_seconds=2.0) == 'too_long' and len(count) <= 51
    assert reason(path, max_seconds=2.0, audio_only=True) == 'too_long'


def test_too_large_is_known_before_it_is_decoded(tmp_path, monkeypatch):
    path = make_file(tmp_path / 'a.mkv')
    assert reason(path, max_pixels=64 * 160 - 1) == 'too_large'
    media.read_media(path, KEEP_ALL._replace(max_pixels=64 * 160))
    huge = tmp_path / 'b.mp4'
    make_file(huge, video='mjpeg', pixel_format='yuvj420p', frame_seconds=CFR[:5])
    data = bytearray(huge.read_bytes())
    at = data.index(b'mp4v', data.index(b'stsd') + 8) + 28
    assert data[at:at + 4] == bytes([0, 160, 0, 64])
    data[at:at + 4] = bytes([78, 32, 78, 32])  # 20,000 by 20,000
    for marker in range(len(data) - 9):  # and in each frame
        is_size = data[marker + 5:marker + 9] == bytes([0, 64, 0, 160])
        if is_size and data[marker:marker + 2] == b'\xff\xc0':
            data[marker + 5:marker + 9] = bytes([78, 32, 78, 32])
    huge.write_bytes(bytes(data))
    begin = time.process_time()
    # The decoder sees that so few bytes hold no such frame.
    assert reason(huge) in ('too_large', 'unreadable')
    assert time.process_time() - begin < 5
    monkeypatch.setattr(video, '_MAX_JPEG_BYTES', 10_000)
    assert reason(path) == 'too_large'


def test_of_several_streams_the_first_that_decodes(tmp_path):
    path = tmp_path / 'two.mkv'
    with av.open(str(path), 'w') as container:
        streams = []
        for height in (32, 64):
            stream = container.add_stream('mjpeg', rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, height, 'yuvj420p'
            streams.append(stream)
        for rate in (16000, 32000):
            streams.append(container.add_stream('flac', rate=rate, layout='mono'))
        for i in range(25):
            for stream in streams[:2]:
                image = np.full((stream.height, 64, 3), 8 * i, np.uint8)
                frame = av.VideoFrame.from_ndarray(image, 'rgb24')
                frame.pts = i
                container.mux(stream.encode(frame))
            for loud, stream in zip((0.1, 0.5), streams[2:], strict=True):
                size = stream.rate // 25
                samples = loud * chirp((i * size + np.arange(size)) / stream.rate)[None]
                frame = audio_frame(samples, 's16', 'mono', stream.rate, i * size)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    result = media.read_media(str(path), KEEP_ALL)
    assert result.height == 32 and result.volume_db < -25
    assert result.note == (
        'video stream 0 taken: the first of 2; audio stream 2 taken: the first of 2')
    garbage = random.Random(0)
    broken = remux(path, tmp_path / 'broken.mkv', lambda packet: (
        garbage.randbytes(packet.size) if packet.stream.index in (0, 2) else None))
    result = media.read_media(broken, KEEP_ALL)
    assert result.height == 64 and result.volume_db > -20
    assert result.note == (
        'video stream 1 taken: 0 does not decode; audio stream 3 taken: 2 does not decode')
    assert sum(len(block) for block in media.video_blocks(broken, 25, 0)) == 25
    assert len(np.concatenate(list(media.audio_blocks(broken, 16000)))) == 16000
    gone = remux(path, tmp_path / 'gone.mkv', lambda packet: garbage.randbytes(packet.size))
    assert reason(gone) == 'unreadable'


def test_a_cover_is_no_video(tmp_path):
    path = tmp_path / 'a.m4a'
    with av.open(str(path), 'w', format='mp4') as container:
        audio = container.add_stream('aac', rate=16000)
        cover = container.add_stream('mjpeg', rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, 'yuvj420p'
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), 'rgb24')
        frame.pts = 0
        container.mux(cover.encode(frame))
        container.mux(cover.encode(None))
        samples = chirp(np.arange(16000) / 16000)[None]
        container.mux(audio.encode(audio_frame(samples, 's16', 'mono', 16000, 0)))
        container.mux(audio.encode(None))
    assert reason(path) == 'no_video'
    waveform = media.read_media(str(path), KEEP_ALL._replace(audio_only=True)).waveform
    assert len(waveform) == pytest.approx(16000, abs=1100)


def test_times_that_jump_or_run_backwards(tmp_path):
    jump = [t + 3600 * (t >= 1) for t in CFR]
    begin = time.process_time()
    assert reason(make_file(tmp_path / 'a.mkv', jump)) == 'unreadable'
    both = make_file(tmp_path / 'b.mkv', jump, hole=(1.0, 3601.0), audio_seconds=3602.0,
                     audio='pcm_s16le', rate=8000)
    assert reason(both) == 'unreadable'
    # A pause of less than ten seconds is the file's to have.
    pause = make_file(tmp_path / 'c.mkv', [t + 5 * (t >= 1) for t in CFR], audio_seconds=7.0)
    assert len(media.read_media(pause, KEEP_ALL).frames) == pytest.approx(175, abs=1)
    once = make_file(tmp_path / 'd.ts', audio='mp2')
    twice = tmp_path / 'e.ts'
    with open(once, 'rb') as source:
        twice.write_bytes(source.read() * 2)
    assert reason(twice) == 'unreadable'
    assert time.process_time() - begin < 20


def test_what_is_no_media_file(tmp_path):
    assert reason(tmp_path / 'none.mp4') == 'missing' and reason(tmp_path) == 'missing'
    for name, data in {
        'empty.mp4': b'', 'noise.mp4': random.Random(1).randbytes(20000),
        'zeros.mp4': bytes(20000), 'text.mp4': b'hello\n' * 9,
        # Nothing is fetched from an address that a file names.
        'list.mp4': b'#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://192.0.2.1/a.ts\n'
                    b'#EXT-X-ENDLIST\n',
    }.items():
        (tmp_path / name).write_bytes(data)
        assert reason(tmp_path / name) == 'unreadable'


def test_what_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / 'fifo.mp4')
    path = str(tmp_path / 'fifo.mp4')
    with pytest.raises(media.Unsuitable, match='missing: it is a FIFO'):
        media.read_media(path, KEEP_ALL)
    with pytest.raises(media.Unsuitable, match='missing: it is a FIFO'):
        next(media.audio_blocks(path, 16000))


def test_lists_of_other_files_are_refused(tmp_path):
    good = make_file(tmp_path / 'good.ts', CFR[:10], audio='mp2', audio_seconds=0.4)
    assert media.read_media(good, KEEP_ALL).frames
    for name, text in {
        'concat.mp4': 'ffconcat version 1.0\nfile good.ts\n',
        'playlist.m3u8': '#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\ngood.ts\n#EXT-X-ENDLIST\n',
        'session.sdp': 'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\n'
                       'm=audio 5000 RTP/AVP 0\n',
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(media.Unsuitable, match='it is a list that names other files'):
            media.read_media(str(tmp_path / name), KEEP_ALL)
    # A pattern that names images.
    for name in ('p1.png', 'p%d.png'):
        Image.new('RGB', (16, 16)).save(tmp_path / name)
    assert reason(tmp_path / 'p%d.png') in ('unreadable', 'no_audio')
    formats = own_formats().split(',')
    assert {'mp4', 'avi', 'matroska', 'mpegts', 'ogg', 'wav', 'asf', 'flv'} <= set(formats)
    assert not {'concat', 'hls', 'image2', 'lavfi', 'rtsp', 'sdp', 'dash'} & set(formats)


def test_damaged_files_are_named_and_nothing_hangs(tmp_path):
    draw = random.Random(0)
    tasks, whole = [], {}
    containers = {'a.mp4': {'audio': 'aac'}, 'a.mkv': {'audio': 'flac'}, 'a.ts': {'audio': 'mp2'}}
    for name, options in containers.items():
        path = make_file(tmp_path / name, video='libx264', b_frames=2, **options)
        whole[name] = len(media.read_media(path, KEEP_ALL).frames)
        with open(path, 'rb') as source:
            data = source.read()
        for i in range(14):
            damaged = bytearray(data)
            if i < 4:
                del damaged[int(len(damaged) * draw.random()):]  # cut off
            elif i < 8:
                for _ in range(10**(i - 4)):
                    damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
            elif i < 11:
                start = draw.randrange(len(damaged))
                damaged[start:start + 3000] = bytes(3000)
            else:
                for _ in range(20):  # in the headers, at the beginning or at the end
                    place = draw.choice((1, -1)) * draw.randrange(1, 1500)
                    damaged[place] = draw.randrange(256)
            path = tmp_path / f'{i}-{name}'
            path.write_bytes(bytes(damaged))
            tasks.append((str(path), KEEP_ALL))
    outcomes = list(workers.run_in_order(media.try_media, tasks, 2, 20.0))
    for (path, _), (result, failure) in zip(tasks, outcomes, strict=True):
        if isinstance(result, media.Media):
            assert 0 < len(result.frames) <= 2 * whole[path.rsplit('-')[-1]]
            assert len(result.waveform) == round(len(result.frames) / 25 * 16000)
        else:
            assert (failure or result)[0] in media.REASONS and (failure or result)[0] != 'timeout'
    made = sum(isinstance(result, media.Media) for result, _ in outcomes)
    assert 5 < made < len(tasks) - 5


@needs_data
def test_awkward_files():
    folder = os.path.join(DATA, 'awkward')
    names = sorted(os.listdir(folder))
    found = {}
    for audio_only in (False, True):
        options = KEEP_ALL._replace(audio_only=audio_only)
        tasks = [(os.path.join(folder, name), options) for name in names]
        outcomes = workers.run_in_order(media.try_media, tasks, 2, 120.0)
        for name, (result, failure) in zip(names, outcomes, strict=True):
            is_media = isinstance(result, media.Media)
            found[name, audio_only] = result if is_media else (failure or result)[0]
    reasons = {name: found[name, False] for name in names if isinstance(found[name, False], str)}
    assert reasons == {
        'corrupted.mp4': 'no_audio', 'sample_audio_only.mp4': 'no_video',
        'sample_dts_hd_ma.mp4': 'no_video', 'v_BenchPress_g01_c01.avi': 'no_audio',
        'var_fps_video.mp4': 'no_audio', 'video_90.mov': 'no_audio',
    }
    dts = found['sample_dts_hd_ma.mp4', True]
    assert dts == 'crashed' or len(dts.waveform) > 16000
    # 45 frames, less what the codec puts before
    assert len(found['sample_audio_only.mp4', True].waveform) == pytest.approx(16347, abs=2)
    # It claims 1,350 s; its audio's times fall behind its samples.
    assert len(found['rv30.mp4', False].frames) == 90
    assert found['nasa_13013.mp4', False].note.startswith('video stream 0 taken: the first of 2')
    # 164 frames: not one is lost to the times that libavformat guesses.
    assert len(found['v_ApplyEyeMakeup_g01_c01.avi', False].frames) >= 163
