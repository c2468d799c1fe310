"""AudioSet: ten-second pieces of videos from YouTube, by the sounds in them.

The segments' CSV files have YTID, start_seconds, end_seconds, positive_labels.
ID_30000_40000.*, ID_30000.*, ID_000030_000040.*, ID_30_40.*, each also with a Y before the ID, and
YID.* are trimmed; ID.* is cut. The label is the first positive one, by name where
class_labels_indices.csv is there. Parts: balanced_train and so on.
https://research.google.com/audioset/download.html
"""

import os

from avts_tf.data.datasets.common import (
    Collection,
    Dataset,
    check_name,
    collect,
    files_below,
    find_tables,
    line_error,
    make_source,
    media_by_stem,
    read_table,
    read_times,
    refuse_label_column,
    seconds_text,
    stem,
)
from avts_tf.errors import UserError

_COLUMNS = ['id', 'start_seconds', 'end_seconds', 'labels']


def read(input_path: str, label_column: str) -> Collection:
    """Reads a folder with the segments' CSV files and the media, or one of the CSV files."""
    refuse_label_column(label_column)
    root, tables = find_tables(input_path, '*_segments.csv')
    if not tables:
        raise UserError('input', input_path, 'no *_segments.csv in this folder or below it.')
    names: dict[str, str] = {}
    for path in files_below(root, '*class_labels_indices.csv')[:1]:
        rows = read_table(path, ('mid', 'display_name'))[1]
        names = {row['mid']: row['display_name'] for _, row in rows}
    files, sources = media_by_stem(root), []
    for table in tables:
        split = stem(table).removesuffix('_segments')
        for line, row in read_table(table, columns=_COLUMNS)[1]:
            start, end = read_times(table, line, row, 'start_seconds', 'end_seconds')
            if end is None or not row['id']:
                raise line_error(
                    table, line, 'not YTID, start_seconds, end_seconds, positive_labels.')
            check_name(table, line, 'YTID', row['id'])
            labels = [label.strip() for label in row['labels'].split(',')]
            # A class that the list of classes lacks is no label where another of the row is one.
            label = next((names[label] for label in labels if label in names), labels[0])
            stems = _trimmed_stems(row['id'], start, end)
            found = next((files[name] for name in stems if name in files), None)
            times: tuple[float, float | None] = 0.0, None
            if found is None and row['id'] in files:
                found, times = files[row['id']], (start, end)
            path = found or os.path.join(root, stems[0] + '.wav')
            sources.append(make_source(
                f'{row["id"]}_{1000 * start:.0f}', root, path, label, split, row['id'], *times))
    stated = {source.label for source in sources if source.label}
    return collect(sources, labels=stated | set(names.values()))


def _trimmed_stems(video: str, start: float, end: float) -> list[str]:
    """What a trimmed piece's file may be called, without its suffix."""
    times = (
        f'_{1000 * start:.0f}_{1000 * end:.0f}', f'_{1000 * start:.0f}',
        f'_{round(start):06d}_{round(end):06d}', f'_{seconds_text(start)}_{seconds_text(end)}',
        f'_{start:.3f}_{end:.3f}',
    )
    return [prefix + video + ending for prefix in ('', 'Y') for ending in times] + ['Y' + video]


DATASET = Dataset(read)
