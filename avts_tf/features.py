"""Embeds sounds and videos, arrays or files, with exported towers.

    tower = avts_tf.load_tower('saved_models/audio_tower')
    features = tower.embed(waveform, sample_rate)            # embedding [T, D], conv5 [T, C], timestamps [T]

The rule of windows, the same for samples and frames, for arrays and files, and that of the signature `windows`. Window i starts
at round(i * hop_seconds * rate), halves up, the hop taken to the microsecond. There are 1 + ceil((items - window) / hop) windows,
at least one, but none that starts after the end; what the last one lacks is silence, or the last frame again. `timestamps` are the
centres of the windows, in seconds from the first sample or frame. `centered` puts half a window of silence (or of the first and
the last frame) before and after, so that the first centre is 0 (half a frame later where a window has an odd number of them).

The rule of sound. It becomes mono 16-bit PCM at the tower's sample rate, as the towers were trained on: what lies beyond full
scale is clipped, channels are mixed and rates are changed by FFmpeg's resampler at its defaults (stereo is the mean of both
channels; a count of channels stands for its usual layout, so 6 are 5.1), 8-bit samples are unsigned with 128 as silence.

TensorFlow is imported when a tower is loaded, and not before: decoding processes import this file.
"""

import collections
import contextlib
import csv
import fractions
import hashlib
import itertools
import json
import math
import os
import queue
import threading
from typing import NamedTuple

import av
import numpy as np
from tqdm import tqdm

from avts_tf import layouts, media, workers
from avts_tf.config import UserError

BATCH_SIZE = 32
TIMEOUT_SECONDS = 120.0
FILES_PER_SHARD = 1000
REPORT_COLUMNS = ('path', 'tower', 'status', 'reason', 'detail', 'seconds', 'windows', 'output')
MICROSECONDS = 1_000_000
# Formats of FFmpeg by the dtype of samples.
_FORMATS = {'int16': 's16', 'uint8': 'u8', 'int32': 's32', 'float32': 'flt', 'float64': 'dbl'}
_LAYOUTS = ('mono', 'stereo', '2.1', '4.0', '5.0', '5.1', '6.1', '7.1')  # FFmpeg's own choice by the count of channels
_BLOCK_SAMPLES = 65536


class AudioFeatures(NamedTuple):
    """What the audio tower makes of a sound.

    Attributes:
        embedding: float32 [T, D], comparable with the video tower's.
        conv5: float32 [T, C], the fifth convolution averaged over time and frequency: features for classification.
        timestamps: float64 [T], centre of each window, in seconds.
    """

    embedding: np.ndarray
    conv5: np.ndarray
    timestamps: np.ndarray


class VideoFeatures(NamedTuple):
    """What the video tower makes of a video.

    Attributes:
        embedding: float32 [T, D], comparable with the audio tower's.
        features: float32 [T, C], the last convolution averaged over time and space.
        timestamps: float64 [T], centre of each window, in seconds.
    """

    embedding: np.ndarray
    features: np.ndarray
    timestamps: np.ndarray


class Tower:
    """An exported tower, loaded from its folder alone.

    Attributes:
        path: folder of the version.
        metadata: dict, what the export says of the tower.
        rate: samples or frames per second.
        window: samples or frames in a window.
    """

    def __init__(self, path, metadata, loaded, rate, window):
        self.path, self.metadata, self.rate, self.window = path, metadata, rate, window
        self._loaded = loaded  # its variables live as long as it does
        self._signature = loaded.signatures[self.signature]

    def run(self, windows):
        """Outputs for a batch of windows [batch, window, ...]: dict of float32 [batch, size]."""
        outputs = self._signature(**{self.name_of_input: windows})
        return {name: value.numpy() for name, value in outputs.items()}

    def _embed(self, blocks, hop_seconds, centered, batch_size):
        (_, features), = embed_streams(self, ((None, block) for block in blocks), hop_seconds, centered, batch_size)
        return features


