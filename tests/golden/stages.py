"""What each stage makes of the tiny run: every golden piece, and the file of those on record.

A piece runs its stage into a folder of its own, through the stage's verb, and returns what it made as `kept` values. Beside
them stands the RECIPE of the stage's module: when a piece differs and the change is meant, raise RECIPE and record anew with
`python -m tests.golden.stages`. `python -m tests.golden.stages exact` prints digests of all bytes on this machine, to compare
before and after a change that should leave every bit.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from dfeat.storage.provenance import declared_recipe
from tests.golden import kept, run
from tests.golden.kept import Kept, numbers, text
from tests.golden.run import METHODS, RUN, SETS, SETTINGS, dfeat
from tests.golden.streams import watched

RECORDED = Path(__file__).parent / "stages.json"
TEXTS = (".csv", ".md", ".tex", ".json")
Values = dict[str, Kept]


def drawn(out: Path) -> Values:
    """The built-in data: annotations, and the pixels of every set."""
    dfeat("demo-data", "--out", out, "--train", 1, "--val", 1, "--real", 1, "--parts", 1)
    named = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*.*")) if path.is_file()}
    made: Values = {"files": text([name for name in named if ".sha256" not in name])}
    for name in ("PartImageNet/train.json", "PartImageNet_held_out/test.json"):
        made |= _annotations(name, named[name].read_text())
    for folder in ("PartImageNet/train", "PartImageNet_held_out/test", "imagenet/val", "dfeat_real"):
        pictures = [np.asarray(Image.open(path)) for name, path in named.items() if name.startswith(f"{folder}/")]
        made[folder] = numbers(pictures)
    return made


def index(out: Path) -> Values:
    """The indexes of all sets: every file that `dfeat index` writes."""
    run.index(out)
    made: Values = {}
    for path in sorted(out.rglob("*.*")):
        if path.is_file() and ".sha256" not in path.parts:
            name, content = path.relative_to(out).as_posix(), path.read_text()
            made |= _annotations(name, content) if path.name == "annotations.json" else {name: text(content)}
    return made


def index_per_class(out: Path) -> Values:
    """Which images of a class are taken where a set has at most so many."""
    run.index_of("objects", SETS["objects"], out)
    return {"index.csv": text((out / "index.csv").read_bytes())}


def index_holdout(out: Path) -> Values:
    """Which images of a class are held out of training, and what the two indexes tell of it."""
    folders = {"train": out / "train", "holdout": out / "holdout"}
    dfeat(
        "index", "train", "--settings", {**run.TRAIN, "holdout": 1}, "--out", folders["train"], "--holdout", folders["holdout"]
    )  # fmt: skip
    return {
        f"{name}/{file}": text((folder / file).read_bytes())
        for name, folder in folders.items()
        for file in ("index.csv", "source.json", "problems.csv")
    }


def parts(out: Path) -> Values:
    """The chosen parts: half of them, a quarter of them, and a quarter of the annotations."""
    made: Values = {}
    for name, stage in {"half": {}, "quarter": {"share": 0.25}, "annotations": {"unit": "annotation"}}.items():
        dfeat("parts", "--index", RUN / "data/train", "--settings", stage, "--out", out / f"{name}.json")
        content = json.loads((out / f"{name}.json").read_text())
        made[name] = text({key: value for key, value in content.items() if key not in ("index", "files")})
    return made


def choices(out: Path) -> Values:
    """The choice of parts among one to seven random masks that overlap."""
    from dfeat.occlusion.parts import choose_parts

    rng = np.random.default_rng(5)
    chosen = [choose_parts(rng.random((n, 16, 16)) < 0.3) for n in range(1, 8)]
    return {"choices": text([[choice.chosen, choice.area] for choice in chosen])}


def patches(out: Path) -> Values:
    """The dropped patches of every protocol."""
    from dfeat.occlusion.patches import drop_for
    from dfeat.occlusion.settings import OcclusionSettings

    thing = np.hypot(*np.mgrid[-112:112, -112:112]) < 80
    return {
        protocol: text(
            drop_for(OcclusionSettings(protocol=protocol), "n1_2", 40, 224, (333, 500), 0.875, object_mask=thing)
        )
        for protocol in ("grid", "image", "random", "object")
    }


def pixels(out: Path) -> Values:
    """The caches of decoded images, image by image, at their own size and at a smaller one."""
    made: Values = {}
    for name, stage in {"whole": {"short_side": 64}, "small": {"short_side": 40, "interpolation": "bilinear"}}.items():
        dfeat("pixels", "--index", RUN / "data/train", "--settings", stage, "--out", out / f"{name}.h5")
        made |= {f"{name} {key}": value for key, value in _cache(out / f"{name}.h5").items()}
    return made


def evaluation_crops(out: Path) -> Values:
    """The evaluation crop of an image that is not square, resized."""
    from dfeat.data.pixels import evaluation_crop

    return {"crop": text((evaluation_crop(_ramp(), 0.875, 28) // 8).astype(np.uint8))}


def inpaintings(out: Path) -> Values:
    """The inpainted images in two shards, two copies of each, and the cache that training reads."""
    run.inpaint(out, copies=2, shards=2)
    shards = [_pictures(out / f"{number}-of-2.h5") for number in (0, 1)]
    made: Values = {"keys": text([sorted(shard) for shard in shards])}
    for copy in ("#0", "#1"):
        images = [picture for shard in shards for key, picture in sorted(shard.items()) if key.endswith(copy)]
        made[f"copy {copy}"] = numbers(images)
    return made | _cache(out / "pixels.h5", exact=False)


def latents(out: Path) -> Values:
    """Latents of each kind of view: clean, occluded, dropped, of the object, part by part."""
    views = {
        "train": {}, "train-occluded": {}, "drop:40": {"index": "imagenet_val"},
        "drop:80": {"index": "objects", "study": "object_occlusion"}, "drop:100": {"index": "part_by_part", "study": "part_cost"},
    }  # fmt: skip
    made: Values = {}
    for view, more in views.items():
        run.latents(view, out / f"{view}.h5", **more)
        made |= {f"{view} {name}": value for name, value in _rows(out / f"{view}.h5", "latent").items()}
    return made


def views(out: Path) -> Values:
    """Latents of two random crops of each training image, and their boxes."""
    run.latents("train", out / "two.h5", views=2, crop_scale=[0.4, 1.0], flip=0.5)
    with h5py.File(out / "two.h5") as file:
        boxes: Values = {"box": text((file["box"][:] * 64).round().astype(np.int64)), "flip": text(file["flip"][:])}
    return boxes | _rows(out / "two.h5", "latent")


def features(out: Path) -> Values:
    """Features by settings: two draws of noise, two timesteps and blocks, a grid."""
    made: Values = {}
    for name, more in {
        "ensemble": {"ensemble": 2},
        "several": {"timestep": [50, 400], "blocks": ["mid", "down.0"], "ensemble": 1},
        "pool": {"pool": 2, "ensemble": 1, "seed": 4},
    }.items():
        run.features(RUN / "diffusion/latents/train/0-of-1.h5", out / f"{name}.h5", **more)
        made |= {f"{name} {key}": value for key, value in _rows(out / f"{name}.h5", "feature").items()}
    return made


def batches(out: Path) -> Values:
    """The batches of every method over two epochs: which images in which order, their pixels, labels, masks, features."""
    made: Values = {}
    for method in METHODS:
        made |= _batches(method, {})
    return made


def batches_of_copies(out: Path) -> Values:
    """The same where an image has two inpainted copies, of which an epoch draws one; and where twins alone are seen."""
    run.inpaint(out, copies=2)
    made = _batches("sd_inpaint", {"inpainted": out / "pixels.h5"})
    return made | _batches("black_out", {}, name="twins alone", originals=False)


def batches_of_views(out: Path) -> Values:
    """The same where features of two crops of an image are cached, which training replays; and of clean images alone."""
    given = {}
    for view, name in {"train": "features", "train-occluded": "twin_features"}.items():
        run.latents(view, out / f"latents/{view}.h5", views=2, crop_scale=[0.4, 1.0], flip=0.5)
        run.features(out / f"latents/{view}.h5", out / f"{view}.h5")
        given[name] = (out / f"{view}.h5",)
    made = _batches("sd_features", given)
    return made | _batches("sd_features", {"twin_features": ()}, name="clean", twin_features="clean")


def batches_of_controls(out: Path) -> Values:
    """The same of the methods that are controls."""
    made: Values = {}
    for method in ("fill_mean", "fill_smooth", "sd_features_placebo"):
        made |= _batches(method, {})
    return made


def batches_of_baselines(out: Path) -> Values:
    """The same of the augmentations of the literature, and with another share of twins."""
    from dfeat.methods import BASELINES

    made = _batches("black_out", {}, name="share of twins", twins=0.3)
    for method in BASELINES:
        made |= _batches(method.name, {})
    return made


def random_unet(out: Path) -> Values:
    """The weights of a U-Net that nothing trained."""
    import torch

    from dfeat.diffusion.models import load_model
    from dfeat.diffusion.settings import ModelSource

    model = load_model(ModelSource(path="demo", unet="random"), "features", torch.device("cpu"))
    return {"weights": numbers(torch.cat([value.flatten() for value in model.unet.parameters()]).numpy())}


def crops(out: Path) -> Values:
    """A crop as training cuts it, of an image and of a mask, and the learning rates of a training."""
    from dfeat.data.crops import Crop
    from dfeat.methods.runs import Runs
    from dfeat.training.dataset import cut, cut_mask
    from dfeat.training.loop import learning_rate
    from dfeat.training.settings import TrainingSettings

    crop = Crop((0.1, 0.2, 0.8, 0.9), True)
    return {
        "image": numbers(cut(_ramp(), crop, 28)),
        "mask": text(cut_mask(Runs.of(_ramp()[..., 1] > 100), crop, 28)),
        "rates": numbers([learning_rate(TrainingSettings(), step, 100) for step in (0, 1, 50, 99)]),
    }


def initial_weights(out: Path) -> Values:
    """The weights that each fusion and each head starts from, and the moments of l_d: a training that changes nothing."""
    from safetensors.numpy import load_file

    made: Values = {}
    chosen: dict[str, dict[str, Any]] = {name: {"fusion": name} for name in ("concat", "sum", "gated", "attention")}
    for name, fusion in {"none": {}, **chosen, "channels": {"feature_norm": "channels"}}.items():
        method = "none" if name == "none" else "sd_features"
        run.train(
            method, out / name, **fusion, epochs=1, learning_rate=1e-12, momentum=0, weight_decay=0, batch_size=80
        )
        weights = load_file(out / name / "model.safetensors")
        new = {key: value for key, value in weights.items() if not key.startswith("backbone.")}
        made[f"{name} names"] = text({key: value.shape for key, value in weights.items()})
        made |= {f"{name} {key}": numbers(value) for key, value in new.items() if value.any()}
    return made


def trainings(out: Path) -> Values:
    """The losses of two epochs of every method, and the weights they end with."""
    made: Values = {}
    for method in METHODS:
        run.train(method, out / method)
        made |= _trained(method, out / method)
    return made


def drop_paths(out: Path) -> Values:
    """The same of a Swin whose residual branches are dropped for some rows of each batch."""
    run.train("replace", out, run.SWIN, drop_path=0.4, epochs=1, accumulate=3)
    return _trained("swin", out)


def predictions(out: Path) -> Values:
    """What a trained model predicts of every set at every level, and what is said of it."""
    stage = {
        "occlusion": {"patch": 8}, "evaluation": run.EVALUATION,
        "levels": {name: one.get("levels", [0]) for name, one in SETS.items()},
        "studies": {name: one["study"] for name, one in SETS.items() if "study" in one},
    }  # fmt: skip
    dfeat(
        "evaluate", "--model", RUN / "training/none/convnext/seed0", "--data", RUN / "data", "--settings", stage, *run.CPU,
        "--out", out,
    )  # fmt: skip
    made: Values = {}
    for path in sorted(out.glob("*.csv")):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        made[f"{path.name} keys"] = text([[row["key"], row["label"]] for row in rows])
        made[f"{path.name} guesses"] = numbers([[int(row[f"top{k}"]) for k in range(1, 6)] for row in rows])
        made[f"{path.name} p1"] = numbers([float(row["p1"]) for row in rows])
    told = {path.name: json.loads(path.read_text()) for path in sorted(out.glob("*.json"))}
    return made | {name: text(_unsigned(json.dumps(said, sort_keys=True))) for name, said in told.items()}


def verdicts(out: Path) -> Values:
    """What the judge says of the inpainted images."""
    dfeat(
        "judge", "--model", RUN / "training/none/convnext/seed0", "--index", RUN / "data/train",
        "--pixels", RUN / "data/train/pixels.h5", "--parts", RUN / "occlusion/parts.json",
        "--inpainted", RUN / "diffusion/inpaint/train/pixels.h5", "--settings", run.EVALUATION, *run.CPU,
        "--out", out / "verdicts.csv",
    )  # fmt: skip
    with (out / "verdicts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    told = _unsigned((out / "verdicts.json").read_text())
    return {
        "keys": text([[row["key"], row["label"], row["models"]] for row in rows]),
        **{view: numbers([1 + int(row[view]) for row in rows]) for view in ("original", "black_out", "inpainted", "accepted")},
        "verdicts.json": text(told),
    }  # fmt: skip


def table(name: str) -> Callable[[Path], Values]:
    """A piece that makes a table of the made-up predictions; its files are digested whole."""

    def made(out: Path) -> Values:
        dfeat("table", name, "--results", RUN, "--settings", SETTINGS, "--out", out)
        return {path.name: text(path.read_bytes()) for path in sorted(out.glob(f"{name}.*")) if path.suffix in TEXTS}

    return made


def claims(out: Path) -> Values:
    """The verdicts on the paper's claims."""
    dfeat("table", "claims", "--results", RUN, "--settings", SETTINGS, "--out", out)
    return {"claims.md": text(_without_bytes((out / "claims.md").read_text()))}


