"""The workflow from another working folder, as a module of another workflow, and where the package is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dfeat.config.files import lay_over

from .test_snakemake import ROOT, TINY, jobs, text

INDEX = "results/tiny/data/dfeat_real/index.csv"
WITHOUT_DFEAT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "dfeat":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from snakemake.cli import main
main()
"""


def snakemake(folder: Path, *arguments: object, code: str = "from snakemake.cli import main; main()"):  # type: ignore[no-untyped-def]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | {"PATH": path})


def configuration() -> dict:  # type: ignore[type-arg]
    """The tiny run, whole, as a module is given it."""
    merged: dict = {}  # type: ignore[type-arg]
    for name in ("config.yaml", "config/demo.yaml"):
        lay_over(merged, yaml.safe_load((ROOT / name).read_text()))
    lay_over(merged, json.loads(json.dumps(TINY)))
    return merged


def made(folder: Path) -> bool:
    """Whether the index stands in the folder, and nothing was written to the checkout."""
    return (folder / INDEX).is_file() and not (ROOT / "results" / "tiny").exists()


FILES = ("--configfile", ROOT / "config.yaml", ROOT / "config/demo.yaml", "tiny.json")


def test_a_run_in_another_folder(tmp_path: Path) -> None:
    """`--directory` with a folder that has nothing of the project; captions are those beside the code."""
    elsewhere, here = tmp_path / "else where", tmp_path / "here"
    for folder in (elsewhere, here):
        folder.mkdir()
        (folder / "tiny.json").write_text(json.dumps(TINY))
    start = ("-s", ROOT / "Snakefile", "--cores", 2, "--directory", elsewhere, *FILES, "--")
    planned = snakemake(here, "-n", "-p", *start, "all")
    assert planned.returncode == 0, text(planned)
    assert f"--captions {ROOT}/workflow/report" in text(planned)
    result = snakemake(here, *start, INDEX)
    assert result.returncode == 0, text(result)
    assert made(elsewhere) and not (here / "results").exists()


def test_a_run_by_the_snakefiles_path_alone_takes_the_projects_configuration(tmp_path: Path) -> None:
    result = snakemake(tmp_path, "-s", ROOT / "Snakefile", "-n", "--cores", 1)
    assert result.returncode == 2
    assert "dfeat: set 'train': data/PartImageNet is missing" in text(result)


def test_a_module_of_another_workflow(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(configuration()))
    (tmp_path / "Snakefile").write_text(
        f'configfile: "mine.yaml"\nmodule occlusion:\n    snakefile: "{ROOT}/Snakefile"\n    config: config\n'
        f'use rule * from occlusion as occlusion_*\nrule mine:\n    default_target: True\n    input: "{INDEX}"\n'
    )
    planned = snakemake(tmp_path, "-n", "-p", "--cores", 2, "occlusion_all")
    assert planned.returncode == 0, text(planned)
    assert jobs(planned)["occlusion_train"] == 4
    assert f"--captions {ROOT}/workflow/report" in text(planned)
    result = snakemake(tmp_path, "--cores", 2)
    assert result.returncode == 0, text(result)
    assert made(tmp_path)


@pytest.mark.parametrize("words", [["--lint"], ["--list-rules"], ["-n", "--cores", "1"]])
def test_a_missing_package_is_a_sentence(words: list[str], tmp_path: Path) -> None:
    result = snakemake(ROOT, *words, "--directory", tmp_path, code=WITHOUT_DFEAT)
    assert result.returncode == 1
    assert f"the package dfeat is not installed in the environment that Snakemake runs in; install it there: pip install {ROOT}" in text(result)  # fmt: skip
    assert "Traceback" not in text(result)


def test_rules_are_listed_without_data_and_weights(tmp_path: Path) -> None:
    result = snakemake(tmp_path, "-s", ROOT / "Snakefile", "--list-rules")
    assert result.returncode == 0, text(result)
    assert {"table1", "object_occlusion", "ablation_share", "train", "write_claims"} <= set(text(result).split())
