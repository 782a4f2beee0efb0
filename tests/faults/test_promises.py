"""docs/reliability.md names the tests that hold its promises: each of them exists, and no fault test is left out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def functions_of(path: Path) -> set[str]:
    """The names of a file's test functions."""
    return {node.name for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}  # fmt: skip


def test_every_promise_has_the_test_it_names() -> None:
    rows = [line for line in (ROOT / "docs/reliability.md").read_text().splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith(("| Promise", "| ---"))]
    assert len(promises) > 20
    for row in promises:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row.rpartition("|")[0])
        assert named, row
        for path, name in named:
            assert name in functions_of(ROOT / path), f"{path}::{name}"


def test_every_file_of_fault_tests_holds_a_promise() -> None:
    text = (ROOT / "docs/reliability.md").read_text()
    for path in (ROOT / "tests/faults").glob("test_*.py"):
        assert f"tests/faults/{path.name}" in text
