"""What the tests marked `gpu` share: the networks they compute with, of the true sizes on a GPU and tiny ones on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from bench.networks import random_model
from dfeat.devices import leases, set_threads
from dfeat.diffusion.models import DiffusionModel
from tests.conftest import DEVICE

SMALL = DEVICE.type == "cpu"
SIDE = 64 if SMALL else 512
"""Side of an image."""
on_cuda = pytest.mark.skipif(SMALL, reason="needs a CUDA device: what it tests a CPU does not do")


@pytest.fixture(scope="package", autouse=True)
def _leased() -> Iterator[None]:
    """No job of this machine computes on the device meanwhile."""
    if DEVICE.type == "cuda":
        leases.lease(1, "pytest")
    yield
    leases._give_back(list(leases._held))
    leases._taken.clear()


@pytest.fixture(autouse=True)
def _as_a_job() -> Iterator[None]:
    """Numbers round as they do in a job."""
    before = torch.get_deterministic_debug_mode()
    set_threads(1)
    yield
    torch.set_deterministic_debug_mode(before)
    empty()


def model_of(precision: str) -> DiffusionModel:
    """A whole diffusion model with random weights on the device, the same in every precision but for rounding."""
    return random_model(DEVICE, precision, SMALL)


def empty() -> None:
    """Give what is not in use back to the device."""
    import gc

    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def all_but(room: int) -> Iterator[None]:
    """Inside, all of the device's memory is taken but so many bytes beyond what this process holds."""
    empty()
    free, taken = torch.cuda.mem_get_info(DEVICE)[0], None
    while taken is None:
        try:
            taken = torch.empty(max(free - room, 0), dtype=torch.uint8, device=DEVICE)
        except torch.OutOfMemoryError:
            free -= 2**24  # the driver gives out less than it counts as free
    try:
        yield
    finally:
        del taken
        empty()
