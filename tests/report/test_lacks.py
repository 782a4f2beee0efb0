"""What the settings lack a set or a method for is left out of the report, and refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dfeat.config import Settings
from dfeat.config.points import Run
from dfeat.errors import UserError
from dfeat.report.catalogue import catalogue, wanted
from dfeat.report.made import make
from dfeat.section import parse

from .predictions import small_settings, write_predictions

SIMULATED, REAL = {"simulated": {"root": "x", "levels": [0, 40]}}, {"real": {"root": "y"}}
SWEEP = {"fine": {"root": "z", "levels": [0, 100], "study": "sweep"}}
FROM_PREDICTIONS = {"table1", "table2", "controls", "claims", "calibration", "sweep", "accuracy", "gain"}
INDEXED, OF_PARTS = {"efficiency", "cost", "per_class", "figure3"}, {"object_occlusion", "part_cost"}
ALL = FROM_PREDICTIONS | INDEXED | OF_PARTS


def settings_of(sets: dict[str, Any], methods: list[str], **sections: Any) -> Settings:
    plain = small_settings().model_dump(mode="json")
    backbones = {"convnext": plain["training"]["backbones"]["convnext"]}
    training = {"methods": methods, "seeds": [0], "backbones": backbones}
    return parse(Settings, plain | {"data": {"evaluation": sets}, "training": training, **sections})


@pytest.mark.parametrize(
    ("sets", "methods", "without"),
    [
        (REAL, ["none", "cutmix"], {"table1", "controls", "accuracy", "cost", "figure3", "sweep"}),
        (SIMULATED, ["none"], {"table2", "controls", "figure3", "sweep", "gain", "cost", "per_class"}),
        (SIMULATED | REAL, ["cutmix"], {"controls", "efficiency", "gain", "cost", "per_class", "sweep"}),
        (SIMULATED, ["black_out", "sd_features"], {"table2", "figure3", "efficiency", "gain", "cost", "per_class", "sweep"}),
        (SWEEP, ["none", "cutmix"], ALL - {"claims", "efficiency", "sweep"}),
    ],
    ids=["real", "simulated", "no-none", "controls", "study"],
)  # fmt: skip
def test_what_lacks_a_set_or_a_method_is_left_out_and_all_else_is_made(
    sets: dict[str, Any], methods: list[str], without: set[str], tmp_path: Path
) -> None:
    settings = settings_of(sets, methods)
    shown = {entry.name for entry in wanted(settings)}
    assert shown & ALL == ALL - without - OF_PARTS
    write_predictions(tmp_path / "evaluation", settings, classes=2, images=8)
    for entry in catalogue(settings):
        if entry.name in FROM_PREDICTIONS & shown:
            if entry.kind == "figure" and len(sets) + len(methods) > 2 and sets is not REAL:
                continue  # drawn of the two runs with one kind of set
            make(entry, tmp_path, settings, tmp_path / "report")
            assert all((tmp_path / "report" / f"{entry.name}{suffix}").is_file() for suffix in entry.suffixes)
        elif entry.name in without and entry.lacks(settings):
            with pytest.raises(UserError, match=f"^{entry.kind} {entry.name} .*; .*, or leave this {entry.kind} out$"):
                entry.inputs(Run(settings))


@pytest.mark.parametrize(
    ("levels", "study", "sentence"),
    [
        ([0], "sweep", "data.evaluation.own has study 'sweep', which needs several levels"),
        ([40], "object_occlusion", "has study 'object_occlusion', which needs several levels"),
        ([0], "part_cost", "has study 'part_cost', which needs the levels [0, 100]"),
        ([100], "part_cost", "has study 'part_cost', which needs the levels [0, 100]"),
    ],
)
def test_a_study_without_its_levels_is_refused_at_once(levels: list[int], study: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        settings_of({"own": {"kind": "partimagenet", "root": "x", "levels": levels, "study": study}}, ["none"])
    assert sentence in str(error.value)


def test_a_grid_that_no_set_is_there_to_measure_is_refused() -> None:
    settings = settings_of(SWEEP, ["none"], ablation={"decay": {"methods": ["none"], "grid": {"training.epochs": [1]}}})
    entries = [entry for entry in catalogue(settings) if entry.name in ("ablation_decay", "choose_learning_rate")]
    assert len(entries) == 3
    for entry in entries:
        with pytest.raises(UserError, match=f"{entry.name} "):
            entry.inputs(Run(settings))
