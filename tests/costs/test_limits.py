"""Jobs are given more time than they are estimated to take, on the configured device."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dfeat.config import Settings
from dfeat.config.files import read_settings
from dfeat.config.shards import shard_count
from dfeat.costs.estimate import PEAK, estimate
from dfeat.costs.limits import shard_minutes, training_minutes

ROOT = Path(__file__).parents[2]
PAPER = {"train": 24_095, "imagenet_val": 7_900, "dfeat": 300}


def settings(tmp_path: Path, changes: dict, *overlays: str) -> Settings:
    (tmp_path / "changes.yaml").write_text(yaml.safe_dump(changes))
    return read_settings([ROOT / "config.yaml", *(ROOT / name for name in overlays), tmp_path / "changes.yaml"])


@pytest.mark.parametrize("device", sorted(PEAK))
def test_a_shard_is_given_more_time_than_it_is_estimated_to_take(tmp_path: Path, device: str) -> None:
    chosen = settings(tmp_path, {"resources": {"device": device, "runtime": 1}})
    costs = {cost.step: cost for cost in estimate(chosen, PAPER)}
    estimated = 60 * costs["inpaint"].hours(device) / shard_count(chosen, "inpaint", "train")
    assert 1.4 < shard_minutes(chosen, "inpaint", "train") / estimated < 1.6
    for kind in ("latents", "features"):
        minute = 60 * costs[kind].hours(device) / costs[kind].items
        assert shard_minutes(chosen, kind, "imagenet_val@40") == pytest.approx(1.5 * 7_900 * minute, abs=1)
    assert shard_minutes(settings(tmp_path, {}), "latents", "dfeat@0") == 60  # never less than resources.runtime


def test_a_training_is_given_more_time_than_it_is_estimated_to_take(tmp_path: Path) -> None:
    """Replace Parts shows the network each image's mask as well; several devices share the work."""
    chosen = settings(tmp_path, {"resources": {"device": "T4"}})
    cost = next(cost for cost in estimate(chosen, PAPER) if cost.step == "training")
    given = sum(
        training_minutes(chosen, backbone, method)
        for backbone in chosen.training.backbones
        for method in chosen.training.methods
    )
    seeds = len(chosen.training.seeds)
    assert 1.4 < given * seeds / (60 * cost.hours("T4")) < 1.6
    assert training_minutes(chosen, "swin", "replace") == pytest.approx(
        2 * training_minutes(chosen, "swin", "none"), abs=2
    )
    shared = settings(tmp_path, {"resources": {"device": "T4", "runtime": 10}, "training": {"gpus": 4}})
    assert training_minutes(shared, "swin", "none") == pytest.approx(
        training_minutes(chosen, "swin", "none") / 4, abs=1
    )


def test_jobs_of_unknown_size_are_given_what_the_settings_say(tmp_path: Path) -> None:
    demo = settings(tmp_path, {}, "config/demo.yaml")
    assert training_minutes(demo, "swin", "none") == 8 * 30
    assert shard_minutes(demo, "inpaint", "train") == 30
