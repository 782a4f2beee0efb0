"""Numbers that no plan would end with, names that would be taken for another, and what is no number, are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dfeat.config import Settings, ablation_points, config_schema
from dfeat.config.bounds import MOST_JOBS, has_long_commands, jobs_of
from dfeat.config.names import RESERVED
from dfeat.config.points import Run
from dfeat.errors import UserError
from dfeat.section import parse

BACKBONE = {"name": "resnet18"}


def at(key: str, value: Any) -> dict[str, Any]:
    """A configuration of one setting, by its dotted key."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def refusal(change: dict[str, Any]) -> str:
    with pytest.raises(UserError) as error:
        parse(Settings, change)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (at("diffusion.inpaint.shards", 10**9), "'diffusion.inpaint.shards' is 1000000000: input should be less than"),
        (at("diffusion.features.shards", 5000), "input should be less than or equal to 4096"),
        (at("data.train.expected_images", 10**7), "would read 19,532 files of inpaintings, more than the 4,096"),
        ({**at("data.train.expected_images", 10**5), **at("diffusion.inpaint.copies", 64)}, "12,500 files of inpaintings"),
        (at("diffusion.views", 10**9), "'diffusion.views' is 1000000000"),
        ({"diffusion": {"features": {"shards": 1000}}}, "would read 5,000 files of features, more than the 4,096"),
        (at("training.seeds", list(range(2000))), "at most 1000 items"),
        (at("training.seeds", list(range(10**6))), "holds more than 100,000 values"),
        (
            {"training": {"seeds": list(range(1000)), "backbones": {f"b{n}": BACKBONE for n in range(5)}}},
            "would have 90,076 jobs, more than 50,000; 90,000 of them come from training.methods x training.backbones x",
        ),
        (at("data.drawn", {"train": 10**9}), "'data.drawn.train' is 1000000000"),
        (at("data.drawn", {"parts": 10**9}), "'data.drawn.parts' is 1000000000"),
        (at("ablation.a", {"methods": ["none"], "grid": {f"training.k{n}": [*range(10)] for n in range(9)}}),
         "ablation.a.grid has 1,000,000,000 points, more than the 1,000"),
        (at("report.note", "x" * 130_000), "'report.note' is too long: the settings have 13"),
        (at("diffusion.inpaint.prompt", "{" * 21_000), "'diffusion.inpaint.prompt' is too long"),
        ({"training": {"seeds": [0], "methods": ["none"], "backbones": {f"b{n}": BACKBONE for n in range(2000)}}}, "'training.backbones' is too long"),
        (at("report.seed", 2**63), "'report.seed' is a whole number of more than 64 bits"),
        (at("resources.threads", 10**9), "'resources.threads' is 1000000000"),
    ],
)  # fmt: skip
def test_what_no_plan_would_end_with_says_how_many_and_what_to_lower(change: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(change)


def test_a_grid_of_too_many_jobs_is_refused_where_it_is_asked_for() -> None:
    grid = {"methods": ["none", "cutmix"], "grid": {"training.alpha": [n / 1000 for n in range(1000)]}}
    settings = parse(Settings, {"training": {"seeds": [*range(10)]}, "ablation": {"a": grid}})
    with pytest.raises(UserError, match=r"ablation.a would have 120,000 jobs, more than 50,000"):
        Run(settings).point_predictions("a")


def test_a_large_but_sensible_run_is_taken() -> None:
    many = {
        "data": {"train": {"expected_images": 1_000_000}},
        "training": {"seeds": [*range(10)], "backbones": {f"b{n}": BACKBONE for n in range(20)}},
    }
    assert 2_000 < sum(jobs_of(parse(Settings, many)).values()) < MOST_JOBS


def test_every_whole_number_has_a_bound() -> None:
    """So that a new setting is not the one that plans a billion jobs."""

    def numbers(schema: Any, where: str) -> list[str]:
        found = []
        if isinstance(schema, dict):
            if schema.get("type") == "integer" and not {"maximum", "exclusiveMaximum"} & set(schema):
                found.append(where)
            for name, below in schema.items():
                found += numbers(below, f"{where}.{name}")
        elif isinstance(schema, list):
            for below in schema:
                found += numbers(below, where)
        return found

    assert numbers(json.loads(config_schema()), "") == []


WHERE = (
    "training.learning_rate", "training.epochs", "training.batch_size", "training.weight_decay", "occlusion.share",
    "report.confidence", "diffusion.inpaint.guidance_scale", "diffusion.features.timestep", "evaluation.crop_pct",
    "resources.mem_mb", "occlusion.seed", "data.short_side", "data.train.expected_images", "data.drawn.train",
)  # fmt: skip


@pytest.mark.parametrize("key", WHERE)
@pytest.mark.parametrize(
    "value", [True, False, "true", "yes", "010", "1_0", "0x1", "1:30", " 5", "5 ", "", "inf", "nan", "٣"]
)
def test_what_is_no_number_is_none(key: str, value: Any) -> None:
    assert f"'{key}' is {value!r}: is no number" in refusal(at(key, value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.seeds", [0, True]), ("training.crop_scale", [True, 1]), ("diffusion.inpaint.guidance_interval", ["0_0", 1]),
        ("diffusion.features.timestep", [25, False]), ("training.learning_rates", {"none": {"swin": True}}),
        ("data.evaluation.s", {"root": "x", "levels": [0, True]}),
    ],
)  # fmt: skip
def test_what_is_no_number_in_a_list_is_none(key: str, value: Any) -> None:
    assert "which is no number; write one in decimal digits" in refusal(at(key, value))


def test_numbers_as_text_are_numbers_as_the_command_line_gives_them() -> None:
    for text, number in (("1e-4", 1e-4), ("0.5", 0.5), ("1", 1.0), (".5", 0.5), ("+1.5E2", 150.0), ("0", None)):
        if number is not None:
            assert parse(Settings, at("training.learning_rate", text)).training.learning_rate == number
    assert parse(Settings, at("training.seeds", ["-1", "0", "7"])).training.seeds == (-1, 0, 7)
    assert parse(Settings, at("training.compile", "true")).training.compile is True


def test_a_grids_values_are_numbers_too() -> None:
    grid = {"methods": ["none"], "grid": {"training.alpha": [True]}}
    with pytest.raises(UserError, match=r"'training.alpha' is True: is no number"):
        ablation_points(parse(Settings, at("ablation.a", grid)), "a")


@pytest.mark.parametrize("name", [*sorted(RESERVED), "Labels", "TRAIN"])
def test_no_set_and_no_backbone_has_a_name_that_every_run_has(name: str) -> None:
    assert f"named {name!r}" in refusal(at("data.evaluation", {name: {"root": "x"}}))
    assert f"training.backbones has one named {name!r}" in refusal(at("training.backbones", {name: BACKBONE}))


@pytest.mark.parametrize("name", ["con", "NUL", "aux.v2", "Com1", "lpt9.x", "a.", "x.tmp.y", "null"])
def test_a_name_is_one_on_every_file_system(name: str) -> None:
    for change in (
        {"run": name}, *([] if name == "null" else [{"base": name}]), at("data.evaluation", {name: {"root": "x"}}),
        at("training.backbones", {name: BACKBONE}), at("ablation", {name: {"methods": ["none"], "grid": {"training.a": [1]}}}),
    ):  # fmt: skip
        assert "names no file everywhere" in refusal(change)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (at("training.backbones", {"Swin": BACKBONE}), "has 'swin' and 'Swin'"),
        (at("data.evaluation", {"A": {"root": "x"}, "a": {"root": "x"}}), "has 'A' and 'a', which differ in capital letters"),
        (
            {"training": {"methods": ["sd_features", "sd_features_placebo"], "backbones": {"placebo_x": BACKBONE, "x": BACKBONE}}},
            "would write the log sd_features_placebo_x of both",
        ),
        (
            at("ablation", {name: {"methods": ["none"], "grid": {"training.alpha": [1]}} for name in ("a", "a_figure")}),
            "ablation.a_figure would write the log of the figure of ablation.a",
        ),
    ],
)  # fmt: skip
def test_two_names_of_one_place_are_refused(change: dict[str, Any], sentence: str) -> None:
    if "backbones" in change.get("training", {}) and "Swin" in change["training"]["backbones"]:
        change["training"]["backbones"]["swin"] = BACKBONE
        sentence = "has 'Swin' and 'swin'"
    assert sentence in refusal(change)


def test_a_point_of_one_grid_is_none_of_another() -> None:
    grid = {"methods": ["none"], "grid": {"training.alpha": [1, 2]}}
    import re

    pattern = Run(parse(Settings, at("ablation", {"a.b": grid}))).points_pattern()
    assert re.fullmatch(pattern, "/ablation/a.b/1") and not re.fullmatch(pattern, "/ablation/axb/1")


def test_long_commands_are_known() -> None:
    assert not has_long_commands(Settings())
    assert has_long_commands(parse(Settings, at("report.note", "'" * 8_000)))
    assert has_long_commands(parse(Settings, at("diffusion.inpaint.shards", 101)))
