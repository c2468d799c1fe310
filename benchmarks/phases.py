"""Where the time of a training goes on one machine, phase by phase.

The input is counted in the graph of the process that does the work: while a pipeline is built, the
operations that parse a record and decode a frame get a counter and a clock. These times are those
of threads. Where there are more threads than processors they hold the wait for a processor too;
`core_ms`, the processor time of the whole process, does not. TensorFlow's profiler would tell more,
but now and then it ends the process where a pipeline's threads go on while it stops.

The step is timed with the other machines and alone, on the same part of a batch that lies in
memory. What it takes longer together is exchange: gradients, the statistics of batch norm, and
waiting for the slowest. The gradient's sum over the machines is timed on its own beside it.
"""

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import cases
import side_by_side

COUNTED_CLIPS = 256  # batches that are made ahead come and go: few clips would be counted wrongly
READ_RECORDS = 32
WARM_UP_STEPS = 3


@contextlib.contextmanager
def counting() -> Iterator[dict[str, Any]]:
    """Pipelines that are built within it count and time what they parse and decode.

    Yields:
        Of `parsing` and `decoding`, a float64 variable [2]: how often, and seconds in all.
    """
    import tensorflow as tf
    with tf.device('CPU:0'):
        totals = {name: tf.Variable(tf.zeros([2], tf.float64), trainable=False)
                  for name in ('parsing', 'decoding')}

    def counted(function: Callable[..., Any], total: tf.Variable) -> Callable[..., Any]:
        def call(first: tf.Tensor, *others: Any, **options: Any) -> Any:
            with tf.control_dependencies([first]):
                before = tf.timestamp()
            with tf.control_dependencies([before]):
                result = function(tf.identity(first), *others, **options)
            with tf.control_dependencies(tf.nest.flatten(result, expand_composites=True)):
                seconds = tf.timestamp() - before
            with tf.control_dependencies([total.assign_add(tf.stack([1.0, seconds]))]):
                return tf.nest.map_structure(tf.identity, result, expand_composites=True)
        return call

    with contextlib.ExitStack() as stack:
        for name, phase in (('parse_single_sequence_example', 'parsing'),
                            ('decode_and_crop_jpeg', 'decoding')):
            stack.enter_context(mock.patch.object(
                tf.io, name, counted(getattr(tf.io, name), totals[phase])))
        yield totals


def input_phases(
    take: Callable[[], Any], totals: dict[str, Any], clips: int, pattern: str
) -> dict[str, float]:
    """What the input pipeline does for a clip that this machine trains on.

    Args:
        take: takes the next batch.
        totals: of `counting`, in which the pipeline was built.
        clips: of a batch that are this machine's.
        pattern: glob of the records.

    Returns:
        `core_ms`, processor time of the process; `bytes_read`; `records_parsed` and
        `frames_decoded`; and times of threads: `parsing_ms`, `decoding_ms`, and `reading_ms`, in
        which one thread reads as many records. All of them are by clip.
    """
    steps = max(4, COUNTED_CLIPS // clips)
    done = clips * steps
    for _ in range(steps):  # some were made ahead
        take()
    before = {name: total.numpy() for name, total in totals.items()}
    cores, read = time.process_time(), side_by_side.bytes_read()
    for _ in range(steps):
        take()
    cores, read = time.process_time() - cores, side_by_side.bytes_read() - read
    (records, parsing), (frames, decoding) = (
        (totals[name].numpy() - before[name]) / done for name in ('parsing', 'decoding'))
    return {'core_ms': 1000 * cores / done, 'bytes_read': read / done, 'records_parsed': records,
            'frames_decoded': frames, 'parsing_ms': 1000 * parsing, 'decoding_ms': 1000 * decoding,
            'reading_ms': 1000 * records * _seconds_to_read(pattern)}


def _seconds_to_read(pattern: str):
    """Seconds in which one thread reads a record and checks it."""
    import tensorflow as tf

    from avts_tf.data.shards import find_shards
    records = iter(tf.data.TFRecordDataset([path for path, _ in find_shards(pattern)]).repeat())
    next(records)
    started = time.perf_counter()
    for _ in itertools.islice(records, READ_RECORDS):
        pass
    return (time.perf_counter() - started) / READ_RECORDS


def machine_phases(config: object, pattern: str, steps: int) -> dict[str, float]:
    """Trains some steps on this machine, with the others of `TF_CONFIG`; see the module.

    Args:
        config: `Config`, whose batch is that of all machines together.
        pattern: glob of records.
        steps: that are timed in each way.

    Returns:
        What `input_phases` returns; `step_ms` of a step on records, of which `wait_ms` for its
        batch; `compute_ms` of a step alone, `exchange_ms`, `all_reduce_ms`; `gradient_bytes`.
    """
    import tensorflow as tf

    from avts_tf.training.devices import make_strategy, worker_count
    strategy = make_strategy('auto')
    with strategy.scope():
        model = cases.make_model(config)
    step = cases.make_step(model, strategy)
    with counting() as totals:
        batches = cases.make_batches(pattern, config, strategy)
    for _ in range(WARM_UP_STEPS):
        step(next(batches)).numpy()
    waited, started = 0.0, time.perf_counter()
    for _ in range(steps):
        before = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - before
        step(batch).numpy()
    figures = {'step_ms': 1000 * (time.perf_counter() - started) / steps,
               'wait_ms': 1000 * waited / steps}
    same = next(cases.in_memory(batches))
    sides = {'together': lambda: step(same).numpy()}
    if strategy.num_replicas_in_sync > 1:
        own = {name: strategy.experimental_local_results(value)[0]
               for name, value in same.items()}
        nobody = tf.distribute.get_strategy()  # that of one device
        alone = cases.make_step(cases.make_model(config), nobody)
        reduce = _reduction(model, strategy)
        sides |= {'alone': lambda: alone(own).numpy(), 'all_reduce': lambda: reduce().numpy()}
    for work in sides.values():
        work()
    medians = {name: 1000 * statistics.median(values)
               for name, values in side_by_side.time_in_turns(sides, steps).items()}
    compute = medians.get('alone', medians['together'])
    figures |= {'compute_ms': compute, 'exchange_ms': medians['together'] - compute,
                'all_reduce_ms': medians.get('all_reduce', 0.0),
                'gradient_bytes': 4.0 * sum(variable.numpy().size
                                            for variable in model.trainable_variables)}
    clips = config.train.batch_size // worker_count()
    return figures | input_phases(lambda: next(batches), totals, clips, pattern)


def _reduction(model: object, strategy: object):
    """A function that sums something as large as the gradient over all devices."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def reduce() -> tf.Tensor:
        def of_replica() -> tf.Tensor:
            values = [tf.identity(variable) for variable in model.trainable_variables]
            sums = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM,
                                                                  values)
            return tf.add_n([tf.reduce_sum(value) for value in sums])
        return strategy.experimental_local_results(strategy.run(of_replica))[0]

    return reduce
