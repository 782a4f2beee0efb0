"""Floating-point operations of one image through each network of a run, and what a method takes of them.

What enters: the settings. What leaves: FLOPs of a forward pass of each backbone, of encoding, decoding and denoising
with the diffusion model, for one image, and the parameters that features need. For models of the paper's sizes they are
those of `operations`; for others, such as the built-in ones, they are counted on the run's own networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from dfeat.config import Settings
from dfeat.costs.efficiency import Step
from dfeat.costs.operations import (
    INPAINTING,
    PARAMETERS,
    backbone_flops,
    diffusion_flops,
    feature_flops,
    inpaint_flops,
    training_passes,
    until_flops,
    until_parameters,
)
from dfeat.errors import UserError
from dfeat.methods import needed
from dfeat.progress import say

BACKWARD: Final = 3.0
"""FLOPs of a forward and a backward pass together over those of the forward: 2.997 and 2.999 on the paper's backbones."""


WIDTH: Final = {"float32": 4, "tf32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of a parameter."""


@dataclass(frozen=True)
class Counts:
    """FLOPs of one image: `features` by the U-Net up to the settings' last block, `shallow` by its outermost layer.

    `parameters` are those of the layers that features take: the VAE's encoder, and the U-Net up to that block.
    """

    encode: float
    decode: float
    unet: float
    shallow: float
    features: float
    forward: dict[str, float]
    parameters: float

    def inpaint(self, settings: Settings) -> float:
        """FLOPs of inpainting one image."""
        return inpaint_flops(settings.diffusion.inpaint, {name: getattr(self, name) for name in INPAINTING})

    def view(self, settings: Settings) -> dict[Step, float]:
        """FLOPs of the features of one view, from its pixels, by step."""
        return {"latents": self.encode, "features": feature_flops(settings.diffusion.features, self.features)}

    def feature(self, settings: Settings) -> float:
        """FLOPs of the features of one view, from its pixels."""
        return math.fsum(self.view(settings).values())

    def training(self, settings: Settings, name: str, backbone: str) -> float:
        """FLOPs of a whole training for each training image."""
        return training_passes(settings.training.epochs, name) * BACKWARD * self.forward[backbone]

    def prepared(self, settings: Settings, name: str) -> dict[Step, float]:
        """FLOPs of what a method needs of each training image, by step: its inpaintings, or features of it and its twin."""
        needs, twins = needed([name]), 2 if settings.training.twin_features == "occluded" else 1
        steps: dict[Step, float] = {}
        if "inpainted" in needs:
            steps["inpaint"] = settings.diffusion.inpaint.copies * self.inpaint(settings)
        if "features" in needs:
            steps |= {step: settings.diffusion.views * twins * one for step, one in self.view(settings).items()}
        return steps

    def preparing(self, settings: Settings, name: str) -> float:
        """FLOPs of what a method needs of each training image."""
        return math.fsum(self.prepared(settings, name).values())

    def inference(self, settings: Settings, name: str, backbone: str) -> float:
        """FLOPs of classifying one image, from its pixels."""
        return self.forward[backbone] + (self.feature(settings) if "features" in needed([name]) else 0.0)

    def shipped(self, settings: Settings, name: str) -> float:
        """Bytes of the diffusion model that classifying an image takes beside the classifier; 0 for a method without.

        These are the VAE's encoder and the U-Net up to the last block, in the run's precision. The text encoder stays
        behind: it embeds the null prompt alone, whose embedding can be shipped in its place.
        """
        width = WIDTH[settings.diffusion.model.precision]
        return width * self.parameters if "features" in needed([name]) else 0.0


def count(settings: Settings) -> Counts:
    """The FLOPs of the run's networks. Small models are loaded and counted, which takes some seconds."""
    return _counted(settings) if is_small(settings) else stated(settings)


def is_small(settings: Settings) -> bool:
    """Whether the run uses models that are not of the sizes assumed here, as the built-in ones are."""
    sized = [backbone.kwargs for backbone in settings.training.backbones.values()]
    return "demo" in (settings.diffusion.model.path, settings.diffusion.inpainting_model.path) or any(sized)


def stated(settings: Settings) -> Counts:
    """The FLOPs of Stable Diffusion 2 and of the backbones, as `operations` has them, whatever models the run uses."""
    resolution, training = settings.diffusion.resolution, settings.training
    encode, decode, unet, shallow = (diffusion_flops(name, resolution) for name in INPAINTING)
    features = until_flops(settings.diffusion.features.blocks, resolution)
    backbones = training.backbones.items()
    forward = {name: backbone_flops(one.name, training.image_size, training=False) for name, one in backbones}
    parameters = PARAMETERS["encode"] + until_parameters(settings.diffusion.features.blocks)
    return Counts(encode, decode, unet, shallow, features, forward, parameters)


def _counted(settings: Settings) -> Counts:
    import torch

    from dfeat.training.network import untrained_backbone

    try:
        counts = _counted_diffusion(settings)
    except UserError as error:
        say(f"operations of the diffusion model are those of Stable Diffusion 2, since none can be loaded: {error}")
        counts = stated(settings)
    size = settings.training.image_size
    forward = {
        name: _flops(partial(untrained_backbone(backbone).eval(), torch.zeros(1, 3, size, size)))
        for name, backbone in settings.training.backbones.items()
    }
    return replace(counts, forward=forward)


def _counted_diffusion(settings: Settings) -> Counts:
    """The counts without those of backbones. Raises UserError where a diffusion model is missing."""
    import torch

    from dfeat.diffusion.denoise import forward_keeping, forward_shallow
    from dfeat.diffusion.features import find_block, forward_until
    from dfeat.diffusion.models import load_model

    diffusion, side = settings.diffusion, settings.diffusion.resolution
    chosen = [one.model_copy(update={"precision": "float32"}) for one in (diffusion.model, diffusion.inpainting_model)]
    model, painter = (load_model(source, "inpaint", torch.device("cpu"), side) for source in chosen)
    image, timestep = torch.zeros(1, 3, side, side), torch.zeros(1, dtype=torch.long)
    with torch.no_grad():
        latent = model.vae.encode(image).latent_dist.mode()
        prompts = [part.embed([""]) for part in (model, painter)]
        noisy, masked = (torch.zeros(1, part.unet.config.in_channels, *latent.shape[2:]) for part in (model, painter))
        deep = forward_keeping(painter.unet, masked, timestep, prompts[1])[1]
    blocks = [find_block(model.unet, name) for name in diffusion.features.blocks]
    encode = partial(model.vae.encode, image)
    features = partial(forward_until, model.unet, blocks, noisy, timestep, prompts[0])
    return Counts(
        _flops(encode),
        _flops(lambda: painter.vae.decode(latent)),
        _flops(lambda: painter.unet(masked, timestep, encoder_hidden_states=prompts[1])),
        _flops(lambda: forward_shallow(painter.unet, masked, timestep, prompts[1], deep)),
        _flops(features),
        {},
        parameters_run(model.vae, encode) + parameters_run(model.unet, features),
    )


def parameters_run(network: Any, call: Callable[[], Any]) -> int:
    """The parameters of the layers of a network that a call runs."""
    import torch

    run: set[Any] = set()
    hooks = [layer.register_forward_pre_hook(lambda layer, _: run.add(layer)) for layer in network.modules()]
    with torch.no_grad():
        call()
    for hook in hooks:
        hook.remove()
    return sum(value.numel() for layer in run for value in layer.parameters(recurse=False))


def _flops(call: Callable[[], Any]) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return float(counter.get_total_flops())
