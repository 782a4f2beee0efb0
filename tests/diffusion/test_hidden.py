"""Every hidden pixel of an inpainted image is the model's, and no hidden pixel has any influence on it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO

from dfeat.cli import main
from dfeat.data.records import Record
from dfeat.demo.canvas import SIZE, polygon_mask
from dfeat.demo.worlds import draw_one
from dfeat.diffusion import Inpainter
from dfeat.diffusion.canvas import Canvas, Copy, Square, around, resize_mask, sides, touched
from dfeat.diffusion.settings import InpaintSettings
from dfeat.methods.smooth import GREY, smooth_fill

CELL = 8


def blobs(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A mask of a few random rectangles, some one pixel thin, some at the image's border."""
    mask = np.zeros((height, width), bool)
    for _ in range(rng.integers(1, 4)):
        top, left = rng.integers(0, height), rng.integers(0, width)
        mask[top : top + rng.choice([1, 2, 9, 40]), left : left + rng.choice([1, 2, 9, 40])] = True
    return mask


def masks_of(height: int, width: int) -> dict[str, np.ndarray]:
    rows, columns = np.mgrid[:height, :width]
    thin, border, noise = np.zeros((3, height, width), bool)
    thin[height // 2], border[:, :5], border[-3:] = True, True, True
    noise[:] = np.random.default_rng(0).random((height, width)) < 0.02
    return {
        "disc": np.hypot(rows - height / 2, columns - width / 3) < height / 4,
        "thin": thin, "diagonal": rows == columns, "border": border, "noise": noise,
        "but one": (rows > 0) | (columns > 0), "whole": np.ones((height, width), bool),
    }  # fmt: skip


def canvas(image: np.ndarray, mask: np.ndarray, resolution: int, crop: bool = False, **chosen: str) -> Canvas:
    settings = InpaintSettings(**chosen)  # type: ignore[arg-type]
    hidden = resize_mask(mask, resolution, settings.mask_cells)
    square = around(hidden, sides(resolution, CELL)) if crop else Square(0, 0, resolution)
    record = Record("a", "a.png", 0, "n02123045", mask.shape[1], mask.shape[0])
    return Canvas(Copy(record, "a", 1), image, mask, square, resolution, settings)


def unfilled(mask: np.ndarray, resolution: int, mask_cells: str = "any") -> int:
    """Hidden pixels of an image whose area in the square lies, wholly or in part, in cells that are not filled."""
    hidden = resize_mask(mask, resolution, mask_cells)
    blocks = hidden.reshape(resolution // CELL, CELL, resolution // CELL, CELL)
    cells = blocks.any((1, 3)) if mask_cells == "any" else blocks[:, 0, :, 0]
    kept = ~cells.repeat(CELL, 0).repeat(CELL, 1)
    return int((touched(kept, *mask.shape) & mask).sum())


@pytest.mark.parametrize("size", [(64, 64), (50, 70), (131, 97)])
@pytest.mark.parametrize("kind", list(masks_of(9, 9)))
@pytest.mark.parametrize("hidden", ["smooth", "black"])
def test_the_square_does_not_depend_on_hidden_pixels(kind: str, size: tuple[int, int], hidden: str) -> None:
    rng, mask = np.random.default_rng(1), masks_of(*size)[kind]
    image, other = rng.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    other[~mask] = image[~mask]
    for crop in (False, True):
        squares = [canvas(pixels, mask, 64, crop, hidden=hidden).to_fill() for pixels in (image, other)]
        assert (squares[0] == squares[1]).all()


@pytest.mark.parametrize("model", ["four", "nine"])
def test_the_inpainting_does_not_depend_on_hidden_pixels(tiny_models: dict[str, Path], model: str) -> None:
    masks = np.stack(list(masks_of(64, 64).values()))
    images, other = np.random.default_rng(1).integers(0, 256, (2, len(masks), 64, 64, 3), dtype=np.uint8)
    other[~masks] = images[~masks]
    inpaint = Inpainter.from_pretrained(tiny_models[model], device="cpu", steps=2)
    prompts = ["A class of tiger"] * len(masks)
    assert (inpaint(images, masks, prompts) == inpaint(other, masks, prompts)).all()


@pytest.mark.parametrize(
    ("model", "hidden", "inside"), [("four", "smooth", 200 / 127.5 - 1), ("four", "black", -1), ("nine", "smooth", 0)]
)
@pytest.mark.parametrize("cells", ["any", "nearest"])
def test_masks_are_applied_after_resizing(
    tiny_models: dict[str, Path], model: str, hidden: str, inside: float, cells: str
) -> None:
    """The VAE sees an image of one colour with that colour in every pixel that is not hidden, none of them mixed."""
    mask = masks_of(50, 70)["disc"]
    image = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    image[~mask] = 200
    square = canvas(image, mask, 64, mask_cells=cells, hidden=hidden).to_fill()
    where = square[..., 3] > 0
    inpaint = Inpainter.from_pretrained(tiny_models[model], device="cpu", steps=1, mask_cells=cells, hidden=hidden)
    seen: list[torch.Tensor] = []
    inpaint.model.vae.encoder.register_forward_hook(lambda _, given, __: seen.append(given[0][0]))
    inpaint.fill(square[None, ..., :3], where[None], ["A class of tiger"], [1])
    (pixels,) = (one.permute(1, 2, 0).numpy() for one in seen)
    assert where.any() and not where.all()
    assert pixels[~where] == pytest.approx(200 / 127.5 - 1)
    assert pixels[where] == pytest.approx(inside)


@pytest.mark.parametrize("cells", ["any", "nearest"])
def test_training_data_cannot_be_made_from_images_that_are_not_occluded(
    cells: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inpaint = {"mask_cells": cells, "hidden": "given"}
    config = tmp_path / "config.json"  # JSON is YAML
    config.write_text(json.dumps({"diffusion": {"inpaint": inpaint}}))
    stage = ("--index", "i", "--parts", "p", "--settings", json.dumps({"inpaint": inpaint}), "--out", "o.h5")
    for verb, key in (("doctor", "diffusion.inpaint.hidden"), ("inpaint", "inpaint.hidden")):
        arguments = ("--config", str(config)) if verb == "doctor" else stage
        monkeypatch.setattr(sys, "argv", ["dfeat", verb, *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        error = capsys.readouterr().err
        assert stop.value.code == 2 and error.count("\n") == 1
        assert f"'{key}' is 'given': the model would see what training images hide; use smooth or black" in error


@given(st.integers(0, 2**32 - 1), st.integers(1, 90), st.integers(1, 90))
def test_a_smooth_fill_keeps_visible_pixels_and_their_range(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    image, mask = rng.integers(0, 256, (height, width, 3), dtype=np.uint8), blobs(height, width, rng)
    filled = smooth_fill(image, mask)
    assert (filled[~mask] == image[~mask]).all()
    assert (filled == smooth_fill(np.where(mask[..., None], np.uint8(0), image), mask)).all()
    if mask.all():
        assert (filled == GREY).all()
    else:
        visible = image[~mask]
        assert (filled >= visible.min(0)).all() and (filled <= visible.max(0)).all()


def test_a_smooth_fill_continues_a_ramp() -> None:
    ramp = np.broadcast_to(np.arange(100, dtype=np.uint8)[None, :, None] * 2, (100, 100, 3))
    mask = masks_of(100, 100)["disc"]
    apart = np.abs(smooth_fill(np.ascontiguousarray(ramp), mask).astype(int) - ramp)
    assert apart.max() <= 8


@given(st.integers(0, 2**32 - 1), st.integers(8, 200), st.integers(8, 200), st.sampled_from([64, 96, 512]))
def test_every_hidden_pixel_lies_in_filled_cells(seed: int, height: int, width: int, resolution: int) -> None:
    mask = blobs(height, width, np.random.default_rng(seed))
    assert unfilled(mask, resolution) == 0
    shown = np.zeros((resolution, resolution), bool)
    square = canvas(np.zeros((height, width, 3), np.uint8), mask, resolution, crop=True).square
    shown[square.where] = True
    assert not (touched(~shown, height, width) & mask).any()


def drawn_masks() -> Iterator[np.ndarray]:
    for number in range(40):
        for _, polygon in draw_one("train", number % 20, number, 0).parts:
            yield polygon_mask([polygon], SIZE).astype(bool)


def test_no_part_of_the_demo_is_left_unfilled() -> None:
    assert sum(unfilled(mask, 64) for mask in drawn_masks()) == 0
    assert sum(unfilled(mask, 64, "nearest") for mask in drawn_masks()) > 0


def test_no_part_of_a_photograph_is_left_unfilled(shared_data: Callable[[str], Path]) -> None:
    annotations = COCO(str(next(shared_data("carparts/testset").rglob("*.json"))))
    rows = [row for row in annotations.anns.values() if row.get("segmentation")][::7][:60]
    masks = [annotations.annToMask(row).astype(bool) for row in rows]
    assert sum(unfilled(mask, 512) for mask in masks) == 0
    assert sum(unfilled(mask, 512, "nearest") for mask in masks) > 0
