"""Stochastic depth is one value for all backbones, and how a batch is divided does not change which rows it drops."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from timm import create_model
from timm.layers import DropPath
from torch import Tensor

from dfeat.config import Settings
from dfeat.doctor.weights import look_at_weights
from dfeat.errors import UserError
from dfeat.section import parse
from dfeat.training import loop
from dfeat.training.dataset import Batch
from dfeat.training.network import FusionNetwork, RowDropPath, untrained_backbone
from dfeat.training.settings import Backbone, TrainingSettings, TrainStage
from dfeat.training.sources import Inputs
from tests.conftest import DEVICE, TINY_BACKBONE, World
from tests.training.test_team import command, in_two

KWARGS = {"img_size": 64, "window_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4]}
SWIN = Backbone(name="swin_tiny_patch4_window7_224", kwargs=KWARGS)
ROWS = 16


def tiny_swin(drop_path: float) -> FusionNetwork:
    torch.manual_seed(0)
    return FusionNetwork(untrained_backbone(SWIN, drop_path), 5)


@pytest.fixture
def batch(rng: np.random.Generator) -> Batch:
    images = torch.from_numpy(rng.integers(0, 256, (ROWS, 64, 64, 3), dtype=np.uint8))
    return Batch(images, torch.eye(5)[rng.integers(0, 5, ROWS)], images[..., 0] > 127)


def after_a_step(batch: Batch, accumulate: int, drop_path: float = 0.3, step: int = 0) -> dict[str, Tensor]:
    model = tiny_swin(drop_path).train()
    settings = TrainingSettings(accumulate=accumulate, batch_size=ROWS, drop_path=drop_path)
    batch.kept = model.draw_kept(0, step, ROWS)
    loop._step(model, loop.build_optimizer(model, settings), batch, settings)
    return model.state_dict()


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The norm of the difference of all weights, as a share of the norm of the weights."""
    a, b = (torch.cat([state[name].double().ravel() for name in sorted(one)]) for state in (one, other))
    return float((a - b).norm() / a.norm())


@pytest.mark.parametrize("accumulate", [2, 3, 8])
def test_a_batch_in_parts_changes_a_swins_weights_by_rounding(batch: Batch, accumulate: int) -> None:
    whole = after_a_step(batch, 1)
    assert distance(whole, after_a_step(batch, accumulate)) < 1e-6
    assert distance(whole, after_a_step(batch, accumulate, step=1)) > 1e-5  # other rows are dropped: that would be seen
    assert distance(whole, after_a_step(batch, accumulate, drop_path=0)) > 1e-5


def test_rows_are_drawn_by_seed_step_and_layer_with_the_rates_of_the_layers() -> None:
    model = tiny_swin(0.5)
    rates = [1 - path.keep for path in model.paths]
    assert rates == pytest.approx([1 / 6, 1 / 6, 1 / 3, 1 / 3, 1 / 2, 1 / 2], abs=1e-6)
    kept = model.draw_kept(0, 0, 20_000)
    assert kept is not None
    assert kept.mean(1).tolist() == pytest.approx([1] * 6, abs=0.03)
    assert (kept == 0).float().mean(1).tolist() == pytest.approx(rates, abs=0.02)
    assert torch.equal(kept, model.draw_kept(0, 0, 20_000))  # type: ignore[arg-type]
    others = [model.draw_kept(1, 0, 20_000), model.draw_kept(0, 1, 20_000), kept.roll(1, 0)]
    assert all(((kept == 0) != (other == 0)).float().mean() > 0.3 for other in others if other is not None)


def test_a_dropped_branch_leaves_its_row_as_it_was() -> None:
    path = RowDropPath(0.25).train()
    path.kept = torch.tensor([0, 1 / 0.75])
    branch = torch.ones(2, 3, 4, 5)
    assert torch.allclose(path(branch), torch.tensor([0, 4 / 3]).view(2, 1, 1, 1).expand(2, 3, 4, 5))
    assert path(branch.bfloat16()).dtype == torch.bfloat16
    assert torch.equal(path.eval()(branch), branch)
    with pytest.raises(UserError, match=r"set training\.drop_path to 0"):
        path.train()(torch.ones(8, 3))


