"""On a GPU as on a CPU: what is computed again has the same bytes, and how a view is cut into shards changes none."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dfeat.diffusion.features import FeatureExtractor, extract_features
from dfeat.diffusion.inpaint import Inpainter, inpaint_shard
from dfeat.diffusion.latents import encode, encode_view
from dfeat.diffusion.settings import FeatureSettings, InpaintSettings
from dfeat.storage.provenance import file_digest
from dfeat.storage.shards import read_shard
from dfeat.training import loop
from dfeat.training.network import untrained_backbone
from dfeat.training.settings import Backbone, TrainStage
from dfeat.training.sources import Inputs
from tests.conftest import DEVICE, TINY_BACKBONE, World
from tests.gpu.conftest import SIDE, SMALL, model_of

pytestmark = pytest.mark.gpu


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


@pytest.mark.parametrize(
    ("name", "precision", "method"),
    [
        ("tiny", "float32", "replace"),
        ("tiny", "tf32", "cutmix"),
        ("convnext_base", "float32", "black_out"),
        ("convnext_base", "bfloat16", "black_out"),
        ("swin_base_patch4_window7_224", "bfloat16", "black_out"),
    ],
)
def test_a_training_done_again_has_the_same_bytes(
    world: World, tmp_path: Path, name: str, precision: Any, method: str
) -> None:
    inputs, stage = Inputs(world.train, world.train / "pixels.h5", world.parts), few_steps(world, tmp_path, name)
    stage = stage.model_copy(update={"training": stage.training.model_copy(update={"precision": precision})})
    made = []
    for again in range(2):
        loop.train(method, inputs, stage, 0, tmp_path / str(again), DEVICE)
        made.append(file_digest(tmp_path / str(again) / "model.safetensors"))
        shutil.rmtree(tmp_path / str(again))  # 350 MB
    assert made[0] == made[1]


def few_steps(world: World, folder: Path, name: str) -> TrainStage:
    """Five steps of a backbone at its true size on a GPU; of a tiny one on a CPU, and where it is named so."""
    tiny = SMALL or name == "tiny"
    backbone = Backbone(**TINY_BACKBONE) if tiny else Backbone(name=name)
    torch.manual_seed(0)
    weights = folder / "weights.safetensors"
    state = untrained_backbone(backbone).state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, weights)
    chosen = world.stage("train", "convnext")
    changes = {"epochs": 1, "batch_size": 16, "image_size": 64 if tiny else 224}
    return chosen.model_copy(
        update={
            "backbone": backbone.model_copy(update={"weights": str(weights)}),
            "training": chosen.training.model_copy(update=changes),
        }
    )


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
