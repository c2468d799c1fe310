"""What the command line can do: one module per --mode.

A module `MODE.py` holds all that a mode is:

    the docstring     its first line says in one sentence what the mode does, for --help
    FLAGS             dict from the title of a group in --help to a list of `Flag`
    PARAMETERS        True where the mode makes a configuration: it then has --preset and a flag
                      for each parameter of config.py
    run(flags)        does it; `flags` has a field for each flag, and `parameters`, a dict of the
                      parameters of config.py that were given

Modules whose names begin with an underscore are shared by the others. To add a mode, add its file.
Modules import what is heavy inside `run`, so that --help and a mistyped flag are answered at once.
"""

import importlib
import pkgutil
import types


def modes() -> list[str]:
    """The names of all modes, in alphabetical order."""
    return sorted(found.name for found in pkgutil.iter_modules(__path__)
                  if not found.name.startswith('_'))


def load(mode: str) -> types.ModuleType:
    """The module of a mode."""
    return importlib.import_module(f'{__name__}.{mode}')
