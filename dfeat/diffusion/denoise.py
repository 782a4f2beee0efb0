"""The U-Net's prediction at each step of a sampling run, with classifier-free guidance and reused deep features.

What enters: latents of a batch at a step, in float32. What leaves: the guided prediction, epsilon or v (Salimans and Ho,
2022) as the model was trained, in float32 too; the sampler interprets it. With `cache_interval` N only every N-th pass runs the whole U-Net.
The others run its outermost layer on the deep features cached by the last whole pass, which change slowly from step to
step (DeepCache: Ma, Fang and Wang, 2024, Sec. 4, branch 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dfeat.diffusion.schedule import Pass
from dfeat.diffusion.settings import InpaintSettings
from dfeat.errors import UserError


class Denoiser:
    """Predict one batch step after step, caching the deep features between steps."""

    def __init__(
        self, model: Any, settings: InpaintSettings, prompt: torch.Tensor, conditions: Sequence[torch.Tensor]
    ) -> None:
        """Prepare the predictions of a batch of B images.

        Args:
            model: The `DiffusionModel` whose U-Net predicts.
            settings: Guidance and cache interval.
            prompt: Text embeddings (2B, tokens, width), unconditional first; (B, tokens, width) without guidance.
            conditions: For a U-Net of 9 channels the mask (B, 1, h, w) and the masked image's latents (B, 4, h, w),
                concatenated to the latents; otherwise empty.
        """
        self.unet, self.settings = model.unet, settings
        self.prompt, self.conditions = prompt, conditions
        self.deep: torch.Tensor | None = None
        if settings.cache_interval > 1:
            check_reusable(model.unet)

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor, step: Pass) -> torch.Tensor:
        """The prediction (B, 4, h, w) for latents (B, 4, h, w), both float32 whatever the model's precision."""
        copies = 2 if step.guided else 1
        x = torch.cat([torch.cat([part] * copies) for part in (latents, *self.conditions)], dim=1)
        x = x.to(self.prompt.dtype, memory_format=torch.channels_last)
        # Without guidance only the conditional half is run, the last B rows.
        prompt = self.prompt if step.guided else self.prompt[-len(latents) :]
        predicted = (self._whole if step.whole else self._shallow)(x, timestep, prompt).float()
        if not step.guided:
            return predicted
        unconditional, conditional = predicted.chunk(2)
        # Classifier-free guidance (Ho and Salimans, 2022, Eq. 6), with guidance_scale = 1 + w:
        # eps~(z, c) = (1 + w) eps(z, c) - w eps(z)
        return unconditional + self.settings.guidance_scale * (conditional - unconditional)

    def _whole(self, x: torch.Tensor, timestep: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        if self.settings.cache_interval == 1:
            return self.unet(x, timestep, encoder_hidden_states=prompt).sample
        predicted, self.deep = forward_keeping(self.unet, x, timestep, prompt)
        return predicted

    def _shallow(self, x: torch.Tensor, timestep: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        assert self.deep is not None
        # Deep features cached by a guided pass hold both halves; an unguided one reads the conditional half.
        return forward_shallow(self.unet, x, timestep, prompt, self.deep[-len(x) :])


def forward_keeping(
    unet: Any, x: torch.Tensor, timestep: torch.Tensor, prompt: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a whole pass; returns the prediction (B, 4, h, w) and the deep features (B, C, h, w) for `forward_shallow`.

    The outermost layer, the last resnet of the last up block, receives [deep features, skip] along the channels, where
    the skip is the output of `conv_in`.
    """
    kept: list[torch.Tensor] = []
    outermost = unet.up_blocks[-1].resnets[-1]
    skip = unet.conv_in.out_channels

    # DeepCache (Ma et al., 2024): F_cache = U_2(.). The skip D_1, the last channels of U_1's input, is cheap to compute.
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
    """Run the outermost layer alone on deep features of an earlier pass: a prediction (B, 4, h, w).

    With the deep features of the same pass the result equals that of the whole U-Net.
    """
    embedding = unet.time_embedding(unet.get_time_embed(sample=x, timestep=timestep))
    block = unet.up_blocks[-1]
    # DeepCache: U_1(Concat(F_cache, D_1(x_t))). Only conv_in reads the current latents.
    hidden = block.resnets[-1](torch.cat([deep, unet.conv_in(x)], dim=1), embedding)
    if getattr(block, "has_cross_attention", False):
        hidden = block.attentions[-1](hidden, encoder_hidden_states=prompt, return_dict=False)[0]
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))


def check_reusable(unet: Any) -> None:
    """Raise UserError for a U-Net whose outermost layer differs from that of Stable Diffusion 1 and 2."""
    config = unet.config
    unsupported = [
        name
        for name in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type", "time_embedding_act_fn")
        if getattr(config, name, None)
    ]
    if unsupported or getattr(unet.up_blocks[-1], "upsamplers", None):
        raise UserError(
            "diffusion.inpaint.cache_interval needs a U-Net with the architecture of Stable Diffusion 1 or 2; this one "
            f"has {', '.join(unsupported) or 'an upsampler at its end'}. Set cache_interval to 1"
        )
