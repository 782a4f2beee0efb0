"""The built-in world: the same bytes from the same seed, in the layouts of the real sets, parts well balanced."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfeat.demo.canvas import SIZE, polygon_mask
from dfeat.demo.drawing import draw
from dfeat.demo.dresses import CLASSES, WNIDS
from dfeat.demo.occluders import draw_occluder
from dfeat.demo.worlds import PART_NAMES, draw_occluded, draw_one, write_demo_data


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_demo_data(tmp_path / name, seed=seed, train=1, val=1, real=1)
    files = sorted(
        path.relative_to(tmp_path / "a")
        for path in (tmp_path / "a").rglob("*")
        if path.is_file() and path.parent.name != ".sha256"
    )
    assert len(files) == 3 * 20 + 2
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    images = [file for file in files if file.suffix.lower() in (".jpeg", ".jpg")]
    assert all((tmp_path / "a" / file).read_bytes() != (tmp_path / "c" / file).read_bytes() for file in images)


def test_annotations_are_partimagenets(tmp_path: Path) -> None:
    write_demo_data(tmp_path, train=1, val=1, real=1)
    coco = json.loads((tmp_path / "PartImageNet/train.json").read_text())
    assert len(coco["images"]) == len(WNIDS) == len(CLASSES) == 20
    assert {category["name"] for category in coco["categories"]} == set(PART_NAMES.values())
    for annotation in coco["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert 0 <= x <= x + width <= SIZE
        assert 0 <= y <= y + height <= SIZE
    for image in coco["images"]:
        path = tmp_path / "PartImageNet/train" / image["file_name"].split("_")[0] / image["file_name"]
        assert Image.open(path).size == (image["width"], image["height"])


@pytest.mark.parametrize("class_index", range(0, 20, 4))
def test_an_object_has_four_to_six_parts_and_fills_a_good_share(class_index: int) -> None:
    for number in range(5):
        drawing = draw_one("train", class_index, number, 0)
        assert 4 <= len({part for part, _ in drawing.parts}) <= 6
        mask = polygon_mask([polygon for _, polygon in drawing.parts], SIZE)
        assert 0.15 < mask.mean() < 0.45


def test_occluders_hide_15_to_30_percent_of_the_object() -> None:
    for class_index in range(20):
        drawing = draw_one("real", class_index, 0, 0)
        mask = polygon_mask([polygon for _, polygon in drawing.parts], SIZE)
        changed = np.abs(draw_occluded(class_index, 0, 0).astype(int) - drawing.image).sum(axis=2) > 30
        assert 0.05 <= (changed & mask).sum() / mask.sum() <= 0.35


def test_splits_share_no_drawing() -> None:
    assert not (draw_one("train", 0, 0, 0).image == draw_one("val", 0, 0, 0).image).all()


def test_an_occluder_is_drawn_from_its_generator_alone() -> None:
    drawing = draw(5, np.random.default_rng(1))
    mask = polygon_mask([polygon for _, polygon in drawing.parts], SIZE)
    one, other = (draw_occluder(drawing.image, mask, np.random.default_rng(2)) for _ in range(2))
    assert (one == other).all()
