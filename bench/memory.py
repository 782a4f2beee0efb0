"""Current and peak memory of this process, from Linux's /proc.

The peak of getrusage would start at the memory of the parent process.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal


def megabytes(name: Literal["VmHWM", "VmRSS"]) -> float:
    """The process's peak (VmHWM) or current (VmRSS) memory in MB. Raises RuntimeError if /proc does not report it."""
    found = re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {name}")
    return int(found[1]) / 1000


def reset_peak() -> None:
    """Reset the peak (VmHWM) to the current memory."""
    # Linux, proc(5): writing 5 to clear_refs resets the peak resident set size.
    Path("/proc/self/clear_refs").write_text("5")
