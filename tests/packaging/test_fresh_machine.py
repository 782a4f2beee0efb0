"""A machine that has nothing but what README.md names, and the container, each in a fresh Debian."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from .fresh import Fresh, built, lacking

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(lacking()), reason=lacking())]


def checkout(target: Path) -> None:
    """A clone of what is committed here."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(target)], check=True)


def named_in_the_readme() -> tuple[str, list[str]]:
    """README.md's command that installs what the project needs of Debian, and the first two commands that it shows."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^    (\S.*?)(?: +#.*)?$", text, re.MULTILINE)
    install = re.search(r"`(apt-get install [^`]*)`", text)
    assert install is not None
    return install[1], shown[:2]


def test_the_first_commands_of_the_readme_on_a_fresh_machine(tmp_path: Path) -> None:
    install, commands = named_in_the_readme()
    assert commands == ["make demo", "make test"]
    fresh = Fresh.made("trixie", tmp_path / "root")
    fresh.must(f"apt-get update && {install} --yes --no-install-recommends")
    checkout(fresh.root / "root/dfeat")
    fresh.folder = "/root/dfeat"
    fresh.must("make smoke")  # `make demo` at its smallest size
    assert (fresh.root / "root/dfeat/results/smoke/report/index.html").is_file()
    last = fresh.must("make test").strip().splitlines()[-1]
    assert re.search(r"\d+ passed", last) and "failed" not in last, last


def test_the_container_has_both_programs_and_runs_the_demo_from_a_volume(tmp_path: Path) -> None:
    checkout(tmp_path / "context")
    fresh = built(ROOT / "Containerfile", tmp_path / "context", tmp_path / "root")
    assert "Usage: dfeat" in fresh.must("dfeat --help")
    own = "-s /opt/dfeat/Snakefile --configfile /opt/dfeat/config.yaml /opt/dfeat/config/demo.yaml /opt/dfeat/config/smoke.yaml"
    fresh.must(f"snakemake --cores 2 --resources gpu=2 {own}")
    assert (fresh.root / "work/results/smoke/report/index.html").is_file()
    assert not (fresh.root / "opt/dfeat/results").exists()
    fresh.must(
        """python -c 'from dfeat.devices.compiler import compiler_fault; assert not compiler_fault("training.compile", "cuda")'"""
    )
