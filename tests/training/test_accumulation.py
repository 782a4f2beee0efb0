"""A batch computed in parts takes the same step as the batch at once, and a classifier reads pixels as it was taught."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from dfeat.data.classes import imagenet_wnids
from dfeat.errors import UserError
from dfeat.section import parse
from dfeat.shortage import ShortageError
from dfeat.training import loop
from dfeat.training.dataset import Batch
from dfeat.training.loop import _step, build_optimizer, check_halves, less_memory
from dfeat.training.network import FusionNetwork, normalised, restricted_logits
from dfeat.training.settings import Backbone, TrainingSettings, TrainStage
from dfeat.training.sources import Inputs
from tests.conftest import CPU, DEVICE, TINY_BACKBONE, World
from tests.diffusion.test_fitting import small_device
from tests.training.test_team import trained_stage


def tiny_classifier(feature_width: int = 0) -> FusionNetwork:
    torch.manual_seed(0)
    backbone = timm.create_model(TINY_BACKBONE["name"], num_classes=0, **TINY_BACKBONE["kwargs"])
    return FusionNetwork(backbone, 5, feature_width)


def after_steps(accumulate: int, batch: Batch, feature_width: int) -> tuple[list[float], torch.Tensor, Any]:
    model = tiny_classifier(feature_width)
    settings = TrainingSettings(accumulate=accumulate, learning_rate=0.05)
    optimizer = build_optimizer(model, settings)
    steps = [_step(model, optimizer, batch, settings) for _ in range(2)]
    return [float(loss) for loss, _ in steps], steps[-1][1], model.state_dict()


@pytest.mark.parametrize("accumulate", [2, 3, 100])
@pytest.mark.parametrize("kind", ["plain", "masks", "features"])
def test_a_batch_in_parts_takes_the_step_of_the_whole_batch(
    rng: np.random.Generator, kind: str, accumulate: int
) -> None:
    images = rng.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    targets = np.eye(5, dtype=np.float32)[rng.integers(0, 5, 10)]
    batch = Batch(torch.from_numpy(images), torch.from_numpy(targets))
    if kind == "masks":
        batch.masks = batch.images[..., 0] > 127
    if kind == "features":
        batch.features = torch.from_numpy(rng.normal(size=(10, 12)).astype(np.float16))
    width = 12 if kind == "features" else 0
    losses, logits, weights = after_steps(1, batch, width)
    losses_in_parts, logits_in_parts, weights_in_parts = after_steps(accumulate, batch, width)
    assert losses_in_parts == pytest.approx(losses, abs=1e-5)
    assert torch.allclose(logits_in_parts, logits, atol=1e-5)
    assert all(torch.allclose(weights_in_parts[name], value, atol=1e-5) for name, value in weights.items())


def test_pixels_are_normalised_with_the_statistics_the_backbone_was_trained_with() -> None:
    assert tiny_classifier().statistics == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    other = FusionNetwork(timm.create_model("tf_efficientnet_lite0", num_classes=0), 5)
    black, white = np.zeros((1, 4, 4, 3), np.uint8), np.full((1, 4, 4, 3), 255, np.uint8)
    assert normalised(black, CPU, other.statistics).unique().tolist() == [-1]
    assert normalised(white, CPU, other.statistics).unique().tolist() == [1]


def test_a_head_for_imagenet_is_read_out_for_the_classes_of_the_run() -> None:
    wnids = (imagenet_wnids()[7], imagenet_wnids()[3])
    logits = torch.arange(2000.0).view(2, 1000)
    assert restricted_logits(logits, wnids).tolist() == [[7, 3], [1007, 1003]]
    with pytest.raises(UserError, match="which lack n99999999"):
        restricted_logits(logits, ("n99999999",))
    with pytest.raises(UserError, match="a head of 158 classes"):
        restricted_logits(logits[:, :158], wnids)


def test_a_training_that_does_not_fit_the_device_names_accumulate_and_fits_once_it_is_raised(
    world: World, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device with room for four rows: a batch of sixteen does not fit, in four parts it does."""
    build = loop.build_backbone

    def small(*arguments: Any) -> torch.nn.Module:
        backbone = build(*arguments)
        small_device(backbone, 4, [])
        return backbone

    monkeypatch.setattr(loop, "build_backbone", small)
    stage, inputs = trained_stage(world, tmp_path_factory), Inputs(world.train, world.train / "pixels.h5", world.parts)

    def train(accumulate: int) -> None:
        changes = {"epochs": 1, "batch_size": 16, "accumulate": accumulate}
        chosen = stage.model_copy(update={"training": stage.training.model_copy(update=changes)})
        loop.train("black_out", inputs, chosen, 0, tmp_path, DEVICE)

    with pytest.raises(
        ShortageError, match=r"^train: the device's memory ran out; raise training\.accumulate \(1 now\)"
    ):
        train(1)
    train(4)
    assert (tmp_path / "model.safetensors").is_file()


