"""What a writer is going to write: sources, shards, and every setting that decides a byte."""

import hashlib
import json
import math
import os
import random
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from avts_tf.data import datasets, media
from avts_tf.data.shards import shard_path
from avts_tf.data.workers import FILE_TIMEOUT_SECONDS
from avts_tf.errors import UserError
from avts_tf.files import ASIDE

RECORDS_PER_SHARD = 256
DEFAULTS = media.MediaOptions()
LIMITS = {
    'fps': (0.1, 1000), 'sample_rate': (1000, 192_000), 'max_seconds': (0, 86_400),
    'max_pixels': (64, 2**30), 'jpeg_quality': (1, 100), 'shards': (0, 99_999),
    'file_timeout_seconds': (0.1, 86_400), 'silent_below_db': (-120, 0), 'still_below': (0, 255),
    'hold_out': (0, 1), 'short_side': (8, 8192),  # or 0
}


class Recipe(NamedTuple):
    """What one source needs to become a record.

    Attributes:
        options: `media.MediaOptions` without times.
        labels: names of all classes, sorted.
        dataset_name: name of the collection.
        audio_encoding: 'pcm16' or 'float'.
        timeout_seconds: longest time for decoding.
    """

    options: media.MediaOptions
    labels: list[str]
    dataset_name: str
    audio_encoding: str
    timeout_seconds: float


class Plan(NamedTuple):
    """Everything that decides what is written.

    Attributes:
        output: folder and beginning of the shards' names.
        sources: list of `datasets.Source`.
        shards: per shard, the indices of its sources, in their order in the shard.
        recipe: a `Recipe`.
        settings: what the user chose, as NAME.json has it.
        digest: of settings, sources and the sizes of their files.
        files: digest of the files' sizes and times, by which work is resumed.
    """

    output: str
    sources: list
    shards: list[list[int]]
    recipe: Recipe
    settings: dict[str, Any]
    digest: str
    files: str

    @property
    def work_folder(self) -> str:
        """The folder of unfinished work, where no glob for the shards finds halves."""
        return self.output + ASIDE

    def shard_name(self, index: int) -> str:
        """File name of a shard."""
        return os.path.basename(shard_path(self.output, index, len(self.shards)))

    def tasks(self, indices: list[int]) -> Iterator[tuple[str, media.MediaOptions]]:
        """For each of these sources what `media.try_media` takes."""
        for index in indices:
            source = self.sources[index]
            yield source.path, self.recipe.options._replace(
                start_seconds=source.start_seconds, end_seconds=source.end_seconds)


def make_plan(
    input: str, output: str, *, dataset: str = '', split: str = '', hold_out: float = 0.0,
    part: str = '', fps: float = DEFAULTS.fps, short_side: int = DEFAULTS.short_side,
    sample_rate: int = DEFAULTS.sample_rate, shards: int = 0,
    max_seconds: float = DEFAULTS.max_seconds,
    max_pixels: int = DEFAULTS.max_pixels, jpeg_quality: int = DEFAULTS.jpeg_quality,
    audio_encoding: str = 'pcm16', file_timeout_seconds: float = FILE_TIMEOUT_SECONDS,
    dataset_name: str = '', label_column: str = '',
    audio_only: bool = False, silent_below_db: float = media.SILENT_BELOW_DB,
    still_below: float = media.STILL_BELOW,
) -> Plan:
    """Checks the options, which `write.write_records` describes, and finds the sources.

    Raises:
        UserError: a value is not allowed, or there is no input.
    """
    _check_values(locals())  # of all arguments
    if not output or output.endswith('/') or os.path.isdir(output):
        raise UserError('output', output,
                        'give a folder and the beginning of a name, such as "data/train".')
    collection = datasets.read_collection(input, dataset, label_column)
    sources = datasets.take_split(collection, split)
    if hold_out:
        sources = datasets.hold_out(sources, hold_out, part)
    if not sources:
        raise UserError('input', input, f'no source is in this part (`split`={split}, '
                        f'`hold_out`={hold_out}, `part`={part}).')
    count = shards or math.ceil(len(sources) / RECORDS_PER_SHARD)
    if count > len(sources):
        raise UserError('shards', count, f'more than the {len(sources)} source(s) of {input}.')

    audio_only = audio_only or datasets.DATASETS[dataset].audio_only
    options = media.MediaOptions(
        fps=float(fps), short_side=short_side, sample_rate=sample_rate,
        max_seconds=float(max_seconds), max_pixels=max_pixels, jpeg_quality=jpeg_quality,
        silent_below_db=float(silent_below_db), still_below=float(still_below),
        audio_only=audio_only,
    )
    recipe = Recipe(options, collection.labels, dataset_name or dataset or _name_of(input),
                    audio_encoding, float(file_timeout_seconds))
    settings = {
        'dataset_name': recipe.dataset_name, 'split': split, 'hold_out': float(hold_out),
        'part': part,
        **{key: value for key, value in options._asdict().items()
           if key not in ('start_seconds', 'end_seconds')},
        'audio_encoding': audio_encoding, 'file_timeout_seconds': recipe.timeout_seconds,
    }
    # Neighbours are often of one class or one scene; shards that are mixed help a reader's shuffle.
    mixed = random.Random(0).sample(range(len(sources)), len(sources))
    facts = [_file_facts(source.path) for source in sources]
    named = [(*source._replace(path=''), size)
             for source, (size, _) in zip(sources, facts, strict=True)]
    return Plan(output, sources, [mixed[shard::count] for shard in range(count)], recipe, settings,
                _digest([settings, count, collection.labels, named]), _digest(facts))


def _check_values(values: dict[str, Any]):
    for name, (least, most) in LIMITS.items():
        value = values[name]
        if name == 'short_side' and value == 0:
            continue
        if not least <= value <= most:
            zero = ', or be 0 to keep the size' if name == 'short_side' else ''
            raise UserError(name, value, f'must lie between {least} and {most}{zero}.')
    encoding, hold_out, part = (values[name] for name in ('audio_encoding', 'hold_out', 'part'))
    if encoding not in ('pcm16', 'float'):
        raise UserError('audio_encoding', encoding, 'must be pcm16 or float.')
    sides = ' or '.join(datasets.SIDES)
    if part and part not in datasets.SIDES:
        raise UserError('part', part, f'must be {sides}.')
    if part and not hold_out:
        raise UserError('part', part, 'needs `hold_out`, the part of the videos that is held out.')
    if hold_out and not part:
        raise UserError('hold_out', hold_out, f'needs `part`: {sides}.')


def _name_of(path: str):
    """The name of an input without folder, suffix and wildcards."""
    before_wildcard = re.split(r'[*?[]', path)[0]
    return os.path.splitext(os.path.basename(os.path.abspath(before_wildcard)))[0]


def _file_facts(path: str):
    """Size and time of change of a file, both None where it is missing."""
    try:
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns
    except (OSError, ValueError):  # a NUL in the path
        return None, None


def _digest(value: Any):
    return hashlib.sha256(json.dumps(value).encode('utf-8', 'surrogatepass')).hexdigest()[:32]
