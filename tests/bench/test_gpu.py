"""The benchmark of a GPU, on a CPU with tiny models: every step runs and is counted; without a GPU it says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.architectures import stable_diffusion_21
from bench.gpu import described, measure, run
from dfeat.config import Settings
from dfeat.errors import UserError
from dfeat.section import parse
from tests.conftest import CPU, TINY_BACKBONE


def test_every_step_is_measured(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    backbone = timm.create_model(TINY_BACKBONE["name"], num_classes=0, **TINY_BACKBONE["kwargs"])
    save_file(backbone.state_dict(), tmp_path / "backbone.safetensors")
    settings = parse(
        Settings,
        {
            "data": {"short_side": 64},
            "occlusion": {"patch": 8},
            "diffusion": {
                "model": {"path": str(tiny_models["four"])},
                "resolution": 64,
                "inpaint": {"steps": 2, "prompt": "A class of tiger"},
            },
            "training": {
                "backbones": {"convnext": TINY_BACKBONE | {"weights": str(tmp_path / "backbone.safetensors")}},
                "image_size": 32,
                "batch_size": 4,
            },
            "evaluation": {"crop_pct": 1.0},
        },
    )
    lines = measure(tmp_path, settings, 8, CPU, workers=1)
    assert set(lines) == {"latents", "features", "inpaint", "training"}
    assert all(line["rate"] > 0 and line["flops"] > 0 for line in lines.values())
    assert all(0 <= line["waited"] <= 1 for line in lines.values())
    assert all("of the time for images" in described(line, "another card") for line in lines.values())


def test_a_line_names_the_share_of_a_known_peak() -> None:
    line = {"rate": 100.0, "flops": 1e12, "waited": 0.02}
    assert described(line, "NVIDIA A100-SXM4-80GB") == (
        "100.0 images/s, 100.0 TFLOP/s, 32 % of the bfloat16 peak, waited 2.0 % of the time for images"
    )
    assert "peak" not in described(line, "another card")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so() -> None:
    with pytest.raises(UserError, match="needs a CUDA device"):
        run()


def test_the_true_architectures_have_the_published_sizes() -> None:
    sizes = [sum(p.numel() for p in model.parameters()) for model in stable_diffusion_21(torch.device("meta"))]
    assert sizes == [865_910_724, 83_653_863, 340_387_840]
