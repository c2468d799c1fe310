"""Where the time of a training goes on one machine, phase by phase.

The input is counted by TensorFlow's profiler, in the process that does the work: the operations
that parse a record and decode a frame are counted as they run, and timed. These times are those of
threads. Where there are more threads than processors they hold the wait for a processor too;
`core_ms`, the processor time of the whole process, does not.

The step is timed with the other machines and alone, on the same part of a batch that lies in
memory. What it takes longer together is exchange: gradients, the statistics of batch norm, and
waiting for the slowest. The gradient's sum over the machines is timed on its own beside it.
"""

import collections
import glob
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import cases
import side_by_side

# From the last part of an event's name to the phase that it belongs to.
EVENTS = {'TFRecord': 'reading', 'ParseSequenceExampleV2': 'parsing',
          'DecodeAndCropJpeg': 'decoding', 'DecodeJpeg': 'decoding', 'ResizeBilinear': 'resizing'}
COUNTED_CLIPS = 128  # batches that are made ahead come and go: few clips would be counted wrongly
WARM_UP_STEPS = 3
HOST_TRACER_LEVEL = 2  # operations and iterators, without what is cheap


def input_phases(take: Callable[[], Any], clips: int) -> dict[str, float]:
    """What the input pipeline does for a clip that this machine trains on.

    Args:
        take: takes the next batch.
        clips: of a batch that are this machine's.

    Returns:
        `core_ms`, processor time of the process; `bytes_read`; `records_parsed` and
        `frames_decoded`; and `reading_ms`, `parsing_ms`, `decoding_ms` and `resizing_ms`, times of
        threads. All of them are by clip.
    """
    steps = max(4, COUNTED_CLIPS // clips)
    done = clips * steps
    for _ in range(steps):  # some were made ahead
        take()
    cores, read = time.process_time(), _bytes_read()
    for _ in range(steps):
        take()
    figures = {'core_ms': 1000 * (time.process_time() - cores) / done,
               'bytes_read': (_bytes_read() - read) / done}
    counts, seconds = _profile(take, steps)
    figures |= {'records_parsed': counts['parsing'] / done,
                'frames_decoded': counts['decoding'] / done}
    phases = dict.fromkeys(EVENTS.values())
    return figures | {f'{phase}_ms': 1000 * seconds[phase] / done for phase in phases}


def _bytes_read():
    """Bytes that this process has read from files."""
    with open('/proc/self/io') as file:
        return int(file.read().split()[1])


def _profile(take: Callable[[], Any], steps: int):
    """Number and seconds of the events of each phase."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2
    options = tf.profiler.experimental.ProfilerOptions(
        host_tracer_level=HOST_TRACER_LEVEL, python_tracer_level=0, device_tracer_level=0)
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder, options)
        for _ in range(steps):
            take()
        tf.profiler.experimental.stop()
        paths = glob.glob(os.path.join(folder, '**', '*.xplane.pb'), recursive=True)
        space = xplane_pb2.XSpace()
        for path in paths:
            with open(path, 'rb') as file:
                space.MergeFromString(file.read())
    counts: collections.Counter = collections.Counter()
    seconds: collections.Counter = collections.Counter()
    for plane in space.planes:
        # `Iterator::...[0]::TFRecord#arguments#`, `name/of/a/node:Operation`
        phases = {key: EVENTS.get(event.name.split('#')[0].split(':')[-1])
                  for key, event in plane.event_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                if phase := phases[event.metadata_id]:
                    counts[phase] += 1
                    seconds[phase] += event.duration_ps / 1e12
    return counts, seconds


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
    return figures | input_phases(lambda: next(batches), clips)


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
