"""Numbers and tables as text: CSV and Markdown written, CSV read back.

What enters: rows, names and fractions. What leaves: the text of table files, and the rows of a CSV file whose digest
was checked. All tables, figures, claims and the page use these functions, so a number looks the same everywhere.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from dfeat.config.labels import Labels
from dfeat.data.records import table_text
from dfeat.storage.atomic import write_files
from dfeat.storage.records import read_text, refusal

TextRow = dict[str, str]
"""A line of a CSV file: its values by column."""
H = TypeVar("H", bound=Hashable)
_ALIGNED: Final = {"l": "---", "r": "---:"}


def percent(fraction: float) -> str:
    """A fraction as percent with four decimals, never "-0.0000"."""
    return f"{round(100 * fraction, 4) + 0.0:.4f}"


def number(value: float) -> str:
    """A number with three significant digits, thousands apart and never an exponent: 0.0123, 4.5, 19,680."""
    rounded = float(f"{value:.3g}") if abs(value) < 1000 else round(value)
    digits = max(0, 2 - math.floor(math.log10(abs(rounded)))) if rounded else 0
    shown = f"{rounded:,.{digits}f}"
    return shown.rstrip("0").rstrip(".") if digits else shown


def probability(p: float) -> str:
    """A p-value with four significant digits."""
    return f"{p:.4g}"


def with_interval(value: float | str, low: float | str, high: float | str, form: str = ".1f") -> str:
    """An estimate with its interval: "71.5 (70.1 to 72.9)"."""
    return f"{float(value):{form}} ({float(low):{form}} to {float(high):{form}})"


def unique(values: Iterable[H]) -> list[H]:
    """The distinct values, in the order in which they first appear."""
    return list(dict.fromkeys(values))


def grouped(rows: Iterable[TextRow], *columns: str) -> dict[tuple[str, ...], list[TextRow]]:
    """The rows by their values in `columns`, groups in the order in which they first appear."""
    groups: dict[tuple[str, ...], list[TextRow]] = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in columns), []).append(row)
    return groups


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    """The rows as CSV with a header: `columns`, or by default the keys of the first row."""
    columns = tuple(columns or (rows[0] if rows else ()))
    return table_text(columns, [[row[column] for column in columns] for row in rows])


def parse_csv(path: Path, text: str, remake: str) -> tuple[list[str], list[list[str]]]:
    """Split the text of a CSV file into header and lines.

    Raises UserError, naming the file and the verb `remake` that makes it, if the text is not CSV or a line has more or
    fewer values than the header.
    """
    try:
        header, *lines = list(csv.reader(io.StringIO(text, newline=""), strict=True)) or [[]]
    except csv.Error as error:
        raise refusal(path, f"it cannot be read as CSV ({error})", remake) from None
    broken = next((number for number, line in enumerate(lines, 2) if len(line) != len(header)), None)
    if broken is not None:
        raise refusal(path, f"its line {broken} has {len(lines[broken - 2])} values, not {len(header)}", remake)
    return header, lines


def read_csv(path: Path, remake: str = "table", columns: Iterable[str] = ()) -> list[TextRow]:
    """Read the rows of a CSV file, after comparing it with its digest record.

    Raises UserError as `parse_csv` does, and if the file is missing or damaged, or has no rows with all of `columns`.
    """
    header, lines = parse_csv(path, read_text(path, remake), remake)
    missing = [name for name in columns if not lines or name not in header]
    if missing:
        raise refusal(path, f"it has no rows with {', '.join(missing)}", remake)
    return [dict(zip(header, line, strict=True)) for line in lines]


def escaped(text: str) -> str:
    """Text as Markdown and the HTML made from it show it literally."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{character}" if character in "\\`*_[]|#" else character for character in text)


def model_names(labels: Labels, method: str, backbone: str) -> list[str]:
    """The labels of a method and a backbone as Markdown."""
    return [escaped(labels.method(method)), escaped(labels.backbone(backbone))]


def pipes(cells: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def pipe_table(aligned: str, heads: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A Markdown table; `aligned` has a letter for each column, l for text and r for numbers."""
    return "\n".join(map(pipes, [heads, [_ALIGNED[letter] for letter in aligned], *lines]))


def document(title: str, note: str, blocks: Iterable[str]) -> str:
    """A Markdown text: the title, the run's note in bold where it has one, and blocks with blank lines between."""
    notes = [f"**{escaped(note)}**"] if note else []
    return "\n\n".join([f"# {title}", *notes, *blocks]) + "\n"


def write_rows(
    out: Path, name: str, rows: Sequence[TextRow], title: str, note: str, blocks: Iterable[str], tex: str = ""
) -> None:
    """Write `<name>.csv` and, with a blank line at its end, `<name>.md` (see `document`) into the folder `out`.

    `tex` is written as `<name>.tex` where there is some.
    """
    texts = {"csv": csv_text(rows), "md": document(title, note, blocks) + "\n", "tex": tex}
    write_files(
        {out / f"{name}.{kind}": content.encode() for kind, content in texts.items() if content or kind != "tex"}
    )
