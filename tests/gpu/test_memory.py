"""A device whose memory really runs out: batches are halved, rows stay, and a training ends in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dfeat.diffusion.features import FeatureExtractor
from dfeat.diffusion.fitting import Fitting
from dfeat.diffusion.inpaint import Inpainter
from dfeat.diffusion.latents import encode
from dfeat.diffusion.settings import FeatureSettings, InpaintSettings
from dfeat.errors import UserError
from dfeat.shortage import ShortageError
from dfeat.training import loop
from dfeat.training.settings import TrainStage
from dfeat.training.sources import Inputs
from tests.conftest import DEVICE, World
from tests.gpu.conftest import SIDE, all_but, empty, model_of, on_cuda
from tests.training.test_team import trained_stage

pytestmark = [pytest.mark.gpu, on_cuda]
MANY, FEW = 32, 4


def needed(call: Callable[[], Any]) -> int:
    """Bytes that a call takes beyond what is held before it."""
    empty()
    torch.cuda.reset_peak_memory_stats(DEVICE)
    before = torch.cuda.memory_reserved(DEVICE)
    call()
    return torch.cuda.max_memory_reserved(DEVICE) - before


@pytest.mark.parametrize("step", ["latents", "features", "inpaint"])
def test_a_batch_that_does_not_fit_is_halved_and_its_rows_stay(step: str, capsys: pytest.CaptureFixture[str]) -> None:
    compute, rows = work(step)
    expected = compute(rows[:MANY])[0].cpu().double()
    room = needed(lambda: compute(rows[:FEW]))
    fitting = Fitting(compute, MANY, step)
    with all_but(int(1.3 * room) + 2**26):
        found = fitting(rows)[0].cpu().double()
    assert FEW <= fitting.size < MANY
    assert "does not fit the device's memory" in capsys.readouterr().err
    assert float((found - expected).norm() / expected.norm()) < 0.1  # bfloat16, and kernels by the batch's shape
    assert Fitting(compute, FEW, step)(rows[:FEW])[0].shape == expected[:FEW].shape  # the device is as it was


def test_a_device_without_room_for_one_image_is_a_sentence() -> None:
    compute, rows = work("latents")
    compute(rows[:1])
    with all_but(2**22), pytest.raises(UserError, match="not even one image at a time fits the device's memory"):
        Fitting(compute, 2, "latents x")(rows[:2])


def work(step: str) -> tuple[Callable[[list[Any]], tuple[torch.Tensor, ...]], list[Any]]:
    """What computes some rows of a step with the true model, and the rows."""
    model, rng = model_of("bfloat16"), np.random.default_rng(0)
    images = list(rng.integers(0, 256, (MANY, SIDE, SIDE, 3), dtype=np.uint8))
    if step == "latents":
        return lambda rows: (encode(model, np.stack(rows)),), images
    if step == "features":
        given = [
            (torch.from_numpy(rng.normal(size=(4, SIDE // 8, SIDE // 8)).astype(np.float32)), str(n))
            for n in range(MANY)
        ]
        extract = FeatureExtractor(model, FeatureSettings(), model.scaling_factor, batch_size=MANY)
        return lambda rows: extract._means([(latent.to(DEVICE), key) for latent, key in rows]), given
    mask = np.zeros((SIDE, SIDE), bool)
    mask[: SIDE // 2] = True
    inpaint = Inpainter(model, InpaintSettings(steps=2), MANY)
    return inpaint._on_host, [(image, mask, "A class of tiger", n) for n, image in enumerate(images)]


stage = pytest.fixture(scope="module")(trained_stage)


def test_a_training_that_does_not_fit_ends_in_a_sentence_that_names_accumulate(
    world: World, stage: TrainStage, tmp_path: Path
) -> None:
    inputs = Inputs(world.train, world.train / "pixels.h5", world.parts)

    def with_batch(rows: int) -> TrainStage:
        changes = {"batch_size": rows, "image_size": 224, "accumulate": 1, "epochs": 1}
        return stage.model_copy(update={"training": stage.training.model_copy(update=changes)})

    sentence = r"memory ran out.*raise training\.accumulate \(1 now\)"
    with all_but(2**27), pytest.raises(ShortageError, match=sentence):  # the pixels alone, as float32, take 154 MB
        loop.train("none", inputs, with_batch(256), 0, tmp_path / "large", DEVICE)
    assert not (tmp_path / "large" / "model.safetensors").exists()
    loop.train("none", inputs, with_batch(8), 0, tmp_path / "small", DEVICE)  # the device is as it was
