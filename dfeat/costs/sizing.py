"""How many shards a run is split into, so that a job holds 20 to 30 minutes on its device, and how long a training may take.

What enters: settings in which `diffusion.inpaint.shards` or `diffusion.features.shards` is null. What leaves: the same
with numbers there, from the cost model and `resources.device`, for the number of images that the settings state: not
for those found on disk, or an image more would make every shard anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from dfeat.config import Settings
from dfeat.costs.estimate import estimate, hours, is_small, training_flops

MINUTES: Final = 25
"""What a job should take: long beside its start of half a minute, short beside what a crash may cost."""
MOST_JOBS: Final = 2000
"""Of a whole run: a dry run of these takes Snakemake seconds, and a scheduler takes them."""
SLACK: Final = 1.5
"""Time that a training is given, over the time it is estimated to take."""
UNSTATED: Final = 10_000
"""Images that a set is taken to have where `expected_images` is null."""


def sized(settings: Settings) -> Settings:
    """The settings with every null among the numbers of shards replaced."""
    diffusion = settings.diffusion
    if diffusion.inpaint.shards and diffusion.features.shards:
        return settings
    images = _stated(settings)
    views = [2 * [images["train"]], *([images[name]] * len(s.levels) for name, s in settings.data.evaluation.items())]
    inpaint, features = _wanted(settings, images, sum(map(sum, views)))
    models = len(settings.training.methods) * len(settings.training.backbones) * len(settings.training.seeds)
    room = MOST_JOBS - 2 * models - 50
    planned = inpaint + 2 * features * sum(map(len, views))
    if planned > room:
        inpaint, features = (max(1, count * room // planned) for count in (inpaint, features))
    filled = diffusion.model_copy(
        update={
            "inpaint": diffusion.inpaint.model_copy(update={"shards": diffusion.inpaint.shards or inpaint}),
            "features": diffusion.features.model_copy(update={"shards": diffusion.features.shards or features}),
        }
    )
    return settings.model_copy(update={"diffusion": filled})


def training_minutes(settings: Settings, backbone: str, method: str) -> int:
    """Minutes to ask a scheduler for to train one model: `SLACK` times the estimate on `resources.device`.

    Never less than eight times `resources.runtime`, which is all there is to go by for models of unknown size.
    """
    least = 8 * settings.resources.runtime
    if is_small(settings):
        return least
    training, device = settings.training, settings.resources.device
    flops = training_flops(settings, _stated(settings)["train"], training.backbones[backbone], method)
    return max(least, math.ceil(SLACK * 60 * hours(flops, device, training.precision) / training.gpus))


def sized_point(point: Settings, stated: Settings, run: Settings) -> Settings:
    """A point of an ablation (from `run`, the sized settings of `stated`) with inpaint shards for its own cost.

    Where `stated` has null and the point inpaints otherwise than the run, as with more copies. Features stay in as many
    shards as the run's, since a point's features start from the run's latents, shard by shard.
    """
    inpaint = point.diffusion.inpaint
    if stated.diffusion.inpaint.shards or inpaint == run.diffusion.inpaint:
        return point
    open_again = inpaint.model_copy(update={"shards": None})
    diffusion = point.diffusion.model_copy(update={"inpaint": open_again})
    return sized(point.model_copy(update={"diffusion": diffusion}))


def _wanted(settings: Settings, images: Mapping[str, int], rows: int) -> tuple[int, int]:
    """Shards of inpainting, and of each view's latents and features, for jobs of `MINUTES` in the largest view."""
    minutes = {cost.step: 60 * cost.hours(settings.resources.device) for cost in estimate(settings, images)}
    of_largest = max(images.values()) / rows
    encoding = max(minutes.get("latents", 0), minutes.get("features", 0)) * of_largest
    return max(1, round(minutes.get("inpaint", 0) / MINUTES)), max(1, round(encoding / MINUTES))


def _stated(settings: Settings) -> dict[str, int]:
    """The number of images that the settings say each set has."""
    stated = {name: chosen.expected_images or UNSTATED for name, chosen in settings.data.evaluation.items()}
    return {"train": settings.data.train.expected_images or UNSTATED} | stated
