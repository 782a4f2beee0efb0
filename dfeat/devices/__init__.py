"""Which devices a job computes on, and with how many threads.

Snakemake's `gpu` resource limits how many GPU jobs run at once but does not assign devices to them. So each job leases
its devices here before CUDA starts. Optional environment variables: `DFEAT_LEASES`, the folder of the locks (default
/tmp/dfeat-devices); `DFEAT_SLOTS`, the number of jobs that may share a device (default 1); `DFEAT_DEVICES`, a list of
names that replaces this machine's devices, to try a workflow on a machine without GPUs (its jobs run on the CPU).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dfeat.devices.arithmetic import arithmetic, set_arithmetic
from dfeat.devices.attempts import record
from dfeat.devices.determinism import set_determinism
from dfeat.devices.driver import machine_devices
from dfeat.devices.energy import meter
from dfeat.devices.leases import jobs_at_once, lease, occupancy
from dfeat.devices.memory import watch
from dfeat.progress import say

if TYPE_CHECKING:
    import torch

__all__ = ["arithmetic", "compute_on", "jobs_at_once", "machine_devices", "occupancy", "pick_device", "set_threads"]


def compute_on(gpus: int, threads: int, job: str) -> torch.device:
    """Lease the devices of a job, fix torch's number of threads, and log where the job computes.

    Call it before CUDA starts; returns the first leased device, or the CPU if `gpus` is 0 or the machine has no device.
    The energy that the devices consume from here on is logged when the process ends, if they count it
    (`devices.energy`), and so is the memory it took (`devices.memory`). A process that a leaseholder started (LOCAL_RANK is set) leases nothing and uses the device of
    its rank among its parent's.
    """
    import torch

    member = os.environ.get("LOCAL_RANK")
    if member is not None:
        set_threads(threads)
        if not gpus or not torch.cuda.is_available():
            return torch.device("cpu")
        watch()
        return torch.device("cuda", int(member))
    devices = lease(gpus, job) if gpus else []
    set_threads(threads)
    device = pick_device() if gpus else torch.device("cpu")
    names = ", ".join(f"{device.uuid} ({device.name})" for device in devices)
    record("device", device=names or str(device))
    if device.type == "cuda":
        meter(devices)
        watch()
        say(f"{job} computes on {names or 'the first CUDA device; the driver lists none, so none was leased'}")
    elif names:
        say(f"{job} has {names}, which torch cannot use: it computes on the CPU")
    else:
        say(f"{job} computes on the CPU: {'no GPU was found' if gpus else 'it asks for no GPU'}")
    return device


def pick_device() -> torch.device:
    """The first CUDA device this process may use, or the CPU if there is none."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def set_threads(threads: int) -> None:
    """Fix what decides how numbers round, on every machine alike: torch's number of threads, which splits sums, kernels
    that sum in one order (`devices.determinism`), and exact products of float32 numbers, until a precision other than
    float32 is computed in (`devices.arithmetic`)."""
    import torch

    torch.set_num_threads(threads)
    os.environ.pop("NVIDIA_TF32_OVERRIDE", None)  # in cuBLAS and cuDNN it outdoes the flags, so the precision's name
    set_arithmetic("float32")
    set_determinism()
