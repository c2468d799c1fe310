"""The offset of a sound is found with the right sign, and a file that is put in sync is in sync."""

import dataclasses
import fractions
import json
import os
import socket
import types

import av
import numpy as np
import pytest
import tensorflow as tf

from avts_tf import plots
from avts_tf.config import make_config
from avts_tf.data import media, records
from avts_tf.data.datasets import find_sources
from avts_tf.errors import UserError
from avts_tf.evaluation import offset
from tests.helpers import write_records
from tests.media_files import CFR, chirp, make_file, shown_seconds

CONFIG = make_config('tiny')
CLIP = CONFIG.clip
FRAME_SAMPLES = round(CLIP.sample_rate / CLIP.fps)


class _Tower:
    """Stands for a trained tower: the embedding is how bright or how loud each frame of the window is."""

    def __init__(self, energies):
        self._energies = energies

    def __call__(self, windows, training):
        return {'embedding': tf.math.l2_normalize(self._energies(tf.cast(windows, tf.float32)), -1)}

    def get_layer(self, name):
        return self if name == 'audio_network' else tf.identity


def _model():
    def loudness(sound):
        return tf.reduce_mean(tf.abs(tf.reshape(sound, [-1, CLIP.frames, FRAME_SAMPLES])), -1)

    def brightness(frames):
        return tf.reduce_mean(frames, [2, 3, 4])

    return types.SimpleNamespace(config=CONFIG, video_tower=_Tower(brightness), audio_tower=_Tower(loudness))


def _strikes(seed, seconds=3.0):
    """(JPEGs, sound): the picture is bright and the sound is loud at the same frames."""
    rng = np.random.default_rng(seed)
    energy = np.where(rng.random(round(seconds * CLIP.fps)) < 0.25, 1.0, 0.05)
    pictures = [tf.io.encode_jpeg(np.full((40, 48, 3), round(200 * level), np.uint8)).numpy() for level in energy]
    sound = np.repeat(energy, FRAME_SAMPLES) * 9000 * rng.choice([-1, 1], len(energy) * FRAME_SAMPLES)
    return pictures, sound.astype(np.int16)


def _steps(count):
    """Times of frames that lie on their steps."""
    return np.arange(count) / CLIP.fps


def _embed(pictures):
    return offset.embed_picture(_model(), tf.constant(pictures), _steps(len(pictures)))


def _video(seed):
    pictures, sound = _strikes(seed)
    return records.Video(example_id=f'strikes-{seed}', frames=pictures, frame_rate=CLIP.fps, height=40, width=48, waveform=sound,
                         sample_rate=CLIP.sample_rate)


@pytest.mark.parametrize('shift_ms', [-600, -130, 0, 40, 570])
def test_known_shift_is_found_with_its_sign(shift_ms):
    pictures, sound = _strikes(1)
    late = offset.shift_sound(sound, round(shift_ms / 1000 * CLIP.sample_rate))
    curve = offset.offset_curve(_model(), _embed(pictures), late, 1.0)
    seconds, depth = curve.best
    assert 1000 * seconds == pytest.approx(shift_ms, abs=11)
    assert depth > 0.1


def test_shift_sound_makes_late_and_keeps_the_length():
    sound = np.arange(1, 6, dtype=np.int16)
    np.testing.assert_array_equal(offset.shift_sound(sound, 2), [0, 0, 1, 2, 3])
    np.testing.assert_array_equal(offset.shift_sound(sound, -2), [3, 4, 5, 0, 0])
    np.testing.assert_array_equal(offset.shift_sound(sound, 0), sound)


def test_too_short_or_silent_has_no_offset():
    pictures, sound = _strikes(2)
    assert _embed(pictures[:CLIP.frames - 1]) is None
    picture = _embed(pictures)
    assert offset.offset_curve(_model(), picture, np.zeros_like(sound)) is None
    assert offset.offset_curve(_model(), picture, sound[:CLIP.window_samples - 1]) is None
    assert offset.offset_curve(_model(), None, sound) is None


def test_lowest_point_lies_between_the_steps():
    offsets = np.arange(-3, 4) * offset.HOP_SECONDS
    curve = offset.OffsetCurve(offsets, (offsets - 0.004) ** 2, 9)
    assert curve.best[0] == pytest.approx(0.004)
    at_the_end = offset.OffsetCurve(offsets, -offsets, 9)
    assert at_the_end.best[0] == pytest.approx(0.03)
    assert offset.OffsetCurve(offsets, np.full(7, np.nan), 9).best is None


