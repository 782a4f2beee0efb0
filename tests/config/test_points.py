"""A point of a grid makes what its changed settings reach, and takes all else from the run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dfeat.config import Settings
from dfeat.config.points import RUN_ONLY, Run
from dfeat.places import OCCLUDED, TRAIN, Place, level_view, point_folder, view_pictures, view_set
from dfeat.section import parse

TEST = level_view("imagenet_val", 40)


def grid(key: str, *values: Any, methods: tuple[str, ...] = ("sd_features",)) -> Run:
    """A run with one grid, whose first point is the run's own."""
    return Run(parse(Settings, {"ablation": {"g": {"methods": methods, "grid": {key: values}}}}))


def reached(run: Run) -> set[str]:
    """What the second point's settings reach."""
    at = point_folder("g", 1)
    found = {name for name in ("parts", "inpaint") if run.reached(at, name)}
    for kind in ("latents", "features"):
        found |= {f"{kind} {view}" for view in (TRAIN, OCCLUDED, TEST) if run.reached(at, kind, view=view)}
    for method in ("none", "black_out", "sd_inpaint", "sd_features"):
        found |= {method} if run.reached(at, "train", method_name=method, backbone="swin") else set()
    return found


LATENTS = {f"latents {view}" for view in (TRAIN, OCCLUDED, TEST)}
FEATURES = {f"features {view}" for view in (TRAIN, OCCLUDED, TEST)}
FROZEN = LATENTS | FEATURES | {"inpaint", "sd_inpaint", "sd_features"}
MODELS = {"none", "black_out", "sd_inpaint", "sd_features"}


@pytest.mark.parametrize(
    ("key", "values", "wanted"),
    [
        ("diffusion.features.timestep", (25, 100), FEATURES | {"sd_features"}),
        ("diffusion.inpaint.copies", (1, 2), {"inpaint", "sd_inpaint"}),
        ("diffusion.model.precision", ("float32", "bfloat16"), FROZEN),
        ("diffusion.model.path", ("one", "other"), FROZEN),
        ("diffusion.inpaint_model.path", ("one", "other"), {"inpaint", "sd_inpaint"}),
        ("diffusion.resolution", (512, 768), FROZEN),
        ("diffusion.views", (1, 2), LATENTS | FEATURES | {"sd_features"}),
        ("training.precision", ("float32", "bfloat16"), MODELS),
        ("training.fusion", ("concat", "sum"), {"sd_features"}),
        ("training.learning_rate", (0.01, 0.02), MODELS),
        ("training.image_size", (224, 192), LATENTS | FEATURES | MODELS),
        (
            "occlusion.share",
            (0.5, 0.25),
            {"parts", "inpaint", f"latents {OCCLUDED}", f"features {OCCLUDED}"} | MODELS,
        ),
        (
            "occlusion.min_visible",
            (0, 0.25),
            {"parts", "inpaint", f"latents {OCCLUDED}", f"features {OCCLUDED}"} | MODELS,
        ),
    ],
)
def test_settings_reach_what_is_made_by_them_and_what_follows(key: str, values: Any, wanted: set[str]) -> None:
    assert reached(grid(key, *values)) == wanted


def test_the_first_point_is_the_run() -> None:
    run = grid("diffusion.inpaint.copies", 1, 2)
    first, second = point_folder("g", 0), point_folder("g", 1)
    assert run.inpainted(first) == run.place.inpainted()
    assert run.inpainted(second) == Place(run.place.run, second).inpainted()
    assert run.judges(second, "swin") == run.judges("", "swin")


def test_accepted_twins_are_judged_where_they_were_made() -> None:
    settings = {"training": {"inpainted": "accepted"}}
    grids = {"g": {"methods": ["sd_inpaint"], "grid": {"diffusion.inpaint.copies": [1, 2]}}}
    run = Run(parse(Settings, {**settings, "ablation": grids}))
    at = point_folder("g", 1)
    inputs = run.method_inputs(at, "sd_inpaint", "swin")
    assert inputs == {"inpainted": run.inpainted(at), "verdicts": Place(run.place.run, at).verdicts("swin")}
    assert run.method_inputs(at, "none", "swin") == {}


