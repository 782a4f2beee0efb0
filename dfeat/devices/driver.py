"""The GPUs of this machine and which of them a process may use, without starting CUDA.

What leaves: devices in the driver's order, from NVML, or from `nvidia-smi -L` where NVML's library is not found. A machine
without a driver, or without a card, has none. A driver that is there and does not work is a fault: the jobs of such a
machine would else compute on its CPU.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from dfeat.errors import MachineError
from dfeat.progress import say
from dfeat.shortage import pass_on

PRETENDED: Final = "pretended"
"""`Device.name` of the devices that DFEAT_DEVICES lists."""
PCI: Final = Path("/sys/bus/pci/devices")
_NOT_LOADED: Final = (9, 12)
"""Exit statuses of nvidia-smi, and errors of NVML, for a driver that is not loaded and for a library that is not found."""
_NO_DEVICE: Final = 6
_NONE: Final = ("NoDevFiles", "void", "none")
"""What schedulers and containers write into CUDA_VISIBLE_DEVICES where a job has no device."""


@dataclass(frozen=True)
class Device:
    """A GPU, or a MIG instance of one."""

    uuid: str
    name: str
    gpu: int = 0
    """The number of the GPU that it is, or is an instance of."""
    aliases: tuple[str, ...] = ()
    """Its other names in CUDA_VISIBLE_DEVICES: an instance goes by the UUID of its GPU, and by a name of older drivers."""


def machine_devices() -> list[Device]:
    """The devices of this machine in the driver's order; DFEAT_DEVICES lists others in their place.

    Raises MachineError, with the driver's own words, where there is a driver that does not work.
    """
    pretended = os.environ.get("DFEAT_DEVICES")
    if pretended is not None:
        names = [name for name in re.split(r"[,\s]+", pretended) if name]
        return [Device(name, PRETENDED, int(name) if name.isdigit() else place) for place, name in enumerate(names)]
    listed = _listed_by_nvml()
    return list(_listed_by_tool() if listed is None else listed)


def driver_fault(said: str) -> MachineError:
    """The error for a driver that does not work; `said` is who reports it, and in which words."""
    return MachineError(
        f"the NVIDIA driver of this machine does not work ({said}); mend it, often by a restart after its update, or compute "
        "on the CPU with resources.gpu: 0"
    )


@cache
def _listed_by_nvml() -> tuple[Device, ...] | None:
    """The devices by the driver's library; None where there is no such library."""
    try:
        import pynvml as nvml
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        missing = isinstance(error, nvml.NVMLError_LibraryNotFound | nvml.NVMLError_FunctionNotFound)
        if missing:
            return None
        if error.value in _NOT_LOADED and not _has_card():
            return ()  # a machine whose system has the driver, and that has no card
        raise driver_fault(f"NVML: {_words(nvml, error)}") from error
    found: list[Device] = []
    faults = []
    for number in range(count):
        try:
            found += _of_gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(number), number)
        except nvml.NVMLError_NoPermission:
            continue  # another job's
        except nvml.NVMLError as error:
            faults.append(f"GPU {number}: {_words(nvml, error)}")
    if faults and not found:
        raise driver_fault(f"NVML: {'; '.join(faults)}")
    for fault in faults:
        say(f"{fault} (NVML); no job is given this one")
    return tuple(found)


def _words(nvml: Any, error: Any) -> str:
    """An error in the words of the driver's library, which people search for; pynvml has others."""
    try:
        return str(nvml.nvmlErrorString(error.value))
    except nvml.NVMLError:
        return str(error)


def _of_gpu(nvml: Any, handle: Any, number: int) -> Iterator[Device]:
    """A GPU, or its instances if it is split into such."""
    uuid, name = nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle)
    if not is_split(nvml, handle):
        yield Device(uuid, name, number)
        return
    for place in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        with suppress(nvml.NVMLError_NotFound):  # places need not be taken in a row
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)
            older = f"MIG-{uuid}/{nvml.nvmlDeviceGetGpuInstanceId(part)}/{nvml.nvmlDeviceGetComputeInstanceId(part)}"
            size = nvml.nvmlDeviceGetName(part).partition("MIG ")[2]
            yield Device(nvml.nvmlDeviceGetUUID(part), f"MIG {size}", number, (uuid, older))


