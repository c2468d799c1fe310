"""What can be told without hearing and seeing the same moment: the figures that a sync model must be read against.

Each shortcut is a score of a pair, higher for "in sync", measured on the same evaluation pairs as the model:

    position_known      minus the distance of the two windows' starts in their clips: what a model would reach that knew exactly
                        where in its clip each window lies. Of hard and super-hard negatives it is 1 by construction.
    position_guessed    the same, where each window's position is guessed from its own content alone (ridge regression on small
                        frames and on the spectrogram, fitted on the training records): as far as clips are alike in their course.
    loudness_motion     logistic regression on how loudness and motion energy go together over the frames of the window.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from avts_tf import progress
from avts_tf.data.pipeline import make_dataset
from avts_tf.data.sampling import NEGATIVES, Kind
from avts_tf.metrics import auc

SMALL_FRAME = 8     # pixels: side of the frames that positions are guessed from
FRAME_SAMPLES = 4   # frames and spectrogram spans that positions are guessed from
RIDGE = (1.0, 10.0, 100.0, 1000.0, 10000.0)


def measure_shortcuts(model, pattern, eval_pattern, windows_per_record):
    """AUC of each shortcut per kind of negative.

    Args:
        model: `TwoTower`, for its configuration and its spectrogram.
        pattern: glob of training records, on which the guesses are fitted.
        eval_pattern: glob of records to measure on.
        windows_per_record: windows drawn from each record.

    Returns:
        Dict from shortcut to a dict from kind to AUC.
    """
    fitted, tested = (_features(model, glob, passes, flag) for glob, passes, flag in
                      ((pattern, 1, 'records'), (eval_pattern, windows_per_record, 'eval_records')))
    picture, sound = (make_pipeline(StandardScaler(), RidgeCV(RIDGE)) for _ in range(2))
    picture.fit(fitted['picture'], fitted['video_start'])
    windows = fitted['kind'].shape[1]
    sound.fit(fitted['sound'].reshape(-1, fitted['sound'].shape[-1]), fitted['audio_start'].reshape(-1))
    guessed_audio = sound.predict(tested['sound'].reshape(-1, tested['sound'].shape[-1])).reshape(-1, windows)
    together = make_pipeline(StandardScaler(), LogisticRegression(class_weight='balanced', max_iter=1000))
    together.fit(fitted['together'].reshape(-1, fitted['together'].shape[-1]), (fitted['kind'] == Kind.POSITIVE).reshape(-1))
    scores = {
        'position_known': -np.abs(tested['audio_start'] - tested['video_start'][:, None]),
        'position_guessed': -np.abs(guessed_audio - picture.predict(tested['picture'])[:, None]),
        'loudness_motion': together.decision_function(
            tested['together'].reshape(-1, tested['together'].shape[-1])).reshape(-1, windows),
    }
    kinds = tested['kind']
    return {name: {str(kind): auc(-score[kinds == Kind.POSITIVE], -score[kinds == kind])
                   for kind in NEGATIVES if (kinds == kind).any()} for name, score in scores.items()}


def _features(model, pattern, passes, flag):
    """Features of every pair of an evaluation dataset, as arrays with the clip first."""
    config = model.config
    log_mel = model.audio_tower.get_layer('log_mel')
    batches = make_dataset(pattern, config, training=False, passes=passes, parameter=flag)
    parts = []
    for batch in progress.bar(batches, f'{flag}: shortcuts', unit='batch'):
        video, audio = batch['video'].numpy().astype(np.float32) / 255.0, batch['audio'].numpy()
        spectrogram = log_mel(audio.reshape(-1, audio.shape[-1])).numpy().reshape(*audio.shape[:2], -1, config.logmel.mel_bands)
        parts.append({
            'kind': batch['kind'].numpy(), 'video_start': batch['video_start_seconds'].numpy(),
            'audio_start': batch['audio_start_seconds'].numpy(), 'picture': _small_pictures(video),
            'sound': _spans(spectrogram, FRAME_SAMPLES), 'together': _loudness_against_motion(video, audio),
        })
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _small_pictures(video):
    """A few frames of each window, averaged down to a few pixels: [B, T, S, S, 3] -> [B, features]."""
    chosen = np.linspace(0, video.shape[1] - 1, FRAME_SAMPLES).round().astype(int)
    grey = video[:, chosen].mean(-1)
    cell = grey.shape[2] // SMALL_FRAME
    grey = grey[:, :, :cell * SMALL_FRAME, :cell * SMALL_FRAME]
    small = grey.reshape(*grey.shape[:2], SMALL_FRAME, cell, SMALL_FRAME, cell).mean((3, 5))
    return small.reshape(len(small), -1)


def _spans(spectrogram, spans):
    """Means of a few spans of time: [B, K, steps, bands] -> [B, K, spans * bands]."""
    parts = [part.mean(2) for part in np.array_split(spectrogram, spans, axis=2)]
    return np.concatenate(parts, axis=-1)


def _loudness_against_motion(video, audio):
    """How loudness and motion energy go together: [B, T, S, S, 3], int16 [B, K, samples] -> [B, K, 7].

    The correlation of motion with loudness, and with the change of loudness, over the frames at lags of -1, 0 and 1 frame, and
    the product of their means.
    """
    motion = np.abs(np.diff(video, axis=1)).mean((2, 3, 4))                                  # [B, T - 1]
    frames = motion.shape[1] + 1
    usable = audio.shape[-1] // frames * frames
    energy = np.square(audio[..., :usable].astype(np.float64)).reshape(*audio.shape[:2], frames, -1).mean(-1)
    loudness = np.log(energy + 1.0)                                                          # [B, K, T]
    change = np.abs(np.diff(loudness, axis=-1))
    columns = []
    for sound in (loudness[..., 1:], change):
        for lag in (-1, 0, 1):
            moved = motion[:, None, max(lag, 0):motion.shape[1] + min(lag, 0)]
            heard = sound[..., max(-lag, 0):sound.shape[-1] + min(-lag, 0)]
            columns.append(_correlation(moved, heard))
    columns.append(_standard(motion.mean(-1))[:, None] * _standard(loudness.mean(-1)))
    return np.stack(columns, -1)


def _correlation(a, b):
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1) + 1e-12)


def _standard(values):
    return (values - values.mean()) / (values.std() + 1e-9)
