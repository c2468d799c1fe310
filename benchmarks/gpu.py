"""Everything about training on one GPU, in one command.

    python benchmarks/gpu.py

Each row is a process of its own, on the first GPU, or on the CPU where there is none: float32,
float32 whose products are TF32, bfloat16; each without XLA and with it, which then compiles the
towers. In a row three rates are taken in turns: steps on a batch that lies on the device, steps on
batches of records by the whole input pipeline, and a matmul of the same number type. The host waits
for the device only at the end of a turn. What fails is a row with its error.

    first     seconds of the first step, in which the graph is built and, with XLA, compiled
    step      on the batch that lies on the device
    peak      part of the matmul's rate at which the convolutions' multiplications are done
    waiting   what steps on records lack of the rate of steps on the device
    memory    most that the step held; on a CPU, the whole process

Then the batch is doubled without XLA, until it does not fit. `--quick` is a check that all of it
runs, in a minute on a CPU; its figures mean nothing.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import cases
import side_by_side

os.environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')
NUMBER_TYPES = ('float32', 'tf32', 'bfloat16')
TF32_CAPABILITY = 8, 0  # of GPUs that multiply in TF32
LARGEST_BATCH = 4096
LINE = '{:10} {:4} {:>7} {:>9} {:>9} {:>9} {:>7} {:>8} {:>9}'


def measure_row(arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures of one number type, without XLA or with it."""
    import tensorflow as tf

    from avts_tf.training.devices import make_strategy
    tf.config.experimental.enable_tensor_float_32_execution(arguments.row == 'tf32')
    bfloat16 = arguments.row == 'bfloat16'
    strategy = make_strategy(1)
    config = cases.make_case(arguments.case, bfloat16=bfloat16, batch_size=arguments.batch_size)
    with strategy.scope():
        model = cases.make_model(config, arguments.xla)
    step = cases.make_step(model, strategy)
    batches = cases.make_batches(arguments.records, config, strategy)
    on_device = cases.over(step, cases.in_memory(batches))
    started = time.perf_counter()
    on_device().numpy()
    first = time.perf_counter() - started
    from_records = cases.over(step, batches)
    from_records().numpy()
    memory = _peak_memory()
    multiply, operations = cases.matmul(bfloat16)
    sides = {'step': on_device, 'records': from_records, 'matmul': multiply}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(arguments.rounds + 1):
        for name, work in sides.items():
            rate = _rate(work, arguments.seconds)
            if number:  # the first round warms up
                rates[name].append(rate)
    clip = cases.multiplications(model)
    size = config.train.batch_size
    return {
        'batch_size': size, 'first_step_seconds': first,
        'step_ms': 1000 / statistics.median(rates['step']),
        'clips_per_second': side_by_side.summary([size * rate for rate in rates['records']]),
        'matmul_tflops': operations * statistics.median(rates['matmul']) / 1e12,
        'part_of_peak': size * clip / operations * side_by_side.ratio(rates['step'],
                                                                      rates['matmul']),
        'waiting_part': 1 - side_by_side.ratio(rates['records'], rates['step']),
        'memory_bytes': memory, 'gflop_per_clip': clip / 1e9,
    }


def _rate(work: Callable[[], Any], seconds: float):
    """Calls a second; only the last result is waited for."""
    started = time.perf_counter()
    work().numpy()
    calls = max(2, round(seconds / (time.perf_counter() - started)))
    started = time.perf_counter()
    for _ in range(calls):
        result = work()
    result.numpy()
    return calls / (time.perf_counter() - started)


def _peak_memory():
    import tensorflow as tf
    if tf.config.list_physical_devices('GPU'):
        return tf.config.experimental.get_memory_info('GPU:0')['peak']
    return side_by_side.peak_resident_bytes()


