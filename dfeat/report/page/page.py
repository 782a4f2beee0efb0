"""The page itself: what the report folder holds, laid out by `templates/index.html.jinja`.

The template engine escapes all text; what is marked safe comes from numbers, from markdown-it with HTML turned off,
from docutils with raw input turned off, or is shipped by a package. Images and scripts are inlined.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from markupsafe import Markup

from dfeat.config import Settings
from dfeat.config.labels import Labels
from dfeat.errors import UserError
from dfeat.places import Place
from dfeat.report.catalogue import catalogue
from dfeat.report.numbers.paper import TableName
from dfeat.report.numbers.text import TextRow, escaped, read_csv
from dfeat.report.page.artifacts import read_artifacts
from dfeat.report.page.cards import data_card, model_card
from dfeat.report.page.charts import accuracy_charts, gain_charts
from dfeat.report.page.findings import findings
from dfeat.report.page.run_origin import config_text, job_costs, run_origin
from dfeat.report.page.thumbnails import read_gallery
from dfeat.report.page.views import CsvView, cell_filters, csv_view, curve_rows, efficiency_view, paper_table_view
from dfeat.report.tables.layout import CellRow, read_rows
from dfeat.storage.atomic import write_files
from dfeat.storage.records import read_bytes, read_json, read_text

TABLES: Final[tuple[TableName, ...]] = ("table1", "table2")
_APART: Final = (*TABLES, "controls", "efficiency", "inpaint_quality")
"""The CSV files that are not shown among the further tables."""


View = dict[str, Any]
"""What the template is given of one thing, by name."""


def write_report(results: Path, settings: Settings, out: Path, captions: Path | None = None) -> None:
    """Write the page to `out`, and beside it `config.yaml`, `data_card.md` and `model_card.md`.

    `results` is `results/<run>`, whose folder `report` is shown; `captions` holds `<name>.rst` for each figure and
    table. The same inputs give the same bytes. Raises UserError where there is nothing to report.
    """
    folder = Place(results).report
    if not any(folder.glob("*.csv")) and not any(folder.glob("*.png")) and not (folder / "claims.md").is_file():
        raise UserError(
            f"{folder} holds no table, figure or claims.md; make them with `dfeat table` and `dfeat figure`"
        )
    named = Place(results).classes()
    classes = [entry["name"] for entry in read_json(named, "index train")] if named.is_file() else []
    page = _Page(folder, out.parent, captions, classes, settings)
    rows = {name: read_rows(folder / f"{name}.csv") for name in TABLES if (folder / f"{name}.csv").is_file()}
    tables = [paper_table_view(name, rows[name], settings) for name in rows]
    everything = [row for name in TABLES for row in rows.get(name, [])]
    config, artifacts = out.parent / "config.yaml", read_artifacts(results, settings.labels)
    plain = _environment(autoescape=False)
    charts = _charts(plain, page, rows)
    text = _environment().get_template("index.html.jinja").render(
        run=settings.run,
        note=settings.report.note,
        findings=findings(everything, artifacts.models, settings.report.confidence, settings.labels),
        tables=[(table, page.links(table["name"], "csv", "tex", "md")) for table in tables],
        controls=page.table("controls") if (folder / "controls.csv").is_file() else None,
        controls_text=page.markdown("controls.md", "table controls"),
        missing=[name for name in TABLES if name not in rows],
        charts=charts,
        figures=page.figures([chart["figure"] for chart in charts if chart["charts"]]),
        more=[page.table(path.stem) for path in sorted(folder.glob("*.csv")) if path.stem not in _APART],
        claims=page.folded("claims.md", "table claims"),
        efficiency=page.table("efficiency", efficiency_view) if (folder / "efficiency.csv").is_file() else None,
        efficiency_text=page.markdown("efficiency.md", "table efficiency"),
        gallery=read_gallery(folder / "gallery.json", settings),
        fit=page.markdown("inpaint_quality.md", "table inpaint_quality"),
        fit_links=page.links("inpaint_quality", "csv", "md"),
        jobs=job_costs(results),
        origin=run_origin(artifacts, settings, config),
        cards=[{"name": name, "href": name} for name in ("config.yaml", "data_card.md", "model_card.md")],
        **_front_end(),
    )  # fmt: skip
    made = {
        config: config_text(settings),
        out.parent / "data_card.md": data_card(plain, artifacts, settings),
        out.parent / "model_card.md": model_card(plain, artifacts, settings, everything),
        out: text,
    }
    write_files({path: content.encode() for path, content in made.items()})


def _charts(environment: Any, page: _Page, rows: dict[TableName, list[CellRow]]) -> list[View]:
    """The interactive charts by question; `figure` is the one that shows the same without scripts, and its files."""
    everything = [row for name in TABLES for row in rows.get(name, [])]
    shares, labels = "Share of the object hidden (%)", page.settings.labels
    asked = [
        ("Top-1 accuracy against information loss", "accuracy", accuracy_charts(environment, rows.get("table1", []), labels)),
        ("The same in finer steps", "", accuracy_charts(environment, curve_rows(page.folder / "sweep.csv"), labels)),
        (
            "Top-1 accuracy against the share of the object that is hidden", "",
            accuracy_charts(environment, curve_rows(page.folder / "object_occlusion.csv"), labels, shares),
        ),
        ("Gain over None", "gain", gain_charts(environment, everything, labels)),
    ]  # fmt: skip
    return [
        {"title": title, "figure": name, "charts": charts, "drawn": page.figure(name) if name else None}
        for title, name, charts in asked
        if charts or name
    ]


@dataclass(frozen=True)
class _Page:
    """The files of a report folder as the template takes them; links are relative to `home`."""

    folder: Path
    home: Path
    captions: Path | None
    classes: list[str]
    settings: Settings

    def figures(self, charted: list[str]) -> list[View]:
        """The figures in the catalogue's order, then those of other names; a missing one that the report wants included.

        Those that are `charted` above come without their picture.
        """
        made = {path.stem for path in self.folder.glob("*.png")}
        listed = [
            entry.name
            for entry in catalogue(self.settings)
            if entry.kind == "figure" and entry.wanted
            if entry.name in made or (entry.shown(self.settings) and self.caption(entry.name))
        ]
        shown = [self.figure(name) for name in (*listed, *sorted(made - set(listed)))]
        return [one | {"charted": one["name"] in charted} for one in shown]

    def markdown(self, name: str, remake: str) -> Markup:
        """A Markdown file as HTML without its first heading: the page has one of its own."""
        return _html(self._text(name, remake))

    def folded(self, name: str, remake: str) -> Markup:
        """The same, every section of the third level folded under its head."""
        chunks = re.split(r"^(?=#{2,3} )", self._text(name, remake), flags=re.MULTILINE)
        return Markup("").join(map(_folded, chunks))

    def _text(self, name: str, remake: str) -> str:
        """A Markdown file without its first heading; nothing without the file."""
        path = self.folder / name
        text = read_text(path, remake) if path.is_file() else ""
        return text.split("\n", 1)[1] if text.startswith("# ") else text

    def caption(self, name: str) -> Markup:
        """The caption `<name>.rst` as HTML without the run's note, which the page shows once; empty without a caption."""
        from docutils.core import publish_parts
        from jinja2 import Template

        path = None if self.captions is None else self.captions / f"{name}.rst"
        if path is None or not path.is_file():
            return Markup()
        text = Template(path.read_text(encoding="utf-8")).render(snakemake={"config": {}})
        overrides = {"raw_enabled": False, "file_insertion_enabled": False, "_disable_config": True}
        return Markup(publish_parts(text, writer="html5", settings_overrides=overrides)["body"])

    def links(self, stem: str, *kinds: str) -> list[View]:
        """The files of this stem and these kinds that there are."""
        names = [f"{stem}.{kind}" for kind in kinds if (self.folder / f"{stem}.{kind}").is_file()]
        start = Path(os.path.relpath(self.folder, self.home))
        return [{"name": name, "href": quote((start / name).as_posix())} for name in names]

    def figure(self, name: str) -> View:
        """A figure with its caption and its PNG as a data URL, which is empty if the figure was not made."""
        path = self.folder / f"{name}.png"
        picture = f"data:image/png;base64,{_base64(read_bytes(path, f'figure {name}'))}" if path.is_file() else ""
        links = self.links(name, "png", "svg", "pdf")
        return {"name": name, "caption": self.caption(name), "picture": picture, "links": links}

    def table(self, name: str, view: Callable[[list[TextRow], Labels], CsvView] | None = None) -> View:
        """A CSV that is not one of the paper's tables, with its caption; `view` makes it a view of its own."""
        caption = self.caption(name) or self._about(self.folder / f"{name}.md")
        rows = read_csv(self.folder / f"{name}.csv")
        labels = self.settings.labels
        shown = view(rows, labels) if view else csv_view(rows, labels, self.classes)
        return {"name": name, "caption": caption, "view": shown, "links": self.links(name, "csv", "tex", "md")}

    def _about(self, path: Path) -> Markup:
        """The first paragraph of a table's Markdown, which explains it; the page shows the note with the table."""
        blocks = read_text(path, "table").split("\n\n") if path.is_file() else []
        first = next((block for block in blocks if block.strip()[:1] not in ("#", "|", "*", "")), "")
        return _html(first)


