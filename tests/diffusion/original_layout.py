"""Writes a diffusers pipeline as the one file the original Stable Diffusion code saves, to be read back in tests."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file

Tensors = dict[str, torch.Tensor]

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
HEAD = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def whole_checkpoint(folder: Path, *, openclip: bool = False) -> Tensors:
    """All weights of the pipeline in `folder` under the original names."""
    parts = {name: _weights(folder / name) for name in ("unet", "vae", "text_encoder")}
    layers = json.loads((folder / "unet" / "config.json").read_text())["layers_per_block"]
    blocks = len(json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"])
    with_attention = {key.split(".attentions")[0] for key in parts["unet"] if ".attentions" in key}
    unet = {_unet_name(key, layers, with_attention): value for key, value in parts["unet"].items()}
    vae = {_vae_name(key, blocks): _as_convolution(key, value) for key, value in parts["vae"].items()}
    text = {key.removeprefix("text_model."): value for key, value in parts["text_encoder"].items()}
    return (
        {f"model.diffusion_model.{key}": value.contiguous() for key, value in unet.items()}
        | {f"first_stage_model.{key}": value.contiguous() for key, value in vae.items()}
        | (
            _openclip(text)
            if openclip
            else {f"cond_stage_model.transformer.text_model.{k}": v for k, v in text.items()}
        )
    )


def _weights(folder: Path) -> Tensors:
    return {key: value for file in sorted(folder.glob("*.safetensors")) for key, value in load_file(file).items()}


def _unet_name(key: str, layers: int, with_attention: set[str]) -> str:
    for ours, original in HEAD.items():
        if key.startswith(f"{ours}."):
            return key.replace(ours, original, 1)
    for ours, original in RESNET.items():
        if ".resnets." in key:
            key = key.replace(f".{ours}.", f".{original}.")
    if key.startswith("mid_block"):
        key = key.replace("mid_block.attentions.0", "middle_block.1")
        return re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"middle_block.{2 * int(m[1])}", key)
    side, block = key.split(".")[:2]
    first = int(block) * (layers + 1) + (side == "down_blocks")
    stem = "input_blocks" if side == "down_blocks" else "output_blocks"
    key = re.sub(r"\w+_blocks\.\d+\.resnets\.(\d+)", lambda m: f"{stem}.{first + int(m[1])}.0", key)
    key = re.sub(r"\w+_blocks\.\d+\.attentions\.(\d+)", lambda m: f"{stem}.{first + int(m[1])}.1", key)
    key = re.sub(r"down_blocks\.\d+\.downsamplers\.0\.conv", f"{stem}.{first + layers}.0.op", key)
    place = 2 if f"{side}.{block}" in with_attention else 1
    return re.sub(r"up_blocks\.\d+\.upsamplers\.0", f"{stem}.{first + layers}.{place}", key)


def _vae_name(key: str, blocks: int) -> str:
    key = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    key = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{blocks - 1 - int(m[1])}.block.{m[2]}", key)
    key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{blocks - 1 - int(m[1])}.upsample", key)
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = key.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
    for ours, original in {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}.items():
        key = key.replace(f"attn_1.{ours}.", f"attn_1.{original}.")
    return key


def _as_convolution(key: str, value: torch.Tensor) -> torch.Tensor:
    """The VAE's attention was made of 1x1 convolutions."""
    return value[:, :, None, None] if ".attentions." in key and key.endswith("weight") and value.ndim == 2 else value


def _openclip(text: Tensors) -> Tensors:
    """OpenCLIP's names, with query, key and value in one matrix."""
    names = {
        "embeddings.position_embedding.weight": "positional_embedding",
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "final_layer_norm": "ln_final",
        "encoder.layers": "transformer.resblocks",
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        ".fc1.": ".c_fc.",
        ".fc2.": ".c_proj.",
        "self_attn": "attn",
    }
    made: Tensors = {}
    for key, value in text.items():
        if ".k_proj." in key or ".v_proj." in key:
            continue
        name = key
        for ours, original in names.items():
            name = name.replace(ours, original)
        if ".q_proj." in key:
            name = name.replace(".q_proj.", ".in_proj_")
            value = torch.cat([text[key.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")])
        made[f"cond_stage_model.model.{name}"] = value.contiguous()
    return made
