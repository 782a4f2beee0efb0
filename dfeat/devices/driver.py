"""The GPUs of this machine and which of them a process may use, without starting CUDA."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dfeat.shortage import pass_on

PRETENDED: Final = "pretended"
"""`Device.name` of the devices that DFEAT_DEVICES lists."""


@dataclass(frozen=True)
class Device:
    """A GPU, or a MIG instance of one."""

    uuid: str
    name: str


def machine_devices() -> list[Device]:
    """The devices of this machine in the driver's order, from `nvidia-smi -L`, which does not start CUDA."""
    pretended = os.environ.get("DFEAT_DEVICES")
    if pretended is not None:
        return [Device(name, PRETENDED) for name in re.split(r"[,\s]+", pretended) if name]
    try:
        seen = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        pass_on(error, "nvidia-smi")  # a machine whose devices are not seen would compute on its CPU
        return []
    return parse_driver_list(seen.stdout)


def parse_driver_list(text: str) -> list[Device]:
    """The devices that `nvidia-smi -L` lists; a GPU that is split into MIG instances is replaced by them."""
    devices: list[Device] = []
    split: set[str] = set()
    whole = ""
    for line in text.splitlines():
        named = re.match(r"\s*(GPU \d+: (?P<gpu>.*?)|MIG (?P<mig>.*?))\s*\(UUID: (?P<uuid>[^)]+)\)", line)
        if named is None:
            continue
        if named["mig"]:
            split.add(whole)
        else:
            whole = named["uuid"]
        devices.append(Device(named["uuid"], named["gpu"] or f"MIG {named['mig']}"))
    return [device for device in devices if device.uuid not in split]


def visible_devices(environment: Mapping[str, str] = os.environ) -> list[Device]:
    """The devices of this machine that CUDA_VISIBLE_DEVICES allows: numbers in the driver's order, or UUIDs.

    As in CUDA, a UUID may be abbreviated, and the list ends at the first entry that matches no device.
    """
    devices = machine_devices()
    wanted = environment.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return devices
    chosen: list[Device] = []
    for entry in (word.strip() for word in wanted.split(",")):
        if entry.isdigit():
            found = devices[int(entry) : int(entry) + 1]
        else:
            found = [device for device in devices if entry and device.uuid.startswith(entry)][:1]
        if not found:
            break
        chosen += [device for device in found if device not in chosen]
    return chosen
