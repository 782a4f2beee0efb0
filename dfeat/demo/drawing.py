"""Drawn objects with parts: the picture side of the built-in world.

What enters: a class (its index in `CLASSES`) and a random generator. What leaves: a `Drawing`, an RGB
picture together with one polygon per drawn part instance, named by PartImageNet's part categories.

Four classes share one super-category and its shape. What tells them apart is how their parts are
dressed. A class is two bits (a, b); of the parts of an object one shows a, one shows b, one shows
a xor b, and one has a dress of its own for each class. So no single two-way part names the class, and
hiding any half of the parts leaves enough of them to name it. Dresses are blurred by noise, as nature's
are: `DRESS_NOISE` is the standard deviation of the mix between the two dresses of a part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIZE: Final = 64
SUPERSAMPLING: Final = 2
DRESS_NOISE: Final = 0.32

Points = NDArray[np.float64]
RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Dress:
    """How a part is painted: base colour, accent colour, and the pattern that mixes them."""

    base: RGB
    accent: RGB
    pattern: str  # plain | stripes | bands | spots | half


@dataclass(frozen=True)
class SuperCategory:
    """A shape shared by four classes: PartImageNet name, its wnids, and the dresses of each part.

    `dresses` maps a PartImageNet part category id to two dresses (shown bit) or four (one a class);
    `bits` maps the two-dress parts to the bit they show: "a", "b" or "a^b".
    """

    name: str
    wnids: tuple[str, str, str, str]
    dresses: dict[int, tuple[Dress, ...]]
    bits: dict[int, str]


SUPER_CATEGORIES: Final = (
    SuperCategory(
        "Quadruped",
        ("n02129604", "n02128385", "n02403003", "n02510455"),  # tiger, leopard, ox, giant panda
        {
            0: (Dress((222, 134, 50), (250, 226, 190), "half"), Dress((92, 66, 52), (60, 44, 38), "plain")),
            1: (Dress((224, 138, 48), (40, 28, 24), "stripes"), Dress((226, 196, 128), (84, 56, 36), "spots")),
            2: (Dress((244, 236, 220), (214, 150, 80), "half"), Dress((48, 44, 52), (26, 24, 30), "plain")),
            3: (
                Dress((220, 130, 46), (36, 26, 22), "bands"),
                Dress((230, 200, 130), (90, 60, 40), "spots"),
                Dress((120, 60, 44), (120, 60, 44), "plain"),
                Dress((240, 240, 236), (240, 240, 236), "plain"),
            ),
        },
        {0: "a", 1: "b", 2: "a^b"},
    ),
    SuperCategory(
        "Biped",
        ("n02480495", "n02480855", "n02487347", "n02488702"),  # orangutan, gorilla, macaque, colobus
        {
            4: (Dress((202, 96, 42), (246, 204, 168), "half"), Dress((52, 52, 60), (132, 124, 124), "half")),
            5: (Dress((196, 92, 40), (126, 50, 22), "bands"), Dress((58, 58, 66), (206, 206, 206), "half")),
            6: (Dress((206, 110, 54), (206, 110, 54), "plain"), Dress((52, 48, 54), (150, 150, 156), "bands")),
            7: (
                Dress((150, 68, 34), (226, 150, 100), "half"),
                Dress((36, 36, 44), (36, 36, 44), "plain"),
                Dress((196, 168, 128), (120, 94, 66), "bands"),
                Dress((236, 232, 226), (236, 232, 226), "plain"),
            ),
            8: (Dress((204, 120, 60), (120, 56, 26), "bands"), Dress((240, 240, 240), (60, 60, 66), "half")),
        },
        {4: "a", 5: "b", 6: "a^b", 8: "a"},
    ),
    SuperCategory(
        "Fish",
        ("n01440764", "n01443537", "n01491361", "n02607072"),  # tench, goldfish, tiger shark, anemone fish
        {
            9: (Dress((104, 128, 74), (66, 84, 50), "spots"), Dress((250, 160, 44), (250, 214, 150), "half")),
            10: (Dress((118, 136, 150), (48, 60, 78), "stripes"), Dress((252, 138, 30), (250, 250, 250), "stripes")),
            11: (Dress((84, 104, 128), (84, 104, 128), "plain"), Dress((240, 96, 40), (250, 220, 90), "bands")),
            12: (
                Dress((96, 120, 70), (60, 78, 44), "bands"),
                Dress((255, 184, 60), (255, 236, 170), "bands"),
                Dress((78, 92, 118), (196, 204, 214), "half"),
                Dress((236, 70, 40), (250, 250, 250), "half"),
            ),
        },
        {9: "a", 10: "b", 11: "a^b"},
    ),
    SuperCategory(
        "Bird",
        ("n01608432", "n01614925", "n01828970", "n02058221"),  # kite, bald eagle, bee eater, albatross
        {
            13: (Dress((172, 116, 70), (110, 70, 40), "spots"), Dress((250, 250, 244), (222, 222, 214), "plain")),
            14: (Dress((104, 66, 42), (60, 38, 26), "spots"), Dress((60, 168, 120), (232, 200, 70), "half")),
            15: (Dress((94, 62, 44), (206, 168, 118), "bands"), Dress((52, 92, 176), (140, 190, 236), "bands")),
            17: (
                Dress((190, 120, 64), (90, 56, 34), "bands"),
                Dress((248, 248, 240), (248, 248, 240), "plain"),
                Dress((46, 140, 160), (20, 70, 110), "half"),
                Dress((70, 70, 76), (230, 230, 230), "half"),
            ),
        },
        {13: "a", 14: "b", 15: "a^b"},
    ),
    SuperCategory(
        "Bicycle",
        ("n03785016", "n03792782", "n04482393", "n02835271"),  # moped, mountain bike, tricycle, tandem
        {
            27: (Dress((204, 40, 44), (240, 200, 200), "plain"), Dress((36, 96, 196), (220, 230, 250), "bands")),
            28: (Dress((40, 40, 44), (40, 40, 44), "plain"), Dress((236, 196, 40), (150, 110, 20), "bands")),
            29: (
                Dress((60, 44, 36), (60, 44, 36), "plain"),
                Dress((236, 236, 240), (150, 150, 160), "bands"),
                Dress((226, 90, 150), (226, 90, 150), "plain"),
                Dress((90, 160, 70), (40, 84, 30), "spots"),
            ),
            30: (Dress((36, 36, 40), (196, 198, 206), "spokes"), Dress((150, 88, 44), (250, 232, 190), "spokes")),
        },
        {27: "a", 30: "b", 28: "a^b"},
    ),
)

CLASSES: Final = tuple((super_index, within) for super_index in range(len(SUPER_CATEGORIES)) for within in range(4))
"""Class index -> (index of its super-category, its number a*2+b within it)."""

WNIDS: Final = tuple(wnid for category in SUPER_CATEGORIES for wnid in category.wnids)


@dataclass
class Drawing:
    """A picture (SIZE, SIZE, 3) uint8, its parts as (category id, polygon (k, 2) in pixels), x before y."""

    image: NDArray[np.uint8]
    parts: list[tuple[int, Points]]


def draw(class_index: int, rng: np.random.Generator) -> Drawing:
    """Draw one object of the class on a textured background, in a random pose, scale and place."""
    super_index, within = CLASSES[class_index]
    category = SUPER_CATEGORIES[super_index]
    pose = _random_pose(category.name, rng)
    dresses = {part: _shown_dress(category, part, within, rng) for part in category.dresses}
    canvas = _background(rng)
    parts: list[tuple[int, Points]] = []
    for part, shape, shade in _SHAPES[category.name](rng):
        polygon = pose.to_pixels(shape)
        _fill(canvas, polygon, _paint(dresses[part], pose, shape) * shade)
        parts.append((part, polygon))
    _add_eye(canvas, category.name, pose, parts)
    fine = SUPERSAMPLING
    coarse = canvas.reshape(SIZE, fine, SIZE, fine, 3).mean(axis=(1, 3))
    light = rng.uniform(0.88, 1.08)
    return Drawing(np.clip(coarse * light + rng.normal(0, 1.5, coarse.shape), 0, 255).astype(np.uint8), parts)


def draw_occluder(
    image: NDArray[np.uint8],
    object_mask: NDArray[np.bool_],
    rng: np.random.Generator,
    low: float = 0.15,
    high: float = 0.30,
) -> NDArray[np.uint8]:
    """Put something in front of the object that hides between `low` and `high` of its area.

    Occluders are leaves, posts, a fence or a box, with a texture of their own. Tries until the share fits;
    each try grows or shrinks the occluder, so it ends after few.
    """
    kinds = (_leaves, _posts, _fence, _box)
    kind = kinds[rng.integers(len(kinds))]
    rows, columns = np.nonzero(object_mask)
    scale = 1.0
    for attempt in range(200):
        centre = rng.integers(rows.size)
        shapes = kind(float(columns[centre]), float(rows[centre]), scale, rng)
        covered = polygon_mask(shapes, SIZE)
        share = (covered & object_mask).sum() / object_mask.sum()
        if low <= share <= high:
            break
        scale = float(np.clip(scale * (1.06 if share < low else 0.94), 0.3, 4.0))
        if attempt % 25 == 24:
            kind, scale = kinds[rng.integers(len(kinds))], 1.0
    else:
        raise AssertionError("no occluder fitted the object in 200 tries")
    canvas = np.repeat(np.repeat(image, SUPERSAMPLING, 0), SUPERSAMPLING, 1).astype(np.float64)
    colour = np.array(_OCCLUDER_COLOURS[rng.integers(len(_OCCLUDER_COLOURS))], np.float64)
    for shape in shapes:
        tint = np.clip(colour * rng.uniform(0.8, 1.15) + rng.normal(0, 8, 3), 0, 255)
        _fill(canvas, shape, tint + _grain(rng))
    coarse = canvas.reshape(SIZE, SUPERSAMPLING, SIZE, SUPERSAMPLING, 3).mean(axis=(1, 3))
    return np.clip(coarse, 0, 255).astype(np.uint8)


def polygon_mask(polygons: list[Points], size: int) -> NDArray[np.bool_]:
    """Rasterise polygons (each (k, 2), x before y, in pixels) into one (size, size) mask, by pixel centre."""
    picture = Image.new("1", (size, size))
    pen = ImageDraw.Draw(picture)
    for polygon in polygons:
        pen.polygon([(float(x) - 0.5, float(y) - 0.5) for x, y in polygon], fill=1)
    return np.asarray(picture)


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


def _random_pose(name: str, rng: np.random.Generator) -> _Pose:
    angle = np.deg2rad(rng.uniform(-14, 14))
    size = SIZE * rng.uniform(0.40, 0.49)
    flip = -1.0 if rng.random() < 0.5 else 1.0
    squeeze = rng.uniform(0.92, 1.08)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([flip * size * squeeze, size / squeeze])
    centre = SIZE / 2 + rng.uniform(-0.06, 0.06, 2) * SIZE
    return _Pose(matrix, centre)


def _shown_dress(category: SuperCategory, part: int, within: int, rng: np.random.Generator) -> Dress:
    """The dress of `part` on class `within`, blurred towards the other dress of that part by noise."""
    choices = category.dresses[part]
    if part in category.bits:
        a, b = within >> 1, within & 1
        shown = {"a": a, "b": b, "a^b": a ^ b}[category.bits[part]]
        other = 1 - shown
    else:
        shown, other = within, int((within + rng.integers(1, 4)) % 4)
    mix = float(np.clip(abs(rng.normal(0, DRESS_NOISE)), 0, 0.75))
    tint = rng.normal(0, 10, 3)

    def blend(first: RGB, second: RGB) -> RGB:
        mixed = (1 - mix) * np.array(first) + mix * np.array(second) + tint
        red, green, blue = np.clip(mixed, 0, 255).astype(int)
        return int(red), int(green), int(blue)

    pattern = choices[other].pattern if mix > 0.45 else choices[shown].pattern
    return Dress(
        blend(choices[shown].base, choices[other].base), blend(choices[shown].accent, choices[other].accent), pattern
    )


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


def _fill(canvas: NDArray[np.float64], polygon: Points, colours: NDArray[np.float64]) -> None:
    side = canvas.shape[0]
    inside = polygon_mask([polygon * (side / SIZE)], side)
    canvas[inside] = colours[inside] if colours.ndim == 3 else colours


def _background(rng: np.random.Generator) -> NDArray[np.float64]:
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


def _ellipse(cu: float, cv: float, ru: float, rv: float, degrees: float = 0.0) -> Points:
    t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    angle = np.deg2rad(degrees)
    u, v = ru * np.cos(t), rv * np.sin(t)
    return np.stack([cu + u * np.cos(angle) - v * np.sin(angle), cv + u * np.sin(angle) + v * np.cos(angle)], -1)


def _limb(u0: float, v0: float, u1: float, v1: float, start: float, end: float) -> Points:
    """A tapered limb from (u0, v0) to (u1, v1), `start` and `end` wide."""
    along = np.array([u1 - u0, v1 - v0])
    across = np.array([-along[1], along[0]]) / np.hypot(*along)
    a, b = np.array([u0, v0]), np.array([u1, v1])
    return np.stack([a + across * start / 2, b + across * end / 2, b - across * end / 2, a - across * start / 2])


Shapes = list[tuple[int, Points, float]]  # (part category id, shape in object coordinates, shade)


def _quadruped(rng: np.random.Generator) -> Shapes:
    step = rng.uniform(-0.10, 0.10)
    lift = rng.uniform(-0.12, 0.12)
    ears = _limb(0.58, -0.36, 0.50, -0.72, 0.14, 0.06)
    horns = _limb(0.74, -0.36, 0.86, -0.70, 0.12, 0.05)
    return [
        (3, _limb(-0.44, -0.10, -1.00, -0.46 + 2 * lift, 0.34, 0.50), 1.0),
        (2, _limb(-0.30, 0.20, -0.42 - step, 0.82, 0.17, 0.16), 0.75),
        (2, _limb(0.26, 0.20, 0.38 + step, 0.82, 0.17, 0.16), 0.75),
        (2, _limb(-0.42, 0.20, -0.30 + step, 0.86, 0.19, 0.18), 1.0),
        (2, _limb(0.36, 0.20, 0.24 - step, 0.86, 0.19, 0.18), 1.0),
        (1, _ellipse(-0.04, 0.04, 0.50, 0.25), 1.0),
        (0, ears, 0.85),
        (0, horns, 0.85),
        (0, _ellipse(0.64, -0.24 + lift / 2, 0.33, 0.29), 1.0),
    ]


def _biped(rng: np.random.Generator) -> Shapes:
    reach = rng.uniform(-0.35, 0.35)
    sway = rng.uniform(-0.08, 0.08)
    return [
        (8, _limb(-0.12, 0.26, -0.52, 0.58, 0.20, 0.22), 1.0),
        (8, _limb(-0.50, 0.66, -0.88, 0.06 + sway, 0.24, 0.28), 1.0),
        (7, _limb(-0.14, 0.36, -0.26 + sway, 0.92, 0.23, 0.26), 0.85),
        (7, _limb(0.16, 0.36, 0.28 + sway, 0.92, 0.23, 0.26), 1.0),
        (6, _limb(-0.20, -0.20, -0.66, 0.02 - reach, 0.22, 0.26), 0.8),
        (5, _ellipse(0.0, 0.10, 0.26, 0.36), 1.0),
        (6, _limb(0.20, -0.20, 0.70, 0.06 + reach, 0.22, 0.28), 1.0),
        (4, _ellipse(-0.24, -0.62, 0.09, 0.11), 0.8),
        (4, _ellipse(0.24, -0.62, 0.09, 0.11), 0.8),
        (4, _ellipse(0.0, -0.58, 0.28, 0.30), 1.0),
    ]


def _fish(rng: np.random.Generator) -> Shapes:
    wag = rng.uniform(-0.16, 0.16)
    dorsal = np.array([[-0.34, -0.24], [-0.36, -0.72], [0.04, -0.58], [0.18, -0.30]])
    ventral = np.array([[-0.26, 0.26], [-0.40, 0.66], [-0.06, 0.58], [0.14, 0.32]])
    tail = np.array([[-0.44, -0.10], [-1.00, -0.58 + wag], [-0.84, 0.0 + wag], [-1.00, 0.58 + wag], [-0.44, 0.10]])
    body = _ellipse(-0.16, 0.0, 0.40, 0.33)
    head_arc = np.linspace(-np.pi / 2, np.pi / 2, 14)
    head = np.stack([0.14 + 0.66 * np.cos(head_arc), 0.37 * np.sin(head_arc)], -1)
    return [
        (12, tail, 1.0),
        (11, dorsal, 1.0),
        (11, ventral, 0.9),
        (10, body, 1.0),
        (9, head, 1.0),
        (11, _limb(0.04, 0.06, -0.20, 0.24 + wag, 0.10, 0.22), 0.85),
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
        (14, _ellipse(0.0, 0.02, 0.46, 0.25), 1.0),
        (13, beak, 0.7),
        (13, _ellipse(0.60, -0.14, 0.33, 0.30), 1.0),
        (15, near, 1.0),
    ]


def _bicycle(rng: np.random.Generator) -> Shapes:
    lean = rng.uniform(-0.06, 0.06)
    return [
        (30, _ellipse(-0.60, 0.46, 0.27, 0.27), 1.0),
        (30, _ellipse(0.60, 0.46, 0.27, 0.27), 1.0),
        (27, _limb(-0.56, 0.42, 0.02, 0.42, 0.13, 0.13), 0.9),
        (27, _limb(0.02, 0.46, 0.44, -0.14, 0.15, 0.15), 1.0),
        (27, _limb(-0.30, -0.14, 0.44, -0.14, 0.15, 0.15), 0.9),
        (27, _limb(-0.34, -0.14, 0.04, 0.46, 0.15, 0.15), 1.0),
        (29, _limb(-0.34, -0.12, -0.40, -0.36, 0.16, 0.16), 0.8),
        (29, _ellipse(-0.44 + lean, -0.50, 0.38, 0.22), 1.0),
        (28, _limb(0.56, 0.40, 0.46, -0.46, 0.15, 0.20), 0.9),
        (28, _limb(0.14, -0.62 + lean, 0.82, -0.48 + lean, 0.26, 0.38), 1.0),
    ]


_SHAPES = {"Quadruped": _quadruped, "Biped": _biped, "Fish": _fish, "Bird": _bird, "Bicycle": _bicycle}
_EYES = {"Quadruped": (0.74, -0.30), "Fish": (0.56, -0.10), "Bird": (0.68, -0.20)}


def _add_eye(canvas: NDArray[np.float64], name: str, pose: _Pose, parts: list[tuple[int, Points]]) -> None:
    """A dark dot where the eye is: it belongs to the head, and is no part of its own."""
    if name in _EYES:
        _fill(canvas, pose.to_pixels(_ellipse(*_EYES[name], 0.05, 0.05)), np.array([20.0, 18.0, 22.0]))


_OCCLUDER_COLOURS = ((70, 112, 52), (104, 80, 60), (150, 150, 154), (176, 140, 92), (90, 60, 110), (60, 90, 120))


def _grain(rng: np.random.Generator) -> NDArray[np.float64]:
    side = SIZE * SUPERSAMPLING
    rows, columns = np.mgrid[0:side, 0:side] / side
    fx, fy = rng.uniform(-60, 60, 2)
    return (14 * np.sin(fx * columns + fy * rows))[..., None] * np.ones(3)


def _leaves(x: float, y: float, scale: float, rng: np.random.Generator) -> list[Points]:
    spread = 7.0 * scale
    return [
        _ellipse(
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
    return [_limb(x + slant, -2.0, x - slant, SIZE + 2.0, 9 * scale, 9 * scale)]


def _fence(x: float, y: float, scale: float, rng: np.random.Generator) -> list[Points]:
    gap, slant = rng.uniform(12, 17), rng.uniform(-3, 3)
    offset = x % gap
    return [
        _limb(offset + gap * i + slant, -2.0, offset + gap * i - slant, SIZE + 2.0, 3.2 * scale, 3.2 * scale)
        for i in range(-1, int(SIZE / gap) + 2)
    ]


def _box(x: float, y: float, scale: float, rng: np.random.Generator) -> list[Points]:
    half_w, half_h = rng.uniform(7, 12) * scale**0.5, rng.uniform(7, 12) * scale**0.5
    corners = np.array([[-half_w, -half_h], [half_w, -half_h], [half_w, half_h], [-half_w, half_h]])
    angle = np.deg2rad(rng.uniform(-25, 25))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return [corners @ turn.T + np.array([x, y])]