class AudioTower(Tower):
    """Embeds sounds; see `Tower`."""

    name, name_of_input, signature, result, repeat_ends = 'audio_tower', 'waveform', 'pcm', AudioFeatures, False

    def embed(self, waveform, sample_rate, hop_seconds=None, centered=False, batch_size=BATCH_SIZE):
        """Embeds a sound, window by window, by the rules at the head of this file.

        Args:
            waveform: int16, uint8, int32 or, in [-1, 1], float [samples] or [samples, channels]; 1 to 8 channels.
            sample_rate: Hz.
            hop_seconds: step between windows; None sets them end to end.
            centered: whether the first window's centre is the first sample.
            batch_size: windows that go through the tower at once.

        Returns:
            `AudioFeatures`.

        Raises:
            UserError: the sound is empty, holds NaN or infinity, or has another shape or dtype; or a value is not allowed.
        """
        return self._embed(pcm_blocks(waveform, sample_rate, self.rate), hop_seconds, centered, batch_size)


class VideoTower(Tower):
    """Embeds frames; see `Tower`."""

    name, name_of_input, signature, result, repeat_ends = 'video_tower', 'frames', 'serving_default', VideoFeatures, True

    def embed(self, frames, fps, hop_seconds=None, centered=False, batch_size=BATCH_SIZE):
        """Embeds a video, window by window, by the rules at the head of this file.

        Args:
            frames: uint8 [frames, height, width, 3], RGB. Cropped to the centred square and resized by the tower.
            fps: frames per second. Where the tower's differs, its frame i is the one whose time is nearest to i / the tower's.
            hop_seconds, centered, batch_size: as in `AudioTower.embed`.

        Returns:
            `VideoFeatures`.

        Raises:
            UserError: there is no frame, the shape or the dtype is another, or a value is not allowed.
        """
        frames = np.asarray(frames)
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
            raise UserError(f'frames: must be uint8 [frames, height, width, 3] with at least one pixel, not {frames.dtype} '
                            f'{list(frames.shape)}.')
        if not 0 < fps < float('inf'):
            raise UserError(f'fps={fps}: must be above 0.')
        count = max(1, int(len(frames) / fps * self.rate + 1e-6))
        # Halves go to the earlier frame, as they do when records are written.
        index = np.ceil(np.arange(count) / self.rate * fps - 0.5 - 1e-6).astype(int).clip(0, len(frames) - 1)
        blocks = (frames[index[first:first + self.window]] for first in range(0, count, self.window))
        return self._embed(blocks, hop_seconds, centered, batch_size)


TOWERS = {tower.name: tower for tower in (AudioTower, VideoTower)}


def load_tower(path):
    """Loads an exported tower.

    Args:
        path: folder of a version, or of the tower: then its newest version.

    Returns:
        `AudioTower` or `VideoTower`.

    Raises:
        UserError: there is no tower of this project in the folder.
    """
    version = newest_version(path)
    metadata = read_metadata(version)
    import tensorflow as tf  # takes seconds
    try:
        loaded = tf.saved_model.load(version)
        if metadata['tower'] == AudioTower.name:
            return AudioTower(version, metadata, loaded, metadata['sample_rate'], metadata['clip']['window_samples'])
        return VideoTower(version, metadata, loaded, metadata['clip']['fps'], metadata['clip']['frames'])
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        raise UserError(f'{version}: does not load as a tower: {type(error).__name__}: {error}') from error


def newest_version(path):
    """The folder of a tower's newest version, or the path itself where that is a version.

    Raises:
        UserError: there is no SavedModel.
    """
    path = os.fspath(path)
    if not os.path.isdir(path):
        raise UserError(f'{path}: there is no such folder; give one that --mode=export wrote, such as saved_models/audio_tower.')
    if _is_model(path):
        return path
    versions = [int(name) for name in os.listdir(path) if name.isdigit() and _is_model(os.path.join(path, name))]
    if versions:
        return os.path.join(path, str(max(versions)))
    towers = [name for name in TOWERS if os.path.isdir(os.path.join(path, name))]
    hint = f'; it holds {" and ".join(towers)}: give one of them' if towers else ''
    raise UserError(f'{path}: no SavedModel in it, nor in a folder with a number in it{hint}.')


