"""A training tells its pace at the end of each epoch, in its log and in the record of its attempt; its artifacts do not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dfeat.devices.attempts import attempt, read_attempts
from dfeat.training import loop
from dfeat.training.settings import TrainStage
from tests.conftest import DEVICE, World

from .test_preemption import inputs, stage  # noqa: F401  (a fixture)


def test_each_epoch_tells_its_pace(
    world: World,
    stage: TrainStage,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "results/tiny/training/none/convnext/seed0"
    with attempt(out / "run.json"):
        loop.train("none", inputs(world), stage, 0, out, DEVICE)
    lines = read_attempts(tmp_path / "results/tiny/benchmarks/training/none_convnext_seed0.jsonl")
    assert [line["event"] for line in lines] == ["begun", "epoch", "epoch", "computed", "ended"]
    first, last = lines[1:3]
    assert [line["epoch"] for line in (first, last)] == [1, 2] and last["step"] == last["steps"] == 2 * first["step"]
    assert first["images_per_second"] == pytest.approx(
        first["step"] * stage.training.batch_size / first["seconds"], rel=0.01
    )
    assert 0 <= first["waited"] <= first["seconds"] and first["memory"] > 1e6
    assert first["seconds_left"] == pytest.approx(first["seconds"], abs=0.1) and last["seconds_left"] == 0
    assert 0 < last["learning_rate"] < first["learning_rate"] <= stage.training.learning_rate
    told = re.findall(
        r"^dfeat: epoch (\d) of 2: \S+ images a second, .* waiting for images, learning rate",
        capsys.readouterr().err,
        re.M,
    )
    assert told == ["1", "2"]
    assert not set((out / "metrics.jsonl").read_text().split()) & {'"images_per_second":', '"waited":'}
