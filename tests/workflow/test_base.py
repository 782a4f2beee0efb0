"""`base: NAME`: what another run made from the same, by the same settings, is linked; all else is made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dfeat.verify import verify_run

from .test_snakemake import ROOT, TINY, snakemake, text

FEATURES = "diffusion/features/train/0-of-1.h5"
WANTED = ("diffusion/inpaint/train/pixels.h5", FEATURES, "data/dfeat_real/pixels.h5")
METHODS = {"methods": ["none", "sd_inpaint", "sd_features"], "epochs": 1}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the tiny run up to inpainted pixels and features of the training images."""
    folder = tmp_path_factory.mktemp("based")
    for name in ("Snakefile", "workflow", "config.yaml", "config", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "tiny.json").write_text(json.dumps({**TINY, "training": METHODS}))
    made = snakemake(folder, *(f"results/tiny/{name}" for name in WANTED))
    assert made.returncode == 0, text(made)
    return folder


def based(tree: Path, run: str, wanted: tuple[str, ...] = WANTED, **changes: Any) -> Path:
    """Make the wanted files in a run of its own that is based on the first."""
    data = {**TINY["data"], "drawn": None}  # the drawn images are there already
    changed = {**TINY, "training": METHODS, "data": data, "run": run, "base": "tiny", **changes}
    (tree / f"{run}.json").write_text(json.dumps(changed))
    files = ["--configfile", "config.yaml", "config/demo.yaml", f"{run}.json", "--"]
    result = snakemake(tree, *files, *(f"results/{run}/{name}" for name in wanted))
    assert result.returncode == 0, text(result)
    again = snakemake(tree, "-n", "-p", *files, *(f"results/{run}/{name}" for name in wanted))
    assert "Nothing to be done" in text(again), text(again)
    return tree / "results" / run


def links(run: Path) -> set[str]:
    """The artifacts of a run that are links."""
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_symlink()}


def artifacts(run: Path) -> set[str]:
    """All artifacts of a run's jobs."""
    return {finding.path for finding in verify_run(run)} - {"expected.json"}


def test_what_settings_do_not_reach_is_linked_and_all_else_made(tree: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (tree / "results/tiny").rglob("*") if path.is_file()}
    run = based(tree, "features", diffusion={**TINY["diffusion"], "features": {"timestep": 50}})
    assert artifacts(run) - links(run) == {FEATURES}
    assert {finding.state for finding in verify_run(run)} == {"whole"}
    assert "linked from results/tiny" in (run / "logs/data/index_train.log").read_text()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_parts_reach_inpaintings_and_leave_the_data(tree: Path) -> None:
    run = based(tree, "parts", WANTED[:1], occlusion={"share": 0.25})
    made = artifacts(run) - links(run)
    assert {"occlusion/parts.json", "diffusion/inpaint/train/0-of-1.h5", "diffusion/inpaint/train/pixels.h5"} <= made
    assert {"data/train/index.csv", "data/train/problems.csv"} <= links(run)
    assert {finding.state for finding in verify_run(run)} == {"whole"}


def test_another_resolution_of_pixels_leaves_index_parts_and_latents(tree: Path) -> None:
    run = based(tree, "pixels", data={**TINY["data"], "drawn": None, "short_side": 72})
    assert artifacts(run) - links(run) == {"diffusion/inpaint/train/pixels.h5", "data/dfeat_real/pixels.h5"}


def test_a_base_that_is_not_there_is_no_error(tree: Path) -> None:
    run = based(tree, "alone", WANTED[2:], base="nowhere")
    assert links(run) == set()


def test_without_its_base_a_run_is_made_again(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy, symlinks=True)
    run = based(copy, "bereft", WANTED[:1])
    assert artifacts(run) == links(run)
    shutil.rmtree(copy / "results/tiny/diffusion")
    assert artifacts(based(copy, "bereft", WANTED[:1])) - links(run) == {
        name for name in artifacts(run) if name.startswith("diffusion/")
    }


def test_a_damaged_base_is_refused(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy, symlinks=True)
    with (copy / "results/tiny/data/train/index.csv").open("a") as file:
        file.write("\n")
    with pytest.raises(AssertionError, match="it is not what was written"):
        based(copy, "broken", WANTED[2:])
    assert not list((copy / "results/broken").rglob("*.csv"))


def test_a_run_is_not_its_own_base(tree: Path) -> None:
    with pytest.raises(AssertionError, match="base is 'tiny', this very run"):
        based(tree, "tiny")
