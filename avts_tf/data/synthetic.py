"""The synthetic world: things that strike and sound, as records whose sync is known exactly.

One object per video moves over a plain ground and strikes at random, irregular times, 2 to 5 a
second. A strike at time s

*   is visible: from s on the object flashes and swells and a ring runs out from it, all over within
    0.16 s. Every frame is drawn for its own exact time, so the state of flash and ring gives s more
    finely than the frame rate;
*   is audible: the sound of the object's class begins at sample round(s * sample_rate).

So *what* sounds separates an easy negative (colour and shape go with a timbre), but only *when* it
sounds separates a hard or super-hard one. `difficulty` adds what the real world has: noise in video
and audio, static clutter, other moving objects whose strikes are silent, and sounds of things out
of sight.

Each record carries two labels, in this order: (object class, 'object:NAME'), the label for audio
classification, and (motion class, 'motion:NAME'), the label for action recognition. The two indices
count separately, each from 0.
"""

import contextlib
import csv
import io
import json
import os
import re

import numpy as np

from avts_tf import files, progress
from avts_tf.data import records
from avts_tf.data.shards import shard_path, summary_path
from avts_tf.data.synthetic_media import (
    MOTIONS,
    OBJECTS,
    Actor,
    Strike,
    draw_frames,
    make_waveform,
)
from avts_tf.errors import UserError
from avts_tf.lazy import tf

DATASET_NAME = 'synthetic'

# The gaps keep most windows of half a second from being empty and no two strikes from melting into
# one.
MIN_GAP_SECONDS, MAX_GAP_SECONDS = 0.15, 0.5
STRIKE_COLUMNS = ('example_id', 'strike_seconds', 'object', 'visible', 'audible')


def make_video(
    index: int, seed: int = 0, *, seconds: float = 4.0, fps: float = 25.0, size: int = 40,
    sample_rate: int = 16000, difficulty: float = 0.2,
) -> tuple[records.Video, list[Strike]]:
    """Makes one video of the world; the same arguments give the same video.

    Args:
        index: number of the video in its set, from 0.
        seed: seed of the set.
        seconds: duration; it is rounded to whole frames.
        fps: frames per second.
        size: height and width of a frame, in pixels.
        sample_rate: Hz.
        difficulty: 0 (one object, its sound, nothing else) to 1.

    Returns:
        A `records.Video` of round(seconds * fps) frames, with a waveform of the same duration, and
        its strikes, ascending in time.

    Example:
        >>> video, strikes = make_video(0, seconds=1.0)
        >>> len(video.frames), len(video.waveform)
        (25, 16000)
    """
    rng = np.random.default_rng([seed, index])
    object_index, motion_index = _classes(index, seed)
    frame_count = round(seconds * fps)
    duration = frame_count / fps
    last_frame_seconds = (frame_count - 1) / fps  # a later strike would be heard and not seen

    strikes = [Strike(s, object_index, True, True) for s in _strike_times(rng, last_frame_seconds)]
    # The main actor comes last, over the others: it is what the labels speak of.
    actors = [_actor(rng, object_index, motion_index, [s.seconds for s in strikes])]
    for _ in range(rng.binomial(2, difficulty)):
        other = _other_object(rng, object_index)
        silent = _random_strikes(rng, difficulty, last_frame_seconds, other, visible=True)
        motion = int(rng.integers(len(MOTIONS)))
        actors.insert(0, _actor(rng, other, motion, [s.seconds for s in silent]))
        strikes += silent
    strikes += _random_strikes(rng, difficulty, duration, _other_object(rng, object_index),
                               visible=False)
    strikes.sort()

    video = records.Video(
        example_id=f'{DATASET_NAME}-{seed}-{index:05d}',
        frames=draw_frames(rng, actors, frame_count, fps, size, difficulty),
        frame_rate=fps,
        height=size,
        width=size,
        waveform=make_waveform(rng, strikes, round(duration * sample_rate), sample_rate,
                               difficulty),
        sample_rate=sample_rate,
        dataset_name=DATASET_NAME,
        labels=(
            (object_index, f'object:{OBJECTS[object_index].name}'),
            (motion_index, f'motion:{MOTIONS[motion_index]}'),
        ),
    )
    return video, strikes


