"""Shards hold 20 to 30 minutes of the configured device, and a run has no more jobs than a scheduler takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dfeat.config import Settings, ablation_points
from dfeat.config.files import read_settings
from dfeat.costs.estimate import PEAK, estimate
from dfeat.costs.sizing import MOST_JOBS, sized, sized_point, training_minutes

ROOT = Path(__file__).parents[2]


def read_sized(paths):  # type: ignore[no-untyped-def]
    return sized(read_settings(paths))


PAPER = {"train": 24_095, "imagenet_val": 7_900, "dfeat": 300}


def settings(tmp_path: Path, changes: dict, *overlays: str) -> Settings:
    (tmp_path / "changes.yaml").write_text(yaml.safe_dump(changes))
    return read_sized([ROOT / "config.yaml", *(ROOT / name for name in overlays), tmp_path / "changes.yaml"])


@pytest.mark.parametrize("device", sorted(PEAK))
def test_a_job_holds_its_device_for_20_to_30_minutes(tmp_path: Path, device: str) -> None:
    chosen = settings(tmp_path, {"resources": {"device": device}})
    costs = {cost.step: cost for cost in estimate(chosen, PAPER)}
    shards = chosen.diffusion.inpaint.shards
    assert shards
    assert 20 <= 60 * costs["inpaint"].hours(device) / shards <= 30
    views = chosen.diffusion.features.shards
    assert views
    latents = 60 * costs["latents"].hours(device) * 24_095 / costs["latents"].items / views
    assert latents <= 30
    assert views == 1 or latents >= 20


def test_a_number_that_is_given_stays(tmp_path: Path) -> None:
    given = {"diffusion": {"inpaint": {"shards": 12}}, "resources": {"device": "T4"}}
    chosen = settings(tmp_path, given)
    assert chosen.diffusion.inpaint.shards == 12
    assert chosen.diffusion.features.shards == 6
    assert sized(chosen) is chosen


def test_a_run_has_at_most_two_thousand_jobs(tmp_path: Path) -> None:
    dear = {
        "resources": {"device": "T4"},
        "diffusion": {"inpaint": {"steps": 1000}, "features": {"ensemble": 64, "blocks": ["up.3"]}},
    }
    diffusion = settings(tmp_path, dear).diffusion
    assert diffusion.inpaint.shards and diffusion.features.shards
    jobs = diffusion.inpaint.shards + 2 * 8 * diffusion.features.shards + 2 * 36
    assert MOST_JOBS - 100 < jobs <= MOST_JOBS


def test_the_shards_do_not_follow_what_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings(tmp_path, {}).diffusion
    index = tmp_path / "results/paper/data/train/index.csv"
    index.parent.mkdir(parents=True)
    index.write_text("key\n")
    monkeypatch.chdir(tmp_path)
    assert settings(tmp_path, {}).diffusion == before


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


def test_a_training_of_unknown_size_is_given_what_the_settings_say(tmp_path: Path) -> None:
    assert training_minutes(settings(tmp_path, {}, "config/demo.yaml"), "swin", "none") == 8 * 30


def test_a_point_with_more_copies_has_more_jobs_of_the_same_length_and_other_points_the_runs(tmp_path: Path) -> None:
    stated = Settings()
    run = sized(stated)
    shards = [sized_point(point, stated, run).diffusion.inpaint.shards for _, point in ablation_points(run, "copies")]
    once = run.diffusion.inpaint.shards
    assert once and shards == pytest.approx([once, 2 * once, 4 * once], abs=3)
    for name in ("timestep", "share"):
        for _, point in ablation_points(run, name):
            assert sized_point(point, stated, run) is point
    given = settings(tmp_path, {"diffusion": {"inpaint": {"shards": 12}}})
    for _, point in ablation_points(given, "copies"):
        assert sized_point(point, given, given).diffusion.inpaint.shards == 12
