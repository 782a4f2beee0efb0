"""How the fast inpainting choices change the pixels inside the mask and a backbone's features, on the built-in model.

What enters: drawn objects with their chosen parts hidden. What leaves: for each choice its FLOPs on the true Stable
Diffusion 2.1 relative to the paper's preset, and the difference of its pictures from the preset's. The yardstick is the
preset with another seed, an equally good inpainting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.flops import pass_costs
from bench.table import Result
from dfeat.costs.operations import inpaint_flops
from dfeat.diffusion.canvas import around, sides
from dfeat.diffusion.inpaint import Inpainter
from dfeat.diffusion.settings import InpaintSettings
from dfeat.training.settings import Backbone

PAPER = InpaintSettings()
FAST: dict[str, Any] = {
    "scheduler": "dpmsolver++",
    "steps": 25,
    "cache_interval": 3,
    "guidance_interval": (0, 0.8),
    "crop": True,
}
"""The settings of config/fast.yaml."""
CHOICES: dict[str, dict[str, Any]] = {
    "another seed": {},
    "guidance on half of the steps": {"guidance_interval": (0, 0.5)},
    "deep features of 3 passes": {"cache_interval": 3},
    "DPM-Solver++ 25": {"scheduler": "dpmsolver++", "steps": 25},
    "DPM-Solver++ 25, deep features of 3": {"scheduler": "dpmsolver++", "steps": 25, "cache_interval": 3},
    "config/fast.yaml": FAST,
}
SMALL: dict[str, dict[str, Any]] = {"one small part, another seed": {}, "one small part, crop": {"crop": True}}
"""Choices for images whose smallest part alone is hidden. A crop draws other noise: at best it equals another seed."""
COUNT = 20
"""Number of drawings, one per class."""


def run(resolution: int = 512, **_options: Any) -> Result:
    """Inpaint the same drawings with each choice, and count its FLOPs at `resolution` px."""
    model = Inpainter.from_pretrained("demo").model
    notes: dict[str, Any] = {}
    for choices, small in ((CHOICES, False), (SMALL, True)):
        scene = scenes(small)
        seeds = list(range(len(scene.images)))
        paper, whole = filled(model, PAPER, scene, seeds)
        for name, changes in choices.items():
            chosen = PAPER.model_copy(update=changes)
            others = [seed + 1000 for seed in seeds] if name.endswith("another seed") else seeds
            pictures, shares = filled(model, chosen, scene, others)
            ratio = cost(PAPER, whole, resolution) / cost(chosen, shares, resolution)
            notes[name] = f"{ratio:.2f}x fewer FLOPs, {difference(pictures, paper, scene.masks)}"
    return Result([], notes)


def cost(settings: InpaintSettings, shares: Sequence[float], resolution: int) -> float:
    """Mean FLOPs of images on the true architecture, whose squares have these shares of the side `resolution`."""
    sides_of = [round(share * resolution) for share in shares]
    each = {side: inpaint_flops(settings, pass_costs(side)) for side in set(sides_of)}
    return sum(each[side] for side in sides_of) / len(sides_of)


def difference(pictures: NDArray[np.uint8], paper: NDArray[np.uint8], masks: NDArray[np.bool_]) -> str:
    """A sentence on how pictures differ from the preset's, inside the masks and in features of the built-in ConvNeXt."""
    apart = pictures[masks].astype(float) - paper[masks]
    square = (apart**2).mean()
    psnr = f"PSNR {10 * np.log10(255**2 / square):.1f} dB" if square else "equal"
    features = [backbone_features(images) for images in (pictures, paper)]
    cosine = float(torch.nn.functional.cosine_similarity(*features).mean())
    return f"{np.abs(apart).mean():.1f} of 255 apart inside the mask ({psnr}), backbone features 1 - cosine {1 - cosine:.4f}"


@dataclass(frozen=True)
class Scene:
    """Drawings (n, 64, 64, 3) with hidden parts black, the masks of these parts (n, 64, 64), and a prompt for each."""

    images: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    prompts: list[str]


def scenes(small: bool = False) -> Scene:
    """Drawings with the larger half of their parts hidden, or with the smallest part alone."""
    from dfeat.data.classes import class_infos
    from dfeat.demo.canvas import SIZE, polygon_mask
    from dfeat.demo.dresses import WNIDS
    from dfeat.demo.worlds import draw_one
    from dfeat.methods.paint import black_out
    from dfeat.occlusion.parts import choose_parts

    names = [info.name for info in class_infos(WNIDS)]
    images, masks, prompts = [], [], []
    for number in range(COUNT):
        place = number % len(WNIDS)
        drawing = draw_one("val", place, 500 + number, 0)
        united: dict[int, NDArray[np.bool_]] = {}
        for part, polygon in drawing.parts:
            united[part] = united.get(part, np.zeros((SIZE, SIZE), bool)) | polygon_mask([polygon], SIZE)
        parts = np.stack(list(united.values()))
        chosen = [int(parts.sum((1, 2)).argmin())] if small else list(choose_parts(parts).chosen)
        hidden: NDArray[np.bool_] = np.asarray(parts[chosen].any(axis=0))
        images.append(black_out(drawing.image, hidden))
        masks.append(hidden)
        prompts.append(PAPER.prompt.replace("<object_class>", names[place]))
    return Scene(np.stack(images), np.stack(masks), prompts)


def filled(
    model: Any, settings: InpaintSettings, scene: Scene, seeds: list[int]
) -> tuple[NDArray[np.uint8], list[float]]:
    """The inpainted pictures (n, 64, 64, 3), known pixels unchanged, and the share of the side inpainted in each."""
    inpaint, side = Inpainter(model, settings, len(scene.images)), scene.images.shape[1]
    allowed = sides(side, model.side_multiple) if settings.crop else [side]
    squares = [around(mask, allowed) for mask in scene.masks]
    result = scene.images.copy()
    for size in allowed:
        here = [row for row, square in enumerate(squares) if square.side == size]
        if not here:
            continue
        images, masks = (
            np.stack([rows[row][squares[row].where] for row in here]) for rows in (scene.images, scene.masks)
        )
        painted = inpaint(images, masks, [scene.prompts[row] for row in here], [seeds[row] for row in here])
        for row, picture, mask in zip(here, painted, masks, strict=True):
            result[row][squares[row].where] = np.where(mask[..., None], picture, result[row][squares[row].where])
    return result, [square.side / side for square in squares]


@torch.no_grad()
def backbone_features(images: NDArray[np.uint8]) -> torch.Tensor:
    """Features (n, F) of images (n, 64, 64, 3), from the built-in ConvNeXt before fine-tuning."""
    from dfeat.training.network import build_backbone, channel_statistics, normalised

    kwargs = {"depths": [1, 2, 3, 1], "dims": [40, 80, 160, 240]}
    backbone = build_backbone(Backbone(name="convnext_atto", kwargs=kwargs, weights="demo:convnext")).eval()
    return backbone(normalised(images, torch.device("cpu"), channel_statistics(backbone)))
