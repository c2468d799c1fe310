"""Writes videos as records: a folder, a glob, a CSV or a published collection becomes shards.

    python -m tfrecords_tools.write --input=videos/ --output=data/train
    python -m tfrecords_tools.write --input=kinetics/ --dataset=kinetics --split=train \\
        --output=data/train

`--input` is a folder (those directly below it are labels of their files), a glob in quotes, a CSV
with a line per file, or one file. `--dataset` reads a published collection, whose layout and parts
`avts_tf/data/datasets/` describes; `--split` takes one of its parts, or several with commas. Where
a collection has none, `--hold_out=0.1 --part=train` and the same with `--part=held` give two sides
that never share a video. `--audio_only` writes records without frames; collections of sounds imply
it.

Every record is aligned as it is written, by presentation times: frame i shows time i / fps, sample
n sounds at n / sample_rate, from the same time 0, and both cover the same duration.

Beside the shards `NAME-00000-of-00004` there are then

    NAME.json          counts, settings, durations
    NAME.report.csv    every source with its result, in the order of the input: path, start_seconds,
                       end_seconds (where it is cut out), status (written, skipped), reason, detail,
                       seconds, frames, source_fps, volume_db, motion; text that begins with = + -
                       or @ has a ' before it, so that no spreadsheet calculates it
    NAME.labels.txt    the class names of the whole collection, one a line, by index from 0

Files that cannot be used are left out and reported; a file that kills or hangs the decoder costs
itself only. The same input gives the same bytes, whatever the number of workers.

All is written in the folder `NAME.writing` and moved into place when it is whole. Whatever ends the
writer before that (Ctrl-C, SIGKILL, a full disk), the same command resumes after the last finished
shard and gives the same bytes as if nothing had happened. Another command or a changed input on the
same output is refused, and so is a second writer beside the first. Where the set is there already,
nothing is done; `--overwrite` makes it anew, and drops unfinished work of another command.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from absl import flags

from avts_tf import program, progress
from avts_tf.data import datasets, media
from avts_tf.data.workers import FILE_TIMEOUT_SECONDS, run_in_order
from avts_tf.errors import UserError
from avts_tf.signals import stop_on_signals
from tfrecords_tools.output import hold_output, place
from tfrecords_tools.plan import DEFAULTS, RECORDS_PER_SHARD, Plan, make_plan
from tfrecords_tools.shard_writer import make_record, write_shard

OPTIONS = (
    'overwrite', 'dataset', 'split', 'hold_out', 'part', 'fps', 'short_side', 'sample_rate',
    'shards', 'max_seconds', 'max_pixels', 'jpeg_quality', 'audio_encoding',
    'file_timeout_seconds', 'dataset_name', 'label_column', 'audio_only', 'silent_below_db',
    'still_below',
)


def write_records(
    input: str, output: str, *, workers: int = 0, overwrite: bool = False, **options: Any
) -> dict[str, Any]:
    """Writes the sources of an input as records; see the head of this file.

    Where no record could be made, only the report is written.

    Args:
        input: folder, glob, CSV or file; see `avts_tf/data/datasets/`.
        output: folder and beginning of the shards' names, such as 'data/train'; the folder is made.
        workers: decoding processes; 0 takes one per processor.
        overwrite: whether to make a set anew that is there already, and to drop unfinished work of
            other options.
        **options: all that changes what is written:
            dataset: layout of the collection, a key of `datasets.DATASETS`.
            split: name(s) of published parts; '' is everything.
            hold_out, part: see `datasets.hold_out`; 0 and '' take everything.
            fps: frames per second of the records.
            short_side: pixels of the shorter side of a frame; 0 keeps the size, and nothing is
                enlarged.
            sample_rate: Hz.
            shards: number of files; 0 makes one for about every 256 sources.
            max_seconds: a source that lasts longer is left out; 0 is no limit.
            max_pixels: a source whose frames have more is left out.
            jpeg_quality: 1 to 100.
            audio_encoding: 'pcm16', or 'float' for readers of DMVR records.
            file_timeout_seconds: longest time for decoding one source.
            dataset_name: written into each record; '' takes the name of the dataset or the input.
            label_column: column of a CSV that holds the label.
            audio_only: whether to write records without frames.
            silent_below_db: mean volume below which a source is left out as silent, in dBFS; -120
                keeps all.
            still_below: mean motion below which a source is left out as still, in grey levels of
                255; 0 keeps all.

    Returns:
        What `NAME.json` holds: 'records', 'skipped' (reason → count), 'duration_seconds' and so on.

    Raises:
        UserError: a value is not allowed, there is no input, the output is of another command or in
            use, or cannot be written.

    Example:
        >>> summary = write_records('videos/', '/tmp/data/train', short_side=128)
        >>> summary['records'], summary['skipped']
    """
    if not 0 <= workers <= 1024:
        raise UserError('workers', workers, 'must lie between 0 and 1024.')
    plan = make_plan(input, output, **options)
    with hold_output(plan, overwrite) as (summary, shards):
        return summary or _write(plan, shards, workers or os.cpu_count() or 1)


def _write(plan: Plan, shards: list[int], num_workers: int):
    order = [index for shard in shards for index in plan.shards[shard]]
    outcomes = run_in_order(media.try_media, list(plan.tasks(order)), num_workers,
                            plan.recipe.timeout_seconds)
    bar = progress.bar(title='records', total=len(plan.sources), unit='file',
                       initial=len(plan.sources) - len(order))

    def pieces(indices: list[int]) -> Iterator[tuple]:
        for index in indices:
            yield index, *make_record(plan.recipe, plan.sources[index], next(outcomes))
            bar.update()

    with contextlib.closing(outcomes), bar:
        for shard in shards:
            write_shard(plan.work_folder, plan.shard_name(shard), pieces(plan.shards[shard]))
    return place(plan)


def define_flags() -> None:
    """Defines the flags; not at import, so that other programs' flags are left alone."""
    flags.DEFINE_string('input', None, 'Folder, glob in quotes, CSV with a column video_path, '
                        'audio_path or path, or one file.')
    flags.DEFINE_string('output', None, 'Folder and beginning of the name of what is written, such '
                        'as data/train.')
    flags.DEFINE_enum('dataset', '', list(datasets.DATASETS), 'Layout of a published collection; '
                      'empty for your own files.')
    flags.DEFINE_string('split', '', 'Published part of the collection, such as train, test1 or '
                        'fold3; several with commas.')
    flags.DEFINE_float('hold_out', 0.0, 'About this part of the videos is held out, 0 to 1; needs '
                       '--part.')
    flags.DEFINE_enum('part', '', ['', *datasets.SIDES], 'Side of --hold_out to write.')
    flags.DEFINE_float('fps', DEFAULTS.fps, 'Frames per second of the records.')
    flags.DEFINE_integer('short_side', DEFAULTS.short_side, 'Shorter side of a frame, in pixels; 0 '
                         'keeps the size, and nothing is enlarged.')
    flags.DEFINE_integer('sample_rate', DEFAULTS.sample_rate,
                         'Audio sample rate of the records, in Hz.')
    flags.DEFINE_integer('shards', 0, 'Number of record files; 0 makes one for about every '
                         f'{RECORDS_PER_SHARD} sources.')
    flags.DEFINE_float('max_seconds', DEFAULTS.max_seconds, 'Files that last longer are left out, '
                       'in seconds; 0 is no limit.')
    flags.DEFINE_integer('max_pixels', DEFAULTS.max_pixels, 'Files with more pixels in a frame are '
                         'left out.')
    flags.DEFINE_integer('jpeg_quality', DEFAULTS.jpeg_quality,
                         'JPEG quality of the frames, 1 to 100.')
    flags.DEFINE_string('audio_encoding', 'pcm16', 'pcm16, or float for readers of DMVR records.')
    flags.DEFINE_float('file_timeout_seconds', FILE_TIMEOUT_SECONDS, 'Longest time for decoding '
                       'one file, in seconds; a file that takes longer is left out.')
    flags.DEFINE_string('dataset_name', '', 'Name written into each record; empty takes that of '
                        '--dataset or of the input.')
    flags.DEFINE_string('label_column', '', 'Column of the CSV that holds the label; empty takes '
                        'the first one without another meaning.')
    flags.DEFINE_bool('audio_only', False, 'Write records without frames; collections of sounds '
                      'imply it.')
    flags.DEFINE_float('silent_below_db', DEFAULTS.silent_below_db, 'Files with a lower mean '
                       'volume are left out as silent, in dBFS; -120 keeps all.')
    flags.DEFINE_float('still_below', DEFAULTS.still_below, 'Files with less mean motion between '
                       'frames are left out as still, in grey levels of 255; 0 keeps all.')
    flags.DEFINE_bool('overwrite', False, 'Make a set anew that is there already, and drop '
                      'unfinished work of another command.')
    flags.mark_flags_as_required(['input', 'output'])


