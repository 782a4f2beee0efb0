"""The two locks are one, and are of pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())
EXPORT = (
    "--frozen",
    "--all-extras",
    "--all-groups",
    "--no-hashes",
    "--no-emit-project",
    "--no-header",
    "--no-annotate",
)


def test_requirements_lock_is_uv_lock() -> None:
    command = [str(Path(sys.executable).parent / "uv"), "export", "--quiet", "--offline", *EXPORT]
    exported = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert exported == (ROOT / "requirements.lock").read_text(), "make lock writes both"


def test_uv_lock_is_of_this_pyproject() -> None:
    project = PROJECT["project"]
    assert SpecifierSet(LOCK["requires-python"]) == SpecifierSet(project["requires-python"])
    assert SpecifierSet(project["requires-python"]).contains("3.14.1")
    [own] = [package for package in LOCK["package"] if package["name"] == "dfeat"]
    given = {*project["dependencies"], *chain(*project["optional-dependencies"].values())}
    locked = own["metadata"]["requires-dist"]
    assert {Requirement(word).name for word in given} == {entry["name"] for entry in locked}
    assert {Requirement(word).specifier for word in given} == {SpecifierSet(entry["specifier"]) for entry in locked}
    groups = own["metadata"]["requires-dev"]["dev"]
    assert {Requirement(word).name for word in PROJECT["dependency-groups"]["dev"]} == {
        entry["name"] for entry in groups
    }


def test_what_is_locked_is_within_the_bounds() -> None:
    versions = {package["name"]: package["version"] for package in LOCK["package"] if "version" in package}
    for word in PROJECT["project"]["dependencies"]:
        assert Requirement(word).specifier.contains(versions[Requirement(word).name]), word
