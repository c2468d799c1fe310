"""Where a training runs: the devices of one machine, or several machines that `TF_CONFIG` names.

Every machine runs the same command, reads its own share of the records and makes its own part of
each global batch. The first one, the chief, writes the run folder and the messages.
"""

import contextlib
import functools
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from avts_tf.data.shares import Share
from avts_tf.errors import UserError
from avts_tf.processor import instructions

UNSEEN_GPU = ('This machine has a GPU that TensorFlow does not find: it computes on the CPU. What '
              'it needs comes with pip install -r requirements-gpu.txt; CUDA_VISIBLE_DEVICES=-1 '
              'hides the GPU.')
NVIDIA_DRIVER = '/proc/driver/nvidia/version'  # a file that there is where it is loaded

logger = logging.getLogger(__name__)


# A second strategy over the same devices in one process breaks TensorFlow's collective operations.
@functools.cache
def make_strategy(devices: str | int) -> tf.distribute.Strategy:
    """The strategy over some devices of this machine, or over the machines of `TF_CONFIG`.

    Args:
        devices: 'auto' for all GPUs, or the CPU where there is none; or a number, of GPUs or,
            where there is none, of logical CPU devices. With several machines 'auto' only.

    Returns:
        `MirroredStrategy`, or `MultiWorkerMirroredStrategy` for several machines.

    Raises:
        UserError: no such number of devices, `TF_CONFIG` cannot be used, or one of its machines
            has a GPU that TensorFlow does not find.
    """
    gpus = tf.config.list_physical_devices('GPU')
    if not gpus and _has_nvidia_gpu():
        if worker_count() > 1:  # the others may have GPUs, which exchange nothing with a CPU
            raise UserError(None, None, UNSEEN_GPU)
        logger.warning(UNSEEN_GPU)
    if worker_count() > 1:
        if devices != 'auto':
            raise UserError('devices', devices, 'with several machines (TF_CONFIG) each uses all '
                            'its GPUs, or its CPU. Leave it out; CUDA_VISIBLE_DEVICES hides GPUs.')
        # Left to itself it takes TensorFlow's own exchange, by way of the host, also for GPUs.
        kinds = tf.distribute.experimental.CommunicationImplementation
        return tf.distribute.MultiWorkerMirroredStrategy(
            communication_options=tf.distribute.experimental.CommunicationOptions(
                implementation=kinds.NCCL if gpus else kinds.AUTO))
    if devices == 'auto':
        names = [f'GPU:{i}' for i in range(len(gpus))] or ['CPU:0']
        return tf.distribute.MirroredStrategy(names)
    if not str(devices).isdigit() or int(devices) < 1:
        raise UserError('devices', devices, 'use "auto" or a number of devices from 1.')
    count = int(devices)
    if gpus:
        if count > len(gpus):
            raise UserError('devices', devices, f'this machine has {len(gpus)} GPU(s).')
        return tf.distribute.MirroredStrategy([f'GPU:{i}' for i in range(count)])
    cpu = tf.config.list_physical_devices('CPU')[0]
    if count > 1:
        try:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * count)
        except RuntimeError:  # TensorFlow has started, perhaps with enough devices
            if len(tf.config.list_logical_devices('CPU')) < count:
                raise UserError('devices', devices, 'TensorFlow has started with fewer CPU '
                                'devices; start a new process.') from None
    return tf.distribute.MirroredStrategy([f'CPU:{i}' for i in range(count)])


def _has_nvidia_gpu() -> bool:
    """Whether this machine has a driver for NVIDIA GPUs, and nobody hides them."""
    hidden = os.environ.get('CUDA_VISIBLE_DEVICES', 'all').strip() in ('', '-1')
    return os.path.exists(NVIDIA_DRIVER) and not hidden


def computes_bfloat16(cpu_info: str = '/proc/cpuinfo') -> bool:
    """Whether the processor has instructions for bfloat16; True where that cannot be known.

    Args:
        cpu_info: file in which Linux describes the processors.
    """
    if tf.config.list_physical_devices('GPU'):
        return True
    known = instructions(cpu_info)
    return not known or not known.isdisjoint({'avx512_bf16', 'amx_bf16', 'bf16'})  # two x86, ARM


