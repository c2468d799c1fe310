"""What programs share: flags are read first, then TensorFlow is imported, without its noise.

The library speaks through `logging`, by loggers below `avts_tf` and `tfrecords_tools`: what is
worth knowing as INFO, what is amiss as WARNING. A program shows both on standard output.
"""

import contextlib
import importlib
import io
import logging
import os
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from typing import Any

import tqdm
from absl import app, flags
from absl import logging as absl_logging

from avts_tf.errors import Stopped, UserError


def name() -> str:
    """What the running program is called, for messages: main.py, avts, write.py."""
    return os.path.basename(sys.argv[0])


def command() -> list[str]:
    """The words that a command line begins with: `avts` where that is what is running."""
    return ['avts'] if name() == 'avts' else ['python', 'main.py']


def run(
    main: Callable[[Any], None], *, read: Callable[[list[str]], Any] | None = None,
    known_only: bool = False, tensorflow: bool = True,
) -> None:
    """Reads the flags and runs a program.

    --help ends with status 0; a flag that cannot be read, or a `UserError`, with one message and
    status 2; a signal with one message and 128 + its number.

    Args:
        main: function of what `read` returns.
        read: function of the arguments, the name of the program first; None reads absl's global
            flags and returns the arguments that are no flags, the name of the program first.
        known_only: whether `main` gets flags that are not defined, instead of their being refused.
        tensorflow: whether `main` needs TensorFlow, which is then imported before it.
    """
    # TensorFlow's own notes say nothing to a user; what goes wrong still raises an exception.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

    def parse(argv: list[str]) -> Any:
        with explaining(name()):
            try:
                if read:
                    flags.FLAGS(argv[:1])  # absl's own, which its `app` looks at
                    result = read(argv)
                else:
                    result = _read_global_flags(argv, sys.modules[main.__module__], known_only)
            except BrokenPipeError:  # --help | head
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                sys.exit(0)
            if tensorflow:
                import_tensorflow()
        return result

    def explained(result: Any) -> None:
        # TensorFlow's and Keras's notes; ours go through `logging`.
        absl_logging.set_verbosity(absl_logging.WARNING)
        with explaining(name()):
            main(result)

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')  # names of files are any bytes
    show_messages()
    app.run(explained, flags_parser=parse)


def _read_global_flags(
    argv: list[str], module: types.ModuleType, known_only: bool,
) -> list[str]:
    for flag in flags.FLAGS.get_key_flags_for_module(module):  # --help shows those of this name
        flags.FLAGS.register_key_flag_for_module(argv[0], flag)
    sys.modules['__main__'].__doc__ = module.__doc__
    try:
        return flags.FLAGS(argv, known_only=known_only)
    except flags.Error as error:
        raise UserError(None, None, f'{error} (--help lists the flags)') from None
    except SystemExit:  # of absl's help flags, with the status of a failure
        sys.exit(0)


@contextlib.contextmanager
def explaining(who: str) -> Iterator[None]:
    """Ends the program with a message and a status instead of a stack trace.

    Args:
        who: what the message begins with, such as the name of the program.
    """
    try:
        yield
    except UserError as error:
        print(f'{who}: {error.on_command_line()}', file=sys.stderr)
        sys.exit(2)
    except Stopped as stop:
        print(f'{who}: {stop}', file=sys.stderr)
        sys.exit(128 + stop.signal_number)
    except KeyboardInterrupt:
        print(f'{who}: stopped. The same command resumes the work.', file=sys.stderr)
        sys.exit(130)


class _Messages(logging.Handler):
    """Prints messages, and moves a progress bar out of their way."""

    def emit(self, record: logging.LogRecord) -> None:
        level = '' if record.levelno <= logging.INFO else f'{record.levelname}: '
        with tqdm.tqdm.external_write_mode():
            print(f'{level}{record.getMessage()}', flush=True)


def show_messages() -> None:
    """Has the messages of the library appear on standard output."""
    for package in ('avts_tf', 'tfrecords_tools'):
        logger = logging.getLogger(package)
        logger.handlers = [_Messages()]
        logger.setLevel(logging.INFO)
        logger.propagate = False


def import_tensorflow() -> None:
    """Imports TensorFlow and keeps back what its libraries print meanwhile, unless it fails.

    They obey no log level while they are loaded.
    """
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            importlib.import_module('tensorflow')
        except BaseException:
            kept.seek(0)
            os.write(shown, kept.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)