def test_calibration_tells_the_error_and_foreign_sounds(tmp_path):
    shard = write_records(tmp_path / 'clips-00000-of-00001', [records.encode(_video(seed)) for seed in range(6)])
    lines = []
    result = offset.calibrate(_model(), shard, str(tmp_path / 'run'), 1.0, 0.8, lines.append)
    assert result['measurements'] == 18 and result['left_out'] == 0 and len(result['foreign_depths']) == 5
    assert result['median_error_ms'] < 12 and result['within_a_frame'] == 1.0
    assert json.loads((tmp_path / 'run' / 'result.json').read_text())['offset'] == result
    assert (tmp_path / 'run' / 'plots' / 'offset_errors.png').stat().st_size > 1000
    assert offset.confidence_of(np.median(result['foreign_depths']), result) == pytest.approx(0.5, abs=0.2)
    assert offset.confidence_of(9.0, result) == 5 / 6 and offset.confidence_of(0.1, {}) is None
    assert result['told'] == 18 and result['told_within_a_frame'] == 1.0 and result['short_side'] == 40
    assert 'At --min_confidence=0.8, 18 of them are told, 100.0 % of these within one frame.' in lines


@pytest.mark.parametrize('fps', [24, 25, 30000 / 1001, 50, 60])
def test_calibration_has_shifts_between_frames_of_both_signs(fps):
    between = [shift for shift in offset.CALIBRATION_SHIFTS_SECONDS if abs(shift * fps - round(shift * fps)) > 0.1]
    assert min(between) < 0 < max(between) and len(between) >= 4


def test_calibration_on_other_records_is_refused(tmp_path):
    video = _video(0)
    shard = write_records(tmp_path / 'clips-00000-of-00001', [records.encode(dataclasses.replace(video, frame_rate=10.0))])
    with pytest.raises(UserError, match='eval_records'):
        offset.calibrate(_model(), shard, str(tmp_path / 'run'), 1.0, 0.8)


CALIBRATION = {'offset': {'bias_ms': 0.0, 'max_offset_seconds': 1.0,
                          'foreign_depths': np.linspace(0, 0.1, 20).tolist()}}
OPTIONS = media.MediaOptions(fps=CLIP.fps, short_side=0, sample_rate=CLIP.sample_rate)


def _curve_of(path):
    """The curve of a file as read for its offset."""
    found = media.read_streams(path, OPTIONS, offset.MOST_SECONDS, 1.0)
    picture = offset.embed_picture(_model(), tf.constant(found.frames), found.frame_seconds)
    return offset.offset_curve(_model(), picture, found.waveform, 1.0, found.waveform_seconds)


def _measure(
    folder, calibration=CALIBRATION, fix=False, say=lambda line: None, max_offset_seconds=1.0, min_confidence=0.9,
):
    """Answers for the files in the folder `in`, written to the folder `out` beside it."""
    (folder / 'result.json').write_text(json.dumps(calibration))
    return offset.measure_files(_model(), find_sources(str(folder / 'in')), str(folder),
                                str(folder / 'out'), max_offset_seconds, min_confidence, fix, say)


def _write_file(path, seed, late_seconds, video_codec='mpeg4', audio_codec='aac'):
    """A video file whose sound is late by so much in its samples; times start at 0 for both streams."""
    pictures, sound = _strikes(seed)
    sound = offset.shift_sound(sound, round(late_seconds * CLIP.sample_rate))
    with av.open(str(path), 'w') as container:
        video = container.add_stream(video_codec, rate=round(CLIP.fps), options={'qscale': '2'})
        video.codec_context.max_b_frames = 2 if video_codec == 'libx264' else 0
        video.width, video.height, video.pix_fmt = 48, 40, 'yuv420p'
        audio = container.add_stream(audio_codec, rate=CLIP.sample_rate, layout='mono')
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_ndarray(tf.io.decode_jpeg(picture).numpy(), 'rgb24')))
        container.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(sound[None], 's16', 'mono')
        frame.sample_rate, frame.pts = CLIP.sample_rate, 0
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return str(path)


