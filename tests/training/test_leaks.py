"""Five trainings with workers, one after another: each leaves no process, memory, folder, lease or descriptor behind."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dfeat.devices import occupancy
from dfeat.training import loop
from dfeat.training.checkpoint import TERMINATED
from dfeat.training.settings import TrainStage
from dfeat.training.sources import Inputs
from tests.conftest import DEVICE, World

from .test_team import command, in_two, trained_stage

pytestmark = pytest.mark.slow
stage = pytest.fixture(scope="module")(trained_stage)
FINAL = {"model.safetensors", "metrics.jsonl", "run.json"}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is TMPDIR."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def held(temporary: Path) -> dict[str, object]:
    """What this process holds: open files, its processes and threads, shared memory, temporary folders."""
    own = Path("/proc/self")
    maps = (own / "maps").read_text().splitlines()
    return {
        "descriptors": sorted(filter(None, map(opened, (own / "fd").iterdir()))),
        "processes": [text for path in own.glob("task/*/children") if (text := path.read_text())],
        "threads": threading.active_count(),
        "shared memory": len([line for line in maps if "/dev/shm" in line or "torch_" in line]),
        "names in /dev/shm": shared_by(os.getpid()),
        "temporary": list(temporary.iterdir()),
    }


def opened(descriptor: Path) -> str:
    """What a descriptor is open on; "" for one that is closed by now, as that of the listing."""
    try:
        return str(descriptor.readlink())
    except OSError:
        return ""


def shared_by(process: int) -> list[Path]:
    """The names that a process has in /dev/shm."""
    return [path for path in Path("/dev/shm").iterdir() if f"_{process}_" in path.name]


def test_a_process_that_trains_five_models_holds_no_more_than_before(
    world: World, stage: TrainStage, tmp_path: Path, temporary: Path
) -> None:
    inputs = Inputs(world.train, world.train / "pixels.h5", world.parts)
    few = stage.model_copy(update={"training": stage.training.model_copy(update={"epochs": 2})})
    seen = []
    for number in range(6):  # the first starts what lives as long as the process
        loop.train("none", inputs, few, 0, tmp_path / str(number), DEVICE, workers=2)  # type: ignore[arg-type]
        seen.append(held(temporary))
        assert {path.name for path in (tmp_path / str(number)).iterdir() if path.is_file()} == FINAL
    assert seen[1:] == [seen[0]] * 5


def with_mark(mark: str) -> list[int]:
    """The living processes whose environment has the mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def kill_a_worker(training: int) -> None:
    os.kill(children(training)[0], signal.SIGKILL)


def kill_a_member(training: int) -> None:
    os.kill(
        next(pid for pid in children(training) if b"LOCAL_RANK=1" in Path(f"/proc/{pid}/environ").read_bytes()),
        signal.SIGKILL,
    )


def lasting(temporary: Path, mark: str, training: int) -> tuple[object, ...]:
    """What is left of a training: processes, leases, temporary folders, names in /dev/shm."""
    holders = [holder for _, _, holder in occupancy() if holder]
    return with_mark(mark), holders, list(temporary.iterdir()), shared_by(training)


ENDS: tuple[tuple[str, Callable[[int], None] | None, set[int]], ...] = (
    ("of itself", None, {0}),
    ("a worker killed", kill_a_worker, {1}),
    ("a member of its team killed", kill_a_member, {1}),
    ("stopped", lambda pid: os.kill(pid, signal.SIGTERM), {TERMINATED}),
    ("killed", lambda pid: os.kill(pid, signal.SIGKILL), {-signal.SIGKILL}),
)  # fmt: skip


@pytest.fixture
def marked(tmp_path: Path, temporary: Path) -> Iterator[dict[str, str]]:
    """An environment of two pretended devices that its processes are known by; what is left of them is ended."""
    mark = secrets.token_hex(16)
    yield os.environ | {"DFEAT_DEVICES": "GPU-a GPU-b", "DFEAT_LEASES": str(tmp_path / "leases"), "LEAK_MARK": mark}
    for pid in with_mark(mark):
        os.kill(pid, signal.SIGKILL)


def test_five_trainings_that_end_in_five_ways_leave_nothing(
    world: World, stage: TrainStage, tmp_path: Path, temporary: Path, marked: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("DFEAT_DEVICES", marked["DFEAT_DEVICES"])
    monkeypatch.setenv("DFEAT_LEASES", marked["DFEAT_LEASES"])
    out, log = tmp_path / "out", tmp_path / "log"
    for how, end, statuses in ENDS:
        chosen = in_two(stage) if end is kill_a_member else stage
        words = [*command(world, chosen, out if end is None else tmp_path / how, "none"), "--workers", "2"]
        with log.open("wb") as said:
            training = subprocess.Popen(words, env=marked, stdout=said, stderr=said)
            if end is not None:
                until = time.monotonic() + 120
                while not (tmp_path / how / "checkpoint.safetensors").exists() and time.monotonic() < until:
                    time.sleep(0.01)
                end(training.pid)
            assert training.wait(120) in statuses, (how, log.read_text())
        assert "Traceback" not in log.read_text(), log.read_text()
        until = time.monotonic() + 15
        while any(lasting(temporary, marked["LEAK_MARK"], training.pid)) and time.monotonic() < until:
            time.sleep(0.1)
        assert not any(lasting(temporary, marked["LEAK_MARK"], training.pid)), how
        left = {
            path.name.partition(".tmp.")[0]
            for path in Path(words[words.index("--out") + 1]).iterdir()
            if path.is_file()
        }
        assert left <= (FINAL if end is None else {"checkpoint.safetensors"}), how
