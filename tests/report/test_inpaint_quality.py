"""What the table of inpaintings measures."""

from __future__ import annotations

import numpy as np
import pytest

from dfeat.report.tables.inpaint_quality import DARK, Quality, measure


def test_dark_residue_step_and_difference_are_those_of_the_pixels() -> None:
    original = np.full((6, 6, 3), 100, np.uint8)
    mask = np.zeros((6, 6), bool)
    mask[2:4, 2:4] = True
    inpainted = original.copy()
    inpainted[2, 2:4], inpainted[3, 2:4] = 0, 140
    row = measure(original, inpainted, mask).row("a", "tiger")
    assert (row["hidden"], row["dark_original"], row["dark"]) == ("4", "0.0000", "50.0000")
    # eight pairs across the edge: four of a step of 100, four of 40; two black pixels, two 40 too bright
    assert (float(row["step_original"]), float(row["step"]), float(row["difference"])) == pytest.approx((0, 70, 70))


def test_an_image_hidden_whole_has_no_edge_and_one_without_hidden_pixels_no_share() -> None:
    picture = np.full((4, 4, 3), DARK, np.uint8)
    whole = measure(picture, picture, np.ones((4, 4), bool)).row("a", "x")
    assert (whole["step"], whole["dark"], whole["difference"]) == ("", "0.0000", "0.0000")
    none = measure(picture, picture, np.zeros((4, 4), bool))
    assert none.row("a", "x")["dark"] == "" and none.badness == (0, 0)


def test_sums_of_two_images_are_those_of_both() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 256, (2, 2, 8, 8, 3), dtype=np.uint8)
    masks = rng.random((2, 8, 8)) < 0.5
    one, other = (measure(*pair, mask) for pair, mask in zip(pairs, masks, strict=True))
    both = sum((one, other), Quality())
    assert both.hidden == masks.sum() and both.difference == pytest.approx(one.difference + other.difference)
