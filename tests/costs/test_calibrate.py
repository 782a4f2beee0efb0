"""`dfeat plan --calibrate`: each piece does the operations that its speed is counted from; without a GPU it says so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from bench.flops import flops
from dfeat.cli import main
from dfeat.config import Settings
from dfeat.config.shards import stated_images
from dfeat.costs.calibrate import _pieces, measure, random_model
from dfeat.costs.counts import Counts, count
from dfeat.costs.efficiency import STEPS
from dfeat.costs.estimate import estimate
from dfeat.diffusion.models import DiffusionModel, load_model
from dfeat.diffusion.settings import ModelSource
from dfeat.section import parse
from tests.conftest import CPU, TINY_BACKBONE


@pytest.fixture(scope="module")
def tiny(tiny_models: dict[str, Path]) -> Settings:
    return parse(
        Settings,
        {
            "diffusion": {
                "model": {"path": str(tiny_models["four"])},
                "resolution": 64,
                "batch_size": 2,
                "inpaint": {"guidance_interval": [0.5, 1], "cache_interval": 2},
                "features": {"ensemble": 2},
            },
            "training": {
                "backbones": {"convnext": TINY_BACKBONE},
                "image_size": 32,
                "batch_size": 6,
                "accumulate": 3,
                "drop_path": 0.1,
            },
            "evaluation": {"batch_size": 4},
        },
    )


@pytest.fixture(scope="module")
def counts(tiny: Settings) -> Counts:
    return count(tiny)


def build(source: ModelSource) -> DiffusionModel:
    return load_model(source, "inpaint", CPU, 64)


def test_a_piece_does_the_operations_that_its_speed_is_counted_from(tiny: Settings, counts: Counts) -> None:
    for cost in estimate(tiny, stated_images(tiny)):
        if cost.flops:
            ((call, stated),) = _pieces(cost.work, tiny, build, counts, CPU)
            counted = flops(lambda call=call: call()) if cost.step != "training" else in_training(call)
            # three passes of training stand for a forward and a backward one, which computes no gradient of images
            assert counted == pytest.approx(stated, rel=0.2 if cost.step == "training" else 0.05), cost.step


def in_training(call) -> float:
    """A step computes its own gradients, so none are left to count them of."""
    return flops(lambda: (call(), torch.zeros((), requires_grad=True) * 1)[1], backward=True)


def test_every_step_is_measured_in_its_precision(tiny: Settings, counts: Counts) -> None:
    changed = tiny.training.model_copy(update={"precision": "bfloat16"})
    found = measure(tiny.model_copy(update={"training": changed}), build, counts, CPU, seconds=0)
    assert set(found) == set(STEPS)
    assert {step: one.precision for step, one in found.items() if one.precision != "float32"} == {
        "training": "bfloat16"
    }
    assert all(one.flops > 0 and one.passes >= 1 and not one.compiled for one in found.values())


def test_the_measured_model_is_stable_diffusion_with_random_weights() -> None:
    model = random_model("bfloat16", torch.device("meta"))
    assert sum(p.numel() for p in model.unet.parameters()) == 865_910_724
    assert {p.dtype for p in (*model.unet.parameters(), *model.vae.parameters())} == {torch.bfloat16}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dfeat", "plan", "--settings", "{}", "--calibrate", "card.json"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "measures a GPU, and this machine has none" in capsys.readouterr().err
    assert not (tmp_path / "card.json").exists()
