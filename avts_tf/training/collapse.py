"""When a training has learned nothing, and what may help."""

import itertools

from avts_tf.config import Config
from avts_tf.data.sampling import Kind
from avts_tf.training.curriculum import parse_regime

COLLAPSED_SPREAD = 0.02  # of 1: embeddings of length 1 that point anywhere have spread 1
CHANCE_AUC = 0.55
COLLAPSE_STEPS = 200     # steps at chance after the warm-up; what learns has left it by then


def learns_nothing(row: dict, config: Config) -> bool:
    """Whether after an epoch the AUC is at chance or all embeddings lie in one point.

    Never of SoundNet: it follows its teacher, and where that says much the same of all clips, the
    AUC stays at chance. Only AVTS has embeddings of length 1.

    Args:
        row: row of history.csv.
        config: `Config`.
    """
    towers = config.towers
    if towers.system == 'soundnet':
        return False
    at_chance = max(row.get('auc_easy', 1.0), row.get('auc_hard', 0.0)) < CHANCE_AUC
    has_length = towers.system == 'avts' and towers.normalize == 'length'
    return at_chance or (has_length and row['spread'] < COLLAPSED_SPREAD)


def is_collapsed(rows: list[dict], steps_per_epoch: int, config: Config) -> bool:
    """Whether the last `COLLAPSE_STEPS` steps or more, after the warm-up, learned nothing.

    Args:
        rows: rows of history.csv, the newest last.
        steps_per_epoch: steps of each.
        config: `Config`.
    """
    stuck = list(itertools.takewhile(lambda row: learns_nothing(row, config), rows[::-1]))
    steps = min(len(stuck) * steps_per_epoch,
                len(rows) * steps_per_epoch - config.train.warmup_steps)
    return steps >= COLLAPSE_STEPS


def remedies(config: Config) -> list[dict]:
    """What may help a training that learns nothing, and what it does not have yet.

    Returns:
        List of parameters by name with their values, the most promising first.

    Example:
        >>> remedies(make_config('tiny'))[0]
        {'crop_scale_min': 1.0}
    """
    towers, augment, train = config.towers, config.augment, config.train
    found: list[tuple[dict, bool]] = [
        ({'head': 'spans'}, towers.system == 'avts' and towers.head != 'spans'
         and towers.embedding_size % towers.head_spans == 0),
        ({'crop_scale_min': 1.0}, augment.crop_scale_min < 1),
        ({'colour_jitter': 0.0}, augment.colour_jitter > 0),
        ({'optimizer': 'adamw', 'learning_rate': 1e-3}, train.optimizer != 'adamw'),
        ({'learning_rate': 1e-3}, train.optimizer == 'adamw' and train.learning_rate > 1e-3),
    ]
    if towers.system == 'avts':
        contrastive = train.loss == 'contrastive'
        found += [
            ({'regime': 'curriculum_mixed'},
             parse_regime(train.regime, train.epochs).mix(0)[Kind.EASY] < 1),
            ({'normalize': 'whiten'}, towers.normalize != 'whiten'),
            ({'easy_negatives': 'weighted'}, contrastive and train.easy_negatives != 'weighted'),
            ({'margin': 1.3}, contrastive and towers.normalize == 'length' and train.margin < 1.3),
            ({'loss': 'infonce'}, not (train.loss == 'infonce' or config.pairs.audio_windows == 1)),
        ]
    return [values for values, missing in found if missing]


def describe_remedies(config: Config) -> str:
    """The `remedies` in words, or ''."""
    words = [' '.join(f'`{name}={value}`' for name, value in values.items())
             for values in remedies(config)]
    return f', or start with a new `run_dir` and {", ".join(words)}' if words else ''
