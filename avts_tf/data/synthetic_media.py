"""How the synthetic world looks and sounds: its objects, and the frames and audio of their strikes.

All lengths are parts of the frame's side, all places (x, y) from the upper left corner.
"""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image


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


def _shape_distance(name: str, x: np.ndarray, y: np.ndarray):
    """Signed distance to the edge of a shape of radius 1 around (0, 0), negative inside."""
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


def _cover(
    canvas: np.ndarray, distance_pixels: np.ndarray, colour: Sequence[float] | np.ndarray,
    opacity: float = 1.0,
):
    """Paints a colour where the distance is negative, with soft edges a pixel wide."""
    alpha = np.clip(0.5 - distance_pixels, 0.0, 1.0)[..., None] * np.float32(opacity)
    canvas += alpha * (np.asarray(colour, np.float32) - canvas)


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
        _cover(canvas, (np.abs(np.hypot(x, y) - ring) - 0.025) * size, (1.0, 1.0, 1.0),
               (1 - progress) ** 2)
    colour = np.asarray(look.colour) * (1 - 0.85 * flash) + 0.85 * flash
    _cover(canvas, _shape_distance(look.name, x / radius, y / radius) * radius * size, colour)


def draw_frames(
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
    places = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.meshgrid(places, places)
    ground = np.empty((size, size, 3), np.float32)
    slope = rng.uniform(-0.06, 0.06, 2)
    ground[:] = rng.uniform(0.08, 0.22, 3) + (slope[0] * x + slope[1] * y)[..., None]
    for _ in range(rng.poisson(6 * difficulty)):
        radius, place = rng.uniform(0.05, 0.13), rng.uniform(0, 1, 2)
        name = OBJECTS[rng.integers(len(OBJECTS))].name
        distance = _shape_distance(name, (x - place[0]) / radius, (y - place[1]) / radius)
        _cover(ground, distance * radius * size, rng.uniform(0.1, 0.5, 3))

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


def make_waveform(
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
