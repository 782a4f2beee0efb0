"""Compute a batch that exceeds the device's memory in parts, halving their size until they fit.

Later batches use the size that fitted. Random numbers are seeded per image, not per batch, so a row changes by rounding
alone: about 2e-5 of a feature between batch sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Final, Generic, TypeVar

import torch

from dfeat.devices.attempts import record
from dfeat.errors import UserError
from dfeat.progress import progress, say
from dfeat.shortage import shortage

Row = TypeVar("Row")
Tensors = tuple[torch.Tensor, ...]
SOON: Final = 2.0
"""Seconds after which a call of the library draws its bar."""


class Fitting(Generic[Row]):
    """Apply `compute` to batches in parts of `size` rows, halving `size` when the device's memory runs out.

    `compute` maps a list of rows to tensors of as many rows; `what` names the job in messages. If a row is `passes` rows
    of a network, `compute` itself splits these into parts of `size`.
    """

    def __init__(self, compute: Callable[[list[Row]], Tensors], size: int, what: str, passes: int = 1) -> None:
        self.compute, self.size, self.what, self.passes = compute, size, what, passes

    def __call__(self, batch: Sequence[Row], bar: str = "") -> Tensors:
        """The tensors of a batch; `bar` is the label of a bar where it takes long. UserError if not even one row fits."""
        while True:
            try:
                with progress(len(batch), bar, delay=SOON) if bar else nullcontext() as shown:
                    return in_parts(self.compute, list(batch), self.size, shown)
            except RuntimeError as error:
                short = shortage(error)
                if short is None or not short.of_device or (self.size == 1 and not short.certain):
                    raise
            if self.size == 1:  # outside the except block, whose traceback would keep the tensors alive
                raise UserError(
                    f"{self.what}: not even one image at a time fits the device's memory; use diffusion.model.precision "
                    "bfloat16 or float16, a smaller diffusion.resolution, or a device with more memory"
                )
            self.size = max(1, min(self.size, len(batch) * self.passes) // 2)
            torch.cuda.empty_cache()
            record("halved", batch=self.size)
            say(f"{self.what}: the batch does not fit the device's memory; from here on {self.size} images at a time")


def in_parts(compute: Callable[[list[Row]], Tensors], batch: list[Row], size: int, bar: Any = None) -> Tensors:
    """Apply `compute` to a batch in parts of `size` rows and concatenate the results; a smaller batch is not split."""
    if size >= len(batch):
        return compute(batch)
    # Pad the last part to `size`: a row's result then does not depend on how many rows share its part.
    filled = batch + batch[-1:] * (-len(batch) % size)
    parts = []
    for start in range(0, len(filled), size):
        parts.append(compute(filled[start : start + size]))
        if bar is not None:
            bar.update(min(size, len(batch) - start))
    return tuple(torch.cat(tensors)[: len(batch)] for tensors in zip(*parts, strict=True))


def in_slices(compute: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor, most: int) -> torch.Tensor:
    """Apply `compute` to rows (B, ...) in slices of equal size, of `most` rows or fewer; at once where these are all."""
    count = -(-len(rows) // most)
    if count <= 1:
        return compute(rows)
    size = -(-len(rows) // count)
    filled = torch.cat([rows, rows[-1:].expand(size * count - len(rows), *rows.shape[1:])])
    return torch.cat([compute(part) for part in filled.split(size)])[: len(rows)]
