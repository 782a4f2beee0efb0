"""The true architectures in the layout of a model's folder, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from dfeat.costs.architectures import fill, stable_diffusion_21


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
