"""A device with too little memory for a batch gives the rows of one that has enough, and is asked once."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dfeat.diffusion import features, inpaint, latents
from dfeat.diffusion.fitting import Fitting
from dfeat.errors import UserError
from dfeat.storage.shards import read_shard
from tests.conftest import DEVICE, World


def small_device(module: torch.nn.Module, room: int, asked: list[int]) -> None:
    """Have a network run out of memory where it is given more than `room` rows, as a GPU does."""

    def look(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        asked.append(len(inputs[0]))
        if len(inputs[0]) > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    module.register_forward_pre_hook(look)


def with_room(monkeypatch: pytest.MonkeyPatch, module: object, part: Callable, room: int) -> list[int]:
    """Batch sizes that a model loaded by `module` is asked for, on a device with room for so many rows."""
    asked: list[int] = []
    real = module.load_model  # type: ignore[attr-defined]

    def load(*arguments):  # type: ignore[no-untyped-def]
        model = real(*arguments)
        small_device(part(model), room, asked)
        return model

    monkeypatch.setattr(module, "load_model", load)
    return asked


def test_latents_in_halves_are_those_of_the_whole_batch(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    latents.encode_view(world.train, "clean", world.stage("latents"), tmp_path / "a.h5", DEVICE)
    asked = with_room(monkeypatch, latents, lambda model: model.vae.encoder, 3)
    latents.encode_view(world.train, "clean", world.stage("latents"), tmp_path / "b.h5", DEVICE)
    assert asked[:3] == [8, 4, 2]  # halved until it fits
    assert set(asked[3:]) == {2}  # and remembered
    a, b = (read_shard(tmp_path / name, "latents").payload for name in ("a.h5", "b.h5"))
    np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)  # a float16 step
    said = capsys.readouterr().err
    assert said.count("does not fit the device's memory") == 2
    assert "from here on 2 images at a time" in said


def test_features_and_inpainting_in_halves_keep_each_images_noise(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = tmp_path / "latents.h5"
    latents.encode_view(world.train, "clean", world.stage("latents"), encoded, DEVICE)
    features.extract_features(encoded, world.stage("features"), tmp_path / "a.h5", DEVICE)
    inpaint.inpaint_shard(world.train, world.parts, world.stage("inpaint"), tmp_path / "ai.h5", DEVICE, (0, 4))
    asked = with_room(monkeypatch, features, lambda model: model.unet, 4)
    features.extract_features(encoded, world.stage("features"), tmp_path / "b.h5", DEVICE)
    assert asked[0] == 8 and set(asked[1:]) == {4}
    a, b = (np.asarray(read_shard(tmp_path / name, "features").payload) for name in ("a.h5", "b.h5"))
    np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)
    asked = with_room(monkeypatch, inpaint, lambda model: model.unet, 2)  # guidance doubles the rows: one image fits
    inpaint.inpaint_shard(world.train, world.parts, world.stage("inpaint"), tmp_path / "bi.h5", DEVICE, (0, 4))
    assert asked[:4] == [16, 8, 4, 2] and set(asked[4:]) == {2}
    for one, other in zip(
        *(read_shard(tmp_path / name, "inpaint").payload for name in ("ai.h5", "bi.h5")), strict=True
    ):
        pictures = [np.asarray(Image.open(io.BytesIO(encoded))).astype(int) for encoded in (one, other)]
        assert abs(pictures[0] - pictures[1]).max() <= 1


def test_noises_of_one_image_that_do_not_fit_together_are_computed_in_halves(tiny_models: dict[str, Path]) -> None:
    extract = features.FeatureExtractor.from_pretrained(tiny_models["four"], ensemble=8, device="cpu")
    image = np.full((1, 64, 64, 3), 90, np.uint8)
    whole, asked = extract(image), list[int]()
    small_device(extract.model.unet, 4, asked)
    torch.testing.assert_close(extract(image), whole, rtol=1e-4, atol=1e-5)
    assert asked == [8, 4, 4]


def test_uneven_parts_have_one_shape_and_lose_no_row() -> None:
    shapes: list[int] = []

    def compute(rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        shapes.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return torch.tensor(rows) * 2, torch.tensor(rows) > 1

    fitting = Fitting(compute, 7, "test")
    doubled, large = fitting(range(7))
    assert doubled.tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert large.tolist() == [row > 1 for row in range(7)]
    assert shapes == [7, 3, 3, 3]
    assert fitting.size == 3


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory", "CUDA driver error: out of memory", "Triton Error [CUDA]: out of memory",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", "GET was unable to find an engine to execute this computation",
    ],
)  # fmt: skip
def test_a_batch_is_halved_in_whichever_way_the_device_runs_out(text: str) -> None:
    def compute(rows: list[int]) -> tuple[torch.Tensor]:
        if len(rows) > 3:
            raise RuntimeError(text)
        return (torch.tensor(rows),)

    fitting = Fitting(compute, 8, "test")
    assert fitting(range(8))[0].tolist() == list(range(8))
    assert fitting.size == 2


def test_one_image_that_does_not_fit_is_a_sentence_and_other_errors_are_themselves() -> None:
    def never(_rows: list[int]) -> tuple[torch.Tensor, ...]:
        raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")

    with pytest.raises(UserError, match="inpaint x: not even one image at a time fits"):
        Fitting(never, 8, "inpaint x")(range(8))

    def unsupported(_rows: list[int]) -> tuple[torch.Tensor, ...]:
        raise RuntimeError("GET was unable to find an engine to execute this computation")

    with pytest.raises(RuntimeError, match="GET was unable"):  # which tells of other faults, too
        Fitting(unsupported, 8, "inpaint x")(range(8))

    def wrong(_rows: list[int]) -> tuple[torch.Tensor, ...]:
        raise RuntimeError("expected 4 channels")

    with pytest.raises(RuntimeError, match="expected 4 channels"):
        Fitting(wrong, 8, "inpaint x")(range(8))
