"""The benchmarks run at small sizes, and both sides do the same work. Seconds are no promise, and not looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench import crops, evaluation, reading, rows, scale, training
from bench.index import measured
from bench.photographs import write_photographs
from dfeat.errors import UserError
from dfeat.methods import METHODS


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
    assert [row.bound for row in found.rows] == ["at most"] * 4
    calls, hashed = found.rows[2:]
    assert (calls.ours, calls.peer) == (0, pytest.approx(1, abs=0.1)) and calls.reached
    assert 0.9 < hashed.ours <= 1 and hashed.reached


@pytest.mark.slow
def test_every_method_is_compared_with_none_and_reads_each_mask_once(tmp_path: Path) -> None:
    found = crops.run(rounds=1, images=8)
    assert [row.step for row in found.rows] == [f"item of {one.name}" for one in METHODS if one.name != "none"]
    sources = crops.sources_of(write_photographs(tmp_path, 8))
    for name in ("replace", "fill_mean", "fill_smooth"):
        crops._epoch(name, sources)()
    # What later epochs are made of is kept: without its text, a mask can still be cropped.
    for row in sources.parts.rows.values():
        row["mask"] = row["object"] = None
    for one in METHODS:
        crops._epoch(one.name, sources)()


def test_training_and_evaluation_run_the_real_loops() -> None:
    trained = training.run(rounds=0, backbone="convnext_atto", batch=2)
    assert 0 < trained.rows[0].ours < trained.rows[0].peer
    assert "MB at most" in trained.notes["memory"]
    assert [row.bound for row in evaluation.run(rounds=1, backbone="convnext_atto", images=2).rows] == ["at most"]


def test_cost_against_size_compares_an_image_of_many_with_one_of_fewer() -> None:
    flat = {size: scale.Usage(0.002 * size, 0.01 * size) for size in (1000, 4000, 16_000)}
    time, memory = scale._rows("parts", flat)
    assert (time.ours, time.peer) == pytest.approx((2, 2))
    assert (memory.ours, memory.peer) == pytest.approx((10, 10))
    assert time.reached and memory.reached
    steep = flat | {16_000: scale.Usage(0.003 * 16_000, 200)}
    assert not any(row.reached for row in scale._rows("parts", steep))
    with pytest.raises(UserError, match="three or more numbers"):
        scale.run(sizes=(4000, 1000, 16_000))


@pytest.mark.slow
def test_every_step_is_run_at_every_size() -> None:
    found = scale.run(sizes=(20, 40, 80))
    assert [row.step for row in found.rows] == [
        f"{step}, {what} an image" for step in scale.STEPS for what in ("time", "memory")
    ]
    assert len(found.notes) == 12


def test_what_grows_with_an_image_is_measured_and_what_was_there_is_not(tmp_path: Path) -> None:
    few, many = (scale._commands(tmp_path / str(size), size) for size in (16, 400))
    for commands in (few, many):
        for step in ("index", "parts"):
            measured(*commands[step])
    again = scale.measured_after(few["parts"], many["parts"])
    assert 0 < again.seconds < 30
    assert 1 < again.megabytes < 60  # some 35 KB an image, where the process has 100 MB


def test_what_is_measured_of_a_process_is_its_own_memory() -> None:
    large = np.ones(400 << 20, np.uint8)
    assert 10 < measured("--help").megabytes < 100
    assert large.all()
