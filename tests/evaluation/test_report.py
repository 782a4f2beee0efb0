"""The report is one page that fetches nothing, escapes everything and says what is missing."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dfeat.errors import UserError
from dfeat.evaluation.claims import write_claims
from dfeat.evaluation.report import write_report
from dfeat.evaluation.tables import write_table
from dfeat.settings import Settings

from .predictions import small_settings, write_predictions

EVIL = "<script>alert('x')</script>&amp;\"|**_"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def report_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    settings = small_settings(note=EVIL)
    write_predictions(run / "evaluation", settings)
    for name in ("table1", "table2"):
        write_table(name, run / "evaluation", settings, run / "report")  # type: ignore[arg-type]
    write_claims(run / "evaluation", settings, run / "report")
    (run / "report" / "figure2.png").write_bytes(PIXEL)
    (run / "report" / "figure2.svg").write_text("<svg/>")
    rows = [{"method": EVIL, "seconds": 1.23456789}, {"method": "sd_features", "images": 3}]
    (run / "report" / "efficiency.json").write_text(json.dumps({"rows": rows, "note": None}))
    return run / "report"


@pytest.fixture(scope="module")
def page(report_dir: Path) -> Page:
    provenance = {"classes": [EVIL, "car"], "versions": {"torch": "2.15", EVIL: 1}}
    write_report(report_dir, small_settings(note=EVIL), provenance, report_dir / "report.html")
    return Page((report_dir / "report.html").read_text())


def test_nothing_is_fetched_and_no_script_runs(page: Page) -> None:
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object"})
    for _, attributes in page.tags:
        assert not (attributes.get("src") or "data:").startswith(("http", "//", "/"))
        assert not (attributes.get("href") or "").startswith(("http", "//", "/", "javascript:"))
        assert not any(name.startswith("on") for name in attributes)


def test_text_is_shown_literally(page: Page) -> None:
    shown = EVIL
    assert page.text.count(shown) == 5  # banner, claims, efficiency, provenance twice


def test_tables_figures_claims_efficiency_and_provenance_are_there(page: Page, report_dir: Path) -> None:
    for wanted in ("Table 1", "Table 2", "Ours: SD Features", "ConvNeXt", "1.23457", "torch", "2.15"):
        assert wanted in page.text
    assert "The paper's printed numbers" in page.text and "undecided at this n" in page.text
    assert "\\[" not in page.text and "**holds" not in page.text
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert images == ["data:image/png;base64," + base64.b64encode(PIXEL).decode()]
    links = {attributes.get("href") for tag, attributes in page.tags if tag == "a"}
    assert {"table1.csv", "table1.tex", "table2.csv", "figure2.svg"} <= links
    assert "accuracy.svg" not in links and "Not made in this run" in page.text


def test_links_reach_the_files_from_another_folder(report_dir: Path, tmp_path: Path) -> None:
    write_report(report_dir, small_settings(), {}, tmp_path / "elsewhere" / "index.html")
    page = Page((tmp_path / "elsewhere" / "index.html").read_text())
    link = next(
        attributes["href"] for _, attributes in page.tags if (attributes.get("href") or "").endswith("table1.csv")
    )
    assert link and (tmp_path / "elsewhere" / link).resolve() == (report_dir / "table1.csv").resolve()


def test_the_same_inputs_give_the_same_bytes(report_dir: Path, tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        write_report(report_dir, small_settings(), {"x": 1}, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_what_is_broken_or_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has none of table1\.csv"):
        write_report(tmp_path, Settings(), {}, tmp_path / "report.html")
    (tmp_path / "figure2.png").write_bytes(PIXEL)
    (tmp_path / "efficiency.json").write_text("{")
    with pytest.raises(UserError, match=r"efficiency\.json cannot be used: it is no JSON"):
        write_report(tmp_path, Settings(), {}, tmp_path / "report.html")
