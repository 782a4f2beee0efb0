"""What a training reports of each epoch: the mean loss and the share of correct answers.

What enters: the loss and the number of correct answers of each step, on the device. What leaves: sums in the training's
`State`, fetched every few steps, and a row of metrics for each epoch.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from torch import Tensor

from dfeat.errors import UserError
from dfeat.training.checkpoint import State
from dfeat.training.dataset import TrainingBatches

CHECKED_EVERY: Final = 20
"""Steps between two transfers of the losses from a GPU, each of which waits for the device."""


class EpochMetrics:
    """Losses and correct answers of an epoch, kept on the device between fetches so that steps do not wait for it."""

    def __init__(self, batches: TrainingBatches, state: State) -> None:
        self.batches, self.state = batches, state
        self._new: list[tuple[int, Tensor, Tensor]] = []

    def add(self, step: int, loss: Tensor, correct: Tensor) -> None:
        """Add a step's loss () and number of correct answers (); fetch every CHECKED_EVERY steps, on a CPU at once."""
        self._new.append((step, loss, correct))
        self.state.images += self.batches.settings.batch_size
        if len(self._new) == CHECKED_EVERY or loss.device.type == "cpu":
            self.fetch()

    def end_epoch(self) -> dict[str, float]:
        """The mean loss and the share of correct answers since the last call; resets both."""
        self.fetch()
        state = self.state
        found = {"loss": round(float(np.mean(state.losses)), 6), "top1": round(state.correct / state.images, 6)}
        state.losses, state.correct, state.images = [], 0, 0
        return found

    def fetch(self) -> None:
        """Copy new values from the device to the state. Raises UserError, with the step's images, for a non-finite loss."""
        if not self._new:
            return
        steps, losses, correct = zip(*self._new, strict=True)
        fetched = torch.stack(losses).tolist()
        self._new = []
        for step, loss in zip(steps, fetched, strict=True):
            if not math.isfinite(loss):
                keys = self.batches.keys_of(step)
                raise UserError(
                    f"the loss of step {step} is not finite ({len(keys)} images: {', '.join(keys[:8])}"
                    f"{' ...' if len(keys) > 8 else ''}); nothing was written since. Lower "
                    "training.learning_rate or use precision float32"
                )
        self.state.losses += fetched
        self.state.correct += int(torch.stack(correct).sum())
