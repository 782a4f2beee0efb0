"""Two Snakemakes on one tree, and one that is killed while its jobs live on: nothing lost, nothing torn, equal results."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfeat.config import stage_settings
from dfeat.config.files import read_settings
from dfeat.storage.shards import read_shard
from tests.conftest import CPU
from tests.workflow.journal import overlaps, read_journal
from tests.workflow.test_devices import environment
from tests.workflow.test_snakemake import ROOT, TINY

pytestmark = pytest.mark.cluster
SHARDS = 4


def settings_of(run: str) -> dict:
    """A run of that name over the same drawn data, inpainted in a few shards."""
    moved = json.loads(json.dumps(TINY).replace("results/tiny/", f"results/{run}/"))
    return {**moved, "run": run, "diffusion": {"inpaint": {"steps": 1, "shards": SHARDS}}}


def shards_of(run: str) -> list[str]:
    return [f"results/{run}/diffusion/inpaint/train/{number}-of-{SHARDS}.h5" for number in range(SHARDS)]


class Tree:
    """A working folder with two runs, on two pretended devices, and what was started in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.started = folder, []
        for name in ("Snakefile", "workflow", "config.yaml", "config", "profiles"):
            (folder / name).symlink_to(ROOT / name)
        for run in ("one", "other"):
            (folder / f"{run}.json").write_text(json.dumps(settings_of(run)))
        for run in ("one", "other"):
            assert self.start(run, f"results/{run}/occlusion/parts.json").wait() == 0

    def command(self, run: str, *arguments: str) -> list[str]:
        configs = ["config.yaml", "config/demo.yaml", f"{run}.json"]
        return [
            sys.executable, "-m", "snakemake", "--cores", "2", "--resources", "gpu=2", "--configfile", *configs,
            "--", *arguments,
        ]  # fmt: skip

    def start(self, run: str, *targets: str) -> subprocess.Popen[bytes]:
        """Start a Snakemake; what it says goes to a file, since its jobs may outlive it."""
        said = (self.folder / f"said-{len(self.started)}.log").open("wb")
        variables = environment(self.folder, DFEAT_DEVICES="GPU-0 GPU-1")
        process = subprocess.Popen(
            self.command(run, *targets), cwd=self.folder, env=variables, stdout=said, stderr=said
        )
        self.started.append(process)
        return process

    def said(self, process: subprocess.Popen[bytes]) -> str:
        return (self.folder / f"said-{self.started.index(process)}.log").read_text()

    def wait_for_jobs(self, count: int) -> None:
        """Until so many jobs have taken a device."""
        journal, until = self.folder / "journal", time.monotonic() + 300
        while time.monotonic() < until:
            if journal.exists() and len(read_journal(journal)) >= count:
                return
            time.sleep(0.1)
        raise AssertionError("no job started")

    def check(self, run: str) -> None:
        """Every shard is whole and holds what one process makes that nothing disturbs; no piece of another lies about."""
        from dfeat.diffusion.inpaint import inpaint_shard

        names = ["config.yaml", "config/demo.yaml", f"{run}.json"]
        settings = stage_settings(read_settings([self.folder / name for name in names]), "inpaint")
        index, parts = self.folder / f"results/{run}/data/train", self.folder / f"results/{run}/occlusion/parts.json"
        for number, shard in enumerate(shards_of(run)):
            alone = self.folder / f"alone-{run}-{number}.h5"
            inpaint_shard(index, parts, settings, alone, CPU, (number, SHARDS))
            read_shard(self.folder / shard, "inpaint")
            assert alone.read_bytes() == (self.folder / shard).read_bytes(), shard
        assert not list(self.folder.glob("results/**/*.tmp.*"))


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tree]:
    monkeypatch.chdir(tmp_path)
    made = Tree(tmp_path)
    yield made
    for process in made.started:
        process.kill()


def test_two_snakemakes_on_one_tree(tree: Tree) -> None:
    one = tree.start("one", *shards_of("one"))
    tree.wait_for_jobs(1)
    same = tree.start("one", *shards_of("one"))  # the same files: Snakemake's own lock refuses it
    other = tree.start("other", *shards_of("other"))  # another run: they share the devices
    assert same.wait() != 0
    assert "LockException" in tree.said(same)
    assert one.wait() == 0, tree.said(one)
    assert other.wait() == 0, tree.said(other)
    entries = read_journal(tree.folder / "journal")
    assert len(entries) == 2 * SHARDS
    assert overlaps(entries) == []
    tree.check("one")
    tree.check("other")


def test_a_killed_snakemake_whose_jobs_live_on_is_started_again(tree: Tree) -> None:
    killed = tree.start("one", *shards_of("one"))
    tree.wait_for_jobs(1)
    killed.kill()
    killed.wait()
    unlocked = subprocess.run(
        [*tree.command("one")[:-1], "--unlock"], cwd=tree.folder, env=environment(tree.folder), capture_output=True
    )
    assert unlocked.returncode == 0, unlocked.stderr
    again = tree.start("one", *shards_of("one"))
    assert again.wait() == 0, tree.said(again)
    until = time.monotonic() + 120
    while any(entry.end == float("inf") for entry in read_journal(tree.folder / "journal")):  # those that lived on
        assert time.monotonic() < until
        time.sleep(0.2)
    time.sleep(2)
    assert overlaps(read_journal(tree.folder / "journal")) == []
    tree.check("one")
