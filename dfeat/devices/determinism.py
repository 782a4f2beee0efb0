"""Which kernels a GPU may compute with: those that give the same bits each time.

What leaves: the settings of torch and cuBLAS for a whole process (`set_determinism`), and
a stricter mode for what has a backward pass (`strictly`). Some backward passes sum by atomic additions, in the order in
which threads happen to arrive. torch has others for most of them; for attention (memory-efficient and flash, where cuDNN's
is left out) it takes them in the strict mode alone, which refuses what has none. On a CPU nothing of this changes a bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_WORKSPACES: Final = (":4096:8", ":16:8")
"""Workspaces of a fixed size, without which the order of cuBLAS's sums depends on what other streams hold."""


def set_determinism() -> None:
    """Have this process take deterministic kernels where there are any. Call it before CUDA starts."""
    import torch

    if os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in _WORKSPACES:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = _WORKSPACES[0]
    torch.set_deterministic_debug_mode("warn")  # unlike use_deterministic_algorithms it does not import the compiler
    # In this mode torch fills all new memory, a kernel for each tensor, lest code that reads it unwritten differ.
    torch.utils.deterministic.fill_uninitialized_memory = False


@contextmanager
def strictly() -> Iterator[None]:
    """Inside, an operation without a deterministic kernel raises RuntimeError."""
    import torch

    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
