"""What a program does when it is asked to end, by Ctrl-C (SIGINT) or SIGTERM.

Work that can stop at any moment ends at once (`stop_on_signals`). Work that has to come to a good
point first asks whether a signal came (`note_signals`). Outside the main thread neither changes
anything: Python delivers signals to the main thread alone.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from avts_tf.errors import Stopped

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Whether the program was asked to end.

    Attributes:
        signal_number: number of the signal that came; 0 while none did.
    """

    def __init__(self) -> None:
        self.signal_number = 0


class _Signalled(KeyboardInterrupt):
    """Leaves the work from where a signal finds it; not an `Exception`, so that no work eats it."""


@contextlib.contextmanager
def note_signals() -> Iterator[Interruption]:
    """Within it the first signal is only noted; a second one raises `KeyboardInterrupt`.

    Yields:
        `Interruption`.

    Example:
        >>> with note_signals() as interruption:
        ...     while not interruption.signal_number:
        ...         train_step()
    """
    interruption = Interruption()

    def note(number: int, _: FrameType | None) -> None:
        if interruption.signal_number:
            raise KeyboardInterrupt
        interruption.signal_number = number

    with _handled_by(note):
        yield interruption


@contextlib.contextmanager
def stop_on_signals(what_stays: str) -> Iterator[None]:
    """Within it the first signal ends the work at once; further ones are ignored until it is left.

    So what `finally` clauses still have to write is written.

    Args:
        what_stays: for the message: what is kept, and how to resume.

    Raises:
        Stopped: a signal came.

    Example:
        >>> with stop_on_signals('The same command resumes the work.'):
        ...     embed_files()
    """
    def stop(number: int, _: FrameType | None) -> None:
        for other in _SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        raise _Signalled(number)

    try:
        with _handled_by(stop):
            yield
    except _Signalled as signalled:
        number = signalled.args[0]
        name = signal.Signals(number).name
        raise Stopped(f'stopped by {name}. {what_stays}', number) from None


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within it a function answers the signals; after it what answered them before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
