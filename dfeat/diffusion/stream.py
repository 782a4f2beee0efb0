"""Keeping the device busy: rows prepared ahead by threads, results fetched one batch behind.

What enters: items and a function that prepares one, or batches and a function that computes one. What leaves: their
results in the same order. Nothing here changes a value; it changes only who waits for whom.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

Item = TypeVar("Item")
Row = TypeVar("Row")


def prepared(items: Iterable[Item], prepare: Callable[[Item], Row], workers: int, ahead: int) -> Iterator[Row]:
    """`prepare(item)` of each item, in order; `workers` threads keep `ahead` results ready (0 threads: one by one).

    Decoding and resizing release Python's lock, so threads are enough. The first error is raised where its result is
    due, and what was not begun is dropped.
    """
    if workers == 0:
        yield from map(prepare, items)
        return
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Row]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(prepare, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass
class Waiting:
    """How long a reader waited for an iterator's items, and since when it reads."""

    waited: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def of(self, items: Iterable[Row]) -> Iterator[Row]:
        """The same items; the time spent on getting each is counted."""
        iterator = iter(items)
        while True:
            asked = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.waited += time.perf_counter() - asked
            yield item


@dataclass(frozen=True)
class Done:
    """What a stage made: rows, the seconds its loop took, and the share of them it waited for its images."""

    rows: int
    seconds: float
    waited: float

    @classmethod
    def after(cls, rows: int, waiting: Waiting) -> Done:
        """To be made when the loop ends, before the result is written."""
        seconds = time.perf_counter() - waiting.started
        return cls(rows, seconds, waiting.waited / max(seconds, 1e-9))

    def __str__(self) -> str:
        return f"{self.rows} rows in {self.seconds:.1f} s, {100 * self.waited:.0f} % of them spent waiting for images"


def padded(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Batches of exactly `size` rows; the last is filled up with its last row.

    At one batch shape a row's result does not depend on its neighbours; across shapes it would.
    """
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch + [batch[-1]] * (size - len(batch))


def fetched(
    batches: Iterable[Item], compute: Callable[[Item], tuple[torch.Tensor, ...]]
) -> Iterator[tuple[NDArray[Any], ...]]:
    """Host copies of the tensors `compute(batch)` returns, in order, each fetched while the device works at the next.

    On a CPU there is nothing to overlap, and each result is handed on at once.
    """
    behind: _Landing | None = None
    for batch in batches:
        landing = _Landing(compute(batch))
        if landing.event is None:
            yield landing.arrays()
            continue
        if behind is not None:
            yield behind.arrays()
        behind = landing
    if behind is not None:
        yield behind.arrays()


def gathered(batches: Iterable[tuple[NDArray[Any], ...]], rows: int, bar: Any) -> NDArray[Any]:
    """The first array of each batch, end to end: `rows` rows, without what pads the last batch."""
    payload: NDArray[Any] | None = None
    end = 0
    for batch in batches:
        if payload is None:
            payload = np.empty((rows, *batch[0].shape[1:]), batch[0].dtype)
        part = batch[0][: rows - end]
        payload[end : end + len(part)] = part
        end += len(part)
        bar.update(len(part))
    bar.close()
    assert payload is not None and end == rows
    return payload


class _Landing:
    """Tensors on their way to the host, through pinned memory where they come from a GPU."""

    def __init__(self, tensors: tuple[torch.Tensor, ...]) -> None:
        self.event: Any = None
        if not tensors[0].is_cuda:
            self.tensors = tensors
            return
        self.tensors = tuple(torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors)
        for host, device in zip(self.tensors, tensors, strict=True):
            host.copy_(device, non_blocking=True)
        self.event = torch.cuda.Event()
        self.event.record()

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """The tensors as arrays, once all of them have landed."""
        if self.event is not None:
            self.event.synchronize()
        return tuple(tensor.numpy() for tensor in self.tensors)


def to_device(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """An array as a tensor on `device`; to a GPU through pinned memory, without waiting for the copy."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
