"""A method beside its matched controls: what is left of its gain when the control has the rest."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dfeat.config import Settings
from dfeat.config.points import Run
from dfeat.errors import UserError
from dfeat.report.catalogue import find, wanted
from dfeat.report.numbers.statistics import holm
from dfeat.report.page import write_report
from dfeat.report.tables.controls import write_controls
from dfeat.report.tables.published import write_table
from dfeat.section import parse

from .predictions import small_settings, write_predictions

METHODS = ("none", "black_out", "sd_inpaint", "fill_mean", "sd_features", "sd_features_placebo")
PAIRS = {
    ("sd_inpaint", "fill_mean"), ("sd_inpaint", "black_out"), ("sd_features", "sd_features_placebo"),
    ("sd_features", "black_out"),
}  # fmt: skip
GAIN = {
    "none": 0.0,
    "black_out": 0.7,
    "sd_inpaint": 2.5,
    "fill_mean": 0.0,
    "sd_features": 0.7,
    "sd_features_placebo": 0.7,
}
"""SD Features is no better than its placebo or Black-Out; SD Inpaint is better than either of its controls."""


def settings_of(*methods: str, seeds: tuple[int, ...] = (0, 1, 2)) -> Settings:
    plain = small_settings().model_dump(mode="json")
    plain["training"] |= {"methods": list(methods), "seeds": list(seeds)}
    return parse(Settings, plain)


def rows_in(folder: Path) -> list[dict[str, str]]:
    with (folder / "controls.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """controls.csv and controls.md, and Table 1, of a run of six methods."""
    folder = tmp_path_factory.mktemp("run")
    write_predictions(folder, settings_of(*METHODS), gain=GAIN)
    write_controls(folder, settings_of(*METHODS), folder / "report")
    write_table("table1", folder, settings_of(*METHODS), folder / "report")
    return folder / "report"


def test_every_method_less_each_control_in_the_run_at_every_level_of_both_tables(report: Path) -> None:
    rows = rows_in(report)
    assert {(row["method"], row["control"]) for row in rows} == PAIRS
    assert len(rows) == 4 * (3 + 1) * 2 * 2  # pairs, levels of both sets, backbones, metrics
    assert {(row["table"], row["set"], row["level"]) for row in rows} == {
        ("table1", "simulated", "0"), ("table1", "simulated", "40"), ("table1", "simulated", "80"), ("table2", "real", "0"),
    }  # fmt: skip
    for row in rows:
        assert float(row["difference"]) == pytest.approx(float(row["value"]) - float(row["control_value"]), abs=2e-4)
        assert float(row["low"]) < float(row["high"]) and len(row["p_by_seed"].split()) == 3


def test_marks_are_corrected_over_the_table_and_point_the_right_way(report: Path) -> None:
    rows = rows_in(report)
    assert [float(row["p_holm"]) for row in rows] == pytest.approx(holm([float(row["p"]) for row in rows]), rel=1e-3)
    marked = {
        (row["method"], row["control"]): row["mark"] for row in rows if row["level"] == "80" and row["metric"] == "top1"
    }
    assert marked["sd_inpaint", "fill_mean"] == marked["sd_inpaint", "black_out"] == "better"
    assert {row["mark"] for row in rows if row["method"] == "sd_features"} == {""}


def test_the_values_are_those_of_table_1(report: Path) -> None:
    with (report / "table1.csv").open(newline="") as file:
        table = {tuple(map(row.get, ("level", "backbone", "metric", "method"))): row for row in csv.DictReader(file)}
    for row in rows_in(report):
        if row["table"] == "table1":
            place = row["level"], row["backbone"], row["metric"]
            assert row["value"] == table[*place, row["method"]]["value"]
            assert row["control_value"] == table[*place, row["control"]]["value"]
    assert "gains over its matched control" in (report / "table1.md").read_text()


def test_the_grid_has_difference_interval_and_mark_and_what_a_control_shares(report: Path) -> None:
    text = (report / "controls.md").read_text()
    assert "| Less its control | Architecture | simulated, 0 % | simulated, 40 % | simulated, 80 % | real |" in text
    row = next(r for r in rows_in(report) if (r["level"], r["backbone"], r["control"]) == ("80", "swin", "fill_mean"))
    shown = f"{float(row['difference']):+.1f} ({float(row['low']):+.1f} to {float(row['high']):+.1f})↑"
    assert shown in next(line for line in text.splitlines() if line.startswith("| SD Inpaint less Mean Fill | Swin |"))
    assert "- SD Features less SD Features, Placebo: the same twins, network and fusion" in text
    assert f"the {len(rows_in(report))} comparisons of this table" in text and "With one seed" not in text
    tex = (report / "controls.tex").read_text()
    assert r"\begin{table*}" in tex and rf"{shown.removesuffix('↑')}$\uparrow$" in tex and r"simulated, 80 \%" in tex


def test_with_one_seed_nothing_is_tested_and_the_text_says_why(tmp_path: Path) -> None:
    settings = settings_of("none", "black_out", "sd_features", seeds=(0,))
    write_predictions(tmp_path, settings, gain={"none": 0.0, "black_out": 0.0, "sd_features": 6.0})
    write_controls(tmp_path, settings, tmp_path)
    rows, text = rows_in(tmp_path), (tmp_path / "controls.md").read_text()
    assert {(row["p"], row["p_holm"], row["mark"]) for row in rows} == {("", "", "")}
    assert any(float(row["low"]) > 0 for row in rows) and "↑" not in text
    assert "With one seed, intervals exclude run-to-run variation, and nothing is marked" in text


def test_a_run_without_a_method_and_its_control_has_no_such_table(tmp_path: Path) -> None:
    without, with_one = settings_of("none", "cutmix", "sd_features"), settings_of("black_out", "sd_features")
    assert [entry.name for entry in wanted(without) if entry.name == "controls"] == []
    assert [entry.name for entry in wanted(with_one)][2] == "controls"
    with pytest.raises(UserError, match="sd_features has sd_features_placebo and black_out"):
        find("table", "controls", without).inputs(Run(without))
    write_predictions(tmp_path, without)
    write_table("table1", tmp_path, without, tmp_path)
    assert "matched control" not in (tmp_path / "table1.md").read_text()


def test_the_page_shows_it_once_right_after_tables_1_and_2(report: Path) -> None:
    write_report(report.parent, settings_of(*METHODS), report / "index.html")
    page = (report / "index.html").read_text()
    tables, more = page.split('<section id="curves"')
    assert tables.count("<h3>Each method less its matched control</h3>") == 1
    assert (
        tables.index("Table 1, every cell") < tables.index("<h3>Each method less") and 'href="controls.tex"' in tables
    )
    assert "<h3>Controls</h3>" not in more