def efficiency(out: Path) -> Values:
    """What each method costs: operations counted, made-up times and energies; bytes apart, since encoders differ in them."""
    dfeat("table", "efficiency", "--results", RUN, "--settings", SETTINGS, "--out", out)
    with (out / "efficiency.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    of_bytes = [
        float(row[column] or 0) for row in rows if row["quantity"] == "bytes" for column in ("prepare", "train", "test")
    ]
    return {
        "efficiency.csv": text([row for row in rows if row["quantity"] != "bytes"]),
        "efficiency.md": text(_without_bytes((out / "efficiency.md").read_text())),
        "bytes": numbers(of_bytes),
    }


def inpaint_quality(out: Path) -> Values:
    """How well each inpainted image fits: the means over all images."""
    dfeat("table", "inpaint_quality", "--results", RUN, "--settings", SETTINGS, "--out", out)
    with (out / "inpaint_quality.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    measured = {
        column: numbers([float(rows[0][column])]) for column in ("dark_original", "step_original", "step", "difference")
    }
    return {"keys": text(sorted(row["key"] for row in rows)), **measured}


def ablation(out: Path) -> Values:
    """A grid of two points compared."""
    dfeat("ablation", "fusion", "--results", RUN, "--settings", SETTINGS, "--out", out)
    return {
        path.name: text(path.read_bytes()) for path in sorted(out.glob("ablation_fusion.*")) if path.suffix in TEXTS
    }


