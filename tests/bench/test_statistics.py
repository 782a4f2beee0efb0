"""The benchmark's worlds: a table of equal methods has no mark, and the worlds' truth is what is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from bench.statistics import COVERAGE, FALSE, METHODS, OURS, World, draw, false_marks, measure, smallest_gain, truth
from dfeat.report.numbers.paper import Cell
from dfeat.report.tables.published import rows_of


def test_a_world_draws_what_its_truth_says() -> None:
    world = World(20, 200, 4, (0.1, 0.3), gain=0.4)
    drawn = draw(world, np.random.default_rng(0))
    for cell in (Cell("none", "swin", 0, "top1"), Cell(METHODS[-1], "convnext", 80, "top5")):
        assert drawn.accuracy(cell) == pytest.approx(truth(world, cell), abs=0.03)
    assert truth(world, cell) > truth(world, cell.none)


def test_a_large_gain_is_marked_and_no_mark_of_it_is_false() -> None:
    world = World(30, 20, 3, (0.0, 0.0), gain=1.0)
    rows = rows_of("table1", [(draw(world, np.random.default_rng(0)), ())], OURS)
    assert "better" in {row.mark for row in rows if row.method == METHODS[-1]}
    assert not false_marks(world, rows)
    assert false_marks(world._replace(gain=0.0), rows)


def test_the_gain_of_the_smallest_difference_is_found() -> None:
    better = smallest_gain(World(20, 15, 3, (0.0, 0.0)), tables=1)
    cell = Cell(METHODS[-1], "swin", 60, "top1")
    assert 0.01 < truth(better, cell) - truth(better, cell.none) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("spread", [(0.0, 0.0), (0.05, 0.09), (0.1, 0.15)])
def test_tables_of_equal_methods_have_no_marks_and_intervals_their_coverage(
    seeds: int, spread: tuple[float, float]
) -> None:
    """60 tables a world, so three false ones are within chance of 6 %; coverage of 600 cells, which share images."""
    got = measure(World(100, 3, seeds, spread), 60)
    assert got.false_tables <= FALSE + 0.03
    for coverage in (got.cell_coverage, got.coverage):
        assert COVERAGE[0] - 0.02 <= coverage <= COVERAGE[1] + 0.01
