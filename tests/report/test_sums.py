"""Numbers do not depend on Python's version: its `sum` adds floats one after the other before 3.12, and compensates since."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfeat.report.claims.claims import write_claims
from dfeat.report.numbers.statistics import Outcomes
from dfeat.report.tables.published import write_table
from dfeat.report.tables.studies import write_study
from dfeat.section import parse
from tests.report.predictions import small_settings, write_predictions

Sum = Callable[..., Any]


def plain(values: Iterable[Any], start: Any = 0) -> Any:
    total = start
    for value in values:
        total = total + value
    return total


def compensated(values: Iterable[Any], start: Any = 0) -> Any:
    """Neumaier (1974), for floats, as Python 3.12 and later do it."""
    total, lost = start, 0.0
    for value in values:
        if not isinstance(value, float) and not isinstance(total, float):
            total = total + value
            continue
        added = total + value
        lost += (total - added) + value if abs(total) >= abs(value) else (value - added) + total
        total = added
    return total + lost if isinstance(total, float) else total


def test_a_contrast_is_the_same_with_either_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    correct = rng.random((4, 5, 3, 97)) < 0.7
    weights = {(model, column): float(rng.normal()) for model in range(4) for column in range(5)}
    made = []
    for way in (plain, compensated):
        monkeypatch.setattr(builtins, "sum", way)
        outcomes = Outcomes(correct, rng.integers(0, 1, 97), [0, 0, 1, 1])
        made.append([outcomes.contrast(weights, 0.95), outcomes.contrast(dict(reversed(weights.items())), 0.95)])
        monkeypatch.undo()
    assert made[0] == made[1]


def test_tables_are_the_same_with_either_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = small_settings()
    sets = settings.model_dump(mode="json")
    sets["data"]["evaluation"]["fine"] = {
        "kind": "folder",
        "root": "z",
        "levels": [0, 10, 20, 50, 70, 90],
        "study": "sweep",
    }
    settings = parse(type(settings), sets)
    results = tmp_path / "results"
    write_predictions(results / "evaluation", settings)
    made: list[dict[str, bytes]] = []
    for way in (plain, compensated):
        monkeypatch.setattr(builtins, "sum", way)
        out = tmp_path / way.__name__
        write_table("table1", results / "evaluation", settings, out)
        write_claims(results / "evaluation", settings, out)
        write_study("sweep", results, settings, out)
        monkeypatch.undo()
        made.append({path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.is_file()})
    assert len(made[0]) >= 6 and made[0] == made[1]
