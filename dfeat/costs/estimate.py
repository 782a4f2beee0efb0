"""What a run will cost: disk and GPU-hours of each step, estimated before anything is computed.

What enters: the settings, and how many images each set has. What leaves: a `Cost` for each step. FLOPs are those of
`operations`, for Stable Diffusion 2 and the backbones listed there. Time is FLOPs over a speed of `measured.Speeds`, low,
central and high, where the device waits for no image; and the start of each job.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from dfeat.config import Settings
from dfeat.config.shards import level_groups, shard_count
from dfeat.costs.counts import BACKWARD, stated
from dfeat.costs.efficiency import NOTHING, Range, Step, Work
from dfeat.costs.measured import Speeds
from dfeat.costs.operations import (
    BACKBONES,
    CHANNELS,
    TEXT,
    backbone_flops,
    feature_flops,
    known_backbone,
    training_passes,
    whole_block,
)
from dfeat.diffusion.schedule import total
from dfeat.errors import UserError
from dfeat.methods import method, needed
from dfeat.places import OCCLUDED, TRAIN, level_view
from dfeat.training.settings import Backbone
from dfeat.training.weights import weights_path

BACKBONE_BYTES: Final = 355_000_000
IMAGE_PIXELS: Final = 180_000
"""Pixels of an average image of ImageNet."""
BYTES_PER_PIXEL: Final = {"png": 1.4, "webp": 1.0}
"""Of a photograph, losslessly encoded; measured on a hundred of them at 500 px."""
START: Final = Range(15, 40, 120)
"""Seconds that a job takes before it computes: libraries, digests and weights; an estimate."""
COMPILING: Final = Range(20, 60, 300)
"""Seconds that a job with `compile` takes more, the low ones where torch.compile's cache has the graphs; an estimate."""


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
    compiled: bool = False
    pass_flops: float = 0.0
    """FLOPs of one pass over a batch."""

    @property
    def work(self) -> Work:
        """What decides the speed of a step that computes on a device."""
        return Work(cast(Step, self.step), self.precision, self.compiled, self.pass_flops)

    def hours(self, speeds: Speeds) -> Range:
        """Estimated hours on one device: those of computing, and of the start of each job."""
        return hours(self.flops, self.work, speeds, self.jobs) if self.flops else NOTHING


def hours(flops: float, work: Work, speeds: Speeds, jobs: int) -> Range:
    """Estimated hours of so many FLOPs on one device, in so many jobs."""
    start = START.plus(COMPILING) if work.compiled else START
    return speeds.of(work).seconds(flops).plus(start.times(jobs)).times(1 / 3600)


def work_of(settings: Settings, step: Step) -> Work:
    """How a step computes, by the settings: precision, compiled or not, and the FLOPs of a pass over a batch."""
    diffusion, training, counts = settings.diffusion, settings.training, stated(settings)
    forward = math.fsum(counts.forward.values()) / len(counts.forward)
    if step == "evaluation":
        return Work(step, settings.evaluation.precision, False, settings.evaluation.batch_size * forward)
    if step == "training":
        rows = math.ceil(training.batch_size / training.gpus / training.accumulate)
        return Work(step, training.precision, training.compile, rows * BACKWARD * forward)
    if step == "inpaint":
        rows = diffusion.batch_size * (2 if diffusion.inpaint.guidance_scale > 1 else 1)
        return Work(step, diffusion.inpainting_model.precision, diffusion.compile, rows * counts.unet)
    one = counts.encode if step == "latents" else counts.features
    return Work(step, diffusion.model.precision, diffusion.compile, diffusion.batch_size * one)


