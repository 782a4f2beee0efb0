"""Features of another model, timestep, view or index are refused by name; none reaches a training or an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfeat.errors import UserError
from dfeat.evaluation.predict import evaluate
from dfeat.section import parse
from dfeat.storage.shards import Shard, read_shard, write_shard
from dfeat.training import loop
from dfeat.training.settings import TrainStage
from dfeat.training.sources import Inputs
from tests.conftest import CPU, World

from .conftest import Tried
from .jobs import Job


@pytest.fixture(scope="module")
def features(world: World, stages: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Features of the clean and the occluded training images and of a test set, by their verbs."""
    out = tmp_path_factory.mktemp("features")
    found = {}
    for view, set_name in (("clean", "train"), ("parts", "train"), ("drop:0", "dfeat_real")):
        latents, path = out / f"{set_name}-{view}-latents.h5", out / f"{set_name}-{view}.h5"
        data, one = str(world.root / "data" / set_name), ("--threads", "1")
        jobs = [
            ("latents", "--index", data, "--view", view, "--parts", str(world.parts), *one, "--out", str(latents)),
            ("features", "--latents", str(latents), *one, "--out", str(path)),
        ]
        for words in jobs:
            job = Job(words[0], (*words, "--settings", stages[words[0]]))
            assert job.run(out, out / "log") == 0, (out / "log").read_text()
        found[f"{set_name} {view}"] = path
    return found


def other(path: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A shard of the same rows that says it was made otherwise."""
    import json

    shard = read_shard(path, "features")
    said = {"settings": json.loads(shard.settings), "model": shard.model, "index": shard.index, "parts": shard.parts}
    change(said)
    made = Shard(
        "features", shard.recipe, said["settings"], said["model"], shard.keys, shard.payload, index=said["index"],
        parts=said["parts"],
    )  # fmt: skip
    write_shard(target, made)
    return target


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "model": (lambda said: said.update(model="f" * 64), "another (diffusion )?model"),
    "timestep": (lambda said: said["settings"]["features"].update(timestep=51), "other feature settings"),
    "resolution": (lambda said: said["settings"]["latents"].update(resolution=72), "other feature settings"),
    "view": (lambda said: said["settings"]["latents"].update(view="drop:80"), "of the view 'drop:80'"),
    "index": (lambda said: said.update(index="f" * 64), "another index"),
    "parts": (lambda said: said.update(parts="f" * 64), "another parts"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_foreign_features_reach_no_training(
    what: str, features: dict[str, Path], world: World, stages: dict[str, str], tmp_path: Path, tried: Tried
) -> None:
    change, told = CHANGES[what]
    foreign = other(features["train parts"], tmp_path / "foreign.h5", change)
    inputs = Inputs(world.train, world.train / "pixels.h5", world.parts, None, (features["train clean"],), (foreign,))
    with pytest.raises(UserError, match=told) as refused:
        loop.train("sd_features", inputs, parse(TrainStage, stages["train"]), 0, tmp_path / "model", CPU)
    assert "foreign.h5" in str(refused.value)
    assert not (tmp_path / "model").exists()
    tried("artifact of another model, timestep, view or index", 1, "refused by name")


@pytest.fixture(scope="module")
def model(
    features: dict[str, Path], world: World, stages: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("model")
    stage = parse(TrainStage, stages["train"])
    short = stage.model_copy(update={"training": stage.training.model_copy(update={"epochs": 1})})
    clean, twins = (features["train clean"],), (features["train parts"],)
    loop.train("sd_features", Inputs(world.train, world.train / "pixels.h5", world.parts, None, clean, twins), short, 0, out, CPU)  # fmt: skip
    return out


@pytest.mark.parametrize("what", CHANGES)
def test_foreign_features_reach_no_evaluation(
    what: str, model: Path, features: dict[str, Path], world: World, tmp_path: Path, tried: Tried
) -> None:
    change, told = CHANGES[what]
    foreign = other(features["dfeat_real drop:0"], tmp_path / "foreign.h5", change)
    stage = world.stage("evaluate").model_copy(update={"levels": {"dfeat_real": (0,)}})
    with pytest.raises(UserError, match=told) as refused:
        evaluate(model, world.root / "data", {"dfeat_real@0": [foreign]}, stage, tmp_path / "out", CPU)
    assert "foreign.h5" in str(refused.value)
    assert not (tmp_path / "out").exists()
    whole = {"dfeat_real@0": [features["dfeat_real drop:0"]]}
    assert evaluate(model, world.root / "data", whole, stage, tmp_path / "out", CPU)
    tried("artifact of another model, timestep, view or index", 1, "refused by name")
