"""Things that stand in front of a drawn object: leaves, posts, a fence or a box.

What enters: a picture, the object's mask, a random generator. What leaves: the picture with a part of the object hidden.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfeat.demo.canvas import SIZE, SUPERSAMPLING, Points, averaged, fill, polygon_mask
from dfeat.demo.shapes import ellipse, limb

_OCCLUDER_COLOURS = ((70, 112, 52), (104, 80, 60), (150, 150, 154), (176, 140, 92), (90, 60, 110), (60, 90, 120))


LEAST, MOST = 0.15, 0.30
"""Share of the object's area that an occluder hides."""


def draw_occluder(
    image: NDArray[np.uint8], object_mask: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Draw leaves, posts, a fence or a box in front of the object, scaled until it hides LEAST to MOST of its area."""
    kinds = (_leaves, _posts, _fence, _box)
    kind = kinds[rng.integers(len(kinds))]
    rows, columns = np.nonzero(object_mask)
    scale = 1.0
    for attempt in range(200):
        centre = rng.integers(rows.size)
        shapes = kind(float(columns[centre]), float(rows[centre]), scale, rng)
        covered = polygon_mask(shapes, SIZE)
        share = (covered & object_mask).sum() / object_mask.sum()
        if LEAST <= share <= MOST:
            break
        scale = float(np.clip(scale * (1.06 if share < LEAST else 0.94), 0.3, 4.0))
        if attempt % 25 == 24:
            kind, scale = kinds[rng.integers(len(kinds))], 1.0
    else:
        raise AssertionError("no occluder fitted the object in 200 tries")
    canvas = np.repeat(np.repeat(image, SUPERSAMPLING, 0), SUPERSAMPLING, 1).astype(np.float64)
    colour = np.array(_OCCLUDER_COLOURS[rng.integers(len(_OCCLUDER_COLOURS))], np.float64)
    for shape in shapes:
        tint = np.clip(colour * rng.uniform(0.8, 1.15) + rng.normal(0, 8, 3), 0, 255)
        fill(canvas, shape, tint + _grain(rng))
    return np.clip(averaged(canvas), 0, 255).astype(np.uint8)


def _grain(rng: np.random.Generator) -> NDArray[np.float64]:
    side = SIZE * SUPERSAMPLING
    rows, columns = np.mgrid[0:side, 0:side] / side
    fx, fy = rng.uniform(-60, 60, 2)
    return (14 * np.sin(fx * columns + fy * rows))[..., None] * np.ones(3)


def _leaves(x: float, y: float, scale: float, rng: np.random.Generator) -> list[Points]:
    spread = 7.0 * scale
    return [
        ellipse(
            x + rng.normal(0, spread),
            y + rng.normal(0, spread),
            rng.uniform(3, 6) * scale**0.5,
            rng.uniform(1.8, 3.2) * scale**0.5,
            rng.uniform(0, 180),
        )
        for _ in range(rng.integers(8, 13))
    ]


def _posts(x: float, y: float, scale: float, rng: np.random.Generator) -> list[Points]:
    slant = rng.uniform(-4, 4)
    return [limb(x + slant, -2.0, x - slant, SIZE + 2.0, 9 * scale, 9 * scale)]


def _fence(x: float, y: float, scale: float, rng: np.random.Generator) -> list[Points]:
    gap, slant = rng.uniform(12, 17), rng.uniform(-3, 3)
    offset = x % gap
    return [
        limb(offset + gap * i + slant, -2.0, offset + gap * i - slant, SIZE + 2.0, 3.2 * scale, 3.2 * scale)
        for i in range(-1, int(SIZE / gap) + 2)
    ]


def _box(x: float, y: float, scale: float, rng: np.random.Generator) -> list[Points]:
    half_w, half_h = rng.uniform(7, 12) * scale**0.5, rng.uniform(7, 12) * scale**0.5
    corners = np.array([[-half_w, -half_h], [half_w, -half_h], [half_w, half_h], [-half_w, half_h]])
    angle = np.deg2rad(rng.uniform(-25, 25))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return [corners @ turn.T + np.array([x, y])]
