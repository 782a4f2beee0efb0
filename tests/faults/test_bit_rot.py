"""A flipped byte in any kind of artifact is found before a value of it is used."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfeat.config import Settings
from dfeat.data.index import read_index
from dfeat.data.pixels import PixelCache
from dfeat.errors import UserError
from dfeat.evaluation.origins import read_predictions_origin, read_verdicts_origin
from dfeat.evaluation.predict import TrainedModel
from dfeat.evaluation.verdicts import read_verdicts
from dfeat.occlusion.parts import choose_all, read_parts
from dfeat.report.claims.cost_claim import cost_claim
from dfeat.report.numbers.results import load_predictions
from dfeat.report.page.thumbnails import read_gallery
from dfeat.report.tables.layout import read_rows as read_table
from dfeat.storage.records import read_bytes, record_path
from dfeat.storage.shards import read_shard
from dfeat.training.settings import Backbone
from dfeat.training.sources import Inputs
from tests.conftest import CPU, World
from tests.report.predictions import small_settings, write_predictions

from .conftest import Tried

FLIPS = 25
Use = Callable[[Path], Any]


def verdicts_of(path: Path) -> list[dict[str, str]]:
    """The verdicts, by the backbone that they say judged."""
    return read_verdicts(path, Backbone(**read_verdicts_origin(path).said["models"][0]["backbone"]))


JOB_ARTIFACTS: dict[str, tuple[str, str, Use]] = {
    "index.csv": ("index", "index.csv", lambda path: read_index(path.parent)),
    "source.json": ("index", "source.json", lambda path: read_index(path.parent)),
    "classes.json": ("index", "classes.json", lambda path: read_index(path.parent)),
    "parts.json": ("parts", "parts.json", read_parts),
    "pixel cache": ("pixels", "pixels.h5", PixelCache),
    "latents": ("latents", "latents.h5", lambda path: read_shard(path, "latents")),
    "features": ("features", "features.h5", lambda path: read_shard(path, "features")),
    "inpainted images": ("inpaint", "inpaint.h5", lambda path: read_shard(path, "inpaint")),
    "model": ("train", "model.safetensors", lambda path: TrainedModel(path.parent, CPU)),
    "run.json": ("train", "run.json", lambda path: TrainedModel(path.parent, CPU)),
    "imagenet_val.json": (
        "evaluate",
        "imagenet_val.json",
        lambda path: read_predictions_origin(path.parent, path.stem),
    ),
    "verdicts.csv": ("judge", "verdicts.csv", verdicts_of),
    "gallery.json": ("gallery", "gallery.json", lambda path: read_gallery(path, Settings())),
    "efficiency.json": ("efficiency", "efficiency.json", lambda path: cost_claim(path, 1, Settings().labels)),
    "table": ("table", "table1.csv", read_table),
    "figure": ("figure", "gain.png", lambda path: read_bytes(path, "figure")),
}


def flip_and_use(path: Path, use: Use) -> int:
    """Flip FLIPS bytes of a file, one at a time, the first and last among them; returns how many went unseen."""
    whole, rng, unseen = path.read_bytes(), random.Random(path.name), 0
    positions = [0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(FLIPS - 2))]
    for position in positions:
        flipped = whole[position] ^ 1 << rng.randrange(8)
        path.write_bytes(whole[:position] + bytes([flipped]) + whole[position + 1 :])
        try:
            use(path)
        except UserError as error:
            assert path.name in str(error)
            assert "make it again with `dfeat" in str(error)
        else:
            unseen += 1
    path.write_bytes(whole)
    use(path)
    return unseen


@pytest.mark.parametrize("kind", JOB_ARTIFACTS)
def test_a_flipped_byte_is_found_before_its_value_is_used(
    kind: str, undisturbed: Callable[[str], Path], tmp_path: Path, tried: Tried
) -> None:
    job, name, use = JOB_ARTIFACTS[kind]
    shutil.copytree(undisturbed(job), tmp_path / "run")
    unseen = flip_and_use(tmp_path / "run" / name, use)
    tried("flipped byte in an artifact", FLIPS, "refused by name", torn=unseen)
    assert not unseen


def test_a_flipped_byte_in_annotations_is_found_before_parts_are_chosen(
    world: World, tmp_path: Path, tried: Tried
) -> None:
    shutil.copytree(world.train, tmp_path / "train")
    settings = world.stage("parts")

    def use(path: Path) -> None:
        choose_all(path.parent, settings, tmp_path / "parts.json")

    unseen = flip_and_use(tmp_path / "train" / "annotations.json", use)
    tried("flipped byte in an artifact", FLIPS, "refused by name", torn=unseen)
    assert not unseen


def test_a_flipped_byte_in_predictions_is_found(
    jobs: dict[str, Any], undisturbed: Callable[[str], Path], tmp_path: Path, tried: Tried
) -> None:
    settings = small_settings()
    write_predictions(tmp_path, settings)
    path = tmp_path / "none" / "swin" / "seed1" / "real@0.csv"
    made = undisturbed("evaluate") / "dfeat_real@0.csv"
    assert record_path(made).is_file(), "what `dfeat evaluate` writes has a record"
    from dfeat.storage.atomic import write_bytes

    write_bytes(path, path.read_bytes())
    unseen = flip_and_use(path, lambda _: load_predictions(tmp_path, settings, ("real",)))
    tried("flipped byte in an artifact", FLIPS, "refused by name", torn=unseen)
    assert not unseen


def test_a_damaged_checkpoint_is_not_gone_on_from(
    world: World, stages: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried: Tried
) -> None:
    """The training starts over, and ends as an undisturbed one."""
    from dfeat.section import parse
    from dfeat.training import loop
    from dfeat.training.settings import TrainStage

    stage = parse(TrainStage, stages["train"])
    inputs = Inputs(world.train, world.train / "pixels.h5", world.parts)
    loop.train("none", inputs, stage, 0, tmp_path / "whole", CPU)
    real = loop.write_files
    monkeypatch.setattr(loop, "write_files", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        loop.train("none", inputs, stage, 0, tmp_path / "broken", CPU, checkpoint_minutes=0)
    monkeypatch.setattr(loop, "write_files", real)
    path = tmp_path / "broken" / "checkpoint.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 64  # in the weights, where the format itself would not notice
    path.write_bytes(content)
    loop.train("none", inputs, stage, 0, tmp_path / "broken", CPU)
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken")]
    assert models[0] == models[1]
    tried("flipped byte in an artifact", 1, "training started over")
