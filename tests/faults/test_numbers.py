"""A value that is not finite stops the run before anything is written, and the images are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dfeat.data.index import read_index
from dfeat.diffusion.features import extract_features
from dfeat.diffusion.inpaint import inpaint_shard
from dfeat.errors import UserError
from dfeat.evaluation.predict import evaluate
from dfeat.section import Section, parse
from dfeat.storage.atomic import json_bytes, write_files
from dfeat.storage.provenance import bytes_digest
from dfeat.storage.records import read_json
from dfeat.storage.shards import Shard, write_shard
from dfeat.training import loop
from dfeat.training.settings import TrainStage
from dfeat.training.sources import Inputs
from tests.conftest import CPU, World

from .conftest import Tried


@pytest.fixture
def loud_model(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    """The tiny pipeline with a U-Net whose values leave float16's range, as a badly trained one's do."""
    folder = tmp_path / "loud"
    shutil.copytree(tiny_models["four"], folder)
    (weights,) = (folder / "unet").glob("*.safetensors")
    state = {
        name: value * 3e4 if name.startswith("conv_in") or ".resnets." in name else value
        for name, value in load_file(weights).items()
    }
    save_file(state, weights, metadata={"format": "pt"})
    return folder


def of_model(stage: Section, model: Path, precision: str = "float16") -> Section:
    """A stage with another diffusion model."""
    return stage.model_copy(
        update={"model": stage.model.model_copy(update={"path": str(model), "precision": precision})}
    )


def test_an_overflow_in_the_unet_stops_features(world: World, loud_model: Path, tmp_path: Path, tried: Tried) -> None:
    from dfeat.diffusion.latents import encode_view

    quiet = tmp_path / "latents.h5"
    encode_view(world.train, "clean", of_model(world.stage("latents"), loud_model), quiet, CPU, shard=(0, 20))
    keys = [record.key for record in read_index(world.train).records][:2]
    with pytest.raises(UserError, match=rf"not finite .*({'|'.join(keys)})"):
        extract_features(quiet, of_model(world.stage("features"), loud_model), tmp_path / "features.h5", CPU)
    assert not (tmp_path / "features.h5").exists()
    tried("value that is not finite", 1, "stopped, images named, nothing written")


def test_an_overflow_in_the_unet_stops_inpainting(world: World, loud_model: Path, tmp_path: Path, tried: Tried) -> None:
    keys = [record.key for record in read_index(world.train).records][:2]
    stage = of_model(world.stage("inpaint"), loud_model)
    with pytest.raises(UserError, match=rf"not finite .*({'|'.join(keys)})"):
        inpaint_shard(world.train, world.parts, stage, tmp_path / "inpaint.h5", CPU, (0, 20))
    assert not (tmp_path / "inpaint.h5").exists()
    tried("value that is not finite", 1, "stopped, images named, nothing written")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_named_and_not_written(value: float, tmp_path: Path, tried: Tried) -> None:
    payload = np.zeros((3, 4), np.float16)
    payload[1, 2] = value
    with pytest.raises(UserError, match=r"1 rows are not finite \(the culprit"):
        write_shard(tmp_path / "a.h5", Shard("features", 1, {}, "m", ["a", "the culprit", "c"], payload))
    assert not list(tmp_path.iterdir())
    tried("value that is not finite", 1, "stopped, images named, nothing written")


def test_a_loss_that_is_not_finite_names_the_images_of_its_batch(
    world: World, stages: dict[str, str], tmp_path: Path, tried: Tried
) -> None:
    stage = parse(TrainStage, stages["train"])
    wild = stage.model_copy(update={"training": stage.training.model_copy(update={"learning_rate": 1e30})})
    keys = "|".join(record.key for record in read_index(world.train).records)
    with pytest.raises(UserError, match=rf"loss of step \d+ is not finite \(16 images: ({keys}), "):
        inputs = Inputs(world.train, world.train / "pixels.h5", world.parts)
        loop.train("none", inputs, wild, 0, tmp_path / "wild", CPU)
    assert not list((tmp_path / "wild").glob("*")) if (tmp_path / "wild").exists() else True
    tried("value that is not finite", 1, "stopped, images named, nothing written")


def test_predictions_that_are_not_finite_are_not_written(
    world: World, stages: dict[str, str], tmp_path: Path, tried: Tried
) -> None:
    stage = parse(TrainStage, stages["train"])
    short = stage.model_copy(update={"training": stage.training.model_copy(update={"epochs": 1})})
    inputs = Inputs(world.train, world.train / "pixels.h5", world.parts)
    loop.train("none", inputs, short, 0, tmp_path / "model", CPU)
    state = load_file(tmp_path / "model" / "model.safetensors")
    state["head.weight"] = torch.full_like(state["head.weight"], torch.nan)
    from safetensors.torch import save

    tensors = save(state)
    run = read_json(tmp_path / "model" / "run.json", "train") | {"model": bytes_digest(tensors)}
    names = {"model.safetensors": tensors, "run.json": json_bytes(run)}
    write_files({tmp_path / "model" / name: content for name, content in names.items()})
    with pytest.raises(UserError, match=r"not finite .*\(n\d+"):
        evaluate(tmp_path / "model", world.root / "data", {}, world.stage("evaluate"), tmp_path / "out", CPU)
    assert not (tmp_path / "out").exists()
    tried("value that is not finite", 1, "stopped, images named, nothing written")
