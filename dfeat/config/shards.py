"""Into how many shards a view is split: by its own rows alone.

What enters: the settings and a view. What leaves: the number of its shards. An explicit `shards` stands as it is;
null takes as many files as `ROWS` rows each need. Neither another set nor a device nor a table of costs has a say, so
nothing that is made is ever renamed by them. The rows are those that the settings state, not those found on disk, or
one image more would make every shard anew.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from dfeat.places import HOLDOUT, TRAIN, level_view, view_set

if TYPE_CHECKING:
    from dfeat.config.run import Settings

ROWS: Final = {"inpaint": 512, "latents": 8192, "features": 8192}
"""Rows of a shard: by `dfeat plan`'s estimate 512 inpaintings take an hour of an A100 in float32, and less where the
precision or the card is faster: long beside a job's start, short beside a night."""
TOGETHER: Final = 5 * ROWS["latents"]
"""Rows at 512 px of the levels that one job makes of a shard of an evaluation set: as long as a job of inpainting takes,
and 1.3 GB of latents in its memory."""
UNSTATED: Final = 10_000
"""Images that a set is taken to have where `expected_images` is null."""


def shard_count(settings: Settings, kind: str, view: str) -> int:
    """The number of shards of a view; `kind` is inpaint, latents or features. Latents have as many as features."""
    diffusion = settings.diffusion
    explicit = diffusion.inpaint.shards if kind == "inpaint" else diffusion.features.shards
    return explicit or math.ceil(view_rows(settings, kind, view) / ROWS[kind])


def level_groups(settings: Settings, kind: str, set_name: str, levels: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The levels of an evaluation set, in the groups that one job each makes of a shard; `kind` is latents or features.

    The levels of a group come from one decoding of an image, and one start of a process. There are as many in a group as
    have `TOGETHER` rows; a pass of the U-Net counts as a row.
    """
    diffusion = settings.diffusion
    view = level_view(set_name, levels[0])
    rows = math.ceil(view_rows(settings, kind, view) / shard_count(settings, kind, view))
    passes = diffusion.features.ensemble * len(diffusion.features.timesteps) if kind == "features" else 1
    each = rows * passes * (diffusion.resolution / 512) ** 2
    size = max(1, int(TOGETHER // each))
    return [levels[start : start + size] for start in range(0, len(levels), size)]


def view_rows(settings: Settings, kind: str, view: str) -> int:
    """Rows of a view as the settings state them: an image has one for each of its inpainted copies, or cached crops."""
    images = stated_images(settings)[view_set(view)]
    if kind == "inpaint":
        return images * settings.diffusion.inpaint.copies
    return images * (settings.diffusion.views if view_set(view) == TRAIN else 1)


def stated_images(settings: Settings) -> dict[str, int]:
    """The number of images that the settings say each set has; held-out images are not the training set's."""
    train = settings.data.train
    stated = {name: chosen.expected_images or UNSTATED for name, chosen in settings.data.evaluation.items()}
    trained = (train.expected_images or UNSTATED) - train.expected_holdout
    return {TRAIN: trained} | stated | {HOLDOUT: train.expected_holdout or UNSTATED}