def test_a_training_of_one_row_at_a_time_is_not_told_to_raise_accumulate() -> None:
    assert "accumulate" in less_memory(TrainingSettings(batch_size=8, accumulate=3, gpus=2))
    assert less_memory(TrainingSettings(batch_size=8, accumulate=4, gpus=2)) == (
        "use precision bfloat16 or a device with more memory"
    )
    assert "bfloat16" not in less_memory(TrainingSettings(precision="bfloat16"))


def out_of_memory_at(backward: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have one backward pass run out of memory after it has changed gradients; returns the rows of all forward passes."""
    build, rows, passes = loop.build_backbone, [], []

    def small(*arguments: Any) -> torch.nn.Module:
        backbone = build(*arguments)
        backbone.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))

        def end(_gradient: torch.Tensor) -> None:
            passes.append(1)
            if len(passes) == backward:
                raise torch.OutOfMemoryError("CUDA out of memory.")

        next(backbone.parameters()).register_hook(end)  # the last to be reached
        return backbone

    monkeypatch.setattr(loop, "build_backbone", small)
    return rows


def halving(world: World, stage: TrainStage, out: Path, minutes: float = 10, **changes: Any) -> None:
    inputs = Inputs(world.train, world.train / "pixels.h5", world.parts)
    chosen = {"epochs": 2, "batch_size": 16, "accumulate": 1, "drop_path": 0.3, **changes}
    stage = stage.model_copy(update={"training": stage.training.model_copy(update=chosen)})
    loop.train("replace", inputs, stage, 0, out, CPU, checkpoint_minutes=minutes)


def test_a_training_that_runs_out_of_memory_halves_and_is_the_one_in_as_many_parts(
    world: World, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    stage = trained_stage(world, tmp_path_factory)
    halving(world, stage, tmp_path / "parts", accumulate=2)
    rows = out_of_memory_at(1, monkeypatch)
    halving(world, stage, tmp_path / "halved", halve=True)
    assert rows[:2] == [16, 16]  # pictures and masks
    assert set(rows[2:]) == {8}
    assert capsys.readouterr().err.count("from step 0 on in 2 parts") == 1
    assert json.loads((tmp_path / "halved" / "run.json").read_text())["accumulate"] == 2
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "halved" / name).read_bytes()


def test_a_halved_training_is_resumed_in_as_many_parts(
    world: World, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = trained_stage(world, tmp_path_factory)
    with monkeypatch.context() as small:
        out_of_memory_at(3, small)
        halving(world, stage, tmp_path / "whole", halve=True)
    real, steps = loop._step, []

    def dying(*arguments: Any) -> Any:
        steps.append(1)
        if len(steps) == 7:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as small:
        out_of_memory_at(3, small)
        small.setattr(loop, "_step", dying)
        with pytest.raises(KeyboardInterrupt):
            halving(world, stage, tmp_path / "broken", 0, halve=True)
    halving(world, stage, tmp_path / "broken", halve=True)
    assert json.loads((tmp_path / "broken" / "run.json").read_text())["accumulate"] == 2
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()


def test_where_halving_would_change_the_model_or_cannot_be_agreed_on_it_is_refused() -> None:
    with pytest.raises(UserError, match="halve is true and gpus is 2"):
        parse(TrainingSettings, {"halve": True, "gpus": 2}, "training")
    stage = TrainStage(backbone=Backbone(name="resnet18"), training=TrainingSettings(halve=True))
    with pytest.raises(UserError, match="resnet18 has BatchNorm"):
        check_halves(timm.create_model("resnet18", num_classes=0), stage)