@pytest.mark.parametrize(
    "backbone",
    [SWIN, Backbone(**TINY_BACKBONE), Backbone(name="ghostnet_050"), Backbone(name="vit_tiny_patch16_224")],
    ids=lambda backbone: backbone.name,
)
def test_without_stochastic_depth_nothing_in_a_backbone_is_random(backbone: Backbone) -> None:
    size = 64 if backbone.name.startswith(("swin", "conv")) else 224
    network, images = untrained_backbone(backbone), torch.rand(2, 3, size, size)
    assert not any(isinstance(module, (DropPath, RowDropPath)) for module in network.modules())
    trained = network.train()(images)
    statistics = any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    assert torch.equal(trained, (network if statistics else network.eval())(images))


@pytest.mark.parametrize("name", ["swin_base_patch4_window7_224", "convnext_base"])
def test_both_backbones_of_the_paper_take_one_rate(name: str) -> None:
    with torch.device("meta"):
        model = FusionNetwork(untrained_backbone(Backbone(name=name), 0.2), 5)
    rates = [1 - path.keep for path in model.paths]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.2)
    assert not any(isinstance(module, DropPath) for module in model.modules())


def test_a_backbone_without_stochastic_depth_is_refused_before_a_run() -> None:
    given: dict[str, Any] = {"name": "vgg11", "revision": "0" * 40}
    settings = {"training": {"methods": ["none"], "backbones": {"convnext": None, "swin": None, "vgg": given}}}
    assert look_at_weights(parse(Settings, settings), digest=False)[-1].faults == []
    settings["training"]["drop_path"] = 0.1  # type: ignore[assignment]
    (fault,) = look_at_weights(parse(Settings, settings), digest=False)[-1].faults
    assert fault.startswith(
        "training.backbones.vgg: training.drop_path is 0.1, but timm model 'vgg11' has no stochastic depth; set it to 0"
    )
    with pytest.raises(UserError, match="no timm model 'convnxt'"):
        untrained_backbone(Backbone(name="convnxt"), 0.1)
    with pytest.raises(ValidationError, match=r"sets drop_path_rate, drop_rate; .* set training\.drop_path instead"):
        Backbone(name="convnext_atto", kwargs={"drop_path_rate": 0.1, "drop_rate": 0.1})


def test_a_record_omits_no_stochastic_depth() -> None:
    stage = TrainStage(backbone=SWIN)
    assert "drop_path" not in stage.model_dump(mode="json")["training"]
    stage = stage.model_copy(update={"training": TrainingSettings(drop_path=0.1)})
    assert stage.model_dump(mode="json")["training"]["drop_path"] == 0.1


@pytest.mark.slow
def test_two_processes_change_a_swins_weights_by_rounding(world: World, tmp_path: Path) -> None:
    weights = tmp_path / "swin.safetensors"
    save_file(create_model(SWIN.name, num_classes=0, **KWARGS).state_dict(), weights)
    chosen = world.stage("train", "convnext")
    changes = {"epochs": 1, "batch_size": 81, "drop_path": 0.3, "accumulate": 2, "image_size": 64}
    training = chosen.training.model_copy(update=changes)
    backbone = SWIN.model_copy(update={"weights": str(weights)})
    stage = chosen.model_copy(update={"backbone": backbone, "training": training})
    loop.train("none", Inputs(world.train, world.train / "pixels.h5", world.parts), stage, 0, tmp_path / "one", DEVICE)
    environment = os.environ | {"DFEAT_DEVICES": "GPU-a GPU-b", "DFEAT_LEASES": str(tmp_path / "leases")}
    given = command(world, in_two(stage), tmp_path / "two", "none")
    result = subprocess.run(given, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert distance(one, two) < 1e-6
    assert json.loads((tmp_path / "one/run.json").read_text())["settings"]["training"]["drop_path"] == 0.3
