"""The host queues a training's steps and an evaluation's passes: it reads nothing of the device in between.

The device is torch's meta device: its tensors have shapes and no values, so whatever needs a value raises.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dfeat.evaluation.predict import TrainedModel
from dfeat.training.checkpoint import State
from dfeat.training.dataset import Batch
from dfeat.training.loop import _step_in_memory
from dfeat.training.metrics import CHECKED_EVERY, EpochMetrics
from dfeat.training.network import FusionNetwork, untrained_backbone
from dfeat.training.settings import Backbone, TrainingSettings
from dfeat.training.team import Team
from tests.conftest import TINY_BACKBONE
from tests.diffusion.test_no_waiting import DEVICE, Traffic

SWIN = {"name": "swin_tiny_patch4_window7_224", "kwargs": {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2]}}  # fmt: skip


def classifier(backbone: dict[str, Any], width: int = 12) -> FusionNetwork:
    return FusionNetwork(untrained_backbone(Backbone(**backbone), drop_path=0.2), 5, width).to(DEVICE)


@pytest.mark.parametrize("backbone", [TINY_BACKBONE, SWIN], ids=["convnext", "swin"])
def test_a_step_of_training_reads_nothing_of_the_device_and_sends_nothing(backbone: dict[str, Any]) -> None:
    model, settings, state = classifier(backbone), TrainingSettings(accumulate=2, batch_size=4), State()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)  # the fused one has no kernels here
    images = torch.zeros(4, 32, 32, 3, dtype=torch.uint8)
    kept = model.draw_kept(0, 0, 4)
    features = torch.zeros(4, 12, dtype=torch.float16)
    batch = Batch(images, torch.eye(5)[:4], images[..., 0] > 127, features, kept).to(DEVICE)
    metrics = EpochMetrics(SimpleNamespace(settings=settings), state)  # type: ignore[arg-type]
    _step_in_memory(model, optimizer, batch, settings, state, Team())  # the first one sends the channels' statistics
    with Traffic() as traffic:
        traffic.sampling = True
        loss, logits = _step_in_memory(model, optimizer, batch, settings, state, Team())
        metrics.add(1, loss, (logits.argmax(1) == batch.targets.argmax(1)).sum())
    assert (traffic.reads, traffic.sent) == ([], [])
    assert CHECKED_EVERY > 1 and state.images == 4


@pytest.mark.parametrize("backbone", [TINY_BACKBONE, SWIN], ids=["convnext", "swin"])
def test_a_pass_of_evaluation_sends_its_batch_and_reads_nothing(backbone: dict[str, Any]) -> None:
    model: Any = SimpleNamespace(classifier=classifier(backbone).eval(), device=DEVICE, precision="tf32")
    images, features = np.zeros((4, 32, 32, 3), np.uint8), np.zeros((4, 12), np.float16)
    TrainedModel.probabilities(model, images, features)
    with Traffic() as traffic:
        traffic.sampling = True
        assert TrainedModel.probabilities(model, images, features).device == DEVICE
    assert traffic.reads == []
    assert len(traffic.sent) == 2
