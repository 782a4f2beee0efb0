"""Inpainting equals the stock pipeline called one image at a time, and keeps known pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dfeat.data.classes import class_infos
from dfeat.diffusion import Inpainter
from dfeat.diffusion.canvas import paste_known
from dfeat.diffusion.inpaint import _class_names, inpaint_shard
from dfeat.diffusion.settings import InpaintSettings
from dfeat.errors import UserError
from dfeat.storage.shards import read_shard
from tests.conftest import DEVICE, World

PROMPTS = ["A class of tiger", "A class of goldfish", "A class of tiger"]


def scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Three images (3, 64, 64, 3) and masks (3, 64, 64) of different shapes."""
    images = rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    masks = np.zeros((3, 64, 64), bool)
    masks[0, 8:40, 16:48], masks[1, 30:, :25], masks[2, :11, 5:60] = True, True, True
    return images, masks


@pytest.mark.parametrize("model", ["four", "nine", "velocity"])
@pytest.mark.parametrize("scheduler", ["ddim", "dpmsolver++"])
def test_a_batch_equals_the_stock_pipeline_called_one_image_at_a_time(
    tiny_models: dict[str, Path], model: str, scheduler: str, rng: np.random.Generator
) -> None:
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionInpaintPipeline

    images, masks = scene(rng)
    as_stock = {"mask_cells": "nearest", "hidden": "given", "scheduler": scheduler}
    ours = Inpainter.from_pretrained(tiny_models[model], device="cpu", steps=4, guidance_scale=5.0, **as_stock)
    result = ours(images, masks, PROMPTS, seeds=[11, 12, 13])
    stock = StableDiffusionInpaintPipeline.from_pretrained(tiny_models[model], safety_checker=None)
    stock.set_progress_bar_config(disable=True)
    if scheduler == "dpmsolver++":
        stock.scheduler = DPMSolverMultistepScheduler.from_config(
            stock.scheduler.config, algorithm_type="dpmsolver++", timestep_spacing="linspace"
        )
    for row in range(3):
        expected = stock(
            PROMPTS[row], Image.fromarray(images[row]), Image.fromarray(masks[row].astype(np.uint8) * 255),
            height=64, width=64, strength=1.0, num_inference_steps=4, guidance_scale=5.0,
            generator=torch.Generator().manual_seed(11 + row), output_type="np",
        ).images[0]  # fmt: skip
        assert np.abs(result[row].astype(float) - expected * 255).max() <= 1.0


def test_a_row_does_not_depend_on_its_neighbours(tiny_models: dict[str, Path], rng: np.random.Generator) -> None:
    images, masks = scene(rng)
    inpaint = Inpainter.from_pretrained(tiny_models["four"], device="cpu", steps=2)

    def rows(order: list[int]) -> np.ndarray:
        return inpaint(images[order], masks[order], [PROMPTS[i] for i in order], seeds=[i + 1 for i in order])

    together, shuffled = rows([0, 1, 2, 0]), rows([2, 0, 1, 1])
    assert (shuffled[:3] == together[[2, 0, 1]]).all()
    assert (shuffled[3] == together[1]).all()


def test_each_text_is_embedded_once_a_process(tiny_models: dict[str, Path], rng: np.random.Generator) -> None:
    images, masks = scene(rng)
    inpaint = Inpainter.from_pretrained(tiny_models["four"], device="cpu", steps=1)
    calls: list[int] = []
    inpaint.model.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    inpaint(images, masks, PROMPTS)
    inpaint(images, masks, PROMPTS)
    assert len(calls) == 3  # two class prompts and the null prompt


def test_the_four_channel_path_encodes_an_image_once(tiny_models: dict[str, Path], rng: np.random.Generator) -> None:
    images, masks = scene(rng)
    inpaint = Inpainter.from_pretrained(tiny_models["four"], device="cpu", steps=1)
    calls: list[int] = []
    inpaint.model.vae.encoder.register_forward_hook(lambda *_: calls.append(1))
    inpaint(images, masks, PROMPTS)
    assert len(calls) == 1


def test_masks_of_latent_cells(tiny_models: dict[str, Path]) -> None:
    hidden = torch.zeros(1, 1, 64, 64)
    hidden[..., 1:9, 1:9] = 1
    nearest = Inpainter.from_pretrained(tiny_models["four"], device="cpu", mask_cells="nearest")._latent_mask(hidden)
    wide = Inpainter.from_pretrained(tiny_models["four"], device="cpu")._latent_mask(hidden)
    assert nearest.sum() == 1
    assert wide.sum() == 4


def test_known_pixels_are_pasted_back_at_the_originals_size(rng: np.random.Generator) -> None:
    original = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    square = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mask = rng.random((50, 70)) < 0.5
    pasted = paste_known(square, original, mask)
    assert pasted.shape == original.shape
    assert (pasted[~mask] == original[~mask]).all()


def test_shards_of_another_size_hold_the_same_images(world: World, tmp_path: Path) -> None:
    stage = world.stage("inpaint")
    inpaint_shard(world.train, world.parts, stage, tmp_path / "whole.h5", DEVICE)
    whole = read_shard(tmp_path / "whole.h5", "inpaint")
    rows = {}
    for number in range(3):
        inpaint_shard(world.train, world.parts, stage, tmp_path / f"{number}.h5", DEVICE, (number, 3))
        shard = read_shard(tmp_path / f"{number}.h5", "inpaint")
        rows |= dict(zip(shard.keys, shard.payload, strict=True))
    assert rows == dict(zip(whole.keys, whole.payload, strict=True))


def test_the_prompt_may_hold_one_name_of_a_class_or_all() -> None:
    classes = class_infos(["n01440764", "n02012849"])
    assert _class_names(classes, "one") == ["tench", "crane"]
    assert _class_names(classes, "all")[0] == "tench, Tinca tinca"


def test_settings_are_checked(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'steps'"):
        Inpainter.from_pretrained(tiny_models["four"], step=3)
    with pytest.raises(UserError, match="diffusers layout"):
        Inpainter.from_pretrained(tmp_path)
    assert InpaintSettings().prompt == "A class of <object_class>"
