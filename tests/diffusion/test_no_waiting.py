"""The host queues a whole sampling run and a whole features pass: it reads nothing of the device and sends nothing in between.

The device is torch's meta device: its tensors have shapes and no values, so whatever needs a value raises.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dfeat.diffusion import FeatureExtractor, Inpainter
from dfeat.diffusion.models import load_model
from dfeat.diffusion.settings import FeatureSettings, InpaintSettings, ModelSource
from dfeat.section import parse

DEVICE = torch.device("meta")
READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::equal"}
"""Operations whose result the host needs, or whose shape depends on values."""


class Traffic(TorchDispatchMode):
    """Note what makes the host wait for the device, or the device for the host."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.sent: list[str] = []
        self.sampling = False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = function._schema.name, kwargs or {}
        given = [leaf.device for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if name in READS and DEVICE in given:
            self.reads.append(name)
        out = function(*args, **kwargs)
        made = [leaf.device for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        if DEVICE in given and DEVICE not in made and made:
            self.reads.append(name)
        copied = name in ("aten::_to_copy", "aten::copy_") and DEVICE not in given[-1:]
        if self.sampling and DEVICE in made and (copied or name == "aten::lift_fresh"):  # the last: torch.tensor(...)
            self.sent.append(name)
        return out

    def between(self, first: torch.nn.Module, last: torch.nn.Module) -> None:
        """Note what is sent from the first pass of one module until that of another."""
        first.register_forward_pre_hook(lambda *_: setattr(self, "sampling", True))
        last.register_forward_pre_hook(lambda *_: setattr(self, "sampling", False))


def inpainter(folder: Path, **settings: Any) -> Inpainter:
    model = load_model(ModelSource(path=str(folder)), "inpaint", DEVICE)
    made = Inpainter(model, parse(InpaintSettings, settings, "inpaint"))
    width = model.unet.config.cross_attention_dim
    made._embeddings = {text: torch.zeros(16, width, device=DEVICE) for text in ("", "a")}
    return made


def traffic_of(inpaint: Inpainter) -> Traffic:
    images, masks = np.zeros((2, 64, 64, 3), np.uint8), np.ones((2, 64, 64), bool)
    with Traffic() as traffic:
        traffic.between(inpaint.model.unet, inpaint.model.vae.decoder)
        shown, finite = inpaint.fill(images, masks, ["a", "a"], [0, 1])
    assert (shown.device, finite.device) == (DEVICE, DEVICE)
    return traffic


@pytest.mark.parametrize("fast", [{}, {"guidance_interval": (0.3, 0.7)}, {"cache_interval": 3, "guidance_interval": (0, 0.6)}], ids=str)  # fmt: skip
@pytest.mark.parametrize("scheduler", ["ddim", "dpmsolver++"])
@pytest.mark.parametrize("model", ["four", "nine"])
def test_inpainting_reads_nothing_of_the_device_and_sends_nothing_within_its_steps(
    tiny_models: dict[str, Path], model: str, scheduler: str, fast: dict[str, Any]
) -> None:
    traffic = traffic_of(inpainter(tiny_models[model], steps=4, scheduler=scheduler, **fast))
    assert (traffic.reads, traffic.sent) == ([], [])


@pytest.mark.parametrize("model", ["four", "nine"])
def test_features_read_nothing_of_the_device(tiny_models: dict[str, Path], model: str) -> None:
    loaded = load_model(ModelSource(path=str(tiny_models[model])), "inpaint", DEVICE)
    settings = parse(FeatureSettings, {"timestep": (25, 50), "ensemble": 2, "blocks": ("mid", "up.0")}, "features")
    prompt = torch.zeros(1, 16, loaded.unet.config.cross_attention_dim, device=DEVICE)
    extract = FeatureExtractor(loaded, settings, loaded.scaling_factor, prompt, batch_size=2)
    with Traffic() as traffic:
        features = extract.from_latents(torch.zeros(3, 4, 8, 8, device=DEVICE), ["a", "b", "c"])
    assert (features.device, len(features)) == (DEVICE, 3)
    assert traffic.reads == []


def reading(output: torch.Tensor) -> object:
    return output.sum().item()


def searching(output: torch.Tensor) -> object:
    return output.nonzero()


def fetching(output: torch.Tensor) -> object:
    return output.cpu()


def sending(output: torch.Tensor) -> object:
    return torch.zeros(()).to(output.device)


def making(output: torch.Tensor) -> object:
    return torch.tensor([1.0], device=output.device)


@pytest.mark.parametrize("wait", [reading, searching, fetching, sending, making])
def test_a_wait_within_the_steps_is_found(tiny_models: dict[str, Path], wait: Callable[[torch.Tensor], object]) -> None:
    inpaint = inpainter(tiny_models["four"], steps=2)
    inpaint.model.unet.mid_block.register_forward_hook(lambda _module, _inputs, output: wait(output) and None)
    try:
        traffic = traffic_of(inpaint)
    except (RuntimeError, NotImplementedError) as error:
        assert "meta" in str(error).lower()
    else:
        assert traffic.reads or traffic.sent
