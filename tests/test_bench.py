"""The bars of the fast path, in FLOPs counted on the true architecture."""

from __future__ import annotations

import json
from pathlib import Path

from dfeat.bench import run


def test_every_bar_is_reached_on_the_true_architecture(tmp_path: Path) -> None:
    rows = run(256, tmp_path / "bench.json")
    assert all(row.ratio >= row.bar for row in rows), rows
    content = json.loads((tmp_path / "bench.json").read_text())
    assert len(content["rows"]) == len(rows)
    assert content["passes"]["until mid"] < content["passes"]["until up.1"] < content["passes"]["unet"]
