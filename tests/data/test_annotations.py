"""Whatever an annotation record holds, pycocotools can read what is kept, and what is not is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from dfeat.data.coco import clean_part, identifier
from dfeat.data.records import Problems
from dfeat.data.segmentation import clip_polygon, decode_counts, whole_number

from .conftest import SQUARE

WIDTH, HEIGHT = 24, 16
NAN, INF = float("nan"), float("inf")
FEW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def record(segmentation: Any, **other: Any) -> dict[str, Any]:
    whole = {"id": 1, "image_id": 1, "category_id": 0, "area": 100.0, "bbox": [2.0, 2.0, 10.0, 10.0], "iscrowd": 0}
    return {**whole, "segmentation": segmentation, **other}


def rle_of(segmentation: Any, width: int = WIDTH, height: int = HEIGHT) -> Any:
    """As pycocotools' `annToRLE`."""
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    return segmentation


def clean(value: Any, width: int = WIDTH, height: int = HEIGHT) -> tuple[Any, Problems]:
    problems = Problems("train")
    return clean_part(value, width, height, {0: 0, 1: 1}, problems, "x"), problems


@pytest.mark.parametrize(
    ("segmentation", "field"),
    [
        ([], "segmentation"), ([[]], "segmentation"), ([[50, 60]], "segmentation"), ([[5, 6, 7, 8]], "segmentation"),
        ([[1, 1, 9, 1, 9, 9, 1]], "segmentation"), ([[1, 1, NAN, 1, 9, 9]], "segmentation"),
        ([[1, 1, INF, 1, 9, 9]], "segmentation"), ([[1, 1, 1e9, 1, 9, 9]], "segmentation"),
        ([[1, 1, 10**400, 1, 9, 9]], "segmentation"), ([[3, 3, 3, 3, 4, 3, 4, 3]], "segmentation"),
        ([[5, 5, 5, 5, 5, 5]], "segmentation"), ([[100, 100, 120, 100, 120, 120]], "segmentation"),
        ([[1, 1, None, 1, 9, 9]], "segmentation"), ([[1, 1, True, 1, 9, 9]], "segmentation"),
        ([["a", 1, 2, 1, 9, 9]], "segmentation"), ([[[1, 1], [2, 2], [3, 3]] * 2], "segmentation"),
        (None, "segmentation"), ("text", "segmentation"), (7, "segmentation"), ({}, "segmentation"),
        ({"size": [16, 24]}, "segmentation"), ({"size": [24, 16], "counts": [0, 384]}, "segmentation"),
        ({"size": [16, 24], "counts": [10, 20, 30]}, "segmentation"),
        ({"size": [16, 24], "counts": [-10, 394]}, "segmentation"),
        ({"size": [16, 24], "counts": [384]}, "segmentation"), ({"size": [16, 24], "counts": []}, "segmentation"),
        ({"size": [16, 24], "counts": [10.5, 373.5]}, "segmentation"),
        ({"size": [16, 24], "counts": [10**30, 1]}, "segmentation"),
        ({"size": [16, 24], "counts": "~~~~~"}, "segmentation"),
        ({"size": [16, 24], "counts": "oooooooooooooooooooooooo"}, "segmentation"),
        ({"size": [16, 24], "counts": "\ud800"}, "segmentation"), ({"size": "16", "counts": [1]}, "segmentation"),
        ({"size": [True, 24], "counts": [0, 384]}, "segmentation"),
    ],
)  # fmt: skip
def test_unusable_shapes_are_dropped_with_a_row(segmentation: Any, field: str) -> None:
    part, problems = clean(record(segmentation))
    assert part is None
    assert [row[2] for row in problems.rows][-1] == field
    assert "dropped" in problems.rows[-1][4]
    assert problems.csv().encode()


@pytest.mark.parametrize("category", [None, True, "x", 7, -1, 1.5, NAN, [], {}, 10**30])
def test_unknown_categories_are_dropped_with_a_row(category: Any) -> None:
    part, problems = clean(record([SQUARE], category_id=category))
    assert part is None
    assert problems.rows[0][2] == "category_id"


