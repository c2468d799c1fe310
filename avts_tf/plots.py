"""Plots as PNG files, and an image of a batch."""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import matplotlib
import numpy as np
import tensorflow as tf

from avts_tf.config import Config
from avts_tf.data.sampling import NO_PAIR, Kind

matplotlib.use('Agg')
from matplotlib import pyplot as plt

# Colour, line and mark of each kind of pair, which differ without the colour too.
# There are some more for kinds to come.
STYLES = (('#2a7f3f', '-', 'o'), ('#1f77b4', '--', 's'), ('#e08214', '-.', '^'),
          ('#b2182b', ':', 'D'), ('#7b4fa3', '-', 'v'), ('#8c6d31', '--', 'P'))
KIND_STYLES = {str(kind): {'color': colour, 'linestyle': line, 'marker': mark}
               for kind, (colour, line, mark) in zip(Kind, STYLES, strict=False)}
BLUE, ORANGE, RED, GREY = '#1f77b4', '#e08214', '#b2182b', 'grey'
OFFSET_AXIS = '← audio early      {}      audio late →'
FREQUENCY_TICKS = (250, 1000, 2000, 4000, 8000)  # Hz
MANY_CLASSES = 10  # with more, classes are marked by their number


@contextmanager
def figure(path: str | os.PathLike | io.BytesIO, rows: int = 1, columns: int = 1,
           size: tuple[float, float] = (8, 4.5), dpi: int = 110,
           **options: object) -> Iterator[tuple[matplotlib.figure.Figure, np.ndarray]]:
    """Yields a figure and its axes, [rows, columns]; writes and closes it where nothing is raised.

    Args:
        path: PNG file.
        rows, columns: of the axes.
        size: width and height in inches.
        dpi: pixels per inch.
        **options: further ones of `plt.subplots`.
    """
    drawn, axes = plt.subplots(
        rows, columns, figsize=size, squeeze=False, layout='constrained', **options)
    try:
        yield drawn, axes
        drawn.savefig(path, format='png', dpi=dpi)
    finally:
        plt.close(drawn)


def literal(text: str) -> str:
    """Text from outside, such as a file's name, as Matplotlib draws it character by character.

    Example:
        >>> print(literal('100_$5_$6.mp4'))
        100_\\$5_\\$6.mp4
    """
    # Between two dollars it would be read as a formula; a name need not be UTF-8.
    return text.encode('utf-8', 'backslashreplace').decode().replace('$', r'\$')


def batch_image(
    batch: Mapping[str, tf.Tensor], log_mel: keras.layers.Layer, config: Config,
) -> np.ndarray:
    """Frames of a batch's first four clips over the spectrograms of their audio windows.

    Args:
        batch: a batch of `pipeline.make_dataset`.
        log_mel: `LogMel` layer.
        config: configuration of the batch.

    Returns:
        uint8 [height, width, 4], an image.
    """
    video, audio, kind = (batch[name].numpy()[:4] for name in ('video', 'audio', 'kind'))
    windows, bands = kind.shape[1], config.logmel.mel_bands
    hertz, heights = _mel_ticks(config)
    buffer = io.BytesIO()
    with figure(buffer, 1 + windows, len(video), (4 * len(video), 1.4 + 1.5 * windows), 80) as (
            _, axes):
        for column in range(len(video)):
            frames = np.linspace(0, video.shape[1] - 1, 6).round().astype(int)
            axis = axes[0, column]
            axis.imshow(np.concatenate(list(video[column, frames]), axis=1))
            axis.set_title(f'video from {float(batch["video_start_seconds"][column]):.2f} s',
                           fontsize=9)
            axis.axis('off')
            spectrograms = log_mel(audio[column]).numpy()
            for row in range(windows):
                axis = axes[1 + row, column]
                number = int(kind[column, row])
                # mypy takes the arguments of Kind.__new__ for those of Kind.
                name = ('no pair' if number == NO_PAIR
                        else str(Kind(number)))  # type: ignore[call-arg]
                # In standard deviations from the training mean: one scale, silence looks silent.
                axis.imshow(spectrograms[row].T, origin='lower', aspect='auto', cmap='magma',
                            vmin=-2, vmax=3, extent=(0, config.clip.window_seconds, 0, bands))
                start = float(batch['audio_start_seconds'][column, row])
                axis.set_title(f'{name.replace("_", "-")}: audio from {start:.2f} s', fontsize=9,
                               color=KIND_STYLES.get(name, {'color': 'black'})['color'])
                axis.set_yticks(heights, hertz if column == 0 else [], fontsize=8)
                axis.tick_params(axis='x', labelsize=8)
                if column == 0:
                    axis.set_ylabel('Hz', fontsize=8)
                if row == windows - 1:
                    axis.set_xlabel('seconds', fontsize=8)
    return tf.io.decode_png(buffer.getvalue(), channels=4).numpy()


