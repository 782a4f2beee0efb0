"""The shapes of the five drawn species, part by part, and the ellipse and limb that they are made of.

What enters: a random generator, for how the object moves. What leaves: its parts from back to front, in object
coordinates (u right, v down, about [-1, 1]).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from dfeat.demo.canvas import Points

Shapes = list[tuple[int, Points, float]]  # (part category id, shape in object coordinates, shade)


def ellipse(cu: float, cv: float, ru: float, rv: float, degrees: float = 0.0) -> Points:
    """An ellipse about (cu, cv) with the half-axes ru and rv, turned by so many degrees; 24 corners."""
    t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    angle = np.deg2rad(degrees)
    u, v = ru * np.cos(t), rv * np.sin(t)
    return np.stack([cu + u * np.cos(angle) - v * np.sin(angle), cv + u * np.sin(angle) + v * np.cos(angle)], -1)


def limb(u0: float, v0: float, u1: float, v1: float, start: float, end: float) -> Points:
    """A tapered limb from (u0, v0) to (u1, v1), `start` and `end` wide."""
    along = np.array([u1 - u0, v1 - v0])
    across = np.array([-along[1], along[0]]) / np.hypot(*along)
    a, b = np.array([u0, v0]), np.array([u1, v1])
    return np.stack([a + across * start / 2, b + across * end / 2, b - across * end / 2, a - across * start / 2])


def _quadruped(rng: np.random.Generator) -> Shapes:
    step = rng.uniform(-0.10, 0.10)
    lift = rng.uniform(-0.12, 0.12)
    return [
        (3, limb(-0.44, -0.10, -1.00, -0.46 + 2 * lift, 0.34, 0.50), 1.0),
        (2, limb(-0.30, 0.20, -0.42 - step, 0.82, 0.17, 0.16), 0.75),
        (2, limb(0.26, 0.20, 0.38 + step, 0.82, 0.17, 0.16), 0.75),
        (2, limb(-0.42, 0.20, -0.30 + step, 0.86, 0.19, 0.18), 1.0),
        (2, limb(0.36, 0.20, 0.24 - step, 0.86, 0.19, 0.18), 1.0),
        (1, ellipse(-0.04, 0.04, 0.50, 0.25), 1.0),
        (0, limb(0.58, -0.36, 0.50, -0.72, 0.14, 0.06), 0.85),
        (0, limb(0.74, -0.36, 0.86, -0.70, 0.12, 0.05), 0.85),
        (0, ellipse(0.64, -0.24 + lift / 2, 0.33, 0.29), 1.0),
    ]


def _biped(rng: np.random.Generator) -> Shapes:
    reach = rng.uniform(-0.35, 0.35)
    sway = rng.uniform(-0.08, 0.08)
    return [
        (8, limb(-0.12, 0.26, -0.52, 0.58, 0.20, 0.22), 1.0),
        (8, limb(-0.50, 0.66, -0.88, 0.06 + sway, 0.24, 0.28), 1.0),
        (7, limb(-0.14, 0.36, -0.26 + sway, 0.92, 0.23, 0.26), 0.85),
        (7, limb(0.16, 0.36, 0.28 + sway, 0.92, 0.23, 0.26), 1.0),
        (6, limb(-0.20, -0.20, -0.66, 0.02 - reach, 0.22, 0.26), 0.8),
        (5, ellipse(0.0, 0.10, 0.26, 0.36), 1.0),
        (6, limb(0.20, -0.20, 0.70, 0.06 + reach, 0.22, 0.28), 1.0),
        (4, ellipse(-0.24, -0.62, 0.09, 0.11), 0.8),
        (4, ellipse(0.24, -0.62, 0.09, 0.11), 0.8),
        (4, ellipse(0.0, -0.58, 0.28, 0.30), 1.0),
    ]


def _fish(rng: np.random.Generator) -> Shapes:
    wag = rng.uniform(-0.16, 0.16)
    dorsal = np.array([[-0.34, -0.24], [-0.36, -0.72], [0.04, -0.58], [0.18, -0.30]])
    ventral = np.array([[-0.26, 0.26], [-0.40, 0.66], [-0.06, 0.58], [0.14, 0.32]])
    tail = np.array([[-0.44, -0.10], [-1.00, -0.58 + wag], [-0.84, 0.0 + wag], [-1.00, 0.58 + wag], [-0.44, 0.10]])
    head_arc = np.linspace(-np.pi / 2, np.pi / 2, 14)
    head = np.stack([0.14 + 0.66 * np.cos(head_arc), 0.37 * np.sin(head_arc)], -1)
    return [
        (12, tail, 1.0),
        (11, dorsal, 1.0),
        (11, ventral, 0.9),
        (10, ellipse(-0.16, 0.0, 0.40, 0.33), 1.0),
        (9, head, 1.0),
        (11, limb(0.04, 0.06, -0.20, 0.24 + wag, 0.10, 0.22), 0.85),
    ]


def _bird(rng: np.random.Generator) -> Shapes:
    flap = rng.uniform(-0.22, 0.22)
    near = np.array([[0.22, 0.10], [0.02, 0.70 + flap], [-0.26, 0.80 + flap], [-0.22, 0.30], [-0.14, 0.12]])
    far = np.array([[0.24, -0.16], [0.12, -0.64 + flap], [-0.10, -0.76 + flap], [-0.06, -0.20]])
    tail = np.array([[-0.40, -0.12], [-1.02, -0.40], [-0.94, 0.04], [-1.02, 0.46], [-0.40, 0.16]])
    beak = np.array([[0.86, -0.26], [1.08, -0.08], [0.84, 0.0]])
    return [
        (15, far, 0.8),
        (17, tail, 1.0),
        (14, ellipse(0.0, 0.02, 0.46, 0.25), 1.0),
        (13, beak, 0.7),
        (13, ellipse(0.60, -0.14, 0.33, 0.30), 1.0),
        (15, near, 1.0),
    ]


def _bicycle(rng: np.random.Generator) -> Shapes:
    lean = rng.uniform(-0.06, 0.06)
    return [
        (30, ellipse(-0.60, 0.46, 0.27, 0.27), 1.0),
        (30, ellipse(0.60, 0.46, 0.27, 0.27), 1.0),
        (27, limb(-0.56, 0.42, 0.02, 0.42, 0.13, 0.13), 0.9),
        (27, limb(0.02, 0.46, 0.44, -0.14, 0.15, 0.15), 1.0),
        (27, limb(-0.30, -0.14, 0.44, -0.14, 0.15, 0.15), 0.9),
        (27, limb(-0.34, -0.14, 0.04, 0.46, 0.15, 0.15), 1.0),
        (29, limb(-0.34, -0.12, -0.40, -0.36, 0.16, 0.16), 0.8),
        (29, ellipse(-0.44 + lean, -0.50, 0.38, 0.22), 1.0),
        (28, limb(0.56, 0.40, 0.46, -0.46, 0.15, 0.20), 0.9),
        (28, limb(0.14, -0.62 + lean, 0.82, -0.48 + lean, 0.26, 0.38), 1.0),
    ]


SHAPES: Final[dict[str, Callable[[np.random.Generator], Shapes]]] = {
    "Quadruped": _quadruped,
    "Biped": _biped,
    "Fish": _fish,
    "Bird": _bird,
    "Bicycle": _bicycle,
}
"""Super-category -> the parts of an object of it."""
EYES: Final = {"Quadruped": (0.74, -0.30), "Fish": (0.56, -0.10), "Bird": (0.68, -0.20)}
"""Super-category -> where its eye is, in object coordinates; the others show none."""
