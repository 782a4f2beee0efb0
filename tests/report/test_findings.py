"""The lines on top of the report state what the run found, and no more than it can bear."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from dfeat.config import Settings
from dfeat.report.page.artifacts import Trained
from dfeat.report.page.findings import findings
from dfeat.report.tables.layout import CellRow
from dfeat.report.tables.published import table_rows
from dfeat.section import parse

from .predictions import small_settings, write_predictions


def small(sets: Sequence[str] = ("simulated", "real"), seeds: Sequence[int] = (0, 1), **training: object) -> Settings:
    plain = small_settings().model_dump(mode="json")
    plain["data"]["evaluation"] = {name: plain["data"]["evaluation"][name] for name in sets}
    plain["training"] |= {"seeds": list(seeds), **training}
    return parse(Settings, plain)


def models(settings: Settings, curve: tuple[float, ...]) -> list[Trained]:
    return [
        Trained(settings.labels.method(method), settings.labels.backbone(backbone), str(seed), {"images": 1200}, curve)
        for method in settings.training.methods
        for backbone in settings.training.backbones
        for seed in settings.training.seeds
    ]


def lines(
    folder: Path, settings: Settings, gain: dict[str, float] | None = None, curve: tuple[float, ...] = (0.5, 0.6)
) -> tuple[dict[str, str], list[CellRow]]:
    """The lines of a run by title, and the rows they are of."""
    write_predictions(folder, settings, gain=gain)
    rows = [row for name in ("table1", "table2") for row in table_rows(name, folder, settings)]  # type: ignore[arg-type]
    return {line.title: line.text for line in findings(rows, models(settings, curve), 0.95, settings.labels)}, rows


def top1(rows: list[CellRow], **wanted: str) -> list[CellRow]:
    found = [row for row in rows if row.metric == "top1"]
    return [row for row in found if all(getattr(row, key) == value for key, value in wanted.items())]


def test_the_best_method_at_the_middle_level_with_its_gain(tmp_path: Path) -> None:
    found, rows = lines(tmp_path, small())
    best = max(top1(rows, set="simulated", level="40"), key=lambda row: float(row.value))
    assert best.method == "sd_features"
    name = small_settings().labels.backbone(best.backbone)
    assert f"simulated at 40 % loss: SD Features with {name}, {float(best.value):.1f} %, " in found["Best"]
    low, high = float(best.difference_low), float(best.difference_high)
    assert f"points over None (95 % interval {low:+.1f} to {high:+.1f})" in found["Best"]
    assert f"{'' if best.best == 'true' else 'not '}significantly better than every other method" in found["Best"]
    assert " real: " in found["Best"]


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_differences_from_none_are_counted_by_their_marks_or_with_one_seed_by_their_intervals(
    tmp_path: Path, seeds: Sequence[int]
) -> None:
    found, rows = lines(tmp_path, small(seeds=seeds))
    compared = [row for row in top1(rows) if row.difference_to_none]
    assert found["Against None"].startswith(f"Of {len(compared)} top-1 differences")
    if len(seeds) > 1:
        better, worse = (len(top1(compared, mark=mark)) for mark in ("better", "worse"))
        assert better > 0
        assert f"{better} are significantly better, {worse} significantly worse and" in found["Against None"]
        assert "2 seeds: intervals and tests include run-to-run variation" in found["How sure"]
        assert "too small to detect (80 % power)" in found["How sure"]
    else:
        above = sum(float(row.difference_low) > 0 for row in compared)
        assert f"{above} have an interval above 0" in found["Against None"]
        assert "with one seed no difference is tested" in found["Against None"]
        assert "1 seed: intervals exclude run-to-run variation" in found["How sure"]
    assert "n = 200 images of simulated and 200 images of real" in found["How sure"]
    assert "significantly" not in found["Best"] or len(seeds) > 1


@pytest.mark.parametrize(("seeds", "curve"), [((0,), (0.5, 0.6)), ((0, 1), (0.5, 0.502)), ((0, 1), (0.5,))])
def test_where_none_leads_it_is_said_by_how_much_how_surely_and_what_the_run_holds_on_it(
    tmp_path: Path, seeds: Sequence[int], curve: tuple[float, ...]
) -> None:
    found, rows = lines(tmp_path, small(seeds=seeds), {"none": 6.0, "cutmix": 0.0, "sd_features": 0.0}, curve)
    text = found["Where None leads"]
    assert "None with " in found["Best"] and "points over " in found["Best"]
    assert text.startswith("None is best in all 8 cells, by ")
    assert "simulated, Swin at 0, 40 and 80 % loss" in text and "real, ConvNeXt;" in text
    leads = [-float(row.difference_to_none) for row in top1(rows) if row.difference_to_none]
    assert max(map(float, re.findall(r"by ([\d.]+) to ([\d.]+) points", text)[0])) <= round(max(leads), 1)
    sure = len(top1(rows, method="none", best="true"))
    if len(seeds) == 1:
        assert "with one seed no lead is tested" in text and "chance and short training cannot be excluded" in text
    else:
        assert f"the lead is significant in {sure} of them" in text
        assert ("chance" in text.partition("So ")[2].partition(" cannot")[0]) == (sure < 8)
    assert "1,200 training images" in text
    if len(curve) == 1:
        assert "One epoch does not show whether training had levelled off." in text and "short training" in text
    else:
        rising = len(models(small(seeds=seeds), curve)) if curve[1] - curve[0] > 0.01 else 0
        assert f"in that epoch in {rising} of {6 * len(seeds)} models" in text
        assert ("short training cannot" in text) == (rising > 0)


def test_methods_that_are_equally_good_are_all_named() -> None:
    def row(method: str, value: str, gain: str = "") -> CellRow:
        return CellRow(
            "table2", "real", "0", method, "swin", "top1", value, n="50", seeds="1",
            difference_to_none=gain, difference_low=gain and "-1", difference_high=gain and "1",
        )  # fmt: skip

    rows = [row("none", "84.0000"), row("cutmix", "84.0000", "0.0000"), row("replace", "80.0000", "-4.0000")]
    found = {line.title: line.text for line in findings(rows, [], 0.95, Settings().labels)}
    assert found["Best"].startswith("real: None with Swin and CutMix with Swin, 84.0 %, +0.0 points over None")
    assert "Where None leads" not in found


def test_nothing_significant_is_called_undecided(tmp_path: Path) -> None:
    found, rows = lines(tmp_path, small(), {"none": 0.0, "cutmix": 0.0, "sd_features": 0.0})
    assert not [row for row in top1(rows) if row.mark]
    assert "0 are significantly better, 0 significantly worse and 16 undecided" in found["Against None"]
    if "Where None leads" in found:
        assert "the lead is significant in 0 of them" in found["Where None leads"]


def test_a_run_with_table_2_alone_and_one_with_none_alone(tmp_path: Path) -> None:
    found, _ = lines(tmp_path / "a", small(["real"]))
    assert found["Best"].startswith("real: ") and " loss" not in " ".join(found.values())
    found, _ = lines(tmp_path / "b", small(["real"], methods=["none"]))
    assert "the only method" in found["Best"] and "Where None leads" not in found
    assert found["Against None"] == "No method of the paper is compared with None in this run."
    found, _ = lines(tmp_path / "c", small(["real"], methods=["cutmix", "sd_features"]))
    assert "over None" not in found["Best"] and "Where None leads" not in found
    assert findings([], [], 0.95, Settings().labels) == []
