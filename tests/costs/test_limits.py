"""Jobs are given more time than the slow end of what they are estimated to take, on every card, by every rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from dfeat.config import Settings, ablation_points
from dfeat.config.files import read_settings
from dfeat.config.shards import shard_count, stated_images
from dfeat.costs.estimate import estimate
from dfeat.costs.limits import SLACK, evaluation_minutes, judging_minutes, shard_minutes, training_minutes
from dfeat.costs.measured import Speeds
from dfeat.devices.cards import CARDS
from dfeat.places import OCCLUDED, TRAIN, level_view
from dfeat.storage.atomic import write_json

ROOT = Path(__file__).parents[2]
FAST = {
    "diffusion": {"model": {"precision": "bfloat16"}, "compile": True, "batch_size": 32},
    "training": {"precision": "bfloat16", "compile": True},
}
CHANGES = [
    {},
    FAST,
    {
        "diffusion": {
            "model": {"precision": "tf32"},
            "batch_size": 1,
            "views": 3,
            "inpaint": {"copies": 4, "crop": True},
        }
    },
    {
        "diffusion": {
            "model": {"precision": "float16"},
            "features": {"ensemble": 8, "blocks": ["up.1"]},
            "resolution": 768,
        }
    },
    {
        "diffusion": {"inpaint": {"guidance_scale": 1, "steps": 10, "shards": 3}},
        "training": {"accumulate": 8, "gpus": 4},
    },
]
OVERLAYS = ("fast", "single-gpu", "controls", "beyond")
CONFIGURATIONS = [
    *(("config/without-dfeat.yaml", changes) for changes in CHANGES),
    *((f"config/{name}.yaml", {}) for name in OVERLAYS),
]


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    def read(changes: dict, *overlays: str) -> Settings:
        (tmp_path / "changes.yaml").write_text(yaml.safe_dump(changes))
        return read_settings([ROOT / "config.yaml", *(ROOT / name for name in overlays), tmp_path / "changes.yaml"])

    return read


def given(settings: Settings) -> dict[str, int]:
    """Minutes given to all jobs of each step together."""
    training, seeds = settings.training, len(settings.training.seeds)
    tests = [level_view(name, level) for name, s in settings.data.evaluation.items() for level in s.levels]
    views = [TRAIN, *([OCCLUDED] if training.twin_features == "occluded" else []), *tests]
    shards = {"inpaint": [TRAIN], "latents": views, "features": views}
    minutes = {
        kind: sum(shard_count(settings, kind, view) * shard_minutes(settings, kind, view) for view in these)
        for kind, these in shards.items()
    }
    models = [(backbone, method) for backbone in training.backbones for method in training.methods]
    minutes["training"] = seeds * training.gpus * sum(training_minutes(settings, *model) for model in models)
    evaluations = [(backbone, name) for backbone, _ in models for name in settings.data.evaluation]
    minutes["evaluation"] = seeds * sum(evaluation_minutes(settings, *one) for one in evaluations)
    return minutes


@pytest.mark.parametrize(("overlay", "changes"), CONFIGURATIONS, ids=range(len(CONFIGURATIONS)))
def test_every_job_is_given_more_than_the_slow_end_of_its_estimate(
    settings: Callable[..., Settings], overlay: str, changes: dict
) -> None:
    read = settings(changes, overlay)
    for device in ("T4", "A100", "H200", "RTX 4090"):
        resources = read.resources.model_copy(update={"device": device, "runtime": 1})
        chosen = read.model_copy(update={"resources": resources})
        minutes = given(chosen)
        for cost in estimate(chosen, stated_images(chosen)):
            if cost.flops:
                slow = 60 * cost.hours(Speeds(device)).high
                assert minutes[cost.step] >= 1.4 * slow, (device, cost.step)


def test_a_limit_is_the_slow_end_with_slack_and_never_less_than_configured(settings: Callable[..., Settings]) -> None:
    chosen = settings({"resources": {"device": "T4", "runtime": 1}})
    costs = {cost.step: cost for cost in estimate(chosen, stated_images(chosen))}
    for step in ("inpaint", "training", "evaluation"):
        slow = 60 * costs[step].hours(Speeds("T4")).high
        assert given(chosen)[step] == pytest.approx(SLACK * slow, rel=0.1), step
    assert shard_minutes(settings({}), "latents", "dfeat_real@0") == 60
    assert evaluation_minutes(settings({}), "swin", "imagenet_val") == judging_minutes(settings({}), "swin") == 60
    assert training_minutes(settings({"resources": {"device": "H200"}, **FAST}), "swin", "none") == 8 * 60


def test_limits_follow_what_a_job_computes(settings: Callable[..., Settings]) -> None:
    """Masks, devices that share a batch, copies that are judged; and at a point of a grid, the point's own settings."""
    chosen = settings({"resources": {"device": "T4", "runtime": 1}})
    alone, masked = (training_minutes(chosen, "swin", method) for method in ("none", "replace"))
    assert masked == pytest.approx(2 * alone, rel=0.01)
    shared = settings({"resources": {"device": "T4", "runtime": 1}, "training": {"gpus": 4}})
    assert training_minutes(shared, "swin", "none") == pytest.approx(alone / 4, rel=0.02)
    copies = settings({"resources": {"device": "T4", "runtime": 1}, "diffusion": {"inpaint": {"copies": 4}}})
    assert judging_minutes(copies, "swin") == pytest.approx(2 * judging_minutes(chosen, "swin"), rel=0.1)
    grid = {"longer": {"methods": ["none"], "grid": {"training.epochs": [30, 60]}}}
    points = [
        point for _, point in ablation_points(settings({"resources": {"device": "T4"}, "ablation": grid}), "longer")
    ]
    short, long = (training_minutes(point, "swin", "none") for point in points)
    assert long == pytest.approx(2 * short, rel=0.01)


def test_limits_follow_what_was_measured(settings: Callable[..., Settings], tmp_path: Path) -> None:
    slow = {"precision": "bfloat16", "compiled": False, "flops": CARDS["A100"].float32 / 10, "passes": 3}
    write_json(
        tmp_path / "card.json",
        {"card": "NVIDIA A100-SXM4-40GB", "torch": "2.15.0", "date": "2026-11-27", "steps": {"inpaint": slow}},
    )
    expected, measured = (
        settings({"resources": {"runtime": 1, "measured": file}}) for file in (None, str(tmp_path / "card.json"))
    )
    assert shard_minutes(measured, "inpaint", "train") > 4 * shard_minutes(expected, "inpaint", "train")
    assert shard_minutes(measured, "latents", "train") == shard_minutes(expected, "latents", "train")


def test_jobs_of_unknown_size_are_given_what_the_settings_say(settings: Callable[..., Settings]) -> None:
    demo = settings({}, "config/demo.yaml")
    assert training_minutes(demo, "swin", "none") == 8 * 30
    assert (
        shard_minutes(demo, "inpaint", "train")
        == evaluation_minutes(demo, "swin", "dfeat_real")
        == judging_minutes(demo, "swin")
        == 30
    )
