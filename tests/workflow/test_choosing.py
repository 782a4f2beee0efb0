"""Choosing without the test sets, by a real Snakemake: what is held out is in no training, and choices are measured on it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from dfeat.verify import verify_run

from .test_accepted import TINY
from .test_snakemake import ROOT, text

CHOOSING = {
    **TINY,
    "data": {
        **TINY["data"],
        "drawn": {"train": 3, "val": 1, "real": 1},
        "train": {"root": "results/tiny/raw/PartImageNet", "expected_images": 60, "expected_classes": 20, "holdout": 1},
        "evaluation": {"imagenet_val": {"kind": "imagenet", "root": "results/tiny/raw/imagenet/val", "levels": [0, 40]}},
    },
    "training": {**TINY["training"], "methods": ["none", "sd_inpaint", "sd_features"], "inpainted": "all"},
    "ablation": {
        "learning_rate": {"methods": ["sd_features"], "grid": {"training.learning_rate": [0.01, 0.001]}},
        "decay": {"methods": ["sd_inpaint"], "grid": {"training.weight_decay": [0.0001]}},
    },
}  # fmt: skip


@pytest.mark.slow
def test_choices_are_measured_on_images_that_nothing_was_trained_on(tmp_path: Path) -> None:
    for name in ("Snakefile", "workflow"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "config.yaml").write_text(json.dumps(CHOOSING))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "choose_learning_rate", "ablation_decay"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert done.returncode == 0, text(done)
    run = tmp_path / "results/tiny"
    trained, kept = (keys(run / f"data/{name}/index.csv") for name in ("train", "holdout"))
    assert (len(trained), len(kept), trained & kept) == (40, 20, set())
    shards = {folder.name: rows(folder) for kind in ("inpaint", "latents", "features") for folder in run.glob(f"diffusion/{kind}/*")}  # fmt: skip
    assert shards == {"train": trained, "train-occluded": trained, "holdout@0": kept, "holdout@40": kept}
    for point in (run / "ablation/learning_rate/0", run / "ablation/learning_rate/1", run / "ablation/decay/0"):
        (folder,) = point.glob("evaluation/*/convnext/seed0")
        assert {file.name for file in folder.glob("*.csv")} == {"holdout@0.csv", "holdout@40.csv"}
        assert keys(folder / "holdout@40.csv") == kept
    assert not (run / "data/imagenet_val").exists()  # no test image is looked at
    assert "## SD Features, ConvNeXt, held-out images" in (run / "report/choose_learning_rate.md").read_text()
    assert {row["set"] for row in csv.DictReader((run / "report/ablation_decay.csv").open())} == {"holdout"}
    assert {finding.state for finding in verify_run(run)} == {"whole"}


def keys(path: Path) -> set[str]:
    """The keys of a CSV file with a row an image."""
    with path.open(newline="") as file:
        return {row["key"] for row in csv.DictReader(file)}


def rows(view: Path) -> set[str]:
    """The keys of all shards of a view."""
    return {key.decode() for path in view.glob("*-of-*.h5") for key in h5py.File(path)["key"][:]}
