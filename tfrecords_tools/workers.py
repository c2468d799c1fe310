"""Runs a function over tasks in worker processes that may die or hang: such a death costs its own task and no other.

Decoders are native code and some files kill them. Python's own pools break as a whole when a worker dies, so each worker here
has a pipe of its own and is replaced when it is gone.
"""

import dataclasses
import multiprocessing
import multiprocessing.connection
import signal
import time

TIMEOUT, CRASHED = 'timeout', 'crashed'

# Results that wait for an earlier, slower task stay in memory: this many tasks per worker at most.
_AHEAD = 4


@dataclasses.dataclass
class _Worker:
    process: multiprocessing.Process
    connection: multiprocessing.connection.Connection
    ready: bool = False
    task: int | None = None
    deadline: float = float('inf')


def run_in_order(function, tasks, workers, timeout_seconds):
    """Calls `function(task)` for each task in worker processes and yields the outcomes in the order of the tasks.

    Workers are started by spawn: `function`, tasks and results are pickled, and a script that calls this keeps its own work
    under `if __name__ == '__main__':`. Closing the generator ends the workers.

    Args:
        function: importable by its name.
        tasks: list.
        workers: number of processes, at least 1.
        timeout_seconds: longest time for one task; a worker that takes longer is killed.

    Yields:
        Per task (result, None), or (None, (reason, detail)) where reason is `TIMEOUT` or `CRASHED`, which is also the reason
        where the function raised.

    Raises:
        RuntimeError: a worker died before it took a task, so none ever will.
    """
    pool = [_start(function) for _ in range(min(workers, len(tasks)))]
    outcomes, handed_out = {}, 0
    try:
        for wanted in range(len(tasks)):
            while wanted not in outcomes:
                for worker in pool:
                    if worker.ready and worker.task is None and handed_out < min(len(tasks), wanted + _AHEAD * workers):
                        _hand_out(worker, handed_out, tasks[handed_out], timeout_seconds)
                        handed_out += 1
                patience = max(0.0, min(worker.deadline for worker in pool) - time.monotonic())
                waiting = {worker.connection: worker for worker in pool}
                heard = multiprocessing.connection.wait(waiting, None if patience == float('inf') else patience)
                for worker in [waiting[connection] for connection in heard]:
                    _listen(worker, outcomes)
                    if worker.connection.closed:
                        pool[pool.index(worker)] = _start(function)
                for i, worker in enumerate(pool):
                    if worker.deadline <= time.monotonic() and not worker.connection.poll():
                        outcomes[worker.task] = None, (TIMEOUT, f'not done after {timeout_seconds:g} s')
                        _end(worker)
                        pool[i] = _start(function)
            yield outcomes.pop(wanted)
    finally:
        for worker in pool:
            _end(worker)


def _start(function):
    # Not fork: a child of a process with threads (TensorFlow's) can hang.
    context = multiprocessing.get_context('spawn')
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(function, theirs), daemon=True)
    process.start()
    theirs.close()  # else the end of the process would not be seen as the end of the pipe
    return _Worker(process, ours)


def _serve(function, connection):
    """The life of a worker: says that it is there, then answers task after task."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    connection.send(None)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            outcome = function(task), None
        except Exception as error:  # whatever goes wrong costs this task alone, and the report tells it
            outcome = None, (CRASHED, f'{type(error).__name__}: {error}')
        connection.send(outcome)


def _hand_out(worker, number, task, timeout_seconds):
    worker.task, worker.deadline = number, time.monotonic() + timeout_seconds
    try:
        worker.connection.send(task)
    except OSError:
        pass  # it died meanwhile: `_listen` meets the end of its pipe


def _listen(worker, outcomes):
    """Takes what a worker sent; a dead worker's task is given up and its connection closed."""
    try:
        outcome = worker.connection.recv()
    except (EOFError, OSError):
        _end(worker)
        if not worker.ready:
            raise RuntimeError(
                f'a worker process ended as it started ({_how_it_ended(worker.process)}); its own message stands above. '
                "A script that starts workers keeps its own work under if __name__ == '__main__'."
            ) from None
        if worker.task is not None:
            outcomes[worker.task] = None, (CRASHED, f'the decoding process died: {_how_it_ended(worker.process)}')
        return
    if worker.ready:
        outcomes[worker.task] = outcome
    worker.ready, worker.task, worker.deadline = True, None, float('inf')


def _end(worker):
    if not worker.connection.closed:
        worker.connection.close()
        worker.process.join(0.5)  # one that was dying by itself keeps its own exit code
        worker.process.kill()
    worker.process.join()


def _how_it_ended(process):
    if process.exitcode < 0:
        return signal.Signals(-process.exitcode).name
    return f'exit code {process.exitcode}'
