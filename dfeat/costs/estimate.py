"""What a run will cost: disk and GPU-hours of each step, estimated before anything is computed.

What enters: the settings, and how many images each set has. What leaves: a `Cost` for each step. FLOPs are those of
`operations`, for Stable Diffusion 2 and the backbones listed there. Time is FLOPs over 40 % of a device's peak: an
order of magnitude, not a promise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dfeat.config import Settings
from dfeat.config.shards import level_groups, shard_count
from dfeat.costs.counts import stated
from dfeat.costs.operations import (
    BACKBONES,
    CHANNELS,
    TEXT,
    backbone_flops,
    feature_flops,
    known_backbone,
    training_passes,
)
from dfeat.diffusion.schedule import total
from dfeat.methods import method, needed
from dfeat.places import OCCLUDED, TRAIN, level_view
from dfeat.training.settings import Backbone
from dfeat.training.weights import weights_path

BACKBONE_BYTES: Final = 355_000_000
IMAGE_PIXELS: Final = 180_000
"""Pixels of an average image of ImageNet."""
BYTES_PER_PIXEL: Final = {"png": 1.4, "webp": 1.0}
"""Of a photograph, losslessly encoded; measured on a hundred of them at 500 px."""
EFFICIENCY: Final = 0.4
PEAK: Final[dict[str, dict[str, float]]] = {
    "T4": {"float32": 8.1e12, "tf32": 8.1e12, "float16": 65e12, "bfloat16": 8.1e12},
    "A100": {"float32": 19.5e12, "tf32": 156e12, "float16": 312e12, "bfloat16": 312e12},
    "H100": {"float32": 67e12, "tf32": 494e12, "float16": 989e12, "bfloat16": 989e12},
    "H200": {"float32": 67e12, "tf32": 494e12, "float16": 989e12, "bfloat16": 989e12},
}
"""Peak FLOP/s from the makers' data sheets, dense; float32 is without TF32. A T4 has no units for TF32 and bfloat16; H100
and H200 are the SXM cards, of 80 and 141 GB."""


def card_of(name: str) -> str | None:
    """The key of PEAK for a device, by its driver's name; None for a card or a MIG slice that PEAK does not list."""
    if re.match("MIG ", name) or re.search(r"H[12]00.*(?:PCIe|NVL)", name):
        return None
    return next((card for card in PEAK if re.search(rf"\b{card}\b", name)), None)


@dataclass(frozen=True)
class Cost:
    """One step: items it makes, bytes it leaves on disk, FLOPs, and how the figures were got."""

    step: str
    items: int
    bytes: int
    flops: float
    precision: str
    how: str
    jobs: int = 1
    """Jobs the step is split into, each on a device of its own."""

    def hours(self, device: str) -> float:
        """Estimated hours on one device of that name."""
        return hours(self.flops, device, self.precision)


def hours(flops: float, device: str, precision: str) -> float:
    """Estimated hours of so many FLOPs on one device of that name."""
    return flops / (EFFICIENCY * PEAK[device][precision]) / 3600


def estimate(settings: Settings, images: Mapping[str, int]) -> list[Cost]:
    """The cost of every step. `images` has the number of images of "train" and of each evaluation set."""
    needs = needed(settings.training.methods)
    costs = [_pixels(settings, images)]
    if "inpainted" in needs:
        costs.append(_inpaint(settings, settings.diffusion.inpaint.copies * images["train"]))
    if "features" in needs:
        costs += _latents_and_features(settings, images)
    return [*costs, _training(settings, images["train"]), _evaluation(settings, images)]


def _views(settings: Settings, images: Mapping[str, int]) -> int:
    """Images that diffusion features are taken of: originals, twins where they have their own, test sets by level."""
    of_train = settings.diffusion.views * images["train"] * (2 if settings.training.twin_features == "occluded" else 1)
    return of_train + sum(images[name] * len(s.levels) for name, s in settings.data.evaluation.items())


def _pixels(settings: Settings, images: Mapping[str, int]) -> Cost:
    inpaints = "inpainted" in needed(settings.training.methods)
    inpainted = settings.diffusion.inpaint.copies * images["train"] if inpaints else 0
    count, side = sum(images.values()) + inpainted, settings.data.short_side
    how = f"3 bytes a pixel, short side {side}, aspect 4:3"
    return Cost("pixels", count, round(count * 4 * side * side), 0.0, "float32", how)


