"""The true architectures, built from their published configurations with random weights or none."""

from __future__ import annotations

from typing import Any

import torch


def stable_diffusion_21(device: torch.device, in_channels: int = 4) -> tuple[Any, Any, Any]:
    """U-Net, VAE and text encoder of Stable Diffusion 2.1 from their published configurations, without weights."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with device:
        unet = UNet2DConditionModel(
            sample_size=64, in_channels=in_channels, out_channels=4, block_out_channels=(320, 640, 1280, 1280),
            attention_head_dim=(5, 10, 20, 20), cross_attention_dim=1024, use_linear_projection=True,
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=768,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        text = CLIPTextModel(CLIPTextConfig(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16, hidden_act="gelu",
            vocab_size=49408, projection_dim=512,
        ))  # fmt: skip
    return unet.eval(), vae.eval(), text.eval()
