"""Plots of the paper's tables and of the curriculum study."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np

from avts_tf.plots import figure

OURS, PUBLISHED = '#1f77b4', '#c9b27c'
LINES = (('-', 'o'), ('--', 's'), ('-.', '^'), (':', 'D'), ('-', 'v'), ('--', 'P'), ('-.', 'X'))


def table_bars(lines: Sequence[Mapping[str, Any]], path: str | os.PathLike) -> None:
    """A table as bars: a panel per column, a row per row; ours beside the published.

    Args:
        lines: result of `tables.make_table`; each seed of ours is a dot.
        path: PNG file.
    """
    rows = list(dict.fromkeys(line['row'] for line in lines))
    columns = list(dict.fromkeys(line['column'] for line in lines
                                 if line['values'] or line['published'] is not None))
    panels = max(len(columns), 1)
    with figure(path, 1, panels, (2.2 + 2.9 * panels, 1.4 + 0.55 * len(rows)), sharey=True) as (
            drawn, [axes]):
        for axis, column in zip(axes, columns, strict=False):
            for line in (line for line in lines if line['column'] == column):
                _bars(axis, line, rows.index(line['row']))
            axis.set_title(column, fontsize=9)
            axis.margins(x=0.18)
            if column.startswith(('AUC', 'AVTS')):
                chance = 0.5 if column.startswith('AUC') else 50
                axis.axvline(chance, color='black', linestyle=':', linewidth=1)
            axis.tick_params(labelsize=8)
        axes[0].set_yticks(range(len(rows)), rows)
        axes[0].invert_yaxis()
        handles = {label: handle for axis in axes
                   for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        drawn.legend(handles.values(), handles.keys(), loc='outside lower right', ncols=2,
                     fontsize=8)


def study_panels(
    groups: Mapping[str, Sequence[Mapping[str, Any]]], column: str, path: str | os.PathLike,
) -> None:
    """One column of the curriculum study: a panel per group, a bar per arm; each seed is a dot.

    Args:
        groups: from a group, 'WORLD, RECIPE', to its lines, whose `row` is the arm.
        column: of the lines, in percent, with chance at 50.
        path: PNG file.
    """
    worlds = list(dict.fromkeys(group.split(', ')[0] for group in groups))
    across = max(sum(group.startswith(f'{world}, ') for group in groups) for world in worlds)
    size = 2.2 + 2.9 * across, 0.8 + 2.4 * len(worlds)
    with figure(path, len(worlds), across, size, sharex=True, sharey=True) as (_, axes):
        for axis, (group, lines) in zip(axes.flat, groups.items(), strict=True):
            chosen = [line for line in lines if line['column'] == column]
            for place, line in enumerate(chosen):
                _bars(axis, line, place + 0.18)  # in the middle: nothing is published
            axis.axvline(50, color='black', linestyle=':', linewidth=1)
            axis.set_title(group, fontsize=9)
            axis.tick_params(labelsize=8)
            axis.set_yticks(range(len(chosen)), [line['row'] for line in chosen])
        axes[0, 0].invert_yaxis()
        axes[0, 0].set_xlim(0, 108)
        for axis in axes[-1]:
            axis.set_xlabel(f'{column}, %', fontsize=8)


def _bars(axis: 'matplotlib.axes.Axes', line: Mapping[str, Any], place: float) -> None:
    """The bars of one cell: ours above the published."""
    if line['values']:
        above = place - 0.18
        axis.barh(above, line['mean'], 0.34, color=OURS, xerr=line['deviation'], ecolor='#555555',
                  label='ours')
        axis.plot(line['values'], [above] * len(line['values']), '.', color='black', markersize=3)
        digits = 1 if line['unit'] else 3
        axis.text(line['mean'], above, f' {line["mean"]:.{digits}f}', va='bottom', fontsize=7)
    if line['published'] is not None:
        axis.barh(place + 0.18, line['published'], 0.34, color=PUBLISHED, hatch='///',
                  edgecolor='white', label='published')
        axis.text(line['published'], place + 0.18, f' {line["published"]:.1f}', va='center',
                  fontsize=7)


def regime_curves(
    histories: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], switch: int,
    path: str | os.PathLike,
) -> None:
    """Loss and AUC of several trainings over the epochs: mean and range over seeds.

    Args:
        histories: from the name of a regime to a list, one per seed, of rows of history.csv.
        switch: epochs of the first stage of the curricula.
        path: PNG file.
    """
    titles = {'loss': 'loss (each regime on its own pairs)',
              'auc_easy': 'AUC on held-out clips, easy negatives',
              'auc_hard': 'AUC on held-out clips, hard negatives'}
    with figure(path, 1, 3, (15, 4.4)) as (_, [axes]):
        for axis, (name, title) in zip(axes, titles.items(), strict=True):
            lowest = 0.5
            colours = matplotlib.colormaps['tab10'].colors
            for (regime, runs), colour, (line, mark) in zip(histories.items(), colours, LINES,
                                                            strict=False):
                values = np.array(
                    [[row.get(name, np.nan) for row in rows] for rows in runs if rows])
                if values.size:
                    epochs = np.arange(1, values.shape[1] + 1)
                    axis.plot(epochs, values.mean(0), color=colour, label=regime, linestyle=line,
                              marker=mark, markersize=4, markevery=max(1, len(epochs) // 8))
                    axis.fill_between(epochs, values.min(0), values.max(0), color=colour,
                                      alpha=0.12, linewidth=0)
                    lowest = min(lowest, np.nanmin(values, initial=0.5))
            axis.axvline(switch + 0.5, color='grey', linestyle=':', linewidth=1)
            axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True, min_n_ticks=1))
            axis.set(title=title, xlabel='epoch')
            if name.startswith('auc'):
                axis.axhline(0.5, color='grey', linewidth=0.8)
                axis.set_ylim(lowest - 0.01, 1.01)
            else:
                axis.set_ylim(0, None)
        if axes[1].get_legend_handles_labels()[0]:
            seeds = max(map(len, histories.values()))
            title = 'vertical line: stage 2 of the curricula'
            if seeds > 1:
                title += f'\nbands: range over {seeds} seeds'
            axes[1].legend(fontsize=8, title=title, title_fontsize=7)
