"""A full disk is one line and status 1; nothing takes its name, what stood there stands, and with space it goes on."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dfeat.storage.atomic import write_bytes
from dfeat.storage.journal import journals
from dfeat.storage.records import read_bytes

from .conftest import Tried
from .jobs import Job, artifacts

VERBS = ("index", "parts", "pixels", "latents", "features", "inpaint", "train", "evaluate", "judge", "table", "figure",
         "ablation", "report", "schema")  # fmt: skip


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here, which wants root: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path, free: int) -> Path:
    """A file that leaves `free` bytes of the disk."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(file.tell() - free)
    return filler


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_on_a_full_disk_says_so_and_leaves_nothing(
    verb: str, jobs: dict[str, Job], undisturbed: Callable[[str], Path], small_disk: Path, tmp_path: Path, tried: Tried
) -> None:
    whole, log, out = artifacts(undisturbed(verb)), tmp_path / "log", small_disk / "out"
    write_bytes(out / "earlier", b"an artifact of an earlier step")
    torn = lost = 0
    for free in (0, 4096):
        filler = fill(small_disk, free)
        status = jobs[verb].run(out, log)
        said = log.read_text().splitlines()
        torn += len(set(artifacts(out)) - {"earlier"})
        lost += read_bytes(out / "earlier", "x") != b"an artifact of an earlier step"
        assert (status, torn, lost) == (1, 0, 0), said
        assert [line for line in said if "No space left on device" in line] == said[-1:], said
        assert said[-1].startswith("dfeat: cannot write"), said
        assert not list(out.rglob("*.tmp.*"))
        filler.unlink()
    assert jobs[verb].run(out, log) == 0, log.read_text()
    made = artifacts(out)
    assert made.pop("earlier")
    assert made == whole
    tried("disk full, then space again", 2, "one line, status 1; then as undisturbed", lost, torn)


@pytest.mark.parametrize("verb", ["latents", "features", "inpaint"])
def test_a_shard_that_does_not_fit_beside_its_journal_is_made_of_it_once_there_is_space(
    verb: str, jobs: dict[str, Job], undisturbed: Callable[[str], Path], small_disk: Path, tmp_path: Path, tried: Tried
) -> None:
    whole, log, out = artifacts(undisturbed(verb)), tmp_path / "log", small_disk / "out"
    size = (undisturbed(verb) / f"{verb}.h5").stat().st_size
    filler = fill(small_disk, size + 4096)
    assert jobs[verb].run(out, log) == 1
    assert log.read_text().splitlines()[-1].startswith("dfeat: cannot write"), log.read_text()
    assert not artifacts(out)
    filler.unlink()
    assert jobs[verb].run(out, log) == 0, log.read_text()
    assert re.search(r"([1-9]\d*) of \1 rows stand", log.read_text())
    assert artifacts(out) == whole
    assert not journals(out / f"{verb}.h5")
    tried("disk full, then space again", 1, "one line, status 1; then as undisturbed")


def test_drawing_the_demo_on_a_full_disk_leaves_no_finished_set(
    jobs: dict[str, Job], small_disk: Path, tmp_path: Path, tried: Tried
) -> None:
    """Its images are inputs, written one by one; the file that says they are complete comes last."""
    filler = fill(small_disk, 40_000)
    assert jobs["demo-data"].run(small_disk / "out", tmp_path / "log") == 1
    assert (tmp_path / "log").read_text().startswith("dfeat: cannot write")
    assert not (small_disk / "out" / "drawn.json").exists()
    filler.unlink()
    assert jobs["demo-data"].run(small_disk / "out", tmp_path / "log") == 0
    assert (small_disk / "out" / "drawn.json").exists()
    tried("disk full, then space again", 1, "one line, status 1; then as undisturbed")


def test_a_model_trained_on_a_full_disk_is_whole_files_or_none(
    jobs: dict[str, Job], undisturbed: Callable[[str], Path], small_disk: Path, tmp_path: Path, tried: Tried
) -> None:
    """Its files are written as they are ready, the log first."""
    whole, log, out = artifacts(undisturbed("demo-model")), tmp_path / "log", small_disk / "out"
    for free in (0, 8192, 40_000):
        filler = fill(small_disk, free)
        assert jobs["demo-model"].run(out, log) == 1
        said = log.read_text().splitlines()
        assert [line for line in said if "No space left on device" in line] == said[-1:], said
        assert said[-1].startswith("dfeat: cannot write")
        for path in (made for made in artifacts(out) if made != "training.jsonl"):
            assert artifacts(out)[path] == whole[path]
        assert not list(out.rglob("*.tmp.*"))
        filler.unlink()
    assert jobs["demo-model"].run(out, log) == 0, log.read_text()
    assert artifacts(out) == whole
    tried("disk full, then space again", 3, "one line, status 1; then as undisturbed")
