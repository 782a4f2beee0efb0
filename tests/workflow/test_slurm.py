"""The built-in run's GPU rules through profiles/slurm on a real SLURM: `make test-slurm` installs and starts it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dfeat.config.files import lay_over
from dfeat.verify import verify_run
from tests.workflow import slurm
from tests.workflow.journal import dfeat_on_the_path, overlaps, read_journal
from tests.workflow.test_golden_plan import tree_in
from tests.workflow.test_settings_arrive import RECORDER, by_log
from tests.workflow.test_snakemake import ROOT, TINY

pytestmark = pytest.mark.cluster
CONFIGS = ["config.yaml", "config/demo.yaml", "small.json"]
SMALL = {
    **TINY,
    "diffusion": {"inpaint": {"steps": 1, "shards": 2}},
    "training": {"methods": ["none", "sd_features"], "epochs": 1, "backbones": {"swin": None}},
}
TABLES = [f"results/tiny/report/{table}.{kind}" for table in ("table1", "table2") for kind in ("csv", "md", "tex")]
INPAINTED = [f"results/tiny/diffusion/inpaint/train/{number}-of-2.h5" for number in range(2)]
CPU_STEPS = [f"results/tiny/data/{name}/pixels.h5" for name in ("train", "imagenet_val", "dfeat_real")]
TOY = ["--slurm-no-account", "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "5"]
PROFILE = ["--workflow-profile", "profiles/slurm", "--latency-wait", "10", "--seconds-between-status-checks", "3"]
GPU_JOBS = 2 + 4 + 4 + 2 + 2 * 2
"""Inpaint, latents and features of two views and two sets, train two methods, evaluate each on both sets."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """The environment of a running SLURM of two nodes with two pretended GPUs each."""
    missing = slurm.missing()
    if missing:
        pytest.skip(f"no SLURM here ({', '.join(missing)} missing); `make test-slurm` installs it where apt-get may")
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="install the extra: pip install -e '.[slurm]'")
    folder = Path(tempfile.mkdtemp(prefix="slurm"))  # short: a socket's path has at most 107 characters
    try:
        yield slurm.start(folder)
    finally:
        slurm.stop(folder)
        time.sleep(2)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which the steps that need no GPU are done."""
    folder = tmp_path_factory.mktemp("prepared")
    for name in ("Snakefile", "workflow", "config.yaml", "config", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "small.json").write_text(json.dumps(SMALL))
    result = snakemake(
        folder,
        os.environ | {"PATH": path_with()},
        "--cores",
        "2",
        "--",
        *CPU_STEPS,
        "results/tiny/occlusion/parts.json",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def path_with(*first: str) -> str:
    return os.pathsep.join([*first, str(Path(sys.executable).parent), os.environ["PATH"]])


TOY = ["--slurm-no-account", "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "5"]
PROFILE = ["--workflow-profile", "profiles/slurm", "--latency-wait", "10", "--seconds-between-status-checks", "3"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", "--configfile", *CONFIGS, *arguments]


def snakemake(tree: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=tree, env=environment, capture_output=True, text=True)


def cancel_first(rule: str, environment: dict[str, str], run: subprocess.Popen[bytes]) -> str:
    """Cancel the first job of a rule that SLURM runs; returns its number."""
    while run.poll() is None:
        listed = ["squeue", "-h", "-t", "running", "-O", "JobID:20,Comment:200"]
        seen = subprocess.run(listed, env=environment, capture_output=True, text=True).stdout
        for line in seen.splitlines():
            if f"rule_{rule}" in line:
                job = line.split()[0]
                time.sleep(2)
                subprocess.run(["scancel", job], env=environment, check=True)
                return job
        time.sleep(0.5)
    return ""


def edited(tree: Path, **changes: Any) -> None:
    """Lay changes over the small configuration of a tree, as a user edits it."""
    whole = json.loads(json.dumps(SMALL))
    lay_over(whole, changes)
    (tree / "small.json").write_text(json.dumps(whole))


def wait_for_running(rule: str, environment: dict[str, str], run: subprocess.Popen[bytes], log: Path) -> None:
    """Until SLURM runs a job of the rule."""
    listed = ["squeue", "-h", "-t", "running", "-O", "Comment:200"]
    while f"rule_{rule}" not in subprocess.run(listed, env=environment, capture_output=True, text=True).stdout:
        assert run.poll() is None, log.read_text()
        time.sleep(0.5)


def test_an_edit_in_mid_run_reaches_no_job_of_this_snakemake(
    cluster: dict[str, str], prepared: Path, tmp_path: Path
) -> None:
    """A job reads the rules again on its node, after the files were edited: it takes the settings handed over to it."""
    tree = tmp_path / "tree"
    shutil.copytree(prepared, tree, symlinks=True)
    environment = cluster | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), cluster["PATH"]])}
    log, table = tree / "snakemake.log", "results/tiny/report/table1.csv"
    rate = {"training": {"learning_rate": 0.5}}
    level = {"data": {"evaluation": {"imagenet_val": {"levels": [0, 20, 40]}}}}
    with log.open("wb") as stream:
        run = subprocess.Popen(
            command(*PROFILE, *TOY, "--", table), cwd=tree, env=environment, stdout=stream, stderr=stream
        )
        try:
            wait_for_running("latents", environment, run, log)
            edited(tree, **rate)
            wait_for_running("train", environment, run, log)
            edited(tree, **rate, **level)
            assert run.wait(1200) == 0, log.read_text()
        finally:
            run.kill()
    assert made_with(tree) == ({0.01}, {(0, 40)})
    again = snakemake(tree, os.environ | {"PATH": path_with()}, "--cores", "2", "--", table)
    assert again.returncode == 0, again.stdout + again.stderr
    assert made_with(tree) == ({0.5}, {(0, 20, 40)})
    assert {finding.state for finding in verify_run(tree / "results/tiny")} <= {"whole", "left over"}


