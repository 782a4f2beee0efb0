"""On a GPU as on a CPU: what is computed again has the same bytes, and how a view is cut into shards changes none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dfeat.diffusion.features import FeatureExtractor, extract_features
from dfeat.diffusion.inpaint import Inpainter, inpaint_shard
from dfeat.diffusion.latents import encode, encode_view
from dfeat.diffusion.settings import FeatureSettings, InpaintSettings
from dfeat.storage.shards import read_shard
from dfeat.training import loop
from dfeat.training.dataset import Batch
from dfeat.training.network import Classifier, untrained_backbone
from dfeat.training.settings import Backbone, TrainingSettings, TrainStage
from dfeat.training.sources import Inputs
from tests.conftest import DEVICE, TINY_BACKBONE, World
from tests.gpu.conftest import SIDE, SMALL, model_of
from tests.training.test_team import trained_stage

pytestmark = pytest.mark.gpu
NAMES = ("convnext_base", "swin_base_patch4_window7_224")


def payload(path: Path, kind: Any) -> list[bytes]:
    """The rows of a shard, as bytes."""
    rows = read_shard(path, kind).payload
    return [bytes(row) if isinstance(row, bytes) else np.asarray(row).tobytes() for row in rows]


def stages(world: World, folder: Path, count: int) -> dict[str, list[bytes]]:
    """Latents, features and inpaintings of the training images, made in so many shards."""
    made: dict[str, list[bytes]] = {"latents": [], "features": [], "inpaint": []}
    for number in range(count):
        files = {kind: folder / f"{kind}-{number}.h5" for kind in made}
        part = (number, count)
        encode_view(world.train, "parts", world.stage("latents"), files["latents"], DEVICE, world.parts, part)
        extract_features(files["latents"], world.stage("features"), files["features"], DEVICE)
        inpaint_shard(world.train, world.parts, world.stage("inpaint"), files["inpaint"], DEVICE, part)
        for kind, file in files.items():
            made[kind] += payload(file, kind)
    return made


def test_a_stage_done_again_or_in_three_shards_has_the_same_bytes(world: World, tmp_path: Path) -> None:
    whole, again, cut = (stages(world, tmp_path / str(n), count) for n, count in enumerate((1, 1, 3)))
    assert whole == again
    for kind, rows in whole.items():
        assert rows == cut[kind], f"{kind} depend on how they are cut into shards"


stage = pytest.fixture(scope="module")(trained_stage)


def test_a_training_done_again_has_the_same_bytes(world: World, stage: TrainStage, tmp_path: Path) -> None:
    inputs = Inputs(world.train, world.train / "pixels.h5", world.parts)
    short = stage.model_copy(update={"training": stage.training.model_copy(update={"epochs": 3})})
    for name in ("a", "b"):
        loop.train("replace", inputs, short, 0, tmp_path / name, DEVICE)
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert a == b


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_steps_of_a_true_backbone_taken_again_have_the_same_bits(name: str, precision: Any) -> None:
    assert torch.equal(after_steps(name, precision), after_steps(name, precision))


def after_steps(name: str, precision: Any) -> torch.Tensor:
    """All weights after three steps on random images."""
    torch.manual_seed(0)
    backbone, size = (Backbone(**TINY_BACKBONE), 32) if SMALL else (Backbone(name=name), 224)
    model = Classifier(untrained_backbone(backbone), 158).to(DEVICE, memory_format=torch.channels_last).train()
    settings = TrainingSettings(precision=precision, batch_size=16)
    optimizer = loop.build_optimizer(model, settings)
    rng = np.random.default_rng(0)
    for _ in range(3):
        images = torch.from_numpy(rng.integers(0, 256, (16, size, size, 3), dtype=np.uint8))
        batch = Batch(images, torch.eye(158)[rng.integers(0, 158, 16)]).to(DEVICE)
        loop._step(model, optimizer, batch, settings)
    return torch.cat([parameter.detach().float().flatten() for parameter in model.parameters()]).cpu()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_true_model_gives_the_same_bits_again_and_to_a_row_whatever_its_neighbours(precision: str) -> None:
    model, rng = model_of(precision), np.random.default_rng(0)
    images = rng.integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    hidden = np.zeros((4, SIDE, SIDE), bool)
    hidden[:, : SIDE // 2] = True
    extract = FeatureExtractor(model, FeatureSettings(), model.scaling_factor, batch_size=4)
    inpaint = Inpainter(model, InpaintSettings(steps=2), batch_size=4)
    keys, prompts, seeds = ["a", "b", "c", "d"], ["A class of tiger"] * 4, [1, 2, 3, 4]

    def computed(order: list[int]) -> list[torch.Tensor]:
        latents = encode(model, images[order])
        features = extract.from_latents(latents, [keys[n] for n in order])
        filled, _ = inpaint.fill(images[order], hidden[order], prompts, [seeds[n] for n in order])
        return [found.cpu() for found in (latents, features, filled)]

    first, again, turned = computed([0, 1, 2, 3]), computed([0, 1, 2, 3]), computed([3, 2, 1, 0])
    for one, other, back in zip(first, again, turned, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, back.flip(0))
