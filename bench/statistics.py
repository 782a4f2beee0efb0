"""What the marks and intervals of Table 1 keep of their promises, on simulated runs whose truth is known.

A world is six methods and two backbones on one set at five levels, some seeds, and images of classes. An image is right
where its class, the image, the level, the method, the training run and chance add up to more than 0. Worlds differ in
images (7,900 in 158 classes, 300 in 100), seeds (1, 3, 5, 10), how much training runs differ, and the truth: all methods
one recipe, or one of them better. Every table is made by the code that makes Table 1.

Measured over tables: how many have a mark that is false (of methods that do not differ, or of the wrong sign), how often
intervals hold the truth and how wide they are against the ideal (that of the known standard deviation), and how often a
true difference as large as the printed smallest one is marked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.table import Comparison, Result
from dfeat.report.numbers.paper import Cell
from dfeat.report.numbers.results import SetPredictions, SetResults, measured
from dfeat.report.tables.layout import CellRow
from dfeat.report.tables.published import rows_of

METHODS: Final = ("none", "black_out", "replace", "cutmix", "sd_inpaint", "sd_features")
OURS: Final = METHODS[-2:]
BACKBONES: Final = ("convnext", "swin")
LEVELS: Final = (0, 20, 40, 60, 80)
ABILITY: Final = (1.6, 1.5, 1.35, 1.1, 0.4)
CHANCE: Final = (0.3, 0.35, 0.4, 0.5, 0.7)
TOP5: Final = 1.0
"""How much easier it is to be among the first five."""
CLASSES: Final = 0.6
CONFIDENCE: Final = 0.95
SPREADS: Final = ((0.0, 0.0), (0.01, 0.0175), (0.02, 0.035))
"""None; on 7,900 images as much as their independent errors make seeds differ; 0.24 points at 0 % and 1.04 at 80 %."""
FALSE: Final = 0.06
COVERAGE: Final = (0.93, 0.98)
WIDTH: Final = {3: 1.5, 5: 1.25, 10: 1.15}
"""The bar of an interval's width over the ideal one, where training runs do not differ, by seeds."""
FOUND: Final = 0.7
"""The least power at the printed smallest difference: about 80 %, since the error it is made of is itself estimated."""


class World(NamedTuple):
    """`spread` is the standard deviation of training runs, on the scale of an image's own of 1, at 0 % and at 80 %."""

    classes: int
    images_a_class: int
    seeds: int
    spread: tuple[float, float]
    gain: float = 0.0
    """What the last method has over all others, on the same scale, at every level."""

    @property
    def name(self) -> str:
        """The world in words."""
        spread = "no spread" if self.spread == (0, 0) else f"spread {self.spread[0]:g} to {self.spread[1]:g}"
        truth = "one recipe" if self.gain == 0 else "one better"
        return f"n {self.classes * self.images_a_class:,}, seeds {self.seeds}, {spread}, {truth}"

    def spreads(self) -> NDArray[np.float64]:
        """The standard deviation of training runs at each level."""
        return np.linspace(*self.spread, len(LEVELS))


class Measured(NamedTuple):
    """Over the tables of a world: see the module's docstring. Widths are over the ideal; power is of the last method."""

    false_tables: float
    cell_coverage: float
    cell_width: float
    coverage: float
    width: float
    marked: float


def abilities(world: World) -> NDArray[np.float64]:
    """Of each class, the same in every draw: classes are fixed, images are drawn."""
    return np.random.default_rng(99).normal(0, CLASSES, world.classes)


def truth(world: World, cell: Cell) -> float:
    """The accuracy that a cell of a world has over all images and training runs."""
    from scipy.stats import norm

    level, top5 = LEVELS.index(cell.level), TOP5 * (cell.metric == "top5")
    mean = abilities(world) + ABILITY[level] + top5 + world.gain * (cell.method == METHODS[-1])
    # P(mean + N(0, 1 + spread^2 + chance^2) > 0), averaged over classes
    return float(norm.cdf(mean / math.sqrt(1 + world.spreads()[level] ** 2 + CHANCE[level] ** 2)).mean())


def draw(world: World, rng: np.random.Generator) -> SetResults:
    """The predictions of one run of a world."""
    labels = np.repeat(np.arange(world.classes), world.images_a_class)
    image = abilities(world)[labels] + rng.normal(0, 1, len(labels))
    shape = (len(METHODS), len(BACKBONES), len(LEVELS), world.seeds, len(labels))
    rank = np.empty(shape, np.int8)
    runs = rng.normal(0, 1, (len(METHODS), len(BACKBONES), world.seeds, 1))
    for method, backbone, level in product(*map(range, shape[:3])):
        chance = CHANCE[level] * rng.standard_normal(shape[3:], np.float32)
        run = world.spreads()[level] * runs[method, backbone]
        margin = image + ABILITY[level] + world.gain * (method == len(METHODS) - 1) + run + chance
        rank[method, backbone, level] = np.where(margin > 0, 0, np.where(margin > -TOP5, 1, 5))
    keys = tuple(map(str, range(len(labels))))
    seeds = tuple(range(world.seeds))
    p1 = np.broadcast_to(0.5, shape)
    drawn = SetPredictions("simulated", METHODS, BACKBONES, LEVELS, seeds, keys, labels, rank, p1)
    return measured(drawn, CONFIDENCE)


