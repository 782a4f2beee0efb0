"""The small world all tests share: drawn data on disk, its artifacts, and a tiny diffusion pipeline."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dfeat.config import Settings, stage_settings
from dfeat.devices import set_threads
from dfeat.section import parse
from tests.hub import StandIn, serving

CPU = torch.device("cpu")
DEVICE = torch.device(os.environ.get("DFEAT_TEST_DEVICE") or "cpu")
"""Where tests of stages compute: `DFEAT_TEST_DEVICE=cuda pytest ...` takes them to a GPU."""
SHARED = Path(__file__).parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "DFEAT_TEST_DEVICE" in os.environ:
        return  # named outright: on a CPU, what a CPU can do of the tests marked gpu is done
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="wants a GPU: DFEAT_TEST_DEVICE=cuda pytest -m gpu"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # test processes share the cores
    if DEVICE.type == "cuda":
        set_threads(1)  # and on a GPU bits are the same again in the mode of a job alone


@pytest.fixture(autouse=True)
def _devices_as_found() -> Iterator[None]:
    """A lease names the devices of its process in the environment; the next test is another process in all but name."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    yield
    if before is None:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = before


@pytest.fixture(scope="session", autouse=True)
def _network_off() -> Iterator[None]:
    """No test reaches another machine: what would is a failure, not a wait."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        local = self.family == socket.AF_UNIX or str(address[0]) in {"127.0.0.1", "::1", "localhost"}
        assert local, f"a test connects to {address}"
        real(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        patch.setenv("HF_HUB_OFFLINE", "1")  # for the processes that tests start
        yield


@dataclass(frozen=True)
class World:
    """A run of two drawn images a class: its settings and the artifacts of the early steps."""

    root: Path
    settings: Settings

    def stage(self, name: str, backbone: str | None = None):  # type: ignore[no-untyped-def]
        return stage_settings(self.settings, name, backbone)

    @property
    def train(self) -> Path:
        return self.root / "data" / "train"

    @property
    def parts(self) -> Path:
        return self.root / "occlusion" / "parts.json"


TINY_BACKBONE = {"name": "convnext_atto", "kwargs": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}}


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of TINY_BACKBONE with a head for ImageNet-1k, random ones."""
    from safetensors.torch import save_file
    from timm import create_model

    path = tmp_path_factory.mktemp("weights") / "convnext.safetensors"
    save_file(create_model(TINY_BACKBONE["name"], num_classes=1000, **TINY_BACKBONE["kwargs"]).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny diffusers pipelines with random weights: 4 and 9 input channels, epsilon and v-prediction."""
    return {
        name: make_tiny_pipeline(tmp_path_factory.mktemp("models") / name, *kind)
        for name, kind in {
            "four": (4, "epsilon"),
            "nine": (9, "epsilon"),
            "velocity": (4, "v_prediction"),
        }.items()
    }


def make_tiny_pipeline(folder: Path, channels: int, prediction: str) -> Path:
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from tools.demo_models.networks import SCHEDULE, TOKENS, build_tokenizer

    torch.manual_seed(7)
    tokenizer = build_tokenizer(["A", "class", "of", "tiger", "goldfish"])
    StableDiffusionInpaintPipeline(
        vae=AutoencoderKL(
            latent_channels=4,
            block_out_channels=(8, 8, 8, 8),
            norm_num_groups=4,
            sample_size=64,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        unet=UNet2DConditionModel(
            sample_size=8,
            in_channels=channels,
            out_channels=4,
            layers_per_block=1,
            block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=4,
            norm_num_groups=8,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=TOKENS,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        ),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(**{**SCHEDULE, "prediction_type": prediction}, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def make_settings(root: Path, model: Path, **changes: object) -> Settings:
    """Settings of a tiny run on the drawn data under `root`/raw."""
    raw = root / "raw"
    mapping: dict[str, object] = {
        "run": "tiny",
        "data": {
            "train": {"root": str(raw / "PartImageNet"), "expected_images": None, "expected_classes": None},
            "short_side": 64,
            "evaluation": {
                "imagenet_val": {"kind": "imagenet", "root": str(raw / "imagenet" / "val"), "levels": [0, 40]},
                "dfeat_real": {"kind": "folder", "root": str(raw / "dfeat_real")},
            },
        },
        "occlusion": {"patch": 8},
        "diffusion": {
            "model": {"path": str(model)},
            "resolution": 64,
            "batch_size": 8,
            "inpaint": {"steps": 2, "mask_cells": "any", "shards": 1},
            "features": {"timestep": 50},
        },
        "training": {
            "backbones": {"convnext": TINY_BACKBONE},
            "seeds": [0],
            "image_size": 64,
            "epochs": 2,
            "batch_size": 16,
        },
        "evaluation": {"crop_pct": 1.0, "batch_size": 32},
        "report": {"note": "test"},
    }
    mapping.update(changes)
    return parse(Settings, mapping)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, Path]) -> World:
    """Two drawn training images a class, indexed, their parts chosen, their pixels cached."""
    from dfeat.data.indexing import build_evaluation_index, build_train_index
    from dfeat.data.pixels import cache_index
    from dfeat.demo.worlds import write_demo_data
    from dfeat.occlusion.parts import choose_all

    root = tmp_path_factory.mktemp("world")
    write_demo_data(root / "raw", train=2, val=1, real=1)
    settings = make_settings(root, tiny_models["four"])
    made = World(root, settings)
    build_train_index(settings.data.train, made.train)
    choose_all(made.train, made.stage("parts"), made.parts)
    cache_index(made.train, made.stage("pixels"), made.train / "pixels.h5")
    for name, chosen in settings.data.evaluation.items():
        folder = root / "data" / name
        build_evaluation_index(name, chosen, made.train / "classes.json", folder)
        cache_index(folder, made.stage("pixels"), folder / "pixels.h5")
    return made


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """A folder of reference data; the test is skipped where it is not at hand."""

    def find(name: str) -> Path:
        path = SHARED / "data" / name
        if not path.exists():
            pytest.skip(f"reference data {name} is not here")
        return path

    return find


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """An empty stand-in for the Hub, which this process may ask, with an empty cache in the test's folder."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    with serving() as served:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield served
        close_session()
