"""The whole small run, killed again and again in every rule: it ends with the bytes of an undisturbed one."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from .conftest import Tried
from .jobs import artifacts
from .small_run import SmallRun, unmeasured
from .test_killed import _readable as readable

STEPS = (
    "demo_data", "index_train", "index_evaluation", "pixels", "parts", "inpaint", "inpainted_pixels", "latents",
    "features", "train", "evaluate_on_imagenet_val", "evaluate_on_dfeat_real",
)  # fmt: skip
OF_STEP, OF_REPORT = 3, 2
"""Kills of each rule of the steps, and of each that writes a table, a figure or the page."""
STARTED = re.compile(r"^(?:local)?rule (\w+):$.*?^ +log: (\S+)", re.MULTILINE | re.DOTALL)


class Killer:
    """Starts Snakemake until every rule has had its kills, two of the job alone and one of all processes by turns."""

    def __init__(self, run: SmallRun, left: Counter[str], seconds: dict[str, float]) -> None:
        self.run, self.left, self.seconds = run, left, seconds
        self.killed: Counter[str] = Counter()
        self.torn = 0
        self.rng = random.Random("killed run")

    def kill_all(self) -> None:
        again: list[str] = []
        while +self.left:
            process = self.run.start("--nolock", "--retries", "30", *again)
            self.watch(process)
            assert process.returncode in (0, -signal.SIGKILL), (self.run.folder / "log").read_text()
            again = [] if process.returncode else ["--forcerun", *(+self.left)]  # all is made, and a rule is left

    def watch(self, process: subprocess.Popen[bytes]) -> None:
        """Kill jobs of one Snakemake until it ends."""
        seen = 0
        while process.poll() is None:
            started = self.started()
            if len(started) == seen:
                time.sleep(0.01)
                continue
            seen = len(started)
            rule, log = started[-1]
            if self.left[rule] > 0:
                time.sleep(self.rng.uniform(0, 0.9 * self.seconds[log]))
                if len(self.started()) == seen and process.poll() is None:
                    self.kill(rule, psutil.Process(process.pid))
                else:
                    self.seconds[log] *= 0.7  # it is quicker here than where it was timed

    def started(self) -> list[tuple[str, str]]:
        """Rule and log of every job that this Snakemake has started; one at a time."""
        return STARTED.findall((self.run.folder / "log").read_text())

    def kill(self, rule: str, snakemake: psutil.Process) -> None:
        processes = snakemake.children(recursive=True)
        jobs = [one for one in processes if is_dfeat(one)]
        if not jobs:  # it was quicker, or has not begun
            return
        if sum(self.killed.values()) % 3:
            with contextlib.suppress(psutil.NoSuchProcess):
                jobs[-1].kill()
        else:
            os.killpg(snakemake.pid, signal.SIGKILL)
            psutil.wait_procs([snakemake, *processes], timeout=30)
            self.torn += sum(not readable(self.run.run / name) for name in artifacts(self.run.run))
        self.killed[rule] += 1
        self.left[rule] -= 1


def is_dfeat(process: psutil.Process) -> bool:
    """Whether a process runs a verb."""
    try:
        return any(word.endswith("/dfeat") for word in process.cmdline()[:2])
    except psutil.Error:  # it has ended
        return False


def seconds_of(finished: SmallRun) -> dict[str, float]:
    """How long each job of a finished run took, by its log."""
    found = {}
    for path in finished.run.glob("benchmarks/*/*.tsv"):
        log = path.relative_to(finished.folder).as_posix().replace("/benchmarks/", "/logs/").removesuffix(".tsv")
        found[f"{log}.log"] = float(path.read_text().splitlines()[1].split("\t")[0])
    return found


@pytest.mark.slow
def test_a_run_killed_in_every_rule_ends_with_the_bytes_of_an_undisturbed_one(
    finished: SmallRun, tmp_path: Path, tried: Tried
) -> None:
    rules = set(SmallRun.make(tmp_path / "planned").plan())
    run = SmallRun.make(tmp_path / "run")
    left = Counter({rule: OF_STEP if rule in STEPS else OF_REPORT for rule in rules})
    assert set(STEPS) <= rules
    killer = Killer(run, left, seconds_of(finished))
    killer.kill_all()
    run.finish("--nolock")
    for rule in sorted(rules):
        tried(f"SIGKILL in a whole run, during {rule}", killer.killed[rule], "results as undisturbed")
    tried("files under a final name after these kills", 0, "whole", 0, killer.torn)
    assert sum(killer.killed.values()) >= 60
    assert set(killer.killed) == rules
    assert not killer.torn
    assert unmeasured(run) == unmeasured(finished)
    assert not list(run.run.rglob("*.tmp.*"))
    assert run.plan() == {}
