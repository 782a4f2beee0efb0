"""Two jobs never compute on one device, however they end; who waits knows for whom. Real processes, pretended devices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfeat.cli import main
from dfeat.devices import compute_on, leases
from dfeat.devices.leases import jobs_at_once, lease
from dfeat.errors import UserError
from tests.workflow.journal import JournalEntry, overlaps

HOLD = """
import sys
from dfeat.devices.leases import lease
print(*(device.uuid for device in lease(int(sys.argv[1]), sys.argv[2])), flush=True)
sys.stdin.read()
"""


class Job:
    """A process that takes devices and holds them until it is ended."""

    def __init__(self, count: int, name: str, **environment: str) -> None:
        command = [sys.executable, "-c", HOLD, str(count), name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | environment,
        )  # fmt: skip

    def devices(self) -> list[str]:
        """Its devices, once it has them."""
        assert self.process.stdout
        return self.process.stdout.readline().split()

    def says(self) -> str:
        """The next line of its log."""
        assert self.process.stderr
        return self.process.stderr.readline()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Job]]:
    """Jobs on a machine of two pretended devices; what is still alive at the end is ended."""
    monkeypatch.setenv("DFEAT_LEASES", str(tmp_path / "leases"))
    monkeypatch.setenv("DFEAT_DEVICES", "GPU-a GPU-b")
    for variable in ("CUDA_VISIBLE_DEVICES", "DFEAT_SLOTS", *leases.SCHEDULERS):
        monkeypatch.delenv(variable, raising=False)
    alive: list[Job] = []

    class Kept(Job):
        def __init__(self, count: int, name: str, **environment: str) -> None:
            super().__init__(count, name, **environment)
            alive.append(self)

    yield Kept
    for job in alive:
        job.kill()


def test_a_killed_job_gives_its_device_to_the_one_that_waits(jobs: type[Job]) -> None:
    first, second = jobs(1, "first"), jobs(1, "second")
    one, other = first.devices(), second.devices()
    assert sorted(one + other) == ["GPU-a", "GPU-b"]
    third = jobs(1, "third")
    line = third.says()
    assert "third waits for 1 of 2 devices" in line
    assert f"dfeat first (process {first.process.pid} of " in line and "dfeat second (process" in line
    first.kill()
    assert third.devices() == one


def test_who_wants_several_gets_all_or_none_and_is_not_starved(jobs: type[Job]) -> None:
    first = jobs(1, "first")
    taken = first.devices()
    both = jobs(2, "both")
    assert "both waits for 2 of 2 devices, held by dfeat first" in both.says()
    late = jobs(1, "late")  # finds a free device, and one that came before it and wants both
    with pytest.raises(subprocess.TimeoutExpired):
        late.process.wait(1.5)
    free = next(name for name in ("GPU-a", "GPU-b") if [name] != taken)
    assert {device.uuid: holder for device, _, holder in leases.occupancy()}[free] is None  # none is held unused
    first.kill()
    assert both.devices() == ["GPU-a", "GPU-b"]
    both.kill()
    assert late.devices()[0] in ("GPU-a", "GPU-b")


def test_slots_share_a_device_once_every_device_has_a_job(jobs: type[Job]) -> None:
    running = [jobs(1, f"job {number}", DFEAT_SLOTS="2") for number in range(4)]
    assert sorted(job.devices()[0] for job in running) == ["GPU-a", "GPU-a", "GPU-b", "GPU-b"]
    assert "waits" in jobs(1, "fifth", DFEAT_SLOTS="2").says()


def test_only_visible_devices_are_taken(jobs: type[Job]) -> None:
    assert jobs(1, "one", CUDA_VISIBLE_DEVICES="1").devices() == ["GPU-b"]
    assert "waits for 1 of 1 devices" in jobs(1, "another", CUDA_VISIBLE_DEVICES="GPU-b").says()


def test_what_a_scheduler_assigned_is_taken_as_it_is(jobs: type[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    jobs(1, "somebody", CUDA_VISIBLE_DEVICES="0").devices()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert [(device.uuid, device.name) for device in lease(1, "x")] == [("0", "assigned by SLURM")]
    with pytest.raises(UserError, match="wants 2 devices and SLURM assigned it 1; ask it for 2"):
        lease(2, "x")
    for none in ("NoDevFiles", "-1", "void"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert lease(1, "x") == []
        assert leases.why_none() == f"SLURM assigned it no GPU (CUDA_VISIBLE_DEVICES={none})"
    # a local Snakemake inside one job that was given the whole node: its jobs share what was assigned
    assert jobs(1, "first", CUDA_VISIBLE_DEVICES="0,1").devices() == ["GPU-b"]


def test_a_cleaned_folder_does_not_let_two_in(jobs: type[Job], tmp_path: Path) -> None:
    jobs(2, "before").devices()
    for lock in (tmp_path / "leases").iterdir():
        lock.rename(lock.with_suffix(".moved"))
    after = jobs(1, "after")
    assert after.devices() == ["GPU-a"]  # nobody can know of locks that were deleted, but new ones hold again
    assert "waits" in jobs(2, "last").says()


def test_more_devices_than_there_are_is_a_sentence(jobs: type[Job]) -> None:
    with pytest.raises(UserError, match=r"train x asks for 3 devices and may use 2 here; lower training\.gpus"):
        lease(3, "train x")


def test_a_folder_that_cannot_be_written_is_a_sentence(
    jobs: type[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DFEAT_LEASES", str(tmp_path / "file" / "leases"))
    with pytest.raises(UserError, match="set DFEAT_LEASES to a folder of this machine"):
        lease(1, "x")
    monkeypatch.setenv("DFEAT_SLOTS", "none")
    with pytest.raises(UserError, match="DFEAT_SLOTS is 'none'"):
        leases.occupancy()


def test_the_doctor_lists_devices_and_holders(
    jobs: type[Job], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = jobs(1, "inpaint results/paper/0-of-12.h5")
    taken = job.devices()[0]
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    configs = [word for name in ("config.yaml", "config/demo.yaml") for word in ("--config", name)]
    monkeypatch.setattr(sys, "argv", ["dfeat", "doctor", *configs])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    said = capsys.readouterr().out
    assert f"{taken} (pretended): held by dfeat inpaint results/paper/0-of-12.h5 (process {job.process.pid}" in said
    assert said.count("(pretended): free") == 1


def test_without_a_gpu_one_line_says_that_the_cpu_computes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DFEAT_DEVICES", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert compute_on(1, 2, "inpaint x.h5").type == "cpu"
    assert compute_on(0, 2, "inpaint x.h5").type == "cpu"
    assert capsys.readouterr().err.splitlines() == [
        "dfeat: inpaint x.h5 computes on the CPU: no GPU was found",
        "dfeat: inpaint x.h5 computes on the CPU: it asks for no GPU",
    ]
    assert jobs_at_once() == os.cpu_count()


def test_overlaps_are_found() -> None:
    """The oracle of the workflow tests can fail."""
    a = JournalEntry("GPU-a", 1, 0.0, 2.0)
    assert overlaps([a, JournalEntry("GPU-a", 2, 1.0, 3.0)]) == [(a, JournalEntry("GPU-a", 2, 1.0, 3.0))]
    assert overlaps([a, JournalEntry("GPU-a", 2, 2.5, 3.0), JournalEntry("GPU-b", 3, 1.0, 2.0)]) == []
