"""Snakemake itself killed, its jobs alive or not: the same command again ends as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dfeat.verify import verify_run
from tests.workflow.test_snakemake import ROOT, TINY

from .conftest import Tried
from .jobs import artifacts
from .test_killed import Watcher

SETS = ("train", "imagenet_val", "dfeat_real")
TARGETS = (
    "results/tiny/occlusion/parts.json",
    *(f"results/tiny/data/{set_}/{file}" for set_ in SETS for file in ("index.csv", "pixels.h5")),
)
KILLS = 4


def make_tree(folder: Path, overlay: dict[str, object], workflow: Path = ROOT / "workflow") -> Path:
    """A working folder with the project's workflow in it."""
    folder.mkdir(parents=True)
    for name in ("Snakefile", "config.yaml", "config", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "workflow").symlink_to(workflow)
    (folder / "tiny.json").write_text(json.dumps(overlay))
    return folder


def start(tree: Path, *arguments: str) -> subprocess.Popen[str]:
    """Snakemake in a process group of its own; what it prints goes to `log` in the tree."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    words = [
        sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "config.yaml", "config/demo.yaml", "tiny.json",
        "--rerun-incomplete", *arguments,
    ]  # fmt: skip
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
    with (tree / "log").open("w") as log:
        return subprocess.Popen(
            words, cwd=tree, stdout=log, stderr=log, text=True, env=environment, start_new_session=True
        )


def finish(tree: Path, *arguments: str) -> str:
    """Run Snakemake to its end, which must be a good one."""
    process = start(tree, *arguments)
    assert process.wait(300) == 0, (tree / "log").read_text()
    return (tree / "log").read_text()


def made(tree: Path) -> dict[str, str]:
    """The artifacts of the early steps."""
    run = tree / "results" / "tiny"
    return {
        f"{step}/{name}": digest for step in ("data", "occlusion") for name, digest in artifacts(run / step).items()
    }


def test_a_killed_snakemake_run_again_ends_as_if_undisturbed(tmp_path: Path, tried: Tried) -> None:
    undisturbed, tree = (make_tree(tmp_path / name, TINY) for name in ("undisturbed", "killed"))
    started = time.monotonic()
    finish(undisturbed, *TARGETS)
    seconds = time.monotonic() - started
    whole = made(undisturbed)
    data = tree / "results" / "tiny" / "data"
    data.mkdir(parents=True)
    watcher = Watcher(data, {name.removeprefix("data/"): digest for name, digest in whole.items()})
    watcher.start()
    rng = random.Random("snakemake")
    kills = lost = 0
    while kills < KILLS:
        process = start(tree, "--forceall", *TARGETS)
        time.sleep(rng.uniform(0.3, 1) * seconds)
        if process.poll() is not None:  # it was quicker
            seconds *= 0.8
            continue
        kills += 1
        if kills % 2:
            process.kill()  # its jobs live on beside those that the next one starts
        else:
            os.killpg(process.pid, signal.SIGKILL)  # as when the machine goes down
        process.wait()
        run = tree / "results" / "tiny"
        lost += sum(finding.state == "bad" for finding in verify_run(run))
        finish(tree, "--unlock")
    finish(tree, *TARGETS)
    watcher.stop()
    tried("SIGKILL of Snakemake, then the same command", kills, "results as undisturbed", lost, len(watcher.torn))
    assert made(tree) == whole
    assert not lost
    assert not watcher.torn
    assert "Nothing to be done" in finish(tree, *TARGETS)


@pytest.mark.parametrize("guarded", [True, False], ids=["as it is", "guard taken out"])
def test_a_folder_with_a_command_in_its_name_reaches_no_shell(guarded: bool, tmp_path: Path, tried: Tried) -> None:
    """The workflow quotes what it puts into a command; without its `:q` the command in the name would run."""
    from dfeat.demo.worlds import write_demo_data

    workflow = ROOT / "workflow"
    if not guarded:
        workflow = tmp_path / "unguarded"
        for path in (ROOT / "workflow").rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                target = workflow / path.relative_to(ROOT / "workflow")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(path.read_text().replace(":q}", "}"))
    odd = "data ; touch pwned; $(touch pwned) `touch pwned` && touch pwned # ' x"
    overlay = json.loads(json.dumps(TINY))
    overlay["data"]["drawn"] = None
    overlay["data"]["train"]["root"] = f"{odd}/PartImageNet"
    for name, folder in (("imagenet_val", "imagenet/val"), ("dfeat_real", "dfeat_real")):
        overlay["data"]["evaluation"][name]["root"] = f"{odd}/{folder}"
    tree = make_tree(tmp_path / "tree", overlay, workflow)
    write_demo_data(tree / odd, train=1, val=1, real=1)
    process = start(tree, "--retries", "0", "results/tiny/data/train/index.csv")
    status = process.wait(300)
    assert bool(list(tree.rglob("pwned"))) is not guarded, (tree / "log").read_text()
    assert (status == 0) is guarded
    if guarded:
        tried("command in the name of a folder", 1, "read like any other, no command ran")
