"""FLOPs that the fast path saves, counted on the true Stable Diffusion 2.1 architecture.

What enters: a resolution. What leaves: a table (step, ours, peer, ratio, bar, verdict) and its JSON. The networks are
built on torch's meta device from their published configurations, so nothing is computed and no weights are needed.
Every count is that of a forward pass (`torch.utils.flop_counter`), so it does not vary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch

from bench.architectures import stable_diffusion_21
from bench.table import Comparison, Result
from dfeat.costs.operations import inpaint_flops
from dfeat.diffusion.denoise import forward_keeping, forward_shallow
from dfeat.diffusion.features import find_block, forward_until
from dfeat.diffusion.settings import InpaintSettings

ENSEMBLE = 8
"""Noise draws that DIFT averages (Tang et al., 2023, Sec. 4)."""


def run(resolution: int = 512, **_options: Any) -> Result:
    """Count the operations of one image at `resolution` px, a multiple of 64."""
    cost = pass_costs(resolution)
    notes = {f"GFLOPs at {resolution} px": {name: round(value / 1e9, 2) for name, value in cost.items()}}
    return Result([*_feature_rows(cost), *_inpaint_rows(cost)], notes)


@cache
def pass_costs(resolution: int) -> dict[str, float]:
    """FLOPs of one image at `resolution` px in each forward pass of the true architecture, by its name."""
    return {name: flops(call) for name, call in _passes(resolution).items()}


def _feature_rows(cost: Mapping[str, float]) -> list[Comparison]:
    encode, up1, mid = cost["encode"], cost["until up.1"], cost["until mid"]
    return [
        _row(f"features up.1, {ENSEMBLE} noises", encode + ENSEMBLE * up1, ENSEMBLE * (encode + up1), 2.5, "DIFT: encodes for each noise"),
        _row("features up.1, cached latents", up1, cost["unet"], 1.4, "full forward with a hook"),
        _row("features mid, cached latents", mid, encode + mid, 5.0, "from pixels"),
    ]  # fmt: skip


def _inpaint_rows(cost: Mapping[str, float]) -> list[Comparison]:
    stock = 2 * cost["encode"] + 2 * cost["text"] + 50 * 2 * cost["unet"] + cost["decode"]
    return [
        _row(f"inpaint, {name}", inpaint_flops(chosen, cost), stock, bar, "stock pipeline, DDIM 50")
        for name, chosen, bar in (
            ("DDIM 50", InpaintSettings(), 1.0),
            ("guidance on half of the steps", InpaintSettings(guidance_interval=(0, 0.5)), 1.3),
            ("deep features of 3 passes", InpaintSettings(cache_interval=3), 2.3),
            ("DPM-Solver++ 25", InpaintSettings(scheduler="dpmsolver++", steps=25), 1.9),
            (
                "DPM-Solver++ 25, deep features of 3",
                InpaintSettings(scheduler="dpmsolver++", steps=25, cache_interval=3),
                4.0,
            ),
        )
    ]


def _row(step: str, ours: float, peer: float, bar: float, peer_name: str) -> Comparison:
    return Comparison(step, ours / 1e9, peer / 1e9, "GFLOP", bar, peer_name)


def _passes(resolution: int) -> dict[str, Callable[[], Any]]:
    """The forward passes of one image whose FLOPs are counted, by name."""
    unet, vae, text = stable_diffusion_21(torch.device("meta"))
    side = resolution // 8
    pixels = torch.empty(1, 3, resolution, resolution, device="meta")
    latents, prompt = torch.empty(1, 4, side, side, device="meta"), torch.empty(1, 77, 1024, device="meta")
    timestep = torch.zeros(1, dtype=torch.long, device="meta")
    deep = forward_keeping(unet, latents, timestep, prompt)[1]

    def until(name: str) -> Callable[[], Any]:
        return lambda: forward_until(unet, [find_block(unet, name)], latents, timestep, prompt)

    return {
        "encode": lambda: vae.encode(pixels),
        "decode": lambda: vae.decode(latents),
        "text": lambda: text(torch.zeros(1, 77, dtype=torch.long, device="meta")),
        "unet": lambda: unet(latents, timestep, encoder_hidden_states=prompt),
        "shallow": lambda: forward_shallow(unet, latents, timestep, prompt, deep),
        "until mid": until("mid"),
        "until up.1": until("up.1"),
    }


def flops(call: Callable[[], Any], backward: bool = False) -> float:
    """FLOPs of a call by torch's counter, two per multiply-add.

    With `backward` the call must return a scalar, whose backward pass is counted too.
    """
    from torch.utils.flop_counter import FlopCounterMode

    mapping = {torch.ops.aten.convolution_backward: _convolution_backward}
    with torch.set_grad_enabled(backward), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        result = call()
        if backward:
            result.backward()
    return float(counter.get_total_flops())


def _convolution_backward(
    grad: Sequence[int], images: Sequence[int], weight: Sequence[int], *others: Any, **_options: Any
) -> int:
    """FLOPs of a convolution's backward pass: each gradient costs as much as the forward pass.

    torch's own formula ignores groups.
    """
    transposed, wanted = others[4], others[7]
    batch, cells = grad[0], images[2:] if transposed else grad[2:]
    # 2 * B * cells * (C_out * C_in / groups * k^2); for a transposed convolution the cells are those of its input.
    forward = 2 * batch * math.prod(cells) * math.prod(weight)
    return forward * sum(wanted[:2])
