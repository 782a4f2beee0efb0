"""The report: one HTML file with the tables, figures, claims, cost and origin of a run.

What enters: a run's report folder (`table1.csv`, ..., `claims.md`, `efficiency.json`; what was not made is said to be
missing), settings and provenance. What leaves: `report.html`, self-contained: images are inlined, nothing is
fetched, all text is escaped.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable
from html import escape, unescape
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from dfeat.errors import UserError
from dfeat.evaluation.layout import Grid, Row, explanation, grids, heading, intervals, printed, read_rows, values
from dfeat.evaluation.paper import TableName
from dfeat.settings import Settings
from dfeat.storage.atomic import write_text
from dfeat.storage.records import read_bytes, read_json, read_text

TABLES: Final[tuple[TableName, ...]] = ("table1", "table2")
CAPTIONS: Final = {
    "accuracy": "Top-1 accuracy against information loss, with bootstrap intervals as bands.",
    "gain": "Gain in top-1 accuracy over the same backbone without augmentation, with paired bootstrap intervals.",
    "figure2": "Figure 2. Training images, with the chosen parts blacked out, and with these parts inpainted.",
    "figure3": "Figure 3. The two kinds of test images: simulated occlusion at 60 % loss, and real occlusion.",
}
_STYLE: Final = """
body{color:#1a1a1a;background:#fff;font:16px/1.55 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1.2rem}
h1,h2,h3{line-height:1.25;margin:2.2rem 0 .6rem}h1{margin-top:0}
a{color:#0b5394}nav a{margin-right:1.1rem}
.note{border:2px solid #8a5a00;background:#fff6e0;padding:.7rem 1rem;font-weight:600}
.wide{overflow-x:auto}
table{border-collapse:collapse;margin:1rem 0;font-size:.86rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:.3rem 0;white-space:nowrap}td table{margin:0}
th[colspan]{text-align:center}
th,td{padding:.32rem .7rem;text-align:left;vertical-align:top;border-bottom:1px solid #ddd}
thead th{border-bottom:1.5px solid #333}thead tr:first-child th{border-top:1.5px solid #333}
td.n,th.n{text-align:right;white-space:nowrap}td small{display:block;color:#555}
tr.first td,tr.first th{border-top:1px solid #999}tbody th{font-weight:600}
img{max-width:100%;height:auto}figure{margin:1.6rem 0}figcaption,.small{color:#444;font-size:.88rem}
code{overflow-wrap:anywhere}
"""


def write_report(report_dir: Path, settings: Settings, provenance: dict[str, Any], out: Path) -> None:
    """Write the report to the file `out`, e.g. `<report_dir>/report.html`; the same inputs give the same bytes.

    Raises UserError where `report_dir` holds nothing to report.
    """
    known = [*(f"{name}.csv" for name in TABLES), *(f"{name}.png" for name in CAPTIONS), "claims.md"]
    if not any((report_dir / name).is_file() for name in known):
        raise UserError(f"{report_dir} has none of {', '.join(known)}; make them with `dfeat table` and `dfeat figure`")
    sections = {
        "Tables": "".join(_table(report_dir, name, settings, out.parent) for name in TABLES),
        "Figures": "".join(_figure(report_dir, name, out.parent) for name in CAPTIONS),
        "Claims": _claims(report_dir / "claims.md"),
        "Efficiency": _efficiency(report_dir / "efficiency.json"),
        "Provenance": _provenance(provenance),
    }
    note = f'<p class="note">{escape(settings.report.note)}</p>' if settings.report.note else ""
    links = "".join(f'<a href="#{title.lower()}">{title}</a>' for title in sections)
    body = "".join(f'<h2 id="{title.lower()}">{title}</h2>\n{html}\n' for title, html in sections.items())
    title = f"D-Feat Occlusions: run {escape(settings.run)}"
    write_text(
        out,
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>{_STYLE}</style></head>\n"
        f"<body>\n<h1>{title}</h1>\n{note}\n<nav>{links}</nav>\n{body}</body></html>\n",
    )


def _table(report_dir: Path, name: TableName, settings: Settings, folder: Path) -> str:
    path = report_dir / f"{name}.csv"
    if not path.is_file():
        return f"<h3>{name.replace('table', 'Table ')}</h3><p>Not made in this run.</p>"
    rows = read_rows(path)
    links = _links(report_dir, [f"{name}.{kind}" for kind in ("csv", "tex", "md")], folder)
    shown = "".join(_grid(grid) for grid in grids(name, rows)) or "<p>No set of this run belongs here.</p>"
    text = escape(explanation(rows, settings.report.confidence)) if rows else ""
    return f'<h3>{escape(heading(name, rows))}</h3>{shown}<p class="small">{text} {links}</p>'


def _grid(grid: Grid) -> str:
    names = len(grid.lines[0][0])
    groups = "".join(f'<th colspan="{width}" scope="colgroup">{escape(text)}</th>' for text, width in grid.groups)
    heads = "".join(
        f'<th scope="col"{_NUMBER if index >= names else ""}>{escape(head)}</th>'
        for index, head in enumerate(grid.heads)
    )
    body = "".join(
        f"<tr{_FIRST if labels[0] else ''}>"
        + "".join(f'<th scope="row">{escape(label)}</th>' for label in labels)
        + "".join(_cell(cell) for cell in cells)
        + "</tr>\n"
        for labels, cells in grid.lines
    )
    return (
        f'<div class="wide"><table><caption>{escape(grid.title)}</caption><thead><tr>{groups}</tr>'
        f"<tr>{heads}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )


_NUMBER: Final = ' class="n"'
_FIRST: Final = ' class="first"'


def _cell(cell: tuple[Row, ...]) -> str:
    small = "".join(f"<small>{escape(line)}</small>" for line in (intervals(cell), printed(cell)) if line)
    return f'<td class="n">{values(cell, "<b>{}</b>".format, "†")}{small}</td>'


def _figure(report_dir: Path, name: str, folder: Path) -> str:
    path = report_dir / f"{name}.png"
    caption = escape(CAPTIONS[name])
    if not path.is_file():
        return f'<p class="small">{caption} Not made in this run.</p>'
    data = base64.b64encode(read_bytes(path, "figure")).decode()
    links = _links(report_dir, [f"{name}.{kind}" for kind in ("png", "svg")], folder)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption} {links}</figcaption></figure>\n"
    )


def _links(report_dir: Path, names: Iterable[str], folder: Path) -> str:
    """Links to those of the files that exist, relative to the report's folder."""
    base = Path(os.path.relpath(report_dir, folder))
    return " ".join(
        f'<a href="{escape(quote((base / name).as_posix()))}">{escape(name)}</a>'
        for name in names
        if (report_dir / name).is_file()
    )


def _claims(path: Path) -> str:
    if not path.is_file():
        return "<p>Not made in this run.</p>"
    return _from_markdown(read_text(path, "table claims").splitlines()[1:])


def _from_markdown(lines: list[str]) -> str:
    """The Markdown that `claims` writes: headings, paragraphs, numbered lists, tables, bold, escapes."""
    html: list[str] = []
    for kind, block in _blocks(lines):
        if kind == "#":
            depth = len(block[0]) - len(block[0].lstrip("#"))
            html.append(f"<h{depth + 1}>{_inline(block[0].lstrip('# '))}</h{depth + 1}>")
        elif kind == "|":
            rows = [[_inline(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block]
            head = "".join(f"<th>{cell}</th>" for cell in rows[0])
            body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows[2:])
            html.append(f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>')
        elif kind == "1":
            html.append("<ol>" + "".join(f"<li>{_inline(line.split('.', 1)[1])}</li>\n" for line in block) + "</ol>")
        else:
            html.append(f"<p>{_inline(' '.join(block))}</p>")
    return "\n".join(html)


def _blocks(lines: list[str]) -> list[tuple[str, list[str]]]:
    """Runs of lines of one kind: '#' (always one line), '|', '1', or '' for a paragraph; empty lines part them."""
    blocks: list[tuple[str, list[str]]] = []
    last = ""
    for line in lines:
        kind = line[:1] if line[:1] in ("#", "|") else "1" if re.match(r"\d+\. ", line) else ""
        if line and last and blocks[-1][0] == kind != "#":
            blocks[-1][1].append(line)
        elif line:
            blocks.append((kind, [line]))
        last = line
    return blocks


def _inline(text: str) -> str:
    """Bold and backslash escapes; all else is text, entities decoded once and escaped again."""
    parts = re.split(r"(?<!\\)\*\*", unescape(text.strip()))
    plain = [escape(re.sub(r"\\([\\`*_\[\]|#])", r"\1", part)) for part in parts]
    return "".join(f"<b>{part}</b>" if index % 2 else part for index, part in enumerate(plain))


def _efficiency(path: Path) -> str:
    if not path.is_file():
        return "<p>Not measured in this run.</p>"
    return _value(read_json(path, "bench"))


def _provenance(provenance: dict[str, Any]) -> str:
    return _value(provenance) if provenance else "<p>None was given.</p>"


def _value(value: Any) -> str:
    """Any JSON value as HTML: mappings as two columns, lists of mappings as tables, the rest as text."""
    if isinstance(value, dict):
        rows = (
            f'<tr><th scope="row">{escape(str(key))}</th><td>{_value(item)}</td></tr>\n' for key, item in value.items()
        )
        return f'<div class="wide"><table><tbody>\n{"".join(rows)}</tbody></table></div>'
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        keys = list(dict.fromkeys(key for item in value for key in item))
        head = "".join(f"<th>{escape(str(key))}</th>" for key in keys)
        lines = (
            "<tr>" + "".join(f"<td>{_value(item.get(key, ''))}</td>" for key in keys) + "</tr>\n" for item in value
        )
        return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{"".join(lines)}</tbody></table></div>'
    if isinstance(value, list | tuple):
        return ", ".join(_value(item) for item in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"<code>{escape(str(value))}</code>" if isinstance(value, str) and len(value) > 40 else escape(str(value))