def test_points_are_evaluated_on_the_sets_of_the_papers_tables() -> None:
    sets = {
        "val": {"kind": "imagenet", "root": "x", "levels": [0, 40]},
        "fine": {"kind": "imagenet", "root": "x", "levels": [0, 10], "study": "sweep"},
    }
    run = Run(parse(Settings, {"data": {"evaluation": sets}}))
    assert run.evaluated("") == {"val": (0, 40), "fine": (0, 10)}
    assert run.evaluated(point_folder("fusion", 0)) == {"val": (0, 40)}


def test_points_are_evaluated_on_the_holdout_where_there_is_one_unless_their_grid_says_test() -> None:
    sets = {
        "val": {"kind": "imagenet", "root": "x", "levels": [0, 40]},
        "real": {"root": "y", "levels": [0, 10]},
        "fine": {"kind": "imagenet", "root": "x", "levels": [0, 90], "study": "sweep"},
    }
    one = {"methods": ["sd_features"], "grid": {"training.fusion": ["concat", "sum"]}}
    grids = {"own": one, "tested": {**one, "on": "test"}}
    run = Run(parse(Settings, {"data": {"train": {"holdout": 2}, "evaluation": sets}, "ablation": grids}))
    own, tested, rates = (point_folder(name, 1) for name in ("own", "tested", "learning_rate"))
    levels = {"holdout": (0, 10, 40)}
    assert run.evaluated(own) == run.evaluated(rates) == levels == run.holdout_levels
    assert run.evaluated(tested) == run.published and "holdout" not in run.evaluated("")
    assert json.loads(run.stage(own, "evaluate", None, None, "holdout"))["levels"] == {"holdout": [0, 10, 40]}
    views = [view for view, _ in run.test_features(own, "sd_features", "holdout")]
    assert set(views) == {"holdout@0", "holdout@10", "holdout@40"}
    assert run.shards(own, "features", "holdout@40")[0].parts[2:4] == ("diffusion", "features")  # the run's
    places = {"holdout": [own, rates], "val": [tested, ""], "real": [tested, ""], "fine": [""]}
    for name, at in places.items():
        assert [place for place in (own, tested, rates, "") if re.fullmatch(run.evaluated_at(name), place)] == at


def test_the_pattern_of_points_takes_each_of_them_and_nothing_else() -> None:
    run = Run(parse(Settings, {}))
    pattern = re.compile(run.points_pattern())
    assert all(pattern.fullmatch(point_folder("timestep", number)) for number in range(8))
    for other in ("", point_folder("timestep", 8), point_folder("timestep", "00"), point_folder("steps", 0)):
        assert not pattern.fullmatch(other)
    assert re.fullmatch(RUN_ONLY, "")
    assert not re.fullmatch(run.points_pattern("no such set"), "")


def test_views_are_named_once() -> None:
    assert [view_set(view) for view in (TRAIN, OCCLUDED, TEST, level_view("a@b", 3))] == [
        "train", "train", "imagenet_val", "a@b",
    ]  # fmt: skip
    assert [view_pictures(view) for view in (TRAIN, OCCLUDED, TEST)] == ["clean", "parts", "drop:40"]


def test_places_are_the_documented_ones() -> None:
    point = Place(Path("results/r"), point_folder("share", 2))
    assert (
        point.shard("latents", TRAIN, 0, 3).as_posix() == "results/r/ablation/share/2/diffusion/latents/train/0-of-3.h5"
    )
    assert point.index("val").as_posix() == "results/r/data/val/index.csv"
    assert point.log("training", "x").as_posix() == "results/r/logs/ablation/share/2/training/x.log"
    assert Place(Path("results/r")).weights("none", "swin", 1).as_posix() == (
        "results/r/training/none/swin/seed1/model.safetensors"
    )


@pytest.mark.parametrize("shape", [[1000, 8], [10, 8]])
def test_what_was_read_out_before_fine_tuning_stays_so_where_the_weights_are_gone(
    shape: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    header = json.dumps({"head.weight": {"shape": shape}}).encode()
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(len(header).to_bytes(8, "little") + header)
    backbones = {"mine": {"name": "convnext_atto", "weights": str(weights)}, "convnext": None, "swin": None}
    run = Run(parse(Settings, {"training": {"backbones": backbones}}))
    files = run.pretrained_predictions(run.published)
    assert bool(files) == (shape[0] == 1000)
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    weights.unlink()
    assert run.pretrained_predictions(run.published) == files
