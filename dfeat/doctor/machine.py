"""The machine before a run: its NVIDIA devices, the versions of packages, and what lies on its disk."""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Final

from dfeat.config import Settings
from dfeat.devices import machine_devices, occupancy, unlisted_fault
from dfeat.devices.compiler import compiler_fault
from dfeat.storage.provenance import versions

PACKAGES: Final = (
    "torch", "torchvision", "timm", "diffusers", "transformers", "safetensors", "numpy", "pillow", "h5py", "pycocotools",
    "snakemake",
)  # fmt: skip


def devices_seen(ask_torch: bool) -> list[str]:
    """Names of the NVIDIA devices of this machine; by the driver, or by torch, which takes seconds.

    Raises MachineError where the driver does not work, and where torch finds devices that it does not list.
    """
    listed = [device.name for device in machine_devices()]
    if not ask_torch:
        return listed
    import torch

    found = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    if found and not listed:
        raise unlisted_fault(len(found))
    return found


def devices_held() -> list[str]:
    """A line for each slot of each device: who holds it, or that it is free. Raises as `devices_seen`."""
    slots = [(f"{device.uuid} ({device.name})", slot, holder) for device, slot, holder in occupancy()]
    several = any(slot for _, slot, _ in slots)
    return [
        f"{name}{f', slot {slot}' if several else ''}: {f'held by {holder}' if holder else 'free'}"
        for name, slot, holder in slots
    ]


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result; "missing" for one that is not installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found |= versions(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def compiler_faults(settings: Settings, devices: list[str]) -> list[str]:
    """What this machine lacks to compile what the settings have compiled; nothing where it has no GPU to run it on."""
    wanted = {"diffusion.compile": settings.diffusion.compile, "training.compile": settings.training.compile}
    faults = (compiler_fault(setting, "cuda") for setting, compiled in wanted.items() if compiled and devices)
    return [fault for fault in faults if fault]


def bytes_in(folder: Path) -> int:
    """Bytes of all files under a folder, 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0


def free_bytes(path: Path) -> int:
    """Bytes free on the disk that `path` is, or would be, on."""
    path = path.absolute()
    return shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.exists())).free
