"""Predictions are read as those of the model that made them, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dfeat.config import Settings, table_settings
from dfeat.errors import UserError
from dfeat.report.claims.claims import write_claims
from dfeat.report.figures.curves import accuracy, gain
from dfeat.report.numbers.results import load_predictions
from dfeat.report.tables.ablations import write_ablation
from dfeat.report.tables.efficiency import gains
from dfeat.report.tables.published import write_table
from dfeat.report.tables.studies import write_study
from dfeat.section import parse
from dfeat.storage.atomic import write_bytes, write_json
from dfeat.storage.records import FOLDER

from .predictions import small_settings, write_origin, write_predictions

MODEL = "none/swin/seed1"


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    write_predictions(tmp_path / "evaluation", small_settings())
    return tmp_path / "evaluation"


def copied(source: Path, target: Path) -> None:
    """Copy a file as an artifact: with a digest record that is true of it."""
    write_bytes(target, source.read_bytes())


def refused(evaluation: Path, told: str) -> None:
    for settings in (small_settings(), table_settings(small_settings(), ("simulated", "real"))):
        with pytest.raises(UserError, match=told) as error:
            load_predictions(evaluation, settings)
        assert f"{evaluation / MODEL}" in str(error.value) and "`dfeat evaluate`" in str(error.value)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ("none/swin/seed0", "is of none with seed 0, not of none in seed1"),
        ("cutmix/swin/seed1", "is of cutmix with seed 1, not of none in seed1"),
        ("none/convnext/seed1", "records a backbone with name 'convnext_base.fb_in1k', but the settings have 'swin"),
    ],
)
def test_predictions_of_another_model_are_refused(evaluation: Path, other: str, told: str) -> None:
    """With or without what they say of themselves, and with digest records that are true of them."""
    said = {path: path.read_bytes() for path in (evaluation / MODEL).glob("*.json")}
    for path in (evaluation / other).iterdir():
        copied(path, evaluation / MODEL / path.name)
    refused(evaluation, told)
    for path, content in said.items():
        write_bytes(path, content)
    refused(evaluation, r"another file than (real|simulated)\.json beside it lists")


@pytest.mark.parametrize(("put", "over"), [("real@0", "simulated@0"), ("simulated@40", "simulated@80")])
def test_predictions_of_another_set_or_level_are_refused(evaluation: Path, put: str, over: str) -> None:
    copied(evaluation / MODEL / f"{put}.csv", evaluation / MODEL / f"{over}.csv")
    refused(evaluation, f"{over}.csv cannot be used: it is another file than simulated.json")


def test_the_record_of_another_set_is_refused(evaluation: Path) -> None:
    copied(evaluation / MODEL / "real@0.csv", evaluation / MODEL / "simulated@0.csv")
    copied(evaluation / MODEL / "real.json", evaluation / MODEL / "simulated.json")
    refused(evaluation, r"simulated\.json cannot be used: it is of real, not of simulated")


def test_predictions_that_say_nothing_of_their_model_are_refused(evaluation: Path) -> None:
    origin = evaluation / MODEL / "real.json"
    origin.unlink()
    refused(evaluation, r"real\.json is missing; make it with `dfeat evaluate`")
    for content, told in (("[1]", "not a JSON object"), ("{}", "does not say method, backbone"), ("{", "not JSON")):
        origin.write_text(content)
        refused(evaluation, told)


def test_what_an_earlier_evaluation_left_is_refused(evaluation: Path) -> None:
    """The latest one wrote two of three levels: the third may be of another model."""
    kept = evaluation / MODEL / "simulated@80.csv"
    content = kept.read_bytes()
    kept.unlink()
    write_origin(evaluation / MODEL, "none", small_settings().training.backbones["swin"], 1)
    write_bytes(kept, content)
    refused(evaluation, r"simulated@80\.csv cannot be used: simulated\.json beside it does not list it")


@pytest.mark.parametrize(
    "changed", [{"index": "f" * 64}, {"settings": {"occlusion": {"patch": 8}}}, {"settings": {"studies": {"real": "sweep"}}}]
)  # fmt: skip
def test_models_that_were_shown_other_images_are_not_compared(evaluation: Path, changed: dict[str, object]) -> None:
    origin = evaluation / MODEL / "real.json"
    write_json(origin, {**json.loads(origin.read_text()), **changed})
    refused(evaluation, "on real it records another index or other settings than")


def ablation(run: Path, settings: Settings) -> None:
    plain = settings.model_dump(mode="json")
    plain["ablation"] = {"x": {"methods": ["none"], "grid": {"training.alpha": [0.5]}}}
    for path in (path for path in (run / "evaluation").rglob("*") if path.is_file() and path.parent.name != FOLDER):
        copied(path, run / "ablation/x/0" / path.relative_to(run))
    write_ablation("x", run, parse(Settings, plain), run / "report")


READERS: dict[str, Callable[[Path, Settings], object]] = {
    "table": lambda run, settings: write_table("table1", run / "evaluation", settings, run / "report"),
    "claims": lambda run, settings: write_claims(run / "evaluation", settings, run / "report"),
    "study": lambda run, settings: write_study("calibration", run, settings, run / "report"),
    "efficiency": lambda run, settings: list(gains(run / "evaluation", settings)),
    "accuracy": lambda run, settings: accuracy(run / "evaluation", settings, run / "report"),
    "gain": lambda run, settings: gain(run / "evaluation", settings, run / "report"),
    "ablation": ablation,
}


@pytest.mark.parametrize("reader", READERS)
def test_nothing_is_made_of_predictions_of_another_seed(evaluation: Path, reader: str) -> None:
    copied(evaluation / "none/swin/seed0/simulated@0.csv", evaluation / MODEL / "simulated@0.csv")
    with pytest.raises(UserError, match=r"seed1/simulated@0\.csv cannot be used: it is another file"):
        READERS[reader](evaluation.parent, small_settings())
    assert not (evaluation.parent / "report").exists()
