"""Several seeded crops an image: features of the same pixels that the backbone sees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from dfeat.data.crops import Crop, view_key
from dfeat.data.index import read_index
from dfeat.diffusion.features import extract_features
from dfeat.diffusion.latents import encode_view
from dfeat.diffusion.settings import FeaturesStage, LatentsStage
from dfeat.storage.shards import read_shard
from dfeat.training.dataset import TrainingBatches, cut, cut_mask
from dfeat.training.settings import TrainStage
from dfeat.training.sources import Inputs, read_sources
from tests.conftest import DEVICE, World

K = 3


def cached(world: World, folder: Path) -> Inputs:
    latents, features = world.stage("latents"), world.stage("features")
    assert isinstance(latents, LatentsStage)
    assert isinstance(features, FeaturesStage)
    several = latents.model_copy(update={"views": K, "crop_scale": (0.6, 1.0)})
    for view in ("clean", "parts"):
        encode_view(world.train, view, several, folder / f"l-{view}.h5", DEVICE, world.parts)
        extract_features(folder / f"l-{view}.h5", features, folder / f"f-{view}.h5", DEVICE)
    clean, parts = ((folder / f"f-{view}.h5",) for view in ("clean", "parts"))
    return Inputs(world.train, world.train / "pixels.h5", world.parts, None, clean, parts)


def test_the_trainer_replays_the_crop_its_features_were_taken_of(world: World, tmp_path: Path) -> None:
    inputs = cached(world, tmp_path)
    stage = world.stage("train", "convnext")
    assert isinstance(stage, TrainStage)
    sources = read_sources("sd_features", inputs, stage.training)
    assert sources.views == K
    batches = TrainingBatches("sd_features", sources, stage.training, 0, 0)
    assert sources.features is not None
    assert sources.twin_features is not None
    feature_rows = {}
    for rows, twin in ((sources.features, False), (sources.twin_features, True)):
        for key, row in rows.row_of.items():
            feature_rows[rows.payload[row].tobytes()] = (key, twin, row)
    seen = set()
    for step in range(len(batches)):
        batch = batches[step]
        assert batch.features is not None
        for image, feature, target in zip(
            *(part.numpy() for part in (batch.images, batch.features, batch.targets)), strict=True
        ):
            key, twin, row = feature_rows[feature.tobytes()]
            seen.add(key.rpartition("#")[2])
            rows = sources.twin_features if twin else sources.features
            crop = Crop(tuple(rows.extras["box"][row].tolist()), bool(rows.extras["flip"][row]))
            name = key.rpartition("#")[0]
            whole = cut(sources.pixels[name], crop, stage.training.image_size)
            hidden = cut_mask(sources.parts.runs(name), crop, stage.training.image_size)
            expected = np.where(hidden[..., None], 0, whole) if twin else whole
            assert (image == expected).all()
            assert sources.labels[name] == int(target.argmax())
    assert seen == {str(number) for number in range(K)}


def test_a_view_is_drawn_from_seed_and_key_alone(world: World, tmp_path: Path) -> None:
    latents = world.stage("latents")
    assert isinstance(latents, LatentsStage)
    several = latents.model_copy(update={"views": K})
    encode_view(world.train, "clean", several, tmp_path / "whole.h5", DEVICE)
    whole = read_shard(tmp_path / "whole.h5", "latents")
    rows = {}
    for number in range(2):
        encode_view(world.train, "clean", several, tmp_path / f"{number}.h5", DEVICE, None, (number, 2))
        shard = read_shard(tmp_path / f"{number}.h5", "latents")
        rows |= {
            key: (row.tobytes(), box.tobytes())
            for key, row, box in zip(shard.keys, shard.payload, shard.extras["box"], strict=True)
        }
    assert rows == {
        key: (row.tobytes(), box.tobytes())
        for key, row, box in zip(whole.keys, whole.payload, whole.extras["box"], strict=True)
    }
    records = read_index(world.train).records
    assert whole.keys == [view_key(record.key, number) for record in records for number in range(K)]
    boxes = whole.extras["box"]
    assert ((boxes >= 0) & (boxes <= 1 + 1e-12)).all()
    assert json.loads(whole.settings)["views"] == K


def test_test_sets_keep_their_one_evaluation_crop(world: World, tmp_path: Path) -> None:
    latents = world.stage("latents")
    assert isinstance(latents, LatentsStage)
    several = latents.model_copy(update={"views": K})
    dfeat = world.root / "data" / "dfeat_real"
    encode_view(dfeat, "drop:40", several, tmp_path / "k.h5", DEVICE)
    encode_view(dfeat, "drop:40", latents, tmp_path / "one.h5", DEVICE)
    shards = [read_shard(tmp_path / f"{name}.h5", "latents") for name in ("k", "one")]
    assert shards[0].keys == shards[1].keys
    assert shards[0].extras == {}
    assert (np.asarray(shards[0].payload) == np.asarray(shards[1].payload)).all()
