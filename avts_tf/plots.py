"""Pictures: a batch, the distances per kind, the course of a training."""

import io

import matplotlib
import numpy as np
import tensorflow as tf

from avts_tf.data.sampling import NO_PAIR, Kind

matplotlib.use('Agg')
from matplotlib import pyplot as plt

# One for each kind in turn, and some for kinds to come.
COLOURS = ('#2a7f3f', '#1f77b4', '#e08214', '#b2182b', '#7b4fa3', '#8c6d31')
KIND_COLOURS = {str(kind): colour for kind, colour in zip(Kind, COLOURS, strict=False)}


def batch_picture(batch, log_mel, config, clips=4):
    """Frames of a batch's first clips over the spectrograms of their audio windows, each with its kind.

    Args:
        batch: a batch of `pipeline.make_dataset`.
        log_mel: `LogMel` layer.
        config: `Config`.
        clips: number of clips.

    Returns:
        uint8 [height, width, 4], a picture.
    """
    video, audio, kind = (batch[name].numpy()[:clips] for name in ('video', 'audio', 'kind'))
    windows = kind.shape[1]
    figure, axes = plt.subplots(1 + windows, len(video), figsize=(4 * len(video), 1.2 + 1.3 * windows), squeeze=False,
                                layout='constrained')
    for column in range(len(video)):
        chosen = np.linspace(0, video.shape[1] - 1, 6).round().astype(int)
        axes[0, column].imshow(np.concatenate(list(video[column, chosen]), axis=1))
        axes[0, column].set_title(f'{float(batch["video_start_seconds"][column]):.2f} s', fontsize=9)
        axes[0, column].axis('off')
        spectrograms = log_mel(audio[column]).numpy()
        for row in range(windows):
            axis, name = axes[1 + row, column], 'no pair' if kind[column, row] == NO_PAIR else str(Kind(kind[column, row]))
            # In deviations from the mean of the training data: one scale, so that silence looks silent.
            axis.imshow(spectrograms[row].T, origin='lower', aspect='auto', cmap='magma', vmin=-2, vmax=3,
                        extent=(0, config.clip.window_seconds, 0, config.logmel.mel_bands))
            axis.set_title(f'{name}, {float(batch["audio_start_seconds"][column, row]):.2f} s', fontsize=9,
                           color=KIND_COLOURS.get(name, 'black'))
            axis.set_yticks([])
    axes[-1, 0].set_xlabel('seconds')
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=80)
    plt.close(figure)
    return tf.io.decode_png(buffer.getvalue(), channels=4).numpy()


def distance_histogram(distances, threshold, path):
    """Histogram of the distances per kind, with the threshold.

    Args:
        distances: dict from kind to float [N].
        threshold: distance below which a pair is said to be in sync.
        path: PNG file.
    """
    highest = max(values.max() for values in distances.values() if len(values))
    bins = np.linspace(0, highest * 1.001 + 1e-6, 60)
    figure, axis = plt.subplots(figsize=(8, 4.5), layout='constrained')
    for name, values in distances.items():
        if len(values):
            axis.hist(values, bins, density=True, histtype='stepfilled' if name == str(Kind.POSITIVE) else 'step', linewidth=1.8,
                      alpha=0.35 if name == str(Kind.POSITIVE) else 1.0, color=KIND_COLOURS[name], label=f'{name} ({len(values)})')
    axis.axvline(threshold, color='black', linestyle='--', linewidth=1, label=f'threshold {threshold:.3f}')
    axis.set(xlabel='distance between picture and sound', ylabel='density', title='Distances by kind of pair')
    axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def training_curves(rows, path):
    """Loss, distance per kind and AUC per kind over the epochs, with the stages of the curriculum shaded.

    Args:
        rows: rows of history.csv.
        path: PNG file.
    """
    epochs = [row['epoch'] for row in rows]
    figure, axes = plt.subplots(1, 3, figsize=(14, 4), layout='constrained')
    axes[0].plot(epochs, [row['loss'] for row in rows], color='black')
    axes[0].set(title='loss', xlabel='epoch')
    for prefix, axis, title in (('distance_', axes[1], 'mean distance while training'), ('auc_', axes[2], 'AUC on fixed clips')):
        for name, colour in KIND_COLOURS.items():
            points = [(row['epoch'], row[prefix + name]) for row in rows if prefix + name in row]
            if points:
                axis.plot(*zip(*points, strict=True), color=colour, label=name, marker='.' if len(points) < 3 else None)
        axis.set(title=title, xlabel='epoch')
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
    axes[2].axhline(0.5, color='grey', linestyle=':', linewidth=1)
    for axis in axes:
        for row in rows:
            if int(row.get('stage', 0)) % 2:
                axis.axvspan(row['epoch'] - 0.5, row['epoch'] + 0.5, color='#f0e6d2', zorder=-1, linewidth=0)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def confusion_matrix(confusion, names, title, path):
    """Counts of true against predicted classes, coloured by their part of the true class.

    Args:
        confusion: int [C, C], true class by predicted class.
        names: C names.
        title: of the picture.
        path: PNG file.
    """
    confusion = np.asarray(confusion)
    parts = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    # Names and numbers are left out where they would be too small to read.
    count, side = len(names), np.clip(1.8 + 0.42 * len(names), 4.0, 14.0)
    figure, axis = plt.subplots(figsize=(side + 1.2, side), layout='constrained')
    image = axis.imshow(parts, cmap='Blues', vmin=0, vmax=1)
    if count <= 60:
        size = np.clip(260 / count, 4, 9)
        axis.set_xticks(range(count), names, rotation=90, fontsize=size)
        axis.set_yticks(range(count), names, fontsize=size)
    if count <= 25:
        for row, column in zip(*np.nonzero(confusion), strict=True):
            axis.text(column, row, confusion[row, column], ha='center', va='center', fontsize=8,
                      color='white' if parts[row, column] > 0.55 else 'black')
    axis.set(xlabel='predicted', ylabel='true')
    axis.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axis, shrink=0.8, label='part of the true class')
    figure.savefig(path, dpi=110)
    plt.close(figure)