def run_command(write: Callable[..., dict[str, Any]]) -> None:
    """Runs a writer with the values of `define_flags`, and prints what it has written.

    The exit status is 1 where no record could be made.

    Args:
        write: function of input, output and the options of `write_records`, to its result.
    """
    values = flags.FLAGS
    with stop_on_signals('The same command resumes the work: finished shards stay in '
                         f'{values.output}.writing.'):
        summary = write(values.input, values.output,
                        **{name: getattr(values, name) for name in OPTIONS})
    skipped = ', '.join(f'{count} {reason}' for reason, count in summary['skipped'].items())
    print(f'{summary["records"]} written, {sum(summary["skipped"].values())} skipped'
          f'{f" ({skipped})" if skipped else ""}')
    if not summary['records']:
        print(f'no record could be made of {values.input}; {values.output}.report.csv says why.',
              file=sys.stderr)
        sys.exit(1)
    print(f'{summary["duration_seconds"]:.1f} s in {summary["shards"]} shard(s) {values.output}-*; '
          f'every file: {values.output}.report.csv')


def main(argv: list[str]) -> None:
    """Runs the command line; see `python -m tfrecords_tools.write --help`."""
    if len(argv) > 1:
        raise UserError(None, argv[1], 'is no flag; flags look like --name=value.')
    run_command(lambda *args, **options: write_records(*args, workers=flags.FLAGS.workers,
                                                       **options))


if __name__ == '__main__':
    define_flags()
    flags.DEFINE_integer('workers', 0, 'Decoding processes; 0 takes one per processor.')
    program.run(main)