def _on_device(work: Work, items: int, size: int, flops: float, how: str, jobs: int) -> Cost:
    """The cost of a step that computes on a device."""
    return Cost(work.step, items, size, flops, work.precision, how, jobs, work.compiled, work.pass_flops)


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
    pixels = settings.diffusion.resolution**2 if settings.data.drawn else IMAGE_PIXELS
    size = round(images * pixels * BYTES_PER_PIXEL[chosen.encoding])
    shallow = f", {rows - whole} of them its outermost layer" if whole < rows else ""
    how = f"{rows} U-Net passes{shallow}, one encoding and decoding; {pixels // 1000}k pixels an image as {chosen.encoding}"
    how = f"{chosen.copies} copies an image, each of {how}" if chosen.copies > 1 else how
    flops = images * stated(settings).inpaint(settings) + shards * prompts_of(settings) * TEXT
    return _on_device(work_of(settings, "inpaint"), images, size, flops, how, shards)


def prompts_of(settings: Settings) -> int:
    """Prompts that a shard of inpaintings embeds: one of each class, and the negative one."""
    return (settings.data.train.expected_classes or 158) + 1


def _latents_and_features(settings: Settings, images: Mapping[str, int]) -> list[Cost]:
    diffusion, chosen, views = settings.diffusion, settings.diffusion.features, _views(settings, images)
    side, counts = diffusion.resolution, stated(settings)
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
    encoded = views * counts.encode
    latents = _on_device(work_of(settings, "latents"), views, size, encoded, "one VAE encoding a view", latents_jobs)
    blocks = [CHANNELS.get(whole_block(block), CHANNELS["mid"]) for block in chosen.blocks]
    width = len(chosen.timesteps) * sum(channels * (chosen.pool or side // cell) ** 2 for channels, cell in blocks)
    how = f"U-Net up to {', '.join(chosen.blocks)}, {chosen.ensemble} draw(s) of noise; {width} numbers a view"
    flops = views * feature_flops(chosen, counts.features)
    return [latents, _on_device(work_of(settings, "features"), views, views * width * 2, flops, how, features_jobs)]


def training_flops(settings: Settings, images: int, backbone: Backbone, name: str) -> float:
    """FLOPs of training one model on so many originals and as many twins."""
    training = settings.training
    one = backbone_flops(backbone.name, training.image_size, training=True)
    return images * training_passes(training.epochs, name) * one


def _training(settings: Settings, images: int) -> Cost:
    training, seeds = settings.training, len(settings.training.seeds)
    models = len(training.methods) * len(training.backbones) * seeds
    pairs = [(backbone, name) for backbone in training.backbones.values() for name in training.methods]
    flops = seeds * math.fsum(training_flops(settings, images, *pair) for pair in pairs)
    size = sum(map(weights_bytes, training.backbones.values())) * len(training.methods) * seeds
    masked = ", ".join(name for name in training.methods if method(name).masks)
    masks = f"; {masked} also sees masks" if masked else ""
    how = f"{training.epochs} epochs of originals and twins{masks}{_taken_for(settings)}"
    return _on_device(work_of(settings, "training"), models, size, flops, how, models)


def _taken_for(settings: Settings) -> str:
    """The note on backbones that are not in BACKBONES."""
    unknown = [b.name for b in settings.training.backbones.values() if b.name.partition(".")[0] not in BACKBONES]
    return "".join(f"; {name} taken for {known_backbone(name)}" for name in unknown)


def weights_bytes(backbone: Backbone) -> int:
    """Bytes of a trained model: those of the weights it starts from, where they are a local file."""
    try:
        path = weights_path(backbone.weights) if backbone.weights else None
    except UserError:  # a path with a variable that is not set here
        path = None
    return path.stat().st_size if path and path.is_file() else BACKBONE_BYTES


def _evaluation(settings: Settings, images: Mapping[str, int]) -> Cost:
    training = settings.training
    views = sum(images[name] * len(s.levels) for name, s in settings.data.evaluation.items())
    runs = len(training.methods) * len(training.seeds)
    seen = runs * len(training.backbones) * views
    one = math.fsum(stated(settings).forward.values())
    how = "every model on every set and level"
    jobs = runs * len(training.backbones) * len(settings.data.evaluation)
    return _on_device(work_of(settings, "evaluation"), seen, seen * 80, runs * views * one, how, jobs)
