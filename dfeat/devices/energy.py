"""The energy a job's devices consume, as the driver counts it.

What enters: the devices a job holds, when it leases them. What leaves, when its process ends by itself: the line
`energy: X J` in its log, which `report.tables.efficiency` reads. Source: NVML's nvmlDeviceGetTotalEnergyConsumption,
the millijoules a whole device consumed since the driver was loaded, on Volta and later. The counter covers all jobs on
a device and has no value for a MIG instance; where it would not be the job's own, no line is written.
"""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Sequence
from typing import Any

from dfeat.devices.driver import PRETENDED, Device, is_split
from dfeat.devices.leases import shared
from dfeat.progress import say


def meter(devices: Sequence[Device]) -> None:
    """Log at exit the energy the devices consumed from now on; do nothing where that cannot be measured."""
    own = not shared() and all(device.name != PRETENDED for device in devices)
    before = counters(devices) if own else []
    if before:
        atexit.register(_tell, devices, before)


def counters(devices: Sequence[Device]) -> list[int]:
    """The energy counter of each device in millijoules; an empty list unless NVML has one for all of them.

    NVML stays initialised until the process ends: an idle driver may be unloaded, which resets its counters.
    """
    try:
        import pynvml as nvml
    except ImportError:
        return []
    try:
        nvml.nvmlInit()
        handles = _handles(nvml, devices)
        if any(is_split(nvml, handle) for handle in handles):
            return []
        return [int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) for handle in handles]
    except nvml.NVMLError:
        return []


def _tell(devices: Sequence[Device], before: Sequence[int]) -> None:
    spent = [end - start for start, end in zip(before, counters(devices), strict=False)]
    # A counter that did not advance is not supported; one that went back was reset with its driver.
    if len(spent) == len(before) and min(spent) > 0:
        with contextlib.suppress(OSError):  # the log may lie on a full disk
            say(f"energy: {sum(spent) / 1000:.3f} J of {', '.join(device.uuid for device in devices)}")


def _handles(nvml: Any, devices: Sequence[Device]) -> list[Any]:
    """NVML's handles of the devices; an empty list if it is not certain which they are.

    A scheduler may assign devices by number, in CUDA's order, which need not be NVML's. So numbers are accepted only
    if the job sees no devices but its own.
    """
    if all(device.uuid.startswith("GPU-") for device in devices):
        return [nvml.nvmlDeviceGetHandleByUUID(device.uuid) for device in devices]
    seen = []
    for number in range(nvml.nvmlDeviceGetCount()):
        with contextlib.suppress(nvml.NVMLError_NoPermission):
            seen.append(nvml.nvmlDeviceGetHandleByIndex(number))
    whole = all(device.uuid.isdigit() for device in devices)
    return seen if whole and len(seen) == len(devices) else []
