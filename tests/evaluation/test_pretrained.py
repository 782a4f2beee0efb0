"""The row before fine-tuning: a real timm model with a head of 1,000 classes, read out for the run's classes."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm import create_model

from dfeat.config import stage_settings
from dfeat.data.classes import imagenet_wnids
from dfeat.data.index import read_index
from dfeat.data.pixels import PixelCache, evaluation_crop
from dfeat.errors import UserError
from dfeat.evaluation.predict import evaluate_pretrained
from dfeat.report.tables.layout import read_rows
from dfeat.report.tables.published import write_table
from dfeat.section import parse
from dfeat.storage.provenance import file_digest
from dfeat.training.network import build_pretrained, normalised
from dfeat.training.settings import Backbone
from dfeat.training.weights import has_imagenet_head
from tests.conftest import CPU, TINY_BACKBONE, World
from tests.report.predictions import small_settings, write_origin, write_predictions


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A small ConvNeXt with weights for 1,000 classes in a file, named as timm names them."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "backbone.safetensors"
    save_file(create_model(TINY_BACKBONE["name"], num_classes=1000, **TINY_BACKBONE["kwargs"]).state_dict(), path)
    return parse(Backbone, {**TINY_BACKBONE, "weights": str(path)})


def test_the_read_out_answers_with_the_runs_classes_alone(world: World, pretrained: Backbone, tmp_path: Path) -> None:
    training = world.settings.training.model_copy(update={"backbones": {"convnext": pretrained}})
    settings = world.settings.model_copy(update={"training": training})
    written = evaluate_pretrained(
        world.root / "data", stage_settings(settings, "pretrained", "convnext"), tmp_path, CPU
    )
    assert sorted(path.name for path in written) == ["dfeat_real@0.csv", "imagenet_val@0.csv", "imagenet_val@40.csv"]
    said = json.loads((tmp_path / "imagenet_val.json").read_text())
    assert (said["method"], said["seed"], said["backbone"]["weights"]) == ("pretrained", 0, pretrained.weights)
    assert said["model"] == file_digest(Path(pretrained.weights or ""))
    assert said["files"] == {path.name: file_digest(path) for path in written if path.name.startswith("imagenet")}
    index = read_index(world.root / "data" / "imagenet_val")
    cache = PixelCache(world.root / "data" / "imagenet_val" / "pixels.h5")
    columns = [imagenet_wnids().index(info.wnid) for info in index.classes]
    model = build_pretrained(pretrained).eval()
    with (tmp_path / "imagenet_val@0.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(index.records)
    for row in rows[:5]:
        crop = evaluation_crop(cache[row["key"]], 1.0, 64)
        with torch.no_grad():
            logits = model(normalised(crop[None], CPU))[0, columns]
        assert int(row["top1"]) == int(logits.argmax())
        assert float(row["p1"]) == pytest.approx(float(logits.softmax(0).max()), abs=2e-5)


def test_which_weights_have_such_a_head(pretrained: Backbone, tmp_path: Path) -> None:
    assert has_imagenet_head(pretrained)
    save_file({"head.fc.weight": torch.zeros(158, 4)}, tmp_path / "fine_tuned.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not json at all!")
    for weights in (
        "demo:convnext",
        "demo:swin",
        "nowhere.safetensors",
        "fine_tuned.safetensors",
        "broken.safetensors",
    ):
        path = weights if weights.startswith("demo:") else str(tmp_path / weights)
        assert not has_imagenet_head(pretrained.model_copy(update={"weights": path}))
    assert has_imagenet_head(Backbone(name="convnext_base.fb_in1k"))
    assert has_imagenet_head(Backbone(name="swin_base_patch4_window7_224.ms_in22k_ft_in1k"))
    assert not has_imagenet_head(Backbone(name="swin_base_patch4_window7_224.ms_in22k"))
    assert not has_imagenet_head(Backbone(name="convnext_base"))


def test_its_row_stands_first_and_is_compared_with_nothing(tmp_path: Path) -> None:
    settings = small_settings()
    write_predictions(tmp_path, settings)
    before_fine_tuning = tmp_path / "pretrained" / "swin" / "seed0"
    shutil.copytree(tmp_path / "cutmix" / "swin" / "seed0", before_fine_tuning)
    with pytest.raises(UserError, match="records cutmix with seed 0, not pretrained with seed 0"):
        write_table("table1", tmp_path, settings, tmp_path / "report")
    write_origin(before_fine_tuning, "pretrained", settings.training.backbones["swin"], 0)
    write_table("table1", tmp_path, settings, tmp_path / "report")
    write_table("table2", tmp_path, settings, tmp_path / "report")
    rows = read_rows(tmp_path / "report" / "table1.csv")
    before = [row for row in rows if row.method == "pretrained" and row.metric == "top1"]
    assert [(row.backbone, row.level, row.seeds) for row in before] == [
        ("swin", level, "1") for level in ("0", "40", "80")
    ]
    for row in before:
        assert float(row.low) < float(row.value) < float(row.high)
        assert not (row.difference_to_none or row.p_holm or row.baseline) and row.best == "false"
    others = [row for row in rows if row.method != "pretrained"]
    write_table("table1", tmp_path, small_settings(before_fine_tuning=False), tmp_path / "left_out")
    assert read_rows(tmp_path / "left_out" / "table1.csv") == others
    shutil.rmtree(tmp_path / "pretrained")
    write_table("table1", tmp_path, settings, tmp_path / "without")
    assert read_rows(tmp_path / "without" / "table1.csv") == others
    for name in ("table1", "table2"):
        lines = (tmp_path / "report" / f"{name}.md").read_text()
        assert lines.count("Before fine-tuning") == 1 and "2 training seeds" in lines
        assert "Before fine-tuning" in (tmp_path / "report" / f"{name}.tex").read_text()


def test_other_images_before_fine_tuning_are_refused(tmp_path: Path) -> None:
    settings = small_settings()
    write_predictions(tmp_path, settings)
    shutil.copytree(tmp_path / "none" / "swin" / "seed0", tmp_path / "pretrained" / "swin" / "seed0")
    for path in (tmp_path / "pretrained").rglob("real@0.csv"):
        path.write_text(path.read_text().replace("real_0000", "real_9990"))
        write_origin(path.parent, "pretrained", settings.training.backbones["swin"], 0)
    with pytest.raises(UserError, match="other images than those of the trained models"):
        write_table("table2", tmp_path, settings, tmp_path / "report")