def learning_rates(out: Path) -> Values:
    """The better of two learning rates by the same predictions as the ablation's."""
    grid = {"methods": ["sd_features"], "on": "test", "grid": {"training.learning_rate": [0.001, 0.01]}}
    shutil.copytree(RUN / "ablation/fusion", out / "run/ablation/learning_rate")
    settings = SETTINGS | {"ablation": {"learning_rate": grid}}
    dfeat("table", "choose_learning_rate", "--results", out / "run", "--settings", settings, "--out", out)
    return {path.name: text(path.read_bytes()) for path in sorted(out.glob("choose_learning_rate.*"))}


def figure(name: str) -> Callable[[Path], Values]:
    """A piece that draws a figure."""

    def made(out: Path) -> Values:
        dfeat("figure", name, "--results", RUN, "--settings", SETTINGS, "--out", out)
        return {f"{name}.png": numbers(np.asarray(Image.open(out / f"{name}.png").convert("RGB")))}

    return made


def gallery(out: Path) -> Values:
    """The gallery: its figure, and which images of which methods it shows."""
    made = figure("gallery")(out)
    shown = json.loads((out / "gallery.json").read_text())["pictures"]
    return made | {
        "gallery.json": text([[one["key"], one["class"], one["method"]] for one in shown]),
        "psnr": numbers([one["psnr"] or 0 for one in shown]),
    }


