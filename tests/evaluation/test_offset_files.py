"""Files are measured by the times of their own streams, and put in sync by the command."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from avts_tf import plots
from avts_tf.commands import offset as command
from avts_tf.data import media
from avts_tf.data.datasets import find_sources
from avts_tf.errors import UserError
from avts_tf.evaluation import offset, offset_files
from avts_tf.evaluation.offset import offset_curve
from avts_tf.evaluation.offset_calibration import shift_audio
from tests.evaluation.offsets import (
    CALIBRATION,
    CLIP,
    curve_of,
    embed,
    model,
    strikes,
    write_file,
    write_late,
)
from tests.media_files import CFR, chirp, make_file, shown_seconds


def _measure(
    folder, calibration=CALIBRATION, fix=False, max_offset_seconds=1.0, min_confidence=0.9,
):
    """Answers for the files in the folder `in`, written to the folder `out` beside it."""
    (folder / 'result.json').write_text(json.dumps({'offset': {'epochs': 3, **calibration}}))
    return command.measure_files(model(), find_sources(str(folder / 'in')), str(folder), 3,
                                 str(folder / 'out'), max_offset_seconds, min_confidence, fix)


@pytest.mark.parametrize('late_seconds', [
    0.3, pytest.param(-0.2, marks=pytest.mark.slow)])
def test_files_are_measured_and_put_in_sync(tmp_path, capsys, late_seconds):
    folder = tmp_path / 'in'
    folder.mkdir()
    write_file(folder / 'clip.mp4', 3, late_seconds)
    (folder / 'broken.mp4').write_bytes(b'no video at all')
    answers = _measure(tmp_path, fix=True)
    broken, good = answers
    assert broken['skipped'] == 'unreadable' and not broken['determined']
    assert good['determined'] and good['offset_ms'] == good['lowest_ms']
    assert good['offset_ms'] == pytest.approx(1000 * late_seconds, abs=25)
    assert ('late' if late_seconds > 0 else 'early') in capsys.readouterr().out
    assert json.loads((tmp_path / 'out' / 'offsets.json').read_text()) == answers
    assert 1000 * curve_of(good['fixed']).best[0] == pytest.approx(0, abs=25)
    # What is there is not written over, and the rest goes on.
    _measure(tmp_path, fix=True)
    assert 'is there already' in capsys.readouterr().out


def test_answers_are_freed_of_the_bias_and_seen_at_the_size_of_the_calibration(tmp_path,
                                                                               monkeypatch):
    (tmp_path / 'in').mkdir()
    write_file(tmp_path / 'in' / 'clip.mp4', 3, 0.3)
    calibration = {'bias_ms': 40.0, 'max_offset_seconds': 1.0, 'short_side': 36,
                   'right_depths': [-1.0, 1.0], 'wrong_depths': [-1.0, 1.0]}
    shapes, embed_video = [], offset.embed_video
    monkeypatch.setattr(offset_files, 'embed_video', lambda model, frames, seconds: shapes.append(
        tuple(tf.io.extract_jpeg_shape(frames[0])[:2].numpy()))
        or embed_video(model, frames, seconds))
    answer, = _measure(tmp_path, calibration, min_confidence=0.2)
    assert answer['offset_ms'] == pytest.approx(260, abs=25) and answer['confidence'] == 0.5
    assert shapes == [(36, 43)]


@pytest.mark.parametrize(('delay_ms', 'video_at'), [
    (136, 0.0), (33, 0.08), (-187, 0.4),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in ((150, 0.0), (-70, 0.4))),
])
def test_a_delay_that_is_no_multiple_of_a_frame_is_measured_as_of_records(tmp_path, delay_ms,
                                                                          video_at):
    pictures, sound = strikes(5)
    late = shift_audio(sound, round(delay_ms / 1000 * CLIP.sample_rate))
    of_records = 1000 * offset_curve(model(), embed(pictures), late, 1.0).best[0]
    of_file = 1000 * curve_of(write_late(tmp_path / 'late.mkv', 5, delay_ms / 1000,
                                         video_at)).best[0]
    assert abs(of_file - delay_ms) < abs(of_records - delay_ms) + 5


@pytest.mark.parametrize('audio_start', [0.0, 0.136, 0.53])
@pytest.mark.parametrize('frame_seconds', [
    [0.2 + t for t in CFR], [0.137 + i / 30 for i in range(60)],
    [0.05 + i / 12.5 for i in range(25)],
])
def test_streams_keep_their_own_times(tmp_path, frame_seconds, audio_start):
    path = make_file(tmp_path / 'clip.mkv', frame_seconds, audio_start=audio_start, video='ffv1',
                     audio='pcm_s16le', rate=16000)
    found = media.read_streams(path, media.MediaOptions(short_side=0), 1.5, 0.1)
    # the clock of the file begins with its first stream
    origin = min(frame_seconds[0], audio_start)
    first, steps = frame_seconds[0] - origin, np.arange(len(found.frames)) / 25
    assert len(found.frames) == pytest.approx(1.5 * 25, abs=1)
    from_first = np.array(frame_seconds) - frame_seconds[0]
    shown = np.array([frame_seconds[np.abs(from_first - step + 1e-4).argmin()] for step in steps])
    np.testing.assert_allclose(found.frame_seconds, shown - origin, atol=0.002)
    np.testing.assert_allclose([shown_seconds(frame) for frame in found.frames], shown, atol=0.004)
    begin = max(audio_start - origin, first - 0.1)
    assert found.waveform_seconds == pytest.approx(begin, abs=1e-3)
    times = (found.waveform_seconds + origin) + np.arange(len(found.waveform)) / 16000
    np.testing.assert_allclose(found.waveform / 32768, chirp(times), atol=0.02)
    end = found.waveform_seconds + len(found.waveform) / 16000
    assert end == pytest.approx(min(first + 1.6, audio_start - origin + 2), abs=2e-3)


def test_a_name_too_long_for_its_curve_costs_the_curve_alone(tmp_path, capsys):
    (tmp_path / 'in').mkdir()
    for suffix in ('.mkv', '.mp4'):  # called alike, so that their curves' names have these too
        write_file(tmp_path / 'in' / ('e' * 250 + suffix), 3, 0.3)
    answers = _measure(tmp_path)
    assert all(answer['determined'] and answer['curve'] is None for answer in answers)
    assert 'cannot be drawn: File name too long' in capsys.readouterr().out


@pytest.mark.parametrize(('calibration', 'options', 'reason'), [
    ({}, {}, 'no_calibration'),
    ({**CALIBRATION, 'epochs': 2}, {}, 'no_calibration'),  # of other weights
    ({**CALIBRATION, 'right_depths': [9.0, 10.0]}, {}, 'low_confidence'),
    (CALIBRATION, {'max_offset_seconds': 0.29}, 'at_edge'),
])
def test_what_is_undetermined_is_left_as_it_is(tmp_path, monkeypatch, capsys, calibration, options,
                                               reason):
    (tmp_path / 'in').mkdir()
    write_file(tmp_path / 'in' / 'clip.mp4', 3, 0.3)
    titles = []
    monkeypatch.setattr(plots, 'offset_curve', lambda *arguments: titles.append(arguments[3]))
    answer, = _measure(tmp_path, calibration, fix=True, **options)
    shown = capsys.readouterr().out
    assert (answer['determined'], answer['offset_ms'], answer['reason'],
            answer['fixed']) == (False, None, reason, None)
    assert answer['detail'] and (answer['confidence'] is None) == (reason != 'low_confidence')
    assert json.loads((tmp_path / 'out' / 'offsets.json').read_text()) == [answer]
    assert os.listdir(tmp_path / 'out') == ['offsets.json']
    assert 'cannot be determined' in titles[0] and 'clip.mp4: cannot be determined' in shown
    assert not any(word in titles[0] + shown for word in (' late', ' early'))


def test_files_that_are_called_alike_keep_their_own_results(tmp_path):
    for place in ('a/b_c.mkv', 'a_b/c.mkv', 'd/c.mkv'):
        (tmp_path / 'in' / place).parent.mkdir(parents=True)
        write_file(tmp_path / 'in' / place, 3, 0.3)
    answers = _measure(tmp_path, fix=True)
    assert len({answer['curve'] for answer in answers}) == 3
    assert [answer['fixed'] for answer in answers] == [
        str(tmp_path / 'out' / place) for place in ('a/b_c.mkv', 'a_b/c.mkv', 'd/c.mkv')]
    assert all(os.path.exists(path) for answer in answers
               for path in (answer['curve'], answer['fixed']))


def test_odd_names_are_drawn_as_they_are(tmp_path):
    (tmp_path / 'in').mkdir()
    for name in (b'100_$5_$6.mkv', b'caf\xe9.mkv'):
        write_file(tmp_path / 'in' / os.fsdecode(name), 3, 0.3)
    answers = _measure(tmp_path)
    assert [answer['determined'] for answer in answers] == [True, True]
    assert all(os.path.getsize(answer['curve']) > 5000 for answer in answers)


def test_what_is_measured_is_kept_where_the_rest_fails(tmp_path, monkeypatch):
    (tmp_path / 'in').mkdir()
    for name in ('a.mkv', 'b.mkv'):
        write_file(tmp_path / 'in' / name, 3, 0.3)
    draw = plots.offset_curve

    def stop_at_the_second(*arguments):
        if 'b.mkv' in arguments[3]:
            raise KeyboardInterrupt
        draw(*arguments)

    monkeypatch.setattr(plots, 'offset_curve', stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        _measure(tmp_path)
    answer, = json.loads((tmp_path / 'out' / 'offsets.json').read_text())
    assert answer['path'].endswith('a.mkv') and answer['determined']


def test_a_piece_of_a_file_is_refused(tmp_path):
    (tmp_path / 'in.csv').write_text('path,start_seconds,end_seconds\nclip.mp4,0,1\n')
    with pytest.raises(UserError, match='^input=clip_0_1: an offset is measured of whole files'):
        list(offset_files.measure_offsets(model(), find_sources(str(tmp_path / 'in.csv')), {}))
