"""Whole diffusion models with random weights in memory: the true architecture, and one of its kinds of layers in miniature.

What enters: a device and a precision. What leaves: a `DiffusionModel` as `load_model` hands it on, without a file.
"""

from __future__ import annotations

from typing import Any

import torch

from bench.architectures import fill, stable_diffusion_21, tokenizer
from dfeat.diffusion.forward import NoiseSchedule, forward_process
from dfeat.diffusion.models import DTYPES, DiffusionModel


def random_model(device: torch.device, precision: str = "float32", small: bool = False) -> DiffusionModel:
    """Stable Diffusion 2.1 with the weights of `fill` on `device`, or `miniature`; every component is there."""
    unet, vae, text = (miniature if small else stable_diffusion_21)(device)
    for part in (unet, vae, text):
        fill(part, DTYPES[precision], device).requires_grad_(False)
    for part in (unet, vae):
        part.to(memory_format=torch.channels_last)
    schedule = NoiseSchedule(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    process = forward_process(schedule, device)
    return DiffusionModel(
        vae, unet, text, tokenizer(), process, "random", device, DTYPES[precision], precision=precision
    )


def miniature(device: torch.device) -> tuple[Any, Any, Any]:
    """U-Net, VAE and text encoder with few channels and two levels of the U-Net, for images of 64 px on a CPU."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with device:
        unet = UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32, 64), attention_head_dim=(2, 4),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32, use_linear_projection=True, layers_per_block=1,
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=(32,) * 4, layers_per_block=1, latent_channels=4, sample_size=64,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        text = CLIPTextModel(CLIPTextConfig(
            hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, hidden_act="gelu",
            vocab_size=49408, projection_dim=32,
        ))  # fmt: skip
    return unet.eval(), vae.eval(), text.eval()
