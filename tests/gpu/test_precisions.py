"""What a precision's name means on a GPU: float32 is exact, tf32 is visibly other, 16 bits are close."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dfeat.devices import arithmetic
from dfeat.diffusion.features import FeatureExtractor
from dfeat.diffusion.latents import encode
from dfeat.diffusion.models import DiffusionModel
from dfeat.diffusion.settings import FeatureSettings
from tests.conftest import DEVICE
from tests.gpu.conftest import SIDE, model_of, on_cuda

pytestmark = pytest.mark.gpu
EXACT, ROUNDED = 1e-4, 3e-4
"""Relative errors below which float32 is exact, and above which TF32 shows: it keeps 10 bits of 23."""


def far(found: torch.Tensor, true: torch.Tensor) -> float:
    """The relative difference."""
    return float((found.double().cpu() - true.double().cpu()).norm() / true.double().norm().cpu())


@pytest.mark.parametrize("what", ["convolution", "product"])
@pytest.mark.parametrize(("precision", "exact"), [("float32", True), pytest.param("tf32", False, marks=on_cuda)])
def test_an_operation_is_as_exact_as_its_precision_is_named(what: str, precision: str, exact: bool) -> None:
    generator = torch.Generator(DEVICE).manual_seed(0)
    draw = functools.partial(torch.randn, generator=generator, device=DEVICE)
    one, other = (
        (draw(2, 256, 32, 32), draw(256, 256, 3, 3)) if what == "convolution" else (draw(512, 512), draw(512, 512))
    )
    operation = functools.partial(F.conv2d, padding=1) if what == "convolution" else torch.matmul
    with arithmetic(precision):
        error = far(operation(one, other), operation(one.double(), other.double()))
    assert error < 1e-6 if exact else 1e-4 < error < 1e-2


def computed(model: DiffusionModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and features of two images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, SIDE // 8, SIDE // 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    latents = encode(model, images)
    # Features of one input, so that what separates them is the U-Net's rounding alone.
    given = torch.from_numpy(rng.normal(size=(2, 4, SIDE // 8, SIDE // 8)).astype(np.float32)).to(model.device)
    extract = FeatureExtractor(model, FeatureSettings(), model.scaling_factor, batch_size=2)
    return latents, extract.from_latents(given, ["a", "b"])


@functools.cache
def truth() -> tuple[torch.Tensor, torch.Tensor]:
    """The same in float64, with the weights of float32."""
    model = copy.copy(model_of("float32"))
    for part in (model.vae, model.unet, model.text_encoder):
        part.double()
    model.dtype = torch.float64
    latents, features = computed(model)
    return latents.cpu(), features.cpu()


@pytest.mark.parametrize(
    ("precision", "low", "high"),
    [
        ("float32", 0, EXACT),
        pytest.param("tf32", ROUNDED, 2e-2, marks=on_cuda),
        ("float16", 0, 2e-2),
        ("bfloat16", 0, 1e-1),
    ],
)
def test_latents_and_features_are_as_close_to_float64_as_their_precision(
    precision: str, low: float, high: float
) -> None:
    for name, found, true in zip(("latents", "features"), computed(model_of(precision)), truth(), strict=True):
        assert low < far(found, true) < high, name
