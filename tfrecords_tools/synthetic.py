"""A small world of things that strike and sound, as records: a stand-in for Kinetics that needs no download.

One object per video moves over a plain ground and strikes at random, irregular times, 2 to 5 a second. A strike at time s

*   is seen: from s on the object flashes and swells and a ring runs out from it, all over within 0.16 s. Every frame is drawn
    for its own exact time, so the state of flash and ring tells s more finely than the frame rate;
*   is heard: the sound of the object's class begins at sample round(s * sample_rate).

So *what* sounds tells an easy negative (colour and shape go with a timbre), but only *when* it sounds a hard or super-hard
one. `--difficulty` adds what the real world has: noise in picture and sound, static clutter, other moving objects whose
strikes are silent, and sounds of things out of sight.

Each record carries two labels, in this order: (object class, 'object:NAME'), the label for audio classification, and
(motion class, 'motion:NAME'), the label for action recognition. The two indices count separately, each from 0.

The true strikes stand in `NAME.strikes.csv`, one a line: example_id, strike_seconds (from the record's time 0), object,
visible (1 or 0), audible (1 or 0).

    python -m tfrecords_tools.synthetic --output=data/world --videos=64
"""

import csv
import io
import json
import os
import re
import sys
from typing import NamedTuple

import numpy as np
from absl import app, flags
from PIL import Image

from avts_tf import program, progress
from avts_tf.data import records
from avts_tf.data.shards import shard_path, summary_path
from avts_tf.errors import UserError
from avts_tf.lazy import tf

DATASET_NAME = 'synthetic'


class ObjectClass(NamedTuple):
    """What an object of one class looks and sounds like.

    Attributes:
        name: name of the class.
        colour: red, green, blue in [0, 1].
        pitch_hz: pitch of the middle video; each video's own lies within a whole tone of it.
        partials: (multiple of the pitch, amplitude) of each partial.
        decay_seconds: time in which the sound falls to 1/e.
        noise: part of the sound that is noise instead of partials.
    """

    name: str
    colour: tuple
    pitch_hz: float
    partials: tuple
    decay_seconds: float
    noise: float


OBJECTS = (
    ObjectClass('disc', (0.80, 0.15, 0.15), 880.0, ((1, 1.0), (2.76, 0.6), (5.4, 0.3)), 0.12, 0.0),
    ObjectClass('square', (0.15, 0.65, 0.20), 620.0, ((1, 1.0), (2.0, 0.1)), 0.03, 0.0),
    ObjectClass('triangle', (0.20, 0.30, 0.90), 3100.0, ((1, 1.0), (1.48, 0.7), (2.1, 0.5)), 0.15, 0.0),
    ObjectClass('diamond', (0.75, 0.65, 0.10), 220.0, tuple((n, 1.0 / n) for n in range(1, 13)), 0.10, 0.0),
    ObjectClass('cross', (0.70, 0.20, 0.70), 1500.0, ((1, 1.0),), 0.06, 0.9),
    ObjectClass('ring', (0.10, 0.65, 0.70), 110.0, ((1, 1.0), (1.59, 0.5), (2.14, 0.25)), 0.10, 0.05),
)
MOTIONS = ('horizontal', 'vertical', 'circle', 'diagonal')

# The gaps keep most windows of half a second from being empty and no two strikes from melting into one.
MIN_GAP_SECONDS, MAX_GAP_SECONDS = 0.15, 0.5
VISIBLE_SECONDS = 0.16  # how long a strike is seen: 4 frames at 25 fps
FLASH_DECAY_SECONDS = 0.06
SOUND_SECONDS = 0.5  # the sound is faded out by then
CLICK_SECONDS = 0.004  # each sound begins with a click, so that its onset is sharp whatever the timbre
SOUND_GAIN = 0.5  # peak of a strike, of full scale


class Strike(NamedTuple):
    """One strike, as truth.

    Attributes:
        seconds: its time, from the record's time 0.
        object: index in `OBJECTS`.
        visible: whether a frame shows it.
        audible: whether it sounds.
    """

    seconds: float
    object: int
    visible: bool
    audible: bool


