"""The training step on one device and on more, and on several machines: what limits it.

    python benchmarks/devices.py --devices 1 2 4
    python benchmarks/devices.py --processes 1 2 4
    TF_CONFIG=... python benchmarks/devices.py --records='/shared/train-*'     (on each machine)

Devices are the machine's GPUs, or logical devices of the CPU where there is none; those share its
processors, so that they show what dividing a batch costs and not what more devices bring. Each
number of devices has two sides: a batch that lies in memory, and batches from records by the whole
input pipeline; waiting costs what the second lacks of the first. The peak is the rate of the same
number type's matmul on one device, times their number.

Processes are a cluster on this machine, one machine each, which `TF_CONFIG` joins as it joins real
ones; on a real cluster each machine prints its own line. A line has two parts: what the machine's
input does for each clip that the machine trains on, and where the time of a step goes. phases.py
says how both are measured.

The global batch is the preset's for every number of devices and machines.
"""

import argparse
import concurrent.futures
import json
import os
import socket
import sys
import tempfile

import cases
import side_by_side

os.environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')  # the sides share the GPUs' memory
# Columns of a machine's line: title, key, what it is divided by, digits.
COLUMNS = [('records', 'records_parsed', 1, 2), ('frames', 'frames_decoded', 1, 1),
           ('MB read', 'bytes_read', 1e6, 2), ('core ms', 'core_ms', 1, 1),
           ('read', 'reading_ms', 1, 1), ('parse', 'parsing_ms', 1, 1),
           ('decode', 'decoding_ms', 1, 1), ('| step', 'step_ms', 1, 0), ('wait', 'wait_ms', 1, 1),
           ('compute', 'compute_ms', 1, 0), ('exchange', 'exchange_ms', 1, 1),
           ('gradient', 'all_reduce_ms', 1, 1)]


def run_side(arguments: argparse.Namespace) -> None:
    """Works as one side: clips, or floating-point operations of a matmul, per second."""
    from avts_tf.training.devices import make_strategy
    if arguments.side == 'matmul':
        step, unit = cases.matmul(arguments.bfloat16)
    else:
        config, strategy = _config(arguments), make_strategy(arguments.side)
        with strategy.scope():
            model = cases.make_model(config)
        batches = cases.make_batches(arguments.records, config, strategy)
        if arguments.memory:
            batches = cases.in_memory(batches)
        step = cases.over(cases.make_step(model, strategy), batches)
        unit = config.train.batch_size
    side_by_side.serve(lambda: unit * side_by_side.steps_per_second(lambda: step().numpy(),
                                                                    arguments.seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--devices', nargs='+', default=['1', '2'], help='numbers of devices')
    parser.add_argument('--processes', nargs='+', type=int, help='numbers of machines')
    parser.add_argument('--records', help='glob of records; without it some are made')
    parser.add_argument('--case', default='small', choices=list(cases.CASES))
    parser.add_argument('--batch_size', type=int, help='clips in a global batch')
    parser.add_argument('--bfloat16', action='store_true')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--seconds', type=float, default=6.0, help='length of a round of one side')
    parser.add_argument('--steps', type=int, default=20,
                        help='steps that a machine takes in each way that it is timed')
    parser.add_argument('--json', default='benchmarks/devices.json')
    parser.add_argument('--side', help=argparse.SUPPRESS)
    parser.add_argument('--memory', action='store_true', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side == 'machine':
        print(json.dumps(_run_machine(arguments)))
    elif arguments.side:
        run_side(arguments)
    elif os.environ.get('TF_CONFIG'):
        if not arguments.records:
            parser.error('--records: name records that all machines of TF_CONFIG see.')
        _print_header()
        _print_machine('', _run_machine(arguments))
    else:
        with tempfile.TemporaryDirectory() as folder:
            arguments.records = arguments.records or _write_records(folder)
            (_measure_processes if arguments.processes else _measure_devices)(arguments)


def _config(arguments: argparse.Namespace):
    return cases.make_case(arguments.case, bfloat16=arguments.bfloat16,
                           batch_size=arguments.batch_size)


def _run_machine(arguments: argparse.Namespace):
    import phases
    return phases.machine_phases(_config(arguments), arguments.records, arguments.steps)


def _write_records(folder: str):
    import tensorflow as tf
    from input_pipeline import write_shards
    tf.config.set_visible_devices([], 'GPU')  # they are for the sides
    return write_shards(folder, 'clips', 48, 4.0, cases.RECORD_SIZE)[0]


def _command(side: str, arguments: argparse.Namespace, *more: str):
    own = [f'--side={side}', f'--records={arguments.records}', f'--case={arguments.case}',
           f'--seconds={arguments.seconds}', f'--steps={arguments.steps}', *more]
    if arguments.batch_size:
        own.append(f'--batch_size={arguments.batch_size}')
    return [sys.executable, __file__, *own, *['--bfloat16'] * arguments.bfloat16]


def _measure_devices(arguments: argparse.Namespace):
    sides = {'matmul': _command('matmul', arguments)}
    for count in arguments.devices:
        sides |= {f'{count} from memory': _command(count, arguments, '--memory'),
                  f'{count} from records': _command(count, arguments)}
    rates = side_by_side.take_turns(sides, arguments.rounds)
    config, first = _config(arguments), arguments.devices[0]
    operations, results = cases.multiplications(cases.make_model(config)), []
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


def _measure_processes(arguments: argparse.Namespace):
    size, results = _config(arguments).train.batch_size, []
    print(f'{arguments.case}, {size} clips in a batch of all machines')
    _print_header()
    for count in arguments.processes:
        if size % count:
            raise SystemExit(f'--processes={count}: must divide the batch, of {size} clips.')
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            machines = list(pool.map(
                side_by_side.ask, [_command('machine', arguments)] * count, _cluster(count)))
        for index, machine in enumerate(machines):
            _print_machine(f'{index + 1} of {count}', machine)
        results.append({'machines': count, 'figures': machines})
    print(f'a gradient is of {results[0]["figures"][0]["gradient_bytes"] / 1e6:.1f} MB')
    side_by_side.write_json(arguments.json, {'case': arguments.case, 'batch_size': size,
                                             'bfloat16': arguments.bfloat16, 'processes': results})


def _cluster(count: int):
    """What each process of a cluster on this machine has in its environment."""
    if count == 1:
        return [{'CUDA_VISIBLE_DEVICES': '0'}]
    sockets = [socket.create_server(('localhost', 0)) for _ in range(count)]
    workers = [f'localhost:{one.getsockname()[1]}' for one in sockets]
    for one in sockets:
        one.close()
    return [{'TF_CONFIG': json.dumps({'cluster': {'worker': workers},
                                      'task': {'type': 'worker', 'index': index}}),
             # One of the machine's GPUs each, where it has any: two processes cannot share one.
             'CUDA_VISIBLE_DEVICES': str(index)}
            for index in range(count)]


def _print_header():
    print('per clip that the machine trains on: records parsed, frames decoded, MB read, processor '
          'time, times of threads [ms]; then a step [ms]: all of it, waiting for its batch, and in '
          'turns on a batch in memory: computing alone, what it takes longer with the others, the '
          "gradient's sum on its own")
    print(f'{"machine":8}', *(f'{title:>8}' for title, _, _, _ in COLUMNS))


def _print_machine(name: str, figures: dict):
    print(f'{name:8}', *(f'{figures[key] / unit:8.{digits}f}'
                         for _, key, unit, digits in COLUMNS), flush=True)


if __name__ == '__main__':
    main()
