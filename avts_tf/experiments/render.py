"""From the cells of a table to text: Markdown for people, CSV for programs."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

COLUMNS = ('row', 'column', 'published', 'source', 'unit', 'mean', 'deviation', 'values', 'missing')


def mean_and_deviation(values: Sequence[float]) -> dict[str, float | None]:
    """`mean` and `deviation`, the sample standard deviation, None for one value."""
    return {'mean': float(np.mean(values)),
            'deviation': float(np.std(values, ddof=1)) if len(values) > 1 else None}


def as_markdown(lines: Sequence[dict[str, Any]], remark: str = '') -> str:
    """A table with a column of ours and, where anything is published, one of the published.

    Args:
        lines: result of `tables.make_table`.
        remark: sentence that stands below.
    """
    columns = list(dict.fromkeys(line['column'] for line in lines))
    rows = list(dict.fromkeys(line['row'] for line in lines))
    by_place = {(line['row'], line['column']): line for line in lines}
    with_published = {line['column'] for line in lines if line['published'] is not None}
    notes: list[str] = []
    head, text = [''], []
    for column in columns:
        head += [column, f'{column}, published'] if column in with_published else [column]
    for row in rows:
        cells = [row]
        for column in columns:
            line = by_place.get((row, column))
            cells.append(_ours(line, notes) if line else '')
            if column in with_published:
                published = line and line['published']
                cells.append('' if published is None else f'{published:.1f}')
        text.append('| ' + ' | '.join(cells) + ' |')
    seeds = max((len(line['values']) for line in lines), default=0)
    note = [remark] if remark else []
    if seeds > 1:
        note.append(f'Ours: mean ± standard deviation over {seeds} seeds.')
    note += [f'[{number}] {reason}' for number, reason in enumerate(notes, 1)]
    rule = '|---' * len(head) + '|'
    return '\n'.join(['| ' + ' | '.join(head) + ' |', rule, *text, '', *note]).rstrip() + '\n'


def _ours(line: dict[str, Any], notes: list[str]):
    if line['missing']:
        if line['missing'] not in notes:
            notes.append(line['missing'])
        return f'– [{notes.index(line["missing"]) + 1}]'
    if line['mean'] is None:  # a published figure alone
        return ''
    digits = 1 if line['unit'] else 3
    deviation = '' if line['deviation'] is None else f' ± {line["deviation"]:.{digits}f}'
    return f'{line["mean"]:.{digits}f}{deviation}'


def as_csv(lines: Sequence[dict[str, Any]]) -> str:
    """One line per cell, with the columns of `COLUMNS`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
    writer.writeheader()
    for line in lines:
        writer.writerow({**line, 'values': ' '.join(f'{value:.6g}' for value in line['values'])})
    return text.getvalue()
