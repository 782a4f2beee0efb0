"""One tiny run, made by the verbs alone: what every golden starts from.

All paths are relative to the folder that `make_run` works in, so none of them says where that is. The data are drawn, with
two faults put in; the diffusion model and the backbone have random weights. The predictions that tables read are made up
here, of ranks and probabilities that a generator of its own draws.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

MODEL = {"path": "model"}
KWARGS = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32], "ls_init_value": 1.0}
BACKBONE = {"name": "convnext_atto", "kwargs": KWARGS, "weights": "weights.safetensors"}
SWIN = {
    "name": "swin_tiny_patch4_window7_224",
    "kwargs": {"img_size": 64, "window_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4]},
    "weights": "swin.safetensors",
}
METHODS = ("none", "black_out", "replace", "cutmix", "sd_inpaint", "sd_features")
HELD_OUT = {"kind": "partimagenet", "root": "raw/PartImageNet_held_out", "per_class": 2}
TRAIN = {"root": "raw/PartImageNet", "expected_images": None, "expected_classes": None}
SETS: dict[str, dict[str, Any]] = {
    "imagenet_val": {"kind": "imagenet", "root": "raw/imagenet/val", "levels": [0, 40, 80]},
    "dfeat_real": {"kind": "folder", "root": "raw/dfeat_real"},
    "fine": {"kind": "imagenet", "root": "raw/imagenet/val", "levels": [0, 20, 40, 80], "study": "sweep"},
    "objects": {**HELD_OUT, "levels": [0, 40, 80], "study": "object_occlusion"},
    "part_by_part": {**HELD_OUT, "levels": [0, 100], "study": "part_cost"},
}
TRAINING = {"image_size": 64, "epochs": 2, "batch_size": 16}
INPAINT = {"steps": 2, "mask_cells": "any", "shards": 1}
FEATURES = {"timestep": 50, "ensemble": 2, "shards": 1}
EVALUATION = {"crop_pct": 1.0, "batch_size": 32}
SETTINGS: dict[str, Any] = {
    "run": "golden",
    "data": {
        "drawn": {"train": 2, "val": 2, "real": 2, "parts": 3},
        "train": TRAIN,
        "short_side": 64,
        "evaluation": SETS,
    },
    "occlusion": {"patch": 8},
    "diffusion": {"model": MODEL, "resolution": 64, "batch_size": 8, "inpaint": INPAINT, "features": FEATURES},
    "training": {
        **TRAINING,
        "methods": METHODS,
        "backbones": {"convnext": BACKBONE, "swin": BACKBONE},
        "seeds": [0, 1],
    },
    "evaluation": EVALUATION,
    "report": {"note": "a tiny run: numbers mean nothing", "gallery": 12},
    "ablation": {"fusion": {"methods": ["sd_features"], "grid": {"training.fusion": ["concat", "sum"]}}},
}
RUN = Path("run")
CPU = ("--gpus", 0, "--threads", 1)
LATENTS = {
    "model": MODEL, "resolution": 64, "batch_size": 8, "occlusion": {"patch": 8}, "image_size": 64, "crop_pct": 1.0,
}  # fmt: skip


def dfeat(*words: object) -> None:
    """A verb of the command line, in this process; mappings are handed on as JSON."""
    import typer

    from dfeat.cli import app

    line = [json.dumps(word) if isinstance(word, dict) else str(word) for word in words]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        typer.main.get_command(app).main(line, prog_name="dfeat", standalone_mode=False)


def make_run(folder: Path) -> None:
    """Fill the folder, which becomes the working folder, with a run up to the features of the training images."""
    from tests.conftest import make_tiny_pipeline

    os.chdir(folder)
    make_tiny_pipeline(Path("model"), 4, "epsilon")
    _write_weights(BACKBONE)
    _write_weights(SWIN)
    drawn = SETTINGS["data"]["drawn"]
    dfeat("demo-data", "--out", "raw", *(word for name, count in drawn.items() for word in (f"--{name}", count)))
    _put_faults_in(Path("raw"))
    data = RUN / "data"
    index(data)
    for name in ("train", *SETS):
        dfeat("pixels", "--index", data / name, "--settings", {"short_side": 64}, "--out", data / name / "pixels.h5")
    dfeat("parts", "--index", data / "train", "--out", RUN / "occlusion/parts.json")
    inpaint(RUN / "diffusion/inpaint/train", copies=1)
    for view in ("train", "train-occluded"):
        latents(view, RUN / "diffusion/latents" / view / "0-of-1.h5")
        features(RUN / "diffusion/latents" / view / "0-of-1.h5", RUN / "diffusion/features" / view / "0-of-1.h5")
    train("none", RUN / "training/none/convnext/seed0")
    write_predictions(RUN / "evaluation", seed=1)
    for point in (0, 1):
        write_predictions(RUN / f"ablation/fusion/{point}/evaluation", seed=2 + point)
    _write_verdicts(RUN / "evaluation/labels")
    _write_benchmarks(RUN)
    _write_sizes(RUN)


def index(folder: Path) -> None:
    """Index every set into the folder."""
    dfeat("index", "train", "--settings", TRAIN, "--out", folder / "train")
    for name, chosen in SETS.items():
        index_of(name, chosen, folder / name, folder / "train/classes.json")


def index_of(name: str, chosen: dict[str, Any], out: Path, classes: Path = RUN / "data/train/classes.json") -> None:
    """Index one evaluation set."""
    dfeat("index", name, "--settings", chosen, "--classes", classes, "--out", out)


def inpaint(folder: Path, copies: int, shards: int = 1) -> None:
    """Inpaint the training images, in shards, and decode them."""
    stage = {"model": MODEL, "resolution": 64, "batch_size": 8, "inpaint": {**INPAINT, "copies": copies}}
    given = ("--index", RUN / "data/train", "--parts", RUN / "occlusion/parts.json", "--settings", stage)
    made = [folder / f"{number}-of-{shards}.h5" for number in range(shards)]
    for number, out in enumerate(made):
        dfeat("inpaint", *given, "--shard", f"{number}/{shards}", *CPU, "--out", out)
    shards_given = [word for out in made for word in ("--inpainted", out)]
    dfeat("pixels", *shards_given, "--settings", {"short_side": 64}, "--out", folder / "pixels.h5")


def latents(view: str, out: Path, index: str = "train", study: str | None = None, **more: Any) -> None:
    """Encode a view: `train`, `train-occluded`, or `drop:P` of a set."""
    named = {"train": "clean", "train-occluded": "parts"}.get(view, view)
    parts = ("--parts", RUN / "occlusion/parts.json") if named == "parts" else ()
    stage = {**LATENTS, "study": study, **more}
    dfeat("latents", "--index", RUN / "data" / index, "--view", named, *parts, "--settings", stage, *CPU, "--out", out)


def features(of_latents: Path, out: Path, **more: Any) -> None:
    """Features of latents."""
    stage = {"model": MODEL, "batch_size": 8, "features": {**FEATURES, **more}}
    dfeat("features", "--latents", of_latents, "--settings", stage, *CPU, "--out", out)


def train(method: str, out: Path, backbone: dict[str, Any] = BACKBONE, **changes: Any) -> None:
    """Train a method on the run's artifacts."""
    diffusion = RUN / "diffusion"
    given = (
        "--index",
        RUN / "data/train",
        "--pixels",
        RUN / "data/train/pixels.h5",
        "--parts",
        RUN / "occlusion/parts.json",
    )
    more: tuple[object, ...] = ()
    if method == "sd_inpaint":
        more = ("--inpainted", diffusion / "inpaint/train/pixels.h5")
    if method == "sd_features":
        views = {"--features": "train", "--twin-features": "train-occluded"}
        more = tuple(
            word for option, view in views.items() for word in (option, diffusion / f"features/{view}/0-of-1.h5")
        )
    stage = {"backbone": backbone, "training": {**TRAINING, **changes}}
    dfeat("train", "--method", method, "--seed", 0, *given, *more, "--settings", stage, *CPU, "--out", out)


