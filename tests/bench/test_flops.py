"""The bars of the fast path, in FLOPs counted on the true architecture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import run
from dfeat.errors import UserError


def test_every_bar_is_reached_on_the_true_architecture(tmp_path: Path) -> None:
    found = run(["flops"], tmp_path / "bench.json", resolution=256)["flops"]
    assert all(row.reached for row in found.rows), found.rows
    content = json.loads((tmp_path / "bench.json").read_text())
    assert len(content["rows"]["flops"]) == len(found.rows)
    passes = found.notes["GFLOPs at 256 px"]
    assert passes["until mid"] < passes["until up.1"] < passes["unet"]


def test_an_unknown_benchmark_is_a_sentence_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'flops'"):
        run(["flop"])
