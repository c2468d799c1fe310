"""Clips and pairs per second of the training step, beside PyTorch's and beside the matmul's rate.

    pip install -r requirements-bench.txt
    python benchmarks/training_step.py

The nets are MC3 and the audio tower, at full width with 16 frames of 112 x 112, and as in the
preset `small`; PyTorch runs them with channels last and the same number of threads. A step is
forward, loss, backward and optimiser on a batch that is in memory already. One clip of ours carries
two audio windows, and so two pairs; with independent pairs, as published, a pair costs a clip.
bfloat16 is left out where the processor has no instructions for it.

The arithmetic limit is the rate at which the matmul of the same framework and number type would do
the multiplications of the convolutions and dense layers: a convolution that avoids some of them
(Winograd) may pass it.
"""

import argparse
import os
import sys
from collections.abc import Callable

import cases
import side_by_side
import torch_towers

CASES = ('full', 'small')
FULL_BATCH_SIZE = 4  # clips; what a machine with two cores can train on


def make_case(name: str, bfloat16: bool, windows: int) -> object:
    """The `Config` of a case."""
    return cases.make_case(name, batch_size=FULL_BATCH_SIZE if name == 'full' else None,
                           bfloat16=bfloat16, audio_windows=windows, optimizer='sgd',
                           easy_negatives='drawn')


def random_batch(config: object) -> dict:
    """Arrays of a batch as the pipeline gives them."""
    import numpy as np
    rng, clip = np.random.default_rng(0), config.clip
    windows, size = config.pairs.audio_windows, config.train.batch_size
    # Half of the pairs are in sync: within each clip, or clip by clip where each has one.
    kind = (np.arange(size * windows, dtype=np.int32) % 2).reshape(size, windows)
    return {
        'video': rng.integers(0, 256, [size, clip.frames, clip.frame_size, clip.frame_size, 3],
                              dtype=np.uint8),
        'audio': rng.integers(-9000, 9000, [size, windows, clip.window_samples], dtype=np.int16),
        'kind': kind, 'label': (kind == 0).astype(np.float32),
        'example_hash': np.arange(size, dtype=np.int64),
        'audio_hash': np.tile(np.arange(size, dtype=np.int64)[:, None], [1, windows]),
    }


def tensorflow_step(config: object, batch: dict) -> Callable[[], float]:
    """A function that trains one step."""
    import tensorflow as tf
    model = cases.make_model(config)
    batch = {name: tf.constant(value) for name, value in batch.items()}
    step = tf.function(model.train_step)
    return lambda: step(batch)['loss'].numpy()


def torch_matmul(bfloat16: bool) -> tuple[Callable[[], object], float]:
    """As `cases.matmul`, in PyTorch on the CPU."""
    import torch
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    size = 2048
    a = torch.randn([size, size]).to(torch.bfloat16 if bfloat16 else torch.float32)
    return lambda: a @ a, 2.0 * size**3


def run_side(side: str, case: str, bfloat16: bool, windows: int, seconds: float) -> None:
    """Works as one side: clips, or floating-point operations of the matmul, per second."""
    if side == 'torch_matmul':
        step, unit = torch_matmul(bfloat16)
    elif side == 'tensorflow_matmul':
        multiply, unit = cases.matmul(bfloat16)

        def step() -> object:
            return multiply().numpy()
    else:
        config = make_case(case, bfloat16, windows)
        make_step = torch_towers.make_step if side == 'torch' else tensorflow_step
        step, unit = make_step(config, random_batch(config)), config.train.batch_size

    side_by_side.serve(lambda: unit * side_by_side.steps_per_second(step, seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--cases', nargs='*', default=list(CASES), choices=CASES)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--seconds', type=float, default=6.0, help='length of a round of one side')
    parser.add_argument('--json', default='benchmarks/training_step.json')
    parser.add_argument('--side', help=argparse.SUPPRESS)
    parser.add_argument('--case', help=argparse.SUPPRESS)
    parser.add_argument('--windows', type=int, help=argparse.SUPPRESS)
    parser.add_argument('--bfloat16', action='store_true', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run_side(arguments.side, arguments.case, arguments.bfloat16, arguments.windows,
                 arguments.seconds)
        return
    from avts_tf.training.devices import computes_bfloat16
    number_types = [False, True]
    if not computes_bfloat16():
        number_types = [False]
        print(cases.NO_BFLOAT16, flush=True)
    results = [_compare(case, bfloat16, arguments)
               for case in arguments.cases for bfloat16 in number_types]
    side_by_side.write_json(arguments.json, {'training_step': results})


def _compare(case: str, bfloat16: bool, arguments: argparse.Namespace):
    def command(side: str, windows: int = 2) -> list[str]:
        own = [f'--side={side}', f'--case={case}', f'--windows={windows}',
               f'--seconds={arguments.seconds}']
        return [sys.executable, __file__, *own, *['--bfloat16'] * bfloat16]

    sides = {'ours': command('tensorflow'), 'torch': command('torch'),
             'torch_pairs': command('torch', 1),
             'matmul': command('tensorflow_matmul'), 'torch_matmul': command('torch_matmul')}
    rates = side_by_side.take_turns(sides, arguments.rounds)
    operations = cases.multiplications(cases.make_model(make_case(case, False, 2)))
    limit = [rate / operations for rate in rates['matmul']]
    result = {
        'case': case, 'number_type': 'bfloat16' if bfloat16 else 'float32',
        'clips_per_second': {name: side_by_side.summary(rates[name])
                             for name in ('ours', 'torch', 'torch_pairs')},
        'matmul_gflops': {name: side_by_side.summary([rate / 1e9 for rate in rates[name]])
                          for name in ('matmul', 'torch_matmul')},
        'gflop_per_clip': operations / 1e9,
        'clips_ratio_to_torch': side_by_side.ratio(rates['ours'], rates['torch']),
        'pairs_ratio_to_torch_with_independent_pairs': 2
        * side_by_side.ratio(rates['ours'], rates['torch_pairs']),
        'part_of_the_arithmetic_limit': side_by_side.ratio(rates['ours'], limit),
    }
    clips = result['clips_per_second']
    print(f'{case}, {result["number_type"]}: {operations / 1e9:.1f} GFLOP a clip')
    print(f'  ours     {clips["ours"]["median"]:8.2f} clips/s [{clips["ours"]["least"]:.2f}, '
          f'{clips["ours"]["most"]:.2f}]'
          f'   {2 * clips["ours"]["median"]:8.2f} pairs/s')
    print(f'  PyTorch  {clips["torch"]["median"]:8.2f} clips/s [{clips["torch"]["least"]:.2f}, '
          f'{clips["torch"]["most"]:.2f}]'
          f'   {clips["torch_pairs"]["median"]:8.2f} pairs/s with independent pairs')
    gflops = result['matmul_gflops']
    print(f'  matmul   {gflops["matmul"]["median"]:.0f} GFLOP/s TensorFlow, '
          f'{gflops["torch_matmul"]["median"]:.0f} PyTorch')
    print(f'  ratios: clips {result["clips_ratio_to_torch"]:.2f}, '
          f'pairs {result["pairs_ratio_to_torch_with_independent_pairs"]:.2f}, '
          f'of the arithmetic limit {result["part_of_the_arithmetic_limit"]:.2f}', flush=True)
    return result


if __name__ == '__main__':
    main()
