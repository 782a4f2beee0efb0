"""A view's files are named by its own rows: nothing else in a configuration renames them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dfeat.config import Settings
from dfeat.config.points import Run
from dfeat.config.shards import ROWS, shard_count
from dfeat.places import point_folder
from dfeat.section import parse

VIEWS = ("train", "train-occluded", "imagenet_val@0", "imagenet_val@80", "dfeat_real@0")


def counts(changes: dict[str, Any]) -> dict[str, int]:
    """The number of shards of every view and kind, under a changed configuration."""
    settings = parse(Settings, changes)
    found = {view: shard_count(settings, "features", view) for view in VIEWS}
    return found | {"inpaint": shard_count(settings, "inpaint", "train")}


def test_a_view_has_a_shard_for_every_so_many_rows() -> None:
    assert counts({}) == {
        "train": 3, "train-occluded": 3, "imagenet_val@0": 1, "imagenet_val@80": 1, "dfeat_real@0": 1, "inpaint": 48,
    }  # fmt: skip
    assert (ROWS["inpaint"], ROWS["features"], ROWS["latents"]) == (512, 8192, 8192)


@pytest.mark.parametrize(
    "changes",
    [
        {"resources": {"device": "H100", "gpu": 0, "threads": 9}},
        {"diffusion": {"inpaint": {"steps": 1000}, "features": {"ensemble": 64, "blocks": ["up.3"]}}},
        {"training": {"methods": ["none"], "seeds": [7], "gpus": 4}},
        {
            "data": {
                "evaluation": {
                    "imagenet_val": {"root": "x", "levels": [0, 80], "expected_images": 7900},
                    "dfeat_real": {"root": "y", "expected_images": 300},
                    "large": {"root": "z", "levels": [0, 50], "expected_images": 40_000},
                }
            }
        },
    ],
)
def test_nothing_but_a_views_own_rows_changes_its_number(changes: dict[str, Any]) -> None:
    assert counts(changes) == counts({})


def test_a_number_that_is_given_stays() -> None:
    given = counts({"diffusion": {"inpaint": {"shards": 12, "copies": 4}, "features": {"shards": 5}}})
    assert given == dict.fromkeys(VIEWS, 5) | {"inpaint": 12}


def test_views_and_copies_are_rows() -> None:
    several = counts({"diffusion": {"views": 4, "inpaint": {"copies": 2}}})
    assert several["train"] == 12 and several["imagenet_val@0"] == 1
    assert several["inpaint"] == 95


def test_an_unstated_number_of_images_is_taken_for_ten_thousand() -> None:
    assert counts({"data": {"train": {"expected_images": None}}})["train"] == 2


def test_held_out_images_are_no_rows_of_the_training_views_and_a_set_of_their_own() -> None:
    held_out = counts({"data": {"train": {"holdout": 10}}})
    assert held_out == counts({}) | {"inpaint": 44}  # ceil((24,095 - 158 x 10) / 512)
    unknown = parse(Settings, {"data": {"train": {"holdout": 10, "expected_classes": None}}})
    assert shard_count(unknown, "inpaint", "train") == 48
    assert [shard_count(one, "features", "holdout@0") for one in (unknown, Settings())] == [2, 2]
    many = parse(Settings, {"data": {"train": {"holdout": 1000}}})
    assert shard_count(many, "features", "holdout@0") == shard_count(many, "features", "train") == 2


def test_the_numbers_do_not_follow_what_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tmp_path / "results/paper/data/train/index.csv"
    index.parent.mkdir(parents=True)
    index.write_text("key\n")
    before = counts({})
    monkeypatch.chdir(tmp_path)
    assert counts({}) == before


def test_a_point_with_more_copies_has_more_jobs_of_the_same_length() -> None:
    run = Run(parse(Settings, {}))
    shards = [len(run.shards(point_folder("copies", number), "inpaint", "train")) for number in range(3)]
    assert shards == [48, 95, 189]
    given = Run(parse(Settings, {"diffusion": {"inpaint": {"shards": 12}}}))
    assert [len(given.shards(point_folder("copies", number), "inpaint", "train")) for number in range(3)] == [12] * 3


@pytest.mark.parametrize(
    ("levels", "diffusion", "kind", "groups"),
    [
        (5, {}, "latents", 1),
        (6, {}, "latents", 2),
        (5, {"resolution": 1024}, "latents", 5),
        (5, {"features": {"ensemble": 2}}, "features", 3),
        (5, {"features": {"ensemble": 8}}, "latents", 1),  # no setting of features splits latents
        (5, {"features": {"shards": 4, "ensemble": 4}}, "features", 1),
    ],
)
def test_a_job_makes_as_many_levels_of_a_shard_as_take_as_long_as_one_of_inpainting(
    levels: int, diffusion: dict[str, Any], kind: Any, groups: int
) -> None:
    sets = {"large": {"root": "x", "levels": list(range(0, 10 * levels, 10)), "expected_images": 7_900}}
    jobs = Run(parse(Settings, {"data": {"evaluation": sets}, "diffusion": diffusion})).level_jobs(kind)
    made = [views for rule, views in jobs if "large" in rule]
    assert len(made) == groups and len(dict(jobs)) == len(jobs)
    assert [view for views in made for view in views] == [f"large@{level}" for level in range(0, 10 * levels, 10)]
