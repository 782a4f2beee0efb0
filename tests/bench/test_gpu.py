"""The benchmark of a GPU, on a CPU with tiny networks: a row of every kind is measured; without a GPU it says so."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import pytest
import torch

from bench.architectures import stable_diffusion_21
from bench.gpu import described, measure, needed, planned, run, with_plan
from bench.gpu_meter import Measured, Work, union
from bench.gpu_rows import ROWS, Place, Row, in_miniature
from dfeat.diffusion.stream import Waiting
from dfeat.errors import UserError
from tests.conftest import CPU


def test_a_dry_run_measures_a_row_of_every_kind_and_writes_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(dry=True, workers=1, out=tmp_path / "rows.json")
    content = json.loads((tmp_path / "rows.json").read_text())
    figures = content["figures"]["gpu"]
    assert [one["row"] for one in figures] == [str(row) for row in in_miniature()]
    assert not [one for one in figures if "failed" in one]
    assert all(one["rate"] > 0 and one["tflops"] > 0 and one["first"] > 0 for one in figures)
    assert all(one["waited"] is None or 0 <= one["waited"] <= 1 for one in figures)
    assert all(one[key] is None for one in figures for key in ("joules", "idle", "megabytes", "peak", "planned"))
    printed = capsys.readouterr().out
    assert all(one["row"] in printed for one in figures)


def test_the_rows_are_of_all_steps_and_precisions_and_differ() -> None:
    assert len(set(map(str, ROWS))) == len(ROWS)
    for step in ("latents", "features", "inpaint", "training"):
        assert {row.precision for row in ROWS if row.step == step} >= {"float32", "tf32", "bfloat16"}
        assert {row.compiled for row in ROWS if row.step == step} == {True, False}
        assert len({row.batch for row in ROWS if row.step == step}) > 1
    assert {row.step for row in in_miniature()} == {row.step for row in ROWS}


def test_a_row_that_fails_is_named_and_the_others_follow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(row: Row, place: Place) -> Work:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    def steady(row: Row, place: Place) -> Work:
        batches = itertools.repeat(2)
        return Work(batches, batches, Waiting())

    monkeypatch.setattr("bench.gpu_rows.WORK", {row.step: steady for row in ROWS} | {"latents": fail})
    monkeypatch.setattr("bench.gpu_meter.idle_share", lambda *_: None)
    figures = run(dry=True, workers=0).figures
    failed = [one for one in figures if "failed" in one]
    assert failed and {one["step"] for one in failed} == {"latents"} and len(failed) < len(figures)
    assert described(failed[0]).endswith("failed: OutOfMemoryError: CUDA out of memory.")


def test_neither_warming_up_nor_the_work_in_flight_is_in_the_rate() -> None:
    def batches():  # type: ignore[no-untyped-def]
        time.sleep(0.5)  # compiling
        while True:
            time.sleep(0.02)
            yield 10

    running = batches()
    measured = measure(Work(running, running), CPU, 0.2)
    assert measured.first > 0.5
    assert 250 < measured.rate <= 500
    assert 0.2 <= measured.seconds < 0.5


def test_a_figure_stands_beside_the_peak_and_the_plan_of_its_card() -> None:
    row = Row("latents", "bfloat16", 32)
    half = planned(row, "H100")[1] / 2
    found = with_plan(Measured(100, 100 / half, 0.02, 3.0, 9000.0, 1.5, 0.1), row, "H100")
    assert found["of_plan"] == pytest.approx(0.5)
    assert 0 < found["peak"] < 1
    line = described({"row": str(row)} | found)
    assert line.startswith("latents, bfloat16, batch 32") and line.endswith("50.0 %")
    assert described({"row": str(row)} | with_plan(Measured(1, 1, None, 1, None, None, None), row, None)).endswith("-")


def test_a_slow_card_leaves_out_what_it_has_no_time_for() -> None:
    slow, fast = (needed(Row("inpaint", "float32", 4, "dpmsolver++"), card) for card in ("T4", "H100"))
    assert slow > 240 > fast > needed(Row("inpaint", "float32", 4, "dpmsolver++"), None)


def test_kernels_that_overlap_count_once() -> None:
    assert union([]) == 0
    assert union([(0, 4), (1, 2), (3, 6), (8, 9)]) == 7


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so() -> None:
    with pytest.raises(UserError, match="needs a CUDA device"):
        run()


def test_the_true_architectures_have_the_published_sizes() -> None:
    sizes = [sum(p.numel() for p in model.parameters()) for model in stable_diffusion_21(torch.device("meta"))]
    assert sizes == [865_910_724, 83_653_863, 340_387_840]
