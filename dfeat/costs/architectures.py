"""The true architectures, built from their published configurations with random weights or on the meta device."""

from __future__ import annotations

from typing import Any

import torch


def stable_diffusion_21(device: torch.device, in_channels: int = 4) -> tuple[Any, Any, Any]:
    """U-Net, VAE and text encoder of Stable Diffusion 2.1 on `device`, from their published configurations.

    On the meta device they have shapes, but no weights and no memory.
    """
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    vae = autoencoder(device)
    with device:
        unet = UNet2DConditionModel(
            sample_size=64, in_channels=in_channels, out_channels=4, block_out_channels=(320, 640, 1280, 1280),
            attention_head_dim=(5, 10, 20, 20), cross_attention_dim=1024, use_linear_projection=True,
        )  # fmt: skip
        text = CLIPTextModel(CLIPTextConfig(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16, hidden_act="gelu",
            vocab_size=49408, projection_dim=512,
        ))  # fmt: skip
    return unet.eval(), vae, text.eval()


def autoencoder(device: torch.device) -> Any:
    """The VAE of Stable Diffusion 2.1 on `device`, likewise."""
    from diffusers import AutoencoderKL

    with device:
        return AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=768,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ).eval()  # fmt: skip


def fill(model: torch.nn.Module, dtype: torch.dtype, device: torch.device | None = None) -> torch.nn.Module:
    """Replace all parameters: matrices random with standard deviation 0.02, other weights 1, biases 0.

    With these values activations stay finite in float16. They are on `device` (default: the CPU). Returns the model.
    """
    device = device or torch.device("cpu")
    # on the meta device there is nothing to draw, and no generator
    generator = None if device.type == "meta" else torch.Generator(device).manual_seed(0)
    for owner in model.modules():
        for name, empty in list(owner.named_parameters(recurse=False)):
            filled = torch.zeros(empty.shape, dtype=dtype, device=device)
            if empty.ndim > 1:
                filled.normal_(0, 0.02, generator=generator)
            elif name == "weight":
                filled += 1
            setattr(owner, name, torch.nn.Parameter(filled, requires_grad=False))
    return model