def _is_model(path):
    return os.path.isfile(os.path.join(path, 'saved_model.pb'))


def read_metadata(version):
    """What the export says of a tower: the dict in `assets/metadata.json` of a version's folder.

    Raises:
        UserError: it is missing or none of this project's.
    """
    path = os.path.join(version, 'assets', 'metadata.json')
    try:
        with open(path, encoding='utf-8') as file:
            metadata = json.load(file)
        if metadata['tower'] in TOWERS:
            return metadata
        reason = f'"tower" is {metadata["tower"]!r}'
    except FileNotFoundError:
        reason = 'it has no assets/metadata.json'
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f'assets/metadata.json: {type(error).__name__}: {error}'
    raise UserError(f'{version}: no tower of this project ({reason}). Export it again with --mode=export.')


def pcm_blocks(waveform, sample_rate, target_rate):
    """Turns a sound into mono 16-bit PCM by the rule at the head of this file.

    Args:
        waveform, sample_rate: see `AudioTower.embed`.
        target_rate: Hz.

    Returns:
        Iterator of int16 [samples], together round(samples / sample_rate * target_rate), at least 1.

    Raises:
        UserError: see `AudioTower.embed`.
    """
    waveform = np.asarray(waveform)
    if waveform.dtype == np.float16:
        waveform = waveform.astype(np.float32)
    if waveform.dtype.name not in _FORMATS:
        raise UserError(f'waveform: samples must be {", ".join(_FORMATS)}, not {waveform.dtype}.')
    if waveform.ndim not in (1, 2):
        raise UserError(f'waveform: must be [samples] or [samples, channels], not of shape {list(waveform.shape)}.')
    if not waveform.size:
        raise UserError('waveform: is empty; there is nothing to embed.')
    if waveform.ndim == 2 and waveform.shape[1] > len(_LAYOUTS):
        raise UserError(f'waveform: {waveform.shape[1]} channels in {list(waveform.shape)}; must be [samples, channels] with at '
                        f'most {len(_LAYOUTS)}.')
    if sample_rate != int(sample_rate) or not 100 <= sample_rate <= 768_000:
        raise UserError(f'sample_rate={sample_rate}: must be a whole number of Hz, from 100 to 768000.')
    if waveform.dtype.kind == 'f' and not np.isfinite(waveform).all():
        raise UserError('waveform: holds NaN or infinity.')
    return _pcm_blocks(waveform.reshape(len(waveform), -1), int(sample_rate), target_rate)


def _pcm_blocks(waveform, sample_rate, target_rate):
    layout, sample_format = _LAYOUTS[waveform.shape[1] - 1], _FORMATS[waveform.dtype.name]
    resampler = av.AudioResampler('s16', 'mono', target_rate)
    missing = max(1, round(len(waveform) / sample_rate * target_rate))
    for first in itertools.chain(range(0, len(waveform), _BLOCK_SAMPLES), [None]):
        frame = None  # the end: what the resampler still holds
        if first is not None:
            packed = np.ascontiguousarray(waveform[first:first + _BLOCK_SAMPLES]).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, format=sample_format, layout=layout)
            frame.sample_rate = sample_rate
        for resampled in resampler.resample(frame):
            block = resampled.to_ndarray().reshape(-1)[:missing]
            missing -= len(block)
            yield block
    if missing:
        yield np.zeros(missing, np.int16)


