"""The true architectures, built from their published configurations with random weights or on the meta device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch


def stable_diffusion_21(device: torch.device, in_channels: int = 4) -> tuple[Any, Any, Any]:
    """U-Net, VAE and text encoder of Stable Diffusion 2.1 on `device`, from their published configurations.

    On the meta device they have shapes, but no weights and no memory.
    """
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


def write_stable_diffusion_21(folder: Path) -> None:
    """Write `stable_diffusion_21` with the weights of `fill` in float16, in the diffusers layout: 2.6 GB.

    It predicts epsilon. Its tokenizer has a vocabulary of four words, and pads to 77 tokens as the published one does.
    """
    from diffusers import DDIMScheduler

    from tools.demo_models.networks import SCHEDULE

    for name, model in zip(("unet", "vae", "text_encoder"), stable_diffusion_21(torch.device("meta")), strict=True):
        fill(model, torch.float16).save_pretrained(folder / name)
    tokenizer().save_pretrained(folder / "tokenizer")
    scheduler = DDIMScheduler(**{**SCHEDULE, "prediction_type": "epsilon"}, set_alpha_to_one=False, steps_offset=1)
    scheduler.save_pretrained(folder / "scheduler")
    classes = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "scheduler": "DDIMScheduler"}
    index = {name: ["diffusers", cls] for name, cls in classes.items()}
    index |= {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    (folder / "model_index.json").write_text(json.dumps(index))


def tokenizer() -> Any:
    """A tokenizer with a vocabulary of four words, which pads to 77 tokens as the published one does."""
    from tools.demo_models.networks import build_tokenizer

    made = build_tokenizer(["A", "class", "of", "tiger"])
    made.model_max_length = 77
    return made


def fill(model: torch.nn.Module, dtype: torch.dtype, device: torch.device | None = None) -> torch.nn.Module:
    """Replace all parameters: matrices random with standard deviation 0.02, other weights 1, biases 0.

    With these values activations stay finite in float16. They are on `device` (default: the CPU). Returns the model.
    """
    generator = torch.Generator(device or "cpu").manual_seed(0)
    for owner in model.modules():
        for name, empty in list(owner.named_parameters(recurse=False)):
            filled = torch.zeros(empty.shape, dtype=dtype, device=device)
            if empty.ndim > 1:
                filled.normal_(0, 0.02, generator=generator)
            elif name == "weight":
                filled += 1
            setattr(owner, name, torch.nn.Parameter(filled, requires_grad=False))
    return model
