"""The sustained world: things that hum, and whose pitch follows their height.

One object per video wanders over a plain ground and sounds all the time, as loud at its end as at
its beginning. Its class, a shape and a colour, goes with a timbre; the pitch of the tone rises and
falls with the height of the object:

    pitch_hz = LOWEST_HZ * 2 ** (OCTAVES * height)

where height is 0 at the lowest place of all paths and 1 at the highest. Frames and samples are each
made for their own exact time. A path leads through places drawn at random at irregular times, so
that it does not repeat; nothing begins, ends or pulses.

So *what* sounds separates an easy negative of another class, two of three; the third, of the same
class, and all hard and super-hard ones are told by *when* alone: whether the tone moves as the
object does. Whoever knows *what* and nothing else reaches (1 + 2/3) / 2 = 83 % on easy negatives.
`difficulty` adds what the real world has: noise in video and audio, static clutter, other moving
objects that are silent, and a tone of a thing out of sight.

Each record carries one label, (object class, 'object:NAME'). The truth is the path: time, height
and pitch of each frame.
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

DATASET_NAME = 'sustained'

LOWEST_HZ, OCTAVES = 220.0, 2.0
LOWEST_Y, HIGHEST_Y = 0.78, 0.22  # of paths, from the upper edge: height 0 and 1
LEFT_X, RIGHT_X = 0.32, 0.68
MIN_KNOT_SECONDS, MAX_KNOT_SECONDS = 0.3, 0.8  # from one turn of a path to the next
MIN_KNOT_CHANGE = 0.3  # of the whole reach, so that no path stands still
LOUDNESS = 0.12  # root mean square of a tone at its loudest, of full scale


class ObjectClass(NamedTuple):
    """What an object of one class looks and sounds like.

    Attributes:
        name: name of the class, its shape.
        colour: red, green, blue in [0, 1].
        partials: (multiple of the pitch, amplitude) of each partial.
    """

    name: str
    colour: tuple
    partials: tuple


OBJECTS = (
    ObjectClass('disc', (0.80, 0.15, 0.15), ((1, 1.0),)),
    ObjectClass('square', (0.15, 0.65, 0.20), tuple((n, n ** -0.5) for n in (1, 3, 5, 7))),
    ObjectClass('triangle', (0.20, 0.30, 0.90), tuple((n, 1.0) for n in range(1, 9))),
)


class Place(NamedTuple):
    """Where the object is in one frame, as truth.

    Attributes:
        seconds: time of the frame.
        height: 0 to 1.
        pitch_hz: of its tone at that time.
    """

    seconds: float
    height: float
    pitch_hz: float


class Path(NamedTuple):
    """A number from 0 to 1 over time: through `values` at `seconds`, smoothly, at rest at each.

    Attributes:
        seconds, values: float64 [K], seconds ascending, from before 0 to the end of the video.
    """

    seconds: np.ndarray
    values: np.ndarray

    def at(self, seconds: np.ndarray | float) -> np.ndarray:
        """The number at any times, float64 of the same shape."""
        after = np.searchsorted(self.seconds, seconds, side='right')
        after = np.clip(after, 1, len(self.seconds) - 1)
        start, end = self.seconds[after - 1], self.seconds[after]
        progress = (1 - np.cos(np.pi * (seconds - start) / (end - start))) / 2
        return self.values[after - 1] + (self.values[after] - self.values[after - 1]) * progress


class Actor(NamedTuple):
    """A moving object: index in `OBJECTS`, radius, and its ways up and across."""

    object: int
    radius: float
    height: Path
    across: Path


def make_video(
    index: int, seed: int = 0, *, seconds: float = 4.0, fps: float = 25.0, size: int = 40,
    sample_rate: int = 16000, difficulty: float = 0.2,
) -> tuple[records.Video, list[Place]]:
    """Makes one video of the world; the same arguments give the same video.

    Args:
        index: number of the video in its set, from 0.
        seed: seed of the set.
        seconds: duration; it is rounded to whole frames.
        fps: frames per second.
        size: height and width of a frame, in pixels.
        sample_rate: Hz.
        difficulty: 0 (one object, its tone, nothing else) to 1.

    Returns:
        A `records.Video` of round(seconds * fps) frames, with a waveform of the same duration, and
        the place of the object in each frame.

    Example:
        >>> video, places = make_video(0, seconds=1.0)
        >>> len(video.frames), len(video.waveform), len(places)
        (25, 16000, 25)
    """
    rng = np.random.default_rng([seed, index, 2])  # 2: apart from the other world's
    # Each block of videos holds each class once.
    order = np.random.default_rng([seed, index // len(OBJECTS), 3]).permutation(len(OBJECTS))
    object_index = int(order[index % len(OBJECTS)])
    frame_count = round(seconds * fps)
    duration = frame_count / fps

    actor = _make_actor(rng, object_index, duration)
    silent = [_make_actor(rng, _other_object(rng, object_index), duration)
              for _ in range(rng.binomial(2, difficulty))]
    unseen = [_make_actor(rng, _other_object(rng, object_index), duration)
              for _ in range(rng.binomial(1, difficulty))]
    # The one that sounds comes last, over the others: it is what the label speaks of.
    frames = _draw_frames(rng, [*silent, actor], frame_count, fps, size, difficulty)
    waveform = _make_waveform(rng, actor, unseen, round(duration * sample_rate), sample_rate,
                              difficulty)
    times = np.arange(frame_count) / fps
    heights = actor.height.at(times)
    video = records.Video(
        example_id=f'{DATASET_NAME}-{seed}-{index:05d}', frames=frames, frame_rate=fps, height=size,
        width=size, waveform=waveform, sample_rate=sample_rate, dataset_name=DATASET_NAME,
        labels=((object_index, f'object:{OBJECTS[object_index].name}'),))
    return video, [Place(*map(float, place)) for place in zip(times, heights, pitch_of(heights),
                                                              strict=True)]


def pitch_of(height: np.ndarray) -> np.ndarray:
    """Pitch in Hz at a height from 0 to 1."""
    return LOWEST_HZ * 2 ** (OCTAVES * height)


def _other_object(rng: np.random.Generator, object_index: int):
    return int((object_index + rng.integers(1, len(OBJECTS))) % len(OBJECTS))


def _make_path(rng: np.random.Generator, duration: float):
    """A random `Path` over a duration in seconds."""
    count = int((duration + MAX_KNOT_SECONDS) / MIN_KNOT_SECONDS) + 3
    gaps = rng.uniform(MIN_KNOT_SECONDS, MAX_KNOT_SECONDS, count)
    seconds = np.cumsum(gaps) - gaps[0] * (1 + rng.uniform())  # begins within its first way
    values = [rng.uniform()]
    while len(values) < count:
        if abs((value := rng.uniform()) - values[-1]) >= MIN_KNOT_CHANGE:
            values.append(value)
    return Path(seconds, np.array(values))


def _make_actor(rng: np.random.Generator, object_index: int, duration: float):
    return Actor(object_index, rng.uniform(0.11, 0.15), _make_path(rng, duration),
                 _make_path(rng, duration))


def _draw_frames(
    rng: np.random.Generator, actors: Sequence[Actor], frame_count: int, fps: float, size: int,
    difficulty: float,
) -> list[bytes]:
    """JPEG bytes of each frame; frame i shows time i / fps, the last actor over the others."""
    x, y = pixel_places(size)
    ground = make_ground(rng, size, difficulty)
    frames = []
    for i in range(frame_count):
        canvas = ground.copy()
        for actor in actors:
            look = OBJECTS[actor.object]
            centre_x = LEFT_X + (RIGHT_X - LEFT_X) * actor.across.at(i / fps)
            centre_y = LOWEST_Y + (HIGHEST_Y - LOWEST_Y) * actor.height.at(i / fps)
            distance = shape_distance(look.name, (x - centre_x) / actor.radius,
                                      (y - centre_y) / actor.radius)
            cover(canvas, distance * actor.radius * size, look.colour)
        frames.append(encode_frame(rng, canvas, difficulty))
    return frames


def _make_waveform(
    rng: np.random.Generator, actor: Actor, unseen: Sequence[Actor], sample_count: int,
    sample_rate: int, difficulty: float,
) -> np.ndarray:
    """The tone of an actor, those of unseen ones, softer, and noise: int16 [sample_count]."""
    mix = LOUDNESS * rng.uniform(0.5, 1.0) * _tone(rng, actor, sample_count, sample_rate)
    for other in unseen:
        mix += LOUDNESS * rng.uniform(0.1, 0.4) * _tone(rng, other, sample_count, sample_rate)
    mix += 0.05 * difficulty * rng.standard_normal(sample_count)
    return np.round(np.clip(mix, -1, 1) * 32767).astype(np.int16)


def _tone(rng: np.random.Generator, actor: Actor, sample_count: int, sample_rate: int):
    """The tone of an actor, float64 [sample_count], with a root mean square of 1 at all times."""
    pitch = pitch_of(actor.height.at(np.arange(sample_count) / sample_rate))
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    tone, power = np.zeros(sample_count), np.zeros(sample_count)
    for multiple, amplitude in OBJECTS[actor.object].partials:
        # A partial fades out below half of the sample rate, so that none is mirrored there.
        heard = amplitude * np.clip(10 - 20 * multiple * pitch / sample_rate, 0, 1)
        tone += heard * np.sin(multiple * phase + rng.uniform(0, 2 * np.pi))
        power += heard**2 / 2
    return tone / np.sqrt(power)


def _truth_row(place: Place):
    return tuple(f'{value:.6f}' for value in place)


def _totals(places: Sequence[Place]):
    return {}


WORLD = World(make_video, 'paths', ('seconds', 'height', 'pitch_hz'), _truth_row, _totals)
