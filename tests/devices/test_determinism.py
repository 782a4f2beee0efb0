"""Kernels that sum in one order, and nothing spent on memory that is written anyway."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch

from dfeat.devices import set_threads
from dfeat.training.loop import deterministic
from dfeat.training.network import FusionNetwork
from dfeat.training.settings import TrainingSettings
from tests.conftest import CPU, TINY_BACKBONE

META = torch.device("meta")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = torch.get_deterministic_debug_mode(), torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.set_deterministic_debug_mode(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]


def fills() -> int:
    """How often a step of a small network writes memory with one value."""
    network, images = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.GroupNorm(2, 4)), torch.ones(2, 3, 8, 8)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        network(images).sum().backward()
    return sum(event.name == "aten::fill_" for event in seen.events())


def test_a_job_takes_deterministic_kernels_and_fills_no_memory_for_it() -> None:
    torch.set_deterministic_debug_mode("default")
    usual = fills()
    set_threads(torch.get_num_threads())
    assert torch.get_deterministic_debug_mode() == 1
    assert fills() == usual
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert fills() > usual  # as torch itself would


@pytest.mark.parametrize(
    ("given", "taken"), [(None, ":4096:8"), (":0:0", ":4096:8"), (":4096:8", ":4096:8"), (":16:8", ":16:8")]
)
def test_the_workspace_of_cublas_is_one_that_sums_in_one_order(
    monkeypatch: pytest.MonkeyPatch, given: str | None, taken: str
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", given or "")
    if given is None:
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    set_threads(torch.get_num_threads())
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == taken


def putting(*_: object) -> None:
    """What torch has no deterministic kernel for."""
    torch.zeros(1).put_(torch.zeros(1, dtype=torch.int64), torch.ones(1))


def test_a_training_is_strict_where_it_can_be_and_says_where_it_cannot(capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_deterministic_debug_mode("warn")
    backbone = timm.create_model(TINY_BACKBONE["name"], num_classes=0, **TINY_BACKBONE["kwargs"])
    model, sources = FusionNetwork(backbone, 5, 12).to(META), SimpleNamespace(classes=5, feature_width=12)
    batches: Any = SimpleNamespace(settings=TrainingSettings(image_size=32), sources=sources, seed=0)
    with deterministic(model, batches, META):
        assert torch.get_deterministic_debug_mode() == 2
    assert torch.get_deterministic_debug_mode() == 1
    assert capsys.readouterr().err == ""
    backbone.register_forward_pre_hook(putting)
    with deterministic(model, batches, META):
        assert torch.get_deterministic_debug_mode() == 1
    assert (
        "training again may give other last digits: torch has no deterministic kernel here for put_"
        in capsys.readouterr().err
    )
    with deterministic(model, batches, CPU):
        assert torch.get_deterministic_debug_mode() == 1
