"""Ablations: every point of the grid, compared with the first on the same images."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from dfeat.config import Settings, ablation_points
from dfeat.config.files import lay_over
from dfeat.config.points import Run
from dfeat.errors import UserError
from dfeat.report.catalogue import find
from dfeat.report.figures.maps import ablation as draw_ablation
from dfeat.report.numbers.statistics import holm
from dfeat.report.tables.ablations import write_ablation
from dfeat.report.tables.learning_rates import write_learning_rates
from dfeat.section import parse
from dfeat.training.settings import Backbone

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
        ({"training.fusion.kind": ["sum"]}, "training.fusion"),
        ({"training.learning_rates.none.swinn": [0.1]}, "did you mean 'swin'"),
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
    assert "# Ablation: both, on the test sets (simulated, real)" in text and "↑)" in text
    assert (
        "measured on the test sets (simulated, real). A choice among them is made by what it would be tested on" in text
    )
    tested = [row for row in rows if row["p"]]
    assert len(tested) == 5 * 2 * (3 + 1)
    assert [float(row["p_holm"]) for row in tested] == pytest.approx(
        holm([float(row["p"]) for row in tested]), rel=1e-3
    )
    assert {row["mark"] for row in tested if row["point"] == "3"} == {""}
    assert "↑" in {row["mark"] for row in tested if row["point"] == "5"} and "↑)" in text


def test_points_are_measured_on_held_out_images_where_there_are_some_unless_a_grid_says_test(tmp_path: Path) -> None:
    grid = {"methods": ["none"], "grid": {"training.weight_decay": [0.0001, 0.001]}}
    settings = held_out(3, {"decay": grid, "tested": grid | {"on": "test"}})
    for name, sets in {"decay": {"holdout": (0, 40, 80)}, "tested": {"simulated": (0, 40, 80), "real": (0,)}}.items():
        for number, (_, point) in enumerate(ablation_points(settings, name)):
            assert {key: one.levels for key, one in point.data.evaluation.items()} == sets
            write_predictions(tmp_path / "ablation" / name / str(number) / "evaluation", point)
        write_ablation(name, tmp_path, settings, tmp_path / "report")
        with (tmp_path / "report" / f"ablation_{name}.csv").open(newline="") as file:
            assert [row["set"] for row in csv.DictReader(file)].count(next(iter(sets))) == 2 * 2 * 3
        draw_ablation(name, tmp_path / "report", settings, tmp_path / "report")
    text = (tmp_path / "report" / "ablation_decay.md").read_text()
    assert text.startswith("# Ablation: decay, on images held out of training (3 of each class)\n")
    assert "A choice among them has seen no test image." in text
    drawn = {name: (tmp_path / "report" / f"ablation_{name}.svg").read_bytes() for name in ("decay", "tested")}
    assert drawn["decay"] != drawn["tested"]


def held_out(holdout: int, ablation: dict[str, Any]) -> Settings:
    """The small settings with a holdout and some grids."""
    plain = small_settings().model_dump(mode="json")
    plain["data"]["train"]["holdout"] = holdout
    return parse(Settings, plain | {"ablation": ablation})


def test_a_grid_on_held_out_images_is_refused_where_none_are_held_out() -> None:
    grid = {"methods": ["none"], "grid": {"training.weight_decay": [0.0001]}, "on": "holdout"}
    with pytest.raises(
        UserError, match=r"ablation.decay.on is 'holdout', and data.train.holdout is 0; hold out images"
    ):
        held_out(0, {"decay": grid})
    assert list(held_out(0, {"decay": grid | {"on": None}}).measured_on("decay")) == ["simulated", "real"]


RATES = (0.001, 0.01, 0.1)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings]:
    """A search over three rates: the second is best for ConvNeXt; for Swin all three predict alike."""
    results = tmp_path_factory.mktemp("search")
    grid = {"methods": ["none", "cutmix"], "grid": {"training.learning_rate": RATES}}
    settings = held_out(5, {"learning_rate": grid})
    for number, (_, point) in enumerate(ablation_points(settings, "learning_rate")):
        folder = results / f"ablation/learning_rate/{number}/evaluation"
        write_predictions(folder, point, gain={"none": 0.0, "cutmix": 0.0, "sd_features": 0.0})
        if number == 1:
            better = {"none": 3.0, "cutmix": 3.0, "sd_features": 3.0}
            one = point.model_copy(update={"training": point.training.model_copy(update={"backbones": only(point)})})
            write_predictions(folder, one, gain=better)
    write_learning_rates(results, settings, results / "report")
    return results / "report", settings


def only(settings: Settings) -> dict[str, Backbone]:
    return {"convnext": settings.training.backbones["convnext"]}


def test_the_best_rate_of_each_method_and_backbone_is_named_with_differences(searched: tuple[Path, Settings]) -> None:
    with (searched[0] / "choose_learning_rate.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3 * (3 + 1)  # methods, backbones, rates, levels and their mean
    assert {row["set"] for row in rows} == {"holdout"}
    best = {(row["method"], row["backbone"]): row["learning_rate"] for row in rows if row["best"] == "true"}
    assert best == {(m, b): r for m in ("none", "cutmix") for b, r in (("convnext", "0.01"), ("swin", "0.001"))}
    for row in rows:
        if row["best"] == "true":
            assert row["difference_to_best"] == row["difference_low"] == ""
            continue
        at_best = next(r for r in rows if r["best"] == "true" and same(r, row, "method", "backbone", "level"))
        difference = float(row["value"]) - float(at_best["value"])
        assert float(row["difference_to_best"]) == pytest.approx(difference, abs=2e-4)
        if row["level"] == "mean":
            assert (float(row["difference_high"]) < 0) == (row["backbone"] == "convnext")
            levels = [float(r["value"]) for r in rows if same(r, row, "method", "backbone", "learning_rate")]
            assert float(row["value"]) == pytest.approx(sum(levels[:3]) / 3, abs=2e-4)


def test_a_rate_is_told_apart_by_a_test_corrected_for_all_pairs_of_rates_and_never_with_one_seed(
    searched: tuple[Path, Settings], tmp_path: Path
) -> None:
    with (searched[0] / "choose_learning_rate.csv").open(newline="") as file:
        tested = [row for row in csv.DictReader(file) if row["p"]]
    assert {(row["level"], row["best"]) for row in tested} == {("mean", "false")} and len(tested) == 2 * 2 * 2
    pairs = 2 * 2 * 3  # methods, backbones, pairs of three rates
    for row in tested:
        assert float(row["p_corrected"]) == pytest.approx(min(1, pairs * float(row["p"])), rel=1e-2)
        assert (float(row["p_corrected"]) < 0.05) == (row["backbone"] == "convnext")
    text = (searched[0] / "choose_learning_rate.md").read_text()
    assert "| no other |" in text and "corrected for all pairs of rates in the table (Bonferroni, p < 0.05)" in text

    settings = searched[1]
    one = settings.model_copy(update={"training": settings.training.model_copy(update={"seeds": (0,)})})
    shutil.copytree(searched[0].parent / "ablation", tmp_path / "ablation")
    write_learning_rates(tmp_path, one, tmp_path / "report")
    text = (tmp_path / "report" / "choose_learning_rate.md").read_text()
    assert "With one seed no rate is told apart" in text and "| no other |" not in text


def same(a: dict[str, str], b: dict[str, str], *columns: str) -> bool:
    return all(a[column] == b[column] for column in columns)


def test_the_text_has_the_lines_that_set_the_best_rates(searched: tuple[Path, Settings]) -> None:
    text = (searched[0] / "choose_learning_rate.md").read_text()
    assert text.startswith("# Choosing the learning rate, on images held out of training (5 of each class)\n")
    assert "with 0, 40, 80 % of the patches dropped" in text and "No test image was looked at." in text
    assert "| None | Swin | held-out images | 0.001 |" in text and "| 0.01, 0.1 |" in text
    assert "- CutMix, Swin: 0.001 is the lowest rate of the grid" in text and "ConvNeXt: 0.01 is the" not in text
    printed = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    plain = searched[1].model_dump(mode="json")
    lay_over(plain, printed)
    training = parse(Settings, plain).training
    assert {b: training.rate("cutmix", b) for b in training.backbones} == {"convnext": 0.01, "swin": 0.001}
    assert training.rate("sd_features", "swin") == searched[1].training.learning_rate


def test_a_search_without_held_out_images_is_refused_unless_it_asks_for_the_test_sets(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.train\.holdout is 0; hold out images of each class, for example"):
        find("table", "choose_learning_rate", small_settings()).inputs(Run(small_settings()))
    grid = {"methods": ["none"], "on": "test", "grid": {"training.learning_rate": [0.01]}}
    settings = held_out(0, {"learning_rate": grid})
    write_predictions(tmp_path / "ablation/learning_rate/0/evaluation", settings)
    write_learning_rates(tmp_path, settings, tmp_path / "report")
    text = (tmp_path / "report" / "choose_learning_rate.md").read_text()
    assert "on the test sets (simulated, real)" in text and "Test images were looked at" in text
    assert "  learning_rates:\n    none: {convnext: 0.01, swin: 0.01}\n" in text


def test_the_grid_of_the_search_varies_the_rate_alone_and_covers_the_runs_methods() -> None:
    wrong = {"learning_rate": {"methods": ["none"], "grid": {"training.learning_rate": [0.1], "training.epochs": [1]}}}
    with pytest.raises(UserError, match=r"made from ablation\.learning_rate, which varies training\.learning_rate, t"):
        find("table", "choose_learning_rate", held_out(3, wrong)).inputs(Run(held_out(3, wrong)))
    settings = held_out(3, {})
    grid = settings.grids["learning_rate"]
    assert grid.methods == settings.training.methods and {0.001, 0.01} < set(grid.grid["training.learning_rate"])
    own = {"training": {"learning_rates": {"none": {"swin": 0.5}}}}
    plain = settings.model_dump(mode="json")
    lay_over(plain, own)
    points = ablation_points(parse(Settings, plain), "learning_rate")
    assert [one.training.rate("none", "swin") for _, one in points] == [0.001, 0.003, 0.01, 0.03]


def test_an_unknown_grid_names_those_there_are(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no ablation 'bothh'; did you mean 'both'"):
        write_ablation("bothh", tmp_path, settings, tmp_path)
