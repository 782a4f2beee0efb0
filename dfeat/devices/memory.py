"""The memory a job takes of its devices.

What leaves, when a process that computed on a device ends by itself: the line `memory: X MB` in its log, the most that
torch reserved on any device, which `report.tables.efficiency` reads.
"""

from __future__ import annotations

import atexit
import contextlib
import resource
import sys

from dfeat.progress import say


def watch() -> None:
    """Log at exit the most memory that this process reserved on a device; nothing if it computed on none."""
    atexit.register(_tell)


def peak() -> int:
    """The most memory in bytes that this process took so far: of a device, or of the machine where it used none."""
    return _reserved() or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _reserved() -> int:
    """The most memory in bytes that torch reserved on a device; 0 where it computed on none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return int(max(map(torch.cuda.max_memory_reserved, range(torch.cuda.device_count()))))


def _tell() -> None:
    if reserved := _reserved():
        with contextlib.suppress(OSError):  # the log may lie on a full disk
            say(f"memory: {reserved / 1e6:.0f} MB of a device")
