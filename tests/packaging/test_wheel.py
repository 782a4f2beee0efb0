"""Wheel and sdist: built, installed where the project is not, and used as a library."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USE = """
import sys
import numpy as np
from dfeat.diffusion import FeatureExtractor
import dfeat
assert dfeat.__file__.startswith(sys.prefix), dfeat.__file__
images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
print(FeatureExtractor.from_pretrained("demo", blocks=["mid"], timestep=100)(images).shape[0])
"""


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist of what is here, and the wheel that is built from the sdist."""
    out = tmp_path_factory.mktemp("dist")
    uv = Path(sys.executable).parent / "uv"
    command = [
        str(uv),
        "build",
        "--quiet",
        "--no-build-isolation",
        "--python",
        sys.executable,
        "--out-dir",
        str(out),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    [sdist], [wheel] = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def test_the_wheel_has_the_package_whole_and_nothing_beside_it(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    here = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "dfeat").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == here


def test_the_sdist_builds_and_leaves_runs_behind(distributions: tuple[Path, Path]) -> None:
    with tarfile.open(distributions[0]) as sdist:
        tops = {name.split("/")[1] for name in sdist.getnames() if "/" in name}
    assert {"dfeat", "pyproject.toml", "README.md", "LICENSE"} <= tops
    assert not {"results", ".venv", ".snakemake", "data"} & tops


def test_an_environment_without_the_project_uses_the_wheel_as_a_library(
    distributions: tuple[Path, Path], tmp_path: Path
) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    site = next((environment / "lib").glob("python*")) / "site-packages"
    # The packages that dfeat needs are read from where they stand; lines of a .pth there, as of this checkout, are not.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    with zipfile.ZipFile(distributions[1]) as wheel:
        wheel.extractall(site)
    given = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    used = subprocess.run(
        [str(environment / "bin/python"), "-c", USE], cwd=tmp_path, env=given, capture_output=True, text=True
    )
    assert used.stdout.strip() == "2", used.stderr
    program = [str(environment / "bin/python"), "-m", "dfeat.cli", "demo-data", "--help"]
    assert "Usage" in subprocess.run(program, cwd=tmp_path, env=given, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_the_wheel_brings_what_it_needs(distributions: tuple[Path, Path], tmp_path: Path) -> None:
    uv = str(Path(sys.executable).parent / "uv")
    environment = tmp_path / "environment"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(environment)], check=True)
    constraints = [
        "--constraint",
        str(ROOT / "requirements.lock"),
    ]  # the versions that are tested, and downloaded already
    python = ["--python", str(environment / "bin/python")]
    subprocess.run([uv, "pip", "install", "--quiet", *python, *constraints, str(distributions[1])], check=True)
    given = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    used = subprocess.run(
        [str(environment / "bin/python"), "-W", "error::UserWarning:diffusers", "-c", USE],
        cwd=tmp_path,
        env=given,
        capture_output=True,
        text=True,
    )
    assert used.stdout.strip() == "2", used.stderr
    assert "accelerate" not in used.stderr, used.stderr
