"""A job tells what its devices consumed, or nothing: through the real pynvml, from a small NVML library of C."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dfeat.devices import leases
from dfeat.report.tables.measured import ENERGY
from tests.library import compiled

NVML = """
#include <stdlib.h>
#include <string.h>
enum { SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NO_PERMISSION, ALREADY, NOT_FOUND };
typedef struct { const char *uuid; unsigned long long counter, step; int energy, mig, split; } device;
static device devices[] = {
    {"GPU-volta", 5000000000000ULL, 1500, SUCCESS, NOT_SUPPORTED, 0},
    {"GPU-ampere", 70, 250, SUCCESS, SUCCESS, 0},
    {"GPU-pascal", 0, 0, NOT_SUPPORTED, NOT_SUPPORTED, 0},
    {"GPU-split", 70, 250, SUCCESS, SUCCESS, 1},
    {"GPU-still", 70, 0, SUCCESS, SUCCESS, 0},
    {"GPU-reloaded", 900, -800, SUCCESS, SUCCESS, 0},
    {"GPU-lost", 70, 250, UNINITIALIZED, SUCCESS, 0},
};
static int ready;
int nvmlInitWithFlags(unsigned flags) { ready = 1; return getenv("NVML_FAILS") ? 999 : SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return ready ? SUCCESS : UNINITIALIZED; }
int nvmlDeviceGetHandleByIndex_v2(unsigned number, device **found) {
    *found = devices + number;
    return number && getenv("NVML_CONSTRAINED") ? NO_PERMISSION : SUCCESS;
}
int nvmlDeviceGetUUID(device *one, char *uuid, unsigned length) { strncpy(uuid, one->uuid, length); return SUCCESS; }
int nvmlDeviceGetName(device *one, char *name, unsigned length) { strncpy(name, one->uuid + 4, length); return SUCCESS; }
int nvmlDeviceGetHandleByUUID(const char *uuid, device **found) {
    for (device *one = devices; one < devices + sizeof devices / sizeof *devices; one++)
        if (!strcmp(one->uuid, uuid)) { *found = one; return ready ? SUCCESS : UNINITIALIZED; }
    return NOT_FOUND;
}
int nvmlDeviceGetTotalEnergyConsumption(device *one, unsigned long long *millijoules) {
    *millijoules = one->counter;
    one->counter += one->step;
    return one->energy;
}
int nvmlDeviceGetMigMode(device *one, unsigned *current, unsigned *pending) {
    *current = *pending = one->split;
    return one->mig;
}
const char *nvmlErrorString(int code) { return "an error"; }
"""
METER = """
import sys
from dfeat.devices.driver import Device
from dfeat.devices.energy import meter
meter([Device(word, "Card") for word in sys.argv[1:]])
"""
VERB = """
import sys
import torch
torch.cuda.is_available = lambda: sys.argv[1] == "cuda"  # the one thing that only a GPU can say
from dfeat.devices import compute_on
compute_on(2, 1, "inpaint x.h5")
print("computed", file=sys.stderr)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a libnvidia-ml.so.1 whose counters go on by a step each time they are read."""
    return compiled(NVML, tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1").parent


def log_of(script: str, *arguments: str, **environment: str) -> str:
    """What a process writes for its log; it must end well."""
    hidden = {"CUDA_VISIBLE_DEVICES", "DFEAT_DEVICES", "DFEAT_SLOTS", "LOCAL_RANK", *leases.SCHEDULERS, *leases.PARTS}
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, env=kept | environment, stderr=subprocess.PIPE, text=True, check=True).stderr


def test_joules_are_the_difference_of_two_readings(library: Path) -> None:
    log = log_of(METER, "GPU-volta", LD_LIBRARY_PATH=str(library))
    assert log == "dfeat: energy: 1.500 J of GPU-volta\n"
    log = log_of(METER, "GPU-volta", "GPU-ampere", LD_LIBRARY_PATH=str(library))
    assert log == "dfeat: energy: 1.750 J of GPU-volta, GPU-ampere\n"
    assert ENERGY.findall(log) == ["1.750"]


@pytest.mark.parametrize(
    "device", ["GPU-pascal", "GPU-split", "GPU-still", "GPU-reloaded", "GPU-lost", "GPU-none", "MIG-0", "0", "7"]
)
def test_what_is_not_known_of_one_device_is_told_of_none(device: str, library: Path) -> None:
    assert log_of(METER, "GPU-volta", device, LD_LIBRARY_PATH=str(library)) == ""


@pytest.mark.parametrize(
    "environment",
    [{"DFEAT_SLOTS": "2"}, {"SLURM_SHARDS_ON_NODE": "1"}, {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "50"}],
)  # fmt: skip
def test_a_shared_device_tells_nothing(environment: dict[str, str], library: Path) -> None:
    assert log_of(METER, "GPU-volta", LD_LIBRARY_PATH=str(library), **environment) == ""


def test_where_the_drivers_library_fails_or_is_missing_there_is_no_line_and_no_error(
    library: Path, tmp_path: Path
) -> None:
    assert log_of(METER, "GPU-volta", LD_LIBRARY_PATH=str(library), NVML_FAILS="1") == ""
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    assert log_of(METER, "GPU-volta", LD_LIBRARY_PATH=str(tmp_path)) == ""
    (tmp_path / "pynvml.py").write_text("raise ImportError")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    assert log_of(METER, "GPU-volta", PYTHONPATH=path) == ""


def test_numbers_of_a_scheduler_are_understood_where_the_job_sees_no_other_device(library: Path) -> None:
    assert log_of(METER, "0", LD_LIBRARY_PATH=str(library)) == ""  # CUDA's 0 need not be NVML's
    log = log_of(METER, "0", LD_LIBRARY_PATH=str(library), NVML_CONSTRAINED="1")
    assert log == "dfeat: energy: 1.500 J of 0\n"
    assert log_of(METER, "0", "1", LD_LIBRARY_PATH=str(library)) == "dfeat: energy: 1.750 J of 0, 1\n"


def test_pretended_devices_tell_nothing(library: Path) -> None:
    script = (
        "from dfeat.devices import machine_devices; from dfeat.devices.energy import meter; meter(machine_devices())"
    )
    assert log_of(script, LD_LIBRARY_PATH=str(library), DFEAT_DEVICES="GPU-volta") == ""


def test_a_verb_tells_the_energy_of_the_devices_it_leased_when_it_ends(library: Path, tmp_path: Path) -> None:
    machine = {"LD_LIBRARY_PATH": str(library), "DFEAT_LEASES": str(tmp_path / "leases")}
    assert log_of(VERB, "cuda", **machine).splitlines() == [
        "dfeat: inpaint x.h5 computes on GPU-volta (volta), GPU-ampere (ampere)",
        "computed",
        "dfeat: energy: 1.750 J of GPU-volta, GPU-ampere",
    ]
    with pytest.raises(subprocess.CalledProcessError) as refused:
        log_of(VERB, "cpu", **machine)
    assert "energy" not in refused.value.stderr
