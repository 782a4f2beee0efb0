"""The machine before a run: its NVIDIA devices, the versions of packages, and what lies on its disk."""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Final

from dfeat.storage.provenance import versions

PACKAGES: Final = (
    "torch",
    "torchvision",
    "timm",
    "diffusers",
    "transformers",
    "safetensors",
    "numpy",
    "pillow",
    "h5py",
    "pycocotools",
    "snakemake",
)


def devices_seen(ask_torch: bool) -> list[str]:
    """Names of the NVIDIA devices of this machine; by the driver's own tool, or by torch, which takes seconds."""
    if ask_torch:
        import torch

        return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        seen = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in seen.stdout.splitlines() if line.strip()]


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result; "missing" for one that is not installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found |= versions(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def bytes_in(folder: Path) -> int:
    """Bytes of all files under a folder, 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0


def free_bytes(path: Path) -> int:
    """Bytes free on the disk that `path` is, or would be, on."""
    path = path.absolute()
    return shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.exists())).free