def embedding_map(points, labels, names, title, path):
    """Clips as points in the plane, coloured by class.

    Args:
        points: float [N, 2].
        labels: int [N].
        names: C names.
        title: of the picture.
        path: PNG file.
    """
    figure, axis = plt.subplots(figsize=(9, 7), layout='constrained')
    colours = matplotlib.colormaps['tab10' if len(names) <= 10 else 'tab20'].colors
    for index, name in enumerate(names):
        own = points[labels == index]
        if len(own):
            # More classes than colours: the shape tells the rounds apart.
            axis.scatter(*own.T, s=26, color=colours[index % len(colours)], marker='osD^vPX'[index // len(colours) % 7],
                         alpha=0.8, linewidths=0, label=name)
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=10)
    figure.legend(loc='outside right upper', fontsize=8 if len(names) <= 25 else 6, ncols=1 + (len(names) - 1) // 40)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def sync_curve(curve, single, name, path):
    """Distance against the offset of the sound: the mean over clips with its interval, and one clip.

    Args:
        curve: result of `evaluation.sync.measure_sync_curve`.
        single: float [O], distances of one clip, NaN where it is too short.
        name: of that clip.
        path: PNG file.
    """
    offsets, (low, high) = np.array(curve['offset_seconds']), np.array(curve['interval']).T
    figure, axis = plt.subplots(figsize=(8, 4.5), layout='constrained')
    axis.plot(offsets, single, color='#e08214', linewidth=1, label=f'one clip: {name}')
    axis.plot(offsets, curve['distance'], color='#1f77b4', linewidth=2, label=f'mean of {curve["clips"]} clips')
    axis.fill_between(offsets, low, high, color='#1f77b4', alpha=0.2, linewidth=0, label='95 % interval of the mean')
    axis.axvline(0, color='grey', linestyle=':', linewidth=1)
    axis.set(xlabel='audio early  ←  offset of the audio in seconds  →  audio late',
             ylabel='distance',
             title='Distance of picture and sound by their offset')
    axis.legend(fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


OURS, PUBLISHED = '#1f77b4', '#c9b27c'


def table_bars(lines, path):
    """A table as bars: a panel per column, a row per row; ours with each seed as a dot, the published beside it.

    Args:
        lines: result of `evaluation.tables.make_table`.
        path: PNG file.
    """
    rows = list(dict.fromkeys(line['row'] for line in lines))
    columns = list(dict.fromkeys(line['column'] for line in lines if line['values'] or line['published'] is not None))
    figure, axes = plt.subplots(1, max(len(columns), 1), figsize=(2.2 + 2.9 * max(len(columns), 1), 1.4 + 0.55 * len(rows)),
                                sharey=True, squeeze=False, layout='constrained')
    for axis, column in zip(axes[0], columns, strict=False):
        for line in (line for line in lines if line['column'] == column):
            place = rows.index(line['row'])
            if line['values']:
                axis.barh(place - 0.18, line['mean'], 0.34, color=OURS, xerr=line['deviation'], ecolor='#555555', label='ours')
                axis.plot(line['values'], [place - 0.18] * len(line['values']), '.', color='black', markersize=3)
                axis.text(line['mean'], place - 0.18, f' {line["mean"]:.{1 if line["unit"] else 3}f}', va='bottom', fontsize=7)
            if line['published'] is not None:
                axis.barh(place + 0.18, line['published'], 0.34, color=PUBLISHED, label='published')
                axis.text(line['published'], place + 0.18, f' {line["published"]:.1f}', va='center', fontsize=7)
        axis.set_title(column, fontsize=9)
        axis.margins(x=0.18)
        if column.startswith(('AUC', 'AVTS')):
            axis.axvline(0.5 if column.startswith('AUC') else 50, color='black', linestyle=':', linewidth=1)  # chance
        axis.tick_params(labelsize=8)
    axes[0, 0].set_yticks(range(len(rows)), rows)
    axes[0, 0].invert_yaxis()
    handles = {label: handle for axis in axes[0] for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc='outside lower right', ncols=2, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def regime_curves(histories, switch, path):
    """The course of several trainings in one picture: loss and AUC over the epochs, mean and range over seeds.

    Args:
        histories: dict from the name of a regime to a list, one per seed, of rows of history.csv.
        switch: epochs of the first stage of the curricula.
        path: PNG file.
    """
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.4), layout='constrained')
    titles = {'loss': 'loss (each regime on its own pairs)', 'auc_easy': 'AUC on held-out clips, easy negatives',
              'auc_hard': 'AUC on held-out clips, hard negatives'}
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        for (regime, runs), colour in zip(histories.items(), matplotlib.colormaps['tab10'].colors, strict=False):
            values = np.array([[row.get(name, np.nan) for row in rows] for rows in runs if rows])
            if values.size:
                epochs = np.arange(1, values.shape[1] + 1)
                axis.plot(epochs, values.mean(0), color=colour, label=regime, linestyle='--' if 'first' in regime else '-',
                          marker='.' if len(epochs) < 3 else None)
                axis.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.12, linewidth=0)
        axis.axvline(switch + 0.5, color='grey', linestyle=':', linewidth=1)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set(title=title, xlabel='epoch')
    axes[1].axhline(0.5, color='grey', linewidth=0.8)
    axes[2].axhline(0.5, color='grey', linewidth=0.8)
    if axes[1].get_legend_handles_labels()[0]:
        axes[1].legend(fontsize=8, title=f'dotted: curricula change\nbands: range over {max(map(len, histories.values()))} seeds',
                       title_fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def offset_curve(curve, title, path):
    """Distance between picture and sound over the offset of the sound, with the lowest point marked.

    Args:
        curve: `evaluation.offset.OffsetCurve`.
        title: name of the file and the answer.
        path: PNG file.
    """
    milliseconds = 1000 * curve.offset_seconds
    best, depth = curve.best
    figure, axis = plt.subplots(figsize=(8, 4), layout='constrained')
    axis.plot(milliseconds, curve.distance, color='#1f77b4')
    axis.axvline(0, color='grey', linestyle=':', linewidth=1)
    axis.axvline(1000 * best, color='#b2182b', linestyle='--', linewidth=1,
                 label=f'lowest at {1000 * best:+.0f} ms, {depth:.2f} below the median')
    axis.set(xlabel='audio early  ←  offset of the audio in ms  →  audio late',
             ylabel='mean distance to the video')
    axis.set_title(title, fontsize='medium', wrap=True)
    axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def offset_errors(errors, frame_ms, path):
    """Errors of measured offsets for each known shift, over a band of one frame.

    Args:
        errors: dict from shift in seconds to a list of errors in milliseconds.
        frame_ms: length of a frame.
        path: PNG file.
    """
    shifts = [shift for shift in errors if errors[shift]]
    figure, axis = plt.subplots(figsize=(8, 4), layout='constrained')
    axis.axhspan(-frame_ms, frame_ms, color='#d9ead3', label=f'within one frame, {frame_ms:g} ms')
    axis.boxplot([errors[shift] for shift in shifts], tick_labels=[f'{1000 * shift:+.0f}' for shift in shifts], whis=(5, 95))
    axis.set(xlabel='audio early  ←  known shift of the audio in ms  →  audio late',
             ylabel='error in ms',
             title='Measured offset against the known one (boxes: half of the records, whiskers: 90 %)')
    axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
