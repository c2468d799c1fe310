"""Tasks in processes that crash, hang, eat memory or lose their parent: each costs itself alone."""

import os
import signal
import subprocess
import sys
import time

import pytest

from avts_tf.data import workers
from tests.helpers import PATIENCE_SECONDS, ROOT


def start(code):
    """A program of its own that has `workers` imported."""
    code = f'import os, time; from avts_tf.data import workers; {code}'
    return subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE,
                            text=True, start_new_session=True)


def alive(pid):
    """Whether a process runs; a zombie does not."""
    try:
        with open(f'/proc/{pid}/stat', encoding='utf-8') as file:
            return file.read().rsplit(')', 1)[1].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def test_workers_start_without_tensorflow():
    code = '(__import__("avts_tf.data.media"), "tensorflow" in __import__("sys").modules)[1]'
    assert list(workers.run_in_order(eval, [code], 1, 60.0)) == [(False, None)]


def test_dead_and_hanging_workers_cost_one_task_each():
    tasks = [
        '1 + 1', '__import__("os")._exit(7)', '__import__("os").abort()',
        '__import__("time").sleep(60)', '[][0]', '"x" * 10**6',
        '__import__("ctypes").string_at(0)', *(str(i) for i in range(20)),
    ]
    outcomes = list(workers.run_in_order(eval, tasks, 2, 1.0))
    assert outcomes[0] == (2, None) and outcomes[5] == ('x' * 10**6, None)
    assert outcomes[7:] == [(i, None) for i in range(20)]
    failures = [failure for _, failure in (*outcomes[1:5], outcomes[6])]
    reasons = [reason for reason, _ in failures]
    assert reasons == ['crashed', 'crashed', 'timeout', 'crashed', 'crashed']
    words = ['exit code 7', 'SIGABRT', 'not done after 1 s', 'IndexError', 'SIGSEGV']
    for word, (_, detail) in zip(words, failures, strict=True):
        assert word in detail


def test_a_task_that_keeps_producing_meets_its_deadline():
    assert list(workers.run_in_order(eval, ['sum(1 for _ in iter(int, 1))', '3'], 1, 1.0)) == [
        (None, ('timeout', 'not done after 1 s')), (3, None)]


def test_what_cannot_be_pickled_costs_one_task():
    outcomes = list(workers.run_in_order(eval, ['lambda: 0', '4'], 1, 60.0))
    assert outcomes[0][1][0] == 'crashed' and outcomes[1] == (4, None)


def test_memory_of_a_worker_is_bounded():
    (_, failure), after = workers.run_in_order(eval, ['bytearray(9 * 2**30)', '5'], 1, 60.0)
    assert failure == ('crashed', 'MemoryError: ') and after == (5, None)


def test_results_that_wait_are_bounded(monkeypatch, tmp_path):
    monkeypatch.setattr(workers, '_AHEAD_BYTES', 10)
    mark = 'open(f"{}/{}", "w").close() or "x" * 1000'
    tasks = ['__import__("time").sleep(1)']
    tasks += [mark.replace('{}', str(tmp_path), 1).replace('{}', str(i)) for i in range(20)]
    outcomes = workers.run_in_order(eval, tasks, 2, 60.0)
    next(outcomes)
    # One that fills the place, and those handed out before it came.
    assert len(os.listdir(tmp_path)) <= 3
    assert [len(result) for result, _ in outcomes] == [1000] * 20
    assert len(os.listdir(tmp_path)) == 20


def test_parts_come_in_order_and_a_dead_worker_costs_its_own_task():
    def then(count, end):
        return f'(i if i < {count} else {end} for i in range({count} + 1))'

    tasks = [
        'iter([1, 2])', then(1, '__import__("os").abort()'), '[][0]', then(2, '[][0]'),
        then(1, '__import__("time").sleep(60)'),
        'iter([])', '(bytes(10**6) for _ in range(3))', 'iter([7])',
    ]
    got = list(workers.stream_in_order(eval, tasks, 2, 2.0))
    assert [number for number, _, _ in got] == sorted(number for number, _, _ in got)
    parts = [[part for number, part, _ in got if number == task and part is not None]
             for task in range(len(tasks))]
    assert parts == [[1, 2], [0], [], [0, 1], [0], [], [bytes(10**6)] * 3, [7]]
    failures = {number: failure for number, part, failure in got if part is None}
    assert [failures[number] for number in (0, 5, 6, 7)] == [None] * 4
    assert failures[1] == ('crashed', 'the decoding process died: SIGABRT')
    assert failures[2] == failures[3] == ('crashed', 'IndexError: list index out of range')
    assert failures[4] == ('timeout', 'nothing came for 2 s')


def test_parts_are_not_made_before_there_is_room():
    counting = '(print(i, flush=True) or bytes(2**20) for i in range(50))'
    program = start(f'parts = workers.stream_in_order(eval, [{counting!r}], 1, 60.0); '
                    'next(parts); time.sleep(1); parts.close()')
    assert len(program.communicate(timeout=PATIENCE_SECONDS)[0].split()) <= 3


def test_workers_die_with_their_parent():
    # Both hang, one of them as a decoder may: in native code that lets no Python thread run.
    pid, ctypes = '__import__("os").getpid()', '__import__("ctypes")'
    hangs = [f'print({pid}, flush=True) or {ctypes}.{library}(None).sleep(600)'
             for library in ('CDLL', 'PyDLL')]
    parent = start(f'list(workers.run_in_order(eval, {hangs}, 2, 600.0))')
    pids = [int(parent.stdout.readline()) for _ in range(2)]
    assert len(set(pids)) == 2 and all(map(alive, pids))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, pids))


@pytest.mark.slow
def test_time_for_which_all_was_stopped_does_not_count():
    work = ('print(0, flush=True) or '
            'next(i for i in iter(int, 1) if __import__("time").process_time() > 1.0)')
    parent = start(f'print(list(workers.run_in_order(eval, [{work!r}], 1, 10.0)))')
    parent.stdout.readline()
    os.killpg(parent.pid, signal.SIGSTOP)
    time.sleep(12)
    os.killpg(parent.pid, signal.SIGCONT)
    assert parent.communicate(timeout=PATIENCE_SECONDS)[0] == '[(0, None)]\n'