def sliding_windows(blocks, window, rate, hop_seconds=None, centered=False, repeat_ends=False):
    """Cuts a stream into windows by the rule at the head of this file. Holds a window and a block in memory.

    Args:
        blocks: iterable of arrays [items, ...].
        window: items in a window.
        rate: items per second.
        hop_seconds: step between windows; None sets them end to end.
        centered: whether the first window's centre is the first item.
        repeat_ends: whether what is missing is the first or last item again, and not zeros.

    Yields:
        (centre in seconds, array [window, ...]).
    """
    hop = fractions.Fraction(window)
    if hop_seconds is not None:
        hop = fractions.Fraction(round(hop_seconds * MICROSECONDS), MICROSECONDS) * fractions.Fraction(rate)
    before = window // 2 if centered else 0
    held, first, number = None, -before, 0  # first: place of held[0] in the stream, whose first item has place 0

    def padded(items, front, back):
        mode = {'mode': 'edge'} if repeat_ends else {}
        return np.pad(items, [(front, back)] + [(0, 0)] * (items.ndim - 1), **mode)

    def take(until):
        """Yields the windows that end within what is held, up to number `until`."""
        nonlocal held, first, number
        while number < until:
            start = (2 * number * hop.numerator + hop.denominator) // (2 * hop.denominator) - before
            if start + window > first + len(held):
                passed = min(start - first, len(held) - 1)  # the last item stays: it may have to be repeated
                held, first = held[passed:], first + passed
                return
            yield (start + window / 2) / rate, held[start - first:start - first + window]
            number += 1

    for block in blocks:
        if not len(block):
            continue
        held = padded(block, before, 0) if held is None else np.concatenate([held, block])
        yield from take(math.inf)
    if held is None:
        return
    if centered:
        held = padded(held, 0, window - before)
    items = first + before + len(held)
    count = min(1 + math.ceil(max(0, items - window) / hop), math.ceil(items / hop))
    held = padded(held, 0, window)
    yield from take(count)


def check_windows(tower, hop_seconds, batch_size):
    """Raises a `UserError` where a tower cannot have such windows."""
    if hop_seconds is not None and not 1 / tower.rate <= hop_seconds < math.inf:
        raise UserError(f'--hop_seconds={hop_seconds}: must be at least one step of the {tower.name}, {1 / tower.rate:g} s.')
    if batch_size < 1:
        raise UserError(f'--batch_size={batch_size}: must be at least 1.')


def embed_streams(tower, items, hop_seconds=None, centered=False, batch_size=BATCH_SIZE):
    """Embeds several streams, one after the other; windows of neighbours share batches.

    Args:
        tower: `Tower`.
        items: iterable of (key, block): the blocks of one stream follow each other under one key. In the place of a block may
            stand a `media.Unsuitable`: the stream broke there.
        hop_seconds, centered: see `sliding_windows`.
        batch_size: windows that go through the tower at once.

    Yields:
        (key, features), or (key, `media.Unsuitable`), in the order of the streams.

    Raises:
        UserError: a value is not allowed.
    """
    check_windows(tower, hop_seconds, batch_size)
    batch, marks = [], []  # marks: (windows of the batch that lie before it, key, failure), one per stream that has ended
    parts, centres = [], []  # of the stream that has not

    def run():
        """Runs what is in the batch, and yields the streams that have ended."""
        nonlocal parts, centres
        outputs = tower.run(np.stack([window for _, window in batch])) if batch else {}
        first = 0
        for last, key, failure in [*marks, (len(batch), None, None)]:
            if last > first:
                parts.append({name: values[first:last].copy() for name, values in outputs.items()})
                centres += [centre for centre, _ in batch[first:last]]
            first = last
            if key is not None:
                yield key[0], failure or tower.result(
                    **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, timestamps=np.array(centres))
                parts, centres = [], []
        batch.clear()
        marks.clear()

    for key, stream in itertools.groupby(items, key=lambda item: item[0]):
        empty, failure = True, None
        try:
            for timed_window in sliding_windows(_blocks(stream), tower.window, tower.rate, hop_seconds, centered,
                                                tower.repeat_ends):
                empty = False
                batch.append(timed_window)
                if len(batch) == batch_size:
                    yield from run()
        except media.Unsuitable as error:
            failure = error
        if empty and failure is None:
            failure = media.Unsuitable('too_short', 'there is nothing in it')
        marks.append((len(batch), (key,), failure))
        if not batch:
            yield from run()
    yield from run()


