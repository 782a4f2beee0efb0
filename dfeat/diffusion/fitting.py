"""A batch that does not fit the device's memory is computed in parts, half as large until they fit.

The size that fits is kept for the batches that follow. Random numbers belong to the image and not to its batch, so a
row changes by no more than rounding: about 2e-5 of a feature between batch sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch

from dfeat.errors import UserError
from dfeat.progress import say

Row = TypeVar("Row")
Tensors = tuple[torch.Tensor, ...]


class Fitting(Generic[Row]):
    """`compute` of batches, in parts of `size` rows; `size` is halved where the device's memory runs out.

    `compute` takes a list of rows and returns tensors of as many rows. `what` names the job in what is said. Where a row
    is `passes` rows of a network, `compute` takes these `size` at a time itself.
    """

    def __init__(self, compute: Callable[[list[Row]], Tensors], size: int, what: str, passes: int = 1) -> None:
        self.compute, self.size, self.what, self.passes = compute, size, what, passes

    def __call__(self, batch: Sequence[Row]) -> Tensors:
        """The tensors of a batch. Raises UserError where not even one row fits."""
        while True:
            try:
                return in_parts(self.compute, list(batch), self.size)
            except RuntimeError as error:
                if not _memory_ran_out(error):
                    raise
            if self.size == 1:  # out of the except block, whose traceback would keep the tensors alive
                raise UserError(
                    f"{self.what}: not even one image at a time fits the device's memory; use diffusion.model.precision "
                    "bfloat16 or float16, a smaller diffusion.resolution, or a device with more memory"
                )
            self.size = max(1, min(self.size, len(batch) * self.passes) // 2)
            torch.cuda.empty_cache()
            say(f"{self.what}: the batch does not fit the device's memory; from here on {self.size} images at a time")


def in_parts(compute: Callable[[list[Row]], Tensors], batch: list[Row], size: int) -> Tensors:
    """`compute` of a batch, `size` rows at a time where it has more; the last part is filled up with the last row."""
    if size >= len(batch):
        return compute(batch)
    filled = batch + batch[-1:] * (-len(batch) % size)  # one shape for all parts
    parts = [compute(filled[start : start + size]) for start in range(0, len(filled), size)]
    return tuple(torch.cat(tensors)[: len(batch)] for tensors in zip(*parts, strict=True))


def _memory_ran_out(error: RuntimeError) -> bool:
    """Whether torch, or a library it calls, could not allocate memory on the device."""
    return isinstance(error, torch.OutOfMemoryError) or "ALLOC_FAILED" in str(error)
