"""Shows what is in record files, checks it and plays it back.

    python -m tfrecords_tools.inspect 'data/world-*' --contact_sheet=sheet.png
    python -m tfrecords_tools.inspect 'data/world-*' --verify
    python -m tfrecords_tools.inspect 'data/world-*' --play=bark/one --output=clip.mp4

The contact sheet shows frames and waveform of a few records on one time axis, so that audio that is
not in sync shows at a glance. `--contact_seconds=1` shows the first second alone, frame by frame.

`--verify` reads every record of every shard and names each that is not what `docs/records.md`
promises, with its shard, its index in it (from 0), its id and the reason; the exit status is 1
where there is one. After a damaged record the next is read; only where the length of a record is
damaged, the rest of that shard is lost.

`--play` writes one record back as a video, so that a person can hear and see that it is in sync.
"""

import collections
import os
import sys
from collections.abc import Iterable

import numpy as np
from absl import flags

from avts_tf import program, progress
from avts_tf.data.shards import total_records
from avts_tf.errors import UserError
from tfrecords_tools.contact_sheet import draw_contact_sheet
from tfrecords_tools.facts import Facts, facts_of, find_shards, read_records
from tfrecords_tools.play import play
from tfrecords_tools.verify import verify


def inspect(
    patterns: list[str], contact_sheet: str | None = None, records: int = 6,
    contact_seconds: float = 0.0,
) -> str:
    """Reads records and says what is in them.

    Args:
        patterns: paths, globs or folders.
        contact_sheet: PNG file to draw, or None.
        records: number of records on the sheet, spread over the set.
        contact_seconds: time shown of each record from its beginning; 0 shows all of it.

    Returns:
        A text of several lines.

    Raises:
        UserError: a file cannot be used or the sheet cannot be written.
    """
    if records < 1:
        raise UserError('records', records, 'must be at least 1.')
    if contact_seconds < 0:
        raise UserError('contact_seconds', contact_seconds, 'must be at least 0.')
    folder = os.path.dirname(contact_sheet or '')
    if folder and not os.path.isdir(folder):
        raise UserError('contact_sheet', contact_sheet, f'there is no folder {folder!r}; make it '
                        'or name another.')
    shards = find_shards(patterns)
    total = total_records(shards)
    # Spread over the set, because neighbours are often of one class.
    places = np.linspace(0, total - 1, min(records, total)).round().astype(int)
    chosen = set(places) if contact_sheet else ()
    facts, picked = [], []
    for i, record in enumerate(read_records(shards)):
        facts.append(facts_of(record))
        if i in chosen:
            picked.append(record)
    if contact_sheet:
        draw_contact_sheet(picked, contact_sheet, contact_seconds)
    return summarize(shards, facts)


def summarize(shards: list[tuple[str, int]], facts: list[Facts]) -> str:
    """What a set of records amounts to.

    Args:
        shards: (path, number of records) of each file.
        facts: those of all records.

    Returns:
        A text of several lines.
    """
    seconds = np.array([f.video_seconds if f.frames else f.audio_seconds for f in facts])
    with_frames = [f for f in facts if f.frames]
    with_audio = [f for f in facts if f.samples]
    lines = [
        ('shards', f'{len(shards)}'),
        ('records', f'{len(facts)}'),
        ('duration', f'{progress.duration(seconds.sum())} in all; '
                     f'shortest {seconds.min():.2f} s, median {np.median(seconds):.2f} s, '
                     f'longest {seconds.max():.2f} s'),
        ('frame rates', _counts(f'{f.frame_rate:.6g} fps' if f.frame_rate else 'not stated'
                                for f in with_frames)),
        ('frame sizes', _counts('x'.join(map(str, f.frame_size)) if f.frame_size else 'no image'
                                for f in with_frames)),
        ('sample rates', _counts(f'{f.sample_rate:.6g} Hz' if f.sample_rate else 'not stated'
                                 for f in with_audio)),
        ('audio', f'{len(with_audio)} with, {len(facts) - len(with_audio)} without'),
        ('video', f'{len(with_frames)} with, {len(facts) - len(with_frames)} without'),
    ]
    if with_frames:
        worst = max(with_frames, key=lambda f: f.grid_error_seconds)
        where = f', in {worst.example_id}' if worst.grid_error_seconds >= 0.00005 else ''
        lines.append(('worst frame time', f'{1000 * worst.grid_error_seconds:.1f} ms off the '
                                          f'grid{where}'))
    timed = [f for f in with_frames if f.samples and f.sample_rate]
    if timed:
        worst = max(timed, key=lambda f: abs(f.audio_seconds - f.video_seconds))
        difference_ms = 1000 * (worst.audio_seconds - worst.video_seconds)
        where = f', in {worst.example_id}' if abs(difference_ms) >= 0.05 else ''
        lines.append(('worst audio - video', f'{difference_ms:.1f} ms{where}'))
    repeated = [name for name, count in collections.Counter(f.example_id for f in facts).items()
                if count > 1]
    if repeated:
        lines.append(('repeated ids', f'{len(repeated)}, such as {repeated[0]!r}'))
    text = ''.join(f'{name + ":":<21}{value}\n' for name, value in lines)
    labels = collections.Counter(label for f in facts for label in f.labels)
    text += f'{"classes:":<21}{len(labels) or "no labels"}\n'
    width = max((len(label) for label in labels), default=0)
    return text + ''.join(f'    {label:<{width}}  {count}\n' for label,
                          count in sorted(labels.items()))


def _counts(values: Iterable[str]):
    """'25 fps (60), 30 fps (4)', most frequent first; a single value without its count."""
    counts = collections.Counter(values).most_common()
    if len(counts) == 1:
        return counts[0][0]
    return ', '.join(f'{value} ({count})' for value, count in counts) or 'none'


def _define_flags():
    # Here and not at import, so that importing this file leaves other programs' flags alone.
    flags.DEFINE_string('contact_sheet', None, 'PNG file to draw: frames and waveform of a few '
                        'records on one time axis.')
    flags.DEFINE_integer('records', 6, 'Number of records on the contact sheet.')
    flags.DEFINE_boolean('verify', False, 'Read every record and name each bad one; the '
                         'exit status is 1 where there is one.')
    flags.DEFINE_string('play', None, 'Id of a record to write back as a video, to --output.')
    flags.DEFINE_string('output', None, 'Video file that --play writes, such as clip.mp4.')
    flags.DEFINE_float('contact_seconds', 0.0, 'Time shown of each record on the contact sheet, '
                       'from its beginning, in seconds; 0 shows all.')


def main(argv: list[str]) -> None:
    """Runs the command line; see `python -m tfrecords_tools.inspect --help`."""
    values, patterns = flags.FLAGS, argv[1:]
    if values.verify:
        count, bad = verify(patterns)
        for path, index, name, reason in bad:
            print(f'{path}, record {index}{f" ({name})" if name else ""}: {reason}')
        print(f'{count} record(s) read, {len(bad)} bad')
        sys.exit(1 if bad else 0)
    if values.play:
        play(patterns, values.play, values.output)
        print(f'{values.play}: {values.output}')
        return
    print(inspect(patterns, values.contact_sheet, values.records, values.contact_seconds), end='')
    if values.contact_sheet:
        print(f'contact sheet: {values.contact_sheet}')


if __name__ == '__main__':
    _define_flags()
    program.run(main)
