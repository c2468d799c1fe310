"""Shortcuts: scores of pairs that need no synchronisation, which a model must be read against.

Each shortcut is a score of a pair, higher for "in sync", measured on the same evaluation pairs as
the model:

    position_known      minus the distance of the two windows' starts in their clips: what a model
                        would reach that knew exactly where in its clip each window lies. Of hard
                        and super-hard negatives it is 1 by construction.
    position_guessed    the same, with each window's position estimated from its own content (ridge
                        regression on small frames and on the spectrogram, fitted on the training
                        records): above 0.5 as far as clips are alike in their course.
    loudness_motion     logistic regression on how loudness and motion energy correlate over the
                        frames of the window.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from avts_tf import progress
from avts_tf.data.pipeline import make_dataset
from avts_tf.data.sampling import NEGATIVES, Kind
from avts_tf.metrics import auc
from avts_tf.models.two_tower import TwoTower

SMALL_FRAME = 8     # pixels: side of the frames that positions are estimated from
FRAME_SAMPLES = 4   # frames and spectrogram spans that positions are estimated from
RIDGE = (1.0, 10.0, 100.0, 1000.0, 10000.0)


def measure_shortcuts(
    model: TwoTower, records: str, eval_records: str, windows_per_record: int = 4,
) -> dict[str, dict[str, float]]:
    """AUC of each shortcut per kind of negative.

    Args:
        model: for its configuration and its spectrogram.
        records: glob of training records, on which the regressions are fitted.
        eval_records: glob of records to measure on.
        windows_per_record: windows drawn from each record.

    Returns:
        Dict from shortcut to a dict from kind to AUC.

    Example:
        >>> measure_shortcuts(model, 'data/train-*', 'data/test-*')['loudness_motion']['easy']
        0.61...
    """
    fitted = _features(model, records, 1, 'records')
    tested = _features(model, eval_records, windows_per_record, 'eval_records')
    of_video, of_audio = (make_pipeline(StandardScaler(), RidgeCV(RIDGE)) for _ in range(2))
    of_video.fit(fitted['video'], fitted['video_start'])
    of_audio.fit(_flat(fitted['audio']), fitted['audio_start'].reshape(-1))
    guessed_audio = of_audio.predict(_flat(tested['audio'])).reshape(tested['kind'].shape)
    together = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight='balanced', max_iter=1000))
    together.fit(_flat(fitted['together']), (fitted['kind'] == Kind.POSITIVE).reshape(-1))
    scores = {
        'position_known': -np.abs(tested['audio_start'] - tested['video_start'][:, None]),
        'position_guessed': -np.abs(guessed_audio - of_video.predict(tested['video'])[:, None]),
        'loudness_motion': together.decision_function(
            _flat(tested['together'])).reshape(tested['kind'].shape),
    }
    kinds = tested['kind']
    return {name: {str(kind): auc(-score[kinds == Kind.POSITIVE], -score[kinds == kind])
                   for kind in NEGATIVES if (kinds == kind).any()}
            for name, score in scores.items()}


def _flat(features: np.ndarray) -> np.ndarray:
    """float [B, K, D] -> float [B * K, D]."""
    return features.reshape(-1, features.shape[-1])


def _features(
    model: TwoTower, pattern: str, passes: int, parameter: str,
) -> dict[str, np.ndarray]:
    """Features of every pair of an evaluation dataset, as arrays with the clip first."""
    config = model.config
    log_mel = model.audio_tower.get_layer('log_mel')
    batches = make_dataset(pattern, config, training=False, passes=passes, parameter=parameter)
    parts = []
    for batch in progress.bar(batches, f'{parameter}: shortcuts', unit='batch'):
        video, audio = batch['video'].numpy().astype(np.float32) / 255.0, batch['audio'].numpy()
        spectrogram = log_mel(_flat(audio)).numpy()
        spectrogram = spectrogram.reshape(*audio.shape[:2], -1, config.logmel.mel_bands)
        parts.append({
            'kind': batch['kind'].numpy(), 'video_start': batch['video_start_seconds'].numpy(),
            'audio_start': batch['audio_start_seconds'].numpy(), 'video': _small_frames(video),
            'audio': _spans(spectrogram, FRAME_SAMPLES),
            'together': _loudness_against_motion(video, audio),
        })
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _small_frames(video: np.ndarray) -> np.ndarray:
    """A few frames of each window, averaged to a few pixels: [B, T, S, S, 3] -> [B, features]."""
    chosen = np.linspace(0, video.shape[1] - 1, FRAME_SAMPLES).round().astype(int)
    grey = video[:, chosen].mean(-1)
    cell = grey.shape[2] // SMALL_FRAME
    grey = grey[:, :, :cell * SMALL_FRAME, :cell * SMALL_FRAME]
    small = grey.reshape(*grey.shape[:2], SMALL_FRAME, cell, SMALL_FRAME, cell).mean((3, 5))
    return small.reshape(len(small), -1)


def _spans(spectrogram: np.ndarray, spans: int) -> np.ndarray:
    """Means of a few spans of time: [B, K, steps, bands] -> [B, K, spans * bands]."""
    parts = [part.mean(2) for part in np.array_split(spectrogram, spans, axis=2)]
    return np.concatenate(parts, axis=-1)


def _loudness_against_motion(video: np.ndarray, audio: np.ndarray) -> np.ndarray:
    """How loudness and motion correlate: [B, T, S, S, 3], int16 [B, K, samples] -> [B, K, 7].

    The correlation of motion with loudness, and with the change of loudness, over the frames at
    lags of -1, 0 and 1 frame, and the product of their means.
    """
    motion = np.abs(np.diff(video, axis=1)).mean((2, 3, 4))  # [B, T - 1]
    frames = motion.shape[1] + 1
    usable = audio.shape[-1] // frames * frames
    energy = np.square(audio[..., :usable].astype(np.float64))
    energy = energy.reshape(*audio.shape[:2], frames, -1).mean(-1)
    loudness = np.log(energy + 1.0)  # [B, K, T]
    change = np.abs(np.diff(loudness, axis=-1))
    columns = []
    for series in (loudness[..., 1:], change):
        for lag in (-1, 0, 1):
            of_video = motion[:, None, max(lag, 0):motion.shape[1] + min(lag, 0)]
            of_audio = series[..., max(-lag, 0):series.shape[-1] + min(-lag, 0)]
            columns.append(_correlation(of_video, of_audio))
    columns.append(_standardised(motion.mean(-1))[:, None] * _standardised(loudness.mean(-1)))
    return np.stack(columns, -1)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1) + 1e-12)


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / (values.std() + 1e-9)
