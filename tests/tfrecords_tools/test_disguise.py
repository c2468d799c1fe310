"""Disguised videos look and sound different, and stay in sync."""

import shutil

import av
import numpy as np
import pytest

from avts_tf.data import media
from tests.helpers import write_video
from tests.media_files import make_file, set_display_matrix
from tfrecords_tools import disguise as program
from tfrecords_tools.disguise import DISGUISES, disguise

FPS, RATE = 25, 16000
MOMENTS = (0.6, 1.32, 2.2)  # seconds at which it flashes and sounds


@pytest.fixture(scope='module')
def flashes(tmp_path_factory):
    """A video of noise that is bright while a tone is heard, a tenth of a second each time."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 60, (75, 64, 64, 3)).astype(np.uint8)
    time = np.arange(3 * RATE) / RATE
    sound = 100 * rng.standard_normal(len(time))
    for moment in MOMENTS:
        first = round(moment * FPS)
        frames[first:first + 3] += 150
        heard = (time >= moment) & (time < moment + 0.12)
        sound[heard] += 12000 * np.sin(2 * np.pi * 600 * time[heard])
    path = tmp_path_factory.mktemp('videos') / 'flashes.mkv'
    write_video(path, frames, sound.astype(np.int16), FPS, RATE)
    return str(path)


@pytest.mark.parametrize('name', DISGUISES)
def test_a_disguise_changes_look_and_pitch_and_keeps_the_sync(name, flashes, tmp_path):
    path = str(tmp_path / 'other.mp4')
    disguise(flashes, path, name)
    found = media.read_media(path, media.MediaOptions(fps=FPS, sample_rate=RATE, short_side=64))
    with av.open(path) as container:
        bright = np.array([frame.to_ndarray(format='gray').mean()
                           for frame in container.decode(video=0)])
    assert len(bright) == 75 and abs(len(found.waveform) / RATE - 3.0) < 0.05
    seen = np.flatnonzero(np.diff((bright > bright.mean() + bright.std()).astype(int)) == 1) + 1
    np.testing.assert_allclose(seen / FPS, MOMENTS, atol=1e-6)
    power = found.waveform.astype(float) ** 2
    time = np.arange(len(power)) / RATE
    for moment in MOMENTS:
        near = abs(time - moment - 0.06) < 0.2
        middle = np.average(time[near], weights=power[near])
        # Stretching moves what it repeats or leaves out by a part of its window.
        assert middle == pytest.approx(moment + 0.06, abs=0.02)
    waveform = np.sqrt(power) * np.sign(found.waveform)
    first = round((MOMENTS[0] + 0.02) * RATE)
    spectrum = np.abs(np.fft.rfft(waveform[first:first + 1280] * np.hanning(1280)))
    pitch = {'close': 1.3, 'far': 0.85, 'wide': 1.15, 'turned': 1.5}[name]
    assert spectrum.argmax() * RATE / 1280 == pytest.approx(600 * pitch, rel=0.04)


def test_late_audio_stays_late_and_a_turned_picture_is_upright(tmp_path):
    """A copy is in sync on the player's clock, whatever the file's own times are."""
    late = make_file(tmp_path / 'late.mkv', draw=lambda seconds: np.full(
        [64, 64, 3], 200 if seconds >= 1.0 else 20, np.uint8), audio='pcm_s16le', rate=RATE,
        audio_start=0.5, wave=lambda seconds: 0.5 * (seconds >= 1.0) * np.sin(3000 * seconds))
    path = str(tmp_path / 'other.mp4')
    disguise(late, path, 'wide')
    sound = np.concatenate(list(media.audio_blocks(path, RATE)))
    assert np.argmax(abs(sound.astype(int)) > 3000) / RATE == pytest.approx(1.0, abs=0.03)
    with av.open(path) as container:
        bright = [frame.to_ndarray(format='gray').mean() for frame in container.decode(video=0)]
    assert np.argmax(np.array(bright) > 110) == 25
    turned = make_file(tmp_path / 'turned.mp4')  # 160 x 64
    set_display_matrix(turned, 0, 1, -1, 0)
    disguise(turned, path, 'wide')
    [block, *_] = media.video_blocks(path, 25, 0)
    height, width, _ = block[0].shape
    assert height > width


def test_nothing_is_left_of_a_copy_that_fails(flashes, tmp_path, monkeypatch):
    def fail(_):
        raise OSError('the disk is full')

    monkeypatch.setattr(program, '_pulled', fail)
    with pytest.raises(OSError):
        disguise(flashes, str(tmp_path / 'out.mp4'), 'far')
    assert not list(tmp_path.iterdir())


def test_the_disguises_go_round_and_what_cannot_be_read_is_named(flashes, tmp_path, capsys):
    (tmp_path / 'broken.mp4').write_bytes(b'no video')
    silent = tmp_path / 'silent.mkv'
    write_video(silent, np.zeros((10, 32, 32, 3), np.uint8))
    paths = [str(tmp_path / 'broken.mp4'), flashes, str(silent), flashes]
    assert program.disguise_all(paths, str(tmp_path / 'out')) == 2
    shown = capsys.readouterr().out
    assert 'broken.mp4: left out' in shown and 'silent.mkv: left out: no_audio' in shown
    assert [path.parent.name for path in sorted((tmp_path / 'out').glob('*/*.mp4'))] == [
        'far', 'turned']


def test_files_that_are_called_alike_are_all_written(flashes, tmp_path, monkeypatch):
    monkeypatch.setattr(program, 'DISGUISES', {'far': DISGUISES['far']})
    paths = []
    for folder in ('a', 'b', 'c'):
        (tmp_path / folder).mkdir()
        paths.append(shutil.copy(flashes, tmp_path / folder))
    assert program.disguise_all(paths, str(tmp_path / 'out')) == 3
    assert sorted(path.name for path in (tmp_path / 'out').glob('*/*.mp4')) == [
        'flashes-2.mp4', 'flashes-3.mp4', 'flashes.mp4']
