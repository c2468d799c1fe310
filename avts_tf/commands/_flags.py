"""How a mode describes its flags, and the flags that several modes have."""

import dataclasses
import types
from collections.abc import Callable
from typing import Any

from absl import flags

from avts_tf.config import PRESETS, describe_parameter, parameters


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of the command line.

    Attributes:
        name: without dashes.
        default: value where it is not given; its type, where not None, is the flag's.
        help: what it means, with its unit.
        type: type of the value, where the default is None.
        choices: allowed values of a str.
        minimum, maximum: allowed range of a number.
        repeated: whether it may be given several times; the value is then a list.
    """

    name: str
    default: Any
    help: str
    type: type = str
    choices: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    repeated: bool = False

    def define(self, values: flags.FlagValues) -> None:
        """Defines it among absl's flags."""
        kind = type(self.default) if self.default is not None else self.type
        common: dict[str, Any] = {
            'name': self.name, 'default': self.default, 'help': self.help,
            'flag_values': values}
        if self.repeated:
            flags.DEFINE_multi_string(**common)
        elif self.choices:
            flags.DEFINE_enum(**common, enum_values=list(self.choices))
        elif kind in (int, float):
            define: Callable = flags.DEFINE_integer if kind is int else flags.DEFINE_float
            define(**common, lower_bound=self.minimum, upper_bound=self.maximum)
        else:
            defines: dict[type, Callable] = {bool: flags.DEFINE_boolean, list: flags.DEFINE_list}
            defines.get(kind, flags.DEFINE_string)(**common)


RUN_DIR = Flag('run_dir', 'runs/demo', 'Folder of the run: configuration, checkpoints, history, '
               'results, plots.')
RECORDS = Flag('records', None, 'Record files to train on: glob(s), separated by commas.')
RECORDS_OR_DEMO = dataclasses.replace(
    RECORDS, help=f'{RECORDS.help} Default: a synthetic world, written to RUN_DIR/world and '
                  'trained on with preset tiny.')
EVAL_RECORDS = Flag('eval_records', None, 'Record files to measure on; not trained on.')
SELECT_RECORDS = Flag('select_records', None, 'Record files to choose the best epoch or trial on. '
                      'Default: those of --eval_records, which then flatter what was chosen.')
EXPORT_DIR = Flag('export_dir', 'saved_models', 'Folder of the exported towers, TOWER/VERSION/.')
DEVICES = Flag('devices', 'auto', '"auto" is all GPUs, or the CPU; a number is of GPUs, or of '
               'logical CPU devices where there is no GPU.')
CHECKPOINT = Flag('checkpoint', 'newest', 'Checkpoint to take; the best is that of the epoch with '
                  'the highest AUC on hard negatives.', choices=('newest', 'best'))
OUTPUT = Flag('output', None, 'Folder of the results.')

PRESET = Flag('preset', None, 'Named values of the parameters, which parameter flags override.',
              choices=tuple(PRESETS))
_TITLES = {
    'clip': 'Clips', 'logmel': 'Log-mel front end', 'towers': 'Towers', 'pairs': 'Pairs',
    'augment': 'Augmentation', 'train': 'Training',
}


def flag_groups(command: types.ModuleType) -> dict[str, list[Flag]]:
    """The flags of a mode by the title of their group, those of its parameters too."""
    groups = {title: list(group) for title, group in command.FLAGS.items()}
    if command.PARAMETERS:
        groups['Configuration'] = [PRESET]
        for group, field in parameters():
            title = f'Parameters: {_TITLES.get(group, group)}'
            groups.setdefault(title, []).append(_of_parameter(field))
    return groups


def _of_parameter(field: dataclasses.Field) -> Flag:
    """The flag of a parameter of config.py; its value is None where the preset's holds."""
    # The range is checked by `make_config`, for Python and the command line alike.
    text = describe_parameter(field)
    return Flag(field.name, None, text[0].upper() + text[1:], type=type(field.default))
