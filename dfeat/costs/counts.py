"""Floating-point operations of one image through each network of a run.

What enters: the settings. What leaves: FLOPs of a forward pass of each backbone, of encoding, decoding and denoising
with the diffusion model, for one image. For models of the paper's sizes those of `operations`; for other ones, as the built-in models are,
counted by torch on the run's own networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from dfeat.config import Settings
from dfeat.costs.estimate import is_small
from dfeat.costs.operations import backbone_flops, diffusion_flops, until_flops
from dfeat.diffusion.schedule import total
from dfeat.methods import method

BACKWARD: Final = 3.0
"""A forward and a backward pass over a forward one: 2.997 and 2.999 on the paper's backbones."""


@dataclass(frozen=True)
class Counts:
    """FLOPs an image. `forward` is by backbone; `features` is the U-Net up to the last block that is asked for.

    `shallow` is its outermost layer alone, which a pass with reused deep features runs.
    """

    encode: float
    decode: float
    unet: float
    shallow: float
    features: float
    forward: dict[str, float]

    def inpaint(self, settings: Settings) -> float:
        """Inpainting one image: one encoding, the passes of its steps, one decoding."""
        return self.encode + total(settings.diffusion.inpaint, self.unet, self.shallow) + self.decode

    def feature(self, settings: Settings) -> float:
        """The features of one view, from its pixels: one encoding, and a partial pass for each timestep and draw of noise."""
        chosen = settings.diffusion.features
        return self.encode + chosen.ensemble * len(chosen.timesteps) * self.features

    def training(self, settings: Settings, name: str, backbone: str) -> float:
        """A whole training by a method, per training image: every epoch takes it and its twin, or both with their masks."""
        passes = 2 * settings.training.epochs * (2 if method(name).masks else 1)
        return passes * BACKWARD * self.forward[backbone]


def count(settings: Settings) -> Counts:
    """The FLOPs of the run's networks. Small models are loaded and counted; that takes some seconds."""
    if is_small(settings):
        return _counted(settings)
    resolution, training = settings.diffusion.resolution, settings.training
    encode, decode, unet, shallow = (
        diffusion_flops(name, resolution) for name in ("encode", "decode", "unet", "shallow")
    )
    features = until_flops(settings.diffusion.features.blocks, resolution)
    backbones = training.backbones.items()
    forward = {name: backbone_flops(one.name, training.image_size, training=False) for name, one in backbones}
    return Counts(encode, decode, unet, shallow, features, forward)


def _counted(settings: Settings) -> Counts:
    import timm
    import torch

    from dfeat.diffusion.denoise import forward_keeping, forward_shallow
    from dfeat.diffusion.features import find_block, forward_until
    from dfeat.diffusion.models import load_model

    diffusion, size = settings.diffusion, settings.training.image_size
    model, painter = (
        load_model(
            source.model_copy(update={"precision": "float32"}), "inpaint", torch.device("cpu"), diffusion.resolution
        )
        for source in (diffusion.model, diffusion.inpainting_model)
    )
    side = diffusion.resolution
    image = torch.zeros(1, 3, side, side)
    with torch.no_grad():
        encoded = model.vae.encode(image)
        latent = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        prompts = [part.embed([""]) for part in (model, painter)]
    cells = latent.shape[2:]
    noisy, masked = (torch.zeros(1, part.unet.config.in_channels, *cells) for part in (model, painter))
    timestep = torch.zeros(1, dtype=torch.long)
    blocks = [find_block(model.unet, name) for name in diffusion.features.blocks]
    forward = {}
    for name, backbone in settings.training.backbones.items():
        network = timm.create_model(backbone.name, pretrained=False, num_classes=0, **backbone.kwargs).eval()
        forward[name] = _flops(partial(network, torch.zeros(1, 3, size, size)))
    with torch.no_grad():
        deep = forward_keeping(painter.unet, masked, timestep, prompts[1])[1]
    return Counts(
        _flops(lambda: model.vae.encode(image)),
        _flops(lambda: painter.vae.decode(latent)),
        _flops(lambda: painter.unet(masked, timestep, encoder_hidden_states=prompts[1])),
        _flops(lambda: forward_shallow(painter.unet, masked, timestep, prompts[1], deep)),
        _flops(lambda: forward_until(model.unet, blocks, noisy, timestep, prompts[0])),
        forward,
    )


def _flops(call: Callable[[], Any]) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return float(counter.get_total_flops())