def page(out: Path) -> Values:
    """The report's page and the cards beside it, without pictures, shipped scripts, versions, times and digests."""
    captions = Path(__file__).parents[2] / "workflow/report"
    dfeat("report", "--results", RUN, "--settings", SETTINGS, "--captions", captions, "--out", out / "index.html")
    html = _without_bytes((out / "index.html").read_text())
    for unlike in (
        r'<script(?! type="application/json").*?</script>', r"<style>.*?</style>", r'data:image/[a-z]+;base64,[^"]*',
        r"<h3>How well do inpaintings fit.*?</table>", r"<h3>Versions</h3>.*?</dl>", r'<td data-order="[0-9.]*">[0-9.]+</td>(?=<td data-method)', r"The run has [^<]*", r'<td class="number">[0-9.]+</td>(?=<td>-</td>)',
    ):  # fmt: skip
        html = re.sub(unlike, "", _unsigned(html), flags=re.DOTALL)
    cards = {
        name: text(_unsigned((out / name).read_text())) for name in ("config.yaml", "data_card.md", "model_card.md")
    }
    return {**cards, "index.html": text(html)}


@dataclass(frozen=True)
class Piece:
    """A golden piece: what makes it, the module whose RECIPE it is of, and how near its sums must be."""

    make: Callable[[Path], Values]
    module: str
    within: float = kept.WITHIN
    into_report: bool = False
    """Whether later pieces read what it makes, in the run's report folder."""