@pytest.mark.parametrize(
    ("segmentation", "rows"),
    [
        ([SQUARE], 0), ([SQUARE, [5, 6]], 1), ([[5, 6], SQUARE], 1), ([[5, 6, 7, 8], SQUARE], 1), (SQUARE, 1),
        ([[str(v) for v in SQUARE]], 1), ([[-50, -50, 260, -50, 260, 260, -50, 260]], 1),
        ([[-0.4, -0.4, 24.3, -0.4, 24.3, 16.2, -0.4, 16.2]], 0),
        ({"size": [16, 24], "counts": [0, 384]}, 0), ({"size": [16, 24], "counts": [10, 20, 354]}, 0),
        ({"size": [16.0, "24"], "counts": [10, 0, 0, 20, 354]}, 0),
    ],
)  # fmt: skip
def test_usable_shapes_are_kept(segmentation: Any, rows: int) -> None:
    part, problems = clean(record(segmentation))
    assert part is not None
    assert len([row for row in problems.rows if row[2] == "segmentation"]) == rows
    assert coco_mask.area(rle_of(json.loads(part.segmentation))) > 0


@pytest.mark.parametrize("area", [0, -1, NAN, INF, None, "12", True, 10**400])
def test_a_wrong_area_is_computed(area: Any) -> None:
    part, problems = clean(record([SQUARE], area=area))
    assert part.area == 100
    assert problems.rows[0][2] == "area"


INNER = [4.0, 4.0, 8.0, 4.0, 8.0, 8.0, 4.0, 8.0]
LEAVES = [-50, 2, 12, 2, 12, 12, -50, 12]


@pytest.mark.parametrize(
    ("segmentation", "given", "rows"),
    [
        ([SQUARE], {}, []), ([SQUARE], {"area": 121, "bbox": [2, 2, 11, 11]}, []), ([SQUARE], {"area": 80.5, "bbox": [3, 3, 9, 8]}, []),
        ([SQUARE], {"area": 384}, ["area"]), ([SQUARE], {"area": 20}, ["area"]), ([SQUARE], {"bbox": [2, 2, 12, 16]}, ["bbox"]),
        ([SQUARE], {"bbox": [0, 0, 1, 1], "area": 1e6}, ["area", "bbox"]), ([SQUARE], {"bbox": [2, 2, 10, -10]}, ["bbox"]),
        ([SQUARE, INNER], {"area": 100}, []), ([SQUARE, INNER], {"area": 116}, []), ([SQUARE, INNER], {"area": 300}, ["area"]),
        ({"size": [16, 24], "counts": [10, 20, 354]}, {"area": 20, "bbox": [0, 0, 2, 16]}, []),
        ({"size": [16, 24], "counts": [10, 20, 354]}, {"area": 90, "bbox": [0, 0, 2, 16]}, ["area"]),
        ([LEAVES], {"area": 620, "bbox": [-50, 2, 62, 10]}, ["segmentation"]), ([SQUARE, [5, 6]], {"area": 150}, ["segmentation"]),
        ([[5, 6]], {"area": 0, "bbox": None}, ["segmentation"]), ([[5, 6], [1, 1, 9]], {}, ["segmentation", "segmentation"]),
        (SQUARE, {"area": 7}, ["segmentation", "area"]),
    ],
)  # fmt: skip
def test_what_contradicts_the_mask_is_computed_and_one_defect_is_one_row(
    segmentation: Any, given: dict[str, Any], rows: list[str]
) -> None:
    part, problems = clean(record(segmentation, **given))
    assert [row[2] for row in problems.rows] == rows
    if part is not None:
        asked, computed = record(segmentation, **given), clean(record(segmentation, area=None, bbox=None))[0]
        assert part.area in (asked["area"], computed.area) and part.bbox in (tuple(asked["bbox"]), computed.bbox)
        assert ("area" in rows) <= (part.area == computed.area) and ("bbox" in rows) <= (part.bbox == computed.bbox)


def test_booleans_of_iscrowd_are_plain_and_other_values_noted() -> None:
    assert clean(record([SQUARE], iscrowd=True))[0].iscrowd == 1
    part, problems = clean(record([SQUARE], iscrowd=[1]))
    assert (part.iscrowd, problems.rows[0][2]) == (0, "iscrowd")


def test_an_outline_that_would_fill_the_memory_is_dropped() -> None:
    zigzag = [v for i in range(60_000) for v in (0.0 if i % 2 else 24.0, float(i % 16))]
    assert clean(record([zigzag]))[0] is None
    assert clean(record([[-1e6, 0, 1e6, 1, 1e6, 9, -1e6, 9]]))[0] is not None


