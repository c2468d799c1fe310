"""Runs a function over tasks in worker processes; one that dies or hangs costs its task only.

Decoders are native code and some files kill them. Python's own pools break as a whole when a worker
dies, so each worker here has a pipe of its own and is replaced when it is gone. Where the calling
process dies, by SIGKILL too, its workers end: at once on Linux, elsewhere when their task is done.
"""

import collections
import contextlib
import ctypes
import dataclasses
import math
import multiprocessing
import multiprocessing.connection
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

TIMEOUT, CRASHED = 'timeout', 'crashed'
FILE_TIMEOUT_SECONDS = 120.0  # a usual longest time for a task that decodes a file

Failure = tuple[str, str]  # reason, detail

# Results that wait for an earlier, slower task stay in memory: this many per worker at most, and
# about this much in all.
_AHEAD = 4
_AHEAD_BYTES = 2**28
# Address space of a worker. A file whose decoding needs more costs itself alone, and not the
# machine's memory. The same on every machine, because what is written may not depend on it.
_WORKER_BYTES = 8 * 2**30
_PULSE_SECONDS = 1.0  # longest wait at a time, so that a pause of this process is seen
_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


@dataclasses.dataclass
class _Worker:
    process: subprocess.Popen
    connection: multiprocessing.connection.Connection
    ready: bool = False
    task: int | None = None
    deadline: float = float('inf')


def run_in_order(
    function: Callable[[Any], Any], tasks: Sequence, workers: int, timeout_seconds: float,
) -> Generator[tuple[Any, Failure | None], None, None]:
    """Calls a function for each task in worker processes; outcomes come in the order of the tasks.

    Function, tasks and results are pickled. A worker imports the function's module and nothing of
    the calling program. Closing the generator ends the workers. The thread that began the generator
    must live as long as it does.

    Args:
        function: of a module's top level, takes a task.
        tasks: list.
        workers: number of processes, at least 1.
        timeout_seconds: longest time for one task; a worker that takes longer is killed. Time for
            which this process was itself stopped (Ctrl-Z) does not count.

    Yields:
        Per task (result, None), or (None, (reason, detail)) where reason is `TIMEOUT` or `CRASHED`,
        which is also the reason where the function raised.

    Raises:
        RuntimeError: a worker died before it took a task, so none ever will.

    Example:
        >>> from avts_tf.data import media, workers
        >>> tasks = [(path, media.MediaOptions()) for path in paths]
        >>> for clip, failure in workers.run_in_order(media.try_media, tasks, 2, 60.0):
        ...     print(failure or clip)
    """
    pool = [_start(function) for _ in range(min(workers, len(tasks)))]
    outcomes: dict[int, bytes] = {}  # as they came, pickled
    handed_out = 0
    try:
        for wanted in range(len(tasks)):
            while wanted not in outcomes:
                full = sum(map(len, outcomes.values())) > _AHEAD_BYTES
                for worker in pool:
                    ahead = 1 if full else _AHEAD * workers
                    idle = worker.ready and worker.task is None
                    if idle and handed_out < min(len(tasks), wanted + ahead):
                        _hand_out(worker, handed_out, tasks[handed_out], timeout_seconds)
                        handed_out += 1
                begin = time.monotonic()
                left = max(0.0, min(worker.deadline for worker in pool) - begin)
                patience = min(left, _PULSE_SECONDS)
                heard = multiprocessing.connection.wait(
                    [worker.connection for worker in pool], patience)
                late = time.monotonic() - begin - patience
                if late > _PULSE_SECONDS:  # this process was stopped, and the workers with it
                    for worker in pool:
                        worker.deadline += late
                for worker in [worker for worker in pool if worker.connection in heard]:
                    _listen(worker, outcomes)
                    if worker.connection.closed:
                        pool[pool.index(worker)] = _start(function)
                for i, worker in enumerate(pool):
                    if worker.deadline <= time.monotonic() and not worker.connection.poll():
                        assert worker.task is not None  # without one there is no deadline
                        outcomes[worker.task] = pickle.dumps(
                            (None, (TIMEOUT, f'not done after {timeout_seconds:g} s')))
                        _end(worker)
                        pool[i] = _start(function)
            yield pickle.loads(outcomes.pop(wanted))
    finally:
        for worker in pool:
            _end(worker)


def stream_in_order(
    function: Callable[[Any], Iterable], tasks: Sequence, workers: int, timeout_seconds: float,
) -> Generator[tuple[int, Any, Failure | None], None, None]:
    """As `run_in_order`, for a function that yields parts, which are passed on task after task.

    A worker is never further ahead than its pipe holds, so memory is bounded by the size of a part.
    The thread that began the generator must live as long as it does.

    Args:
        function: of a module's top level, takes a task and yields parts.
        tasks: list.
        workers: number of processes, at least 1.
        timeout_seconds: longest wait for one part; a worker that takes longer is killed. As there,
            time for which this process was itself stopped does not count.

    Yields:
        Per part (number of the task, part, None), and last of each task (number of the task, None,
        failure): None where it came to its end, or (reason, detail) as from `run_in_order`.

    Raises:
        RuntimeError: a worker died before it took a task, so none ever will.
    """
    count = min(workers, len(tasks))
    pool = collections.deque(_start(function, 'serve_parts') for _ in range(count))
    try:
        for number, worker in enumerate(pool):
            _hand_out(worker, number, tasks[number], timeout_seconds)
        for number in range(len(tasks)):
            worker, done, failure = pool[0], False, None
            while not done:
                if worker.ready and not _comes(worker, timeout_seconds):
                    _end(worker)
                    failure = TIMEOUT, f'nothing came for {timeout_seconds:g} s'
                    break
                heard: dict[int, bytes] = {}
                worker.task = number
                _listen(worker, heard)
                if worker.connection.closed:
                    failure = pickle.loads(heard[number])[1]
                    break
                if heard:  # not the word that the worker is ready
                    part, failure, done = pickle.loads(heard[number])
                    if not done:
                        yield number, part, None
            yield number, None, failure
            if worker.connection.closed:
                pool[0] = _start(function, 'serve_parts')
            if number + len(pool) < len(tasks):
                _hand_out(pool[0], number + len(pool), tasks[number + len(pool)], timeout_seconds)
            pool.rotate(-1)
    finally:
        for worker in pool:
            _end(worker)


