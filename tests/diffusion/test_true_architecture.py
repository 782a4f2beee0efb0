"""Stable Diffusion 2.1 at its true size, with random weights: it loads through the one door and does both uses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.architectures import write_stable_diffusion_21
from dfeat.diffusion.features import FeatureExtractor
from dfeat.diffusion.inpaint import Inpainter
from dfeat.diffusion.latents import encode
from dfeat.diffusion.models import load_model
from dfeat.diffusion.settings import FeatureSettings, InpaintSettings, ModelSource
from dfeat.errors import UserError
from tests.conftest import DEVICE

pytestmark = pytest.mark.slow

SIDE = 64
PARAMETERS = {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840}
"""Of the published Stable Diffusion 2.1; the inpainting U-Net has five more input channels."""
MORE_FOR_NINE = 5 * 320 * 3 * 3


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The 4-channel model, predicting epsilon, as a folder in the diffusers layout."""
    folder = tmp_path_factory.mktemp("true") / "four"
    write_stable_diffusion_21(folder)
    yield folder
    shutil.rmtree(folder.parent)  # 4.5 GB, which pytest would keep for three runs


@pytest.fixture(scope="module")
def nine(four: Path) -> Path:
    """The inpainting form: the same but for a U-Net that reads the mask and the masked image too."""
    folder = _variant(four, "nine", "unet", in_channels=9)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    old = weights["conv_in.weight"]
    weights["conv_in.weight"] = torch.cat([old, old, old[:, :1]], dim=1)
    path.unlink()
    save_file(weights, path)
    return folder


@pytest.fixture(scope="module")
def velocity(four: Path) -> Path:
    """The 4-channel model as v-prediction."""
    return _variant(four, "velocity", "scheduler", prediction_type="v_prediction")


def _variant(four: Path, name: str, component: str, **changes: Any) -> Path:
    """A copy whose large files are links, with another configuration of one component."""
    folder = four.parent / name

    def link(source: str, target: str) -> None:
        Path(target).hardlink_to(source) if source.endswith(".safetensors") else shutil.copy(source, target)

    shutil.copytree(four, folder, copy_function=link)
    path = folder / component / ("scheduler_config.json" if component == "scheduler" else "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize(("name", "precision"), [("four", "float32"), ("nine", "float32"), ("velocity", "bfloat16")])
def test_the_true_model_inpaints_and_gives_features(
    name: str, precision: str, request: pytest.FixtureRequest, rng: np.random.Generator
) -> None:
    folder = request.getfixturevalue(name)
    source = ModelSource(path=str(folder), precision=precision)  # type: ignore[arg-type]
    model = load_model(source, "inpaint", DEVICE)
    wanted = PARAMETERS["unet"] + (MORE_FOR_NINE if name == "nine" else 0)
    assert sum(parameter.numel() for parameter in model.unet.parameters()) == wanted
    images = rng.integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    hidden = np.zeros((1, SIDE, SIDE), bool)
    hidden[:, 16:48, 16:48] = True
    filled = Inpainter(model, InpaintSettings(steps=2))(images, hidden, ["A class of tiger"])
    assert filled.shape == images.shape and filled.dtype == np.uint8
    latents = encode(model, images)
    assert latents.shape == (1, 4, SIDE // 8, SIDE // 8)
    extract = FeatureExtractor(model, FeatureSettings(blocks=("mid", "up.1")), model.scaling_factor)
    features = extract.from_latents(latents, ["one"])
    assert features.shape == (1, 2 * 1280)
    assert torch.isfinite(features).all() and features.std() > 0


def test_a_true_inpainting_unet_with_v_prediction_is_refused_before_its_weights_are_read(nine: Path) -> None:
    folder = _variant(nine, "wrong", "scheduler", prediction_type="v_prediction")
    with pytest.raises(UserError, match="inpainting U-Nets predict epsilon"):
        load_model(ModelSource(path=str(folder)), "inpaint", DEVICE)
