"""Measures programs against each other on a machine whose speed wanders: both stand ready, and take turns in short rounds.

A side is a process of its own, because two frameworks in one process share thread pools and memory. It prints one line when it
has warmed up; for each line that it is sent it then works for a round and prints its rate as a number.
"""

import json
import os
import statistics
import subprocess
import sys
import time

# The project, when a benchmark is run by its path; and first, because it sets how TensorFlow runs.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import avts_tf  # noqa: F401


def serve(work):
    """The life of a side: warms up by one call of `work()`, which returns a rate, then answers line after line."""
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what libraries print is no answer
    work()
    print('ready', file=answers, flush=True)
    for _ in sys.stdin:
        print(work(), file=answers, flush=True)


def steps_per_second(step, seconds, least=2):
    """Rate of a function that is called again and again for so many seconds, `least` times at least."""
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds or done < least:
        step()
        done += 1
    return done / (time.perf_counter() - started)


def take_turns(sides, rounds):
    """Rates of several sides, measured in turn.

    Args:
        sides: dict from name to the command line of the side.
        rounds: number of rounds.

    Returns:
        Dict from name to a list of `rounds` rates.

    Raises:
        RuntimeError: a side ended early; its own message stands above.
    """
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
    processes = {name: subprocess.Popen(command, **pipes) for name, command in sides.items()}
    try:
        for name in sides:
            _answer(name, processes[name])
        rates = {name: [] for name in sides}
        for _ in range(rounds):
            for name, process in processes.items():
                process.stdin.write('go\n')
                process.stdin.flush()
                rates[name].append(float(_answer(name, process)))
        return rates
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def _answer(name, process):
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f'the side {name!r} ended with exit code {process.wait()}; its own message stands above.')
    return line


def summary(rates):
    """Median and range of a list of rates, as a dict."""
    return {'median': statistics.median(rates), 'least': min(rates), 'most': max(rates)}


def ratio(ours, theirs):
    """Median over the rounds of our rate by theirs, neighbours in time compared with each other."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def write_json(path, results):
    """Writes the results with what they were measured on."""
    machine = {'cores': len(os.sched_getaffinity(0)), 'processor': _processor()}
    with open(path, 'w') as file:
        json.dump({'machine': machine, **results}, file, indent=2)
    print(f'Written to {path}.')


def _processor():
    with open('/proc/cpuinfo') as file:
        return next((line.split(':')[1].strip() for line in file if line.startswith('model name')), 'unknown')