def test_compressed_rle_reads_as_pycocotools_reads_it() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = (int(v) for v in rng.integers(1, 60, 2))
        mask = np.asfortranarray(rng.random((height, width)) < rng.random(), np.uint8)
        mask[0, 0] = 1
        rle = coco_mask.encode(mask)
        decoded = decode_counts(rle["counts"])
        assert decoded is not None
        runs = decoded.tolist()
        assert (
            coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)["counts"] == rle["counts"]
        )
        for counts in (rle["counts"], rle["counts"].decode(), runs):
            part, problems = clean(record({"size": [height, width], "counts": counts}), width, height)
            assert np.array_equal(coco_mask.decode(json.loads(part.segmentation)), mask)
            assert {row[2] for row in problems.rows} <= {"area", "bbox"}


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=40) | st.text(st.characters(min_codepoint=48, max_codepoint=112), max_size=80).map(str.encode)
)
def test_any_bytes_are_run_lengths_or_none(text: bytes) -> None:
    runs = decode_counts(text)
    assert runs is None or (len(runs) > 0 and int(np.abs(runs).max()) <= 2**31)


def test_clipping_keeps_what_lies_inside() -> None:
    star = np.array([[-6, 5], [30, 2], [10, 30], [12, -8], [20, 20]], float)
    inside = clip_polygon(star, WIDTH, HEIGHT)
    assert inside.min() >= 0
    assert (inside <= [WIDTH, HEIGHT]).all()
    before, after = (coco_mask.decode(rle_of([p.reshape(-1).tolist()])) for p in (star, inside))
    assert (before != after).sum() <= 0.05 * before.size


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
COORDINATES = st.floats(-60, 60) | st.integers(-(2**40), 2**40) | st.floats()
POLYGONS = st.lists(st.lists(COORDINATES, max_size=14) | ANYTHING, max_size=4)
RLES = st.fixed_dictionaries(
    {"size": st.just([HEIGHT, WIDTH]) | ANYTHING, "counts": st.lists(st.integers(-5, 400), max_size=6) | ANYTHING}
)
RECORDS = ANYTHING | st.fixed_dictionaries(
    {"segmentation": POLYGONS | RLES | ANYTHING, "category_id": st.sampled_from([0, 1, "1", 9]) | ANYTHING},
    optional={"area": ANYTHING, "bbox": ANYTHING, "iscrowd": ANYTHING, "id": ANYTHING},
)


@FEW
@given(RECORDS)
def test_no_record_is_anything_but_a_part_or_a_row(value: Any) -> None:
    part, problems = clean(value)
    assert problems.csv().encode()
    if part is None:
        assert problems.rows
        return
    assert part.category_id in {0, 1}
    segmentation = json.loads(part.segmentation)
    assert coco_mask.area(rle_of(segmentation)) >= 0
    assert np.isfinite([part.area, *part.bbox]).all()
    assert part.area > 0
    again, more = clean(record(segmentation, category_id=part.category_id))
    assert again.segmentation == part.segmentation, "cleaning twice is cleaning once"
    assert not more.rows


@FEW
@given(ANYTHING)
def test_any_value_is_an_id_or_none(value: Any) -> None:
    number = whole_number(value)
    assert number is None or type(number) is int
    assert identifier(value) is None or isinstance(identifier(value), int | str)


def test_reference_degenerates(shared_data: Callable[[str], Path]) -> None:
    """The cases measured to kill, hang or mislead pycocotools have a defined outcome."""
    cases = json.loads(shared_data("torture/pycocotools_degenerate_behaviour.json").read_text())["cases"]
    assert cases
    for name, case in cases.items():
        part, problems = clean(record(json.loads(case["segmentation"])), 200, 200)
        if part is None:
            assert problems.rows, name
        else:
            assert coco_mask.area(rle_of(json.loads(part.segmentation), 200, 200)) > 0, name


def test_reference_records(shared_data: Callable[[str], Path]) -> None:
    """Annotation files of other data sets: every record is a part or a row, and each part can be read."""
    for path in sorted(shared_data("torture/json").glob("*.json")):
        content = json.loads(path.read_text())
        annotations = content if isinstance(content, list) else content["annotations"]
        images = [] if isinstance(content, list) else content.get("images", [content.get("image", {})])
        sizes = {image.get("id", image.get("image_id")): (image["width"], image["height"]) for image in images}
        for annotation in annotations:
            width, height = sizes.get(annotation.get("image_id"), (640, 480))
            problems = Problems("x")
            known = {number: number for number in [annotation.get("category_id")]}
            part = clean_part(annotation, width, height, known, problems, "x")
            assert part is not None or problems.rows
            if part is not None:
                coco_mask.area(rle_of(json.loads(part.segmentation), width, height))
