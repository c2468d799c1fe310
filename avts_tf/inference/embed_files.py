"""Embeds files of audio or video, which other processes decode while the tower runs here.

Decoders are native code, and some files kill them. A file that cannot be used is reported and left
out. Imports no TensorFlow, so that the processes that decode start fast.
"""

import collections
import contextlib
import math
import os
import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from avts_tf import progress
from avts_tf.data import datasets, images, media, workers
from avts_tf.errors import UserError
from avts_tf.inference.embed import BATCH_SIZE, embed_streams
from avts_tf.inference.saved_towers import AudioFeatures, AudioTower, Tower, VideoFeatures

TIMEOUT_SECONDS = 120.0


def find_inputs(inputs: Iterable[str]) -> list[datasets.Source]:
    """The sources that several files, folders, globs or CSVs name.

    Raises:
        UserError: there is none, or two of different inputs would go by the same name.
    """
    found = (source for path in inputs for source in datasets.find_media(path))
    sources = list(dict.fromkeys(found))
    names = set()
    for source in sources:
        if source.example_id in names:
            raise UserError('input', None, f'{source.example_id} is in two of the inputs; give '
                            'the folder that holds both, or one input and one output at a time.')
        names.add(source.example_id)
    if not sources:
        raise UserError('input', None, 'give files, folders, a glob or a CSV of audio or video.')
    return sources


def is_video(source: datasets.Source) -> bool:
    """Whether a source has the suffix of a video."""
    return os.path.splitext(source.path)[1].lower() in datasets.VIDEO_SUFFIXES


def embed_sources(
    tower: Tower, sources: list[datasets.Source], hop_seconds: float | None = None,
    centered: bool = False, batch_size: int = BATCH_SIZE, num_workers: int = 0,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Iterator[tuple[float, AudioFeatures | VideoFeatures | media.Unsuitable]]:
    """Embeds files and shows the progress.

    Args:
        tower: what embeds them.
        sources: the files, or pieces of files.
        hop_seconds, centered, batch_size: see `AudioTower.embed`.
        num_workers: decoding processes; 0 takes one per two processors, the rest is for the tower.
        timeout_seconds: longest wait for the next block of a file.

    Yields:
        (seconds of input, features or `media.Unsuitable`), in the order of the sources.
    """
    num_workers = num_workers or max(1, (os.cpu_count() or 1) // 2)
    counts: collections.Counter[int] = collections.Counter()  # samples or frames of each source
    short_side = tower.metadata['clip']['frame_size']
    tasks = [(tower.name, source, tower.rate, short_side) for source in sources]
    decoded = workers.stream_in_order(read_blocks, tasks, num_workers, timeout_seconds)
    stream = read_ahead(decoded, 2 * num_workers)

    def items():
        for number, part, failure in stream:
            if part is None:
                part = media.Unsuitable(*failure) if failure else ()
            elif isinstance(part, tuple):
                part = media.Unsuitable(*part)
            else:
                counts[number] += len(part)
                duration = progress.duration(counts.total() / tower.rate)
                shown.set_postfix_str(duration, refresh=False)
            yield number, part

    bar = tqdm(total=len(sources), desc=tower.name, unit='file', smoothing=0.05)
    with contextlib.closing(stream), bar as shown:
        for number, result in embed_streams(tower, items(), hop_seconds, centered, batch_size):
            shown.update()
            yield counts[number] / tower.rate, result


def read_blocks(
    task: tuple[str, datasets.Source, float, int],
) -> Iterator[np.ndarray | tuple[str, str]]:
    """Decodes the piece of a file that a tower needs; for a worker of `workers.stream_in_order`.

    Args:
        task: (name of the tower, source, samples or frames per second, shorter side of a frame
            in pixels).

    Yields:
        Blocks, int16 [samples] or uint8 [frames, height, width, 3]; or last (reason, detail) of a
        `media.Unsuitable`.
    """
    name, source, rate, short_side = task
    first = round(source.start_seconds * rate)
    last = math.inf if source.end_seconds is None else round(source.end_seconds * rate)
    place = 0
    try:
        if name == AudioTower.name:
            blocks = media.audio_blocks(source.path, round(rate))
        else:
            blocks = (images.centred_square(np.array(block))
                      for block in media.video_blocks(source.path, rate, short_side))
        for block in blocks:
            low, high = max(first - place, 0), min(last - place, len(block))
            place += len(block)
            if low < high:
                yield block[low:high]
            if place >= last:
                return
    except media.Unsuitable as error:
        yield error.reason, error.detail


def read_ahead(items: Generator, depth: int) -> Generator[Any, None, None]:
    """Passes on what a generator yields while a thread takes up to `depth` items in advance."""
    line: queue.Queue[Any] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Any):
        while not stop.is_set():
            try:
                return line.put(item, timeout=0.1)
            except queue.Full:
                continue

    def fill():
        try:
            for item in items:
                put((item, None))
                if stop.is_set():
                    return
            put((None, StopIteration()))
        except Exception as error:  # raised where the items are taken
            put((None, error))
        finally:
            items.close()

    threading.Thread(target=fill, daemon=True).start()
    try:
        while True:
            item, error = line.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        stop.set()