def _mel_ticks(config: Config) -> tuple[list[str], list[float]]:
    """Frequencies to mark, and where they lie on an axis that counts mel bands from 0."""
    def mel(hertz: float) -> float:
        return 1127.0 * np.log1p(hertz / 700.0)  # the HTK scale, like the front end's

    log = config.logmel
    low, high = mel(log.mel_min_hz), mel(log.mel_max_hz)
    inside = [hertz for hertz in FREQUENCY_TICKS if log.mel_min_hz <= hertz <= log.mel_max_hz]
    # Band k, drawn from k to k + 1, is centred on edge k + 1 of the bands + 2 edges.
    heights = [(mel(hertz) - low) / (high - low) * (log.mel_bands + 1) - 0.5 for hertz in inside]
    return [f'{hertz:,}' for hertz in inside], heights


def distance_histogram(
    distances: Mapping[str, np.ndarray], threshold: float, path: str | os.PathLike,
) -> None:
    """Histogram of the distances per kind of pair, with the threshold.

    Args:
        distances: from kind to float [N].
        threshold: pairs whose distance is smaller are classified as in sync.
        path: PNG file.
    """
    highest = max(values.max() for values in distances.values() if len(values))
    bins = np.linspace(0, highest * 1.001 + 1e-6, 60)
    with figure(path) as (_, [[axis]]):
        for name, values in distances.items():
            if len(values):
                style = KIND_STYLES[name]
                filled = ({'histtype': 'stepfilled', 'alpha': 0.35}
                          if name == str(Kind.POSITIVE) else {})
                axis.hist(values, bins, density=True, color=style['color'],
                          label=f'{name.replace("_", "-")} ({len(values):,} pairs)',
                          **{'histtype': 'step', 'linewidth': 1.8,
                             'linestyle': style['linestyle'], **filled})
        axis.axvline(threshold, color='black', linewidth=1, label=f'threshold {threshold:.3f}')
        axis.set(xlabel='distance between video and audio', ylabel='density', xlim=(0, None),
                 title='Distances by kind of pair: left of the threshold is called in sync')
        axis.legend()


def training_curves(
    rows: Sequence[Mapping[str, float]], path: str | os.PathLike, stage_names: Sequence[str] = (),
) -> None:
    """Loss, learning rate, distance and AUC per epoch, with the stages of the curriculum.

    Args:
        rows: rows of history.csv.
        path: PNG file.
        stage_names: what the stages are called, such as the mix of their negatives.
    """
    with figure(path, 2, 2, (12, 7.5)) as (_, axes):
        (loss, rate), (distance, area) = axes
        epochs = [row['epoch'] for row in rows]
        _line(loss, epochs, [row['loss'] for row in rows], color='black')
        loss.set(title='loss', ylim=(0, None))
        rated = [row for row in rows if row.get('learning_rate', 0) > 0]
        if rated:
            _line(rate, [row['epoch'] for row in rated], [row['learning_rate'] for row in rated],
                  color='black')
            rate.set(yscale='log')
        rate.set(title='learning rate at the end of the epoch')
        for prefix, axis in (('distance_', distance), ('auc_', area)):
            for name, style in KIND_STYLES.items():
                points = [(row['epoch'], row[prefix + name])
                          for row in rows if prefix + name in row]
                if points:
                    _line(axis, [epoch for epoch, _ in points], [value for _, value in points],
                          **style, label=name.replace('_', '-'))
            if axis.get_legend_handles_labels()[0]:
                axis.legend(fontsize=8)
        distance.set(title='mean distance of the training pairs', ylim=(0, None))
        lowest = min([row[name] for row in rows for name in row if name.startswith('auc_')],
                     default=0.5)
        area.set(title='AUC on fixed clips (0.5 is chance)', ylim=(min(0.5, lowest) - 0.01, 1.01))
        area.axhline(0.5, color=GREY, linestyle=':', linewidth=1)
        for axis in axes.flat:
            _mark_stages(axis, rows, stage_names)
            axis.set(xlabel='epoch', xlim=(0.5, max(epochs, default=1) + 0.5))
            axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True, min_n_ticks=1))


