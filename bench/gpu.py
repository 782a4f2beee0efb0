"""Throughput of the true architectures on a device: images per second, share of its peak, share of time spent waiting.

What enters: a CUDA device; weights are random and photographs drawn. What leaves: a line each for latents, features,
inpainting and training, measured on the code of a run at the paper's sizes in bfloat16, without loading the models.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from bench.architectures import fill, write_stable_diffusion_21
from bench.photographs import HEIGHT, WIDTH, photograph
from bench.table import Result
from dfeat.config import Settings, stage_settings
from dfeat.costs.efficiency import PEAK, card_of
from dfeat.costs.operations import (
    INPAINTING,
    backbone_flops,
    diffusion_flops,
    feature_flops,
    inpaint_flops,
    until_flops,
)
from dfeat.data.classes import imagenet_wnids
from dfeat.data.indexing import build_train_index
from dfeat.data.pixels import cache_index
from dfeat.data.settings import TrainSet
from dfeat.diffusion.features import extract_features
from dfeat.diffusion.inpaint import inpaint_shard
from dfeat.diffusion.latents import encode_view
from dfeat.errors import UserError
from dfeat.methods import BLACKOUT
from dfeat.occlusion.parts import choose_all
from dfeat.randomness import rng_for
from dfeat.section import parse
from dfeat.training.loop import train
from dfeat.training.sources import Inputs

IMAGES: Final = 512
WORKERS: Final = 8


def run(**_options: Any) -> Result:
    """Measure the first CUDA device. Raises UserError where there is none."""
    if not torch.cuda.is_available():
        raise UserError(
            "`python -m bench gpu` needs a CUDA device, and there is none; run the other benchmarks, which need none"
        )
    device = torch.device("cuda")
    with tempfile.TemporaryDirectory(prefix="dfeat-bench-") as folder:
        root = Path(folder)
        write_stable_diffusion_21(root / "model")
        settings = paper_sized(root)
        lines = measure(root, settings, IMAGES, device, WORKERS)
    name = torch.cuda.get_device_name(device)
    return Result([], {"device": name} | {step: described(line, name) for step, line in lines.items()})


def paper_sized(root: Path) -> Settings:
    """Settings of the paper's sizes in bfloat16: DPM-Solver++ with 25 steps, one ConvNeXt-B of random weights, one epoch.

    Writes the backbone's weights to `root`.
    """
    import timm
    from safetensors.torch import save_file

    with torch.device("meta"):
        backbone = timm.create_model("convnext_base", num_classes=0)
    save_file(fill(backbone, torch.float32).state_dict(), root / "backbone.safetensors")
    inpaint = {"scheduler": "dpmsolver++", "steps": 25, "prompt": "A class of tiger"}
    chosen = {"name": "convnext_base.fb_in1k", "weights": str(root / "backbone.safetensors")}
    return parse(
        Settings,
        {
            "diffusion": {
                "model": {"path": str(root / "model"), "precision": "bfloat16"},
                "batch_size": 32,
                "inpaint": inpaint,
            },
            "training": {"backbones": {"convnext": chosen}, "epochs": 1, "precision": "bfloat16"},
        },
    )


def measure(
    root: Path, settings: Settings, images: int, device: torch.device, workers: int
) -> dict[str, dict[str, float]]:
    """Images per second ("rate"), FLOPs per image and the share of time spent waiting of each step.

    Runs each step on `images` drawn photographs, in `root`; inpainting on a quarter of them.
    """
    index, parts = root / "data" / "train", root / "parts.json"
    write_photographs_with_parts(root / "raw", images)
    build_train_index(TrainSet(root=str(root / "raw")), index)
    choose_all(index, stage_settings(settings, "parts"), parts)  # type: ignore[arg-type]
    cache_index(index, stage_settings(settings, "pixels"), index / "pixels.h5")  # type: ignore[arg-type]
    side = settings.diffusion.resolution

    def stage(name: str) -> Any:
        return stage_settings(settings, name, "convnext", BLACKOUT.name)

    latents = encode_view(index, "clean", stage("latents"), root / "latents.h5", device, workers=workers)
    features = extract_features(root / "latents.h5", stage("features"), root / "features.h5", device)
    painted = inpaint_shard(index, parts, stage("inpaint"), root / "inpaint.h5", device, (0, 4), workers)
    chosen = settings.diffusion
    flops = {
        "latents": diffusion_flops("encode", side),
        "features": feature_flops(chosen.features, until_flops(chosen.features.blocks, side)),
        "inpaint": inpaint_flops(chosen.inpaint, {name: diffusion_flops(name, side) for name in INPAINTING}),
    }
    lines = {
        name: {"rate": done.rows / done.seconds, "flops": flops[name], "waited": done.waited}
        for name, done in (("latents", latents), ("features", features), ("inpaint", painted))
    }
    return lines | {"training": _trained(root, settings, index, parts, device, workers)}


def _trained(
    root: Path, settings: Settings, index: Path, parts: Path, device: torch.device, workers: int
) -> dict[str, float]:
    """The line of a training, from the cost of two additional epochs, which excludes loading and warming up."""
    inputs = Inputs(index, index / "pixels.h5", parts)
    short, long = (
        train(BLACKOUT.name, inputs, _stage_of(settings, epochs), 0, root / f"training-{epochs}", device, workers)
        for epochs in (1, 3)
    )
    seconds = max(long.seconds - short.seconds, 1e-9)
    waited = (long.seconds * long.waited - short.seconds * short.waited) / seconds
    name = settings.training.backbones["convnext"].name
    flops = backbone_flops(name, settings.training.image_size, training=True)
    return {"rate": (long.rows - short.rows) / seconds, "flops": flops, "waited": min(max(waited, 0.0), 1.0)}


def _stage_of(settings: Settings, epochs: int) -> Any:
    """The settings of a training of so many epochs."""
    longer = settings.training.model_copy(update={"epochs": epochs})
    return stage_settings(settings.model_copy(update={"training": longer}), "train", "convnext", BLACKOUT.name)


def described(line: dict[str, float], device: str) -> str:
    """A line of `measure` as text: rate, FLOP/s, their share of the device's peak, and the share of waiting."""
    work = line["rate"] * line["flops"]
    text = f"{line['rate']:.1f} images/s, {work / 1e12:.1f} TFLOP/s"
    card = card_of(device)
    text += f", {100 * work / PEAK[card]['bfloat16']:.0f} % of the bfloat16 peak" if card else ""
    return f"{text}, waited {100 * line['waited']:.1f} % of the time for images"


def write_photographs_with_parts(root: Path, count: int) -> None:
    """Write drawn photographs in PartImageNet's layout, each with three rectangles as parts; 16 drawings, shifted."""
    wnids = imagenet_wnids()[:2]
    drawn = [photograph(rng_for(0, str(number), "photograph")) for number in range(min(count, 16))]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        name = f"{wnids[number % 2]}_{number}.JPEG"
        path = root / "train" / wnids[number % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(drawn[number % len(drawn)], number, axis=1)).save(path, quality=90)
        images.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
        for part, left in enumerate((60, 200, 330)):
            box = [left, 80, left + 100, 80, left + 100, 280, left, 280]
            annotations.append({
                "id": len(annotations), "image_id": number, "category_id": part, "segmentation": [box], "iscrowd": 0,
                "area": 20_000, "bbox": [left, 80, 100, 200],
            })  # fmt: skip
    names = ("Quadruped Head", "Quadruped Body", "Quadruped Foot")
    categories = [{"id": part, "name": name, "supercategory": "Quadruped"} for part, name in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "train.json").write_text(json.dumps(content))
