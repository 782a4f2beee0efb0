"""The drawn set of PartImageNet's size is what it is said to be, and every step of it is measured."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from bench.index import CLASSES, PARTS, overlapping, run, write_set
from dfeat.data.indexing import build_train_index
from dfeat.data.settings import TrainSet
from dfeat.occlusion.parts import choice_row, part_rles
from dfeat.occlusion.settings import PartsStage


def test_the_drawn_set_has_all_classes_and_categories_and_no_problems(tmp_path: Path) -> None:
    annotations = write_set(tmp_path / "set", 400)
    index = build_train_index(TrainSet(root=str(tmp_path / "set")), tmp_path / "out")
    assert (len(index.records), len(index.classes)) == (400, CLASSES)
    assert json.loads((tmp_path / "out/source.json").read_text())["layout"] == "ood"
    content = json.loads((tmp_path / "out/annotations.json").read_text())
    assert len(content["annotations"]) == annotations
    assert (
        {a["category_id"] for a in content["annotations"]}
        == set(range(sum(map(len, PARTS.values()))))
        == set(range(40))
    )
    with (tmp_path / "out/problems.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == []


def test_the_hard_case_has_parts_that_overlap() -> None:
    annotations = overlapping(16, 0)
    row = choice_row(annotations, 375, 500, PartsStage())
    assert row is not None and (row["n"], row["k"]) == (16, 8)
    from pycocotools import mask as coco_mask

    assert sum(coco_mask.area(list(part_rles(annotations, 375, 500, "category").values()))) > 2 * row["object_area"]


def test_every_step_is_measured_against_its_limit() -> None:
    found = run(images=200)
    assert [row.unit for row in found.rows] == ["s", "MB", "ms", "ms"]
    assert all(row.ours > 0 and row.bound == "at most" for row in found.rows)
    assert found.notes["drawn"].startswith("200 images")