def made_with(tree: Path) -> tuple[set[float], set[tuple[int, ...]]]:
    """The learning rates of a run's models, and the levels that they were evaluated at."""
    runs = [json.loads(path.read_text()) for path in tree.glob("results/tiny/training/*/*/*/run.json")]
    said = [json.loads(path.read_text()) for path in tree.glob("results/tiny/evaluation/*/*/*/imagenet_val.json")]
    rates = {run["settings"]["training"]["learning_rate"] for run in runs}
    return rates, {tuple(one["settings"]["levels"]["imagenet_val"]) for one in said}


def test_the_tables_through_slurm_equal_a_local_runs(cluster: dict[str, str], prepared: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for tree in (here, there):
        shutil.copytree(prepared, tree, symlinks=True)
    environment = cluster | {
        "PATH": os.pathsep.join(
            [str(dfeat_on_the_path(there / "bin")), str(Path(sys.executable).parent), cluster["PATH"]]
        ),
        "PYTHONPATH": str(ROOT),
        "JOURNAL": str(there / "journal"),
    }
    log = there / "snakemake.log"
    with log.open("wb") as stream:
        run = subprocess.Popen(
            command(*PROFILE, *TOY, "--", *TABLES, *INPAINTED), cwd=there, env=environment, stdout=stream, stderr=stream
        )
        try:
            cancelled = cancel_first("inpaint", environment, run)
            assert run.wait(1200) == 0, log.read_text()
        finally:
            run.kill()
    assert cancelled
    said = log.read_text()
    assert re.search(rf"Error in rule inpaint.*external_jobid: {cancelled}\b", said, re.S), said
    entries = read_journal(there / "journal")
    assert {entry.device for entry in entries} >= {"n1:0", "n1:1"}
    ended = [entry for entry in entries if entry.end < float("inf")]
    assert len(entries) - len(ended) <= 1  # the cancelled one wrote no end
    assert overlaps(ended) == []
    logs = [
        path
        for step in ("diffusion", "training", "evaluation")
        for path in (there / f"results/tiny/logs/{step}").iterdir()
    ]
    assert len(logs) == GPU_JOBS
    assert all("(assigned by SLURM)" in path.read_text() for path in logs)
    local = snakemake(here, os.environ | {"PATH": path_with()}, "--cores", "2", "--", *TABLES, *INPAINTED)
    assert local.returncode == 0, local.stdout + local.stderr
    for name in TABLES + INPAINTED:
        assert (here / name).read_bytes() == (there / name).read_bytes(), name


def recorder(record: Path, jobs: dict[str, tuple[list[str], str]], first: str) -> None:
    """Put a `dfeat` into a folder that runs a line of shell, writes down its words and makes the outputs of its job."""
    (record / "outputs.json").write_text(json.dumps({log: outputs for log, (outputs, _) in jobs.items()}))
    (record / "recorder").write_text(RECORDER.format(python=sys.executable, folder=str(record)))
    (record / "dfeat").write_text(f'#!/bin/sh\n{first}\nexec "{record}/recorder" "$@"\n')
    for name in ("recorder", "dfeat"):
        (record / name).chmod(0o755)


TAKES = """
import sys
from dfeat.devices.leases import lease
devices = lease(int(sys.argv[sys.argv.index("--gpus") + 1]), "x") if "--gpus" in sys.argv else []
print(sys.argv[1], *(f"{device.uuid} ({device.name})" for device in devices))
"""


@pytest.mark.parametrize(
    ("request_", "options", "asked", "taken"),
    [
        ("gpu", [], "TresPerJob=gres:gpu:1", "0 (assigned by SLURM)"),
        ("--gres=gpu:1", [], "TresPerNode=gres:gpu:1", "0 (assigned by SLURM)"),
        ("--gres=gpu:1", ["--slurm-array-jobs", "inpaint"], "TresPerNode=gres:gpu:1", "0 (assigned by SLURM)"),
        ("--gpus-per-node=1", [], "TresPerNode=gres:gpu:1", "0 (assigned by SLURM)"),
        ("nothing", [], "", "GPU-a (pretended)"),
    ],
)
def test_what_slurm_is_asked_and_what_the_job_takes_are_two_settings(
    request_: str, options: list[str], asked: str, taken: str, cluster: dict[str, str], prepared: Path, tmp_path: Path
) -> None:
    tree, record = tmp_path / "tree", tmp_path / "record"
    shutil.copytree(prepared, tree, symlinks=True)
    record.mkdir()
    (record / "takes.py").write_text(TAKES)
    (tree / "small.json").write_text(json.dumps(SMALL | {"resources": {"request": request_, "mem_mb": 500}}))
    plan = snakemake(tree, os.environ | {"PATH": path_with()}, "-n", "-p", "--cores", "2", "--", *INPAINTED)
    jobs = by_log(plan.stdout + plan.stderr)
    devices = f'"{sys.executable}" "{record}/takes.py" "$@" >> "{record}/takes"'
    shown = f'scontrol show job -o "$SLURM_JOB_ID" | sed "s/^/$1 ${{SLURM_ARRAY_JOB_ID:-none}} /" >> "{record}/asked"'
    recorder(record, jobs, f"{devices}\n{shown}")
    environment = cluster | {
        "PATH": os.pathsep.join([str(record), str(Path(sys.executable).parent), cluster["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "DFEAT_LEASES": str(tmp_path / "leases"),
        "DFEAT_DEVICES": "GPU-a",
    }
    run = snakemake(tree, environment, *PROFILE, *TOY, "--retries", "0", *options, "--", *INPAINTED)
    assert run.returncode == 0, run.stdout + run.stderr
    takes = (record / "takes").read_text().splitlines()
    assert [re.sub(r"^inpaint [01] ", "inpaint 0 ", line) for line in takes] == [f"inpaint {taken}"] * 2
    seen = (record / "asked").read_text().splitlines()
    assert len(seen) == 2
    assert all(asked in line if asked else "gres" not in line for line in seen)
    arrays = {line.split()[1] for line in seen} - {"none"}
    assert len(arrays) == bool(options)


def test_a_job_is_given_what_was_planned_whatever_becomes_of_the_files(cluster: dict[str, str], tmp_path: Path) -> None:
    """The first job edits the configuration; `--config` has what a shell and two readers of YAML would change."""
    tree, record = tree_in(tmp_path), tmp_path / "record"
    record.mkdir()
    (tree / "small.json").write_text(json.dumps(SMALL))
    changed = {
        **SMALL,
        "diffusion": {"inpaint": {"steps": 7, "prompt": "changed", "shards": 2}},
        "occlusion": {"share": 0.1},
    }
    (tree / "changed.json").write_text(json.dumps(changed))
    given = r"""diffusion={inpaint: {prompt: "it's {shard} $(touch hacked) `id` $HOME \n \\n 010 \u00e9 'q'"}}"""
    asked = ["--config", given, "base=", "--", INPAINTED[0]]
    plan = snakemake(tree, os.environ | {"PATH": path_with()}, "-n", "-p", "--cores", "2", *asked)
    jobs = by_log(plan.stdout + plan.stderr)
    recorder(record, jobs, "cp changed.json small.json")
    environment = cluster | {"PATH": os.pathsep.join([str(record), str(Path(sys.executable).parent), cluster["PATH"]])}
    run = snakemake(tree, environment | {"PYTHONPATH": str(ROOT)}, *PROFILE, *TOY, *asked)
    assert run.returncode == 0, run.stdout + run.stderr
    arrived = dict(json.loads(path.read_text()) for path in record.glob("*.job"))
    assert arrived == {log: shlex.split(command)[1:-3] for log, (_, command) in jobs.items()}
    (inpaint,) = [words for words in arrived.values() if words[0] == "inpaint"]
    prompt = json.loads(inpaint[inpaint.index("--settings") + 1])["inpaint"]["prompt"]
    assert prompt == "it's {shard} $(touch hacked) `id` $HOME \n \\n 010 é 'q'"
    assert not list(tmp_path.rglob("hacked"))
    assert json.loads((tree / "small.json").read_text()) == changed
