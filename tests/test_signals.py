"""Signals are noted or end the work, once, and are answered as before afterwards."""

import os
import signal
import threading

import pytest

from avts_tf.errors import Stopped
from avts_tf.signals import note_signals, stop_on_signals

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers():
    """After each test the handlers are those of before."""
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize('number', SIGNALS)
def test_a_signal_is_noted_and_a_second_one_ends_at_once(number):
    with pytest.raises(KeyboardInterrupt), note_signals() as interruption:
        assert not interruption.signal_number
        os.kill(os.getpid(), number)
        assert interruption.signal_number == number
        os.kill(os.getpid(), number)


@pytest.mark.parametrize('number', SIGNALS)
def test_a_signal_stops_the_work_once(number):
    written = []
    with pytest.raises(Stopped) as caught, stop_on_signals('What is done stays.'):
        try:
            os.kill(os.getpid(), number)
        except Exception:
            pytest.fail('work that catches errors must not catch this')
        finally:
            for other in SIGNALS:  # what is left to write is written
                os.kill(os.getpid(), other)
            written.append('the rest')
    assert str(caught.value) == f'stopped by {number.name}. What is done stays.'
    assert caught.value.signal_number == number and written == ['the rest']


def test_other_threads_are_left_alone():
    found = []

    def work():
        with note_signals() as interruption, stop_on_signals(''):
            found.append(interruption.signal_number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [0]
