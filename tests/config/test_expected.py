"""What a configuration makes of each place of its run: enough for every reader, and no more than was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dfeat.config import Settings, stage_settings
from dfeat.config.expected import expected, write_expected
from dfeat.config.points import Run
from dfeat.section import parse

GRIDS = {
    "fusion": {"methods": ["sd_features"], "grid": {"training.fusion": ["concat", "sum"]}},
    "bad": {"methods": ["none"], "grid": {"training.epochs": [-1]}},
}


def run_of(**changes: object) -> Run:
    return Run(parse(Settings, {"run": "tiny", "ablation": GRIDS, **changes}))


def test_a_place_is_listed_with_the_settings_that_its_artifact_records() -> None:
    run = run_of()
    listed = expected(run)
    train = listed["settings"]["training/sd_features/swin"]
    assert train == json.loads(stage_settings(run.settings, "train", "swin", "sd_features").model_dump_json())
    assert listed["settings"]["diffusion/latents/imagenet_val@40"]["view"] == "drop:40"
    assert listed["settings"]["diffusion/features/train-occluded"]["latents"]["view"] == "parts"
    assert listed["shards"]["diffusion/inpaint/train"] == 48


def test_a_grid_that_nobody_asks_for_is_not_listed_and_its_bad_point_stops_nothing() -> None:
    run = run_of()
    assert not [place for place in expected(run)["settings"] if place.startswith("ablation/")]
    run.points("fusion")
    places = [place for place in expected(run)["settings"] if place.startswith("ablation/")]
    trained = [f"ablation/fusion/1/training/sd_features/{name}" for name in ("convnext", "swin")]
    assert [place for place in places if "training" in place] == trained, "point 0 is the run's own model"
    assert {place.split("/")[4] for place in places} == {"sd_features"}


def test_it_is_written_once_and_again_only_where_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_expected(run_of())
    path = tmp_path / "results/tiny/expected.json"
    before = path.stat().st_mtime_ns
    write_expected(run_of(resources={"workers": 1, "mem_mb": 9_000}))
    assert path.stat().st_mtime_ns == before
    write_expected(run_of(training={"learning_rate": 0.5}))
    assert json.loads(path.read_text())["settings"]["training/none/swin"]["training"]["learning_rate"] == 0.5
