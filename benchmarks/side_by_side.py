"""The one timing loop of all benchmarks: sides take turns in short rounds.

The speed of a machine wanders, and neighbours in time can be compared. Two frameworks in one
process share thread pools and memory, so a side may be a process of its own (`take_turns`): it
prints one line when it has warmed up; for each line that it is sent it then works for a round and
prints its rate as a number. Sides that share a process are functions (`time_in_turns`).
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

# The project, when a benchmark is run by its path; and first, because it sets how TensorFlow runs.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import avts_tf  # noqa: F401


def serve(work: Callable[[], float]) -> None:
    """The life of a side: one call of `work()`, which returns a rate, then one for each line."""
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what libraries print is no answer
    work()
    print('ready', file=answers, flush=True)
    for _ in sys.stdin:
        print(work(), file=answers, flush=True)


def steps_per_second(step: Callable[[], object], seconds: float, least: int = 2) -> float:
    """Rate of a function that is called for so many seconds, `least` times at least."""
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds or done < least:
        step()
        done += 1
    return done / (time.perf_counter() - started)


def take_turns(sides: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Rates of several sides, measured in turn.

    Args:
        sides: command line of each side.
        rounds: number of rounds.

    Returns:
        The rates of each side, one per round.

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


def ask(command: list[str], environment: dict[str, str] | None = None) -> Any:
    """Runs a command that prints its results as JSON in its last line; returns them.

    Raises:
        RuntimeError: it failed, or printed no such line; the message has its last words.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          env={**os.environ, **(environment or {})})
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        words = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        raise RuntimeError(' '.join([f'ended with exit code {done.returncode}:', *words]))
    return json.loads(lines[-1])


def time_in_turns(
    sides: dict[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of several functions, which are called in turn: of each, one per round."""
    seconds = {name: [] for name in sides}
    for _ in range(rounds):
        for name, function in sides.items():
            begin = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def _answer(name: str, process: subprocess.Popen):
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f'the side {name!r} ended with exit code {process.wait()}; its own '
                           'message stands above.')
    return line


def summary(rates: list[float]) -> dict[str, float]:
    """Median and range of a list of rates, as a dict."""
    return {'median': statistics.median(rates), 'least': min(rates), 'most': max(rates)}


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median over the rounds of our rate divided by theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def peak_resident_bytes() -> int:
    """Most memory that this process has held.

    Not that of `getrusage`, which counts the parent's memory before the program was started.
    """
    with open('/proc/self/status') as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith('VmHWM'))


def bytes_read() -> int:
    """Bytes that this process has read from files, as Linux counts them."""
    with open('/proc/self/io') as file:
        return next(int(line.split()[1]) for line in file if line.startswith('rchar'))


def write_json(path: str, results: dict[str, Any]) -> None:
    """Writes the results with what they were measured on."""
    machine = {'cores': len(os.sched_getaffinity(0)), 'processor': processor()}
    with open(path, 'w') as file:
        json.dump({'machine': machine, **results}, file, indent=2)
    print(f'Written to {path}.')


def processor() -> str:
    """What the machine calls its processor."""
    with open('/proc/cpuinfo') as file:
        return next((line.split(':')[1].strip() for line in file if line.startswith('model name')),
                    'unknown')
