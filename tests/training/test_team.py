"""Several processes train as one: the same batch, the same steps, the same losses but for rounding (gloo, on CPUs)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from dfeat.storage.provenance import settings_text
from dfeat.training import loop
from dfeat.training.checkpoint import TERMINATED
from dfeat.training.settings import TrainStage
from dfeat.training.sources import Inputs
from tests.conftest import DEVICE, TINY_BACKBONE, World

STEPS = 20


def trained_stage(world: World, tmp_path_factory: pytest.TempPathFactory) -> TrainStage:
    """Twenty steps, an epoch each: 80 items, of which a batch takes all but a few, in two parts of unequal size."""
    from timm import create_model

    weights = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    state = create_model(TINY_BACKBONE["name"], num_classes=0, **TINY_BACKBONE["kwargs"]).state_dict()
    save_file({name: value.numpy() for name, value in state.items()}, weights)
    chosen = world.stage("train", "convnext")
    backbone = chosen.backbone.model_copy(update={"weights": str(weights)})
    training = chosen.training.model_copy(update={"epochs": STEPS, "batch_size": 81, "accumulate": 2})
    return chosen.model_copy(update={"backbone": backbone, "training": training})


stage = pytest.fixture(scope="module")(trained_stage)


def in_two(stage: TrainStage) -> TrainStage:
    return stage.model_copy(update={"training": stage.training.model_copy(update={"gpus": 2})})


def command(world: World, stage: TrainStage, out: Path, method: str) -> list[str]:
    return [
        sys.executable, "-m", "dfeat.cli", "train", "--method", method, "--seed", "0", "--index", str(world.train),
        "--pixels", str(world.train / "pixels.h5"), "--parts", str(world.parts), "--settings", settings_text(stage),
        "--out", str(out), "--threads", "1", "--checkpoint-minutes", "0",
    ]  # fmt: skip


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", ["replace", pytest.param("cutmix", marks=pytest.mark.slow)])
def test_two_processes_give_the_loss_curve_of_one(world: World, stage: TrainStage, tmp_path: Path, method: str) -> None:
    inputs = Inputs(world.train, world.train / "pixels.h5", world.parts)
    loop.train(method, inputs, stage, 0, tmp_path / "one", DEVICE)  # type: ignore[arg-type]
    environment = os.environ | {"DFEAT_DEVICES": "GPU-a GPU-b", "DFEAT_LEASES": str(tmp_path / "leases")}
    result = subprocess.run(
        command(world, in_two(stage), tmp_path / "two", method), env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "has GPU-a (pretended), GPU-b (pretended)" in result.stderr
    assert result.stderr.count("model written to") == 1
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == STEPS
    assert one[-1] < one[0]  # it learns, so a process that computed something else would be seen
    assert two == pytest.approx(one, abs=1e-5)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(abs(a[name] - b[name]).max() < 1e-4 for name in a)
    assert {path.name for path in (tmp_path / "two").iterdir() if path.is_file()} == {
        "model.safetensors",
        "metrics.jsonl",
        "run.json",
    }


@pytest.mark.slow
def test_a_users_mistake_in_a_team_is_one_line(world: World, stage: TrainStage, tmp_path: Path) -> None:
    lacking = command(world, in_two(stage), tmp_path / "out", "sd_inpaint")
    result = subprocess.run([*lacking, "--gpus", "0"], capture_output=True, text=True)
    assert result.returncode == 2
    assert [line for line in result.stderr.splitlines() if "computes on the CPU" not in line] == [
        "dfeat: the method sd_inpaint needs --inpainted, the cache of inpainted images"
    ]


@pytest.mark.slow
def test_a_preempted_team_saves_and_leaves(world: World, stage: TrainStage, tmp_path: Path) -> None:
    longer = in_two(stage)
    longer = longer.model_copy(update={"training": longer.training.model_copy(update={"epochs": 5000})})
    out = tmp_path / "out"
    arguments = [*command(world, longer, out, "none"), "--gpus", "0"]
    job = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while not (out / "checkpoint.safetensors").exists() and job.poll() is None:
            time.sleep(0.05)
        os.killpg(job.pid, signal.SIGTERM)
        said = job.communicate(timeout=30)[1]
    finally:
        job.kill()
    assert job.returncode == TERMINATED
    assert said.count("was stopped: saved after step") == 1
    assert [path.name for path in out.iterdir() if path.is_file()] == ["checkpoint.safetensors"]
