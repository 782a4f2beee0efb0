"""A small run with every step and a working folder to do things to, and what a plan of it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from dfeat.config.files import lay_over
from tests.workflow.test_snakemake import ROOT, TINY, jobs, text

from .jobs import artifacts

SMALL: dict[str, Any] = {
    **TINY,
    "training": {"methods": ["none", "sd_inpaint", "sd_features"], "epochs": 1, "backbones": {"swin": None}},
}
CONFIGS = ("config.yaml", "config/demo.yaml", "small.json")


MEASURED = re.compile(r"logs/|benchmarks/|report/(\.made/)?(efficiency|cost|claims|report|index|model_card)\.")
"""Files that hold measured times, or the digest of one that does."""


class SmallRun:
    """A working folder with the project's workflow and `small.json`, which is laid over the demo's configuration."""

    def __init__(self, folder: Path, run: str = "tiny") -> None:
        self.folder, self.run = folder, folder / "results" / run

    @classmethod
    def make(cls, folder: Path, run: str = "tiny", **changes: Any) -> SmallRun:
        """A folder with nothing made in it."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("Snakefile", "workflow", "config.yaml", "config", "profiles"):
            (folder / name).symlink_to(ROOT / name)
        made = cls(folder, run)
        made.configure(run=run, **changes)
        return made

    def copy(self, folder: Path) -> SmallRun:
        """A copy of the folder as it stands, times and all."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return SmallRun(folder, self.run.name)

    def configure(self, **changes: Any) -> None:
        """Write `small.json` anew: the small run with these changes."""
        whole = json.loads(json.dumps(SMALL))
        lay_over(whole, json.loads(json.dumps(changes)))
        (self.folder / "small.json").write_text(json.dumps(whole))

    def command(self, *arguments: str) -> list[str]:
        words = ["--cores", "1", "--resources", "gpu=1", "--configfile", *CONFIGS, "--rerun-incomplete"]
        return [sys.executable, "-m", "snakemake", *words, *arguments]

    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(self, *arguments: str, log: str = "log") -> subprocess.Popen[bytes]:
        """Snakemake in a process group of its own; what it prints goes to `log` in the folder."""
        with (self.folder / log).open("wb") as stream:
            return subprocess.Popen(
                self.command(*arguments),
                cwd=self.folder,
                env=self.environment(),
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), cwd=self.folder, env=self.environment(), capture_output=True, text=True
        )

    def finish(self, *arguments: str) -> str:
        """Run Snakemake to its end, which must be a good one."""
        result = self.snakemake(*arguments)
        assert result.returncode == 0, text(result)
        return text(result)

    def plan(self, *targets: str) -> dict[str, int]:
        """The jobs that would run, by rule."""
        result = self.snakemake("-n", *targets)
        assert result.returncode == 0, text(result)
        return {rule: count for rule, count in jobs(result).items() if rule not in ("total", "all")}

    def dfeat(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A verb, with the configuration's files."""
        files = [word for name in CONFIGS for word in ("--config", name)]
        command = [sys.executable, "-m", "dfeat.cli", *words, *files]
        return subprocess.run(command, cwd=self.folder, env=self.environment(), capture_output=True, text=True)

    def adopt(self) -> str:
        """`dfeat adopt`, which must succeed; returns what it prints."""
        result = self.dfeat("adopt", f"results/{self.run.name}")
        assert result.returncode == 0, text(result)
        return result.stdout


def unmeasured(run: SmallRun) -> dict[str, str]:
    """The digests of a run's files but for what holds measured times."""
    return {name: digest for name, digest in artifacts(run.run).items() if not MEASURED.match(name)}
