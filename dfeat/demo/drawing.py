"""Drawn objects with parts: the picture side of the built-in world.

What enters: a class (its index in `dresses.CLASSES`) and a random generator. What leaves: a `Drawing`, an RGB
picture together with one polygon per drawn part instance, named by PartImageNet's part categories.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfeat.demo.canvas import SIZE, SUPERSAMPLING, Points, averaged, background, fill
from dfeat.demo.dresses import CLASSES, SUPER_CATEGORIES, Dress, shown_dress
from dfeat.demo.shapes import EYES, SHAPES, ellipse


@dataclass
class Drawing:
    """A picture (SIZE, SIZE, 3) uint8, its parts as (category id, polygon (k, 2) in pixels), x before y."""

    image: NDArray[np.uint8]
    parts: list[tuple[int, Points]]


def draw(class_index: int, rng: np.random.Generator) -> Drawing:
    """Draw one object of the class on a textured background, in a random pose, scale and place."""
    super_index, within = CLASSES[class_index]
    category = SUPER_CATEGORIES[super_index]
    pose = _random_pose(rng)
    dresses = {part: shown_dress(category, part, within, rng) for part in category.dresses}
    canvas = background(rng)
    parts: list[tuple[int, Points]] = []
    for part, shape, shade in SHAPES[category.name](rng):
        polygon = pose.to_pixels(shape)
        fill(canvas, polygon, _paint(dresses[part], pose, shape) * shade)
        parts.append((part, polygon))
    _add_eye(canvas, category.name, pose)
    coarse = averaged(canvas)
    light = rng.uniform(0.88, 1.08)
    return Drawing(np.clip(coarse * light + rng.normal(0, 1.5, coarse.shape), 0, 255).astype(np.uint8), parts)


@dataclass(frozen=True)
class _Pose:
    """Object coordinates (u right, v down, about [-1, 1]) to canvas pixels and back."""

    matrix: NDArray[np.float64]  # (2, 2)
    centre: NDArray[np.float64]  # (2,)

    def to_pixels(self, shape: Points) -> Points:
        return shape @ self.matrix.T + self.centre

    def object_coordinates(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        side = SIZE * SUPERSAMPLING
        rows, columns = np.mgrid[0:side, 0:side] + 0.5
        pixels = np.stack([columns / SUPERSAMPLING, rows / SUPERSAMPLING], -1)
        uv = (pixels - self.centre) @ np.linalg.inv(self.matrix).T
        return uv[..., 0], uv[..., 1]


def _random_pose(rng: np.random.Generator) -> _Pose:
    angle = np.deg2rad(rng.uniform(-14, 14))
    size = SIZE * rng.uniform(0.40, 0.49)
    flip = -1.0 if rng.random() < 0.5 else 1.0
    squeeze = rng.uniform(0.92, 1.08)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([flip * size * squeeze, size / squeeze])
    centre = SIZE / 2 + rng.uniform(-0.06, 0.06, 2) * SIZE
    return _Pose(matrix, centre)


def _paint(dress: Dress, pose: _Pose, shape: Points) -> NDArray[np.float64]:
    """The dress as colours on the whole canvas (side, side, 3), its pattern fixed to the object."""
    u, v = pose.object_coordinates()
    base, accent = np.array(dress.base, float), np.array(dress.accent, float)
    centre = (shape.min(0) + shape.max(0)) / 2
    if dress.pattern == "stripes":
        mix = np.sin(u * 24.0) > 0.25
    elif dress.pattern == "bands":
        mix = np.sin((u + v) * 17.0) > 0.3
    elif dress.pattern == "spots":
        mix = np.sin(u * 24.0) * np.sin(v * 24.0) > 0.35
    elif dress.pattern == "half":
        mix = v > centre[1]
    elif dress.pattern == "spokes":
        du, dv = u - centre[0], v - centre[1]
        radius = np.hypot(du, dv) / ((shape[:, 0].max() - shape[:, 0].min()) / 2)
        mix = (radius < 0.70) & ((np.abs(np.sin(2 * np.arctan2(dv, du))) < 0.94) | (radius < 0.2))
    else:
        mix = np.zeros_like(u, bool)
    return np.where(mix[..., None], accent, base)


def _add_eye(canvas: NDArray[np.float64], name: str, pose: _Pose) -> None:
    """A dark dot where the eye is: it belongs to the head, and is no part of its own."""
    if name in EYES:
        fill(canvas, pose.to_pixels(ellipse(*EYES[name], 0.05, 0.05)), np.array([20.0, 18.0, 22.0]))
