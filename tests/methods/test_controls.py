"""Controls: fills that know nothing of what they hide, and a placebo that differs from SD Features in whose features it has."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file
from timm import create_model

from dfeat.config.files import read_settings
from dfeat.data.crops import view_keys
from dfeat.data.index import read_index
from dfeat.data.pixels import PixelCache, resize_short_side
from dfeat.diffusion.features import extract_features
from dfeat.diffusion.latents import encode_view
from dfeat.errors import UserError
from dfeat.evaluation.predict import TrainedModel, evaluate_model
from dfeat.methods import METHODS, controls_of, method
from dfeat.methods.method import Twin
from dfeat.methods.paint import reached
from dfeat.methods.runs import Runs
from dfeat.methods.sd_features_placebo import another_image
from dfeat.methods.smooth import GREY
from dfeat.occlusion.parts import read_parts
from dfeat.storage.shards import Rows, read_shard, write_shard
from dfeat.training.dataset import TrainingBatches, cut
from dfeat.training.loop import train
from dfeat.training.settings import Backbone, TrainingSettings, TrainStage
from dfeat.training.sources import Inputs, Sources
from tests.conftest import CPU, TINY_BACKBONE, World

ROOT = Path(__file__).parents[2]
FILLS = ("fill_mean", "fill_smooth")
SETTINGS = TrainingSettings(image_size=64, batch_size=16, epochs=2)
VIEWS = 2


def filled(name: str, picture: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    paint = method(name).paint
    assert paint is not None
    none = Twin(picture, hidden, lambda: picture, np.random.default_rng, {})
    return paint(none)


@pytest.mark.parametrize("name", FILLS)
@pytest.mark.parametrize("short_side", [48, 90, 130])
def test_a_filled_picture_holds_nothing_of_what_is_hidden(name: str, short_side: int, rng: np.random.Generator) -> None:
    """Whether the cache has shrunk the image, enlarged it, or left it."""
    image = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    mask = np.hypot(*np.mgrid[-40:50, -50:70]) < 20
    other = np.where(mask[..., None], 255 - image, image)
    cached = [resize_short_side(pixels, short_side) for pixels in (image, other)]
    hidden = reached(Runs.of(mask), *cached[0].shape[:2])
    assert (cached[0] != cached[1]).any() and mask.mean() <= hidden.mean() < 2 * mask.mean()
    one, two = (filled(name, pixels, hidden) for pixels in cached)
    assert (one == two).all()
    assert (one[~hidden] == cached[0][~hidden]).all()


@pytest.mark.parametrize("name", FILLS)
def test_the_twins_of_a_fill_are_crops_of_the_filled_picture(name: str, sources: Sources) -> None:
    plain, batches = (TrainingBatches(one, sources, SETTINGS, 0, 0) for one in ("none", name))
    twins = 0
    for step in range(4):
        items = batches._items(step)
        for item, image, original in zip(items, batches[step].images.numpy(), plain[step].images.numpy(), strict=True):
            if item.twin and item.key in sources.parts.rows:
                whole = filled(name, sources.pixels[item.key], sources.parts.mask(item.key))
                assert (image == cut(whole, item.crop, 64)).all() and (image != original).any()
                twins += 1
            else:
                assert (image == original).all()
    assert twins > 20


@pytest.mark.parametrize("name", FILLS)
def test_a_fill_continues_its_surroundings(name: str) -> None:
    hidden = np.zeros((64, 64), bool)
    hidden[20:40, 20:40] = True
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[..., 0] = np.linspace(50, 150, 64).astype(np.uint8)  # red rises to the right
    picture[hidden] = 255
    picture[46:] = 7  # beyond the ring
    made = filled(name, picture, hidden)[hidden]
    middle = picture[10, 20:40, 0].mean()
    assert abs(made[:, 0].mean() - middle) < 3 and (made[:, 1:] == 0).all()
    assert (filled(name, picture, np.ones_like(hidden)) == GREY).all()
    assert (filled(name, picture, np.zeros_like(hidden)) == picture).all()


def test_the_mean_fill_is_one_colour_and_the_smooth_fill_is_not() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, 32:] = 200
    hidden = np.zeros((64, 64), bool)
    hidden[20:40, 16:48] = True
    flat, smooth = (filled(name, picture, hidden)[hidden] for name in FILLS)
    assert (flat == 100).all()
    assert smooth.min() < 20 and smooth.max() > 180


def rows_of(keys: list[str], kind: int) -> Rows:
    """Features of two crops of each image that tell the image, its kind and the crop."""
    row_keys = [row for key in keys for row in view_keys(key, VIEWS)]
    payload = np.array([[n // VIEWS, kind, n % VIEWS] for n in range(len(row_keys))], np.float16)
    box = np.array([[0, 0, 1 - n / 1000, 1] for n in range(len(row_keys))])
    extras = {"box": box, "flip": np.zeros(len(row_keys), bool)}
    return Rows(payload, {key: row for row, key in enumerate(row_keys)}, "{}", "", extras)


@pytest.fixture(scope="module")
def sources(world: World) -> Sources:
    index, parts, cache = read_index(world.train), read_parts(world.parts), PixelCache(world.train / "pixels.h5")
    keys, occluded = [record.key for record in index.records], sorted(parts.rows)
    labels, wnids = {r.key: r.label for r in index.records}, [info.wnid for info in index.classes]
    own, twins = rows_of(keys, 0), rows_of(occluded, 1)
    return Sources(cache, keys, labels, wnids, parts, features=own, twin_features=twins, views=VIEWS)


def test_a_placebo_differs_from_its_method_in_whose_features_an_item_has(sources: Sources) -> None:
    own, placebo = (TrainingBatches(n, sources, SETTINGS, 5, 0) for n in ("sd_features", "sd_features_placebo"))
    told: dict[tuple[int, int], set[int]] = {}
    counts = [np.zeros(2 * len(sources.keys), int) for _ in range(2)]
    for step in range(len(own)):
        real, fake = own[step], placebo[step]
        assert (real.images == fake.images).all() and (real.targets == fake.targets).all()
        assert real.features is not None and fake.features is not None
        assert (real.features[:, 1:] == fake.features[:, 1:]).all()  # the same kind, the same crop
        for a, b in zip(real.features.int().tolist(), fake.features.int().tolist(), strict=True):
            assert a[0] != b[0]
            told.setdefault((a[0], a[1]), set()).add(b[0])
            for count, row in zip(counts, (a, b), strict=True):
                count[2 * row[0] + row[1]] += 1
    assert all(len(donors) == 1 for donors in told.values())  # in every epoch the same
    assert sorted(counts[0]) == sorted(counts[1])


def test_whose_features_depends_on_seed_and_images_alone(sources: Sources) -> None:
    keys = sources.keys
    assert another_image(keys, 1) == another_image(keys[::-1], 1) != another_image(keys, 2)
    whole, part = (
        TrainingBatches("sd_features_placebo", sources, SETTINGS, 1, 0, part=rows)[3].features
        for rows in (slice(None), slice(4, 8))
    )
    assert whole is not None and part is not None and (whole[4:8] == part).all()
    with pytest.raises(UserError, match="a is alone in its view"):
        another_image(["a"], 0)


def test_at_test_time_a_placebo_is_given_features_of_the_same_set_and_level(world: World, tmp_path: Path) -> None:
    latents, features, stage = (world.stage(name) for name in ("latents", "features", "evaluate"))
    shards = {}
    for name, source, view in (
        ("train", world.train, "clean"), ("twins", world.train, "parts"),
        *((f"{n}@{level}", world.root / "data" / n, f"drop:{level}") for n, levels in stage.levels.items() for level in levels),
    ):  # fmt: skip
        encode_view(source, view, latents, tmp_path / f"l-{name}.h5", CPU, world.parts if view == "parts" else None)
        shards[name] = tmp_path / f"{name}.h5"
        extract_features(tmp_path / f"l-{name}.h5", features, shards[name], CPU)
    inputs = Inputs(world.train, world.train / "pixels.h5", world.parts, None, (shards["train"],), (shards["twins"],))
    seed = 3
    network = create_model(TINY_BACKBONE["name"], num_classes=0, **TINY_BACKBONE["kwargs"])
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    backbone = Backbone(**TINY_BACKBONE, weights=str(tmp_path / "weights.safetensors"))
    train(
        "sd_features_placebo", inputs, TrainStage(backbone=backbone, training=SETTINGS), seed, tmp_path / "model", CPU
    )
    indexes = {name: read_index(world.root / "data" / name) for name in stage.levels}
    given = {name: [path] for name, path in shards.items() if "@" in name}
    model = TrainedModel(tmp_path / "model", CPU)
    placebo = evaluate_model(model, indexes, given, stage, tmp_path / "placebo")
    for name, (path,) in given.items():
        shard = read_shard(path, "features")
        donors = another_image(shard.keys, seed)
        payload = np.stack([np.asarray(shard.payload)[shard.keys.index(donors[key])] for key in shard.keys])
        given[name] = [tmp_path / f"moved-{name}.h5"]
        write_shard(given[name][0], replace(shard, settings=json.loads(shard.settings), payload=payload))
    model.run["method"] = "sd_features"
    moved = evaluate_model(model, indexes, given, stage, tmp_path / "moved")
    unmoved = evaluate_model(model, indexes, {name: [shards[name]] for name in given}, stage, tmp_path / "unmoved")
    assert len(placebo) == 3
    for one, same, other in zip(placebo, moved, unmoved, strict=True):
        assert one.read_bytes() == same.read_bytes() != other.read_bytes()


def test_a_runs_controls_are_those_of_its_methods() -> None:
    assert controls_of("sd_features", ["none", "black_out", "sd_features"]) == ("black_out",)
    assert controls_of("sd_features", ["none", "sd_features"]) == controls_of("pretrained", ["none"]) == ()
    names = read_settings([ROOT / "config.yaml", ROOT / "config/controls.yaml"]).training.methods
    for one in METHODS:
        assert controls_of(one.name, names) == tuple(control.name for control in one.controls)
    assert set(read_settings([ROOT / "config.yaml"]).training.methods) < set(names)