def _blocks(stream):
    for _, block in stream:
        if isinstance(block, media.Unsuitable):
            raise block
        yield block


def read_blocks(task):
    """Decodes the piece of a file that a tower needs; for a worker of `workers.stream_in_order`.

    Args:
        task: (name of the tower, `layouts.Source`, samples or frames per second, shorter side of a frame in pixels).

    Yields:
        Blocks, int16 [samples] or uint8 [frames, height, width, 3], or last (reason, detail) of a `media.Unsuitable`.
    """
    name, source, rate, short_side = task
    first = round(source.start_seconds * rate)
    last = math.inf if source.end_seconds is None else round(source.end_seconds * rate)
    place = 0
    try:
        if name == AudioTower.name:
            blocks = media.sound_blocks(source.path, rate)
        else:
            blocks = map(np.asarray, media.frame_blocks(source.path, rate, short_side))
        for block in blocks:
            low, high = max(first - place, 0), min(last - place, len(block))
            place += len(block)
            if low < high:
                yield block[low:high]
            if place >= last:
                return
    except media.Unsuitable as error:
        yield error.reason, error.detail


def read_ahead(items, depth):
    """Passes on what an iterable yields while a thread takes up to `depth` items in advance."""
    line, stop = queue.Queue(depth), threading.Event()

    def put(item):
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


class _Job(NamedTuple):
    source: layouts.Source
    output: str  # path below the output folder


def find_inputs(inputs):
    """The sources that several files, folders, globs or CSVs name.

    Returns:
        List of `layouts.Source`.

    Raises:
        UserError: there is none, or two of different inputs would go by the same name.
    """
    sources = list(dict.fromkeys(source for path in inputs for source in layouts.find_media(path)))
    names = set()
    for source in sources:
        if source.example_id in names:
            raise UserError(f'--input: {source.example_id} is in two of the inputs; give the folder that holds both, or one input '
                            'and one --output at a time.')
        names.add(source.example_id)
    if not sources:
        raise UserError('--input: give files, folders, a glob or a CSV of sound or video.')
    return sources


def is_video(source):
    """Whether a source has the suffix of a video."""
    return os.path.splitext(source.path)[1].lower() in layouts.VIDEO_SUFFIXES


