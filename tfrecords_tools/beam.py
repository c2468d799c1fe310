"""Writes the same records as an Apache Beam pipeline, for collections too large for one machine.

    pip install -r requirements-beam.txt
    python -m tfrecords_tools.beam --input=kinetics/ --dataset=kinetics --split=train \\
        --output=data/train --runner=DirectRunner --direct_num_workers=2 \\
        --direct_running_mode=multi_processing

It takes the flags of `tfrecords_tools.write`, but for --workers, and those of Beam and its runners.
It gives the same shards, report and summary, byte for byte, and resumes in the same way when it is
started again: shards that are finished stay. Input and output lie in folders that all machines see
under the same names, such as NFS or a bucket that is mounted. A shard passes through the memory of
one machine: for long videos or large frames take more --shards.

    sources, a few at a time → decoded, encoded → grouped by shard → sorted, written

Decoding still runs in a process of its own beside each of Beam's, because a file that kills the
decoder would else kill the runner's worker, and the runner would try the same file there again.
"""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from avts_tf import files, program
from avts_tf.data import media, workers
from avts_tf.errors import UserError
from tfrecords_tools import shard_writer, write
from tfrecords_tools.output import count_finished, hold_output, place
from tfrecords_tools.plan import Plan, Recipe, make_plan

# For one start of a decoding process; few, so that all machines have work until the end.
SOURCES_PER_TASK = 16


def write_records(
    input: str, output: str, *, beam_options: Sequence[str] = (), overwrite: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Writes the sources of an input as records, as `write.write_records` does.

    Args:
        input: folder, glob, CSV or file.
        output: folder and beginning of the shards' names.
        beam_options: Beam's own flags, such as '--runner=FlinkRunner'.
        overwrite: whether to make a set anew that is there already.
        **options: see `write.write_records`.

    Returns:
        What `NAME.json` holds.

    Raises:
        UserError: as there, or a flag is neither ours nor Beam's, or the pipeline failed.
    """
    import apache_beam as beam  # takes seconds, as TensorFlow does
    from apache_beam.options.pipeline_options import PipelineOptions
    pipeline_options = PipelineOptions(list(beam_options))
    known = pipeline_options.get_all_options(drop_default=True)
    given = pipeline_options.get_all_options(drop_default=True, retain_unknown_options=True)
    if unknown := sorted(set(given) - set(known)):
        raise UserError(unknown[0], given[unknown[0]],
                        'neither a flag of this program nor of Beam.')
    plan = make_plan(input, output, **options)
    with hold_output(plan, overwrite) as (summary, missing):
        if summary:
            return summary
        pipeline = beam.Pipeline(options=pipeline_options)
        _ = (
            pipeline
            | 'tasks' >> beam.Create(list(_tasks(plan, missing)))
            | 'spread' >> beam.Reshuffle()
            | 'make records' >> beam.FlatMap(_make_records, plan.recipe)
            | 'by shard' >> beam.GroupByKey()
            | 'write shards' >> beam.Map(_write_shard, plan.work_folder)
        )
        reason = 'nothing'
        try:
            pipeline.run().wait_until_finish()
        except RuntimeError as error:  # Beam wraps whatever went wrong on a worker, with its stack
            reason = str(error).strip().splitlines()[-1]
        finished = count_finished(plan)
        if finished < len(plan.shards):
            raise UserError(
                'output', output, f'the pipeline failed with {finished} of {len(plan.shards)} '
                'shard(s) finished; the same command resumes after them. Its last message: '
                f'{reason}'
            )
        return place(plan)


def _tasks(plan: Plan, missing: list[int]):
    """For a few sources of one shard at a time: its name, and their places, indices and tasks."""
    for shard in missing:
        indices = plan.shards[shard]
        pieces = [
            (place, index, plan.sources[index], task)
            for place, (index, task) in enumerate(zip(indices, plan.tasks(indices), strict=True))
        ]
        for start in range(0, len(pieces), SOURCES_PER_TASK):
            yield plan.shard_name(shard), pieces[start:start + SOURCES_PER_TASK]


def _make_records(element: tuple, recipe: Recipe) -> Iterator[tuple[str, tuple]]:
    """Yields per source (name of the shard, (place in it, index, record or None, its line))."""
    shard, pieces = element
    tasks = [task for *_, task in pieces]
    with contextlib.closing(
        workers.run_in_order(media.try_media, tasks, 1, recipe.timeout_seconds)
    ) as outcomes:
        for (place, index, source, _), outcome in zip(pieces, outcomes, strict=True):
            yield shard, (place, index, *shard_writer.make_record(recipe, source, outcome))


def _write_shard(element: tuple, folder: str):
    name, pieces = element
    pieces = [piece[1:] for piece in sorted(pieces, key=lambda piece: piece[0])]
    # A runner may start a shard again while its first attempt still runs: to each its own folder.
    with tempfile.TemporaryDirectory(dir=folder, suffix=files.ASIDE) as own:
        shard_writer.write_shard(own, name, pieces)
        for file in (name, name + shard_writer.LINES):
            os.replace(os.path.join(own, file), os.path.join(folder, file))


def main(argv: list[str]) -> None:
    """Runs the command line; see `python -m tfrecords_tools.beam --help`."""
    logging.getLogger().setLevel(logging.ERROR)  # the root: some of Beam's warnings are given there
    write.run_command(lambda *args, **options: write_records(*args, beam_options=argv[1:],
                                                             **options))


if __name__ == '__main__':
    # Beam sends functions by the name of their module, and there is no __main__ of this file where
    # they arrive.
    from tfrecords_tools import beam as this

    write.define_flags()
    flags.adopt_module_key_flags(write)
    program.run(this.main, known_only=True)
    sys.exit()