TABLES = (
    "table1",
    "table2",
    "controls",
    "sweep",
    "object_occlusion",
    "part_cost",
    "calibration",
    "per_class",
    "label_preservation",
)
CURVES = ("accuracy", "gain")
PLOTS = ("cost", "part_cost", "ablation_fusion")
PICTURES = ("figure2", "figure3", "sheet")
REPORT = "dfeat.report"
PIECES = {
    "drawn": Piece(drawn, "dfeat.demo.worlds"),
    "index": Piece(index, "dfeat.data.indexing"),
    "index per class": Piece(index_per_class, "dfeat.data.indexing"),
    "index holdout": Piece(index_holdout, "dfeat.data.indexing"),
    "parts": Piece(parts, "dfeat.occlusion.parts"),
    "choices": Piece(choices, "dfeat.occlusion.parts"),
    "patches": Piece(patches, "dfeat.diffusion.latents"),
    "pixels": Piece(pixels, "dfeat.data.pixels"),
    "evaluation crops": Piece(evaluation_crops, "dfeat.data.pixels"),
    "inpaintings": Piece(inpaintings, "dfeat.diffusion.inpaint"),
    "latents": Piece(latents, "dfeat.diffusion.latents"),
    "views": Piece(views, "dfeat.diffusion.latents"),
    "features": Piece(features, "dfeat.diffusion.features"),
    "batches": Piece(batches, "dfeat.training.loop"),
    "batches of copies": Piece(batches_of_copies, "dfeat.training.loop"),
    "batches of views": Piece(batches_of_views, "dfeat.training.loop"),
    "batches of controls": Piece(batches_of_controls, "dfeat.training.loop"),
    "batches of baselines": Piece(batches_of_baselines, "dfeat.training.loop"),
    "random U-Net": Piece(random_unet, "dfeat.diffusion.features"),
    "crops": Piece(crops, "dfeat.training.loop"),
    "initial weights": Piece(initial_weights, "dfeat.training.loop"),
    "trainings": Piece(trainings, "dfeat.training.loop"),
    "drop paths": Piece(drop_paths, "dfeat.training.loop"),
    "predictions": Piece(predictions, "dfeat.evaluation.predict", within=0.05),
    "verdicts": Piece(verdicts, "dfeat.evaluation.predict", within=0.05),
    **{name: Piece(table(name), REPORT, into_report=True) for name in TABLES},
    "inpaint quality": Piece(inpaint_quality, REPORT, 0.01, into_report=True),
    "efficiency": Piece(efficiency, REPORT, into_report=True),
    "claims": Piece(claims, f"{REPORT}.claims", into_report=True),
    "learning rates": Piece(learning_rates, "dfeat.report.tables.learning_rates"),
    "ablation": Piece(ablation, "dfeat.report.tables.ablations", into_report=True),
    **{f"plot {name}": Piece(figure(name), f"{REPORT}.figures.curves", 0.01, into_report=True) for name in CURVES},
    **{f"plot {name}": Piece(figure(name), f"{REPORT}.figures.maps", 0.01, into_report=True) for name in PLOTS},
    **{name: Piece(figure(name), f"{REPORT}.figures.examples", 0.01, into_report=True) for name in PICTURES},
    "gallery": Piece(gallery, f"{REPORT}.figures.gallery", 0.01, into_report=True),
    "page": Piece(page, f"{REPORT}.page", into_report=True),
}
"""In the order in which they are made."""


