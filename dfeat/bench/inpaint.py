"""What the fast inpainting choices change, on the built-in model: pixels inside the mask, and a backbone's features.

What enters: drawn objects with their chosen parts hidden. What leaves: for each choice its FLOPs on the true Stable
Diffusion 2.1 beside the paper's preset, and how far its pictures lie from the preset's. The yardstick is the preset
with another seed: two equally good answers to the same question.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dfeat.bench.flops import inpaint_flops, pass_costs
from dfeat.bench.table import Result
from dfeat.diffusion.crops import around, sides
from dfeat.diffusion.inpaint import Inpainter
from dfeat.settings import Backbone, InpaintSettings

PAPER = InpaintSettings()
CHOICES: dict[str, dict[str, Any]] = {
    "another seed": {},
    "guidance on half of the steps": {"guidance_interval": (0, 0.5)},
    "deep features of 3 passes": {"cache_interval": 3},
    "DPM-Solver++ 25": {"scheduler": "dpmsolver++", "steps": 25},
    "DPM-Solver++ 25, deep features of 3": {"scheduler": "dpmsolver++", "steps": 25, "cache_interval": 3},
    "crop around the mask": {"crop": True},
}
COUNT = 20
"""Drawings, one of each class."""


def run(resolution: int = 512, **_options: Any) -> Result:
    """Inpaint the same drawings with each choice, and count what each costs at `resolution` px."""
    images, masks, prompts = scenes()
    model = Inpainter.from_pretrained("demo").model
    cost = pass_costs(resolution)
    seeds = list(range(len(images)))
    paper = filled(model, PAPER, images, masks, prompts, seeds)
    features = backbone_features(paper)
    notes: dict[str, Any] = {}
    for name, changes in CHOICES.items():
        chosen = PAPER.model_copy(update=changes)
        others = [seed + 1000 for seed in seeds] if name == "another seed" else seeds
        pictures = filled(model, chosen, images, masks, prompts, others)
        ratio = inpaint_flops(PAPER, cost) / inpaint_flops(chosen, cost)
        apart = pictures[masks].astype(float) - paper[masks]
        cosine = torch.nn.functional.cosine_similarity(backbone_features(pictures), features).mean()
        notes[name] = (
            f"{'' if chosen.crop else f'{ratio:.2f}x fewer FLOPs, '}pixels inside the mask "
            f"{np.abs(apart).mean():.1f} of 255 apart (PSNR {10 * np.log10(255**2 / (apart**2).mean()):.1f} dB), "
            f"backbone features 1 - cosine {1 - float(cosine):.4f}"
        )
    return Result([], notes)


def scenes() -> tuple[NDArray[np.uint8], NDArray[np.bool_], list[str]]:
    """Drawings (n, 64, 64, 3) with the larger half of their parts hidden, the masks, and their prompts."""
    from dfeat.data.classes import class_infos
    from dfeat.demo.drawing import SIZE, WNIDS, polygon_mask
    from dfeat.demo.worlds import draw_one
    from dfeat.occlusion.paint import black_out
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
        hidden = parts[list(choose_parts(parts).chosen)].any(axis=0)
        images.append(black_out(drawing.image, hidden))
        masks.append(hidden)
        prompts.append(PAPER.prompt.replace("<object_class>", names[place]))
    return np.stack(images), np.stack(masks), prompts


def filled(
    model: Any,
    settings: InpaintSettings,
    images: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    prompts: list[str],
    seeds: list[int],
) -> NDArray[np.uint8]:
    """The pictures with known pixels exact, whole or around their masks."""
    inpaint, side = Inpainter(model, settings), images.shape[1]
    multiple = model.latent_factor * 2 ** (len(model.unet.config.block_out_channels) - 1)
    allowed = sides(side, multiple) if settings.crop else [side]
    squares = [around(mask, allowed) for mask in masks]
    result = images.copy()
    for size in allowed:
        here = [row for row, square in enumerate(squares) if square.side == size]
        if not here:
            continue
        cut = [np.stack([rows[row][squares[row].where] for row in here]) for rows in (images, masks)]
        painted = inpaint(cut[0], cut[1], [prompts[row] for row in here], [seeds[row] for row in here])
        for row, picture, mask in zip(here, painted, cut[1], strict=True):
            result[row][squares[row].where] = np.where(mask[..., None], picture, result[row][squares[row].where])
    return result


@torch.no_grad()
def backbone_features(images: NDArray[np.uint8]) -> torch.Tensor:
    """Features (n, F) of the built-in ConvNeXt, before any fine-tuning here."""
    from dfeat.training.network import build_backbone, channel_statistics, normalised

    kwargs = {"depths": [1, 2, 3, 1], "dims": [40, 80, 160, 240]}
    backbone = build_backbone(Backbone(name="convnext_atto", kwargs=kwargs, weights="demo:convnext")).eval()
    return backbone(normalised(images, torch.device("cpu"), channel_statistics(backbone)))
