"""How much memory this process holds and has held, as Linux tells: its own, where getrusage begins with its starter's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal


def megabytes(name: Literal["VmHWM", "VmRSS"]) -> float:
    """The process's peak (VmHWM), or what it holds now (VmRSS), in MB. Raises RuntimeError where that is not told."""
    found = re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError(f"/proc/self/status tells no {name}")
    return int(found[1]) / 1000


def forget_peak() -> None:
    """From now on the peak is that of what comes."""
    Path("/proc/self/clear_refs").write_text("5")
