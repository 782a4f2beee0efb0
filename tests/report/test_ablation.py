"""Ablations: every point of the grid, compared with the first on the same images."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dfeat.config import Settings, ablation_points
from dfeat.errors import UserError
from dfeat.report.numbers.statistics import holm
from dfeat.report.tables.ablations import write_ablation
from dfeat.section import parse

from .predictions import small_settings, write_predictions

GRID = {"training.alpha": [0.5, 1.0], "diffusion.features.blocks": [["mid"], ["up.1"], ["mid", "up.0"]]}


@pytest.fixture(scope="module")
def settings() -> Settings:
    plain = small_settings().model_dump(mode="json")
    plain["ablation"] = {"both": {"methods": ["sd_features"], "grid": GRID}}
    return parse(Settings, plain)


def test_the_points_are_the_product_in_order_and_change_nothing_else(settings: Settings) -> None:
    points = ablation_points(settings, "both")
    assert [list(point.values()) for point, _ in points] == [
        [alpha, blocks] for alpha in GRID["training.alpha"] for blocks in GRID["diffusion.features.blocks"]
    ]
    for point, changed in points:
        assert changed.training.alpha == point["training.alpha"]
        assert list(changed.diffusion.features.blocks) == point["diffusion.features.blocks"]
        back = changed.model_dump(mode="json")
        back["training"]["alpha"] = settings.training.alpha
        back["diffusion"]["features"]["blocks"] = list(settings.diffusion.features.blocks)
        assert back == settings.model_dump(mode="json")


def test_a_point_that_cannot_be_is_refused_with_a_sentence(settings: Settings) -> None:
    plain = settings.model_dump(mode="json")
    for grid, told in (
        ({"training.fusion": ["conct"]}, "training.fusion"),
        ({"training.fussion": ["sum"]}, "did you mean 'fusion'"),
        ({"data.short_side": [64]}, "cannot take 'data.short_side' apart"),
        ({"training.fusion": []}, "at least 1 item"),
    ):
        plain["ablation"] = {"x": {"methods": ["sd_features"], "grid": grid}}
        with pytest.raises(UserError, match=told):
            ablation_points(parse(Settings, plain), "x")


def test_the_default_grids_are_all_possible() -> None:
    settings = Settings()
    assert set(settings.ablation) == {"timestep", "fusion", "weights", "share", "copies"}
    assert [len(ablation_points(settings, name)) for name in settings.ablation] == [8, 4, 6, 4, 3]


def test_points_are_compared_with_the_first_on_the_same_images(settings: Settings, tmp_path: Path) -> None:
    for number in range(6):
        gain = {"none": 0.0, "cutmix": 0.0, "sd_features": 0.0 if number < 5 else 4.0}
        write_predictions(tmp_path / "ablation" / "both" / str(number) / "evaluation", settings, gain=gain)
    write_ablation("both", tmp_path, settings, tmp_path / "report")
    with (tmp_path / "report" / "ablation_both.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * 2 * (3 + 1)  # points, backbones, levels of both sets
    assert {row["diffusion.features.blocks"] for row in rows} == {"mid", "up.1", "mid up.0"}
    first = {(row["set"], row["level"], row["backbone"]): float(row["value"]) for row in rows if row["point"] == "0"}
    for row in rows:
        if row["point"] == "0":
            assert row["difference_to_first"] == ""
            continue
        difference = float(row["value"]) - first[row["set"], row["level"], row["backbone"]]
        assert float(row["difference_to_first"]) == pytest.approx(difference, abs=2e-4)
        if row["point"] == "3":  # the same predictions
            assert (row["difference_low"], row["difference_high"]) != ("", "") and difference == 0
        if row["point"] == "5" and row["level"] == "80":
            assert float(row["difference_low"]) > 0
    text = (tmp_path / "report" / "ablation_both.md").read_text()
    assert "chosen by what it is measured on" in text
    tested = [row for row in rows if row["p"]]
    assert len(tested) == 5 * 2 * (3 + 1)
    assert [float(row["p_holm"]) for row in tested] == pytest.approx(
        holm([float(row["p"]) for row in tested]), rel=1e-3
    )
    assert {row["mark"] for row in tested if row["point"] == "3"} == {""}
    assert "↑" in {row["mark"] for row in tested if row["point"] == "5"} and "↑)" in text


def test_an_unknown_grid_names_those_there_are(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no ablation 'bothh'; did you mean 'both'"):
        write_ablation("bothh", tmp_path, settings, tmp_path)
