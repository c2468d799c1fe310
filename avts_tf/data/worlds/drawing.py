"""What the synthetic worlds draw with: shapes with soft edges, grounds, and frames as JPEG.

All lengths are parts of the frame's side, all places (x, y) from the upper left corner.
"""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

SHAPES = ('disc', 'square', 'triangle', 'diamond', 'cross', 'ring')


def pixel_places(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the middle of each pixel of a frame of `size` pixels: float32 [H, W] each."""
    places = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.meshgrid(places, places)
    return x, y


def shape_distance(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to the edge of a shape of radius 1 around (0, 0), negative inside.

    Args:
        name: one of `SHAPES`.
        x, y: places, of the same shape.
    """
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


def cover(
    canvas: np.ndarray, distance_pixels: np.ndarray, colour: Sequence[float] | np.ndarray,
    opacity: float = 1.0,
) -> None:
    """Paints a colour where the distance is negative, with soft edges a pixel wide.

    Args:
        canvas: float32 [H, W, 3], in [0, 1]; changed in place.
        distance_pixels: float [H, W], signed distance to an edge.
        colour: red, green, blue in [0, 1].
        opacity: 0 to 1.
    """
    alpha = np.clip(0.5 - distance_pixels, 0.0, 1.0)[..., None] * np.float32(opacity)
    canvas += alpha * (np.asarray(colour, np.float32) - canvas)


def make_ground(rng: np.random.Generator, size: int, difficulty: float) -> np.ndarray:
    """A dark, slightly shaded ground with motionless clutter: float32 [size, size, 3]."""
    x, y = pixel_places(size)
    ground = np.empty((size, size, 3), np.float32)
    slope = rng.uniform(-0.06, 0.06, 2)
    ground[:] = rng.uniform(0.08, 0.22, 3) + (slope[0] * x + slope[1] * y)[..., None]
    for _ in range(rng.poisson(6 * difficulty)):
        radius, place = rng.uniform(0.05, 0.13), rng.uniform(0, 1, 2)
        name = SHAPES[rng.integers(len(SHAPES))]
        distance = shape_distance(name, (x - place[0]) / radius, (y - place[1]) / radius)
        cover(ground, distance * radius * size, rng.uniform(0.1, 0.5, 3))
    return ground


def encode_frame(rng: np.random.Generator, canvas: np.ndarray, difficulty: float) -> bytes:
    """A canvas, float32 [H, W, 3] in [0, 1], as JPEG bytes, with noise by the difficulty."""
    if difficulty:
        canvas = canvas + (rng.standard_normal(canvas.shape, np.float32)
                           * np.float32(0.1 * difficulty))
    pixels = np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'JPEG', quality=90)
    return buffer.getvalue()
