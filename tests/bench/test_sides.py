"""The benchmarks run at small sizes, and both sides do the same work. Seconds are no promise, and not looked at."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dfeat.bench import reading, rows
from dfeat.bench.photographs import write_photographs


def test_reading_compares_batches_of_the_same_shape_and_range(tmp_path: Path) -> None:
    index = write_photographs(tmp_path, 64)
    ways = reading._ways(index)
    theirs = {name: ways[name]() for name in ("timm bytes", "timm")}
    assert theirs["timm bytes"][0].dtype == torch.uint8
    assert theirs["timm"][0].shape == theirs["timm bytes"][0].shape == (64, 3, 224, 224)
    assert theirs["timm"][0].mean() == pytest.approx(0, abs=1)
    size = sum(file.stat().st_size for file in (tmp_path / "images").rglob("*.JPEG")) / 64
    assert 90_000 < size < 130_000


def test_rows_are_read_by_every_way() -> None:
    found = rows.run(rounds=1, count=128)
    assert [row.bound for row in found.rows] == ["at most", "at most", "at least"]
