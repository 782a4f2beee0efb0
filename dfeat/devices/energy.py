"""What a job's devices consume, as the driver counts it.

What enters: the devices a job holds, when it takes them. What leaves, when its process ends by itself: the line
`energy: X J` in its log, which `evaluation.efficiency` reads. Source: NVML's nvmlDeviceGetTotalEnergyConsumption,
millijoules of a whole device since the driver was loaded, on Volta and later. It counts for everybody who computes
there and tells nothing of a part of a device; where the number would not be the job's own, there is no line.
"""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Sequence
from typing import Any

from dfeat.devices.driver import PRETENDED, Device
from dfeat.devices.leases import shared
from dfeat.progress import say


def meter(devices: Sequence[Device]) -> None:
    """Have this process say when it ends what the devices consumed from now on; nothing where that cannot be known."""
    own = not shared() and all(device.name != PRETENDED for device in devices)
    before = counters(devices) if own else []
    if before:
        atexit.register(_tell, devices, before)


def counters(devices: Sequence[Device]) -> list[int]:
    """The energy counter of each device in millijoules; an empty list unless NVML tells that of all of them.

    NVML stays loaded until the process ends: a driver that nobody uses may be unloaded, and its counters with it.
    """
    try:
        import pynvml as nvml
    except ImportError:
        return []
    try:
        nvml.nvmlInit()
        handles = _handles(nvml, devices)
        if any(_split(nvml, handle) for handle in handles):
            return []
        return [int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) for handle in handles]
    except nvml.NVMLError:
        return []


def _tell(devices: Sequence[Device], before: Sequence[int]) -> None:
    spent = [end - start for start, end in zip(before, counters(devices), strict=False)]
    # A counter that stands still is one that does not count; one that went back began anew with its driver.
    if len(spent) == len(before) and min(spent) > 0:
        with contextlib.suppress(OSError):  # the log may lie on a full disk
            say(f"energy: {sum(spent) / 1000:.3f} J of {', '.join(device.uuid for device in devices)}")


def _handles(nvml: Any, devices: Sequence[Device]) -> list[Any]:
    """NVML's handles of the devices, an empty list where it is not certain which they are.

    A scheduler may assign numbers. They follow CUDA's order, which need not be NVML's, so they are understood only
    where the job sees no other devices than its own.
    """
    if all(device.uuid.startswith("GPU-") for device in devices):
        return [nvml.nvmlDeviceGetHandleByUUID(device.uuid) for device in devices]
    seen = []
    for number in range(nvml.nvmlDeviceGetCount()):
        with contextlib.suppress(nvml.NVMLError_NoPermission):
            seen.append(nvml.nvmlDeviceGetHandleByIndex(number))
    whole = all(device.uuid.isdigit() for device in devices)
    return seen if whole and len(seen) == len(devices) else []


def _split(nvml: Any, handle: Any) -> bool:
    """Whether a GPU is split into MIG instances, so that its counter is not the job's alone."""
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE)
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
        return False  # a card or driver from before MIG
