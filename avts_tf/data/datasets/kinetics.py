"""Kinetics: ten-second clips of videos from YouTube, by action.

CSV files have label, youtube_id, time_start, time_end and split. ID_000010_000020.* is the trimmed
clip and is taken whole, ID.* is the whole video and is cut. A part is the split, or the CSV's name
where there is none. https://github.com/cvdfoundation/kinetics-dataset
"""

import os

from avts_tf.data.datasets.common import (
    Collection,
    Dataset,
    check_name,
    collect,
    find_tables,
    first_line,
    line_error,
    make_source,
    media_by_stem,
    read_table,
    read_times,
    refuse_label_column,
    stem,
)
from avts_tf.errors import UserError


def read(input_path: str, label_column: str) -> Collection:
    """Reads a folder with the CSV files and the videos, or one of the CSV files."""
    refuse_label_column(label_column)
    root, tables = find_tables(input_path, '*.csv', lambda path: 'youtube_id' in first_line(path))
    if not tables:
        raise UserError('input', input_path,
                        'no CSV with a column youtube_id in this folder or below it.')
    files, sources = media_by_stem(root), []
    for table in tables:
        for line, row in read_table(table, ('youtube_id', 'time_start', 'time_end'))[1]:
            times = read_times(table, line, row, 'time_start', 'time_end')
            if times[1] is None:
                raise line_error(table, line, 'time_end is empty.')
            video = check_name(table, line, 'youtube_id', row['youtube_id'])
            trimmed = f'{video}_{round(times[0]):06d}_{round(times[1]):06d}'
            path = files.get(trimmed)
            if path is None and video in files:
                path = files[video]
            else:
                path, times = path or os.path.join(root, trimmed + '.mp4'), (0.0, None)
            split = row.get('split') or stem(table)
            sources.append(
                make_source(trimmed, root, path, row.get('label', ''), split, video, *times))
    return collect(sources)


DATASET = Dataset(read)
