"""A file in percent format run as a notebook runs it: cell by cell, with what each cell would display."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"


def cells(path: Path) -> Iterator[tuple[str, str]]:
    """The kind ("code" or "markdown") and source of each cell."""
    for head, body in re.findall(r"^# %%(.*)\n((?:(?!# %%).*\n?)*)", path.read_text(encoding="utf-8"), re.MULTILINE):
        yield ("markdown" if "[markdown]" in head else "code"), body.strip("\n")


def displayed(path: Path) -> list[Any]:
    """Run all cells in one namespace, in the working folder; the value of each cell's last line, where it is an expression."""
    names: dict[str, Any] = {"__name__": "__main__"}
    values = []
    for kind, body in cells(path):
        if kind == "markdown":
            assert all(line.startswith("#") for line in body.splitlines()), body
            continue
        *before, last = ast.parse(body).body
        exec(compile(ast.Module(before, []), path.name, "exec"), names)
        if isinstance(last, ast.Expr):
            values.append(eval(compile(ast.Expression(last.value), path.name, "eval"), names))
        else:
            exec(compile(ast.Module([last], []), path.name, "exec"), names)
    return [value for value in values if value is not None]


def is_readable(value: Any) -> bool:
    """Whether a notebook shows a value as a picture, or as a few lines that say something."""
    if isinstance(value, Image.Image):
        return value._repr_png_() is not None and value.width <= 1200
    text = repr(value)
    return len(text) < 600 and "object at 0x" not in text