def keys_of(name: str) -> list[tuple[str, int]]:
    """(key, label) of the images of a set of the run."""
    with (RUN / "data" / name / "index.csv").open(newline="") as file:
        return [(row["key"], int(row["label"])) for row in csv.DictReader(file)]


def write_predictions(evaluation: Path, seed: int) -> None:
    """Made-up predictions of every model of the run, in the files that `dfeat evaluate` writes."""
    from dfeat.training.settings import Backbone
    from tests.report.predictions import GAIN, write_file, write_origin

    rng = np.random.default_rng(seed)
    for method in METHODS:
        for backbone in ("convnext", "swin"):
            for number in (0, 1):
                folder = evaluation / method / backbone / f"seed{number}"
                folder.mkdir(parents=True)
                for name, chosen in SETS.items():
                    keys, labels = zip(*keys_of(name), strict=True)
                    for level in chosen.get("levels", [0]):
                        ability = 0.8 - level / 60 + GAIN[method]
                        margin = rng.integers(-200, 200, len(keys)) / 100 + ability
                        write_file(folder / f"{name}@{level}.csv", list(keys), np.array(labels), margin.round(2), 20)
                write_origin(folder, method, Backbone(**BACKBONE), number)


def _write_weights(backbone: dict[str, Any]) -> None:
    import torch
    from safetensors.torch import save_file
    from timm import create_model

    torch.manual_seed(3)
    save_file(create_model(backbone["name"], num_classes=0, **backbone["kwargs"]).state_dict(), backbone["weights"])


