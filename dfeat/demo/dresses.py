"""The colours and patterns ("dress") of the parts of drawn objects, which distinguish the classes.

What enters: a class, one of its parts and a random generator. What leaves: the part's `Dress`. Four classes share one
super-category and its shape. A class is two bits (a, b); of the parts of an object one shows a, one shows b, one shows
a xor b, and one has a dress of its own for each class. So no single two-way part names the class, and hiding any half
of the parts leaves enough of them to name it. Noise mixes the dresses, as in nature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

DRESS_NOISE: Final = 0.32
"""Standard deviation of the mix between the two dresses of a part."""

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Dress:
    """How a part is painted: base colour, accent colour, and the pattern that mixes them."""

    base: RGB
    accent: RGB
    pattern: str  # plain | stripes | bands | spots | half | spokes


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


def shown_dress(category: SuperCategory, part: int, within: int, rng: np.random.Generator) -> Dress:
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

    pattern = choices[other if mix > 0.45 else shown].pattern
    one, two = choices[shown], choices[other]
    return Dress(blend(one.base, two.base), blend(one.accent, two.accent), pattern)