class Actor(NamedTuple):
    """A moving object and the times at which it is seen to strike.

    Attributes:
        object: index in `OBJECTS`.
        motion: index in `MOTIONS`.
        radius: of the object, as all lengths here a part of the frame's side.
        centre: float64 [2], x and y of the middle of its path.
        reach: greatest distance from the middle.
        period_seconds: time of one round.
        phase: in radians, at time 0.
        direction: 1 or -1: which way round, or which diagonal.
        strike_seconds: float64 [S], ascending.
    """

    object: int
    motion: int
    radius: float
    centre: np.ndarray
    reach: float
    period_seconds: float
    phase: float
    direction: int
    strike_seconds: np.ndarray


def make_video(index, seed=0, *, seconds=4.0, fps=25.0, size=40, sample_rate=16000, difficulty=0.2):
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
        A `records.Video` of round(seconds * fps) frames, with a waveform of the same duration, and its strikes: a list of
        `Strike`, ascending in time.
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
        actors.insert(0, _actor(rng, other, rng.integers(len(MOTIONS)), [s.seconds for s in silent]))
        strikes += silent
    strikes += _random_strikes(rng, difficulty, duration, _other_object(rng, object_index), visible=False)
    strikes.sort()

    video = records.Video(
        example_id=f'{DATASET_NAME}-{seed}-{index:05d}',
        frames=_frames(rng, actors, frame_count, fps, size, difficulty),
        frame_rate=fps,
        height=size,
        width=size,
        waveform=_waveform(rng, strikes, round(duration * sample_rate), sample_rate, difficulty),
        sample_rate=sample_rate,
        dataset_name=DATASET_NAME,
        labels=(
            (object_index, f'object:{OBJECTS[object_index].name}'),
            (motion_index, f'motion:{MOTIONS[motion_index]}'),
        ),
    )
    return video, strikes


