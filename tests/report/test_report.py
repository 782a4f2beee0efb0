"""The report is one page that fetches nothing, escapes everything and says what is missing."""

from __future__ import annotations

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dfeat.config import Settings
from dfeat.config.files import lay_over
from dfeat.config.reading import parsed, read_mapping
from dfeat.errors import UserError
from dfeat.report.claims.claims import write_claims
from dfeat.report.page import write_report
from dfeat.report.page.run_origin import config_text
from dfeat.report.page.views import csv_view
from dfeat.report.tables.published import write_table
from dfeat.section import parse
from dfeat.training.settings import Backbone

from .predictions import small_settings, write_predictions

EVIL = "<script>alert('x')</script>&amp;\"|**_"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
VOID = {"meta", "img", "br", "input"}
CAPTIONS = Path(__file__).parents[2] / "workflow" / "report"


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails where tags do not nest. The text of scripts and styles is apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.code = "", ""
        self.specs: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.code += data
            if self.tags[-1][1].get("type") == "application/json":
                self.specs.append(data)
        else:
            self.text += data


RUN_JSON = {
    "method": "none", "seed": 0, "classes": 2, "feature_width": 0, "settings": {}, "images": 8, "steps": 3, "seconds": 1.5,
    "model": "f" * 64,
}  # fmt: skip


def write_run(run: Path, settings: Settings, class_name: str = EVIL) -> None:
    """A run's folder with everything the report shows, from synthetic predictions."""
    report = run / "report"
    write_predictions(run / "evaluation", settings)
    for name in ("table1", "table2"):
        write_table(name, run / "evaluation", settings, report)  # type: ignore[arg-type]
    write_claims(run / "evaluation", settings, report)
    (report / "figure2.png").write_bytes(PIXEL)
    (report / "figure2.svg").write_text("<svg/>")
    (report / "extra.csv").write_text("part,cost\n" + class_name.replace('"', "") + ",1.5\nhead,2.5\n")
    pictures = [
        {
            "key": f"image_{number}", "class": name, "method": method,
            "psnr": 10.0 + number if method == "SD Inpaint" else None,
            "picture": "data:image/png;base64," + base64.b64encode(PIXEL).decode(),
        }
        for number, name in enumerate([class_name, "car", "car", "tench"])
        for method in ("Original", "Black-Out Parts", "SD Inpaint")
    ]  # fmt: skip
    (report / "per_class.csv").write_text("label,gain\n0,1.5\n1,-2.5\n")
    (run / "data" / "train").mkdir(parents=True)
    (run / "data" / "train" / "classes.json").write_text(
        json.dumps([{"wnid": "n1", "name": "zebra"}, {"wnid": "n2", "name": class_name}])
    )
    (report / "gallery.json").write_text(json.dumps({"recipe": 1, "images": 40, "pictures": pictures}))
    model = run / "training" / "none" / "convnext" / "seed0"
    model.mkdir(parents=True)
    (model / "run.json").write_text(json.dumps(RUN_JSON))
    jobs = run / "benchmarks" / "training"
    jobs.mkdir(parents=True)
    (jobs / "none_convnext_seed0.tsv").write_text("s\th:m:s\tmax_rss\tcpu_time\n12.5\t0:00:12\t512.25\t11.5\n")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    write_run(run, small_settings(note=EVIL))
    write_report(run, small_settings(note=EVIL), run / "report" / "index.html", CAPTIONS)
    return run


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page((run / "report" / "index.html").read_text())


