"""Killed at any moment, a verb loses nothing and leaves nothing half-written; the same command then ends as ever."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError, deserialize

from dfeat.errors import UserError
from dfeat.storage.records import check_file

from .conftest import Tried
from .jobs import Job, artifacts, digest_of, is_artifact

KILLS = {"latents": 7, "features": 7, "inpaint": 7, "train": 8, "evaluate": 7, "table": 7, "pixels": 4, "index": 4}


class Watcher(threading.Thread):
    """Reads whatever stands under a final name, over and over, and keeps what was not whole."""

    def __init__(self, folder: Path, whole: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self.folder, self.whole = folder, whole
        self.torn: list[str] = []
        self.looks = 0
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.002):
            self.look()

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def look(self) -> None:
        self.looks += 1
        for path in self.folder.rglob("*"):
            if not is_artifact(path):
                continue
            try:
                content = path.read_bytes()
            except FileNotFoundError:  # a checkpoint goes when its model is there
                continue
            if not self._is_whole(path, content):
                self.torn.append(f"{path.name} of {len(content)} bytes")

    def _is_whole(self, path: Path, content: bytes) -> bool:
        if path.name == "checkpoint.safetensors":
            try:
                return bool(deserialize(content))
            except SafetensorError:
                return False
        try:
            return digest_of(path.name, content) == self.whole[path.relative_to(self.folder).as_posix()]
        except ValueError:
            return False


def wait_for(moment: float, out: Path, writing: bool) -> None:
    """Until `moment` seconds from now; or, for `writing`, until a temporary file is there, and a little longer."""
    deadline = time.monotonic() + (30 if writing else moment)
    while time.monotonic() < deadline:
        if writing and next(out.rglob("*.tmp.*"), None):
            time.sleep(moment / 100)
            return
        time.sleep(0.0005)


@pytest.mark.parametrize("name", KILLS)
def test_a_killed_verb_run_again_ends_as_if_undisturbed(
    name: str, jobs: dict[str, Job], undisturbed: Callable[[str], Path], tmp_path: Path, tried: Tried
) -> None:
    job, whole, log = jobs[name], artifacts(undisturbed(name)), tmp_path / "log"
    out = tmp_path / "out"
    out.mkdir()
    rng = random.Random(name)
    started = time.monotonic()
    assert job.run(tmp_path / "timed", log) == 0
    seconds = time.monotonic() - started
    watcher = Watcher(out, whole)
    watcher.start()
    kills = lost = 0
    while kills < KILLS[name]:
        process = job.start(out, log)
        wait_for(rng.uniform(0, seconds), out, writing=kills % 2 == 1)
        before = artifacts(out)
        process.kill()
        process.join()
        if process.exitcode != -9:  # it was quicker; its results are whole, and the next try starts over them
            assert process.exitcode == 0, log.read_text()
            seconds *= 0.9
            continue
        kills += 1
        after = artifacts(out)
        gone = set(before) - set(after) - {"checkpoint.safetensors"}
        lost += len(gone) + sum(not _readable(out / path) for path in after)
    assert job.run(out, log) == 0, log.read_text()
    watcher.stop()
    watcher.look()
    tried("SIGKILL of a verb, then the same command", kills, "results as undisturbed", lost, len(watcher.torn))
    assert artifacts(out) == whole
    assert not lost
    assert not watcher.torn
    assert watcher.looks > 10
    assert not list(out.rglob("*.tmp.*")), "temporary files of dead processes are swept"


def _readable(path: Path) -> bool:
    try:
        check_file(path, "again")
    except UserError:
        return False
    return True
