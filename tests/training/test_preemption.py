"""A training that is told to stop saves itself and leaves, and the same command ends with the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dfeat.storage.provenance import settings_text
from dfeat.training import loop
from dfeat.training.checkpoint import TERMINATED
from dfeat.training.settings import TrainStage
from dfeat.training.sources import Inputs
from tests.conftest import DEVICE, TINY_BACKBONE, World


@pytest.fixture(scope="module")
def stage(world: World, tmp_path_factory: pytest.TempPathFactory) -> TrainStage:
    """The tiny run's training, of a backbone with weights of its own."""
    from safetensors.torch import save_file
    from timm import create_model

    weights = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(create_model(TINY_BACKBONE["name"], num_classes=0, **TINY_BACKBONE["kwargs"]).state_dict(), weights)
    chosen = world.stage("train", "convnext")
    return chosen.model_copy(update={"backbone": chosen.backbone.model_copy(update={"weights": str(weights)})})


def inputs(world: World) -> Inputs:
    return Inputs(world.train, world.train / "pixels.h5", world.parts)


@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_in_the_middle_of_an_epoch_loses_no_step(
    world: World, stage: TrainStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    loop.train("cutmix", inputs(world), stage, 0, tmp_path / "whole", DEVICE)
    real_step, steps = loop._step, []

    def preempted_step(*arguments):  # type: ignore[no-untyped-def]
        steps.append(1)
        if len(steps) == 8:  # three steps into the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return real_step(*arguments)

    monkeypatch.setattr(loop, "_step", preempted_step)
    with pytest.raises(SystemExit) as stop:
        loop.train("cutmix", inputs(world), stage, 0, tmp_path / "broken", DEVICE, workers)
    assert stop.value.code == TERMINATED
    assert [path.name for path in (tmp_path / "broken").iterdir() if path.is_file()] == ["checkpoint.safetensors"]
    loop.train("cutmix", inputs(world), stage, 0, tmp_path / "broken", DEVICE, workers)
    assert len(steps) == 2 * 5  # no step was taken twice
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()


def test_a_preempted_job_leaves_within_ten_seconds(world: World, stage: TrainStage, tmp_path: Path) -> None:
    """As a scheduler does it: the signal goes to every process of the job."""
    longer = stage.model_copy(update={"training": stage.training.model_copy(update={"epochs": 2000})})
    out = tmp_path / "model"
    command = [
        sys.executable, "-m", "dfeat.cli", "train", "--method", "none", "--seed", "0", "--index", str(world.train),
        "--pixels", str(world.train / "pixels.h5"), "--parts", str(world.parts), "--settings", settings_text(longer),
        "--out", str(out), "--workers", "2", "--threads", "1", "--gpus", "0", "--checkpoint-minutes", "0",
    ]  # fmt: skip
    job = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while not (out / "checkpoint.safetensors").exists() and job.poll() is None:
            time.sleep(0.05)
        os.killpg(job.pid, signal.SIGTERM)
        said = job.communicate(timeout=10)[1]
    finally:
        job.kill()
    assert job.returncode == TERMINATED
    assert "was stopped: saved after step" in said
    assert [path.name for path in out.iterdir() if path.is_file()] == ["checkpoint.safetensors"]