def _line(axis: plt.Axes, x: Sequence[float], y: Sequence[float], **style: Any) -> None:
    """A curve with a mark about every tenth of it, so that it shows without colour too."""
    axis.plot(x, y, **{'marker': 'o', 'markersize': 4, 'markevery': max(1, len(x) // 10),
                       'linewidth': 1.5, **style})


def _mark_stages(
    axis: plt.Axes, rows: Sequence[Mapping[str, float]], names: Sequence[str],
) -> None:
    """Shades every second stage and writes its name where it begins, if there are several."""
    stages: dict[int, list[float]] = {}
    for row in rows:
        stages.setdefault(int(row.get('stage', 0)), []).append(row['epoch'])
    if len(stages) < 2:
        return
    for stage, epochs in stages.items():
        if stage % 2:
            axis.axvspan(min(epochs) - 0.5, max(epochs) + 0.5, color='#f0e6d2', zorder=-1,
                         linewidth=0)
        name = f'stage {stage + 1}' + (f': {names[stage]}' if stage < len(names) else '')
        axis.annotate(name, (min(epochs) - 0.5, 1.0), (1, 2), fontsize=8, va='bottom',
                      xycoords=('data', 'axes fraction'), textcoords='offset points')
    axis.set_title(axis.get_title(), pad=18)  # above the names


def confusion_matrix(
    confusion: Sequence[Sequence[int]], names: Sequence[str], title: str, path: str | os.PathLike,
) -> None:
    """Counts of true against predicted classes, coloured by their share of the true class.

    Args:
        confusion: int [C, C], true class by predicted class.
        names: C names.
        title: of the plot.
        path: PNG file.
    """
    counts = np.asarray(confusion)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    # Names and numbers are left out where they would be too small to read.
    names = [literal(name) for name in names]
    count, side = len(names), float(np.clip(1.8 + 0.42 * len(names), 4.0, 14.0))
    with figure(path, size=(side + 1.2, side)) as (drawn, [[axis]]):
        image = axis.imshow(shares, cmap='Blues', vmin=0, vmax=1)
        if count <= 60:
            size = float(np.clip(260 / count, 4, 9))
            axis.set_xticks(range(count), names, rotation=90, fontsize=size)
            axis.set_yticks(range(count), names, fontsize=size)
        if count <= 25:
            for row, column in zip(*np.nonzero(counts), strict=True):
                axis.text(column, row, counts[row, column], ha='center', va='center',
                          fontsize=8, color='white' if shares[row, column] > 0.55 else 'black')
        axis.set(xlabel='predicted class', ylabel='true class')
        axis.set_title(literal(title), fontsize=10, wrap=True)
        drawn.colorbar(image, ax=axis, shrink=0.8, label='share of the true class')


def embedding_map(
    points: np.ndarray, labels: np.ndarray, names: Sequence[str], title: str,
    path: str | os.PathLike,
) -> None:
    """Clips as points in the plane; each class has a colour and a mark of its own.

    Args:
        points: float [N, 2].
        labels: int [N].
        names: C names.
        title: of the plot.
        path: PNG file.
    """
    colours = matplotlib.colormaps['tab10' if len(names) <= 10 else 'tab20'].colors
    with figure(path, size=(9, 7)) as (drawn, [[axis]]):
        for index, name in enumerate(names):
            own = points[labels == index]
            if len(own):
                numbered = len(names) > MANY_CLASSES
                mark = f'${index + 1}$' if numbered else 'osD^vPX<>*'[index]
                # Matplotlib scales a number to the mark's size, whatever its digits.
                size = 30 * len(mark.strip('$')) if numbered else 34
                axis.scatter(*own.T, s=size, marker=mark, alpha=0.85, linewidths=0.3,
                             color=colours[index % len(colours)], label=literal(name))
        axis.set(xticks=[], yticks=[])
        axis.set_title(literal(title), fontsize=10, wrap=True)
        drawn.legend(loc='outside right upper', fontsize=8 if len(names) <= 25 else 6,
                     ncols=1 + (len(names) - 1) // 40)


def sync_curve(
    curve: Mapping[str, object], single: np.ndarray, name: str, path: str | os.PathLike,
) -> None:
    """Distance against the offset of the audio: the mean over clips, and one clip.

    Args:
        curve: `results` of `evaluation.sync.SyncCurve`.
        single: float [O], distances of one clip, NaN where it is too short.
        name: of that clip.
        path: PNG file.
    """
    offsets, (low, high) = np.array(curve['offset_seconds']), np.array(curve['interval']).T
    with figure(path) as (_, [[axis]]):
        axis.plot(offsets, single, color=ORANGE, linewidth=1, linestyle='--',
                  label=f'one clip: {literal(name)}')
        axis.plot(offsets, curve['distance'], color=BLUE, linewidth=2,
                  label=f'mean of {curve["clips"]} clips')
        axis.fill_between(offsets, low, high, color=BLUE, alpha=0.2, linewidth=0,
                          label='95 % interval of the mean')
        axis.axvline(0, color=GREY, linestyle=':', linewidth=1)
        axis.set(xlabel=OFFSET_AXIS.format('offset in seconds'), ylabel='distance', ylim=(0, None),
                 xlim=(offsets[0], offsets[-1]),
                 title='Distance between video and audio by the offset of the audio')
        axis.legend(fontsize=9)


def offset_curve(
    offset_seconds: np.ndarray, distance: np.ndarray, lowest: tuple[float, float], title: str,
    path: str | os.PathLike,
) -> None:
    """Distance between video and audio over the offset of the audio, with the lowest point.

    Args:
        offset_seconds: float [N].
        distance: float [N].
        lowest: offset of the lowest point in seconds, and its depth below the median.
        title: name of the file and the answer.
        path: PNG file.
    """
    milliseconds = 1000 * offset_seconds
    best, depth = lowest
    with figure(path, size=(8, 4)) as (_, [[axis]]):
        axis.plot(milliseconds, distance, color=BLUE)
        axis.axvline(0, color=GREY, linestyle=':', linewidth=1)
        axis.axvline(1000 * best, color=RED, linestyle='--', linewidth=1,
                     label=f'lowest at {1000 * best:+.0f} ms, {depth:.2f} below the median')
        axis.set(xlabel=OFFSET_AXIS.format('offset in ms'), xlim=milliseconds[[0, -1]],
                 ylabel='mean distance to the video', ylim=(0, None))
        axis.set_title(literal(title), fontsize='medium', wrap=True)
        axis.legend()


def offset_errors(
    errors_ms: Mapping[float, Sequence[float]], frame_ms: float, path: str | os.PathLike,
) -> None:
    """Errors of measured offsets for each known shift, over a band of one frame.

    Args:
        errors_ms: from shift in seconds to errors in milliseconds.
        frame_ms: length of a frame.
        path: PNG file.
    """
    shifts = [shift for shift in errors_ms if errors_ms[shift]]
    with figure(path, size=(8, 4)) as (_, [[axis]]):
        axis.axhspan(-frame_ms, frame_ms, color='#d9ead3', label=f'within a frame, {frame_ms:g} ms')
        axis.axhline(0, color=GREY, linestyle=':', linewidth=1)
        axis.boxplot([errors_ms[shift] for shift in shifts], whis=(5, 95),
                     tick_labels=[f'{1000 * shift:+.0f}' for shift in shifts])
        axis.set(xlabel=OFFSET_AXIS.format('known shift of the audio in ms'),
                 ylabel='error in ms\n← too early      too late →',
                 title='Measured offset minus the known one (boxes: half of the records, '
                       'whiskers: 90 %)')
        axis.title.set_fontsize('medium')
        axis.legend(fontsize=9)
