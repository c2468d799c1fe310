"""Writes the same records as an Apache Beam pipeline, for collections that one machine is too small for.

    pip install -r requirements-beam.txt
    python -m tfrecords_tools.beam --input=kinetics/ --dataset=kinetics --split=train --output=data/train \\
        --runner=DirectRunner --direct_num_workers=2 --direct_running_mode=multi_processing

It takes the flags of `tfrecords_tools.write`, but for --workers, and those of Beam and its runners. It gives the same shards,
report and summary, byte for byte, and goes on in the same way when it is started again: shards that are finished stay. Input and
output lie in folders that all machines see under the same names, such as NFS or a bucket that is mounted. A shard passes through
the memory of one machine: for long videos or large frames take more --shards.

    sources, a few at a time → decoded, encoded → grouped by shard → sorted, written

Decoding still runs in a process of its own beside each of Beam's, because a file that kills the decoder would else kill
the runner's worker, and the runner would try the same file there again.
"""

import contextlib
import logging
import sys

from absl import flags

from avts_tf import program
from avts_tf.data import media, workers
from avts_tf.errors import UserError
from tfrecords_tools import write

SOURCES_PER_TASK = 16  # for one start of a decoding process; few, so that all machines have work until the end


def write_records(input_path, output_prefix, *, beam_options=(), overwrite=False, **options):
    """Writes the sources of an input as records; as `write.write_records`, but for `num_workers`.

    Args:
        input_path: folder, glob, CSV or file.
        output_prefix: folder and beginning of the shards' names.
        beam_options: list of Beam's own flags, such as '--runner=FlinkRunner'.
        overwrite: whether to make a set anew that is there already.
        **options: see `write.write_records`.

    Returns:
        dict, what `NAME.json` holds.

    Raises:
        UserError: as there, or a flag is neither ours nor Beam's.
    """
    import apache_beam as beam  # takes seconds, as TensorFlow does
    from apache_beam.options.pipeline_options import PipelineOptions
    pipeline_options = PipelineOptions(list(beam_options))
    known = pipeline_options.get_all_options(drop_default=True)
    unknown = sorted(set(pipeline_options.get_all_options(drop_default=True, retain_unknown_options=True)) - set(known))
    if unknown:
        raise UserError(f'--{unknown[0]}: neither a flag of this program nor of Beam.')
    plan = write.make_plan(input_path, output_prefix, **options)
    with write.output(plan, overwrite) as (summary, shards):
        if summary:
            return summary
        pipeline = beam.Pipeline(options=pipeline_options)
        _ = (
            pipeline
            | 'tasks' >> beam.Create(list(_tasks(plan, shards)))
            | 'spread' >> beam.Reshuffle()
            | 'make records' >> beam.FlatMap(_make_records, plan.recipe)
            | 'by shard' >> beam.GroupByKey()
            | 'write shards' >> beam.Map(_write_shard, plan.aside)
        )
        reason = 'nothing'
        try:
            pipeline.run().wait_until_finish()
        except RuntimeError as error:  # Beam wraps whatever went wrong on a worker, with its stack
            reason = str(error).strip().splitlines()[-1]
        finished = write.finished_shards(plan)
        if finished < len(plan.shards):
            raise UserError(
                f'--output={output_prefix}: the pipeline failed with {finished} of {len(plan.shards)} shard(s) finished; the same '
                f'command goes on behind them. The last that it said: {reason}'
            )
        return write.place(plan)


def _tasks(plan, shards):
    """(name of a shard, list of (place in it, index of the source, source, task)) of a few neighbours at a time."""
    for shard in shards:
        indices = plan.shards[shard]
        pieces = [
            (place, index, plan.sources[index], task)
            for place, (index, task) in enumerate(zip(indices, plan.tasks(indices), strict=True))
        ]
        for start in range(0, len(pieces), SOURCES_PER_TASK):
            yield plan.shard_name(shard), pieces[start:start + SOURCES_PER_TASK]


def _make_records(element, recipe):
    """(name of the shard, (place in it, index of the source, serialised record or None, dict for the report)) of each source."""
    shard, pieces = element
    with contextlib.closing(
        workers.run_in_order(media.try_media, [task for *_, task in pieces], 1, recipe.timeout_seconds)
    ) as outcomes:
        for (place, index, source, _), outcome in zip(pieces, outcomes, strict=True):
            yield shard, (place, index, *write.make_record(recipe, source, outcome))


def _write_shard(element, folder):
    shard, pieces = element
    write.write_shard(folder, shard, [piece[1:] for piece in sorted(pieces, key=lambda piece: piece[0])])


def main(argv):
    """Runs the command line; see `python -m tfrecords_tools.beam --help`."""
    logging.getLogger().setLevel(logging.ERROR)  # the root: some of Beam's warnings are given there
    write.run_command(lambda *args, **options: write_records(*args, beam_options=argv[1:], **options))


if __name__ == '__main__':
    # Beam sends functions by the name of their module, and there is no __main__ of this file where they arrive.
    from tfrecords_tools import beam as this

    write.define_flags()
    flags.adopt_module_key_flags(write)
    program.run(this.main, known_only=True)
    sys.exit()
