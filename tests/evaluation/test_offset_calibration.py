"""Calibration measures the error of known shifts, and audio that belongs to other videos."""

import dataclasses
import logging

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.data import records
from avts_tf.errors import UserError
from avts_tf.evaluation.offset import confidence_of
from avts_tf.evaluation.offset_calibration import SHIFTS_SECONDS, calibrate, describe, shift_audio
from tests.evaluation.offsets import (
    CLIP,
    model,
    video_of,
)
from tests.helpers import write_records


def test_shift_audio_makes_late_and_keeps_the_length():
    sound = np.arange(1, 6, dtype=np.int16)
    np.testing.assert_array_equal(shift_audio(sound, 2), [0, 0, 1, 2, 3])
    np.testing.assert_array_equal(shift_audio(sound, -2), [3, 4, 5, 0, 0])
    np.testing.assert_array_equal(shift_audio(sound, 0), sound)
    for beyond in (5, 7, -5, -7, 100):
        np.testing.assert_array_equal(shift_audio(sound, beyond), np.zeros(5))


def test_calibration_gives_the_error_and_the_depths_of_right_and_wrong_answers(tmp_path):
    shard = write_records(tmp_path / 'clips-00000-of-00001',
                          [records.encode(video_of(seed)) for seed in range(6)])
    result, errors_ms = calibrate(model(), shard, 1.0, 0.8)
    assert sum(map(len, errors_ms.values())) == 18
    assert result['measurements'] == 18 and result['left_out'] == 0
    assert len(result['right_depths']) == 18 and len(result['wrong_depths']) == 5
    assert result['median_error_ms'] < 12 and result['within_a_frame'] == 1.0
    assert min(result['right_depths']) > max(result['wrong_depths'])
    middle = (np.mean(result['right_depths']) + np.mean(result['wrong_depths'])) / 2
    assert confidence_of(middle, result) == pytest.approx(0.5)
    assert confidence_of(9.0, result) == 5 / 6 and confidence_of(0.1, {}) is None
    assert result['determined'] == 18 and result['determined_within_a_frame'] == 1.0
    assert (result['foreign'], result['foreign_determined']) == (5, 0)
    assert result['short_side'] == 40
    least = 'With a confidence of at least 0.8'
    assert [*describe(result, CLIP.fps)][-1] == (
        f'{least}, 18 of them are determined, 100.0 % of these within one frame; and 0 of 5 with '
        'the audio of another record, which have no offset.')


@pytest.mark.parametrize('fps', [24, 25, 30000 / 1001, 50, 60])
def test_calibration_has_shifts_between_frames_of_both_signs(fps):
    between = [shift for shift in SHIFTS_SECONDS if abs(shift * fps - round(shift * fps)) > 0.1]
    assert min(between) < 0 < max(between) and len(between) >= 4


def test_calibration_on_other_records_is_refused(tmp_path):
    video = video_of(0)
    shard = write_records(tmp_path / 'clips-00000-of-00001',
                          [records.encode(dataclasses.replace(video, frame_rate=10.0))])
    with pytest.raises(UserError, match='eval_records'):
        calibrate(model(), shard, 1.0, 0.8)


def _with_late_frames(video, seconds):
    """The record of a video whose frames begin so long after its audio, silent until then."""
    waveform = np.r_[np.zeros(round(seconds * CLIP.sample_rate), np.int16), video.waveform]
    serialized = records.encode(dataclasses.replace(video, waveform=waveform))
    example = tf.train.SequenceExample.FromString(serialized)
    for feature in example.feature_lists.feature_list[records.FRAME_TIMES].feature:
        feature.int64_list.value[0] += round(1e6 * seconds)
    return example.SerializeToString()


def test_calibration_leaves_out_broken_records_and_is_not_sure_of_few(tmp_path, caplog):
    broken = dataclasses.replace(video_of(2), frames=[b'no picture', *video_of(2).frames[1:]])
    content = [*(_with_late_frames(video_of(seed), 0.2) for seed in (0, 1)), records.encode(broken),
               b'no record']
    shard = write_records(tmp_path / 'clips-00000-of-00001', content)
    caplog.set_level(logging.INFO, logger='avts_tf')
    result, _ = calibrate(model(), shard, 1.0, 0.8)
    lines = [*describe(result, CLIP.fps)]
    assert (result['records'], result['left_out']) == (4, 2) and abs(result['bias_ms']) < 12
    assert sum('cannot be used' in line for line in caplog.messages) == 2
    assert (result['determined'], result['determined_within_a_frame']) == (0, None)
    assert any('none of them is determined' in line and '0.50 at most' in line for line in lines)
