"""Which device a job computes on, and with how many threads."""

from __future__ import annotations

import torch


def pick_device() -> torch.device:
    """The first CUDA device this process may use, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def set_threads(threads: int) -> None:
    """Fix torch's threads: sums depend on how they are split, so results must not depend on the machine."""
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("warn")  # unlike use_deterministic_algorithms it does not import the compiler