@pytest.mark.parametrize('late_seconds', [0.3, -0.2])
def test_files_are_measured_and_put_in_sync(tmp_path, late_seconds):
    folder = tmp_path / 'in'
    folder.mkdir()
    _write_file(folder / 'clip.mp4', 3, late_seconds)
    (folder / 'broken.mp4').write_bytes(b'no video at all')
    lines = []
    answers = _measure(tmp_path, fix=True, say=lines.append)
    broken, good = answers
    assert broken['skipped'] == 'unreadable' and not broken['told']
    assert good['told'] and good['offset_ms'] == good['lowest_ms']
    assert good['offset_ms'] == pytest.approx(1000 * late_seconds, abs=25)
    assert ('late' if late_seconds > 0 else 'early') in ' '.join(lines)
    assert json.loads((tmp_path / 'out' / 'offsets.json').read_text()) == answers
    assert 1000 * _curve_of(good['fixed']).best[0] == pytest.approx(0, abs=25)
    # What is there is not written over, and the rest goes on.
    _measure(tmp_path, fix=True, say=lines.append)
    assert any('is there already' in line for line in lines)


@pytest.mark.parametrize('late_seconds', [0.3, -0.2])
@pytest.mark.parametrize(('name', 'video_codec', 'audio_codec', 'becomes'), [
    ('clip.mkv', 'libx264', 'aac', 'clip.mkv'),               # whose first packets have no time of decoding
    ('clip.mp4', 'libx264', 'aac', 'clip.mp4'),
    ('clip.avi', 'mpeg4', 'pcm_s16le', 'clip.mkv'),           # AVI keeps no delay
])
def test_each_kind_of_file_is_whole_and_in_sync(tmp_path, name, video_codec, audio_codec, becomes, late_seconds):
    path = _write_file(tmp_path / name, 3, late_seconds, video_codec, audio_codec)
    (tmp_path / 'out').mkdir()
    fixed, problem = offset.write_in_sync(path, str(tmp_path / 'out'), late_seconds)
    assert problem == '' and fixed == str(tmp_path / 'out' / becomes) and os.listdir(tmp_path / 'out') == [becomes]
    counts = []
    for file in (path, fixed):
        with av.open(file) as container:
            counts.append(sum(1 for _ in container.decode(video=0)))
    assert counts[0] == counts[1] > 50
    assert 1000 * _curve_of(fixed).best[0] == pytest.approx(0, abs=30)


def test_a_copy_that_lost_something_is_told(tmp_path):
    whole, part = _write_file(tmp_path / 'a.mkv', 3, 0.0), str(tmp_path / 'b.mkv')
    expected = offset._copy_delayed(whole, part, 0.2)
    assert offset._differs(part, expected) == ''
    count, first, last = expected['video']
    assert 'packets in the new file' in offset._differs(part, {**expected, 'video': (count + 1, first, last)})
    assert 'audio lies -200 ms' in offset._differs(part, {**expected, 'audio': tuple(np.add(expected['audio'], (0, 0.2, 0.2)))})


def test_answers_are_freed_of_the_bias_and_seen_at_the_size_of_the_calibration(tmp_path, monkeypatch):
    (tmp_path / 'in').mkdir()
    _write_file(tmp_path / 'in' / 'clip.mp4', 3, 0.3)
    calibration = {'offset': {'bias_ms': 40.0, 'max_offset_seconds': 1.0, 'short_side': 36,
                              'foreign_depths': [-1.0, 9.0, 9.0]}}
    shapes, embed = [], offset.embed_picture
    monkeypatch.setattr(offset, 'embed_picture', lambda model, frames, seconds: shapes.append(
        tuple(tf.io.extract_jpeg_shape(frames[0])[:2].numpy())) or embed(model, frames, seconds))
    answer, = _measure(tmp_path, calibration, min_confidence=0.2)
    assert answer['offset_ms'] == pytest.approx(260, abs=25) and answer['confidence'] == 0.25
    assert shapes == [(36, 43)]


def _with_late_frames(video, seconds):
    """The record of a video whose frames begin so long after its sound, which is silent until then."""
    waveform = np.r_[np.zeros(round(seconds * CLIP.sample_rate), np.int16), video.waveform]
    example = tf.train.SequenceExample.FromString(records.encode(dataclasses.replace(video, waveform=waveform)))
    for feature in example.feature_lists.feature_list[records.FRAME_TIMES].feature:
        feature.int64_list.value[0] += round(1e6 * seconds)
    return example.SerializeToString()


