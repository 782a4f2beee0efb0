"""What each method costs in training and at inference: operations, seconds, memory, and bytes to ship.

What enters: the settings, the number of training images, and a device of `costs.PEAK`. What leaves: a `MethodCost` for each
method and backbone, with the figures of `operations`. Memory is that of weights alone, so a lower bound: activations come
on top, which depend on the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Final

from dfeat.config import Settings
from dfeat.costs.counts import WIDTH, stated
from dfeat.costs.estimate import hours, weights_bytes
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


def per_method(settings: Settings, images: int, device: str) -> list[MethodCost]:
    """The costs of every method and backbone of a run."""
    training = settings.training
    return [_cost(settings, images, device, *pair) for pair in product(training.methods, training.backbones)]


def _cost(settings: Settings, images: int, device: str, method: str, backbone: str) -> MethodCost:
    counts, diffusion, training = stated(settings), settings.diffusion, settings.training
    preparing, fitting = counts.preparing(settings, method), counts.training(settings, method, backbone)
    forward, inference = counts.forward[backbone], counts.inference(settings, method, backbone)
    extra, extra_test = preparing + fitting - counts.training(settings, REFERENCE, backbone), inference - forward
    painter = diffusion.inpainting_model if "inpainted" in needed([method]) else diffusion.model
    painting = WIDTH[painter.precision] * (PARAMETERS["unet"] + PARAMETERS["encode"] + PARAMETERS["decode"])
    weights, shipped = weights_bytes(training.backbones[backbone]), counts.shipped(settings, method)
    return MethodCost(
        method,
        backbone,
        training_flops=preparing + fitting,
        training_seconds=3600
        * (hours(preparing, device, painter.precision) + hours(fitting, device, training.precision)),
        training_memory=max(TRAINED * weights, painting if "inpainted" in needed([method]) else shipped),
        inference_flops=inference,
        inference_seconds=3600
        * (
            hours(forward, device, settings.evaluation.precision) + hours(extra_test, device, diffusion.model.precision)
        ),
        inference_memory=weights + shipped,
        shipped=weights + shipped,
        break_even=images * extra / extra_test if extra > 0 and extra_test > 0 else None,
    )
