"""What can go wrong in ways that the user can mend."""


class UserError(Exception):
    """A mistake that the user can mend. The message names the file or flag, the value and what to do; no stack trace."""


class Diverged(UserError):
    """The loss, or what came of it, is no number: these parameters do not learn on these records."""


class Stopped(Exception):
    """A signal stopped the work, in good order. The message says how to go on.

    Args:
        message: the line for the user.
        signal_number: number of the signal, such as 15 for SIGTERM.
    """

    def __init__(self, message, signal_number):
        super().__init__(message)
        self.signal_number = signal_number
