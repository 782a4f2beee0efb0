"""Many jobs on four pretended devices: never two at once on one, and what is killed is done again, to the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dfeat.config import stage_settings
from dfeat.config.files import read_settings
from tests.conftest import CPU
from tests.workflow.journal import dfeat_on_the_path, overlaps, read_journal
from tests.workflow.test_snakemake import ROOT, TINY

SHARDS = 16
MANY = {**TINY, "diffusion": {"inpaint": {"steps": 1, "shards": SHARDS}}}
CONFIGS = ["config.yaml", "config/demo.yaml", "many.json"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder whose inpainting is split into many shards."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("Snakefile", "workflow", "config.yaml", "config", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "many.json").write_text(json.dumps(MANY))
    return folder


def environment(tree: Path, **more: str) -> dict[str, str]:
    """Four pretended devices, and the journalling dfeat first on the path."""
    path = [str(dfeat_on_the_path(tree / "bin")), str(Path(sys.executable).parent), os.environ["PATH"]]
    kept = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return kept | {
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": str(ROOT),
        "DFEAT_DEVICES": "GPU-0 GPU-1 GPU-2 GPU-3",
        "DFEAT_LEASES": str(tree / "leases"),
        "JOURNAL": str(tree / "journal"),
        **more,
    }


@pytest.mark.cluster
def test_sixteen_jobs_on_four_devices_a_third_of_them_killed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = [f"results/tiny/diffusion/inpaint/train/{number}-of-{SHARDS}.h5" for number in range(SHARDS)]
    command = [
        sys.executable, "-m", "snakemake", "--cores", "6", "--resources", "gpu=6", "--configfile", *CONFIGS,
        "--retries", "2", "--", *shards,
    ]  # fmt: skip
    result = subprocess.run(command, cwd=tree, capture_output=True, text=True, env=environment(tree, KILL_EVERY="3"))
    assert result.returncode == 0, result.stdout + result.stderr
    entries = read_journal(tree / "journal")
    assert len(entries) == SHARDS + 6  # shards 0, 3, 6, 9, 12 and 15 were killed once each
    assert {entry.device for entry in entries} == {"GPU-0", "GPU-1", "GPU-2", "GPU-3"}
    assert overlaps(entries) == []
    logs = [(tree / f"results/tiny/logs/diffusion/inpaint_{n}-of-{SHARDS}.log").read_text() for n in range(SHARDS)]
    assert any("waits for 1 of 4 devices, held by dfeat inpaint" in log for log in logs)  # six ran, four computed
    monkeypatch.chdir(tree)
    undisturbed(tree, shards)


def undisturbed(tree: Path, shards: list[str]) -> None:
    """Every shard equals what one process makes that nothing disturbs."""
    from dfeat.diffusion.inpaint import inpaint_shard

    settings = stage_settings(read_settings([tree / name for name in CONFIGS]), "inpaint")
    for number, shard in enumerate(shards):
        alone = tree / "alone" / f"{number}.h5"
        index, parts = tree / "results/tiny/data/train", tree / "results/tiny/occlusion/parts.json"
        inpaint_shard(index, parts, settings, alone, CPU, (number, SHARDS))
        assert alone.read_bytes() == (tree / shard).read_bytes(), shard
