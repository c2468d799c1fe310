"""The sounds of a collection as waveforms of equal length, and windows of them."""

import collections
import contextlib
import logging
import os
from collections.abc import Sequence

import numpy as np

from avts_tf import progress
from avts_tf.data import media, workers
from avts_tf.data.datasets import Source
from avts_tf.errors import UserError

logger = logging.getLogger(__name__)


def read_sounds(
    sources: Sequence[Source], sample_rate: int, clip_seconds: float | None = None,
) -> tuple[list[Source], list[np.ndarray], collections.Counter]:
    """Decodes sound files in worker processes; those that cannot be read are left out and logged.

    Args:
        sources: the files.
        sample_rate: Hz.
        clip_seconds: length to pad with silence or cut to; None keeps each as it is.

    Returns:
        The sources that could be read; their waveforms, int16 [samples] each; and the reasons for
        which the others were left out, with their counts.

    Raises:
        UserError: none can be read.
    """
    # A silent clip still belongs to a class, and a published fold has a fixed number of clips.
    tasks = [(source.path, media.MediaOptions(
        sample_rate=sample_rate, audio_only=True, start_seconds=source.start_seconds,
        end_seconds=source.end_seconds, silent_below_db=None, max_seconds=0.0))
        for source in sources]
    usable, waveforms = [], []
    skipped: collections.Counter[str] = collections.Counter()
    run = workers.run_in_order(
        media.try_media, tasks, os.cpu_count() or 1, workers.FILE_TIMEOUT_SECONDS)
    with contextlib.closing(run) as outcomes:
        for source, (result, failure) in progress.bar(
                zip(sources, outcomes, strict=True), 'reading', total=len(sources), unit='sound'):
            if not isinstance(result, media.Media):
                reason, detail = failure or result
                skipped[reason] += 1
                logger.info('left out: %s: %s: %s', source.data_path, reason, detail)
                continue
            waveform = result.waveform
            if clip_seconds:
                samples = round(clip_seconds * sample_rate)
                waveform = np.pad(waveform[:samples], (0, max(0, samples - len(waveform))))
            usable.append(source)
            waveforms.append(waveform)
    if skipped:
        reasons = ', '.join(f'{count} {reason}' for reason, count in skipped.items())
        logger.info('%d of %d sounds left out: %s.', skipped.total(), len(sources), reasons)
    if not usable:
        raise UserError(None, None, f'none of the {len(sources)} sounds can be read.')
    return usable, waveforms, skipped


def cut_windows(waveform: np.ndarray, samples: int, count: int) -> np.ndarray:
    """A fixed number of windows, equally spaced from the beginning of a sound to its end.

    Args:
        waveform: int16 [length]; one shorter than a window is padded with silence.
        samples: length of a window.
        count: number of windows.

    Returns:
        int16 [count, samples].
    """
    waveform = np.pad(waveform, (0, max(0, samples - len(waveform))))
    starts = np.linspace(0, len(waveform) - samples, count).round().astype(int)
    return np.stack([waveform[start:start + samples] for start in starts])