@dataclass
class Made:
    """Everything made once: each piece's values, the families of random numbers it asked for, and its seconds."""

    values: dict[str, Values] = field(default_factory=dict)
    asked: dict[str, set[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def make_all(folder: Path) -> Made:
    """Make the run and every piece in the folder, which becomes the working folder."""
    run.make_run(folder)
    made = Made()
    for name, piece in PIECES.items():
        started = time.monotonic()
        with watched() as asked:
            made.values[name] = piece.make(RUN / "report" if piece.into_report else Path("pieces") / name)
        made.asked[name], made.seconds[name] = asked, time.monotonic() - started
    return made


def record(made: Made) -> str:
    """The file of records, a line for each value."""
    pieces = []
    for name, piece in PIECES.items():
        recipe = json.dumps([piece.module, declared_recipe(piece.module)])
        values = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in made.values[name].items())
        pieces.append(f'{json.dumps(name)}: {{\n "recipe": {recipe},\n "values": {{\n{values}\n }}\n}}')
    return "{\n" + ",\n".join(pieces) + "\n}\n"


def _ramp() -> np.ndarray:
    return (np.mgrid[0:50, 0:70].sum(0)[..., None] * np.array([1, 2, 0])).astype(np.uint8)


def _annotations(name: str, content: str) -> Values:
    """COCO annotations; their areas apart, which lie on an edge of rounding."""
    given = json.loads(content)
    areas = [annotation.pop("area") for annotation in given["annotations"]]
    return {name: text(json.dumps(given)), f"{name} areas": numbers(areas)}


def _unsigned(content: str) -> str:
    """A text without digests, which change with the last bit of what they are of."""
    return re.sub(r"\b[0-9a-f]{64}\b", "-", content)


def _without_bytes(content: str) -> str:
    """A table of costs, in Markdown or HTML, without what it says of bytes: encoders differ in them."""
    for about in (
        r"## Disk\n.*?(?=## |\Z)", r"\| Disk \|[^\n]*\n",
        r"<h2>Disk</h2>.*?(?=<h2>)", r"<tr>(?:(?!</tr>).)*<td[^>]*>Disk(?: \(KB\))?</td>.*?</tr>",
    ):  # fmt: skip
        content = re.sub(about, "", content, flags=re.DOTALL)
    return content


def _cache(path: Path, exact: bool = True) -> Values:
    """The images of a pixel cache, by key."""
    with h5py.File(path) as file:
        keys, shapes, starts, data = file["key"][:], file["shape"][:], file["offset"][:], file["pixels"][:]
    images = {
        key.decode(): data[start : start + int(np.prod(shape)) * 3].reshape(*shape, 3)
        for key, shape, start in zip(keys, shapes, starts, strict=True)
    }
    named: Values = {"keys": text(list(images)), "shapes": text(shapes)}
    if not exact:
        return named | {"pixels": numbers(np.concatenate([image.ravel() for image in images.values()]))}
    return named | {"pixels": text({key: text(image) for key, image in images.items()})}


def _rows(path: Path, payload: str) -> Values:
    """The rows of a shard of arrays."""
    with h5py.File(path) as file:
        keys = [key.decode() for key in file["key"][:]]
        return {"keys": text(keys), "settings": text(file.attrs["settings"]), payload: numbers(file[payload][:])}


def _trained(name: str, folder: Path) -> Values:
    """The loss of each epoch of a training, and the weights that it ends with."""
    from safetensors.numpy import load_file

    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    weights = load_file(folder / "model.safetensors")
    return {
        f"{name} loss": numbers([row["loss"] for row in rows]),
        f"{name} epochs": text([row["epoch"] for row in rows]),
        f"{name} weights": numbers(np.concatenate([weights[key].ravel() for key in sorted(weights)])),
    }


def _pictures(path: Path) -> dict[str, np.ndarray]:
    """The decoded pictures of an inpaint shard."""
    with h5py.File(path) as file:
        rows = zip(file["key"][:], file["image"][:], strict=True)
        return {key.decode(): np.asarray(Image.open(io.BytesIO(row.tobytes()))) for key, row in rows}


def _batches(method: str, given: dict[str, Any], name: str = "", **changes: Any) -> Values:
    """All batches of a training of two epochs."""
    from dfeat.training.dataset import TrainingBatches
    from dfeat.training.settings import TrainingSettings
    from dfeat.training.sources import Inputs, read_sources

    diffusion = RUN / "diffusion"
    inputs = {
        "index": RUN / "data/train", "pixels": RUN / "data/train/pixels.h5", "parts": RUN / "occlusion/parts.json",
        "inpainted": diffusion / "inpaint/train/pixels.h5", "features": (diffusion / "features/train/0-of-1.h5",),
        "twin_features": (diffusion / "features/train-occluded/0-of-1.h5",),
    }  # fmt: skip
    settings = TrainingSettings(**{**run.TRAINING, **changes})
    made = TrainingBatches(method, read_sources(method, Inputs(**{**inputs, **given}), settings), settings, 0, 0)  # type: ignore[arg-type]
    values: Values = {f"{name or method} order": text([made.keys_of(step) for step in range(len(made))])}
    steps = [made[step] for step in range(len(made))]
    for part in ("images", "targets", "masks", "features"):
        tensors = [batch.mask_images() if part == "masks" else getattr(batch, part) for batch in steps]
        for epoch in (0, 1):
            own = tensors[epoch * made.steps_per_epoch : (epoch + 1) * made.steps_per_epoch]
            if own[0] is not None:
                values[f"{name or method} {part}, epoch {epoch}"] = numbers(np.stack([one.numpy() for one in own]))
    return values


def main() -> None:
    """Record anew, or with `exact` print digests of all bits."""
    kept.exact = sys.argv[1:] == ["exact"]
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = make_all(Path(folder))
        finally:
            os.chdir(home)
    if kept.exact:
        print(json.dumps(made.values, indent=1))
        return
    RECORDED.write_text(record(made))
    for name, seconds in made.seconds.items():
        print(f"{seconds:6.2f} s  {name}: {', '.join(sorted(made.asked[name]))}")


if __name__ == "__main__":
    main()
