"""The yardstick of the fast inpainting choices measures what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from bench.inpaint import FAST, PAPER, cost, difference, scenes
from dfeat.diffusion.settings import InpaintSettings


def test_a_picture_is_no_distance_from_itself_and_noise_is_far(rng: np.random.Generator) -> None:
    scene = scenes()
    assert (scene.images[scene.masks] == 0).all()
    assert difference(scene.images, scene.images, scene.masks).startswith("0.0 of 255 apart inside the mask (equal)")
    noise = rng.integers(0, 256, scene.images.shape, dtype=np.uint8)
    assert "PSNR" in difference(noise, scene.images, scene.masks)


def test_the_fast_choice_is_that_of_the_overlay() -> None:
    overlay = yaml.safe_load((Path(__file__).parents[2] / "config/fast.yaml").read_text())["diffusion"]["inpaint"]
    assert InpaintSettings(**FAST) == InpaintSettings(**overlay)


def test_the_smallest_part_hides_less_than_the_larger_half() -> None:
    assert scenes(small=True).masks.sum() < scenes().masks.sum() / 2


def test_a_crop_costs_what_its_side_costs() -> None:
    assert cost(PAPER, [1.0, 1.0], 256) == cost(PAPER, [1.0], 256)
    assert cost(PAPER, [0.5], 512) == cost(PAPER, [1.0], 256)
    assert cost(PAPER, [0.5, 1.0], 256) == pytest.approx((cost(PAPER, [0.5], 256) + cost(PAPER, [1.0], 256)) / 2)
