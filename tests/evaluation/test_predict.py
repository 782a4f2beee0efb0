"""Predictions of all levels from one pass over the pixels, each row as if its image were alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dfeat.data.index import read_index
from dfeat.data.pixels import PixelCache, evaluation_crop
from dfeat.errors import UserError
from dfeat.evaluation.predict import TrainedModel, _predict_set, evaluate
from dfeat.evaluation.settings import EvaluateStage, JudgeStage
from dfeat.methods.paint import black_out
from dfeat.occlusion.patches import drop_for
from dfeat.occlusion.views import TestOcclusion
from dfeat.section import parse
from dfeat.training.network import FusionNetwork, untrained_backbone
from dfeat.training.settings import Backbone
from tests.conftest import CPU, TINY_BACKBONE, World

LEVELS = {0: None, 40: None, 80: None}


@dataclass
class Looking:
    """A model that answers with what it sees: how bright each row of the picture is."""

    image_size: int = 64
    run: dict[str, Any] = field(default_factory=lambda: {"classes": 20, "features": None})
    shapes: Counter[tuple[int, ...]] = field(default_factory=Counter)

    def probabilities(self, images: np.ndarray, _features: Any) -> torch.Tensor:
        self.shapes[images.shape] += 1
        return torch.from_numpy(images.sum((2, 3)).astype(np.float32))


class CountingCache(PixelCache):
    """A cache that counts what is read of it."""

    read: Counter[str]

    def __getitem__(self, key: str) -> np.ndarray:
        self.read[key] += 1
        return super().__getitem__(key)


@pytest.fixture
def cache(world: World) -> CountingCache:
    opened = CountingCache(world.root / "data" / "imagenet_val" / "pixels.h5")
    opened.read = Counter()
    return opened


@pytest.mark.parametrize("protocol", ["grid", "image", "random"])
@pytest.mark.parametrize("batch_size", [7, 64])
def test_all_levels_are_those_of_each_image_alone(
    world: World, cache: CountingCache, protocol: str, batch_size: int
) -> None:
    stage: EvaluateStage = world.stage("evaluate")
    occlusion = stage.occlusion.model_copy(update={"protocol": protocol})
    evaluation = stage.evaluation.model_copy(update={"batch_size": batch_size})
    stage = stage.model_copy(update={"occlusion": occlusion, "evaluation": evaluation})
    records = read_index(world.root / "data" / "imagenet_val").records
    model = Looking()
    hidden = TestOcclusion(occlusion, None, 64, evaluation.crop_pct)
    found = _predict_set(model, records, cache, LEVELS, stage, hidden, "imagenet_val")
    assert set(cache.read.values()) == {1}
    assert model.shapes == {(batch_size, 64, 64, 3): len(LEVELS) * -(-len(records) // batch_size)}
    for level, rows in found.items():
        assert [(row[0], row[1]) for row in rows] == [(record.key, record.label) for record in records]
        for record, row in zip(records, rows, strict=True):
            crop = evaluation_crop(cache[record.key], evaluation.crop_pct, 64)
            if level:
                shape = (record.height, record.width)
                crop = black_out(crop, drop_for(occlusion, record.key, level, 64, shape, evaluation.crop_pct))
            seen = crop.sum((1, 2)).astype(np.float32)
            best = np.argsort(-seen, kind="stable")[:5]
            assert row[2:] == (*best.tolist(), f"{seen[best[0]]:.6f}")


def test_an_error_while_preparing_a_batch_stops_the_evaluation(world: World, cache: CountingCache) -> None:
    records = read_index(world.root / "data" / "imagenet_val").records
    del cache.row_of[records[-1].key]
    stage = world.stage("evaluate")
    hidden = TestOcclusion(stage.occlusion, None, 64, stage.evaluation.crop_pct)
    with pytest.raises(KeyError, match=records[-1].key):
        _predict_set(Looking(), records, cache, LEVELS, stage, hidden, "imagenet_val")


def test_settings_without_a_set_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`levels` have no set"):
        evaluate(tmp_path, tmp_path, {}, EvaluateStage(), tmp_path, CPU)


def test_the_precision_is_recorded_unless_it_is_the_default_and_the_network_computes_in_it() -> None:
    given = {"precision": "bfloat16"}
    assert parse(EvaluateStage, {"evaluation": given}, "settings").model_dump()["evaluation"]["precision"] == "bfloat16"
    assert parse(JudgeStage, given, "settings").model_dump()["precision"] == "bfloat16"
    assert "precision" not in EvaluateStage().model_dump()["evaluation"].keys() | JudgeStage().model_dump().keys()
    images, found = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8), {}
    torch.manual_seed(0)
    network = build_tiny()
    seen: list[torch.dtype] = []
    network.head.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    for precision in ("float32", "tf32", "bfloat16"):
        model: Any = SimpleNamespace(classifier=network, device=CPU, precision=precision)
        found[precision] = TrainedModel.probabilities(model, images, None)
    assert seen == [torch.float32, torch.float32, torch.bfloat16]
    assert torch.equal(found["float32"], found["tf32"])
    assert {one.dtype for one in found.values()} == {torch.float32}
    assert 0 < (found["bfloat16"] - found["float32"]).abs().max() < 0.02


def build_tiny() -> FusionNetwork:
    backbone = Backbone(name=TINY_BACKBONE["name"], kwargs=TINY_BACKBONE["kwargs"])
    return FusionNetwork(untrained_backbone(backbone), 5).eval()