def _classes(index: int, seed: int):
    """Object and motion of a video. Each block of 24 videos holds each pair of them once."""
    count = len(OBJECTS) * len(MOTIONS)
    pairs = np.random.default_rng([seed, index // count, 1]).permutation(count)
    pair = int(pairs[index % count])
    return pair // len(MOTIONS), pair % len(MOTIONS)


def _other_object(rng: np.random.Generator, object_index: int):
    return int((object_index + rng.integers(1, len(OBJECTS))) % len(OBJECTS))


def _whole_microseconds(times: np.ndarray):
    # So that the six decimals of the CSV file are the whole truth, to the sample.
    return [round(float(time), 6) for time in times]


def _strike_times(rng: np.random.Generator, last_seconds: float):
    """Strike times in [0, last_seconds], ascending."""
    first = rng.uniform(0, min(MAX_GAP_SECONDS, last_seconds))
    gaps = rng.uniform(MIN_GAP_SECONDS, MAX_GAP_SECONDS, int(last_seconds / MIN_GAP_SECONDS) + 1)
    times = first + np.concatenate([[0.0], np.cumsum(gaps)])
    return _whole_microseconds(times[times <= last_seconds])


def _random_strikes(rng: np.random.Generator, per_second: float, last_seconds: float,
                    object_index: int, visible: bool):
    """Strikes of something else: seen and not heard, or heard and not seen."""
    times = rng.uniform(0, last_seconds, rng.poisson(per_second * last_seconds))
    return [Strike(s, object_index, visible, not visible)
            for s in _whole_microseconds(np.sort(times))]


def _actor(rng: np.random.Generator, object_index: int, motion_index: int,
           strike_seconds: list[float]):
    # Paths keep to the middle, so that a crop of two thirds of the frame seldom loses the object.
    return Actor(
        object=object_index,
        motion=int(motion_index),
        radius=rng.uniform(0.13, 0.17),
        centre=rng.uniform(0.42, 0.58, 2),
        reach=rng.uniform(0.15, 0.22),
        period_seconds=rng.uniform(0.8, 1.4),
        phase=rng.uniform(0, 2 * np.pi),
        direction=int(rng.choice([-1, 1])),
        strike_seconds=np.asarray(strike_seconds, np.float64),
    )


def write_world(
    output: str, videos: int = 64, seconds: float = 4.0, fps: float = 25.0, size: int = 40,
    sample_rate: int = 16000, seed: int = 0, shards: int = 1, difficulty: float = 0.2,
) -> list[str]:
    """Writes a synthetic world: shards, `OUTPUT.strikes.csv` and a summary, `OUTPUT.json`.

    The true strikes stand in the CSV file, one a line: example_id, strike_seconds (from the
    record's time 0), object, visible (1 or 0), audible (1 or 0). Files take their names when all
    are whole, the summary last. The same arguments give the same bytes. Sets of different seeds
    share no video and no example id.

    Args:
        output: path and beginning of the shards' names, such as 'data/world'; its folder is made.
        videos: number of videos, at least 1.
        seconds: duration of each, rounded to whole frames, at least 0.5.
        fps: frames per second.
        size: height and width of a frame, in pixels, at least 16.
        sample_rate: Hz, at least 8000.
        seed: seed of the set, at least 0.
        shards: number of files, at most `videos`; video i goes to shard i % shards.
        difficulty: 0 to 1, see the head of this file.

    Returns:
        List of the shards' paths.

    Raises:
        UserError: a value is not allowed, shards of another number stand under the same name, or a
            file cannot be written.

    Example:
        >>> write_world('/tmp/world', videos=2, seconds=1.0)
        ['/tmp/world-00000-of-00001']
    """
    options = {
        'videos': videos, 'seconds': seconds, 'fps': fps, 'size': size, 'sample_rate': sample_rate,
        'seed': seed, 'shards': shards, 'difficulty': difficulty,
    }
    paths = [shard_path(output, i, shards) for i in range(shards)]
    _check(output, options, paths)
    try:
        os.makedirs(os.path.dirname(output) or '.', exist_ok=True)
        _write(output, options, paths)
    except (tf.errors.OpError, OSError) as error:
        reason = error.message if isinstance(error, tf.errors.OpError) else error.strerror
        raise UserError('output', output, f'cannot be written: {reason}') from error
    return paths


def _check(output: str, options: dict, paths: list[str]):
    if not output or output.endswith('/') or os.path.isdir(output):
        raise UserError('output', output,
                        'give a folder and the beginning of a name, such as "data/world".')
    limits = {
        'videos': (1, 100_000), 'seconds': (0.5, 3600), 'fps': (5, 1000), 'size': (16, 4096),
        'sample_rate': (8000, 192_000), 'seed': (0, 2**31 - 1), 'shards': (1, options['videos']),
        'difficulty': (0, 1),
    }
    for name, (least, most) in limits.items():
        if not least <= options[name] <= most:
            hint = ' (the number of videos)' if name == 'shards' else ''
            raise UserError(name, options[name], f'must lie between {least} and {most}{hint}.')
    folder, name = os.path.split(output)
    shard = re.compile(re.escape(name) + r'-\d{5}-of-\d{5}')
    ours = {os.path.basename(path) for path in paths}
    found = os.listdir(folder or '.') if os.path.isdir(folder or '.') else []
    if strays := sorted(file for file in found if shard.fullmatch(file) and file not in ours):
        raise UserError('output', output, f'{strays[0]} is there from a set of another number of '
                        'shards, and a glob would take both for one; remove it or give another '
                        'name.')


def _write(output: str, options: dict, paths: list[str]):
    options = dict(options)
    videos, shards, seed = options.pop('videos'), options.pop('shards'), options.pop('seed')
    lines: list[tuple[str, str, str, int, int]] = []
    objects: dict[str, int] = {}
    motions: dict[str, int] = {}
    frame_count = sample_count = 0
    with contextlib.ExitStack() as stack:
        writers = [tf.io.TFRecordWriter(stack.enter_context(files.replacing(path)))
                   for path in paths]
        try:
            for i in progress.bar(range(videos), 'synthetic world', unit='video'):
                video, strikes = make_video(i, seed, **options)
                writers[i % shards].write(records.encode(video))
                lines += [(video.example_id, f'{s.seconds:.6f}', OBJECTS[s.object].name,
                           int(s.visible), int(s.audible)) for s in strikes]
                for counts, (_, label) in zip((objects, motions), video.labels, strict=True):
                    counts[label] = counts.get(label, 0) + 1
                frame_count += len(video.frames)
                sample_count += len(video.waveform)
        finally:
            for writer in writers:
                writer.close()
    summary = {
        'dataset_name': DATASET_NAME, 'records': videos, 'shards': shards, 'seed': seed, **options,
        'frames': frame_count, 'samples': sample_count,
        'duration_seconds': frame_count / options['fps'],
        'strikes': sum(visible and audible for *_, visible, audible in lines),
        'silent_strikes': sum(not audible for *_, audible in lines),
        'off_screen_strikes': sum(not visible for *_, visible, _ in lines),
        'labels': dict(sorted({**objects, **motions}.items())),
    }
    table = io.StringIO()
    writer = csv.writer(table, lineterminator='\n')
    writer.writerow(STRIKE_COLUMNS)
    writer.writerows(lines)
    files.write_text(f'{output}.strikes.csv', table.getvalue())
    files.write_text(summary_path(output), json.dumps(summary, indent=2) + '\n')
