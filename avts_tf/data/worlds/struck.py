"""The struck world: things that strike and sound.

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
count separately, each from 0. The truth are the strikes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from avts_tf.data import records
from avts_tf.data.worlds import World
from avts_tf.data.worlds.drawing import (
    cover,
    encode_frame,
    make_ground,
    pixel_places,
    shape_distance,
)

DATASET_NAME = 'synthetic'  # it was the only world at first

# The gaps keep most windows of half a second from being empty and no two strikes from melting into
# one.
MIN_GAP_SECONDS, MAX_GAP_SECONDS = 0.15, 0.5


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
    ObjectClass('triangle', (0.20, 0.30, 0.90), 3100.0, ((1, 1.0), (1.48, 0.7), (2.1, 0.5)),
                0.15, 0.0),
    ObjectClass('diamond', (0.75, 0.65, 0.10), 220.0, tuple((n, 1.0 / n) for n in range(1, 13)),
                0.10, 0.0),
    ObjectClass('cross', (0.70, 0.20, 0.70), 1500.0, ((1, 1.0),), 0.06, 0.9),
    ObjectClass('ring', (0.10, 0.65, 0.70), 110.0, ((1, 1.0), (1.59, 0.5), (2.14, 0.25)),
                0.10, 0.05),
)
MOTIONS = ('horizontal', 'vertical', 'circle', 'diagonal')

VISIBLE_SECONDS = 0.16  # how long a strike is seen: 4 frames at 25 fps
FLASH_DECAY_SECONDS = 0.06
SOUND_SECONDS = 0.5  # the sound is faded out by then
CLICK_SECONDS = 0.004  # of the click that each sound begins with, so that its onset is sharp
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
        radius: of the object.
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
        frames=_draw_frames(rng, actors, frame_count, fps, size, difficulty),
        frame_rate=fps,
        height=size,
        width=size,
        waveform=_make_waveform(rng, strikes, round(duration * sample_rate), sample_rate,
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


def _position(actor: Actor, seconds: float):
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


def _draw(canvas: np.ndarray, x: np.ndarray, y: np.ndarray, actor: Actor, seconds: float):
    """Draws an actor as it is at a time.

    Args:
        canvas: float32 [H, W, 3], in [0, 1]; changed in place.
        x, y: places of the pixels, float32 [H, W].
        actor: what is drawn.
        seconds: the time.
    """
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
        cover(canvas, (np.abs(np.hypot(x, y) - ring) - 0.025) * size, (1.0, 1.0, 1.0),
               (1 - progress) ** 2)
    colour = np.asarray(look.colour) * (1 - 0.85 * flash) + 0.85 * flash
    cover(canvas, shape_distance(look.name, x / radius, y / radius) * radius * size, colour)


def _draw_frames(
    rng: np.random.Generator, actors: Sequence[Actor], frame_count: int, fps: float, size: int,
    difficulty: float,
) -> list[bytes]:
    """Draws the frames of a video.

    Args:
        rng: source of what is random: ground, clutter and noise.
        actors: in the order in which they are drawn, the last one over the others.
        frame_count: number of frames.
        fps: frames per second.
        size: height and width, in pixels.
        difficulty: amount of clutter and noise, 0 to 1.

    Returns:
        List of JPEG bytes; frame i shows time i / fps.
    """
    x, y = pixel_places(size)
    ground = make_ground(rng, size, difficulty)
    frames = []
    for i in range(frame_count):
        canvas = ground.copy()
        for actor in actors:
            _draw(canvas, x, y, actor, i / fps)
        frames.append(encode_frame(rng, canvas, difficulty))
    return frames


def _sound(rng: np.random.Generator, look: ObjectClass, pitch: float, sample_rate: int):
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
    signs = np.where(rng.uniform(size=len(times)) < 0.5, -0.5, 0.5)
    click = np.exp(-times / (CLICK_SECONDS / 4)) * signs
    return body * np.exp(-times / look.decay_seconds) * fade + click * (times < CLICK_SECONDS)


def _make_waveform(
    rng: np.random.Generator, strikes: Sequence[Strike], sample_count: int, sample_rate: int,
    difficulty: float,
) -> np.ndarray:
    """Makes the audio of a video.

    Args:
        rng: source of what is random: pitch and loudness of each strike, and noise.
        strikes: those that are audible begin at sample round(seconds * sample_rate).
        sample_count: number of samples.
        sample_rate: Hz.
        difficulty: amount of noise, 0 to 1.

    Returns:
        int16 [sample_count].
    """
    mix = np.zeros(sample_count)
    pitch = 2 ** rng.uniform(-1 / 6, 1 / 6, len(OBJECTS))
    for strike in strikes:
        if strike.audible:
            sound = _sound(rng, OBJECTS[strike.object], pitch[strike.object], sample_rate)
            sound *= rng.uniform(0.6, 1.0)
            start = round(strike.seconds * sample_rate)
            length = min(len(sound), sample_count - start)
            mix[start:start + length] += SOUND_GAIN * sound[:length]
    mix += 0.03 * difficulty * rng.standard_normal(sample_count)
    return np.round(np.clip(mix, -1, 1) * 32767).astype(np.int16)


def _truth_row(strike: Strike):
    return (f'{strike.seconds:.6f}', OBJECTS[strike.object].name, int(strike.visible),
            int(strike.audible))


def _totals(strikes: Sequence[Strike]):
    return {
        'strikes': sum(strike.visible and strike.audible for strike in strikes),
        'silent_strikes': sum(not strike.audible for strike in strikes),
        'off_screen_strikes': sum(not strike.visible for strike in strikes),
    }


WORLD = World(make_video, 'strikes', ('strike_seconds', 'object', 'visible', 'audible'), _truth_row,
              _totals)