def run_row(arguments: argparse.Namespace) -> None:
    """Works as one row: prints its figures, or its error, as JSON."""
    try:
        figures = measure_row(arguments)
    except Exception as error:  # whatever it is, the other rows go on
        first_line = next(iter(str(error).splitlines()), '')
        figures = {'error': f'{type(error).__name__}: {first_line}'}
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--case', choices=list(cases.CASES),
                        help='default: full, or quick with --quick')
    parser.add_argument('--batch_size', type=int, help='clips in a batch')
    parser.add_argument('--records', help='glob of records; without it some are made')
    parser.add_argument('--rounds', type=int, help='default: 5, or 1 with --quick')
    parser.add_argument('--seconds', type=float, help='length of a turn; default: 4, or 0.2')
    parser.add_argument('--quick', action='store_true', help='a check that all of it runs')
    parser.add_argument('--without_xla', action='store_true',
                        help='leave XLA out, which takes minutes to compile on a slow processor')
    parser.add_argument('--json', default='benchmarks/gpu.json')
    parser.add_argument('--row', choices=NUMBER_TYPES, help=argparse.SUPPRESS)
    parser.add_argument('--xla', action='store_true', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    quick = arguments.quick
    arguments.case = arguments.case or ('quick' if quick else 'full')
    arguments.rounds = arguments.rounds or (1 if quick else 5)
    arguments.seconds = arguments.seconds or (0.2 if quick else 4.0)
    if arguments.row:
        run_row(arguments)
        return
    device = describe_device()  # before TensorFlow starts
    with tempfile.TemporaryDirectory() as folder:
        arguments.records = arguments.records or _write_records(folder, quick)
        _measure(arguments, device)


def _write_records(folder: str, quick: bool):
    from input_pipeline import write_shards
    count, seconds, size = (8, 1.0, (40, 40)) if quick else (96, 10.0, cases.RECORD_SIZE)
    return write_shards(folder, 'clips', count, seconds, size)[0]


def _measure(arguments: argparse.Namespace, device: dict[str, str]):
    print(', '.join(f'{name} {value}' for name, value in device.items()))
    left_out = _left_out(device)
    print(LINE.format('numbers', 'XLA', 'first s', 'step ms', 'clips/s', 'TFLOP/s', 'peak',
                      'waiting', 'GiB'), flush=True)
    rows = []
    for number_type in NUMBER_TYPES:
        if reason := left_out.get(number_type):
            print(f'{number_type:10} {reason}', flush=True)
            rows.append({'numbers': number_type, 'error': reason})
            continue
        for xla in (False, True)[:1 if arguments.without_xla else 2]:
            rows.append({'numbers': number_type, 'xla': xla,
                         **_ask(arguments, number_type, xla, arguments.batch_size,
                                arguments.rounds)})
            _print_row(rows[-1])
    largest = _largest_batches(arguments, rows, on_gpu='gpu' in device)
    side_by_side.write_json(arguments.json, {'device': device, 'case': arguments.case,
                                             'rows': rows, 'largest_batches': largest})


def describe_device() -> dict[str, str]:
    """The GPU, if there is one, and the versions that matter for its speed.

    Hides the GPUs from this process, which leaves them to the rows.
    """
    import keras
    import tensorflow as tf
    gpus = tf.config.list_physical_devices('GPU')
    tf.config.set_visible_devices([], 'GPU')
    found = {}
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        capability = '.'.join(map(str, details.get('compute_capability', ())))
        found = {'gpu': details.get('device_name', gpus[0].name), 'capability': capability}
        if shutil.which('nvidia-smi'):
            done = subprocess.run(
                ['nvidia-smi', '--query-gpu=driver_version,memory.total', '--format=csv,noheader'],
                capture_output=True, text=True, check=False)
            found['driver'] = next(iter(done.stdout.splitlines()), 'unknown')
    else:
        found['processor'] = f'{side_by_side.processor()} (no GPU)'
    build = tf.sysconfig.get_build_info()
    return {**found, 'TensorFlow': tf.__version__, 'Keras': keras.__version__,
            'CUDA': build.get('cuda_version', 'none'), 'cuDNN': build.get('cudnn_version', 'none')}


def _left_out(device: dict[str, str]):
    """From number types that the device does not have to the reason."""
    from avts_tf.training.devices import computes_bfloat16
    reasons = {}
    if 'gpu' not in device:
        reasons['tf32'] = 'tf32 is left out: it is a number type of GPUs.'
    elif tuple(map(int, device['capability'].split('.'))) < TF32_CAPABILITY:
        reasons['tf32'] = 'tf32 is left out: this GPU does not have it.'
    if not computes_bfloat16():
        reasons['bfloat16'] = cases.NO_BFLOAT16
    return reasons


def _ask(arguments: argparse.Namespace, number_type: str, xla: bool, batch_size: int | None,
         rounds: int):
    """The figures of a row, or its error."""
    command = [sys.executable, __file__, f'--row={number_type}', f'--case={arguments.case}',
               f'--records={arguments.records}', f'--rounds={rounds}',
               f'--seconds={arguments.seconds}', *['--xla'] * xla]
    if batch_size:
        command.append(f'--batch_size={batch_size}')
    try:
        return side_by_side.ask(command)
    except RuntimeError as error:  # the process died
        return {'error': str(error)}


def _print_row(row: dict[str, Any]):
    name = row['numbers'], 'on' if row['xla'] else 'off'
    if 'error' in row:
        print('{:10} {:4} {}'.format(*name, row['error']), flush=True)
        return
    print(LINE.format(
        *name, f'{row["first_step_seconds"]:.1f}', f'{row["step_ms"]:.1f}',
        f'{row["clips_per_second"]["median"]:.1f}', f'{row["matmul_tflops"]:.3g}',
        f'{100 * row["part_of_peak"]:.1f} %', f'{100 * row["waiting_part"]:.1f} %',
        f'{row["memory_bytes"] / 2**30:.2f}'), flush=True)


def _largest_batches(arguments: argparse.Namespace, rows: list[dict], on_gpu: bool):
    """From number type to the row of the largest batch that fits, without XLA."""
    if not on_gpu:
        print('the largest batch is not looked for: a CPU has as much memory as the machine.')
        return {}
    largest = {}
    for row in rows:
        if 'error' in row or row['xla']:
            continue
        fits = row
        while (size := 2 * fits['batch_size']) <= LARGEST_BATCH:
            found = _ask(arguments, row['numbers'], False, size, rounds=1)
            if 'error' in found:
                break
            fits = found
        largest[row['numbers']] = fits
        print(f'{row["numbers"]}: a batch of {fits["batch_size"]} fits, at '
              f'{fits["clips_per_second"]["median"]:.1f} clips/s', flush=True)
    return largest


if __name__ == '__main__':
    main()
