"""What can go wrong in ways that the user can mend."""

import re


class UserError(Exception):
    """A mistake that the user can mend.

    As text it reads `name=value: problem`, in the words of Python. The command line shows
    `on_command_line()` instead, and no stack trace.

    Args:
        name: parameter that is wrong, such as `batch_size`; None where the fault is not one
            parameter's.
        value: its value; or, where `name` is None, the file or thing that the problem lies in;
            None where there is none.
        problem: what is wrong, what is allowed and what to do. Other parameters stand in it
            between backticks, such as `` `margin` ``.
    """

    def __init__(self, name: str | None, value: object, problem: str) -> None:
        self.name, self.value, self.problem = name, value, problem
        super().__init__(self._text(name, problem))

    def on_command_line(self) -> str:
        """The same with `--` before each parameter."""
        name = self.name and f'--{self.name}'
        return self._text(name, re.sub(r'`([a-z]\w*)', r'`--\1', self.problem).replace('`', ''))

    def _text(self, name: str | None, problem: str) -> str:
        if name and self.value is not None:
            return f'{name}={self.value}: {problem}'
        place = name or self.value
        return f'{place}: {problem}' if place is not None else problem


class Diverged(UserError):
    """The loss, weights or embeddings are NaN or infinite.

    The parameters do not learn on these records.
    """


class Stopped(Exception):
    """A signal stopped the work; what was done is saved. The message says how to resume.

    Args:
        message: the line for the user.
        signal_number: number of the signal, such as 15 for SIGTERM.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
