"""Real photographs with real parts, by the command line alone: from PartImageNet's layout to a trained model."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from scipy.ndimage import binary_erosion

from dfeat.cli import main
from dfeat.config import stage_settings
from dfeat.data.index import read_index
from dfeat.data.pixels import evaluation_crop
from dfeat.diffusion.latents import view_image
from dfeat.occlusion.parts import read_parts
from dfeat.storage.shards import read_shard
from tests.conftest import World, make_settings

pytestmark = pytest.mark.slow
COUNT = 8
WNIDS = ("n04285008", "n03770679")
"""The folders that the cars are laid in by turns: sports car, minivan."""


def lay_out(cars: Path, root: Path) -> COCO:
    """The first photographs and their annotations as PartImageNet (OOD) has them; returns what is annotated."""
    content = json.loads((cars / "annotations.json").read_text())
    content["images"] = content["images"][:COUNT]
    for number, image in enumerate(content["images"]):
        wnid = WNIDS[number % 2]
        name = f"{wnid}_{number}.JPEG"
        (root / "train" / wnid).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(cars / "JPEGImages" / image["file_name"], root / "train" / wnid / name)
        image["file_name"] = name
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in kept]
    (root / "train.json").write_text(json.dumps(content))
    return COCO(str(root / "train.json"))


def dfeat(verb: str, *arguments: object) -> None:
    """One verb of the command line, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["dfeat", verb, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
    assert not stop.value.code, verb


@pytest.fixture(scope="module")
def annotated(shared_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[World, COCO]:
    """What the verbs made of the photographs, and the annotations that were given."""
    cars = shared_data("carparts/testset")
    root = tmp_path_factory.mktemp("photographs")
    raw = root / "raw" / "PartImageNet"
    raw.mkdir(parents=True)
    annotations = lay_out(cars, raw)
    backbone = {"name": "convnext_atto", "kwargs": {"depths": [1, 2, 3, 1], "dims": [40, 80, 160, 240]}}
    training = {"backbones": {"convnext": backbone | {"weights": "demo:convnext"}}, "image_size": 64, "epochs": 2}
    diffusion = {"model": {"path": "demo"}, "resolution": 64, "inpaint": {"steps": 5, "mask_cells": "any"}}
    settings = make_settings(root, Path("demo"), training=training | {"batch_size": 8}, diffusion=diffusion)
    world = World(root, settings)
    index, parts, pixels, out = world.train, world.parts, world.train / "pixels.h5", world.root

    def stage(name: str, *chosen: str) -> tuple[str, str]:
        return "--settings", stage_settings(settings, name, *chosen).model_dump_json()

    cpu = ("--gpus", 0, "--threads", 1)
    dfeat("index", "train", "--settings", settings.data.train.model_dump_json(), "--out", index)
    dfeat("parts", "--index", index, *stage("parts"), "--out", parts)
    dfeat("pixels", "--index", index, *stage("pixels"), "--out", pixels)
    dfeat("inpaint", "--index", index, "--parts", parts, *stage("inpaint"), "--out", out / "inpaint.h5", *cpu)
    for view in ("clean", "parts"):
        latents = out / f"latents-{view}.h5"
        given = ("--index", index, "--view", view, "--parts", parts)
        dfeat("latents", *given, *stage("latents"), "--out", latents, *cpu)
        dfeat("features", "--latents", latents, *stage("features"), "--out", out / f"features-{view}.h5", *cpu)
    own = ("--features", out / "features-clean.h5", "--twin-features", out / "features-parts.h5")
    given = ("--method", "sd_features", "--seed", 0, "--index", index, "--pixels", pixels, "--parts", parts, *own)
    dfeat("train", *given, *stage("train", "convnext", "sd_features"), "--out", out / "model", *cpu)
    return world, annotations


def polygons_of(annotations: COCO, key: str) -> dict[str, np.ndarray]:
    """The parts of a photograph as they are annotated: for each category the union of its polygons, (H, W) bool."""
    (image,) = (row for row in annotations.imgs.values() if row["file_name"] == f"{key}.JPEG")
    united: dict[str, np.ndarray] = {}
    for row in annotations.imgToAnns[image["id"]]:
        name, mask = annotations.cats[row["category_id"]]["name"], annotations.annToMask(row).astype(bool)
        united[name] = united.get(name, np.zeros_like(mask)) | mask
    return {name: mask for name, mask in united.items() if mask.any()}


def test_the_chosen_parts_cover_most_and_their_area_is_that_of_the_polygons(annotated: tuple[World, COCO]) -> None:
    world, annotations = annotated
    parts = read_parts(world.parts)
    assert len(parts.rows) == COUNT
    for key, row in parts.rows.items():
        polygons = polygons_of(annotations, key)
        assert row["n"] == len(polygons) and row["k"] == -(-len(polygons) // 2)
        chosen = np.logical_or.reduce([polygons[parts.categories[number]] for number in row["chosen"]])
        assert (parts.mask(key) == chosen).all() and row["area"] == chosen.sum()
        small = [mask[::8, ::8] for mask in polygons.values()]
        best = max(np.logical_or.reduce(some).sum() for some in itertools.combinations(small, row["k"]))
        assert chosen.sum() > 0.97 * 64 * best


def test_inpainting_keeps_known_pixels_and_changes_hidden_ones(annotated: tuple[World, COCO]) -> None:
    world, _ = annotated
    index, parts = read_index(world.train), read_parts(world.parts)
    shard = read_shard(world.root / "inpaint.h5", "inpaint")
    pictures = dict(zip(shard.keys, shard.payload, strict=True))
    assert sorted(pictures) == sorted(parts.rows)
    for record in index.records:
        original, hidden = index.load(record), parts.mask(record.key)
        filled = np.asarray(Image.open(io.BytesIO(pictures[record.key])))
        assert (filled[~hidden] == original[~hidden]).all()
        assert (filled[hidden] != original[hidden]).any(axis=1).mean() > 0.9
        assert filled[hidden].std() > 1  # neither black nor one colour


def test_the_occluded_view_is_black_where_parts_are_hidden(annotated: tuple[World, COCO]) -> None:
    world, _ = annotated
    index, parts, stage = read_index(world.train), read_parts(world.parts), world.stage("latents")
    for record in index.records:
        clean, occluded = (view_image(index, record, view, stage, parts) for view in ("clean", "parts"))
        shade = np.repeat(parts.mask(record.key)[..., None] * np.uint8(255), 3, axis=2)
        inside = evaluation_crop(shade, stage.crop_pct, stage.resolution)[..., 0]
        box = np.ones((7, 7), bool)  # resizing mixes what lies within three pixels
        hidden, known = binary_erosion(inside == 255, box), binary_erosion(inside == 0, box)
        assert hidden.any() and not occluded[hidden].any() and clean[hidden].any()
        assert known.any() and (occluded[known] == clean[known]).all()


def test_features_are_finite_and_a_model_is_trained_on_them(annotated: tuple[World, COCO]) -> None:
    world, _ = annotated
    clean, occluded = (
        read_shard(world.root / f"features-{view}.h5", "features").payload for view in ("clean", "parts")
    )
    assert np.isfinite(clean).all() and np.isfinite(occluded).all()
    assert len(clean) == len(occluded) == COUNT and (np.asarray(clean) != occluded).any(axis=1).all()
    run = json.loads((world.root / "model" / "run.json").read_text())
    assert (run["method"], run["classes"], run["images"]) == ("sd_features", 2, COUNT)
    losses = [json.loads(line)["loss"] for line in (world.root / "model" / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 2 and np.isfinite(losses).all()
    assert (world.root / "model" / "model.safetensors").stat().st_size > 1e6
