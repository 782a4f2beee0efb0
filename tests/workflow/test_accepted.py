"""An ablation of a run that trains on accepted inpaintings alone: each point's own images are judged, by a real Snakemake."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .test_snakemake import ROOT, text

TINY = {
    "run": "tiny",
    "data": {
        "drawn": {"train": 1, "val": 1, "real": 1},
        "train": {"root": "results/tiny/raw/PartImageNet", "expected_images": 20, "expected_classes": 20},
        "evaluation": {"dfeat_real": {"root": "results/tiny/raw/dfeat_real"}},
        "short_side": 64,
    },
    "occlusion": {"patch": 8},
    "diffusion": {
        "model": {"path": "demo"},
        "resolution": 64,
        "batch_size": 20,
        "inpaint": {"steps": 1, "shards": 1},
        "features": {"shards": 1},
    },
    "training": {
        "methods": ["none", "sd_inpaint"],
        "backbones": {
            "convnext": {
                "name": "convnext_atto",
                "kwargs": {"depths": [1, 2, 3, 1], "dims": [40, 80, 160, 240]},
                "weights": "demo:convnext",
            }
        },
        "seeds": [0],
        "image_size": 64,
        "epochs": 1,
        "inpainted": "accepted",
    },
    "evaluation": {"crop_pct": 1.0},
    "ablation": {"share": {"methods": ["sd_inpaint"], "grid": {"occlusion.share": [0.5, 0.25]}}},
    "resources": {"threads": 1, "workers": 0, "gpu": 0, "mem_mb": 1000, "runtime": 10},
}
"""A run whose own share of hidden parts is the grid's first point."""


@pytest.mark.slow
def test_an_ablation_of_accepted_inpaintings_judges_the_images_of_each_point(tmp_path: Path) -> None:
    for name in ("Snakefile", "workflow"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "config.yaml").write_text(json.dumps(TINY))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "ablation_share"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert done.returncode == 0, text(done)
    run = tmp_path / "results/tiny"
    judged = []
    for folder in (run, run / "ablation/share/1"):
        verdicts = folder / "evaluation/labels/convnext/verdicts.csv"
        told = json.loads(verdicts.with_suffix(".json").read_text())
        none = json.loads((folder / "training/none/convnext/seed0/run.json").read_text())
        assert [model["model"] for model in told["models"]] == [none["model"]]
        assert (folder / "training/sd_inpaint/convnext/seed0/model.safetensors").is_file()
        judged.append((len(list(csv.DictReader(verdicts.open()))), told["inpainted"]))
    assert [count for count, _ in judged] == [20, 20]
    assert judged[0][1] != judged[1][1]
    rows = list(csv.DictReader((run / "report/ablation_share.csv").open()))
    assert [(row["point"], row["occlusion.share"]) for row in rows] == [("0", "0.5"), ("1", "0.25")]
