"""How long a GPU job may take: what a scheduler is asked for.

What enters: the settings, and what a job computes. What leaves: minutes, `SLACK` times the slow end of the estimate on
`resources.device` (as `resources.measured` measured it, where that is set), and never less than the settings' own figure.
Nothing else here depends on the device.
"""

from __future__ import annotations

import math
from typing import Final

from dfeat.config import Settings
from dfeat.config.shards import shard_count, stated_images, view_rows
from dfeat.costs.counts import is_small, stated
from dfeat.costs.efficiency import Step, Work
from dfeat.costs.estimate import hours, prompts_of, training_flops, work_of
from dfeat.costs.measured import speeds_of
from dfeat.costs.operations import TEXT, feature_flops
from dfeat.places import TRAIN

SLACK: Final = 1.5
"""Time that a job is given, over the slow end of what it is estimated to take."""


def training_minutes(settings: Settings, backbone: str, method: str) -> int:
    """Minutes to train one model; at least eight times `resources.runtime`, all there is for models of unknown size."""
    training, least = settings.training, 8 * settings.resources.runtime
    if is_small(settings):
        return least
    flops = training_flops(settings, stated_images(settings)[TRAIN], training.backbones[backbone], method)
    return max(least, _minutes(settings, work_of(settings, "training"), flops / training.gpus))


def shard_minutes(settings: Settings, kind: Step, *views: str) -> int:
    """Minutes for one shard of each view, `kind` inpaint, latents or features; at least `resources.runtime`."""
    least, diffusion = settings.resources.runtime, settings.diffusion
    if is_small(settings):
        return least
    counts = stated(settings)
    rows = sum(math.ceil(view_rows(settings, kind, view) / shard_count(settings, kind, view)) for view in views)
    if kind == "inpaint":
        flops = rows * counts.inpaint(settings) + prompts_of(settings) * TEXT
    elif kind == "latents":
        flops = rows * counts.encode
    else:
        flops = rows * feature_flops(diffusion.features, counts.features)
    return max(least, _minutes(settings, work_of(settings, kind), flops))


def evaluation_minutes(settings: Settings, backbone: str, set_name: str) -> int:
    """Minutes to evaluate one model on every level of a set; at least `resources.runtime`."""
    views = stated_images(settings)[set_name] * len(settings.data.evaluation[set_name].levels)
    return _forward_minutes(settings, backbone, views)


def judging_minutes(settings: Settings, backbone: str) -> int:
    """Minutes in which the models of a backbone judge all inpainted images; at least `resources.runtime`."""
    # each image as it is, with its parts blacked out, and in every inpainted copy
    views = stated_images(settings)[TRAIN] * (2 + settings.diffusion.inpaint.copies)
    return _forward_minutes(settings, backbone, views * len(settings.training.seeds))


def _forward_minutes(settings: Settings, backbone: str, views: int) -> int:
    least = settings.resources.runtime
    if is_small(settings):
        return least
    flops = views * stated(settings).forward[backbone]
    return max(least, _minutes(settings, work_of(settings, "evaluation"), flops))


def _minutes(settings: Settings, work: Work, flops: float) -> int:
    return math.ceil(SLACK * 60 * hours(flops, work, speeds_of(settings), jobs=1).high)
