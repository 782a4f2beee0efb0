"""The augmentations of the literature, each against its definition computed pixel by pixel from the same draws."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfeat.errors import UserError
from dfeat.methods import BASELINES, method
from dfeat.methods.method import Method, Mixture, Twin
from dfeat.methods.paint import MEAN_COLOUR, cells
from dfeat.section import parse
from dfeat.training.dataset import TrainingBatches
from dfeat.training.settings import TrainingSettings
from dfeat.training.sources import Inputs, read_sources
from tests.conftest import World

PAINTING = [one for one in BASELINES if one.paint]
MIXING = [one for one in BASELINES if one.mix]
SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(8, 60)


def options(one: Method, **changed: Any) -> dict[str, Any]:
    return parse(TrainingSettings, changed).model_dump(include=set(one.reads))


def painted(one: Method, picture: np.ndarray, seed: int, **changed: Any) -> np.ndarray:
    nothing = np.zeros(picture.shape[:2], bool)
    twin = Twin(picture, nothing, lambda: picture, lambda: np.random.default_rng(seed), options(one, **changed))
    before = picture.copy()
    assert one.paint is not None
    made = one.paint(twin)
    assert (picture == before).all() and made.dtype == np.uint8 and made.shape == picture.shape
    assert (one.paint(twin) == made).all()
    return made


def random_picture(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed + 1).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(SEEDS, SIDES, st.floats(0, 0.4), st.floats(0, 0.4))
@settings(deadline=None)
def test_random_erasing_changes_one_box_of_the_drawn_area(seed: int, side: int, one: float, other: float) -> None:
    least, most = sorted((one, other))
    picture = np.zeros((side, side, 3), np.uint8)
    made = painted(method("random_erasing"), picture, seed, erased_area=[least, most])
    rng = np.random.default_rng(seed)
    while True:  # Algorithm 1
        area, ratio = side * side * (least + (most - least) * rng.random()), 0.3 + (1 / 0.3 - 0.3) * rng.random()
        tall, wide = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if tall < side and wide < side:
            break
    top, left = rng.integers(side - tall + 1), rng.integers(side - wide + 1)
    outside = np.ones((side, side), bool)
    outside[top : top + tall, left : left + wide] = False
    assert not made[outside].any()
    assert (made[~outside] == rng.integers(0, 256, (tall, wide, 3), np.uint8).reshape(-1, 3)).all()


@given(SEEDS, SIDES, SIDES, st.floats(0.01, 1))
@settings(deadline=None)
def test_cutout_hides_one_square(seed: int, height: int, width: int, share: float) -> None:
    picture = random_picture(height, width, seed)
    made, rng = painted(method("cutout"), picture, seed, cutout_side=share), np.random.default_rng(seed)
    side, row, column = round(share * min(height, width)), rng.integers(height), rng.integers(width)
    for y, x in product(range(height), range(width)):
        inside = 0 <= y - (row - side // 2) < side and 0 <= x - (column - side // 2) < side
        assert (made[y, x] == (MEAN_COLOUR[0] if inside else picture[y, x])).all()


@given(SEEDS, SIDES, SIDES, st.floats(0, 1))
@settings(deadline=None)
def test_hide_and_seek_hides_cells_of_one_grid(seed: int, height: int, width: int, probability: float) -> None:
    picture = random_picture(height, width, seed)
    made = painted(method("hide_and_seek"), picture, seed, hide_probability=probability)
    rng = np.random.default_rng(seed)
    side = max(1, round((16, 32, 44, 56)[rng.integers(4)] / 224 * min(height, width)))
    rows, columns = -(-height // side), -(-width // side)
    hidden = rng.random(rows * columns).reshape(rows, columns) < probability
    for y, x in product(range(height), range(width)):
        assert (made[y, x] == (MEAN_COLOUR[0] if hidden[y // side, x // side] else picture[y, x])).all()


@given(SEEDS, SIDES, SIDES, st.integers(1, 20), st.floats(0, 0.9), st.floats(0, 0.9))
@settings(deadline=None)
def test_patch_drop_blackens_a_share_of_the_patches(
    seed: int, height: int, width: int, patch: int, one: float, other: float
) -> None:
    least, most = sorted((one, other))
    picture = np.maximum(random_picture(height, width, seed), 1)
    made = painted(method("patch_drop"), picture, seed, patch=patch, dropped=[least, most])
    black = [
        (made == 0).all(axis=2)[cells((height, width), patch) == cell]
        for cell in range(cell_count(height, width, patch))
    ]
    assert all(one.all() or not one.any() for one in black)
    gone = sum(one.all() for one in black)
    assert round(len(black) * least) <= gone <= round(len(black) * most)
    shown = ~(made == 0).all(axis=2)
    assert (made[shown] == picture[shown]).all()


def cell_count(height: int, width: int, side: int) -> int:
    return -(-height // side) * -(-width // side)


def mixed(
    one: Method, images: np.ndarray, labels: list[int], twins: list[bool], **changed: Any
) -> tuple[np.ndarray, np.ndarray]:
    targets = np.eye(4, dtype=np.float32)[labels]
    assert one.mix is not None
    batch = Mixture(images, targets, np.array(twins), np.random.default_rng(7), options(one, **changed))
    made, shares = one.mix(batch)
    kept = ~np.array(twins)
    assert (made[kept] == images[kept]).all() and (shares[kept] == targets[kept]).all()
    assert made.dtype == np.uint8 and shares.dtype == np.float32 and np.allclose(shares.sum(axis=1), 1)
    return made, shares


def test_mixup_is_a_weighted_mean_of_images_and_labels() -> None:
    images = np.stack([random_picture(6, 6, seed) for seed in range(5)])
    labels, twins = [0, 1, 2, 3, 0], [True, False, True, True, False]
    made, shares = mixed(method("mixup"), images, labels, twins, mixup_alpha=0.7)
    rng = np.random.default_rng(7)
    partners = rng.permutation(5)
    for row in (0, 2, 3):
        weight, other = rng.beta(0.7, 0.7), partners[row]
        mean = weight * images[row].astype(float) + (1 - weight) * images[other].astype(float)
        assert abs(made[row] - mean).max() <= 0.5001
        assert np.allclose(
            shares[row], weight * np.eye(4)[labels[row]] + (1 - weight) * np.eye(4)[labels[other]], atol=1e-6
        )


@pytest.mark.parametrize("label", ["kept", "mixed"])
def test_patch_mixing_pastes_patches_of_another_class(label: str) -> None:
    images = np.stack([np.full((12, 12, 3), 10 * row + 10, np.uint8) for row in range(6)])
    labels, twins = [0, 0, 1, 1, 0, 1], [True, True, True, True, True, False]
    made, shares = mixed(
        method("patch_mixing"), images, labels, twins, patch=4, dropped=[0.5, 0.5], patch_mixing_label=label
    )
    for row in range(5):
        [other] = set(np.unique(made[row])) - {10 * row + 10}
        partner = other // 10 - 1
        assert labels[partner] != labels[row]
        pasted = (made[row] == other).all(axis=2)
        assert pasted.sum() == 16 * round(9 * 0.5)
        assert len({bool(value) for value in pasted[:4, :4].flat}) == 1  # whole patches
        share = 0.0 if label == "kept" else pasted.mean()
        assert np.allclose(shares[row], (1 - share) * np.eye(4)[labels[row]] + share * np.eye(4)[labels[partner]])


def test_patch_mixing_leaves_a_batch_of_one_class() -> None:
    images = np.stack([random_picture(8, 8, seed) for seed in range(3)])
    made, _ = mixed(method("patch_mixing"), images, [2, 2, 2], [True] * 3, patch=4)
    assert (made == images).all()


@pytest.mark.parametrize("one", BASELINES, ids=lambda one: one.name)
def test_every_twin_is_changed_and_no_original(one: Method, world: World) -> None:
    """Images without chosen parts too, which a method of parts leaves as they are."""
    changed = {
        "patch": 8,
        "dropped": [0.5, 0.8],
        "hide_probability": 0.9,
        "erased_area": [0.2, 0.4],
        "mixup_alpha": 9.0,
    }
    own = parse(TrainingSettings, {"image_size": 64, "batch_size": 16, "epochs": 1, **changed})
    batches = {}
    for name in ("none", one.name):
        inputs = Inputs(world.train, world.train / "pixels.h5", world.parts)
        sources = read_sources(name, inputs, own)
        if one.parts is False:
            sources.parts.rows.pop(min(sources.keys))
        batches[name] = TrainingBatches(name, sources, own, 0, 0)
    changed_rows, same_rows = 0, 0
    for step in range(len(batches[one.name])):
        twins = np.array([item.twin for item in batches[one.name]._items(step)])
        differs = (batches[one.name][step].images != batches["none"][step].images).flatten(1).any(dim=1).numpy()
        assert not differs[~twins].any()
        changed_rows, same_rows = changed_rows + differs[twins].sum(), same_rows + (~differs[twins]).sum()
    # A twin may be mixed with itself, and a batch may be of one class.
    assert changed_rows and same_rows <= (0 if one.paint else changed_rows // 4)


@pytest.mark.parametrize(
    ("key", "value"), [("dropped", [0.5, 0.2]), ("dropped", [0, 0.95]), ("erased_area", [-0.1, 0.2])]
)
def test_a_wrong_range_is_refused(key: str, value: list[float]) -> None:
    with pytest.raises(UserError, match=rf"'{key}' is .*give two numbers from 0 to 0.9"):
        parse(TrainingSettings, {key: value})


def test_the_preset_trains_them_all(tmp_path: Path) -> None:
    from dfeat.config.files import read_settings

    root = Path(__file__).parents[2]
    chosen = read_settings([root / "config.yaml", root / "config/baselines.yaml"]).training.methods
    assert {one.name for one in BASELINES} < set(chosen)
