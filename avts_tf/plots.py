"""Pictures: a batch, the distances per kind, the course of a training."""

import io

import matplotlib
import numpy as np
import tensorflow as tf

from avts_tf.windows import KINDS, NO_PAIR

matplotlib.use('Agg')
from matplotlib import pyplot as plt

KIND_COLOURS = {'positive': '#2a7f3f', 'easy': '#1f77b4', 'hard': '#e08214', 'super_hard': '#b2182b'}


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
            axis, name = axes[1 + row, column], 'no pair' if kind[column, row] == NO_PAIR else KINDS[kind[column, row]]
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
            axis.hist(values, bins, density=True, histtype='stepfilled' if name == 'positive' else 'step', linewidth=1.8,
                      alpha=0.35 if name == 'positive' else 1.0, color=KIND_COLOURS[name], label=f'{name} ({len(values)})')
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


def offset_curve(curve, title, path):
    """Distance between picture and sound over the offset of the sound, with the lowest point marked.

    Args:
        curve: `evaluation.offset.OffsetCurve`.
        title: name of the file.
        path: PNG file.
    """
    milliseconds = 1000 * curve.offset_seconds
    best, depth = curve.best
    figure, axis = plt.subplots(figsize=(8, 4), layout='constrained')
    axis.plot(milliseconds, curve.distance, color='#1f77b4')
    axis.axvline(0, color='grey', linestyle=':', linewidth=1)
    axis.axvline(1000 * best, color='#b2182b', linestyle='--', linewidth=1,
                 label=f'{1000 * best:+.0f} ms, {depth:.2f} below the median')
    axis.set(xlabel='sound early  ←  offset of the sound in ms  →  sound late', ylabel='mean distance to the picture', title=title)
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
    axis.set(xlabel='known shift of the sound in ms', ylabel='error in ms',
             title='Measured offset against the known one (boxes: half of the records, whiskers: 90 %)')
    axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