def _classes(index, seed):
    """Object and motion of a video. Every block of 24 videos holds each pair of them once, so that small sets are balanced."""
    count = len(OBJECTS) * len(MOTIONS)
    pairs = np.random.default_rng([seed, index // count, 1]).permutation(count)
    pair = int(pairs[index % count])
    return pair // len(MOTIONS), pair % len(MOTIONS)


def _other_object(rng, object_index):
    return int((object_index + rng.integers(1, len(OBJECTS))) % len(OBJECTS))


def _whole_microseconds(times):
    # So that the six decimals of the CSV file are the whole truth, to the sample.
    return [round(float(time), 6) for time in times]


def _strike_times(rng, last_seconds):
    """Strike times in [0, last_seconds], ascending."""
    first = rng.uniform(0, min(MAX_GAP_SECONDS, last_seconds))
    gaps = rng.uniform(MIN_GAP_SECONDS, MAX_GAP_SECONDS, int(last_seconds / MIN_GAP_SECONDS) + 1)
    times = first + np.concatenate([[0.0], np.cumsum(gaps)])
    return _whole_microseconds(times[times <= last_seconds])


def _random_strikes(rng, per_second, last_seconds, object_index, visible):
    """Strikes of something else: seen and not heard, or heard and not seen."""
    times = rng.uniform(0, last_seconds, rng.poisson(per_second * last_seconds))
    return [Strike(s, object_index, visible, not visible) for s in _whole_microseconds(np.sort(times))]


def _actor(rng, object_index, motion_index, strike_seconds):
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


def _position(actor, seconds):
    """x and y of an actor at a time, as parts of the frame's side, from the upper left corner."""
    angle = actor.phase + 2 * np.pi * seconds / actor.period_seconds
    swing = np.sin(angle)
    x, y = {
        'horizontal': (swing, 0.0),
        'vertical': (0.0, swing),
        'circle': (np.cos(angle), actor.direction * swing),
        'diagonal': (0.8 * swing, 0.8 * actor.direction * swing),
    }[MOTIONS[actor.motion]]
    return actor.centre[0] + actor.reach * x, actor.centre[1] + actor.reach * y


def _shape_distance(name, x, y):
    """Signed distance to the edge of a shape of radius 1 around (0, 0), negative inside; of the same shape as x and y."""
    ax, ay = np.abs(x), np.abs(y)
    if name == 'disc':
        return np.hypot(x, y) - 1.0
    if name == 'square':
        return np.maximum(ax, ay) - 0.85
    if name == 'triangle':
        return np.maximum(0.866 * ax - 0.5 * y, y) - 0.6
    if name == 'diamond':
        return (ax + ay) * 0.707 - 0.8
    if name == 'cross':
        return np.minimum(np.maximum(ax - 1.05, ay - 0.36), np.maximum(ax - 0.36, ay - 1.05))
    return np.abs(np.hypot(x, y) - 0.75) - 0.28  # ring


def _cover(canvas, distance_pixels, colour, opacity=1.0):
    """Paints a colour where the distance is negative, with soft edges a pixel wide."""
    alpha = np.clip(0.5 - distance_pixels, 0.0, 1.0)[..., None] * np.float32(opacity)
    canvas += alpha * (np.asarray(colour, np.float32) - canvas)


def _draw(canvas, x, y, actor, seconds):
    """Draws an actor as it is at a time, float32 [H, W, 3]; x and y are the pixels' places, float32 [H, W]."""
    size = len(canvas)
    centre_x, centre_y = _position(actor, seconds)
    past = actor.strike_seconds[actor.strike_seconds <= seconds]
    since = seconds - past[-1] if len(past) else np.inf
    flash = np.exp(-since / FLASH_DECAY_SECONDS) if since < VISIBLE_SECONDS else 0.0
    radius = actor.radius * (1 + 0.5 * flash)
    x, y = x - np.float32(centre_x), y - np.float32(centre_y)
    look = OBJECTS[actor.object]
    if flash:
        progress = since / VISIBLE_SECONDS
        ring = actor.radius * 1.2 + 0.3 * progress
        _cover(canvas, (np.abs(np.hypot(x, y) - ring) - 0.025) * size, (1.0, 1.0, 1.0), (1 - progress) ** 2)
    colour = np.asarray(look.colour) * (1 - 0.85 * flash) + 0.85 * flash
    _cover(canvas, _shape_distance(look.name, x / radius, y / radius) * radius * size, colour)


def _frames(rng, actors, frame_count, fps, size, difficulty):
    """The frames of a video, a list of JPEG bytes."""
    places = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.meshgrid(places, places)
    ground = np.empty((size, size, 3), np.float32)
    slope = rng.uniform(-0.06, 0.06, 2)
    ground[:] = rng.uniform(0.08, 0.22, 3) + (slope[0] * x + slope[1] * y)[..., None]
    for _ in range(rng.poisson(6 * difficulty)):
        radius, place = rng.uniform(0.05, 0.13), rng.uniform(0, 1, 2)
        name = OBJECTS[rng.integers(len(OBJECTS))].name
        distance = _shape_distance(name, (x - place[0]) / radius, (y - place[1]) / radius) * radius * size
        _cover(ground, distance, rng.uniform(0.1, 0.5, 3))

    frames = []
    for i in range(frame_count):
        canvas = ground.copy()
        for actor in actors:
            _draw(canvas, x, y, actor, i / fps)
        if difficulty:
            canvas += rng.standard_normal(canvas.shape, np.float32) * np.float32(0.1 * difficulty)
        pixels = np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, 'JPEG', quality=90)
        frames.append(buffer.getvalue())
    return frames


def _sound(rng, look, pitch, sample_rate):
    """The sound of one strike, float64 [samples], peak about 1; it begins with its first sample."""
    times = np.arange(round(SOUND_SECONDS * sample_rate)) / sample_rate
    body = np.zeros_like(times)
    for multiple, amplitude in look.partials:
        hz = look.pitch_hz * pitch * multiple
        if hz < 0.45 * sample_rate:
            body += amplitude * np.sin(2 * np.pi * hz * times)
    body /= sum(amplitude for _, amplitude in look.partials)
    body = (1 - look.noise) * body + look.noise * 0.5 * rng.uniform(-1, 1, len(times))
    fade = np.minimum(1.0, (SOUND_SECONDS - times) / 0.05)
    # Random signs and not a sine: the very first sample already stands out.
    click = np.exp(-times / (CLICK_SECONDS / 4)) * np.where(rng.uniform(size=len(times)) < 0.5, -0.5, 0.5)
    return body * np.exp(-times / look.decay_seconds) * fade + click * (times < CLICK_SECONDS)


def _waveform(rng, strikes, sample_count, sample_rate, difficulty):
    """The sound of a video, int16 [sample_count]."""
    mix = np.zeros(sample_count)
    pitch = 2 ** rng.uniform(-1 / 6, 1 / 6, len(OBJECTS))
    for strike in strikes:
        if strike.audible:
            sound = _sound(rng, OBJECTS[strike.object], pitch[strike.object], sample_rate) * rng.uniform(0.6, 1.0)
            start = round(strike.seconds * sample_rate)
            length = min(len(sound), sample_count - start)
            mix[start:start + length] += SOUND_GAIN * sound[:length]
    mix += 0.03 * difficulty * rng.standard_normal(sample_count)
    return np.round(np.clip(mix, -1, 1) * 32767).astype(np.int16)


def write_world(
    output_prefix, videos=64, seconds=4.0, fps=25.0, size=40, sample_rate=16000, seed=0, shards=1, difficulty=0.2,
):
    """Writes a synthetic world: shards, `PREFIX.strikes.csv` with the true strikes and `PREFIX.json` with a summary.

    Files are written under other names and take their own when all are whole. The same arguments give the same bytes. Sets
    of different seeds share no video and no example id.

    Args:
        output_prefix: path and beginning of the shards' names, such as 'data/world'; its folder is made where missing.
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
        UserError: a value is not allowed, shards of another number stand under the same prefix, or a file cannot be written.
    """
    options = {
        'videos': videos, 'seconds': seconds, 'fps': fps, 'size': size, 'sample_rate': sample_rate, 'seed': seed,
        'shards': shards, 'difficulty': difficulty,
    }
    _check(output_prefix, options)
    try:
        return _write(output_prefix, options)
    except tf.errors.OpError as error:
        raise UserError(f'--output={output_prefix}: cannot be written: {error.message}') from error


def _check(output_prefix, options):
    if not output_prefix or output_prefix.endswith('/') or tf.io.gfile.isdir(output_prefix):
        raise UserError(f'--output={output_prefix}: give a folder and the beginning of a name, such as "data/world".')
    limits = {
        'videos': (1, 100_000), 'seconds': (0.5, 3600), 'fps': (5, 1000), 'size': (16, 4096), 'sample_rate': (8000, 192_000),
        'seed': (0, 2**31 - 1), 'shards': (1, options['videos']), 'difficulty': (0, 1),
    }
    for name, (least, most) in limits.items():
        if not least <= options[name] <= most:
            hint = ' (the number of videos)' if name == 'shards' else ''
            raise UserError(f'--{name}={options[name]}: must lie between {least} and {most}{hint}.')


def _write(output_prefix, options):
    options = dict(options)
    videos, shards = options.pop('videos'), options.pop('shards')
    seed = options.pop('seed')
    folder, name = os.path.split(output_prefix)
    paths = [shard_path(output_prefix, i, shards) for i in range(shards)]
    if tf.io.gfile.isdir(folder or '.'):
        pattern = re.compile(re.escape(name) + r'-\d{5}-of-\d{5}')
        strays = sorted(f for f in tf.io.gfile.listdir(folder or '.')
                        if pattern.fullmatch(f) and os.path.join(folder, f) not in paths)
        if strays:
            raise UserError(
                f'--output={output_prefix}: {strays[0]} is there from a set of another number of shards, and a glob would '
                'take both for one; remove it or give another name.'
            )

    # Aside means in a folder, because a glob for the shards must not find halves.
    aside = output_prefix + '.writing'
    tf.io.gfile.makedirs(aside)
    try:
        lines, objects, motions = [], {}, {}
        frame_count = sample_count = 0
        writers = [tf.io.TFRecordWriter(os.path.join(aside, os.path.basename(path))) for path in paths]
        try:
            for i in progress.bar(range(videos), 'synthetic world', unit='video'):
                video, strikes = make_video(i, seed, **options)
                writers[i % shards].write(records.encode(video))
                lines += [(video.example_id, f'{s.seconds:.6f}', OBJECTS[s.object].name, int(s.visible), int(s.audible))
                          for s in strikes]
                for counts, (_, label) in zip((objects, motions), video.labels, strict=True):
                    counts[label] = counts.get(label, 0) + 1
                frame_count += len(video.frames)
                sample_count += len(video.waveform)
        finally:
            for writer in writers:
                writer.close()
        summary = {
            'dataset_name': DATASET_NAME, 'records': videos, 'shards': shards, 'seed': seed, **options,
            'frames': frame_count, 'samples': sample_count, 'duration_seconds': frame_count / options['fps'],
            'strikes': sum(visible and audible for *_, visible, audible in lines),
            'silent_strikes': sum(not audible for *_, audible in lines),
            'off_screen_strikes': sum(not visible for *_, visible, _ in lines),
            'labels': dict(sorted({**objects, **motions}.items())),
        }
        finals = [*paths, f'{output_prefix}.strikes.csv', summary_path(output_prefix)]
        with tf.io.gfile.GFile(os.path.join(aside, os.path.basename(finals[-2])), 'w') as file:
            writer = csv.writer(file, lineterminator='\n')
            writer.writerow(('example_id', 'strike_seconds', 'object', 'visible', 'audible'))
            writer.writerows(lines)
        with tf.io.gfile.GFile(os.path.join(aside, os.path.basename(finals[-1])), 'w') as file:
            file.write(json.dumps(summary, indent=2) + '\n')
        for path in finals:
            tf.io.gfile.rename(os.path.join(aside, os.path.basename(path)), path, overwrite=True)
    finally:
        tf.io.gfile.rmtree(aside)
    return paths


def _define_flags():
    # Here and not at import: the command line imports this file and has flags of the same names.
    flags.DEFINE_string('output', None, 'folder and beginning of the name of what is written, such as data/world')
    flags.DEFINE_integer('videos', 64, 'number of videos')
    flags.DEFINE_float('seconds', 4.0, 'duration of each video, in seconds')
    flags.DEFINE_float('fps', 25.0, 'frames per second')
    flags.DEFINE_integer('size', 40, 'height and width of a frame, in pixels')
    flags.DEFINE_integer('sample_rate', 16000, 'audio sample rate, in Hz')
    flags.DEFINE_integer('seed', 0, 'seed of the set; another seed gives other videos and other example ids')
    flags.DEFINE_integer('shards', 1, 'number of files')
    flags.DEFINE_float('difficulty', 0.2, 'noise, clutter, silent strikes and sounds out of sight: 0 none, 1 much')
    flags.mark_flag_as_required('output')


def main(argv):
    """Runs the command line; see `python -m tfrecords_tools.synthetic --help`."""
    if len(argv) > 1:
        raise app.UsageError(f'unexpected argument {argv[1]!r}; every value has a flag.')
    values = flags.FLAGS
    try:
        paths = write_world(
            values.output, videos=values.videos, seconds=values.seconds, fps=values.fps, size=values.size,
            sample_rate=values.sample_rate, seed=values.seed, shards=values.shards, difficulty=values.difficulty,
        )
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f'{values.videos} videos of {values.seconds:g} s in {len(paths)} file(s): {paths[0]}{" ..." * (len(paths) > 1)}')
    print(f'true strikes: {values.output}.strikes.csv, summary: {summary_path(values.output)}')


if __name__ == '__main__':
    _define_flags()
    program.run(main)
