"""Painting over parts, and dropping patches from test images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter

from dfeat.errors import UserError
from dfeat.methods.paint import black_out, cutmix_box, grown, mask_image, partner_order, replace
from dfeat.methods.runs import Runs
from dfeat.occlusion.patches import drop_for, drop_on_image, drop_on_object, drop_random, scale_mask
from dfeat.occlusion.settings import OcclusionSettings


def test_black_out_and_replace_change_hidden_pixels_only(rng: np.random.Generator) -> None:
    images = rng.integers(1, 256, (2, 8, 8, 3), dtype=np.uint8)
    partners = rng.integers(0, 256, images.shape, dtype=np.uint8)
    masks = rng.random((2, 8, 8)) < 0.5
    black, replaced = black_out(images, masks), replace(images, masks, partners)
    assert black.dtype == replaced.dtype == np.uint8
    assert (black[masks] == 0).all()
    assert (black[~masks] == images[~masks]).all()
    assert (replaced[masks] == partners[masks]).all()
    assert (replaced[~masks] == images[~masks]).all()


@given(st.floats(0, 1), st.integers(0, 10_000))
def test_cutmix_box_covers_at_most_what_is_not_kept(kept: float, seed: int) -> None:
    top, bottom, left, right = cutmix_box(32, 48, kept, np.random.default_rng(seed))
    assert 0 <= top <= bottom <= 32
    assert 0 <= left <= right <= 48
    assert (bottom - top) * (right - left) <= (1 - kept) * 32 * 48 + 1e-9


def test_partners_are_other_images_and_do_not_depend_on_order() -> None:
    keys = [f"k{number}" for number in range(20)]
    partners = partner_order(keys, seed=3)
    assert all(partners[key] != key for key in keys)
    assert set(partners.values()) == set(keys)
    assert partner_order(keys[::-1], seed=3) == partners
    assert partner_order(keys, seed=4) != partners


def test_mask_image_is_white_where_the_mask_is() -> None:
    mask = np.array([[True, False]])
    assert mask_image(mask).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize(("percent", "patches"), [(0, 0), (20, 39), (40, 78), (60, 118), (80, 157), (100, 196)])
def test_grid_drops_exactly_the_rounded_share_of_196_patches(
    percent: int, patches: int, rng: np.random.Generator
) -> None:
    assert patches == round(percent / 100 * 196)
    mask = drop_on_image(224, 224, 16, percent / 100, rng)
    tiles = mask.reshape(14, 16, 14, 16).transpose(0, 2, 1, 3).reshape(196, 256)
    assert (tiles.all(axis=1) | ~tiles.any(axis=1)).all()
    assert tiles.any(axis=1).sum() == patches


def test_patches_on_the_image_may_be_smaller_at_its_borders(rng: np.random.Generator) -> None:
    mask = drop_on_image(50, 70, 16, 0.5, rng)
    assert mask.shape == (50, 70)
    assert mask[:48, :64].reshape(3, 16, 4, 16).any(axis=(1, 3)).sum() <= 10
    assert drop_on_image(50, 70, 16, 1.0, rng).all()


def test_random_patches_reach_the_share_and_little_more(rng: np.random.Generator) -> None:
    assert 0.4 <= drop_random(224, 16, 0.4, rng).mean() < 0.4 + 16 * 16 / 224**2


def test_object_patches_hide_the_share_of_the_object(rng: np.random.Generator) -> None:
    target = np.zeros((64, 64), bool)
    target[10:50, 20:44] = True
    for share in (0.0, 0.3, 1.0):
        mask = drop_on_object(target, 8, share, rng)
        hidden = (mask & target).sum() / target.sum()
        assert share <= hidden < share + 64 / target.sum()


def test_an_images_occlusion_depends_on_its_key_and_level_alone() -> None:
    settings = OcclusionSettings()
    one = drop_for(settings, "a", 40, 224, (300, 400), 0.875)
    assert (one == drop_for(settings, "a", 40, 224, (999, 400), 0.875)).all()
    assert (one != drop_for(settings, "b", 40, 224, (300, 400), 0.875)).any()
    assert (one != drop_for(OcclusionSettings(seed=1), "a", 40, 224, (300, 400), 0.875)).any()


def test_every_protocol_gives_a_mask_of_the_input_and_object_wants_a_mask() -> None:
    for protocol in ("grid", "image", "random"):
        assert drop_for(OcclusionSettings(protocol=protocol), "a", 40, 224, (375, 500), 0.875).shape == (224, 224)
    with pytest.raises(UserError, match="needs the object's mask"):
        drop_for(OcclusionSettings(protocol="object"), "a", 40, 224, (375, 500), 0.875)


def test_a_mask_keeps_its_patches_at_another_size(rng: np.random.Generator) -> None:
    mask = drop_on_image(224, 224, 16, 0.4, rng)
    assert scale_mask(mask, 512).mean() == pytest.approx(mask.mean(), abs=0.01)
    assert (scale_mask(mask, 448)[::2, ::2] == mask).all()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.integers(0, 9))
@settings(deadline=None)
def test_quick_ways_to_paint_give_what_they_stand_for(height: int, width: int, seed: int, pixels: int) -> None:
    rng = np.random.default_rng(seed)
    images, partners = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    mask = rng.random((height, width)) < rng.choice([0, 0.01, 0.1, 0.5, 1])
    assert (black_out(images, mask) == np.where(mask[..., None], 0, images)).all()
    assert (replace(images, mask, partners) == np.where(mask[..., None], partners, images)).all()
    assert (mask_image(mask) == np.repeat((mask * np.uint8(255))[..., None], 3, axis=-1)).all()
    assert (grown(mask, pixels) == maximum_filter(mask, 2 * pixels + 1, mode="constant")).all()
    assert (Runs.of(mask).mask() == mask).all()