def is_split(nvml: Any, handle: Any) -> bool:
    """Whether NVML's GPU is split into MIG instances."""
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE)
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
        return False  # a card or driver from before MIG


def _listed_by_tool() -> list[Device]:
    """The devices by `nvidia-smi -L`; none where there is no such program."""
    try:
        seen = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, errors="replace", timeout=60)
    except FileNotFoundError:
        return []
    except subprocess.TimeoutExpired:
        raise driver_fault("nvidia-smi -L did not answer within 60 s") from None
    except OSError as error:
        pass_on(error, "nvidia-smi")
        raise driver_fault(f"nvidia-smi: {error.strerror}") from error
    if seen.returncode == _NO_DEVICE or (seen.returncode in _NOT_LOADED and not _has_card()):
        return []
    if seen.returncode:
        words = "; ".join(line.strip() for line in f"{seen.stdout}\n{seen.stderr}".splitlines() if line.strip())
        raise driver_fault(f"nvidia-smi, status {seen.returncode}: {words or 'no words'}")
    return parse_driver_list(seen.stdout)


def parse_driver_list(text: str) -> list[Device]:
    """The devices that `nvidia-smi -L` lists; a GPU that is split into MIG instances is replaced by them."""
    devices: list[Device] = []
    split: set[str] = set()
    whole, number = "", -1
    for line in text.splitlines():
        named = re.match(r"\s*(GPU \d+: (?P<gpu>.*?)|MIG (?P<mig>.*?))\s*\(UUID: (?P<uuid>[^)]+)\)", line)
        if named is None:
            continue
        if named["mig"]:
            split.add(whole)
            devices.append(Device(named["uuid"], f"MIG {named['mig']}", number, (whole,)))
        else:
            whole, number = named["uuid"], number + 1
            devices.append(Device(whole, named["gpu"], number))
    return [device for device in devices if device.uuid not in split]


def _has_card() -> bool:
    """Whether the machine has a graphics card or accelerator of NVIDIA's, whatever drives it."""
    for card in PCI.glob("*"):
        with suppress(OSError):
            if (card / "vendor").read_text().strip() == "0x10de" and (card / "class").read_text().startswith("0x03"):
                return True
    return False


def visible_devices(environment: Mapping[str, str] = os.environ) -> list[Device]:
    """The devices of this machine that CUDA_VISIBLE_DEVICES allows: numbers of GPUs in the driver's order, or UUIDs.

    As in CUDA, a UUID may be abbreviated, the list ends at the first entry that matches no device, and a list that has a
    device twice is empty. A GPU that is split stands for all its instances. Raises as `machine_devices`.
    """
    wanted = environment.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return machine_devices()
    entries = visible_entries(wanted)
    devices = machine_devices() if entries else []
    chosen: list[Device] = []
    for entry in entries:
        found = _called(entry, devices)
        if any(device in chosen for device in found):
            return []
        if not found:
            break
        chosen += found
    return chosen


def visible_entries(wanted: str) -> list[str]:
    """The entries of CUDA_VISIBLE_DEVICES that CUDA reads, as numbers or as names; none where one stands twice.

    CUDA's own reading, as torch.cuda._parse_visible_devices repeats it: a number ends where its digits do, a negative one
    ends the list, and so does an entry of another kind than the first (`NoDevFiles`, `void`).
    """
    entries: list[str] = []
    kinds: set[str] = set()
    for word in (word.strip() for word in wanted.split(",")):
        number = re.match(r"\+?(\d+)", word)
        kinds.add("number" if number else word[:4] if word[:4] in ("GPU-", "MIG-") else "other")
        if len(kinds) > 1 or not word or word.startswith("-") or word in _NONE:
            break
        entries.append(str(int(number[1])) if number else word)
    return entries if len(set(entries)) == len(entries) else []


def _called(entry: str, devices: list[Device]) -> list[Device]:
    """The devices that an entry of CUDA_VISIBLE_DEVICES is a number or name of; none where several names begin so."""
    if entry.isdigit():
        return [device for device in devices if device.gpu == int(entry)]
    names = {name for device in devices for name in (device.uuid, *device.aliases) if name.startswith(entry)}
    exact = {entry} & names or names
    return [device for device in devices if exact & {device.uuid, *device.aliases}] if len(exact) == 1 else []
