"""How long a GPU job may take: what a scheduler is asked for.

What enters: the settings, and what a job computes. What leaves: minutes, `SLACK` times the estimate on
`resources.device`, and never less than the settings' own figure. Nothing else here depends on the device.
"""

from __future__ import annotations

import math
from typing import Final

from dfeat.config import Settings
from dfeat.config.shards import shard_count, stated_images, view_rows
from dfeat.costs.counts import is_small, stated
from dfeat.costs.estimate import hours, training_flops
from dfeat.costs.operations import feature_flops

SLACK: Final = 1.5
"""Time that a job is given, over the time that it is estimated to take."""


def training_minutes(settings: Settings, backbone: str, method: str) -> int:
    """Minutes to train one model; at least eight times `resources.runtime`, all there is for models of unknown size."""
    training, least = settings.training, 8 * settings.resources.runtime
    if is_small(settings):
        return least
    flops = training_flops(settings, stated_images(settings)["train"], training.backbones[backbone], method)
    return max(least, _minutes(settings, flops / training.gpus, training.precision))


def shard_minutes(settings: Settings, kind: str, *views: str) -> int:
    """Minutes for one shard of each view, `kind` inpaint, latents or features; at least `resources.runtime`."""
    least, diffusion = settings.resources.runtime, settings.diffusion
    if is_small(settings):
        return least
    counts = stated(settings)
    precision = (diffusion.inpainting_model if kind == "inpaint" else diffusion.model).precision
    if kind == "inpaint":
        one = counts.inpaint(settings)
    elif kind == "latents":
        one = counts.encode
    else:
        one = feature_flops(diffusion.features, counts.features)
    rows = sum(math.ceil(view_rows(settings, kind, view) / shard_count(settings, kind, view)) for view in views)
    return max(least, _minutes(settings, rows * one, precision))


def _minutes(settings: Settings, flops: float, precision: str) -> int:
    return math.ceil(SLACK * 60 * hours(flops, settings.resources.device, precision))
