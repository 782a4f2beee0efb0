"""What each method costs in training and at inference: operations, seconds, memory, and bytes to ship.

What enters: the settings, the number of training images, and the speeds of a card. What leaves: a `MethodCost` for each
method and backbone, with the figures of `operations`. Seconds are central estimates of computing alone. Memory is that of
weights alone, so a lower bound: activations come on top, which depend on the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final

from dfeat.config import Settings
from dfeat.costs.counts import WIDTH, stated
from dfeat.costs.efficiency import Step
from dfeat.costs.estimate import weights_bytes, work_of
from dfeat.costs.measured import Speeds
from dfeat.costs.operations import PARAMETERS
from dfeat.methods import REFERENCE, needed

TRAINED: Final = 3
"""Numbers that SGD with momentum keeps of each parameter: its value, gradient and momentum."""


@dataclass(frozen=True)
class MethodCost:
    """One method and backbone. FLOPs and seconds of training are those of preparing the data and training one model, per
    training image; those of inference are per test image."""

    method: str
    backbone: str
    training_flops: float
    training_seconds: float
    training_memory: float
    inference_flops: float
    inference_seconds: float
    inference_memory: float
    shipped: float
    """Bytes of the classifier and of what it takes of a diffusion model."""
    break_even: float | None
    """Test images from which on inference exceeds, in FLOPs beyond None, preparing and training; None if it never does."""


def per_method(settings: Settings, images: int, speeds: Speeds) -> list[MethodCost]:
    """The costs of every method and backbone of a run."""
    training = settings.training
    return [_cost(settings, images, speeds, *pair) for pair in product(training.methods, training.backbones)]


def _cost(settings: Settings, images: int, speeds: Speeds, method: str, backbone: str) -> MethodCost:
    counts, diffusion, training = stated(settings), settings.diffusion, settings.training
    preparing, fitting = counts.preparing(settings, method), counts.training(settings, method, backbone)
    forward, inference = counts.forward[backbone], counts.inference(settings, method, backbone)
    extra, extra_test = preparing + fitting - counts.training(settings, REFERENCE, backbone), inference - forward
    painter = diffusion.inpainting_model if "inpainted" in needed([method]) else diffusion.model
    painting = WIDTH[painter.precision] * (PARAMETERS["unet"] + PARAMETERS["encode"] + PARAMETERS["decode"])
    weights, shipped = weights_bytes(training.backbones[backbone]), counts.shipped(settings, method)

    def seconds(steps: Mapping[Step, float]) -> float:
        return math.fsum(speeds.of(work_of(settings, step)).seconds(flops).central for step, flops in steps.items())

    return MethodCost(
        method,
        backbone,
        training_flops=preparing + fitting,
        training_seconds=seconds({**counts.prepared(settings, method), "training": fitting}),
        training_memory=max(TRAINED * weights, painting if "inpainted" in needed([method]) else shipped),
        inference_flops=inference,
        inference_seconds=seconds({"evaluation": forward, **(counts.view(settings) if extra_test else {})}),
        inference_memory=weights + shipped,
        shipped=weights + shipped,
        break_even=images * extra / extra_test if extra > 0 and extra_test > 0 else None,
    )
