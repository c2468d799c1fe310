"""Augmentation in time and of audio, and how it grows over the epochs."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.config import make_config
from avts_tf.data import records
from avts_tf.data.augment import change_audio, change_speed, strength_at
from avts_tf.data.pipeline import make_dataset
from avts_tf.data.sampling import Kind, cut_audio, usable_frames
from avts_tf.errors import UserError
from tests.data.truth import assert_same, collect, config_of, state_of
from tests.helpers import counting_video, read_frames, write_records

RATE, FPS = 16000, 25.0
ALL = {'crop_scale_min': 0.5, 'aspect_change': 0.3, 'colour_jitter': 0.4, 'grey_share': 0.5,
       'speed_change': 0.3, 'gain_db': 12.0, 'tilt': 0.6}


def ramp_record(seconds, clip=0):
    """A serialised record whose frames tell their index, and whose sample n is n."""
    video = counting_video(clip, seconds)
    waveform = np.arange(len(video.waveform), dtype=np.int16)
    return records.encode(dataclasses.replace(video, waveform=waveform))


@pytest.fixture(scope='module')
def ramps(tmp_path_factory):
    path = tmp_path_factory.mktemp('ramps') / 'clips'
    return write_records(path, [ramp_record(2.0, clip) for clip in range(24)])


def test_audio_starts_at_the_moment_of_the_frame_at_any_speed(ramps):
    config = config_of(speed_change=0.3, passes_per_epoch=6)
    speeds = set()
    for batch in collect(make_dataset(ramps, config, state=state_of())):
        for row, (video, audio, kinds) in enumerate(
                zip(batch['video'], batch['audio'].astype(int), batch['kind'], strict=True)):
            recorded = read_frames(video)[1] / FPS * RATE  # sample at which each frame is recorded
            speed = (audio[0, -1] - audio[0, 0]) / (audio.shape[1] - 1)
            speeds.add(round(speed, 2))
            steps = np.arange(audio.shape[1])
            for slot, kind in enumerate(kinds):
                # A ramp stays one between its samples, so that a sample tells its moment.
                tolerance = 1.0 + speed / 2
                slope = (audio[slot, -1] - audio[slot, 0]) / (audio.shape[1] - 1)
                line = audio[slot, 0] + slope * steps
                np.testing.assert_allclose(audio[slot, :-3], line[:-3], atol=2.0)
                if kind == Kind.POSITIVE:
                    assert abs(audio[slot, 0] - recorded[0]) <= tolerance
                    # Each frame is the nearest to its moment, as played.
                    seen = audio[slot, 0] + speed * np.arange(len(recorded)) / FPS * RATE
                    assert (abs(seen - recorded) <= RATE / FPS / 2 + 2).all()
                elif kind in (Kind.HARD, Kind.SUPER_HARD):
                    shift = (audio[slot, 0] - recorded[0]) / speed
                    shown = RATE * (batch['audio_start_seconds'][row, slot]
                                    - batch['video_start_seconds'][row])
                    assert abs(shift - shown) <= 2.0
    assert len(speeds) == 6 and 0.76 <= min(speeds) < 0.95 < 1.05 < max(speeds) <= 1.31


def test_all_records_of_a_pass_have_one_speed():
    config = make_config('tiny', speed_change=0.2)
    record = records.parse(ramp_record(2.0))
    other = records.parse(ramp_record(1.5, 1))

    def speed(record, number):
        usable = usable_frames(record, config)
        return float(change_speed(record, usable, config, tf.constant(number, tf.int64), 1.0)[0]
                     .speed)

    speeds = [speed(record, number) for number in range(200)]
    assert speeds[:20] == [speed(other, number) for number in range(20)]
    assert 1 / 1.2 <= min(speeds) < 0.85 and 1.18 < max(speeds) <= 1.2
    assert 0.98 < np.exp(np.mean(np.log(speeds))) < 1.02


def test_a_record_that_would_be_too_short_keeps_its_speed():
    config = make_config('tiny', speed_change=0.5)
    record = records.parse(ramp_record(config.clip.window_seconds))
    usable = usable_frames(record, config)
    assert usable == 1
    speeds = [change_speed(record, usable, config, tf.constant(number, tf.int64), 1.0)
              for number in range(20)]
    assert all(count >= 1 for _, count in speeds)
    assert {float(changed.speed) == 1.0 for changed, _ in speeds} == {True, False}


@pytest.mark.parametrize('speed', [0.7, 0.93, 1.0, 1.21, 1.5])
def test_interpolated_audio_is_that_between_the_samples(speed):
    seconds = np.arange(RATE) / RATE
    parts = [(300.0, 9000.0), (1100.0, 5000.0)]

    def sound(seconds):
        return sum(size * np.sin(2 * np.pi * hertz * seconds) for hertz, size in parts)

    record = records.parse(ramp_record(1.0))._replace(
        waveform=tf.constant(np.round(sound(seconds)).astype(np.int16)),
        speed=tf.constant(speed, tf.float64))
    audio = cut_audio(record, tf.constant([100, 2000], tf.int64), 4000).numpy()
    for row, first in zip(audio, (100, 2000), strict=True):
        expected = sound((first + np.arange(4000)) * speed / RATE)
        # Cubic convolution is off by (distance of samples) ** 3: here by half a percent.
        assert abs(row - expected).max() < 70
    if speed == 1.0:
        np.testing.assert_array_equal(audio[0], record.waveform[100:4100])


def test_the_end_of_a_played_record_is_silent():
    record = records.parse(ramp_record(1.0))._replace(
        waveform=tf.ones([1000], tf.int16), speed=tf.constant(1.25, tf.float64))
    audio = cut_audio(record, tf.constant([-10, 700], tf.int64), 200).numpy()
    assert audio.tolist() == [[0] * 10 + [1] * 190, [1] * 100 + [0] * 100]


def test_loudness_and_filter_are_those_of_numpy():
    config = make_config('tiny', gain_db=12.0, tilt=0.6)
    audio = np.random.default_rng(0).integers(-20000, 20000, (3, 500)).astype(np.int16)
    factors = []
    for number in range(40):
        gain, tilt = tf.random.stateless_uniform([2], [5, number], -1.0, 1.0).numpy() * 0.5
        values = audio.astype(np.float64)
        before = np.concatenate([values[:, :1], values[:, :-1]], 1)
        factors.append(10 ** (gain * 12 / 20))
        expected = factors[-1] * (values + 0.6 * tilt * before) / np.sqrt(1 + (0.6 * tilt)**2)
        changed = change_audio(tf.constant(audio), config, [5, number], 0.5).numpy()
        np.testing.assert_allclose(changed, np.clip(expected, -32768, 32767), atol=0.51)
    assert min(factors) < 0.6 and max(factors) > 1.6


def test_augmentation_grows_with_the_epochs():
    config = make_config('tiny', ramp_epochs=4)
    strengths = [float(strength_at(config, tf.constant(epoch, tf.int64))) for epoch in range(7)]
    assert strengths == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert float(strength_at(make_config('tiny'), tf.constant(0, tf.int64))) == 1.0


def test_the_first_epoch_of_a_ramp_has_none(ramps):
    plain = config_of(crop_scale_min=1.0, flip=False)
    grown = config_of(**ALL, flip=False, ramp_epochs=2)
    state = state_of()
    expected = collect(make_dataset(ramps, plain, state=state))
    found = collect(make_dataset(ramps, grown, state=state))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one['video'].astype(int), other['video'].astype(int), atol=1)
        np.testing.assert_allclose(one['audio'].astype(int), other['audio'].astype(int), atol=1)
    state.epoch.assign(1)
    later = collect(make_dataset(ramps, grown, state=state))
    assert abs(later[0]['audio'].astype(int) - found[0]['audio']).max() > 100


def test_evaluation_has_none(ramps):
    plain, augmented = config_of(), config_of(**ALL)
    assert_same(collect(make_dataset(ramps, plain, training=False)),
                collect(make_dataset(ramps, augmented, training=False)))


def test_several_clips_of_a_record_are_augmented_too(ramps):
    config = config_of(**ALL, clips_per_read=3)
    batches = collect(make_dataset(ramps, config, state=state_of()))
    assert len({batch['audio'].tobytes() for batch in batches}) == len(batches)
    assert all(batch['audio'].shape[1:] == (2, config.clip.window_samples) for batch in batches)


@pytest.mark.parametrize('name', ['speed_change', 'gain_db', 'tilt'])
def test_whole_audio_of_other_clips_cannot_be_augmented(name):
    with pytest.raises(UserError, match='easy_place'):
        make_config('tiny', easy_place='same', **{name: 0.1})
