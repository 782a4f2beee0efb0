"""Which devices a job computes on, and with how many threads.

Snakemake's `gpu` resource limits how many GPU jobs run at once but does not assign devices to them. So each job leases
its devices here before CUDA starts. Optional environment variables: `DFEAT_LEASES`, the folder of the locks (default
/tmp/dfeat-devices); `DFEAT_SLOTS`, the number of jobs that may share a device (default 1); `DFEAT_DEVICES`, a list that
replaces this machine's devices: of names, to try a workflow on a machine without GPUs (its jobs run on the CPU), or of
CUDA's numbers, where no driver of NVIDIA's lists what torch can use.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dfeat.devices.arithmetic import arithmetic, set_arithmetic
from dfeat.devices.attempts import record
from dfeat.devices.determinism import set_determinism
from dfeat.devices.driver import PRETENDED, machine_devices
from dfeat.devices.energy import meter
from dfeat.devices.leases import jobs_at_once, lease, occupancy, why_none
from dfeat.devices.memory import watch
from dfeat.errors import MachineError
from dfeat.progress import say

if TYPE_CHECKING:
    import torch

__all__ = [
    "arithmetic",
    "compute_on",
    "jobs_at_once",
    "machine_devices",
    "occupancy",
    "pick_device",
    "set_threads",
    "unlisted_fault",
]


def compute_on(gpus: int, threads: int, job: str) -> torch.device:
    """Lease the devices of a job, fix torch's number of threads, and log where the job computes.

    Call it before CUDA starts; returns the first leased device, or the CPU if `gpus` is 0 or the machine has no device.
    Energy (`devices.energy`) and memory (`devices.memory`) are logged when the process ends. A process that a leaseholder started (LOCAL_RANK is
    set) leases nothing and uses the device of its rank among its parent's. Raises MachineError where the driver does not
    work, where torch cannot use a device that it lists, and where torch would use one that it does not list.
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
    if device.type == "cuda" and not devices:
        raise unlisted_fault(torch.cuda.device_count())
    record("device", device=names or str(device))
    if device.type == "cuda":
        meter(devices)
        watch()
        say(f"{job} computes on {names}")
    elif names and any(listed.name != PRETENDED for listed in machine_devices()):
        raise MachineError(
            f"{job} has {names}, and torch cannot use it ({_torch_fault()}); mend that, or compute on the CPU with "
            "resources.gpu: 0"
        )
    elif names:
        say(f"{job} has {names}, which torch cannot use: it computes on the CPU")
    else:
        say(f"{job} computes on the CPU: {why_none() if gpus else 'it asks for no GPU'}")
    return device


def unlisted_fault(count: int) -> MachineError:
    """The error for `count` GPUs that torch can use and the driver does not list: they could not be leased."""
    return MachineError(
        f"torch can use {count} GPUs here, and neither NVML nor nvidia-smi lists one, so that nothing keeps two jobs from "
        'sharing one; install either, or list the GPUs by torch\'s numbers, as in DFEAT_DEVICES="0 1"'
    )


def _torch_fault() -> str:
    """Why torch cannot use CUDA, in its own words."""
    import torch

    try:
        torch.cuda.init()
    except Exception as error:  # an AssertionError of a torch without CUDA, a RuntimeError of the driver
        return next(iter(str(error).splitlines()), type(error).__name__)
    return "torch.cuda.is_available() is false"


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