def _folded(section: str) -> Markup:
    """A section of Markdown, which starts with its head, as HTML; one of the third level opens with a click on its head."""
    head, _, body = section.partition("\n")
    if not head.startswith("### "):
        return _html(section)
    shown = _html(head)
    return Markup("<details>\n<summary>{}</summary>\n{}</details>\n").format(shown, _html(body))


def _html(markdown: str) -> Markup:
    from markdown_it import MarkdownIt

    return Markup(MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown))


def _environment(*, autoescape: bool = True) -> Any:
    """The template engine: HTML is escaped, Markdown escapes itself; a name that is not given is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dfeat.report.page"), autoescape=autoescape, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {
        "in_words": lambda stem: stem[:1].upper() + stem[1:].replace("_", " "),
        "md": lambda value: escaped(str(value)),
        **cell_filters(),
    }
    return environment


@functools.cache
def _front_end() -> dict[str, Markup]:
    """The scripts and styles that itables and vl-convert ship, and the page's own."""
    from importlib.resources import files

    import vl_convert

    bundle = files("itables") / "html"
    templates = files("dfeat.report.page") / "templates"
    module = f"data:text/javascript;base64,{_base64((bundle / 'dt_bundle.js').read_bytes())}"
    return {
        "datatables_style": Markup((bundle / "dt_bundle.css").read_text(encoding="utf-8")),
        "style": Markup((templates / "page.css").read_text(encoding="utf-8")),
        "import_map": Markup(json.dumps({"imports": {"datatables": module}})),
        "vega": Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")),
        "script": Markup((templates / "page.js").read_text(encoding="utf-8")),
    }


def _base64(payload: bytes) -> str:
    return base64.b64encode(payload).decode()
