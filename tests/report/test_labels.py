"""Verdicts on inpainted images: one for each, several copies of an image included, and intervals that count images."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy.stats import binomtest
from timm import create_model

from dfeat.config import Settings
from dfeat.data.crops import image_key
from dfeat.data.pixels import cache_inpainted
from dfeat.evaluation.judge import judge
from dfeat.evaluation.verdicts import read_verdicts
from dfeat.report.tables.label_preservation import exact_interval, write_label_preservation
from dfeat.training.loop import train
from dfeat.training.settings import TrainStage
from dfeat.training.sources import Inputs
from tests.conftest import CPU, World
from tests.diffusion.test_copies import K, inpainted


@pytest.fixture(scope="module")
def model(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A None model of one epoch."""
    folder = tmp_path_factory.mktemp("none")
    stage = world.stage("train", "convnext")
    assert isinstance(stage, TrainStage)
    save_file(
        create_model(stage.backbone.name, num_classes=0, **stage.backbone.kwargs).state_dict(),
        folder / "weights.safetensors",
    )
    backbone = stage.backbone.model_copy(update={"weights": str(folder / "weights.safetensors")})
    training = stage.training.model_copy(update={"epochs": 1})
    stage = stage.model_copy(update={"backbone": backbone, "training": training})
    train("none", Inputs(world.train, world.train / "pixels.h5", world.parts), stage, 0, folder / "model", CPU)
    return folder / "model"


def judged_by(model: Path, world: World) -> Settings:
    """The world's settings with the backbone that the model was trained from."""
    weights = {"weights": str(model.parent / "weights.safetensors")}
    backbone = world.settings.training.backbones["convnext"].model_copy(update=weights)
    training = world.settings.training.model_copy(update={"backbones": {"convnext": backbone}})
    return world.settings.model_copy(update={"training": training})


def test_each_copy_is_judged_and_the_table_counts_images(world: World, model: Path, tmp_path: Path) -> None:
    verdicts = {}
    settings = judged_by(model, world)
    for name, copies in (("one", 1), ("several", K)):
        inpainted(world, copies, tmp_path / f"{name}.h5")
        cache = tmp_path / f"{name}-pixels.h5"
        cache_inpainted([tmp_path / f"{name}.h5"], world.stage("pixels"), cache)
        out = tmp_path / name / "evaluation/labels/convnext/verdicts.csv"
        pixels = world.train / "pixels.h5"
        accepted = judge([model], world.train, pixels, world.parts, cache, world.settings.evaluation, out, CPU)
        verdicts[name] = read_verdicts(out, settings.training.backbones["convnext"])
        assert accepted == sum(int(row["accepted"]) for row in verdicts[name])
    one, several = verdicts["one"], verdicts["several"]
    assert len(several) == K * len(one)
    for number, row in enumerate(several):
        image = one[number // K]
        assert row["key"] == f"{image['key']}#{number % K}"
        assert [row[name] for name in ("label", "original", "black_out")] == [
            image[name] for name in ("label", "original", "black_out")
        ]
    assert [row | {"key": image_key(row["key"])} for row in several[::K]] == one

    run = tmp_path / "several"
    (run / "data").symlink_to(world.root / "data")
    write_label_preservation(run, settings, tmp_path)
    with (tmp_path / "label_preservation.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert table[0]["n"] == str(len(one)) and {row["n"] for row in table[1:]} == {"2"}
    rate = sum(int(row["accepted"]) for row in several) / len(several)
    low, high = exact_interval(rate * len(one), len(one), 0.95)
    assert [float(table[0][name]) for name in ("accepted", "low", "high")] == pytest.approx(
        [100 * rate, 100 * low, 100 * high], abs=1e-3
    )


@settings(deadline=None)  # the first call imports scipy
@given(n=st.integers(1, 3000), share=st.floats(0, 1), confidence=st.sampled_from([0.8, 0.95, 0.999]))
def test_the_interval_is_scipys_exact_one_and_grows_with_fractions(n: int, share: float, confidence: float) -> None:
    count = round(share * n)
    wanted = binomtest(count, n).proportion_ci(confidence, "exact")
    low, high = exact_interval(count, n, confidence)
    assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=1e-7)
    if count < n:
        between = exact_interval(count + 0.5, n, confidence)
        assert low <= between[0] and high <= between[1]