def test_calibration_leaves_out_broken_records_and_is_not_sure_of_few(tmp_path):
    broken = dataclasses.replace(_video(2), frames=[b'no picture', *_video(2).frames[1:]])
    content = [*(_with_late_frames(_video(seed), 0.2) for seed in (0, 1)), records.encode(broken), b'no record']
    shard, lines = write_records(tmp_path / 'clips-00000-of-00001', content), []
    result = offset.calibrate(_model(), shard, str(tmp_path / 'run'), 1.0, 0.8, lines.append)
    assert (result['records'], result['left_out']) == (4, 2) and abs(result['bias_ms']) < 12
    assert sum('cannot be used' in line for line in lines) == 2
    assert (result['told'], result['told_within_a_frame']) == (0, None)
    assert any('none of them is told' in line and '0.50 at most' in line for line in lines)


def test_curve_is_drawn(tmp_path):
    offsets = np.arange(-50, 51) * offset.HOP_SECONDS
    plots.offset_curve(offset.OffsetCurve(offsets, np.abs(offsets - 0.1), 5), 'clip.mp4', str(tmp_path / 'curve.png'))
    assert (tmp_path / 'curve.png').stat().st_size > 1000


def _write_late(path, seed, delay_seconds, video_at=0.0):
    """A file of strikes whose frames begin at `video_at` and whose samples begin `delay_seconds` later, or earlier."""
    pictures, sound = _strikes(seed)
    with av.open(str(path), 'w', options={'avoid_negative_ts': 'disabled'}) as container:
        video = container.add_stream('mpeg4', rate=round(CLIP.fps), options={'qscale': '2'})
        video.codec_context.max_b_frames = 0
        video.width, video.height, video.pix_fmt = 48, 40, 'yuv420p'
        audio = container.add_stream('pcm_s16le', rate=CLIP.sample_rate, layout='mono')
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(tf.io.decode_jpeg(picture).numpy(), 'rgb24')
            frame.pts, frame.time_base = number + round(video_at * CLIP.fps), 1 / fractions.Fraction(round(CLIP.fps))
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(sound[None], 's16', 'mono')
        frame.sample_rate, frame.pts = CLIP.sample_rate, round((video_at + delay_seconds) * CLIP.sample_rate)
        frame.time_base = fractions.Fraction(1, CLIP.sample_rate)
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return str(path)


@pytest.mark.parametrize(('delay_ms', 'video_at'), [
    (136, 0.0), (150, 0.0), (33, 0.08), (-70, 0.4), (-187, 0.4),
])
def test_a_delay_that_is_no_multiple_of_a_frame_is_told_as_of_records(tmp_path, delay_ms, video_at):
    pictures, sound = _strikes(5)
    late = offset.shift_sound(sound, round(delay_ms / 1000 * CLIP.sample_rate))
    of_records = 1000 * offset.offset_curve(_model(), _embed(pictures), late, 1.0).best[0]
    of_file = 1000 * _curve_of(_write_late(tmp_path / 'late.mkv', 5, delay_ms / 1000, video_at)).best[0]
    assert abs(of_file - delay_ms) < abs(of_records - delay_ms) + 5


@pytest.mark.parametrize('audio_start', [0.0, 0.136, 0.53])
@pytest.mark.parametrize('frame_seconds', [
    [0.2 + t for t in CFR], [0.137 + i / 30 for i in range(60)], [0.05 + i / 12.5 for i in range(25)],
])
def test_streams_keep_their_own_times(tmp_path, frame_seconds, audio_start):
    path = make_file(tmp_path / 'clip.mkv', frame_seconds, audio_start=audio_start, video='ffv1',
                     audio='pcm_s16le', rate=16000)
    found = media.read_streams(path, media.MediaOptions(short_side=0), 1.5, 0.1)
    origin = min(frame_seconds[0], audio_start)  # the clock of the file begins with its first stream
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


def test_windows_are_placed_by_the_times_of_the_frames_shown_in_them():
    pictures, _ = _strikes(1)
    late = _steps(len(pictures)) + np.where(np.arange(len(pictures)) % 2, 0.012, 0.004)
    (plain, embedded), (placed, same) = _embed(pictures), offset.embed_picture(_model(), tf.constant(pictures), late)
    np.testing.assert_allclose(placed, plain + 0.008, atol=0.004 / CLIP.frames)
    np.testing.assert_array_equal(embedded, same)