def _task() -> tuple[int, int]:
    """(number of workers, index of this one) by `TF_CONFIG`; (1, 0) without it."""
    text = os.environ.get('TF_CONFIG')
    if not text:
        return 1, 0
    try:
        config = json.loads(text)
        cluster, task = config.get('cluster', {}), config.get('task', {})
        if not set(cluster) <= {'worker'} or task.get('type', 'worker') != 'worker':
            raise ValueError('use tasks of type "worker" only; the first of them is the chief')
        count, index = max(1, len(cluster.get('worker', []))), int(task.get('index', 0))
        if not 0 <= index < count:
            raise ValueError(f'there is no worker {index} among {count}')
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            None, f'TF_CONFIG={text}', f'cannot be used: {error}. It looks like {{"cluster": '
            '{"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}.'
        ) from None
    return count, index


def worker_count() -> int:
    """The number of machines that train together."""
    return _task()[0]


def refuse_several_machines(name: str, value: object, problem: str) -> None:
    """Raises a `UserError` about a parameter where `TF_CONFIG` names several machines."""
    if worker_count() > 1:
        raise UserError(name, value, problem)


def machine_share() -> Share:
    """The share of the training records that this machine reads."""
    workers, index = _task()
    return Share(index, workers)


def is_chief() -> bool:
    """Whether this machine is the one that writes."""
    return _task()[1] == 0


@contextlib.contextmanager
def logging_of_chief_only() -> Iterator[None]:
    """Within it the other machines log errors only."""
    package = logging.getLogger('avts_tf')
    level = package.level
    if not is_chief():
        package.setLevel(logging.ERROR)
    try:
        yield
    finally:
        package.setLevel(level)


@tf.autograph.experimental.do_not_convert
def own_batches(dataset: tf.data.Dataset, strategy: tf.distribute.Strategy) -> Iterable[dict]:
    """Batches of this machine divided among its replicas, for `strategy.run`.

    Args:
        dataset: `tf.data.Dataset` of dicts of tensors [B, ...], this machine's part of each global
            batch.
        strategy: result of `make_strategy`; B must be a multiple of this machine's replicas.

    Returns:
        An iterable of per-replica dicts of tensors [B / replicas, ...], which TensorFlow copies to
        the devices ahead of the steps. int32 has become int64. It ends where no machine has a
        batch; until then one that has none gets tensors without rows.
    """
    local = strategy.num_replicas_in_sync // worker_count()

    def pieces(batch: dict) -> tf.data.Dataset:
        # A shape that is known spares the strategy to ask all replicas whether they have a batch.
        return tf.data.Dataset.from_tensor_slices(
            {name: tf.reshape(value, [local, (value.shape[0] or -local) // local,
                                      *value.shape[1:]])
             for name, value in batch.items()})

    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    dataset = dataset.map(_without_int32)
    if local > 1:
        dataset = dataset.flat_map(pieces)
    dataset = dataset.with_options(options)
    return strategy.distribute_datasets_from_function(lambda _: dataset)


def _without_int32(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """A batch with int64 for int32.

    TensorFlow takes the int32 arguments of a function from the host's memory: one that lies on a
    GPU is copied back at each call, for which the host waits.
    """
    return {name: tf.cast(value, tf.int64) if value.dtype == tf.int32 else value
            for name, value in batch.items()}


def local_parts(value: Any) -> Sequence[tf.Tensor | tf.Variable]:
    """The parts of a value or variable of several replicas on this machine; else it alone."""
    return value.values if hasattr(value, 'values') else [value]


Gather = Callable[[Sequence[int]], list[Sequence[int]]]


def make_gather(strategy: tf.distribute.Strategy) -> Gather:
    """A function that gathers some numbers from all machines.

    Args:
        strategy: result of `make_strategy`.

    Returns:
        Function from a list of integers to a list of such lists, one per machine. All machines
        must call it equally often, each time with equally many numbers. With several machines it
        waits for the devices, whose network it uses; with one it gives back what it is given.
    """
    workers = worker_count()
    if workers == 1:
        return lambda numbers: [numbers]
    local = strategy.num_replicas_in_sync // workers

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)], autograph=False)
    def gather(numbers: tf.Tensor) -> tf.Tensor:
        def of_replica(numbers: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            return context.all_gather(tf.identity(numbers)[None], axis=0)
        return strategy.experimental_local_results(strategy.run(of_replica, args=(numbers,)))[0]

    return lambda numbers: gather(tf.constant(numbers, tf.int64)).numpy()[::local].tolist()


def gather_texts(gather: Gather, text: str) -> list[str]:
    """The texts of all machines, of which each gives its own; `gather` is that of `make_gather`."""
    content = text.encode()
    lengths = [length for length, in gather([len(content)])]
    padded = np.frombuffer(content.ljust(max(lengths)), np.uint8)
    return [bytes(row[:length]).decode()
            for row, length in zip(gather(padded.tolist()), lengths, strict=True)]
