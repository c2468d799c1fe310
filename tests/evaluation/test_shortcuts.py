"""Shortcuts are found in clips that count their frames, or whose loudness follows the video."""

import types

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.config import make_config
from avts_tf.data import records
from avts_tf.evaluation.shortcuts import measure_shortcuts
from avts_tf.models.frontend import LogMel
from tests.helpers import counting_video, write_records

CONFIG = make_config('tiny')


def measured(folder, fitted, tested):
    """AUCs of the shortcuts, fitted on some videos and measured on others."""
    globs = [write_records(folder / name, map(records.encode, videos)) for name,
             videos in (('fit', fitted), ('test', tested))]
    clip, logmel = CONFIG.clip, CONFIG.logmel
    log_mel = LogMel(clip.sample_rate, logmel.stft_window_seconds, logmel.stft_hop_seconds,
                     logmel.fft_size, logmel.mel_bands,
                     logmel.mel_min_hz, logmel.mel_max_hz)
    model = types.SimpleNamespace(config=CONFIG,
                                  audio_tower=types.SimpleNamespace(get_layer=lambda name: log_mel))
    return measure_shortcuts(model, *globs, 3)


def test_a_clip_that_counts_gives_away_where_a_window_lies(tmp_path):
    aucs = measured(tmp_path, [counting_video(clip) for clip in range(10)],
                    [counting_video(clip) for clip in range(20, 25)])
    assert aucs['position_known']['hard'] == 1.0 and aucs['position_guessed']['easy'] > 0.85


def strikes(seed):
    """A video whose picture is bright where its sound is loud, at moments of its own."""
    rng = np.random.default_rng(seed)
    energy = np.where(rng.random(75) < 0.25, 1.0, 0.05)
    frames = [tf.io.encode_jpeg(np.full((40, 48, 3), round(200 * level), np.uint8)).numpy()
              for level in energy]
    sound = np.repeat(energy, 640) * 9000 * rng.choice([-1, 1], 75 * 640)
    return records.Video(f'strikes-{seed}', frames, 25.0, 40, 48, sound.astype(np.int16), 16000)


@pytest.fixture(scope='module')
def of_strikes(tmp_path_factory):
    return measured(tmp_path_factory.mktemp('strikes'), map(strikes, range(16)),
                    map(strikes, range(24, 32)))


@pytest.mark.slow
def test_loudness_that_follows_the_picture_is_found(of_strikes):
    assert min(of_strikes['loudness_motion'].values()) > 0.95


@pytest.mark.slow
def test_nobody_guesses_where_what_is_random_lies(of_strikes):
    assert of_strikes['position_guessed']['hard'] < 0.7
