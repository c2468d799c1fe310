"""Signals that ask the process to end."""

import signal
import threading


class StopSignals:
    """Within it SIGTERM and Ctrl-C are noted instead of ending the process; a second one ends it.

    Outside of the main thread, where Python allows no handlers, it does nothing.

    Attributes:
        received: number of the signal that came; 0 if none has.

    Example:
        >>> with StopSignals() as signals:
        ...     for step in range(3):
        ...         if signals.received:
        ...             break
    """

    def __init__(self):
        self.received = 0
        self._before = {}

    def __enter__(self) -> 'StopSignals':
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note)
                            for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = number
