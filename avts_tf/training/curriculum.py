"""Which negatives are drawn in which epoch.

A curriculum is a list of stages, a stage is a mix of negatives and a number of epochs. The stage
follows from the epoch number alone, so that nothing needs to be remembered when a training is
resumed.
"""

import collections.abc
import dataclasses
import itertools
import re

import keras

from avts_tf.data.sampling import NEGATIVES, Kind
from avts_tf.data.state import PipelineState
from avts_tf.errors import UserError

# The regimes of the paper's curriculum table; the curricula change after 50 of 90 epochs.
FIRST_STAGE = 50 / 90
REGIMES = {
    'easy': ['easy'],
    'mixed': ['easy=0.75+hard=0.25'],
    'hard': ['hard'],
    'curriculum_mixed': ['easy', 'easy=0.75+hard=0.25'],
    'curriculum_hard': ['easy', 'hard'],
}


class NegativeMix(collections.abc.Mapping):
    """A mapping from each kind of negative to its part among the negatives; the parts add up to 1.

    Args:
        **parts: part in [0, 1] of each kind; one that is not named has none.

    Example:
        >>> NegativeMix(easy=0.75, hard=0.25)[Kind.HARD]
        0.25
    """

    def __init__(self, **parts: float) -> None:
        self._parts = {kind: parts.pop(str(kind), 0.0) for kind in NEGATIVES}
        if parts:
            raise ValueError(f'unknown kinds of negatives: {", ".join(parts)}; use '
                             f'{", ".join(map(str, NEGATIVES))}.')

    def __getitem__(self, kind: Kind) -> float:
        return self._parts[kind]

    def __iter__(self) -> collections.abc.Iterator[Kind]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __hash__(self) -> int:
        return hash(tuple(self._parts.items()))

    def vector(self) -> list[float]:
        """The parts in the order of `NEGATIVES`, as a pipeline reads them."""
        return list(self._parts.values())

    def __str__(self) -> str:
        parts = [(kind, part) for kind, part in self._parts.items() if part > 0]
        if len(parts) == 1:
            return str(parts[0][0])
        return '+'.join(f'{kind}={part:g}' for kind, part in parts)

    def __repr__(self) -> str:
        parts = ', '.join(f'{kind}={part!r}' for kind, part in self._parts.items())
        return f'NegativeMix({parts})'


