"""The small types of the data step: classes, images, and the problems met on the way.

What enters: nothing. What leaves: `ClassInfo`, `Record`, `Candidate`, and `Problems`, the rows of problems.csv.
Every input that is dropped or changed has a row there.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

PROBLEM_COLUMNS: Final = ("set", "record", "field", "what", "done")
ProblemRow = tuple[str, str, str, str, str]
_PART: Final = "~part"
INDEX_COLUMNS: Final = ("key", "file", "label", "wnid", "width", "height", "sha256", "parts_sha256")


@dataclass(frozen=True)
class ClassInfo:
    """A class of the run: its WordNet id and the name that goes into the prompt."""

    wnid: str
    name: str


@dataclass(frozen=True)
class Record:
    """An image of a set. `file` is its path inside the set's root; `width` and `height` are pixels as loaded.

    `sha256` is the digest of the file's bytes, `parts_sha256` that of its annotations in annotations.json, empty where it
    has none. So index.csv is another one whenever a photograph or a polygon is.
    """

    key: str
    file: str
    label: int
    wnid: str
    width: int
    height: int
    sha256: str = ""
    parts_sha256: str = ""


@dataclass(frozen=True)
class Candidate:
    """An image whose class is known and whose file has not been opened yet."""

    key: str
    file: str
    wnid: str


def part_key(key: str, category: int) -> str:
    """The key of one part of an image, e.g. n02487347_1956~part3."""
    return f"{key}{_PART}{category}"


def part_of_key(key: str) -> tuple[str, int | None]:
    """Split a key into the image's key and the part category, None if it has none."""
    image, found, category = key.rpartition(_PART)
    return (image, int(category)) if found and category.isdecimal() else (key, None)


@dataclass
class Problems:
    """Everything that was wrong with a set, and what was done about it."""

    set_name: str
    rows: list[ProblemRow] = field(default_factory=list)

    def add(self, record: Any, part: str, what: str, done: str) -> None:
        """Add a row: `what` is wrong with the field `part` of `record`, and what was `done` about it."""
        self.rows.append((self.set_name, text_of(record), part, text_of(what, 300), done))

    def csv(self) -> str:
        """The rows as CSV text, in an order that does not depend on how they were found."""
        return table_text(PROBLEM_COLUMNS, sorted(self.rows))

    def summary(self) -> str:
        """The three most frequent problems with an example of each, for an error message; empty if there are none."""
        found = commonest(self.rows)[:3]
        return "; ".join(
            f"{count:,}x {part}: {record} {what} ({done})" for count, (_, record, part, what, done) in found
        )


def commonest(rows: Iterable[ProblemRow]) -> list[tuple[int, ProblemRow]]:
    """How often each kind of problem is there, the same field with the same outcome, and the first of its rows."""
    kinds: dict[tuple[str, str], list[ProblemRow]] = defaultdict(list)
    for row in rows:
        kinds[row[2], row[4]].append(row)
    return sorted(((len(same), same[0]) for same in kinds.values()), key=lambda found: -found[0])


def table_text(columns: tuple[str, ...], rows: list[Any]) -> str:
    """CSV text with a header, `\\n` line ends."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()


def text_of(value: Any, most: int = 120) -> str:
    """`value` as one line of printable text of at most `most` characters."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, int) and value.bit_length() > 512:
        text = f"a number of {value.bit_length()} bits"  # Python refuses to print some of these
    elif value is None or isinstance(value, int | float):
        text = repr(value)
    else:
        text = f"a {type(value).__name__}"
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: most + 1])
    return text if len(text) <= most else text[: most - 3] + "..."
