"""The true architectures, built from their published configurations with random weights or on the meta device.

And one in miniature, of the same kinds of layers, for what is tried on a CPU.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from dfeat.diffusion.forward import NoiseSchedule, forward_process
from dfeat.diffusion.models import DTYPES, DiffusionModel

CPU = torch.device("cpu")
WORDS = ["A", "class", "of", "tiger"]
"""The vocabulary of the tokenizer that comes with random weights; any other word is unknown to it."""


def stable_diffusion_21(device: torch.device, in_channels: int = 4) -> tuple[Any, Any, Any]:
    """U-Net, VAE and text encoder of Stable Diffusion 2.1 on `device`, from their published configurations.

    On the meta device they have shapes, but no weights and no memory.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with device:
        unet = UNet2DConditionModel(
            sample_size=64, in_channels=in_channels, out_channels=4, block_out_channels=(320, 640, 1280, 1280),
            attention_head_dim=(5, 10, 20, 20), cross_attention_dim=1024, use_linear_projection=True,
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=768,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
    return unet.eval(), vae.eval(), _text_encoder(device, 1024, 4096, 23, 16)


def miniature(device: torch.device) -> tuple[Any, Any, Any]:
    """The same with few channels and two levels of the U-Net: 0.9 million parameters; images of 64 px suit it."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

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
    return unet.eval(), vae.eval(), _text_encoder(device, 32, 32, 1, 2)


def _text_encoder(device: torch.device, width: int, inner: int, layers: int, heads: int) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        hidden_act="gelu", vocab_size=49408, projection_dim=512,
    )  # fmt: skip
    with device:
        return CLIPTextModel(config).eval()


def random_model(device: torch.device, precision: str = "float32", small: bool = False) -> DiffusionModel:
    """A whole model with the weights of `fill` on `device`, as `load_model` hands it on: Stable Diffusion 2.1, or small."""
    unet, vae, text = (miniature if small else stable_diffusion_21)(device)
    for part in (unet, vae, text):
        fill(part, DTYPES[precision], device).requires_grad_(False)
    for part in (unet, vae):
        part.to(memory_format=torch.channels_last)
    schedule = NoiseSchedule(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    forward = forward_process(schedule, device)
    return DiffusionModel(
        vae, unet, text, tokenizer(), forward, "random", device, DTYPES[precision], precision=precision
    )


def tokenizer() -> Any:
    """A tokenizer of `WORDS` that pads to 77 tokens, as the published one does."""
    from tools.demo_models.networks import build_tokenizer

    made = build_tokenizer(WORDS)
    made.model_max_length = 77
    return made


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


def fill(model: torch.nn.Module, dtype: torch.dtype, device: torch.device = CPU) -> torch.nn.Module:
    """Replace all parameters, on `device`: matrices random with standard deviation 0.02, other weights 1, biases 0.

    With these values activations stay finite in float16. Returns the model.
    """
    generator = torch.Generator(device).manual_seed(0)
    for owner in model.modules():
        for name, empty in list(owner.named_parameters(recurse=False)):
            filled = torch.zeros(empty.shape, dtype=dtype, device=device)
            if empty.ndim > 1:
                filled.normal_(0, 0.02, generator=generator)
            elif name == "weight":
                filled += 1
            setattr(owner, name, torch.nn.Parameter(filled, requires_grad=False))
    return model
