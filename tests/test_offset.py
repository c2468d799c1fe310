"""The offset of a sound is found with the right sign, and a file that is put in sync is in sync."""

import dataclasses
import json
import os
import types

import av
import numpy as np
import pytest
import tensorflow as tf
from conftest import write_records

from avts_tf import media, plots, records
from avts_tf.config import UserError, make_config
from avts_tf.evaluation import offset
from avts_tf.layouts import find_sources

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


def _video(seed):
    pictures, sound = _strikes(seed)
    return records.Video(example_id=f'strikes-{seed}', frames=pictures, frame_rate=CLIP.fps, height=40, width=48, waveform=sound,
                         sample_rate=CLIP.sample_rate)


@pytest.mark.parametrize('shift_ms', [-600, -130, 0, 40, 570])
def test_known_shift_is_found_with_its_sign(shift_ms):
    pictures, sound = _strikes(1)
    late = offset.shift_sound(sound, round(shift_ms / 1000 * CLIP.sample_rate))
    curve = offset.offset_curve(_model(), offset.embed_picture(_model(), tf.constant(pictures)), late, 1.0)
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
    assert offset.embed_picture(_model(), tf.constant(pictures[:CLIP.frames - 1])) is None
    picture = offset.embed_picture(_model(), tf.constant(pictures))
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
    result = offset.calibrate(_model(), shard, str(tmp_path / 'run'), 1.0, lines.append)
    assert result['measurements'] == 18 and result['left_out'] == 0 and len(result['foreign_depths']) == 5
    assert result['median_error_ms'] < 12 and result['within_a_frame'] == 1.0
    assert json.loads((tmp_path / 'run' / 'result.json').read_text())['offset'] == result
    assert (tmp_path / 'run' / 'plots' / 'offset_errors.png').stat().st_size > 1000
    assert offset.confidence_of(np.median(result['foreign_depths']), result) == pytest.approx(0.5, abs=0.2)
    assert offset.confidence_of(9.0, result) == 1.0 and offset.confidence_of(0.1, {}) is None


def test_calibration_on_other_records_is_refused(tmp_path):
    video = _video(0)
    shard = write_records(tmp_path / 'clips-00000-of-00001', [records.encode(dataclasses.replace(video, frame_rate=10.0))])
    with pytest.raises(UserError, match='eval_records'):
        offset.calibrate(_model(), shard, str(tmp_path / 'run'), 1.0)


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
    sources = find_sources(str(folder))
    answers = offset.measure_files(_model(), sources, str(tmp_path), str(tmp_path / 'out'), 1.0, fix=True, say=lines.append)
    broken, good = answers
    assert broken['skipped'] == 'unreadable'
    assert good['offset_ms'] == pytest.approx(1000 * late_seconds, abs=25)
    assert ('late' if late_seconds > 0 else 'early') in ' '.join(lines)
    assert json.loads((tmp_path / 'out' / 'offsets.json').read_text()) == answers
    again = media.read_media(good['fixed'], media.MediaOptions(fps=CLIP.fps, short_side=0, sample_rate=CLIP.sample_rate))
    curve = offset.offset_curve(_model(), offset.embed_picture(_model(), tf.constant(again.frames)), again.waveform)
    assert 1000 * curve.best[0] == pytest.approx(0, abs=25)
    # What is there is not written over, and the rest goes on.
    offset.measure_files(_model(), sources, str(tmp_path), str(tmp_path / 'out'), 1.0, fix=True, say=lines.append)
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
    again = media.read_media(fixed, media.MediaOptions(fps=CLIP.fps, short_side=0, sample_rate=CLIP.sample_rate))
    curve = offset.offset_curve(_model(), offset.embed_picture(_model(), tf.constant(again.frames)), again.waveform)
    assert 1000 * curve.best[0] == pytest.approx(0, abs=30)


def test_a_copy_that_lost_something_is_told(tmp_path):
    whole, part = _write_file(tmp_path / 'a.mkv', 3, 0.0), str(tmp_path / 'b.mkv')
    expected = offset._copy_delayed(whole, part, 0.2)
    assert offset._differs(part, expected) == ''
    count, first, last = expected['video']
    assert 'packets in the new file' in offset._differs(part, {**expected, 'video': (count + 1, first, last)})
    assert 'audio lies -200 ms' in offset._differs(part, {**expected, 'audio': tuple(np.add(expected['audio'], (0, 0.2, 0.2)))})


def test_answers_are_freed_of_the_bias_and_have_a_confidence(tmp_path):
    (tmp_path / 'in').mkdir()
    _write_file(tmp_path / 'in' / 'clip.mp4', 3, 0.3)
    (tmp_path / 'result.json').write_text(json.dumps({'offset': {'bias_ms': 40.0, 'foreign_depths': [-1.0, 9.0]}}))
    answer, = offset.measure_files(_model(), find_sources(str(tmp_path / 'in')), str(tmp_path), str(tmp_path / 'out'), 1.0,
                                   say=lambda line: None)
    assert answer['offset_ms'] == pytest.approx(260, abs=25) and answer['confidence'] == 0.5


def _with_late_frames(video, seconds):
    """The record of a video whose frames begin so long after its sound, which is silent until then."""
    waveform = np.r_[np.zeros(round(seconds * CLIP.sample_rate), np.int16), video.waveform]
    example = tf.train.SequenceExample.FromString(records.encode(dataclasses.replace(video, waveform=waveform)))
    for feature in example.feature_lists.feature_list[records.FRAME_TIMES].feature:
        feature.int64_list.value[0] += round(1e6 * seconds)
    return example.SerializeToString()


def test_calibration_leaves_out_broken_records_and_counts_from_the_first_frame(tmp_path):
    broken = dataclasses.replace(_video(2), frames=[b'no picture', *_video(2).frames[1:]])
    content = [*(_with_late_frames(_video(seed), 0.2) for seed in (0, 1)), records.encode(broken), b'no record']
    shard, lines = write_records(tmp_path / 'clips-00000-of-00001', content), []
    result = offset.calibrate(_model(), shard, str(tmp_path / 'run'), 1.0, lines.append)
    assert (result['records'], result['left_out']) == (4, 2) and abs(result['bias_ms']) < 12
    assert sum('cannot be used' in line for line in lines) == 2


def test_curve_is_drawn(tmp_path):
    offsets = np.arange(-50, 51) * offset.HOP_SECONDS
    plots.offset_curve(offset.OffsetCurve(offsets, np.abs(offsets - 0.1), 5), 'clip.mp4', str(tmp_path / 'curve.png'))
    assert (tmp_path / 'curve.png').stat().st_size > 1000
