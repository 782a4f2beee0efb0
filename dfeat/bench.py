"""What the fast path saves, in FLOPs counted on the true Stable Diffusion 2.1 architecture.

What enters: nothing but a resolution. What leaves: a table (step, ours, peer, ratio, bar, verdict) and its JSON.
The networks are built on torch's meta device from their published configurations, so nothing is computed and no
weight is needed; every count is of a real forward pass (`torch.utils.flop_counter`) and does not shake.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dfeat.diffusion.features import find_block, forward_until
from dfeat.storage.atomic import write_json

ENSEMBLE = 8
"""Noise draws that DIFT averages (Tang et al., 2023, Sec. 4)."""


@dataclass(frozen=True)
class Row:
    """One comparison; FLOPs are of one image, and the verdict is whether the ratio reaches the bar."""

    step: str
    ours: float
    peer: float
    bar: float
    peer_name: str

    @property
    def ratio(self) -> float:
        """Peer's FLOPs over ours."""
        return self.peer / self.ours


def run(resolution: int, out: Path | None) -> list[Row]:
    """Count, print the table, and write it as JSON where `out` is given."""
    cost = {name: _flops(call) for name, call in _passes(resolution).items()}
    rows = [*_feature_rows(cost), *_inpaint_rows(cost)]
    width = max(len(row.step) for row in rows)
    print(f"Stable Diffusion 2.1 architecture, {resolution} px, GFLOPs an image")
    print(f"{'step':{width}}  {'ours':>9}  {'peer':>9}  {'ratio':>6}  {'bar':>5}  verdict")
    for row in rows:
        verdict = "reached" if row.ratio >= row.bar else "missed"
        print(
            f"{row.step:{width}}  {row.ours / 1e9:9.0f}  {row.peer / 1e9:9.0f}  {row.ratio:5.2f}x  {row.bar:4.1f}x  {verdict}"
        )
    if out is not None:
        counted = [asdict(row) | {"ratio": round(row.ratio, 4), "reached": row.ratio >= row.bar} for row in rows]
        write_json(out, {"resolution": resolution, "passes": cost, "rows": counted})
    return rows


def _feature_rows(cost: dict[str, float]) -> list[Row]:
    encode, up1, mid = cost["encode"], cost["until up.1"], cost["until mid"]
    return [
        Row(f"features up.1, {ENSEMBLE} noises", encode + ENSEMBLE * up1, ENSEMBLE * (encode + up1), 2.5,
            "DIFT: encodes for each noise"),
        Row("features up.1, cached latents", up1, cost["unet"], 1.4, "full forward with a hook"),
        Row("features mid, cached latents", mid, encode + mid, 5.0, "from pixels"),
    ]  # fmt: skip


def _inpaint_rows(cost: dict[str, float]) -> list[Row]:
    def ours(steps: int) -> float:
        return cost["encode"] + steps * 2 * cost["unet"] + cost["decode"]

    stock = 2 * cost["encode"] + 2 * cost["text"] + 50 * 2 * cost["unet"] + cost["decode"]
    return [
        Row("inpaint, DDIM 50", ours(50), stock, 1.0, "stock pipeline: encodes twice, embeds prompts anew"),
        Row("inpaint, DPM-Solver++ 25", ours(25), stock, 1.9, "stock pipeline, DDIM 50"),
    ]


def _passes(resolution: int) -> dict[str, Callable[[], Any]]:
    """The forward passes whose FLOPs are counted, of one image."""
    unet, vae, text = stable_diffusion_21(torch.device("meta"))
    side = resolution // 8
    pixels = torch.empty(1, 3, resolution, resolution, device="meta")
    latents, prompt = torch.empty(1, 4, side, side, device="meta"), torch.empty(1, 77, 1024, device="meta")
    timestep = torch.zeros(1, dtype=torch.long, device="meta")

    def until(name: str) -> Callable[[], Any]:
        return lambda: forward_until(unet, [find_block(unet, name)], latents, timestep, prompt)

    return {
        "encode": lambda: vae.encode(pixels),
        "decode": lambda: vae.decode(latents),
        "text": lambda: text(torch.zeros(1, 77, dtype=torch.long, device="meta")),
        "unet": lambda: unet(latents, timestep, encoder_hidden_states=prompt),
        "until mid": until("mid"),
        "until up.1": until("up.1"),
    }


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


@torch.no_grad()
def _flops(call: Callable[[], Any]) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())