@dataclasses.dataclass(frozen=True)
class Stage:
    """A number of epochs with one mix."""

    mix: NegativeMix
    epochs: int


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """Stages one after the other.

    Example:
        >>> easy, mixed = NegativeMix(easy=1.0), NegativeMix(easy=0.75, hard=0.25)
        >>> curriculum = Curriculum((Stage(easy, 50), Stage(mixed, 40)))
        >>> str(curriculum)
        'easy:50,easy=0.75+hard=0.25:40'
    """

    stages: tuple[Stage, ...]

    @property
    def epochs(self) -> int:
        """Epochs of all stages together."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def stage_starts(self) -> tuple[int, ...]:
        """The epoch, from 0, with which each stage begins."""
        ends = itertools.accumulate(stage.epochs for stage in self.stages)
        return (0, *ends)[:-1]

    def stage(self, epoch: int) -> int:
        """The index of the stage of an epoch, which counts from 0; the last stage never ends."""
        for index, stage in enumerate(self.stages):
            epoch -= stage.epochs
            if epoch < 0:
                return index
        return len(self.stages) - 1

    def mix(self, epoch: int) -> NegativeMix:
        """The `NegativeMix` of an epoch, which counts from 0."""
        return self.stages[self.stage(epoch)].mix

    def __str__(self) -> str:
        return ','.join(f'{stage.mix}:{stage.epochs}' for stage in self.stages)


def parse_mix(text: str) -> NegativeMix:
    """Reads "hard" or "easy=0.75+hard=0.25".

    Raises:
        UserError: a kind is unknown, a part is negative or not a number, or they do not add up
            to 1.

    Example:
        >>> parse_mix('easy=0.75+hard=0.25')[Kind.EASY]
        0.75
    """
    parts = {}
    for item in text.split('+'):
        name, _, part = item.partition('=')
        name = name.strip().replace('-', '_')
        if name not in map(str, NEGATIVES):
            raise UserError('regime', text, f'unknown negatives {name!r}; use '
                            f'{", ".join(map(str, NEGATIVES))}.')
        if name in parts:
            raise UserError('regime', text, f'{name!r} is given twice.')
        try:
            parts[name] = float(part) if part else 1.0
        except ValueError:
            raise UserError('regime', text, f'{part!r} is not a number.') from None
    # Written so that a part that is NaN fails too.
    if not (min(parts.values()) >= 0 and abs(sum(parts.values()) - 1) <= 1e-6):
        raise UserError('regime', text, 'the parts must lie in [0, 1] and add up to 1, such as '
                        'easy=0.75+hard=0.25.')
    return NegativeMix(**parts)


def parse_regime(regime: str, epochs: int) -> Curriculum:
    """The curriculum of a regime.

    Args:
        regime: a key of `REGIMES`, or stages such as "easy:50,easy=0.75+hard=0.25:40".
        epochs: epochs of a regime given by name; the curricula change after five ninths of them.

    Returns:
        A `Curriculum`.

    Raises:
        UserError: the regime cannot be read.

    Example:
        >>> str(parse_regime('curriculum_hard', epochs=90))
        'easy:50,hard:40'
    """
    if regime in REGIMES:
        mixes = [parse_mix(text) for text in REGIMES[regime]]
        if len(mixes) == 1:
            return Curriculum((Stage(mixes[0], epochs),))
        if epochs < 2:
            raise UserError('epochs', epochs, f'`regime={regime}` has two stages and needs at '
                            'least 2 epochs.')
        first = min(max(round(epochs * FIRST_STAGE), 1), epochs - 1)
        return Curriculum((Stage(mixes[0], first), Stage(mixes[1], epochs - first)))
    stages = []
    for part in regime.split(','):
        match = re.fullmatch(r'(.+):\s*(\d+)\s*', part)
        if not match or int(match[2]) < 1:
            raise UserError(
                'regime', regime, f'cannot read {part!r}. Use {", ".join(REGIMES)}, or stages, '
                'each a mix of negatives, a colon and a number of epochs, such as '
                '"easy:50,easy=0.75+hard=0.25:40".')
        stages.append(Stage(parse_mix(match[1]), int(match[2])))
    return Curriculum(tuple(stages))


class CurriculumCallback(keras.callbacks.Callback):
    """Sets the mix and the epoch that the pipeline reads, between epochs; logs the `stage`.

    An epoch's iterator is made after the epoch before has ended, and both variables are assigned
    by then: no pair of the old mix is drawn after a change of stage.

    Args:
        curriculum: `Curriculum`.
        state: `PipelineState` of the dataset that is trained on.
        initial_epoch: epoch that training starts with, from 0.
        epochs_before: epochs of another training whose weights this one starts from; the pipeline
            draws what comes after them.

    Example:
        >>> config, state = make_config('tiny'), PipelineState()
        >>> dataset = make_dataset('data/train-*', config, state=state)
        >>> curriculum = parse_regime(config.train.regime, config.train.epochs)
        >>> model = build_two_tower(config)
        >>> model.compile(optimizer=keras.optimizers.AdamW(1e-3))
        >>> model.fit(dataset, epochs=curriculum.epochs,
        ...           callbacks=[CurriculumCallback(curriculum, state)])
    """

    def __init__(self, curriculum: Curriculum, state: PipelineState, initial_epoch: int = 0,
                 epochs_before: int = 0) -> None:
        super().__init__()
        self._epochs_before = epochs_before
        self.curriculum = curriculum
        self.state = state
        self._set(initial_epoch)

    def _set(self, epoch: int) -> None:
        self.state.epoch.assign(self._epochs_before + epoch)
        self.state.mix.assign(self.curriculum.mix(epoch).vector())

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs is not None:
            logs['stage'] = self.curriculum.stage(epoch)
        self._set(epoch + 1)
