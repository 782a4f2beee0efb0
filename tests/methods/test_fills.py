"""Fills are computed for a crop alone, to the byte as if the whole picture had been filled and cropped then."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfeat.methods import method
from dfeat.methods.method import WHOLE, Twin, Window
from dfeat.methods.smooth import GREY
from tests.diffusion.test_hidden import blobs


def membrane(colours: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The membrane as it is defined, on all pixels: `colours` (H, W, 3) float32, `known` (H, W, 1)."""
    if known.all():
        return colours
    height, width = known.shape[:2]
    even = ((0, height % 2), (0, width % 2), (0, 0))
    sums, counts = (
        padded[0::2, 0::2] + padded[1::2, 0::2] + (padded[0::2, 1::2] + padded[1::2, 1::2])
        for padded in (np.pad(colours, even), np.pad(known.astype(np.float32), even))
    )
    coarse = membrane(sums / np.maximum(counts, 1), counts > 0)
    filled = np.where(known, colours, coarse.repeat(2, axis=0).repeat(2, axis=1)[:height, :width])
    for _ in range(4):
        edged = np.pad(filled, ((1, 1), (1, 1), (0, 0)), mode="edge")
        means = (edged[:-2, 1:-1] + edged[2:, 1:-1] + edged[1:-1, :-2] + edged[1:-1, 2:]) / 4
        filled = np.where(known, filled, means)
    return filled


def smooth(picture: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    if hidden.all():
        return np.full_like(picture, GREY)
    cover = hidden[..., None]
    return np.where(cover, np.rint(membrane(picture.astype(np.float32) * ~cover, ~cover)).astype(np.uint8), picture)


def mean(picture: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    radius = max(1, round(min(hidden.shape) / 16))
    y, x = np.mgrid[: hidden.shape[0], : hidden.shape[1]]
    near = np.zeros_like(hidden)
    for row, column in zip(*np.nonzero(hidden), strict=True):
        near |= (abs(y - row) <= radius) & (abs(x - column) <= radius)
    ring = near & ~hidden
    colour = picture[ring].mean(axis=0) if ring.any() else np.full(3, GREY)
    return np.where(hidden[..., None], np.rint(colour).astype(np.uint8), picture)


@pytest.mark.parametrize(("name", "definition"), [("fill_smooth", smooth), ("fill_mean", mean)])
@given(st.integers(0, 2**32 - 1), st.integers(1, 50), st.integers(1, 50))
@settings(deadline=None)
def test_a_window_of_a_fill_is_that_of_the_filled_picture(
    name: str, definition, seed: int, height: int, width: int
) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    picture, hidden = rng.integers(0, 256, (height, width, 3), dtype=np.uint8), blobs(height, width, rng)
    (top, bottom), (left, right) = (sorted(rng.choice(size + 1, 2, replace=False)) for size in (height, width))
    whole, paint = definition(picture, hidden), method(name).paint
    windows: list[Window] = [WHOLE, (slice(top, bottom), slice(left, right))]
    assert paint is not None
    for window in windows:
        twin = Twin(picture, hidden, lambda: picture, np.random.default_rng, {}, window)
        assert (paint(twin) == whole[window]).all()