def extract_features(sources, output_dir, towers, *, hop_seconds=None, centered=False, batch_size=BATCH_SIZE,
                     output_format='npz', overwrite=False, skip_existing=False, num_workers=0, timeout_seconds=TIMEOUT_SECONDS):
    """Embeds files and writes what comes out; a file that cannot be used is reported and left out.

    Written below `output_dir`, each aside and then renamed:

        ID.npz          the fields of `AudioFeatures` or `VideoFeatures`; ID is the file's path below the input, without its
                        suffix, and with it where two files differ by nothing else
        report.csv      every file with what became of it
        features.json   which tower and which windows they are of

    With two towers the names are ID.audio.npz and ID.video.npz. With `output_format='tfrecord'` the files of each tower make one
    set `audio_tower-00000-of-00001` instead, one `tf.train.Example` per file; see `encode`.

    Args:
        sources: list of `layouts.Source`.
        output_dir: folder.
        towers: list of an `AudioTower`, a `VideoTower`, or one of each. Of two, the video tower takes only files with the suffix
            of a video.
        hop_seconds, centered, batch_size: see `AudioTower.embed`.
        output_format: 'npz' or 'tfrecord'.
        overwrite: writes anew what is there already.
        skip_existing: leaves what is there already. Without either, nothing is begun where something is there.
        num_workers: decoding processes; 0 takes one per processor.
        timeout_seconds: longest wait for the next block of a file.

    Returns:
        dict: 'written' and 'existing' files, 'skipped' (reason → files), 'seconds' of input that was embedded.

    Raises:
        UserError: a value is not allowed, output is in the way, or it cannot be written.
    """
    if output_format not in ('npz', 'tfrecord'):
        raise UserError(f'--output_format={output_format}: must be npz or tfrecord.')
    if overwrite and skip_existing:
        raise UserError('--overwrite --skip_existing: take one of them.')
    if len({tower.name for tower in towers}) < len(towers):
        raise UserError('--tower: give one audio tower, one video tower, or one of each.')
    for tower in towers:
        check_windows(tower, hop_seconds, batch_size)
    jobs = {tower: _jobs(tower, sources, len(towers) > 1, output_format) for tower in towers}
    settings = {tower.name: _settings(tower, hop_seconds, centered, jobs[tower], output_format) for tower in towers}
    try:
        os.makedirs(output_dir, exist_ok=True)
        _check_output(output_dir, jobs, settings, overwrite, skip_existing)
        with _aside(os.path.join(output_dir, 'features.json')) as path, open(path, 'w') as file:
            file.write(json.dumps(settings, indent=2) + '\n')
        report = {}
        try:
            for tower in towers:
                todo = []
                for job in jobs[tower]:
                    report[tower, job] = {'path': job.source.data_path, 'tower': tower.name}
                    if skip_existing and os.path.exists(os.path.join(output_dir, job.output)):
                        report[tower, job].update(status='existing', output=job.output)
                    else:
                        todo.append(job)
                options = hop_seconds, centered, batch_size
                for job, line in _extract(tower, todo, output_dir, options, num_workers or os.cpu_count(), timeout_seconds):
                    report[tower, job].update(line)
        finally:
            with _aside(os.path.join(output_dir, 'report.csv')) as path, open(path, 'w', newline='', encoding='utf-8') as file:
                writer = csv.DictWriter(file, REPORT_COLUMNS, lineterminator='\n')
                writer.writeheader()
                writer.writerows(line for line in report.values() if 'status' in line)
    except OSError as error:
        raise UserError(f'--output={output_dir}: cannot be written: {error.filename or ""} {error.strerror or error}.') from error
    statuses = collections.Counter(line['status'] for line in report.values())
    reasons = collections.Counter(line['reason'] for line in report.values() if line['status'] == 'skipped')
    return {'written': statuses['written'], 'existing': statuses['existing'], 'skipped': dict(sorted(reasons.items())),
            'seconds': sum(line.get('seconds', 0.0) for line in report.values())}