def _curve(distance):
    distance = np.array(distance, float)
    return offset.OffsetCurve((np.arange(len(distance)) - len(distance) // 2) * offset.HOP_SECONDS, distance, 9)


@pytest.mark.parametrize(('distance', 'expected'), [
    ([1, 1, 1, 0.2, 1, 1, 1], None),
    ([0.2, *[1] * 8], 'at_edge'), ([*[1] * 8, 0.2], 'at_edge'), ([*[1] * 6, 0.2, 0.5, 0.3], 'at_edge'),
    ([np.nan, 1, 1, 0.2, 1, 1, 1], 'at_edge'), ([1, 1, 1, 0.2, np.nan, 1, 1], 'at_edge'),
    ([np.nan, np.nan, np.nan, 0.2, np.nan, np.nan, np.nan], 'at_edge'),
    ([1] * 9, 'at_edge'),  # flat
    ([1, 1, 1, 0.95, 1, 1, 1], 'low_confidence'),
    ([1, 1, 1, 0.2, 1, 1, 1, 0.2, 1, 1, 1], 'ambiguous'),
    ([1, 1, 1, 1, 0.25, 1, np.nan, 1, 1, 1, 0.2, 1, 1, 1, 1], 'ambiguous'),
    ([1, 1, 1, 0.5, 1, 1, 1, 0.2, 1, 1, 1], None),
    ([1, 1, 1, 1, 1, 0.3, 0.2, 0.25, 0.2, 0.3, 1, 1, 1, 1, 1], None),  # one dip, if a ragged one
])
def test_what_cannot_be_told(distance, expected):
    found = offset.doubt(_curve(distance), CALIBRATION['offset'], 1.0, 0.9)
    assert (found and found[0]) == expected


def test_a_name_too_long_for_its_curve_costs_the_curve_alone(tmp_path):
    folder = tmp_path / 'in' / ('d' * 200)
    folder.mkdir(parents=True)
    _write_file(folder / ('e' * 200 + '.mp4'), 3, 0.3)
    lines = []
    answer, = _measure(tmp_path, say=lines.append)
    assert answer['told'] and answer['curve'] is None
    assert any('cannot be drawn: File name too long' in line for line in lines)


def test_without_a_calibration_for_it_nothing_is_told():
    curve = _curve([1, 1, 1, 0.2, 1, 1, 1])
    for calibration in ({}, {**CALIBRATION['offset'], 'foreign_depths': []}):
        assert offset.doubt(curve, calibration, 1.0, 0.0)[0] == 'no_calibration'
    assert offset.doubt(curve, CALIBRATION['offset'], 1.5, 0.0)[0] == 'no_calibration'
    assert offset.doubt(curve, CALIBRATION['offset'], 0.5, 0.0) is None


@pytest.mark.parametrize(('calibration', 'options', 'reason'), [
    ({}, {}, 'no_calibration'),
    ({'offset': {**CALIBRATION['offset'], 'foreign_depths': [9.0] * 20}}, {}, 'low_confidence'),
    (CALIBRATION, {'max_offset_seconds': 0.29}, 'at_edge'),
])
def test_what_cannot_be_told_is_left_as_it_is(tmp_path, monkeypatch, calibration, options, reason):
    (tmp_path / 'in').mkdir()
    _write_file(tmp_path / 'in' / 'clip.mp4', 3, 0.3)
    titles, lines = [], []
    monkeypatch.setattr(plots, 'offset_curve', lambda curve, title, path: titles.append(title))
    answer, = _measure(tmp_path, calibration, fix=True, say=lines.append, **options)
    assert (answer['told'], answer['offset_ms'], answer['reason'], answer['fixed']) == (False, None, reason, None)
    assert answer['detail'] and json.loads((tmp_path / 'out' / 'offsets.json').read_text()) == [answer]
    assert os.listdir(tmp_path / 'out') == ['offsets.json']
    assert 'cannot tell' in titles[0] and any('clip.mp4: cannot tell' in line for line in lines)
    assert not any(word in ' '.join(titles + lines) for word in (' late', ' early'))


def test_a_name_with_a_colon_is_a_file_and_an_address_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir('out')
    _write_file(tmp_path / 'take:1.mkv', 3, 0.2)
    assert offset.write_in_sync('take:1.mkv', 'out', 0.2) == (os.path.join('out', 'take:1.mkv'), '')
    with socket.create_server(('127.0.0.1', 0)) as server:
        server.setblocking(False)
        address = f'http://127.0.0.1:{server.getsockname()[1]}/a.mkv'
        fixed, problem = offset.write_in_sync(address, 'out', 0.2)
        assert fixed is None and problem
        with pytest.raises(BlockingIOError):  # nobody called
            server.accept()
