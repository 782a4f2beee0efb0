"""What the report's files were made from is recorded beside them, and found to be other where it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dfeat.config import Settings
from dfeat.config.files import read_settings
from dfeat.config.points import Run
from dfeat.errors import UserError
from dfeat.report.catalogue import catalogue, find
from dfeat.report.made import _entry_job, made_otherwise, make, make_page, stale
from dfeat.section import parse
from dfeat.storage.atomic import write_bytes
from tests.report.predictions import small_settings, write_predictions

ROOT = Path(__file__).parents[2]
CAPTIONS = ROOT / "workflow/report"


@pytest.mark.parametrize("overlays", [(), ("demo",), ("demo", "demo-beyond"), ("beyond",), ("controls",)])
def test_a_job_records_the_same_from_its_part_of_the_settings_as_from_all(overlays: tuple[str, ...]) -> None:
    settings = read_settings([ROOT / "config.yaml", *(ROOT / f"config/{name}.yaml" for name in overlays)])
    for entry in catalogue(settings):
        try:
            whole = _entry_job(entry, Run(settings))
        except UserError:  # the run has no sets for it
            continue
        part = parse(Settings, entry.given(settings))
        (same,) = [other for other in catalogue(part) if other.job == entry.job]
        assert _entry_job(same, Run(part)) == whole, entry.name


@pytest.fixture
def run(tmp_path: Path) -> tuple[Run, Path]:
    """A run with predictions, Table 1 and a page."""
    settings = small_settings()
    results = tmp_path / settings.run
    write_predictions(results / "evaluation", settings)
    make(find("table", "table1", settings), results, settings, results / "report")
    make_page(results, settings, results / "report/index.html", CAPTIONS)
    return Run(settings), results


def found(run: tuple[Run, Path], captions: Path = CAPTIONS) -> dict[str, str]:
    return {name: why for names, why in stale(*run, captions) for name in names}


def test_what_was_made_from_what_stands_is_not_stale(run: tuple[Run, Path], tmp_path: Path) -> None:
    assert found(run) == {}
    elsewhere = tmp_path / "elsewhere"
    make(find("table", "table1", run[0].settings), run[1], run[0].settings, elsewhere)
    assert not (elsewhere / ".made").exists()


def test_other_inputs_settings_captions_and_files_are_stale(run: tuple[Run, Path], tmp_path: Path) -> None:
    configured, results = run
    other = configured.settings.report.model_copy(update={"note": "another note"})
    noted = Run(configured.settings.model_copy(update={"report": other}))
    assert found((noted, results))["table1.csv"] == "it was made with or from other settings"
    captions = shutil.copytree(CAPTIONS, tmp_path / "captions")
    (captions / "table1.rst").write_text("another caption")
    assert set(found(run, captions)) == {"index.html", "config.yaml", "data_card.md", "model_card.md"}
    predictions = next((results / "evaluation").rglob("*@*.csv"))
    write_bytes(predictions, predictions.read_bytes() + b"\n")
    assert found(run)["table1.tex"] == "it was made with or from other inputs"
    write_bytes(results / "report/table1.md", b"another table")
    assert "files" in found(run)["table1.csv"]
    (results / "report/.made/table1.json").unlink()
    assert found(run)["table1.csv"] == "nothing tells what it was made from"


def test_a_further_set_another_setting_and_a_damaged_record_are_told_without_a_look_at_the_inputs(
    run: tuple[Run, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Snakemake asks of a table before it says that nothing is to be done."""
    results = Path("results") / run[1].name
    monkeypatch.chdir(run[1].parent)
    results.parent.mkdir()
    shutil.copytree(run[1], results)
    plain = run[0].settings.model_dump(mode="json")

    def told(**sets: object) -> list[bool]:
        changed = Run(parse(Settings, plain | {"data": plain["data"] | {"evaluation": sets}}))
        return [
            made_otherwise(changed, find("table", "table1", changed.settings)),
            made_otherwise(changed, captions=CAPTIONS),
        ]

    sets = plain["data"]["evaluation"]
    shutil.rmtree(results / "evaluation")
    assert told(**sets) == [False, False]
    assert (
        told(**sets, further={**sets["real"], "levels": [0, 40]})
        == told(simulated=sets["simulated"] | {"levels": [0, 80]})
        == [True, True]
    )
    assert told(**sets, further=sets["real"]) == [False, True]  # one of Table 2
    (results / "report/.made/table1.json").write_text("damaged")
    assert told(**sets)[0]
    (results / "report/.made/table1.json").unlink()
    assert told(**sets) == [False, False]