def _jobs(tower, sources, several, output_format):
    if several and tower.name == VideoTower.name:
        sources = [source for source in sources if is_video(source)]
    if output_format == 'npz':
        suffix = f'.{tower.name.removesuffix("_tower")}.npz' if several else '.npz'
        return [_Job(source, source.example_id + suffix) for source in sources]
    from avts_tf.records import shard_path  # imports TensorFlow
    shards = -(-len(sources) // FILES_PER_SHARD)
    return [_Job(source, shard_path(tower.name, i // FILES_PER_SHARD, shards)) for i, source in enumerate(sources)]


def _settings(tower, hop_seconds, centered, jobs, output_format):
    settings = {
        'tower': os.path.abspath(tower.path), 'checksum': tower.metadata['checksum'], 'rate': tower.rate,
        'window_seconds': tower.window / tower.rate,
        'hop_seconds': tower.window / tower.rate if hop_seconds is None else hop_seconds, 'centered': centered,
    }
    if output_format == 'tfrecord':  # what a shard holds follows from the whole list
        names = '\n'.join(job.source.example_id for job in jobs)
        settings['files'] = hashlib.sha256(names.encode('utf-8', 'surrogateescape')).hexdigest()
    return settings


def _check_output(output_dir, jobs, settings, overwrite, skip_existing):
    if overwrite:
        return
    path = os.path.join(output_dir, 'features.json')
    if os.path.exists(path):
        with open(path) as file:
            text = file.read()
        if text != json.dumps(settings, indent=2) + '\n':
            raise UserError(f'--output={output_dir}: holds features of another tower, other windows or other files, as its '
                            'features.json says; give another folder, or --overwrite.')
    existing = [job.output for tower_jobs in jobs.values() for job in tower_jobs
                if os.path.exists(os.path.join(output_dir, job.output))]
    if existing and not skip_existing:
        raise UserError(f'--output={output_dir}: {existing[0]} is there already, {len(existing)} such in all; --skip_existing goes '
                        'on with the others, --overwrite writes them anew.')


def _extract(tower, jobs, output_dir, options, num_workers, timeout_seconds):
    """Embeds and writes files with one tower.

    Yields:
        (job, dict of columns of the report), in the order of the jobs.
    """
    counts = collections.Counter()  # samples or frames by number of the job
    short_side = tower.metadata['clip']['frame_size']
    tasks = [(tower.name, job.source, tower.rate, short_side) for job in jobs]
    stream = read_ahead(workers.stream_in_order(read_blocks, tasks, num_workers, timeout_seconds), 2 * num_workers)

    def items():
        for number, part, failure in stream:
            if part is None:
                part = media.Unsuitable(*failure) if failure else ()
            elif isinstance(part, tuple):
                part = media.Unsuitable(*part)
            else:
                counts[number] += len(part)
                progress.set_postfix_str(f'{counts.total() / tower.rate / 3600:.2f} h', refresh=False)
            yield number, part

    with contextlib.closing(stream), tqdm(total=len(jobs), desc=tower.name, unit='file', smoothing=0.05) as progress:
        results = embed_streams(tower, items(), *options)
        for output, group in itertools.groupby(results, key=lambda result: jobs[result[0]].output):
            lines = []
            with _aside(os.path.join(output_dir, output)) as path, _writer(path, output) as write:
                for number, result in group:
                    progress.update()
                    line = {'status': 'skipped'}
                    if isinstance(result, media.Unsuitable):
                        line.update(reason=result.reason, detail=result.detail)
                    else:
                        write(jobs[number].source, result)
                        line.update(status='written', seconds=round(counts[number] / tower.rate, 6),
                                    windows=len(result.timestamps), output=output)
                    lines.append((jobs[number], line))
            yield from lines  # not before they are in place


@contextlib.contextmanager
def _aside(path):
    """A path to write to, which takes the place of `path` once all went well; if nothing is written there, nothing is there."""
    aside = os.path.join(os.path.dirname(path), f'.{os.path.basename(path)}.writing')
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        yield aside
        if os.path.exists(aside):
            os.replace(aside, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(aside)


@contextlib.contextmanager
def _writer(path, output):
    """A function that writes the features of a source to an .npz file, or to the end of a file of records."""
    if output.endswith('.npz'):
        def write(_, features):
            with open(path, 'wb') as file:
                np.savez(file, **features._asdict())
        yield write
        return
    import tensorflow as tf
    with contextlib.ExitStack() as stack:
        writers = []

        def write(source, features):
            if not writers:  # no file without a record in it
                writers.append(stack.enter_context(tf.io.TFRecordWriter(path)))
            writers[0].write(encode(source, features))

        try:
            yield write
            stack.close()
        except tf.errors.OpError as error:
            raise OSError(error.message) from error


def encode(source, features):
    """A serialised `tf.train.Example`.

        example/id, clip/data_path    bytes: unique name, path below the input
        clip/label/string             bytes, where the input tells a class
        embedding, conv5 or features  float [T * size], window after window
        timestamps                    float [T], seconds
    """
    import tensorflow as tf
    texts = {'example/id': source.example_id, 'clip/data_path': source.data_path, 'clip/label/string': source.label}
    example = tf.train.Example()
    for name, text in texts.items():
        if text:
            example.features.feature[name].bytes_list.value.append(text.encode())
    for name, values in features._asdict().items():
        example.features.feature[name].float_list.value.extend(values.ravel().tolist())
    return example.SerializeToString(deterministic=True)
