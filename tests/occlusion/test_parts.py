"""Part choice: the half of the parts whose union is largest, exactly."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from dfeat.errors import UserError
from dfeat.occlusion.parts import EXACT_PARTS, Choice, choose_all, choose_parts, choose_rles, read_parts
from tests.conftest import World


def brute_force(masks: np.ndarray, share: float) -> tuple[tuple[int, ...], int]:
    """All combinations of k masks in order; the first with the largest union."""
    k = math.ceil(share * len(masks))
    best = max(
        itertools.combinations(range(len(masks)), k),
        key=lambda c: (int(masks[list(c)].any(axis=0).sum()), tuple(-p for p in c)),
    )
    return best, int(masks[list(best)].any(axis=0).sum())


@st.composite
def overlapping_masks(draw: st.DrawFn) -> np.ndarray:
    """Up to nine rectangles, overlapping at random, some of them equal, so that ties occur."""
    n = draw(st.integers(1, 9))
    masks = np.zeros((n, 12, 15), bool)
    for mask in masks:
        top, left = draw(st.integers(0, 11)), draw(st.integers(0, 14))
        mask[top : top + draw(st.integers(1, 6)), left : left + draw(st.integers(1, 6))] = True
    return masks


@settings(max_examples=150, deadline=None)
@given(overlapping_masks(), st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_choice_equals_brute_force_over_all_combinations(masks: np.ndarray, share: float) -> None:
    choice = choose_parts(masks, share)
    assert (choice.chosen, choice.area) == brute_force(masks, share)
    rles = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    assert choose_rles(rles, share) == choice


def test_sixteen_overlapping_parts_are_exact(rng: np.random.Generator) -> None:
    masks = rng.random((16, 20, 20)) < 0.15
    assert (choose_parts(masks).chosen, choose_parts(masks).area) == brute_force(masks, 0.5)


def test_half_is_rounded_up_and_ties_go_to_the_first() -> None:
    masks = np.eye(5, dtype=bool)[:, None]
    assert choose_parts(masks).chosen == (0, 1, 2)


def test_many_equal_parts_are_decided_at_once() -> None:
    masks = np.ones((16, 10, 12), bool)
    assert choose_parts(masks).chosen == tuple(range(8))


def test_the_work_does_not_grow_with_the_pictures_area(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask of 100 million pixels is chosen as a mask of a hundred: nothing is decoded."""
    monkeypatch.setattr(coco_mask, "decode", None)
    side = 10_000
    squares = [[[10 * n, 0, 10 * n + 4000, 0, 10 * n + 4000, 900 + n, 10 * n, 900 + n]] for n in range(16)]
    rles = [coco_mask.frPyObjects(square, side, side)[0] for square in squares]
    assert len(choose_rles(rles).chosen) == 8


def test_more_parts_than_can_be_weighed_are_taken_greedily_and_well(rng: np.random.Generator) -> None:
    masks = rng.random((EXACT_PARTS + 4, 30, 30)) < 0.05
    choice = choose_parts(masks)
    assert len(choice.chosen) == EXACT_PARTS // 2 + 2
    assert choice.area >= (1 - 1 / math.e) * masks.any(axis=0).sum()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(EXACT_PARTS + 1, 30))
def test_the_greedy_choice_adds_what_gains_most_each_time(seed: int, n: int) -> None:
    masks = np.random.default_rng(seed).random((n, 9, 8)) < 0.15
    covered, chosen = np.zeros(masks.shape[1:], bool), []
    for _ in range(math.ceil(n / 2)):
        gains = (masks & ~covered).sum(axis=(1, 2))
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        covered |= masks[chosen[-1]]
    assert choose_parts(masks) == Choice(tuple(sorted(chosen)), int(covered.sum()))


def test_parts_json_says_what_was_chosen_and_its_masks_agree(world: World) -> None:
    parts = read_parts(world.parts)
    assert len(parts.rows) == 40
    for key, row in parts.rows.items():
        assert row["k"] == math.ceil(row["n"] / 2) == len(row["chosen"])
        assert set(row["chosen"]) <= set(row["parts"])
        assert parts.mask(key).sum() == row["area"]
        assert (parts.mask(key) <= parts.mask(key, "object")).all()
        assert row["share"] == pytest.approx(row["area"] / 64**2, abs=1e-6)


def test_annotation_unit_keeps_instances_apart(world: World, tmp_path) -> None:
    stage = world.stage("parts").model_copy(update={"unit": "annotation"})
    choose_all(world.train, stage, tmp_path / "parts.json")
    apart = json.loads((tmp_path / "parts.json").read_text())["images"]
    assert all(apart[key]["n"] > row["n"] for key, row in read_parts(world.parts).rows.items())


def test_the_largest_half_of_a_drawn_object_leaves_evidence(world: World) -> None:
    shares = [row["area"] / row["object_area"] for row in read_parts(world.parts).rows.values()]
    assert 0.5 <= np.mean(shares) <= 0.62


def test_missing_and_broken_parts_files_are_named(tmp_path) -> None:
    with pytest.raises(UserError, match="make it with `dfeat parts`"):
        read_parts(tmp_path / "parts.json")
    (tmp_path / "parts.json").write_text("{}")
    with pytest.raises(UserError, match="again with `dfeat parts`"):
        read_parts(tmp_path / "parts.json")
