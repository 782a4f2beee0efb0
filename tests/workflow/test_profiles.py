"""Profiles say how to run: as many GPU jobs as the machine takes here, no such limit on a cluster, retries everywhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yte

from dfeat.config import Settings
from dfeat.errors import UserError
from dfeat.section import parse
from tests.workflow.test_snakemake import ROOT

PROFILES = sorted(path.name for path in (ROOT / "profiles").iterdir())


def profile(name: str) -> dict:
    """A profile as Snakemake reads it: YAML, with expressions where it says so."""
    with (ROOT / "profiles" / name / "config.yaml").open() as file:
        return yte.process_yaml(file, require_use_yte=True)


@pytest.mark.parametrize(
    ("devices", "slots", "jobs"), [("a b c", "1", 3), ("a b c", "2", 6), ("", "1", os.cpu_count())]
)
def test_here_as_many_gpu_jobs_run_as_there_are_devices(
    monkeypatch: pytest.MonkeyPatch, devices: str, slots: str, jobs: int
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("DFEAT_DEVICES", devices)
    monkeypatch.setenv("DFEAT_SLOTS", slots)
    assert profile("default")["resources"] == {"gpu": jobs, "devices": jobs}


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_tries_again_keeps_nothing_broken_and_looks_at_files_first(name: str) -> None:
    said = profile(name)
    assert said["retries"] == 2
    assert said["scheduler"] == "greedy"
    assert said["rerun-incomplete"] is True
    assert "keep-incomplete" not in said
    assert "check_command_line()" in (ROOT / "profiles" / name / "config.yaml").read_text()
    if name != "default":
        assert "gpu" not in said.get("resources", {})  # it would throttle the whole run


@pytest.mark.parametrize(
    ("request_", "devices", "asked"),
    [
        ("gpu", 1, {"gpu": 1}), ("gpu", 0, {"gpu": 0}), ("gpu", 4, {"gpu": 4}), ("nothing", 2, {"devices": 2}),
        ("--gres=gpu:1", 1, {"devices": 1, "gres": "gpu:1"}), ("--gres=gpu:1", 0, {"devices": 0}),
        ("--gres=gpu:a100_40.g:1", 4, {"devices": 4, "gres": "gpu:a100_40.g:4"}), ("--gres=shard:1", 2, {"devices": 2, "gres": "shard:2"}),
        ("--gpus=1", 2, {"devices": 2, "gpu": 2}), ("--gpus=v100:1", 2, {"devices": 2, "gpu": 2, "gpu_model": "v100"}),
        ("--gpus-per-node=1", 1, {"devices": 1, "slurm_extra": "--gpus-per-node=1"}),
        ("--gpus-per-node=h100:1", 8, {"devices": 8, "slurm_extra": "--gpus-per-node=h100:8"}),
    ],
)  # fmt: skip
def test_what_a_scheduler_is_asked_for_so_many_devices(request_: str, devices: int, asked: dict[str, object]) -> None:
    assert parse(Settings, {"resources": {"request": request_}}).resources.requested(devices) == asked


@pytest.mark.parametrize(
    "word", ["", "gpus", "--gres=gpu", "--gres=gpu:2", "--gpus 1", "--gres=gpu:1 --mem=1", "--gres=;ls:1", 1]
)
def test_a_request_is_for_one_device(word: object) -> None:
    with pytest.raises(UserError, match=r"resources\.request"):
        parse(Settings, {"resources": {"request": word}})


def test_every_rule_that_runs_a_gpu_verb_hands_on_its_devices_and_grows() -> None:
    """Threads, memory and time for each rule; what a GPU rule asks for reaches its command."""
    for file in sorted(Path(ROOT / "workflow/rules").glob("*.smk")):
        for rule in re.split(r"^ *rule\b", file.read_text(), flags=re.MULTILINE)[1:]:
            if "shell:" not in rule:
                continue  # a target, which makes nothing itself
            name = rule.partition(":")[0]
            assert "threads:" in rule, name
            assert "mem_mb=per_attempt(" in rule, name
            (asked,) = re.findall(r"runtime=(\w+)\(", rule)
            # a GPU job's time follows the plan's estimate, all others' the settings
            takes = "resources.requested(GPU" in rule
            assert asked in (("minutes", "shard_runtime") if takes else ("per_attempt",)), name
            assert takes == ("--gpus {TAKEN}" in rule), name
