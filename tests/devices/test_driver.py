"""What a machine has by NVML or by nvidia-smi: devices, none, or a driver that does not work, which is no machine without."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dfeat.devices import compute_on, driver, leases
from dfeat.devices.driver import Device, machine_devices, parse_driver_list, visible_devices, visible_entries
from dfeat.errors import MachineError
from tests.library import compiled

NVML = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
enum { SUCCESS, NOT_SUPPORTED = 3, NO_PERMISSION, NOT_FOUND = 6, LOST = 15 };
typedef struct { const char *uuid, *name; int gi, ci; } device;
static device gpus[] = {{"GPU-whole", "Tesla T4"}, {"GPU-split", "NVIDIA A100"}, {"GPU-third", "Tesla T4"}};
static device parts[] = {{"MIG-one", "NVIDIA A100 MIG 1g.5gb", 7, 0}, {0}, {"MIG-two", "NVIDIA A100 MIG 2g.10gb", 3, 0}};
static int set(const char *name) { return getenv(name) ? atoi(getenv(name)) : 0; }
static int copy(const char *from, char *to, unsigned length) { snprintf(to, length, "%s", from); return SUCCESS; }
int nvmlInitWithFlags(unsigned flags) { return set("NVML_INIT"); }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = getenv("NVML_COUNT") ? set("NVML_COUNT") : 3; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned number, device **found) {
    *found = gpus + number;
    return number == 0 ? set("NVML_FIRST") : set("NVML_OTHERS");
}
int nvmlDeviceGetUUID(device *one, char *uuid, unsigned length) { return copy(one->uuid, uuid, length); }
int nvmlDeviceGetName(device *one, char *name, unsigned length) { return copy(one->name, name, length); }
int nvmlDeviceGetMigMode(device *one, unsigned *current, unsigned *pending) {
    *current = *pending = one == gpus + 1;
    return one == gpus ? NOT_SUPPORTED : SUCCESS;
}
int nvmlDeviceGetMaxMigDeviceCount(device *one, unsigned *count) { *count = 3; return SUCCESS; }
int nvmlDeviceGetMigDeviceHandleByIndex(device *one, unsigned place, device **found) {
    *found = parts + place;
    return parts[place].uuid ? SUCCESS : NOT_FOUND;
}
int nvmlDeviceGetGpuInstanceId(device *one, unsigned *number) { *number = one->gi; return SUCCESS; }
int nvmlDeviceGetComputeInstanceId(device *one, unsigned *number) { *number = one->ci; return SUCCESS; }
const char *nvmlErrorString(int code) { return code == 18 ? "Driver/library version mismatch" : "GPU is lost"; }
"""
LIST = """
from dfeat.devices.driver import visible_devices
from dfeat.devices.leases import jobs_at_once
from dfeat.errors import MachineError
try:
    print(*(device.uuid for device in visible_devices()))
except MachineError as error:
    print(error, jobs_at_once())
"""
NAMES = "GPU-whole MIG-one MIG-two GPU-third"
BROKEN = "the NVIDIA driver of this machine does not work ("


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a libnvidia-ml.so.1 of a machine whose second GPU of three is split."""
    return compiled(NVML, tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1").parent


def listed(library: Path, **environment: str) -> tuple[str, str]:
    """What a process with NVML's library prints and says."""
    hidden = {"CUDA_VISIBLE_DEVICES", "DFEAT_DEVICES", "DFEAT_SLOTS", *leases.SCHEDULERS}
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [sys.executable, "-c", LIST]
    done = subprocess.run(
        command, env=kept | {"LD_LIBRARY_PATH": str(library)} | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip(), done.stderr


def test_nvml_comes_before_the_tool(library: Path, tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: V (UUID: GPU-tool)'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    assert listed(library, PATH=path) == (NAMES, "")
    assert listed(tmp_path, PATH=path) == ("GPU-tool", "")  # there is no library


@pytest.mark.parametrize(
    ("environment", "printed", "said"),
    [
        ({"NVML_INIT": "18"}, f"{BROKEN}NVML: Driver/library version mismatch)", ""),
        ({"NVML_FIRST": "4"}, NAMES.removeprefix("GPU-whole "), ""),  # another job's
        ({"NVML_FIRST": "15"}, NAMES.removeprefix("GPU-whole "), "dfeat: GPU 0: GPU is lost (NVML); no job is given this one\n"),
        ({"NVML_FIRST": "4", "NVML_OTHERS": "15"}, f"{BROKEN}NVML: GPU 1: GPU is lost; GPU 2: GPU is lost)", ""),
        ({"NVML_FIRST": "4", "NVML_OTHERS": "4"}, "", ""),
        ({"NVML_COUNT": "0"}, "", ""),
        ({"CUDA_VISIBLE_DEVICES": "1"}, "MIG-one MIG-two", ""),  # numbers are of GPUs
        ({"CUDA_VISIBLE_DEVICES": "2,0"}, "GPU-third GPU-whole", ""),
        ({"CUDA_VISIBLE_DEVICES": "GPU-split"}, "MIG-one MIG-two", ""),
        ({"CUDA_VISIBLE_DEVICES": "MIG-GPU-split/3/0"}, "MIG-two", ""),
        ({"CUDA_VISIBLE_DEVICES": "", "NVML_INIT": "18"}, "", ""),  # the CPU is asked for, and no driver
    ],
)  # fmt: skip
def test_what_nvml_lists(environment: dict[str, str], printed: str, said: str, library: Path) -> None:
    """A driver that does not work says so, and its machine runs one job at a time, to have it said."""
    found, line = listed(library, **environment)
    assert line == said
    assert found.startswith(printed) if printed.startswith(BROKEN) else found == printed
    assert not printed.startswith(BROKEN) or found.endswith("compute on the CPU with resources.gpu: 0 1")


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts an nvidia-smi on the path of a machine without NVML's library, with or without a card."""

    def put(script: str, card: bool = False) -> None:
        (tmp_path / "nvidia-smi").write_text(script)
        (tmp_path / "nvidia-smi").chmod(0o755)
        slot = tmp_path / "pci" / "0000:65:00.0"
        slot.mkdir(parents=True)
        (slot / "vendor").write_text("0x10de\n" if card else "0x1022\n")
        (slot / "class").write_text("0x030200\n")

    for variable in ("DFEAT_DEVICES", "CUDA_VISIBLE_DEVICES", *leases.SCHEDULERS):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(driver, "PCI", tmp_path / "pci")
    monkeypatch.setattr(driver, "_listed_by_nvml", lambda: None)
    return put


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/bin/sh\necho 'Failed to initialize NVML: Unknown Error'\nexit 255\n", "nvidia-smi, status 255: Failed to initialize NVML: Unknown Error"),
        ("#!/bin/sh\necho; echo 'no driver' >&2\nexit 9\n", "nvidia-smi, status 9: no driver"),
        ("#!/bin/sh\nexit 3\n", "nvidia-smi, status 3: no words"),
        ("\x7fELF no program", "nvidia-smi: Exec format error"),
    ],
)  # fmt: skip
def test_a_tool_that_fails_is_a_driver_that_does_not_work(script: str, words: str, tool: Callable[..., None]) -> None:
    tool(script, card=True)
    with pytest.raises(MachineError) as error:
        compute_on(1, 1, "train x")
    assert str(error.value).startswith(f"{BROKEN}{words})")
    assert compute_on(0, 1, "train x").type == "cpu"


