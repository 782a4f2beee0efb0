"""l_d normalised per channel: by the moments of the training items, which the model carries along."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from timm import create_model

from dfeat.data.crops import view_keys
from dfeat.errors import UserError
from dfeat.evaluation.predict import TrainedModel
from dfeat.storage.atomic import json_bytes, write_files
from dfeat.storage.provenance import bytes_digest
from dfeat.training import loop
from dfeat.training.dataset import TrainingBatches
from dfeat.training.fusion import ChannelNorm, moments_of
from dfeat.training.settings import TrainStage
from dfeat.training.sources import Inputs, read_sources
from tests.conftest import CPU, DEVICE, TINY_BACKBONE, World
from tests.diffusion.test_views import K, cached
from tests.training.test_team import command, in_two, losses


@pytest.fixture(scope="module")
def inputs(world: World, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Features of three crops of every image, clean and occluded."""
    return cached(world, tmp_path_factory.mktemp("views"))


@pytest.fixture(scope="module")
def stage(world: World, tmp_path_factory: pytest.TempPathFactory) -> TrainStage:
    weights = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    state = create_model(TINY_BACKBONE["name"], num_classes=0, **TINY_BACKBONE["kwargs"]).state_dict()
    save_file({name: value.numpy() for name, value in state.items()}, weights)
    chosen = world.stage("train", "convnext")
    backbone = chosen.backbone.model_copy(update={"weights": str(weights)})
    training = chosen.training.model_copy(update={"feature_norm": "channels", "epochs": 2})
    return chosen.model_copy(update={"backbone": backbone, "training": training})


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_moments_of_parts_are_those_of_all_rows_as_often_as_they_count(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [((rng.normal(size=(n, 3)) * [1, 20, 300] + 5).astype(np.float16), rng.integers(1, 4, n)) for n in sizes]
    rows = np.concatenate([np.repeat(rows, often, axis=0) for rows, often in parts]).astype(np.float64)
    mean, std = moments_of(iter(parts))
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-9)
    np.testing.assert_allclose(std, rows.std(0), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("changes", [{}, {"twins": 1.0}, {"twin_features": "clean"}])
def test_the_moments_are_those_of_every_item_with_each_of_its_views(
    changes: dict[str, object], world: World, inputs: Inputs, stage: TrainStage
) -> None:
    settings = stage.training.model_copy(update=changes)
    sources = read_sources("sd_features", inputs, settings)
    sources.keys = sources.keys[:-7]  # images that are held out count for nothing
    clean, twins = sources.features, sources.twin_features
    assert clean is not None
    used = []
    for key in sources.keys:
        hidden = twins if twins is not None and key in sources.parts.rows else clean
        for rows in (hidden if settings.twins == 1 else clean, hidden):
            used += [rows.payload[rows.row_of[view]] for view in view_keys(key, K)]
    assert len(used) == 2 * K * len(sources.keys)
    mean, std = TrainingBatches("sd_features", sources, settings, 0, 0).feature_moments()
    np.testing.assert_allclose(mean, np.mean(used, axis=0, dtype=np.float64), rtol=1e-9)
    np.testing.assert_allclose(std, np.std(used, axis=0, dtype=np.float64), rtol=1e-9)


def test_a_channel_that_does_not_vary_in_training_adds_nothing_in_a_test() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float16)
    rows[:, 1], rows[:, 2] = 0, 700.5  # constant
    rows[:, 3] = np.where(np.arange(50) == 3, np.nextafter(np.float16(1), np.float16(2)), 1)  # but for one last bit
    norm = ChannelNorm(4)
    norm.set_moments(moments_of([(rows, np.ones(50, np.int64))]))
    l_d = torch.tensor([[1.0, 9.0, -3.0, 40.0], [-60000.0, 60000.0, 60000.0, -60000.0]], requires_grad=True)
    normal = norm(l_d)
    assert torch.isfinite(normal).all()
    assert (normal[:, 1:] == 0).all()
    normal.sum().backward()
    assert torch.isfinite(l_d.grad).all()
    inside = norm(torch.from_numpy(rows).float())[:, 0]
    assert float(inside.mean()) == pytest.approx(0, abs=1e-6)
    assert float(inside.std(correction=0)) == pytest.approx(1, abs=1e-6)


def test_a_model_carries_its_moments_through_resumption_and_evaluation(
    world: World, inputs: Inputs, stage: TrainStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = TrainingBatches(
        "sd_features", read_sources("sd_features", inputs, stage.training), stage.training, 0, 0
    ).feature_moments()
    loop.train("sd_features", inputs, stage, 0, tmp_path / "whole", DEVICE)
    whole = load_file(tmp_path / "whole/model.safetensors")
    np.testing.assert_allclose(whole["fusion.norm_d.mean"], moments[0], rtol=1e-6)
    np.testing.assert_allclose(whole["fusion.norm_d.std"], moments[1], rtol=1e-6)
    real_step, steps = loop._step, []

    def dying_step(*arguments: object) -> object:
        steps.append(1)
        if len(steps) == 8:
            raise KeyboardInterrupt
        return real_step(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", dying_step)
        with pytest.raises(KeyboardInterrupt):
            loop.train("sd_features", inputs, stage, 0, tmp_path / "broken", DEVICE)
    loop.train("sd_features", inputs, stage, 0, tmp_path / "broken", DEVICE)
    resumed = load_file(tmp_path / "broken/model.safetensors")
    assert all((whole[name] == resumed[name]).all() for name in whole)
    model = TrainedModel(tmp_path / "whole", CPU)
    assert (model.classifier.fusion.norm_d.mean.numpy() == whole["fusion.norm_d.mean"]).all()  # type: ignore[union-attr]


@pytest.mark.slow
def test_two_processes_have_the_moments_and_the_losses_of_one(
    world: World, inputs: Inputs, stage: TrainStage, tmp_path: Path
) -> None:
    loop.train("sd_features", inputs, stage, 0, tmp_path / "one", DEVICE)
    arguments = command(world, in_two(stage), tmp_path / "two", "sd_features")
    features = ["--features", str(inputs.features[0]), "--twin-features", str(inputs.twin_features[0])]
    environment = os.environ | {"DFEAT_DEVICES": "GPU-a GPU-b", "DFEAT_LEASES": str(tmp_path / "leases")}
    result = subprocess.run([*arguments, *features], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all((one[f"fusion.norm_d.{name}"] == two[f"fusion.norm_d.{name}"]).all() for name in ("mean", "std"))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)


def test_a_model_whose_weights_are_of_another_network_is_refused(
    world: World, inputs: Inputs, stage: TrainStage, tmp_path: Path
) -> None:
    one = stage.model_copy(
        update={"training": stage.training.model_copy(update={"epochs": 1, "feature_norm": "layer"})}
    )
    loop.train("sd_features", inputs, one, 0, tmp_path, DEVICE)
    told = json.loads((tmp_path / "run.json").read_text())
    assert "feature_norm" not in told["settings"]["training"]
    told["settings"]["training"]["feature_norm"] = "channels"
    write_files({tmp_path / "run.json": json_bytes(told)})
    with pytest.raises(UserError, match=r"weights are not those of the network that run\.json .*norm_d"):
        TrainedModel(tmp_path, CPU)
    assert told["model"] == bytes_digest((tmp_path / "model.safetensors").read_bytes())