def _inpaint(settings: Settings, images: int) -> Cost:
    """The cost of so many inpainted images, all copies of an image counted."""
    chosen = settings.diffusion.inpaint
    rows, whole = round(total(chosen, 1, 1)), round(total(chosen, 1, 0))
    shards = shard_count(settings, "inpaint", TRAIN)
    prompts = shards * ((settings.data.train.expected_classes or 158) + 1)
    pixels = settings.diffusion.resolution**2 if settings.data.drawn else IMAGE_PIXELS
    size = round(images * pixels * BYTES_PER_PIXEL[chosen.encoding])
    shallow = f", {rows - whole} of them its outermost layer" if whole < rows else ""
    how = f"{rows} U-Net passes{shallow}, one encoding and decoding; {pixels // 1000}k pixels an image as {chosen.encoding}"
    how = f"{chosen.copies} copies an image, each of {how}" if chosen.copies > 1 else how
    flops = images * stated(settings).inpaint(settings) + prompts * TEXT
    return Cost("inpaint", images, size, flops, settings.diffusion.inpainting_model.precision, how, shards)


def _latents_and_features(settings: Settings, images: Mapping[str, int]) -> list[Cost]:
    diffusion, chosen, views = settings.diffusion, settings.diffusion.features, _views(settings, images)
    side, precision, counts = diffusion.resolution, diffusion.model.precision, stated(settings)
    sets = settings.data.evaluation.items()
    twins = [OCCLUDED] if settings.training.twin_features == "occluded" else []
    latents_jobs, features_jobs = (
        sum(shard_count(settings, kind, view) for view in (TRAIN, *twins))
        + sum(
            shard_count(settings, kind, level_view(name, levels[0]))
            for name, chosen in sets
            for levels in level_groups(settings, kind, name, chosen.levels)
        )
        for kind in ("latents", "features")
    )
    size = views * 4 * (side // 8) ** 2 * 2
    latents = Cost("latents", views, size, views * counts.encode, precision, "one VAE encoding a view", latents_jobs)
    blocks = [CHANNELS.get(block, CHANNELS["mid"]) for block in chosen.blocks]
    width = len(chosen.timesteps) * sum(channels * (chosen.pool or side // cell) ** 2 for channels, cell in blocks)
    how = f"U-Net up to {', '.join(chosen.blocks)}, {chosen.ensemble} draw(s) of noise; {width} numbers a view"
    flops = views * feature_flops(chosen, counts.features)
    return [latents, Cost("features", views, views * width * 2, flops, precision, how, features_jobs)]


def training_flops(settings: Settings, images: int, backbone: Backbone, name: str) -> float:
    """FLOPs of training one model on so many originals and as many twins."""
    training = settings.training
    one = backbone_flops(backbone.name, training.image_size, training=True)
    return images * training_passes(training.epochs, name) * one


def _training(settings: Settings, images: int) -> Cost:
    training, seeds = settings.training, len(settings.training.seeds)
    models = len(training.methods) * len(training.backbones) * seeds
    pairs = [(backbone, name) for backbone in training.backbones.values() for name in training.methods]
    flops = seeds * sum(training_flops(settings, images, *pair) for pair in pairs)
    size = sum(map(weights_bytes, training.backbones.values())) * len(training.methods) * seeds
    masked = ", ".join(name for name in training.methods if method(name).masks)
    masks = f"; {masked} also sees masks" if masked else ""
    how = f"{training.epochs} epochs of originals and twins{masks}{_taken_for(settings)}"
    return Cost("training", models, size, flops, training.precision, how, models)


def _taken_for(settings: Settings) -> str:
    """The note on backbones that are not in BACKBONES."""
    unknown = [b.name for b in settings.training.backbones.values() if b.name.partition(".")[0] not in BACKBONES]
    return "".join(f"; {name} taken for {known_backbone(name)}" for name in unknown)


def weights_bytes(backbone: Backbone) -> int:
    """Bytes of a trained model: those of the weights it starts from, where they are a local file."""
    path = weights_path(backbone.weights) if backbone.weights else None
    return path.stat().st_size if path and path.is_file() else BACKBONE_BYTES


def _evaluation(settings: Settings, images: Mapping[str, int]) -> Cost:
    training = settings.training
    views = sum(images[name] * len(s.levels) for name, s in settings.data.evaluation.items())
    runs = len(training.methods) * len(training.seeds)
    seen = runs * len(training.backbones) * views
    one = sum(stated(settings).forward.values())
    how = "every model on every set and level"
    return Cost("evaluation", seen, seen * 80, runs * views * one, "float32", how, runs * len(training.backbones))
