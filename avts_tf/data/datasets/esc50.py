"""ESC-50: 2,000 environmental sounds of 5 s in 50 classes, with five folds.

esc50.csv has filename, fold, category. Without it, file names are FOLD-SOURCE-TAKE-TARGET, where
the target is a number or a name, or FOLD-SOURCE-TAKE in folders of classes; or a CSV as in `plain`.
Parts: fold1 to fold5. https://github.com/karolpiczak/ESC-50
"""

import os
import re

from avts_tf.data.datasets import plain
from avts_tf.data.datasets.common import (
    Collection,
    Dataset,
    Source,
    check_name,
    collect,
    files_below,
    first_line,
    fold_name,
    line_error,
    make_source,
    media_by_stem,
    read_table,
    refuse_label_column,
    stem,
    suffix,
)
from avts_tf.errors import UserError

CLASSES = (
    'dog', 'rooster', 'pig', 'cow', 'frog', 'cat', 'hen', 'insects', 'sheep', 'crow', 'rain',
    'sea_waves', 'crackling_fire', 'crickets', 'chirping_birds', 'water_drops', 'wind',
    'pouring_water', 'toilet_flush', 'thunderstorm', 'crying_baby', 'sneezing', 'clapping',
    'breathing', 'coughing', 'footsteps', 'laughing', 'brushing_teeth', 'snoring',
    'drinking_sipping', 'door_wood_knock', 'mouse_click', 'keyboard_typing', 'door_wood_creaks',
    'can_opening', 'washing_machine', 'vacuum_cleaner', 'clock_alarm', 'clock_tick',
    'glass_breaking', 'helicopter', 'chainsaw', 'siren', 'car_horn', 'engine', 'train',
    'church_bells', 'airplane', 'fireworks', 'hand_saw',
)
_NAME = re.compile(r'(\d+)-([^-]+)-([A-Z])(?:-(.+))?')
_NAME_IN_WORDS = 'FOLD-SOURCE-TAKE-TARGET, such as 1-100032-A-0.ogg'


def read(input_path: str, label_column: str) -> Collection:
    """Reads a folder with the files and esc50.csv or without it, a glob, or a CSV."""
    return collect(read_sources(input_path, label_column))


def read_sources(input_path: str, label_column: str, esc10: bool = False) -> list[Source]:
    """The sources, as `read` finds them; with `esc10` those that esc50.csv marks as of ESC-10."""
    table = input_path if suffix(input_path) == '.csv' else None
    if os.path.isdir(input_path):
        table = next(iter(files_below(input_path, 'esc50.csv')), None)
    if table and 'filename' in first_line(table):
        refuse_label_column(label_column)
        return _read_meta(table, esc10)
    read_plain = plain.read_csv if table else plain.read
    sources = read_plain(table or input_path, label_column).sources
    return [_named(source, bool(table)) for source in sources]


def _read_meta(table: str, esc10: bool) -> list[Source]:
    """The sources that esc50.csv names."""
    root = os.path.dirname(os.path.abspath(table))
    root = os.path.dirname(root) if os.path.basename(root) == 'meta' else root
    files, sources = media_by_stem(root), []
    columns = ('filename', 'fold', 'category', *(('esc10',) if esc10 else ()))
    for line, row in read_table(table, columns)[1]:
        name = os.path.splitext(check_name(table, line, 'filename', row['filename']))[0]
        found = _NAME.fullmatch(name)
        if not found:
            raise line_error(table, line, f'filename={row["filename"]} is not {_NAME_IN_WORDS}.')
        if not esc10 or row['esc10'].lower() in ('true', '1'):
            path = files.get(name) or os.path.join(root, 'audio', row['filename'])
            sources.append(make_source(
                name, root, path, row['category'], fold_name(row['fold']), found[2]))
    return sources


def _named(source: Source, has_table: bool) -> Source:
    """A source with fold, recording and class of its file name, where no table says otherwise."""
    found = _NAME.fullmatch(stem(source.data_path))
    if not found:
        if has_table:
            return source
        raise UserError(None, source.path, f'the name is not {_NAME_IN_WORDS}; move it away.')
    fold, group, _, target = found.groups()
    if not has_table:
        if target is None:  # 001 - Dog bark/1-30226-A.ogg
            target = re.sub(r'^\d+ - ', '', source.label)
        elif target.isdigit():
            target = CLASSES[int(target)] if int(target) < len(CLASSES) else target
        source = source._replace(label=target)
    return source._replace(split=source.split or f'fold{fold}', group=group)


DATASET = Dataset(read, audio_only=True, clip_seconds=5.0, folds=5)