def false_marks(world: World, rows: Sequence[CellRow]) -> bool:
    """Whether a table has a mark that the truth of its world contradicts."""
    last = (METHODS[-1], True)  # nothing is worse than None or the best baseline, and nothing but this one better
    return any(
        "worse" in (row.mark, row.baseline_mark)
        or ((row.best == "true" or "better" in (row.mark, row.baseline_mark)) and (row.method, world.gain > 0) != last)
        for row in rows
    )


def measure(world: World, tables: int, seed: int = 0) -> Measured:
    """Draw tables of a world and count."""
    rng = np.random.default_rng(seed)
    cells = [Cell(METHODS[-1], backbone, level, "top1") for backbone in BACKBONES for level in LEVELS]
    held, differences, widths = [], [], []
    false = marked = 0.0
    for _ in range(tables):
        results = draw(world, rng)
        rows = rows_of("table1", [(results, ())], OURS)
        false += false_marks(world, rows)
        own = [row for row in rows if row.method == METHODS[-1] and row.metric == "top1"]
        marked += float(np.mean([row.mark == "better" for row in own]))
        for cell in cells:
            low, high = results.interval(cell)
            effect, true = results.difference(cell, cell.none), truth(world, cell)
            gained = true - truth(world, cell.none)
            held.append((low <= true <= high, effect.low <= gained <= effect.high))
            widths.append((high - low, effect.high - effect.low))
            differences.append((results.accuracy(cell), effect.estimate))
    ideal = 2 * _normal() * np.std(np.reshape(differences, (tables, len(cells), 2)), axis=0)
    width = np.mean(np.mean(np.reshape(widths, (tables, len(cells), 2)), axis=0) / ideal, axis=0)
    coverage = np.mean(held, axis=0)
    return Measured(
        false / tables, float(coverage[0]), float(width[0]), float(coverage[1]), float(width[1]), marked / tables
    )


def _normal() -> float:
    from scipy.stats import norm

    return float(norm.isf((1 - CONFIDENCE) / 2))


def smallest_gain(world: World, level: int = 60, tables: int = 5) -> World:
    """The same world with a true gain, at `level`, of the mean difference that its tables print as the smallest one."""
    from scipy.optimize import brentq

    rng = np.random.default_rng(1)
    rows = [row for _ in range(tables) for row in rows_of("table1", [(draw(world, rng), ())], OURS)]
    asked = [
        float(row.smallest_difference) / 100
        for row in rows
        if (row.method, row.level, row.metric) == (METHODS[-1], str(level), "top1")
    ]
    cell, wanted = Cell(METHODS[-1], BACKBONES[0], level, "top1"), float(np.mean(asked))

    def excess(gain: float) -> float:
        better = world._replace(gain=gain)
        return truth(better, cell) - truth(better, cell.none) - wanted

    return world._replace(gain=float(brentq(excess, 0, 3)))


def power(world: World, tables: int, level: int = 60) -> float:
    """How often the last method is marked better than None at `level`, where its true gain is that of the world."""
    rng = np.random.default_rng(2)
    found = [
        row.mark == "better"
        for _ in range(tables)
        for row in rows_of("table1", [(draw(world, rng), ())], OURS)
        if (row.method, row.level, row.metric) == (METHODS[-1], str(level), "top1")
    ]
    return float(np.mean(found))


def worlds() -> Iterator[World]:
    """All worlds."""
    for (classes, images), seeds in product(((100, 3), (158, 50)), (1, 3, 5, 10)):
        for spread, gain in product(SPREADS, (0.0, 0.15)):
            yield World(classes, images, seeds, spread, gain)


def run(rounds: int = 5, **_: Any) -> Result:
    """Measure every world on 40 tables a round of 300 images, 12 a round of 7,900; some 40 minutes at 5 rounds."""
    rows, notes = [], {}
    for world in worlds():
        tables = rounds * (40 if world.images_a_class == 3 else 12)
        got = measure(world, tables)
        notes[world.name] = got._asdict() | {"tables": tables}
        if world.seeds == 1:
            continue
        rows.append(_row(world, "false tables", got.false_tables, FALSE, "at most"))
        for what, coverage in (("cells", got.cell_coverage), ("differences", got.coverage)):
            rows += [_row(world, f"coverage of {what}", coverage, COVERAGE[0], "at least")]
            rows += [_row(world, f"coverage of {what}", coverage, COVERAGE[1], "at most")]
        if world.spread == (0, 0):
            rows.append(_row(world, "width of differences", got.width, WIDTH[world.seeds], "at most"))
        if world.gain == 0:
            better = smallest_gain(world)
            rows.append(_row(better, "power at the smallest difference", power(better, tables), FOUND, "at least"))
    return Result(rows, notes)


def _row(world: World, what: str, value: float, bar: float, bound: Any) -> Comparison:
    return Comparison(f"{what}: {world.name}", value, bar, "", bar, "the promise", bound, times=value)
