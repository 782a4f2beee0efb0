"""Two processes want one real device: the second waits, says for whom, and computes after the first, however that ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfeat.devices.leases import SCHEDULERS
from tests.conftest import DEVICE

pytestmark = pytest.mark.gpu

HOLD = """
import sys, time
from dfeat.devices import compute_on
device = compute_on(1, 1, sys.argv[1])
import torch
begun = time.monotonic()
total = torch.ones(1000, device=device).sum().item()
print("computes", device.type, total, flush=True)
sys.stdin.read()
print(begun, time.monotonic(), flush=True)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """One device of this machine, or a pretended one where there is none."""
    kept = {name: value for name, value in os.environ.items() if name not in (*SCHEDULERS, "DFEAT_SLOTS", "LOCAL_RANK")}
    visible = kept.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    one = {"CUDA_VISIBLE_DEVICES": visible} if DEVICE.type == "cuda" else {"DFEAT_DEVICES": "GPU-a"}
    if DEVICE.type == "cpu":
        kept.pop("CUDA_VISIBLE_DEVICES", None)
    return kept | one | {"DFEAT_LEASES": str(tmp_path / "leases")}


@pytest.fixture
def jobs(environment: dict[str, str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are ended with the test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for job in started:
        job.kill()
        job.communicate()


def begin(jobs: list[subprocess.Popen[str]], environment: dict[str, str], name: str) -> subprocess.Popen[str]:
    """A process that leases the device, computes on it, and holds it until its standard input is closed."""
    piped = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    jobs.append(subprocess.Popen([sys.executable, "-c", HOLD, name], env=environment, text=True, **piped))
    return jobs[-1]


@pytest.mark.parametrize("killed", [False, True])
def test_a_second_process_computes_when_the_first_has_ended(
    jobs: list[subprocess.Popen[str]], environment: dict[str, str], killed: bool
) -> None:
    first = begin(jobs, environment, "first")
    assert first.stdout and first.stdout.readline().split() == ["computes", DEVICE.type, "1000.0"]
    second = begin(jobs, environment, "second")
    assert second.stderr
    waits = next(line for line in second.stderr if "second" in line)
    assert "second waits for 1 of 1 devices, held by dfeat first (process" in waits
    if killed:
        first.kill()
    ended = float((first.communicate(timeout=120)[0].split() or ["0"])[-1])
    out, said = second.communicate(timeout=120)
    assert second.returncode == 0, said
    assert out.split()[:3] == ["computes", DEVICE.type, "1000.0"]
    assert float(out.split()[3]) >= ended > 0 or killed
