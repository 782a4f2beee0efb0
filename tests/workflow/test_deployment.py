"""The workflow as catalogues and snakedeploy take it: from a repository at a tag, as a module of a workflow of its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from .test_anywhere import INDEX, configuration, made, snakemake
from .test_snakemake import ROOT, jobs, text

PARTS = ("Snakefile", "workflow", "config", "config.yaml", "profiles")
MODULE = """\
from snakemake.utils import min_version


min_version("6.10.0")


configfile: "config/config.yaml"


# declare https://github.com/somebody/dfeat as a module
module dfeat:
    snakefile:
        github("somebody/dfeat", path="workflow/Snakefile", tag="v1")
    config:
        config


# use all rules from https://github.com/somebody/dfeat
use rule * from dfeat
"""
"""What snakedeploy writes."""


def git(repository: Path, *words: str) -> None:
    name = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
    subprocess.run(["git", *name, *words], cwd=repository, check=True, capture_output=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with the workflow at the tag v1, which its working tree lost since."""
    folder = tmp_path_factory.mktemp("hosted") / "somebody/dfeat"
    folder.mkdir(parents=True)
    for name in PARTS:
        take = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        take(ROOT / name, folder / name)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "All")
    git(folder, "tag", "v1")
    git(folder, "rm", "--quiet", "-r", "--cached", *PARTS)
    for name in ("Snakefile", "workflow"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


@pytest.fixture
def deployed(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as snakedeploy leaves it: the repository's folders config and profiles, and a workflow with the module.

    Git finds the repository here in place of its host.
    """
    settings = {f"url.file://{repository.parent.parent}/.insteadOf": "https://github.com/", "safe.directory": "*"}
    monkeypatch.setenv("GIT_CONFIG_COUNT", str(len(settings)))
    for number, (key, value) in enumerate(settings.items()):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(repository.parent / "cache"))
    for name in ("config", "profiles"):
        shutil.copytree(repository / name, tmp_path / name)
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow/Snakefile").write_text(MODULE)
    return tmp_path


def test_what_is_deployed_is_configured_and_says_what_is_missing(deployed: Path) -> None:
    assert (deployed / "config/config.yaml").read_text() == (ROOT / "config.yaml").read_text()
    result = snakemake(deployed, "-n", "--cores", 1)
    assert result.returncode == 2
    assert "dfeat: set 'train': data/PartImageNet is missing" in text(result)


def test_what_is_deployed_runs(deployed: Path) -> None:
    (deployed / "config/config.yaml").write_text(yaml.safe_dump(configuration()))
    planned = snakemake(deployed, "-n", "-p", "--cores", 2)
    assert planned.returncode == 0, text(planned)
    assert jobs(planned)["write_report"] == 1
    result = snakemake(deployed, "--cores", 2, INDEX)
    assert result.returncode == 0, text(result)
    assert made(deployed)


def test_the_workflow_is_found_where_catalogues_look(tmp_path: Path) -> None:
    result = snakemake(tmp_path, "-s", ROOT / "workflow/Snakefile", "--list-rules")
    assert result.returncode == 0, text(result)
    assert "table1" in text(result).split()
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["report"] and {"software-stack-deployment", "mandatory-flags"} <= usage.keys()
    named = {
        line.split("`")[1]
        for line in (ROOT / "config/README.md").read_text().splitlines()
        if line.startswith("| `") and ".yaml`" in line
    }
    assert named <= {path.name for path in (ROOT / "config").glob("*.yaml")}


@pytest.mark.parametrize("snakefile", ["Snakefile", "workflow/Snakefile"])
def test_no_target_is_the_report(snakefile: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(configuration()))
    planned = snakemake(tmp_path, "-n", "--cores", 2, "-s", ROOT / snakefile)
    assert planned.returncode == 0, text(planned)
    assert jobs(planned)["write_report"] == jobs(planned)["all"] == 1