def _comes(worker: _Worker, timeout_seconds: float) -> bool:
    """Whether a worker sends something in time; time for which this process stopped is left out."""
    pulses = math.ceil(timeout_seconds / _PULSE_SECONDS)
    return any(worker.connection.poll(timeout_seconds / pulses) for _ in range(pulses))


def _start(function: Callable, serve: str = 'serve') -> _Worker:
    # Neither a fork, which can hang in a process with TensorFlow's threads, nor multiprocessing's
    # spawn, which imports the main program again in each worker, with TensorFlow: seconds and half
    # a gigabyte.
    ours, theirs = multiprocessing.Pipe()
    code = (f'import sys; sys.path[:] = {sys.path!r}; from {__name__} import {serve}; '
            f'{serve}({theirs.fileno()}, {os.getpid()})')
    process = subprocess.Popen(
        [sys.executable, '-c', code], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()  # else the end of the process would not be seen as the end of the pipe
    with contextlib.suppress(OSError):  # it died already: `_listen` says so
        ours.send(function)
    return _Worker(process, ours)


def serve(file_descriptor: int, parent: int) -> None:
    """Runs in a worker: takes the function, reports that it is ready, then answers task after task.

    Args:
        file_descriptor: of its end of the pipe.
        parent: process id of the caller.
    """
    for function, task, answer in _tasks(file_descriptor, parent):
        try:
            outcome = pickle.dumps((function(task), None))
        except Exception as error:  # costs this task alone, and is reported
            outcome = pickle.dumps((None, (CRASHED, f'{type(error).__name__}: {error}')))
        answer(outcome)


def serve_parts(file_descriptor: int, parent: int) -> None:
    """As `serve`, for `stream_in_order`.

    Answers (part, None, False) per part, then (None, failure, True).
    """
    for function, task, answer in _tasks(file_descriptor, parent):
        failure = None
        try:
            for part in function(task):
                answer(pickle.dumps((part, None, False)))
        except Exception as error:  # as in `serve`
            failure = CRASHED, f'{type(error).__name__}: {error}'
        answer(pickle.dumps((None, failure, True)))


def _tasks(
    file_descriptor: int, parent: int,
) -> Iterator[tuple[Callable, Any, Callable[[bytes], None]]]:
    """Yields (function, task, function that sends bytes back)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    _die_with(parent)
    connection = multiprocessing.connection.Connection(file_descriptor)

    def answer(outcome: bytes) -> None:
        try:
            connection.send_bytes(outcome)
        except BrokenPipeError:  # the parent is gone
            sys.exit()

    function = connection.recv()
    connection.send(None)
    while True:
        try:
            yield function, connection.recv(), answer
        except EOFError:
            return


def _die_with(parent: int) -> None:
    """Ends this process with its parent, also inside a decoder, and first where memory runs out."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = _WORKER_BYTES if limit == resource.RLIM_INFINITY else min(limit, _WORKER_BYTES)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    with contextlib.suppress(OSError), open('/proc/self/oom_score_adj', 'w') as file:
        file.write('1000')
    end_with(parent, signal.SIGKILL)


def end_with(parent: int, number: int) -> None:
    """Has the system send this process a signal when its parent ends (on Linux).

    Exits where the parent has ended already.

    Args:
        parent: its process id.
        number: of the signal.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        sys.exit()


def _hand_out(worker: _Worker, number: int, task: Any, timeout_seconds: float) -> None:
    worker.task, worker.deadline = number, time.monotonic() + timeout_seconds
    with contextlib.suppress(OSError):  # it died meanwhile: `_listen` meets the end of its pipe
        worker.connection.send(task)


def _listen(worker: _Worker, outcomes: dict[int, bytes]) -> None:
    """Takes what a worker sent; a dead worker's task is given up and its connection closed."""
    try:
        outcome = worker.connection.recv_bytes()
    except (EOFError, OSError):
        worker.connection.close()
        worker.process.wait()  # it is dying by itself: the exit code is to be its own
        if not worker.ready:
            raise RuntimeError(
                f'a worker process ended as it started ({_how_it_ended(worker.process)}); its own '
                'message is above.') from None
        if worker.task is not None:
            detail = f'the decoding process died: {_how_it_ended(worker.process)}'
            outcomes[worker.task] = pickle.dumps((None, (CRASHED, detail)))
        return
    if worker.ready and worker.task is not None:
        outcomes[worker.task] = outcome
    worker.ready, worker.task, worker.deadline = True, None, float('inf')


def _end(worker: _Worker) -> None:
    if not worker.connection.closed:
        worker.process.kill()  # first, so that it has no time to complain of a closed pipe
        worker.connection.close()
    worker.process.wait()


def _how_it_ended(process: subprocess.Popen) -> str:
    if process.returncode < 0:
        return signal.Signals(-process.returncode).name
    return f'exit code {process.returncode}'