def test_nothing_is_fetched(page: Page) -> None:
    assert {tag for tag, _ in page.tags}.isdisjoint({"link", "iframe", "object", "embed", "base"})
    for _, attributes in page.tags:
        assert (attributes.get("src") or "data:").startswith("data:")
        assert not (attributes.get("href") or "").startswith(("http", "//", "/", "javascript:", "data:"))
        assert not any(name.startswith("on") for name in attributes)
    policy = next(a["content"] or "" for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe-eval" not in policy and "http" not in policy


def test_text_is_shown_literally(page: Page) -> None:
    """That escaping is what keeps EVIL from being tags: tests/faults/test_hostile.py, which turns it off."""
    assert page.text.count(EVIL) >= 5  # banner, captions of tables, claims, the gallery's choice and cards, a CSV
    assert "alert('x')" not in page.code.replace("\\u0027", "'")


def test_tables_curves_figures_gallery_claims_cost_and_origin_are_there(page: Page) -> None:
    for wanted in (
        "Table 1",
        "zebra",
        "Table 2",
        "SD Features",
        "ConvNeXt",
        "none_convnext_seed0",
        "12.5",
        "torch",
    ):
        assert wanted in page.text
    assert "The paper's printed numbers" in page.text and "undecided at this n" in page.text
    assert "\\[" not in page.text and "**holds" not in page.text
    assert "snakemake --cores all --resources gpu=1 --configfile" in page.text and "f" * 64 in page.text
    figures = [a["src"] for tag, a in page.tags if tag == "img" and "Row 1" in (a.get("alt") or "")]
    assert figures == ["data:image/png;base64," + base64.b64encode(PIXEL).decode()]
    links = {attributes.get("href") for tag, attributes in page.tags if tag == "a"}
    assert {"table1.csv", "table1.tex", "table2.csv", "figure2.svg", "extra.csv", "config.yaml"} <= links
    assert "accuracy.svg" not in links and "not made in this run" in page.text


def test_the_label_of_a_demo_stands_at_every_table(page: Page) -> None:
    tables = [a for tag, a in page.tags if tag == "table" and "data" in (a.get("class") or "").split()]
    captions = [tag for tag, _ in page.tags if tag == "caption"]
    assert len(tables) == len(captions) >= 6


def test_each_picture_is_there_once(run: Path, tmp_path: Path) -> None:
    """A chart of the page is not shown again as a figure; its files are linked, and its picture is there without scripts."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    for name in ("accuracy", "gain"):
        (copy / "report" / f"{name}.png").write_bytes(PIXEL)
        (copy / "report" / f"{name}.pdf").write_bytes(b"%PDF")
    write_report(copy, small_settings(), copy / "report" / "index.html", CAPTIONS)
    text = (copy / "report" / "index.html").read_text()
    figures = text.split('<section id="figures"')[1].split("</section>")[0]
    assert figures.count("<img") == 1 and {"accuracy.png", "accuracy.pdf", "gain.pdf"} <= set(
        re.findall(r'href="([^"]*)"', figures)
    )
    assert len(re.findall(r"<noscript><img src=\"data:", text)) == 2 and text.count("<noscript>") == 2


def test_numbers_have_sensible_digits_and_sort_by_all_of_them() -> None:
    rows = [
        {"set": "a", "level": "40", "method": "none", "seeds": "1", "accuracy": "46.6667", "p_holm": "0.000012", "flops": "437800000"},
        {"set": "b", "level": "0", "method": "cutmix", "seeds": "1", "accuracy": "7.0000", "p_holm": "0.0412", "flops": ""},
    ]  # fmt: skip
    view = csv_view(rows, Settings().labels)
    assert view.heads == ("Set", "Loss", "Method", "Accuracy (%)", "p (Holm)", "Flops") and view.labels == 3
    assert [value.text for value in view.rows[0]] == ["a", "40 %", "None", "46.67", "< 0.0001", "437,800,000"]
    assert [value.text for value in view.rows[1]] == ["b", "", "CutMix", "7.00", "0.041", ""]
    assert view.rows[0][3].order == "46.6667" and view.same == "seeds 1"
    small = csv_view([{"part": "a", "seconds": "0.003294"}, {"part": "b", "seconds": "0.0002"}], Settings().labels)
    assert [row[1].text for row in small.rows] == ["0.00329", "0.00020"]


def test_captions_are_the_ones_snakemake_shows(page: Page, run: Path, tmp_path: Path) -> None:
    assert "half of their parts blacked out" in page.text and "snakemake.config" not in page.text
    (tmp_path / "figure2.rst").write_text("Another **caption**, ``x < 1``.")
    write_report(run, small_settings(), tmp_path / "index.html", tmp_path)
    assert "Another <strong>caption</strong>" in (tmp_path / "index.html").read_text()


def test_a_figure_that_the_run_does_not_ask_for_is_not_missed(run: Path, tmp_path: Path) -> None:
    """Without a set of parts and a method to compare, what parts and methods cost is no figure of the run."""

    def figures(settings: Settings) -> str:
        write_report(run, settings, tmp_path / "index.html", CAPTIONS)
        text = Page((tmp_path / "index.html").read_text()).text
        assert "Figure3 was not made in this run." in text
        return text

    alone = parse(Settings, {"run": "x", "training": {"methods": ["none"]}})
    for heading in ("Part cost", "Cost"):
        assert f"{heading} was not made" not in figures(alone)
    assert "Brown is lost" not in figures(alone)
    sets = {
        "simulated": {"root": "x", "levels": [0, 40]},
        "real": {"root": "z"},
        "parts": {"kind": "partimagenet", "root": "y", "study": "part_cost", "levels": [0, 100]},
    }
    asked = figures(parse(Settings, {"run": "x", "data": {"evaluation": sets}}))
    assert "Brown is lost" in asked and "Cost was not made in this run." in asked


def test_a_study_of_finer_levels_is_drawn_beside_table_1(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    header = "set,level,method,backbone,metric,value,low,high,n,seeds,difference_to_none"
    lines = [
        f"objects,{level},none,swin,{metric},{90 - number},80,95,20,1,"
        for number, level in enumerate(("0", "50", "area"))
        for metric in ("top1", "top5")
    ]
    (copy / "report" / "object_occlusion.csv").write_text("\n".join([header, *lines]) + "\n")
    (copy / "report" / "object_occlusion.md").write_text(
        "# Objects\n\n**note**\n\nWhat is *shown*.\n\n| a |\n| --- |\n"
    )
    write_report(copy, small_settings(), copy / "report" / "index.html")
    page = Page((copy / "report" / "index.html").read_text())
    specs = [json.loads(text) for text in page.specs]
    drawn = next(spec for spec in specs if "share of the object hidden" in spec["description"])
    assert [(entry["loss"], entry["accuracy"]) for entry in drawn["data"]["values"]] == [(0, 90.0), (50, 89.0)]
    assert "What is shown." in page.text


def test_links_reach_the_files_from_another_folder(run: Path, tmp_path: Path) -> None:
    write_report(run, small_settings(), tmp_path / "elsewhere" / "index.html")
    page = Page((tmp_path / "elsewhere" / "index.html").read_text())
    link = next(a["href"] for _, a in page.tags if (a.get("href") or "").endswith("table1.csv"))
    assert link and (tmp_path / "elsewhere" / link).resolve() == (run / "report" / "table1.csv").resolve()


def test_the_same_inputs_give_the_same_bytes(run: Path, tmp_path: Path) -> None:
    first, second = (tmp_path / name / "index.html" for name in ("a", "b"))
    for out in (first, second):
        write_report(run, small_settings(), out, CAPTIONS)
    same = first.read_text().replace(str(first.parent), ""), second.read_text().replace(str(second.parent), "")
    assert same[0] == same[1]


def test_the_configuration_beside_it_gives_the_same_settings_over_the_papers(run: Path, tmp_path: Path) -> None:
    settings = small_settings(note=EVIL)
    written = read_mapping(run / "report" / "config.yaml")
    assert written["data"]["evaluation"]["dfeat_real"] is None  # the paper's sets, which this run leaves out
    over = read_mapping(CAPTIONS.parents[1] / "config.yaml")
    lay_over(over, written)
    assert parse(Settings, over) == settings


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    st.floats(allow_nan=False, allow_infinity=False),
)
@hypothesis_settings(deadline=None)
def test_the_configuration_beside_it_has_text_and_numbers_as_they_were(text: str, number: float) -> None:
    settings = small_settings(note=text)
    backbone = Backbone(name=text, kwargs={"text": [text], "number": number})
    training = settings.training.model_copy(update={"backbones": {"one": backbone}})
    chosen = settings.model_copy(update={"training": training})
    assert parse(Settings, parsed(config_text(chosen), "config.yaml")) == chosen


def test_what_is_broken_or_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no table, figure or claims\.md"):
        write_report(tmp_path, Settings(), tmp_path / "index.html")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "figure2.png").write_bytes(PIXEL)
    (tmp_path / "report" / "gallery.json").write_text("{")
    with pytest.raises(UserError, match=r"gallery\.json cannot be used: it is not JSON"):
        write_report(tmp_path, Settings(), tmp_path / "index.html")
    assert not (tmp_path / "index.html").exists()