@pytest.mark.parametrize(
    "script",
    ["#!/bin/sh\necho 'No devices were found'\nexit 6\n", "#!/bin/sh\necho 'no driver'\nexit 9\n", "#!/bin/sh\nexit 12\n", "#!/bin/sh\n"],
)  # fmt: skip
def test_a_machine_without_a_card_or_a_device_is_no_fault(
    script: str, tool: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    tool(script)
    assert machine_devices() == []
    assert compute_on(1, 1, "train x").type == "cpu"
    assert capsys.readouterr().err == "dfeat: train x computes on the CPU: no GPU was found\n"


def test_a_listed_device_that_torch_cannot_use_is_no_machine_without_one(
    tool: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that is older than torch's CUDA, for one."""
    import torch

    def init() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nUpdate it")

    tool("#!/bin/sh\necho 'GPU 0: Tesla T4 (UUID: GPU-old)'\n")
    monkeypatch.setenv("DFEAT_LEASES", str(tmp_path / "leases"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(leases, "_taken", [])
    said = r"train x has GPU-old \(Tesla T4\), and torch cannot use it \(The NVIDIA driver on your system is too old"
    with pytest.raises(MachineError, match=said):
        compute_on(1, 1, "train x")
    monkeypatch.setattr(leases, "_taken", [])
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(MachineError, match=r"train x has 0 \(assigned by SLURM\), and torch cannot use it"):
        compute_on(1, 1, "train x")


def test_what_torch_alone_finds_is_refused_and_may_be_listed_by_number(
    tool: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(MachineError, match="torch can use 2 GPUs here, and neither NVML nor nvidia-smi lists one"):
        compute_on(1, 1, "train x")
    monkeypatch.setenv("DFEAT_DEVICES", "0 1")
    monkeypatch.setenv("DFEAT_LEASES", str(tmp_path / "leases"))
    monkeypatch.setattr(leases, "_taken", [])
    assert compute_on(1, 1, "train x").type == "cuda"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert "train x computes on 0 (pretended)" in capsys.readouterr().err


DRIVER = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f)
  MIG 1g.5gb      Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 2g.10gb     Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
Unable to determine the device handle for GPU 0000:65:00.0: Unknown Error
GPU 1: Tesla T4 (UUID: GPU-d7e2a1b3-0000-1111-2222-333344445555)
"""


def test_the_drivers_list_is_read_with_its_split_devices() -> None:
    devices = parse_driver_list(DRIVER)
    assert [(device.uuid[:8], device.gpu) for device in devices] == [("MIG-c6d4", 0), ("MIG-cba6", 0), ("GPU-d7e2", 1)]
    assert devices[2] == Device("GPU-d7e2a1b3-0000-1111-2222-333344445555", "Tesla T4", 1)
    assert "1g.5gb" in devices[0].name
    assert parse_driver_list("No devices were found\n") == []


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, "abc"), ("", ""), ("-1", ""), ("2,0", "ca"), ("0,7,1", "a"), ("GPU-b,GPU-a", "ba"), (" 1 , 2", "bc"), ("7", ""),
        ("1,1", ""), ("1, 1", ""), ("GPU-b,GPU-b1", ""), ("0,0x1", ""), ("+1,2", "bc"), ("1gpu2,2ampere", "bc"), ("0,-1,1", "a"),
        ("0,,1", "a"), ("NoDevFiles", ""), ("void", ""), ("none", ""), ("all", ""), ('"1"', ""), ("GPU-", ""), ("GPU-a,1", "a"),
        ("0,GPU-b", "a"), ("MIG-x", ""), (",", ""),
    ],
)  # fmt: skip
def test_visible_devices_are_read_as_cuda_reads_them(
    wanted: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFEAT_DEVICES", "GPU-a1, GPU-b1, GPU-c1")
    environment = {} if wanted is None else {"CUDA_VISIBLE_DEVICES": wanted}
    assert "".join(device.uuid[4] for device in visible_devices(environment)) == expected


@pytest.mark.parametrize(
    "wanted",
    [
        "0",
        "1,0",
        "1,1",
        "-1",
        "",
        "0,-1,1",
        "1gpu2,2ampere",
        "GPU-a,GPU-b",
        "GPU-a,GPU-a",
        "GPU-a,1",
        "MIG-a,GPU-b",
        "NoDevFiles",
        "+1",
    ],
)
def test_entries_are_those_that_torch_reads(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.cuda

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", wanted)
    assert visible_entries(wanted) == [str(entry) for entry in torch.cuda._parse_visible_devices()]
