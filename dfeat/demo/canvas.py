"""The canvas that objects and occluders are drawn on: pixels finer than the picture's, averaged at the end.

What enters: polygons in pixels of the picture (x before y) and colours. What leaves: masks, and a picture
(SIZE, SIZE, 3). A canvas is float64 (side, side, 3) in 0 to 255, its side `SIZE * SUPERSAMPLING`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIZE: Final = 64
SUPERSAMPLING: Final = 2

Points = NDArray[np.float64]
"""A polygon (k, 2), x (or u) before y (or v)."""


def background(rng: np.random.Generator) -> NDArray[np.float64]:
    """A muted gradient with soft waves and blobs, (side, side, 3)."""
    side = SIZE * SUPERSAMPLING
    rows, columns = np.mgrid[0:side, 0:side] / side
    first, second = rng.uniform(70, 215, 3), rng.uniform(70, 215, 3)
    first, second = (0.5 * c + 0.5 * c.mean() for c in (first, second))
    direction = rng.uniform(0, 2 * np.pi)
    ramp = np.clip(0.5 + (columns - 0.5) * np.cos(direction) + (rows - 0.5) * np.sin(direction), 0, 1)
    waves = np.zeros_like(ramp)
    for _ in range(2):
        fx, fy = rng.uniform(-14, 14, 2)
        waves += rng.uniform(3, 8) * np.sin(fx * columns + fy * rows + rng.uniform(0, 6.3))
    for _ in range(rng.integers(1, 4)):
        x, y, r = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.1, 0.25)
        waves += rng.uniform(-26, 26) * np.exp(-(((columns - x) ** 2 + (rows - y) ** 2) / r**2))
    return first * ramp[..., None] + second * (1 - ramp[..., None]) + waves[..., None]


def fill(canvas: NDArray[np.float64], polygon: Points, colours: NDArray[np.float64]) -> None:
    """Paint a polygon, (k, 2) in pixels of the picture, with one colour (3,) or those of a canvas (side, side, 3)."""
    side = canvas.shape[0]
    inside = polygon_mask([polygon * (side / SIZE)], side)
    canvas[inside] = colours[inside] if colours.ndim == 3 else colours


def averaged(canvas: NDArray[np.float64]) -> NDArray[np.float64]:
    """The picture (SIZE, SIZE, 3) that a canvas shows, float64 in 0 to 255."""
    return canvas.reshape(SIZE, SUPERSAMPLING, SIZE, SUPERSAMPLING, 3).mean(axis=(1, 3))


def polygon_mask(polygons: list[Points], size: int) -> NDArray[np.bool_]:
    """Rasterise polygons (each (k, 2), x before y, in pixels) into one (size, size) mask, by pixel centre."""
    picture = Image.new("1", (size, size))
    pen = ImageDraw.Draw(picture)
    for polygon in polygons:
        pen.polygon([(float(x) - 0.5, float(y) - 0.5) for x, y in polygon], fill=1)
    return np.asarray(picture)
