"""The training step on one device and on more: clips per second, and what waiting costs.

    python benchmarks/devices.py --devices 1 2 4

Devices are the machine's GPUs, or logical devices of the CPU where there is none; those share its
processors, so that they show what dividing a batch costs and not what more devices bring. The
global batch is the preset's for every number of devices. Each
number has two sides: a batch that lies in memory, and batches from records by the whole input
    pipeline; waiting costs
what the second lacks of the first. The peak is the rate of the same number type's matmul on one
device, times their number.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable

import side_by_side

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')  # the sides share the GPUs' memory
CASES = {'full': ('large', {'bfloat16': False, 'frames': 16, 'frame_size': 112}),
         'small': ('small', {})}
MATMUL_SIZE = {'GPU': 8192, 'CPU': 2048}


def make_case(name: str, bfloat16: bool, batch_size: int) -> object:
    """The `Config` of a case."""
    from avts_tf.config import make_config
    preset, values = CASES[name]
    return make_config(preset, **values, bfloat16=bfloat16, passes_per_epoch=1000,
                       shuffle_records=8,
                       **({'batch_size': batch_size} if batch_size else {}))


def make_step(config: object, devices: str, pattern: str) -> Callable[[], float]:
    """A function that trains a step; on one batch in memory where the pattern begins so."""
    import tensorflow as tf

    from avts_tf.data.pipeline import make_dataset
    from avts_tf.models.two_tower import build_two_tower
    from avts_tf.training.devices import make_strategy, own_batches
    from avts_tf.training.optimizer import make_optimizer
    strategy = make_strategy(devices)
    with strategy.scope():
        model = build_two_tower(config)
        model.compile(optimizer=make_optimizer(config))
        model.optimizer.build(model.trainable_variables)
    dataset, from_memory = pattern.removeprefix('memory:'), pattern.startswith('memory:')
    dataset = make_dataset(dataset, config)
    if from_memory:
        dataset = dataset.take(1).cache().repeat()
    batches = iter(own_batches(dataset, strategy))

    @tf.function
    def train(batch: dict) -> tf.Tensor:
        loss = strategy.run(model.train_step, args=(batch,))['loss']
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, loss, axis=None)

    return lambda: train(next(batches)).numpy()


def run_side(arguments: argparse.Namespace) -> None:
    """Works as one side: clips, or floating-point operations of a matmul, per second."""
    import tensorflow as tf
    if arguments.side == 'matmul':
        size = MATMUL_SIZE['GPU' if tf.config.list_physical_devices('GPU') else 'CPU']
        a = tf.ones([size, size], tf.bfloat16 if arguments.bfloat16 else tf.float32)
        unit, step = 2.0 * size**3, lambda: tf.matmul(a, a)[0, 0].numpy()
    else:
        config = make_case(arguments.case, arguments.bfloat16, arguments.batch_size)
        unit, step = config.train.batch_size, make_step(config, arguments.side, arguments.pattern)

    side_by_side.serve(lambda: unit * side_by_side.steps_per_second(step, arguments.seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--devices', nargs='+', default=['1', '2'], help='numbers of devices')
    parser.add_argument('--case', default='small', choices=list(CASES))
    parser.add_argument('--batch_size', type=int, default=0,
                        help='clips in a global batch; 0 is the preset')
    parser.add_argument('--bfloat16', action='store_true')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--seconds', type=float, default=6.0, help='length of a round of one side')
    parser.add_argument('--json', default='benchmarks/devices.json')
    parser.add_argument('--side', help=argparse.SUPPRESS)
    parser.add_argument('--pattern', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run_side(arguments)
    else:
        with tempfile.TemporaryDirectory() as folder:
            _measure(folder, arguments)


def _measure(folder: str, arguments: argparse.Namespace):
    import tensorflow as tf
    from input_pipeline import write_shards
    from training_step import multiplications
    tf.config.set_visible_devices([], 'GPU')  # they are for the sides
    pattern, _ = write_shards(folder, 'clips', 48, 4.0, (256, 342))

    def command(side: str, where: str = '') -> list[str]:
        own = [f'--side={side}', f'--pattern={where}', f'--case={arguments.case}',
               f'--batch_size={arguments.batch_size}',
               f'--seconds={arguments.seconds}']
        return [sys.executable, __file__, *own, *['--bfloat16'] * arguments.bfloat16]

    sides = {'matmul': command('matmul')}
    for count in arguments.devices:
        sides |= {f'{count} from memory': command(count, f'memory:{pattern}'),
                  f'{count} from records': command(count, pattern)}
    rates = side_by_side.take_turns(sides, arguments.rounds)
    config = make_case(arguments.case, arguments.bfloat16, arguments.batch_size)
    operations, first = multiplications(config), arguments.devices[0]
    results = []
    for count in arguments.devices:
        memory, records = rates[f'{count} from memory'], rates[f'{count} from records']
        results.append({
            'devices': int(count), 'clips_per_second': side_by_side.summary(records),
            'step_ms': 1000 * config.train.batch_size / side_by_side.summary(records)['median'],
            'by_the_first': side_by_side.ratio(records, rates[f'{first} from records']),
            'waiting_part': 1 - side_by_side.ratio(records, memory),
            'part_of_peak': operations / int(count) * side_by_side.ratio(memory, rates['matmul']),
        })
        result = results[-1]
        print(f'{count} device(s): {result["clips_per_second"]["median"]:.1f} clips/s, step '
              f'{result["step_ms"]:.0f} ms, '
              f'{result["by_the_first"]:.2f} times the first; waiting costs '
              f'{100 * result["waiting_part"]:.1f} %; '
              f'{100 * result["part_of_peak"]:.0f} % of the peak')
    side_by_side.write_json(arguments.json, {
        'case': arguments.case, 'batch_size': config.train.batch_size,
        'bfloat16': arguments.bfloat16,
        'gflop_per_clip': operations / 1e9, 'devices': results})


if __name__ == '__main__':
    main()
