"""Text for a terminal: aligned columns, and sentences in lines of one width."""

from __future__ import annotations

import re
from textwrap import wrap
from typing import Final

COLUMNS: Final = 100
"""The widest line that `dfeat plan` and `dfeat doctor` print, but for a path or a name that is wider by itself."""
NO_BREAK: Final = "\u00a0"
_COMMAND: Final = re.compile(r"`[^`]{1,80}`")


def filled(text: str, start: str = "", indent: str = "") -> list[str]:
    """A text in lines of at most COLUMNS, after `start`, the further ones after `indent`.

    No word is broken, and neither is a command in backticks that fits a line, nor what NO_BREAK joins.
    """
    kept = _COMMAND.sub(lambda command: command[0].replace(" ", NO_BREAK), text)
    lines = wrap(
        kept, COLUMNS, initial_indent=start, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace(NO_BREAK, " ") for line in lines]


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns of one width; those that hold numbers, in the last row but the head, to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    numbers = (rows[-1], rows[min(1, len(rows) - 1)])
    right = {column for column in range(len(widths)) if any(row[column][:1].isdigit() for row in numbers)}
    right -= {0, len(widths) - 1} if len(widths) > 3 else {0}
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
