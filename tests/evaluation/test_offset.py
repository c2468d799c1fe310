"""The offset is found with the right sign, and doubt where the curve gives cause."""

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.evaluation import offset
from avts_tf.evaluation.offset import embed_video, offset_curve
from avts_tf.evaluation.offset_calibration import shift_audio
from tests.evaluation.offsets import (
    CALIBRATION,
    CLIP,
    embed,
    model,
    steps,
    strikes,
)


@pytest.mark.parametrize('shift_ms', [-600, -130, 0, 40, 570])
def test_known_shift_is_found_with_its_sign(shift_ms):
    pictures, sound = strikes(1)
    late = shift_audio(sound, round(shift_ms / 1000 * CLIP.sample_rate))
    curve = offset_curve(model(), embed(pictures), late, 1.0)
    seconds, depth = curve.best
    assert 1000 * seconds == pytest.approx(shift_ms, abs=11)
    assert depth > 0.1


def test_too_short_or_silent_has_no_offset():
    pictures, sound = strikes(2)
    assert embed(pictures[:CLIP.frames - 1]) is None
    picture = embed(pictures)
    assert offset_curve(model(), picture, np.zeros_like(sound)) is None
    assert offset_curve(model(), picture, sound[:CLIP.window_samples - 1]) is None
    assert offset_curve(model(), None, sound) is None


def test_lowest_point_lies_between_the_steps():
    offsets = np.arange(-3, 4) * offset.HOP_SECONDS
    assert _curve((offsets - 0.004) ** 2).best[0] == pytest.approx(0.004)
    assert _curve(-offsets).best[0] == pytest.approx(0.03)
    assert _curve(np.full(7, np.nan)).best is None


def test_windows_are_placed_by_the_times_of_the_frames_shown_in_them():
    pictures, _ = strikes(1)
    late = steps(len(pictures)) + np.where(np.arange(len(pictures)) % 2, 0.012, 0.004)
    (plain, embedded), (placed, same) = embed(pictures), embed_video(model(), tf.constant(pictures),
                                                                     late)
    np.testing.assert_allclose(placed, plain + 0.008, atol=0.004 / CLIP.frames)
    np.testing.assert_array_equal(embedded, same)


def _curve(distance):
    distance = np.array(distance, float)
    return offset.OffsetCurve((np.arange(len(distance)) - len(distance) // 2) * offset.HOP_SECONDS,
                              distance, np.stack([distance, distance]), 9)


@pytest.mark.parametrize(('distance', 'expected'), [
    ([1, 1, 1, 0.2, 1, 1, 1], None),
    ([0.2, *[1] * 8], 'at_edge'), ([*[1] * 8, 0.2], 'at_edge'),
    ([*[1] * 6, 0.2, 0.5, 0.3], 'at_edge'),
    ([np.nan, 1, 1, 0.2, 1, 1, 1], 'at_edge'), ([1, 1, 1, 0.2, np.nan, 1, 1], 'at_edge'),
    ([np.nan, np.nan, np.nan, 0.2, np.nan, np.nan, np.nan], 'at_edge'),
    ([1] * 9, 'at_edge'),  # flat
    ([1, 1, 1, 0.95, 1, 1, 1], 'low_confidence'),
    ([1, 1, 1, 0.2, 1, 1, 1, 0.2, 1, 1, 1], 'ambiguous'),
    ([1, 1, 1, 1, 0.25, 1, np.nan, 1, 1, 1, 0.2, 1, 1, 1, 1], 'ambiguous'),
    ([1, 1, 1, 0.5, 1, 1, 1, 0.2, 1, 1, 1], None),
    ([1, 1, 1, 1, 1, 0.3, 0.2, 0.25, 0.2, 0.3, 1, 1, 1, 1, 1], None),  # one dip, if a ragged one
])
def test_what_cannot_be_determined(distance, expected):
    found = offset.doubt(_curve(distance), CALIBRATION, 1.0, 0.9)
    assert (found and found[0]) == expected


@pytest.mark.parametrize(('apart_seconds', 'expected'), [
    (0.0, None), (0.04, None), (0.12, 'halves_disagree'), (0.3, 'halves_disagree'),
])
def test_sync_that_jumps_within_a_file_is_not_determined(apart_seconds, expected):
    pictures, sound = strikes(1)
    pictures, sound = [*pictures] * 2, np.r_[sound, sound]
    half = len(sound) // 2
    jumped = np.r_[sound[:half], shift_audio(sound, round(apart_seconds * CLIP.sample_rate))[half:]]
    curve = offset_curve(model(), embed(pictures), jumped, 1.0)
    found = offset.doubt(curve._replace(distance=curve.halves[0]), CALIBRATION, 1.0, 0.0)
    assert (found and found[0]) == expected


def test_halves_are_compared_where_both_are_known():
    dip, unknown = np.array([1, 1, 1, 0.2, 1, 1, 1]), np.full(7, np.nan)
    curve = _curve(dip)
    assert not curve._replace(halves=np.stack([dip, unknown])).halves_disagree
    assert not curve._replace(halves=np.stack([dip, np.r_[np.nan, dip[1:]]])).halves_disagree


def test_without_a_calibration_for_it_nothing_is_determined():
    curve = _curve([1, 1, 1, 0.2, 1, 1, 1])
    for calibration in ({}, {**CALIBRATION, 'right_depths': []},
                        {**CALIBRATION, 'wrong_depths': [0.1]}, {'foreign_depths': [0.1] * 20}):
        assert offset.doubt(curve, calibration, 1.0, 0.0)[0] == 'no_calibration'
    assert offset.doubt(curve, CALIBRATION, 1.5, 0.0)[0] == 'no_calibration'
    assert offset.doubt(curve, CALIBRATION, 0.5, 0.0) is None


def test_confidence_is_the_share_of_right_answers_at_a_depth():
    # Normal depths of one variance, as many right as wrong: the oracle counts.
    rng = np.random.default_rng(0)
    right, wrong = rng.normal(0.8, 0.15, 100_000), rng.normal(0.4, 0.15, 100_000)
    calibration = {'right_depths': right[:2000].tolist(), 'wrong_depths': wrong[:2000].tolist()}
    for depth in (0.4, 0.5, 0.6, 0.7, 0.75):
        near = [np.sum(abs(depths - depth) < 0.01) for depths in (right, wrong)]
        found = offset.confidence_of(depth, calibration)
        assert found == pytest.approx(near[0] / sum(near), abs=0.05)
    found = [offset.confidence_of(depth, calibration) for depth in np.linspace(-1, 3, 50)]
    assert found == sorted(found) and found[-1] == 2000 / 2001


def test_confidence_is_low_where_few_or_no_answers_were_right():
    few = {'right_depths': [1.0, 1.1, 1.2], 'wrong_depths': [0.0, 0.1, 0.2]}
    assert offset.confidence_of(5.0, few) == 0.75
    # Foreign audio makes curves that are as deep: the towers know nothing.
    nothing = {'right_depths': [0.3, 0.4, 0.5], 'wrong_depths': [0.4, 0.5, 0.6]}
    assert offset.confidence_of(5.0, nothing) == 0.5
    alike = {'right_depths': [0.9] * 9, 'wrong_depths': [0.1] * 9}
    assert offset.confidence_of(0.2, alike) == 0.0 and offset.confidence_of(0.8, alike) == 0.9
