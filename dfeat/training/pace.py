"""How fast a training goes: told at the end of each epoch, in the job's log and in the record of its attempt.

What enters: the step that was taken. What leaves: images a second, the time spent waiting for them, the learning rate, the
most memory taken, and the time left at this pace. All of it is measured, so none of it is in `metrics.jsonl`.
"""

from __future__ import annotations

import time

from dfeat.devices.attempts import record
from dfeat.devices.memory import peak
from dfeat.diffusion.stream import Waiting
from dfeat.progress import duration, say
from dfeat.training.dataset import TrainingBatches


class Pace:
    """The pace of a training since it was last told."""

    def __init__(self, batches: TrainingBatches, waiting: Waiting, step: int) -> None:
        self.batches, self.waiting = batches, waiting
        self._told = step, time.perf_counter(), waiting.waited

    def tell(self, step: int, learning_rate: float) -> None:
        """Say and record the pace of the steps up to `step`, the next to be taken."""
        before, since, waited = self._told
        self._told = step, time.perf_counter(), self.waiting.waited
        seconds = max(self._told[1] - since, 1e-9)
        settings, steps, waited = self.batches.settings, len(self.batches), self._told[2] - waited
        rate, left = (step - before) * settings.batch_size / seconds, (steps - step) * seconds / max(1, step - before)
        epoch = step // self.batches.steps_per_epoch
        record(
            "epoch", epoch=epoch, epochs=settings.epochs, step=step, steps=steps, images_per_second=round(rate, 2),
            seconds=round(seconds, 3), waited=round(waited, 3), learning_rate=learning_rate, memory=peak(),
            seconds_left=round(left, 1),
        )  # fmt: skip
        say(
            f"epoch {epoch} of {settings.epochs}: {rate:.3g} images a second, {100 * waited / seconds:.0f} % of the time spent "
            f"waiting for images, learning rate {learning_rate:.3g}, memory up to {peak() / 1e6:.0f} MB, "
            f"{duration(left)} left"
        )
