"""The library refuses what would silently give wrong numbers, and takes images of any number and shape that fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dfeat.diffusion import FeatureExtractor, Inpainter, paste_known
from dfeat.errors import UserError

IMAGES = np.zeros((3, 64, 64, 3), np.uint8)
MASKS = np.zeros((3, 64, 64), bool)
PROMPTS = ["A class of tiger"] * 3


@pytest.fixture(scope="module")
def extract(tiny_models: dict[str, Path]) -> FeatureExtractor:
    return FeatureExtractor.from_pretrained(tiny_models["four"], device="cpu")


@pytest.fixture(scope="module")
def inpaint(tiny_models: dict[str, Path]) -> Inpainter:
    return Inpainter.from_pretrained(tiny_models["four"], device="cpu", steps=1)


def refused(call: Any, sentence: str, *arguments: Any, **named: Any) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        call(*arguments, **named)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (IMAGES + 255.0, "images is float64 from 255 to 255; .* from 0 to 1"),
        ((IMAGES - 0.5) / 0.2, "before a network's normalisation"),
        (np.full((1, 64, 64, 3), np.nan), "images is float64 from nan"),
        (IMAGES + np.int64(256), "images is int64 from 256 to 256; it must be uint8"),
        (IMAGES > 0, "images is bool"),
        (IMAGES[:, :63, :63], "63 pixels high and 63 wide; for this model both must be multiples of 16.* resize=True"),
        (IMAGES[:, :, :56], "64 pixels high and 56 wide"),
        (IMAGES[..., :2], r"images has the shape \(3, 64, 64, 2\); it must be"),
        (np.zeros((5, 64, 64), np.uint8), r"grayscale images is \(B, H, W, 1\): images\[..., None\]"),
        (IMAGES[:0], "not empty"),
        ([], "images is empty"),
        ([IMAGES[0], IMAGES[0, :32]], r"several sizes \(images\[0\] 64 x 64, images\[1\] 64 x 32 pixels\)"),
        ([IMAGES[0], IMAGES[1:]], r"images\[1\] is a batch of 2"),
        ([IMAGES[0], 7], r"images\[1\] is int; give paths, PIL images"),
        (7, "images is int; give paths"),
        ({"a": 1}, "images is dict"),
        ("there/is/none.jpg", "there/is/none.jpg is missing"),
    ],
)
def test_images_that_the_model_cannot_read_are_a_sentence(
    extract: FeatureExtractor, inpaint: Inpainter, images: Any, sentence: str
) -> None:
    refused(extract, sentence, images)
    refused(inpaint, sentence, images, MASKS, PROMPTS)


@pytest.mark.parametrize("keys", [["a"], ["a"] * 4, [], "abc"])
def test_each_image_needs_a_key(extract: FeatureExtractor, keys: Any) -> None:
    refused(extract, "keys (has|is) .*3 images", IMAGES, keys)
    refused(extract.from_latents, "keys (has|is) .*3 images", torch.zeros(3, 4, 8, 8), keys)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"masks": MASKS[:2]}, "masks has 2 masks; there are 3 images"),
        ({"masks": MASKS[:, :32]}, r"masks\[0\] has 64 x 32 pixels, its image 64 x 64"),
        ({"masks": MASKS[None, None]}, r"masks has the shape \(1, 1, 3, 64, 64\)"),
        ({"masks": MASKS.astype(complex)}, "masks is complex128; it must be bool"),
        ({"prompts": PROMPTS[:1]}, "prompts has 1 entries; there are 3 images"),
        ({"prompts": 7}, "prompts is 7; give a list"),
        ({"prompts": [*PROMPTS[:2], None]}, "prompts has None, which is not a text"),
        ({"seeds": [1]}, "seeds has 1 entries; there are 3 images"),
        ({"seeds": []}, "seeds has 0 entries"),
        ({"seeds": 2.5}, "seeds is 2.5; give a list"),
        ({"seeds": [1, 2, 2.5]}, "seeds has 2.5; seeds must be whole numbers"),
        ({"seeds": [1, 2, 2**64]}, "from -2"),
        ({"names": ["a"]}, "names has 1 entries"),
    ],
)
def test_what_is_given_beside_the_images_fits_them(inpaint: Inpainter, changed: dict[str, Any], sentence: str) -> None:
    refused(inpaint, sentence, IMAGES, **({"masks": MASKS, "prompts": PROMPTS} | changed))


def test_a_batch_size_is_a_whole_number(tiny_models: dict[str, Path]) -> None:
    refused(Inpainter.from_pretrained, "batch_size is 0", tiny_models["four"], device="cpu", batch_size=0)
    refused(FeatureExtractor.from_pretrained, "batch_size is 1.5", tiny_models["four"], device="cpu", batch_size=1.5)


def test_seeds_may_be_an_array(inpaint: Inpainter, rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, IMAGES.shape, dtype=np.uint8)
    as_list = inpaint(images, ~MASKS, PROMPTS, seeds=[4, 0, 9])
    assert (inpaint(images, ~MASKS, PROMPTS, seeds=np.array([4, 0, 9])) == as_list).all()  # type: ignore[arg-type]


def test_many_images_are_inpainted_in_batches_of_one_shape(
    tiny_models: dict[str, Path], rng: np.random.Generator
) -> None:
    """Each row has the bytes that it has in any batch of that size."""
    inpaint = Inpainter.from_pretrained(tiny_models["four"], device="cpu", steps=2, batch_size=4, hidden="given")
    decoded: list[int] = []
    inpaint.model.vae.decoder.register_forward_pre_hook(lambda _m, inputs: decoded.append(len(inputs[0])))
    images = rng.integers(0, 256, (10, 64, 64, 3), dtype=np.uint8)
    masks = rng.random((10, 64, 64)) < 0.5
    prompts = [f"A class of {name}" for name in ("tiger", "goldfish") * 5]
    filled = inpaint(images, masks, prompts, seeds=range(10))
    assert filled.shape == images.shape and decoded == [4, 4, 4]
    for rows in ([0, 1, 2, 3], [9, 3, 5, 5]):
        alone, _ = inpaint.fill(images[rows], masks[rows], [prompts[row] for row in rows], rows)
        assert (alone.numpy() == filled[rows]).all()


def test_memory_that_runs_out_halves_the_batch(tiny_models: dict[str, Path]) -> None:
    from tests.diffusion.test_fitting import small_device

    inpaint = Inpainter.from_pretrained(tiny_models["four"], device="cpu", steps=1, guidance_scale=1)
    asked: list[int] = []
    small_device(inpaint.model.unet, 2, asked)
    assert inpaint(IMAGES, MASKS, PROMPTS).shape == IMAGES.shape
    assert asked == [3, 1, 1, 1]


@pytest.mark.parametrize("model", ["four", "nine"])
def test_images_need_not_be_square(tiny_models: dict[str, Path], model: str, rng: np.random.Generator) -> None:
    from diffusers import StableDiffusionInpaintPipeline

    images = rng.integers(0, 256, (2, 8, 12, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    masks = np.zeros((2, 64, 96), bool)
    masks[0, 10:40, 50:90], masks[1, 30:, :25] = True, True
    as_stock = {"mask_cells": "nearest", "hidden": "given"}
    ours = Inpainter.from_pretrained(tiny_models[model], device="cpu", steps=3, guidance_scale=5.0, **as_stock)
    filled = ours(images, masks, PROMPTS[:2], seeds=[11, 12])
    stock = StableDiffusionInpaintPipeline.from_pretrained(tiny_models[model], safety_checker=None)
    stock.set_progress_bar_config(disable=True)
    for row in range(2):
        expected = stock(
            PROMPTS[row], Image.fromarray(images[row]), Image.fromarray(masks[row].astype(np.uint8) * 255),
            height=64, width=96, strength=1.0, num_inference_steps=3, guidance_scale=5.0,
            generator=torch.Generator().manual_seed(11 + row), output_type="np",
        ).images[0]  # fmt: skip
        assert np.abs(filled[row].astype(float) - expected * 255).max() <= 1.0
    maps = FeatureExtractor.from_pretrained(tiny_models[model], pool=0, device="cpu")(images)
    assert maps.shape == (2, 32, 4, 6)


def test_known_pixels_are_pasted_of_one_image_or_a_batch(inpaint: Inpainter, rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, IMAGES.shape, dtype=np.uint8)
    filled, masks = 255 - images, rng.random(MASKS.shape) < 0.5
    pasted = paste_known(filled, images, masks)
    assert (pasted == np.where(masks[..., None], filled, images)).all()
    assert (paste_known(filled[0], images[0], masks[0]) == pasted[0]).all()
    whole = inpaint(images, masks, PROMPTS, paste=True)
    assert (whole[~masks] == images[~masks]).all()
    assert (whole[masks] == inpaint(images, masks, PROMPTS)[masks]).all()
    refused(paste_known, "mask of uint8", filled[0], images[0], masks[0].astype(np.uint8))
    refused(paste_known, "batches of as many", filled[:2], images, masks)
    refused(paste_known, "batches of as many", filled[0], images, masks)
