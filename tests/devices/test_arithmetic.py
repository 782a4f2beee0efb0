"""In which arithmetic float32 numbers are multiplied on a GPU: every computation has that of its precision's name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import timm
import torch

from dfeat.costs.counts import WIDTH
from dfeat.devices import arithmetic, compute_on
from dfeat.devices.cards import CARDS
from dfeat.diffusion import FeatureExtractor, Inpainter
from dfeat.diffusion.models import DTYPES
from dfeat.section import Precision
from dfeat.training.dataset import Batch
from dfeat.training.loop import _step, build_optimizer
from dfeat.training.network import FusionNetwork
from dfeat.training.settings import TrainingSettings
from tests.conftest import TINY_BACKBONE

PRECISIONS = get_args(Precision)


def flags() -> tuple[bool, bool]:
    """Whether products of matrices, and convolutions, may round their factors to TF32."""
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@dataclass
class Seen:
    """The flags while each of the observed modules computed."""

    flags: dict[str, set[tuple[bool, bool]]] = field(default_factory=dict)

    def of(self, **modules: torch.nn.Module) -> None:
        """Observe modules by name."""
        for name, module in modules.items():
            module.register_forward_pre_hook(lambda *_, name=name: self.flags.setdefault(name, set()).add(flags()))


@pytest.fixture(params=[(False, True), (True, True), (False, False)], ids=str)
def before(request: pytest.FixtureRequest) -> Iterator[tuple[bool, bool]]:
    """What a program chose for itself; the first are torch's defaults."""
    with arithmetic("float32"):
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = request.param
        yield request.param


@pytest.mark.parametrize("precision", PRECISIONS)
def test_each_network_computes_in_the_arithmetic_of_its_precision(
    tiny_models: dict[str, Path], before: tuple[bool, bool], precision: str
) -> None:
    image, seen = np.full((1, 64, 64, 3), 90, np.uint8), Seen()
    options: dict[str, Any] = {"device": "cpu", "precision": precision}
    inpaint = Inpainter.from_pretrained(tiny_models["nine"], steps=1, **options)
    extract = FeatureExtractor.from_pretrained(tiny_models["four"], **options)
    for name, model in {"inpaint": inpaint.model, "features": extract.model}.items():
        seen.of(**{f"{name} {part}": module for part, module in networks(model).items()})
    inpaint(image, np.ones((1, 64, 64), bool), ["a"])
    assert flags() == before
    extract(image)
    extract.model.embed(["a"])
    assert flags() == before
    named = precision == "tf32"
    assert len(seen.flags) == 7
    assert set().union(*seen.flags.values()) == {(named, named)}


def networks(model: Any) -> dict[str, torch.nn.Module]:
    parts = {"encoder": model.vae.encoder, "unet": model.unet, "text": model.text_encoder}
    return parts | ({"decoder": model.vae.decoder} if model.unet.config.in_channels == 9 else {})


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_a_step_of_training_computes_forward_and_backward_in_the_arithmetic_of_its_precision(
    before: tuple[bool, bool], precision: Any
) -> None:
    model, seen = (
        FusionNetwork(timm.create_model(TINY_BACKBONE["name"], num_classes=0, **TINY_BACKBONE["kwargs"]), 5),
        [],
    )
    model.backbone.register_forward_pre_hook(lambda *_: seen.append(flags()))
    next(model.parameters()).register_hook(lambda _: seen.append(flags()))
    settings = TrainingSettings(precision=precision)
    batch = Batch(torch.zeros(2, 32, 32, 3, dtype=torch.uint8), torch.eye(5)[:2])
    _step(model, build_optimizer(model, settings), batch, settings)
    assert seen == [(precision == "tf32",) * 2] * 2
    assert flags() == before


def test_a_job_computes_exactly_until_a_precision_is_named(
    before: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    threads = torch.get_num_threads()
    compute_on(0, threads, "evaluate x.csv")
    assert flags() == (False, False)
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ
    with arithmetic("tf32"):
        assert flags() == (True, True)
    assert flags() == (False, False)


def test_what_a_program_chose_by_torch_s_newer_interface_is_exact_inside_and_the_same_after() -> None:
    if not hasattr(torch.backends.cudnn, "conv"):
        pytest.skip("this torch has the older interface alone")
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    with arithmetic("float32"):
        matmul.fp32_precision, conv.fp32_precision = "tf32", "tf32"
        torch.backends.fp32_precision = "tf32"
        try:
            with arithmetic("float32"):
                assert (matmul.fp32_precision, conv.fp32_precision, flags()) == ("ieee", "ieee", (False, False))
            assert (matmul.fp32_precision, conv.fp32_precision) == ("tf32", "tf32")
        finally:
            torch.backends.fp32_precision = "none"


def test_every_precision_has_a_type_a_width_and_a_peak_on_every_card() -> None:
    assert set(DTYPES) == set(WIDTH) == set(PRECISIONS)
    for card in CARDS.values():
        peaks = card.peak
        assert set(peaks) == set(PRECISIONS), card
        assert peaks["float32"] <= peaks["tf32"] <= peaks["float16"]


def test_tf32_is_float32_on_a_cpu_bit_for_bit(tiny_models: dict[str, Path]) -> None:
    image = np.full((1, 64, 64, 3), 90, np.uint8)
    exact, rounded = (
        FeatureExtractor.from_pretrained(tiny_models["four"], device="cpu", precision=precision)(image)
        for precision in ("float32", "tf32")
    )
    assert torch.equal(exact, rounded)
