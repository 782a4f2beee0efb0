"""A backbone before fine-tuning: its own head for ImageNet-1k, restricted to the run's classes.

What enters: a backbone with such a head, and the run's classes. What leaves: a model that `predict` evaluates like the
trained ones, without any training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfeat.data.records import ClassInfo
from dfeat.devices import arithmetic
from dfeat.methods import PRETRAINED
from dfeat.storage.provenance import file_digest
from dfeat.training.network import build_pretrained, channel_statistics, mixed, normalised, restricted_logits
from dfeat.training.settings import Backbone
from dfeat.training.weights import weights_file


class PretrainedModel:
    """The pretrained backbone as a classifier of the run's classes; `run` has the fields of a trained model's run.json."""

    def __init__(
        self,
        backbone: Backbone,
        classes: Sequence[ClassInfo],
        image_size: int,
        device: torch.device,
        precision: str = "float32",
    ) -> None:
        self.network = build_pretrained(backbone).to(device, memory_format=torch.channels_last).eval()
        self.wnids = [info.wnid for info in classes]
        self.run: dict[str, Any] = {
            "method": PRETRAINED.name,
            "seed": 0,
            "settings": {"backbone": backbone.model_dump(mode="json")},
            "model": file_digest(weights_file(backbone)),
            "classes": len(classes),
            "features": None,
        }
        self.image_size = image_size
        self.device, self.precision = device, precision

    @torch.no_grad()
    def probabilities(self, images: NDArray[np.uint8], features: None = None) -> Tensor:
        """The probabilities (B, C) float32 of the run's classes for images (B, S, S, 3) uint8, still on the device."""
        inputs = normalised(images, self.device, channel_statistics(self.network))
        with arithmetic(self.precision), mixed(self.precision, self.device):
            logits = restricted_logits(self.network(inputs), self.wnids)
        return logits.float().softmax(1)


def five_best(probabilities: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The five best classes (B, 5) of probabilities (B, C), best first, and the probability of the best (B,).

    Equal probabilities keep the order of the classes. With C < 5 there are C columns.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    return order, probabilities[np.arange(len(order)), order[:, 0]]
