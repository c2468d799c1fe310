"""Command line of AVTS for TensorFlow.

    python main.py --mode=MODE [--flag=value ...]      or, where the package is installed, avts ...

With no flags it writes a small synthetic world, trains the `tiny` preset on it through both stages
of the curriculum, measures synchronisation on videos that it never saw, and exports both towers.
"""

import functools
import itertools
import shutil
import sys
import textwrap
import types
from collections.abc import Callable

from absl import flags

from avts_tf import commands, program
from avts_tf.commands._flags import Flag, flag_groups
from avts_tf.config import parameters
from avts_tf.errors import UserError

DEFAULT_MODE = 'train'
_HELP = ('help', 'helpshort', 'helpfull', 'h', '?')


def run() -> None:
    """Runs the command line."""
    program.run(lambda call: call(), read=lambda argv: read(argv[1:]))


def read(arguments: list[str]) -> Callable[[], None]:
    """Reads the arguments of the command line, without those of the program's name.

    Returns:
        The call that does what they ask for.

    Raises:
        UserError: a flag or a value does not exist, or is not of this mode.
    """
    arguments = flags.FlagValues().read_flags_from_files(arguments)  # of --flagfile
    given = _given(arguments)
    mode = given.get('mode', DEFAULT_MODE)
    if mode not in commands.modes():
        raise UserError('mode', mode, f'use one of {", ".join(commands.modes())}.')
    command = commands.load(mode)
    groups = flag_groups(command)
    if not given.keys().isdisjoint(_HELP):
        print(_help_on_mode(mode, command, groups) if 'mode' in given else _help())
        sys.exit(0)
    own = [flag for group in groups.values() for flag in group]
    _refuse_unknown(given, mode, {flag.name for flag in own})
    values = flags.FlagValues()
    flags.DEFINE_string('mode', mode, 'What to do.', flag_values=values)
    for flag in own:
        flag.define(values)
    try:
        rest = values(['', *arguments])[1:]
    except flags.Error as error:
        raise UserError(None, None, f'{error} (--help lists the flags)') from None
    if rest:
        raise UserError(None, repr(rest[0]), 'is no flag; flags look like --name=value (--help '
                        'lists them).')
    of_config = {field.name for _, field in parameters()} if command.PARAMETERS else set()
    chosen = {name: values[name].value for name in of_config if values[name].value is not None}
    others = {flag.name: values[flag.name].value for flag in own if flag.name not in of_config}
    return functools.partial(command.run, types.SimpleNamespace(**others, parameters=chosen))


def _given(arguments: list[str]) -> dict[str, str]:
    """Dict from the name of each flag in the arguments to its value, '' where it has none."""
    given = {}
    for argument, following in itertools.pairwise([*arguments, '']):
        if argument == '--':
            break
        if argument.startswith('-'):
            name, equals, value = argument.lstrip('-').partition('=')
            given[name] = value if equals else '' if following.startswith('-') else following
    return given


def _refuse_unknown(given: dict[str, str], mode: str, own: set[str]) -> None:
    """Raises a `UserError` where a flag belongs to other modes."""
    for name in given:
        names = {name, name.removeprefix('no')}
        if names.isdisjoint(own):
            readers = [other for other in commands.modes()
                       for group in flag_groups(commands.load(other)).values()
                       if any(flag.name in names for flag in group)]
            if readers:
                raise UserError(name, None, f'has no meaning for `mode`={mode}, only for '
                                f'{", ".join(dict.fromkeys(readers))}; leave it out.')


def _help() -> str:
    """What the program is, and a line for each mode."""
    modes = '\n'.join(f'  {mode:<22}{_summary(commands.load(mode))}' for mode in commands.modes())
    return (f'{__doc__}\nModes (the default is {DEFAULT_MODE}; --mode=MODE --help lists the flags '
            f'of one):\n{modes}')


def _summary(command: types.ModuleType) -> str:
    return (command.__doc__ or '').partition('\n')[0]


def _help_on_mode(mode: str, command: types.ModuleType, groups: dict[str, list[Flag]]) -> str:
    """The flags of a mode, group by group."""
    width = min(shutil.get_terminal_size().columns, 100)
    lines = [f'{" ".join(program.command())} --mode={mode}',
             *textwrap.wrap(_summary(command), width)]
    for title, group in groups.items():
        lines.append(f'\n{title}')
        for flag in group:
            lines.append(f'  --{flag.name}{_values(flag)}')
            default = f' Default: {flag.default}.' if flag.default not in (None, '', False) else ''
            lines += textwrap.wrap(flag.help + default, width, initial_indent=' ' * 6,
                                   subsequent_indent=' ' * 6)
    return '\n'.join(lines)


def _values(flag: Flag) -> str:
    """What a flag may be, for --help: `=NUMBER`, `=a|b`."""
    if flag.choices:
        return f'={"|".join(flag.choices)}'
    kind = type(flag.default) if flag.default is not None else flag.type
    if kind is bool:
        return f' (--no{flag.name})'
    return {int: '=WHOLE_NUMBER', float: '=NUMBER', list: '=A,B,...'}.get(kind, '=TEXT')
