"""The gallery's measure, and which images are shown."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfeat.data.records import Record
from dfeat.report.figures.gallery import COLUMNS, one_a_class, psnr, sample


def records(classes: int, images: int) -> list[Record]:
    return [
        Record(f"{label}_{number}", "x.png", label, "n00000001", 8, 8)
        for label in range(classes)
        for number in range(images)
    ]


@given(step=st.integers(1, 255), hidden=st.integers(1, 63))
def test_psnr_of_an_even_error_is_its_textbook_value_whatever_lies_outside_the_mask(step: int, hidden: int) -> None:
    where = np.arange(64).reshape(8, 8) < hidden
    original = np.zeros((8, 8, 3), np.uint8)
    filled = np.where(where[..., None], np.uint8(step), np.uint8(200)).astype(np.uint8).repeat(1, axis=2)
    filled = np.broadcast_to(filled, (8, 8, 3)).copy()
    assert psnr(original, filled, where) == pytest.approx(20 * math.log10(255 / step))


def test_psnr_knows_equal_pictures_and_empty_masks() -> None:
    picture = np.full((4, 4, 3), 9, np.uint8)
    assert psnr(picture, picture, np.ones((4, 4), bool)) == math.inf
    assert psnr(picture, picture + np.uint8(1), np.zeros((4, 4), bool)) == math.inf


def test_the_sample_is_even_over_classes_and_the_same_for_a_seed() -> None:
    everything = records(classes=7, images=5)
    chosen = sample(everything, 17, np.random.default_rng(3))
    counts = np.bincount([record.label for record in chosen])
    assert len(chosen) == 17 and counts.min() == 2 and counts.max() == 3
    assert chosen == sample(everything, 17, np.random.default_rng(3))
    assert chosen != sample(everything, 17, np.random.default_rng(4))
    assert sample(everything, 999, np.random.default_rng(0)) == everything


def test_extremes_show_a_class_once() -> None:
    ranked = records(classes=9, images=3)
    chosen = one_a_class(ranked)
    assert [record.key for record in chosen] == [f"{label}_0" for label in range(COLUMNS)]