def _put_faults_in(raw: Path) -> None:
    """An annotated image that is not there, one that is no image, and a part of a category that no one named."""
    path = raw / "PartImageNet/train.json"
    content = json.loads(path.read_text())
    wnid = content["images"][0]["file_name"].partition("_")[0]
    content["images"].append({"id": 999, "file_name": f"{wnid}_999.JPEG", "height": 64, "width": 64})
    content["annotations"].append({**content["annotations"][0], "id": 9999, "category_id": 99})
    path.write_text(json.dumps(content))
    (raw / "dfeat_real" / wnid / f"{wnid}_broken.jpg").write_bytes(b"no image")


def _write_verdicts(folder: Path) -> None:
    """Made-up verdicts on the inpainted images, as `dfeat judge` writes them."""
    from dfeat.storage.origin import origin_bytes
    from dfeat.training.settings import Backbone

    backbone = Backbone(**BACKBONE).model_dump(mode="json")
    model = {"method": "none", "backbone": backbone, "seed": 0, "model": "0" * 64}
    rng = np.random.default_rng(5)
    for name in ("convnext", "swin"):
        rows = ["key,label,models,original,black_out,inpainted,accepted"]
        for key, label in keys_of("train"):
            seen = rng.integers(0, 3, 3).tolist()
            rows.append(",".join(map(str, (key, label, 2, *seen, int(seen[2] == 2)))))
        (folder / name).mkdir(parents=True)
        content = ("\n".join(rows) + "\n").encode()
        path = folder / name / "verdicts.csv"
        path.write_bytes(content)
        said = {"models": [model], "recipe": 2, "index": "0" * 64, "parts": "", "inpainted": "", "settings": {}}
        path.with_suffix(".json").write_bytes(origin_bytes(said, {path: content}))


def _write_benchmarks(run: Path) -> None:
    """What Snakemake would have measured of the run's jobs, made up, and the energy that some of their logs tell."""
    views = [
        "train",
        "train-occluded",
        *(f"{name}@{level}" for name, one in SETS.items() for level in one.get("levels", [0])),
    ]
    models = [
        f"{method}_{backbone}_seed{seed}" for method in METHODS for backbone in ("convnext", "swin") for seed in (0, 1)
    ]
    jobs = {
        "diffusion": ["inpaint_0-of-1", "inpainted_pixels", *(f"{k}_{v}_0-of-1" for k in ("latents", "features") for v in views)],
        "training": models,
        "evaluation": [f"{model}@{name}" for model in models for name in SETS],
    }  # fmt: skip
    for step, names in jobs.items():
        for number, name in enumerate(names):
            table = run / "benchmarks" / step / f"{name}.tsv"
            log = run / "logs" / step / f"{name}.log"
            for path, content in (
                (table, f"s\tcpu_time\tmax_rss\n{number + 2}\t1\t3\n"),
                (log, f"energy: {number + 5} J\n"),
            ):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)


def _write_sizes(run: Path) -> None:
    """Files in the place of the models that were not trained, since what a method costs counts their bytes."""
    for method in METHODS:
        for backbone in ("convnext", "swin"):
            for seed in (0, 1):
                path = run / "training" / method / backbone / f"seed{seed}" / "model.safetensors"
                if not path.is_file():
                    path.parent.mkdir(parents=True)
                    path.write_bytes(bytes(1000))
