"""The machine on which `make gpu` runs, as JSON: card, driver, versions, memory, cores."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from typing import Any, Final

PACKAGES: Final = (
    "torch",
    "torchvision",
    "triton",
    "diffusers",
    "transformers",
    "timm",
    "numpy",
    "pydantic",
    "nvidia-ml-py",
)
ASKED: Final = ("name", "driver_version", "memory.total", "power.limit", "clocks.max.sm", "mig.mode.current")


def machine() -> dict[str, Any]:
    """What torch, the driver and the system tell."""
    import torch

    found = torch.cuda.is_available()
    return {
        "card": torch.cuda.get_device_name() if found else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": driver(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
    }


def driver() -> dict[str, str]:
    """What nvidia-smi tells of the first card; empty where there is none."""
    command = ["nvidia-smi", f"--query-gpu={','.join(ASKED)}", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(ASKED, (cell.strip() for cell in told.splitlines()[0].split(",")), strict=False)) if told else {}


def version(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    print(json.dumps(machine()))
