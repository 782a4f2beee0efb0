"""Batches so large that 32 bits do not number a tensor's elements pass through the VAE in slices of equal size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dfeat.costs.architectures import autoencoder
from dfeat.diffusion import models
from dfeat.diffusion.models import INDEXED, DiffusionModel, load_model
from dfeat.diffusion.settings import ModelSource
from tests.conftest import CPU

META = torch.device("meta")


class Largest(TorchDispatchMode):
    """Note the most elements of any tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.elements = max(self.elements, out.numel())
        return out


@pytest.fixture(scope="module")
def true() -> DiffusionModel:
    """The true VAE, without memory."""
    return DiffusionModel(autoencoder(META), None, None, None, None, "", META, torch.float32)


@pytest.mark.parametrize(
    ("rows", "side", "decoded", "encoded"),
    [(8, 512, [8], [8]), (32, 512, [16, 16], [32]), (29, 768, [10] * 3, [15, 15])],
)  # fmt: skip
@torch.no_grad()
def test_no_tensor_of_the_true_vae_has_more_elements_than_32_bits_number(
    true: DiffusionModel, rows: int, side: int, decoded: list[int], encoded: list[int]
) -> None:
    seen: dict[str, list[int]] = {"decoder": [], "encoder": []}
    hooks = [
        getattr(true.vae, name).register_forward_pre_hook(lambda _m, given, name=name: seen[name].append(len(given[0])))
        for name in seen
    ]
    with Largest() as of_decoder:
        pixels = true.decode(torch.empty(rows, 4, side // 8, side // 8, device=META))
    with Largest() as of_encoder:
        posterior = true.encode(pixels)
    for hook in hooks:
        hook.remove()
    assert pixels.shape == (rows, 3, side, side) and posterior.mean.shape == (rows, 4, side // 8, side // 8)
    assert max(of_decoder.elements, of_encoder.elements) < INDEXED
    assert seen == {"decoder": decoded, "encoder": encoded}


def test_a_batch_in_slices_is_that_at_once(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(ModelSource(path=str(tiny_models["four"])), "inpaint", CPU)
    latents = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = model.decode(latents)
    moments = model.encode(whole).parameters
    monkeypatch.setattr(models, "INDEXED", 2 * 8 * 64 * 64 + 1)  # room for two rows
    decoded: list[int] = []
    model.vae.decoder.register_forward_pre_hook(lambda _, given: decoded.append(len(given[0])))
    torch.testing.assert_close(model.decode(latents), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.encode(whole).parameters, moments, rtol=1e-4, atol=1e-5)
    assert decoded == [2, 2, 2]
