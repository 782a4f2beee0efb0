"""The noise prediction of a sampling run: classifier-free guidance, and deep features used again.

What enters: latents of a batch at a step. What leaves: the guided prediction. With `cache_interval` N only every
N-th pass runs the whole U-Net; the others run its outermost layer on the deep features kept from the last whole pass
(DeepCache: Ma, Fang and Wang, 2024, Sec. 4, branch 0), which change slowly from step to step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dfeat.diffusion.schedule import Pass
from dfeat.diffusion.settings import InpaintSettings
from dfeat.errors import UserError


class Denoiser:
    """Predictions for one batch, step after step; keeps the deep features between steps."""

    def __init__(
        self, model: Any, settings: InpaintSettings, prompt: torch.Tensor, conditions: Sequence[torch.Tensor]
    ) -> None:
        """`prompt` is (2B, tokens, width), unconditional first, or (B, ...) without guidance; `conditions` go in beside the latents (9 channels)."""
        self.unet, self.settings = model.unet, settings
        self.prompt, self.conditions = prompt, conditions
        self.deep: torch.Tensor | None = None
        if settings.cache_interval > 1:
            check_reusable(model.unet)

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor, step: Pass) -> torch.Tensor:
        """The prediction (B, 4, h, w) for latents already scaled for the model's input."""
        copies = 2 if step.guided else 1
        x = torch.cat([torch.cat([part] * copies) for part in (latents, *self.conditions)], dim=1)
        x = x.contiguous(memory_format=torch.channels_last)
        prompt = self.prompt if step.guided else self.prompt[-len(latents) :]
        predicted = self._whole(x, timestep, prompt) if step.whole else self._shallow(x, timestep, prompt)
        if not step.guided:
            return predicted
        unconditional, conditional = predicted.chunk(2)
        return unconditional + self.settings.guidance_scale * (conditional - unconditional)

    def _whole(self, x: torch.Tensor, timestep: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        if self.settings.cache_interval == 1:
            return self.unet(x, timestep, encoder_hidden_states=prompt).sample
        predicted, self.deep = forward_keeping(self.unet, x, timestep, prompt)
        return predicted

    def _shallow(self, x: torch.Tensor, timestep: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        assert self.deep is not None
        return forward_shallow(self.unet, x, timestep, prompt, self.deep[-len(x) :])


def forward_keeping(
    unet: Any, x: torch.Tensor, timestep: torch.Tensor, prompt: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A whole pass, and the deep features (B, C, h, w) that its outermost layer was given."""
    kept: list[torch.Tensor] = []
    outermost = unet.up_blocks[-1].resnets[-1]
    skip = unet.conv_in.out_channels

    def keep(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        kept.append(inputs[0][:, :-skip])

    handle = outermost.register_forward_pre_hook(keep)
    try:
        return unet(x, timestep, encoder_hidden_states=prompt).sample, kept[0]
    finally:
        handle.remove()


def forward_shallow(
    unet: Any, x: torch.Tensor, timestep: torch.Tensor, prompt: torch.Tensor, deep: torch.Tensor
) -> torch.Tensor:
    """The outermost layer alone, on deep features of another pass; on those of the same pass it equals the whole."""
    embedding = unet.time_embedding(unet.get_time_embed(sample=x, timestep=timestep))
    block = unet.up_blocks[-1]
    hidden = block.resnets[-1](torch.cat([deep, unet.conv_in(x)], dim=1), embedding)
    if getattr(block, "has_cross_attention", False):
        hidden = block.attentions[-1](hidden, encoder_hidden_states=prompt, return_dict=False)[0]
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))


def check_reusable(unet: Any) -> None:
    """Raises UserError for a U-Net whose outermost layer is not that of Stable Diffusion 1 and 2."""
    config = unet.config
    strange = [
        name
        for name in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type", "time_embedding_act_fn")
        if getattr(config, name, None)
    ]
    if strange or getattr(unet.up_blocks[-1], "upsamplers", None):
        raise UserError(
            "diffusion.inpaint.cache_interval works with U-Nets built as Stable Diffusion 1 and 2 are; this one has "
            f"{', '.join(strange) or 'an upsampler at its end'}. Set cache_interval to 1"
        )
