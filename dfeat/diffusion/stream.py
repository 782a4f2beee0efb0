"""Keep the device busy: threads prepare rows ahead, and results are fetched one batch behind.

What enters: items and a function that prepares one, or batches and a function that computes one. What leaves: their
results in the same order. The overlap changes waiting times, never a value.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from dfeat.diffusion.fitting import Fitting
from dfeat.progress import progress
from dfeat.storage.journal import Journal
from dfeat.storage.provenance import versions

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


def prepared(
    items: Iterable[Item], prepare: Callable[[Item], Prepared], workers: int, ahead: int
) -> Iterator[Prepared]:
    """Yield `prepare(item)` of each item, in order; `workers` threads keep `ahead` results ready (0: no threads).

    An exception is raised in place of the item's result, and pending items are cancelled. Threads suffice, because
    decoding and resizing release the GIL.
    """
    if workers == 0:
        yield from map(prepare, items)
        return
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Prepared]] = deque()
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
    """Measure how long a loop waits for its items; `started` is the time of construction, `waited` is in seconds."""

    waited: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def of(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the same items, adding the time that each took to arrive to `waited`."""
        iterator = iter(items)
        while True:
            requested = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.waited += time.perf_counter() - requested
            yield item


@dataclass(frozen=True)
class Done:
    """A finished stage: its rows, the seconds of its loop, and the share of them spent waiting for images."""

    rows: int
    seconds: float
    waited: float

    @classmethod
    def after(cls, rows: int, waiting: Waiting) -> Done:
        """Stop the clock; call this when the loop ends, before the result is written."""
        seconds = time.perf_counter() - waiting.started
        return cls(rows, seconds, waiting.waited / max(seconds, 1e-9))

    def __str__(self) -> str:
        return f"{self.rows} rows in {self.seconds:.1f} s, {100 * self.waited:.0f} % of them spent waiting for images"


def padded(rows: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield batches of exactly `size` rows; the last one is padded by repeating its last row.

    Libraries choose their kernels by the batch's shape. At one shape the bytes of a row do not depend on its neighbours
    or on the number of rows; across shapes they would.
    """
    batch: list[Item] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch + [batch[-1]] * (size - len(batch))


def fetched(
    batches: Iterable[Item], compute: Callable[[Item], tuple[torch.Tensor, ...]]
) -> Iterator[tuple[Item, tuple[NDArray[Any], ...]]]:
    """Yield each batch with host copies of `compute(batch)`, in order, fetched while the device computes the next.

    On a CPU nothing can overlap, so each result is yielded at once.
    """
    behind: deque[tuple[Item, Landing]] = deque()
    for batch in batches:
        behind.append((batch, Landing(compute(batch))))
        if behind[-1][1].event is None or len(behind) > 1:
            before, landing = behind.popleft()
            yield before, landing.arrays()
    for batch, landing in behind:
        yield batch, landing.arrays()


def gathered(
    items: Iterable[Item],
    keys: Sequence[str],
    compute: Callable[[list[Item]], tuple[torch.Tensor, ...]],
    fitting: Fitting[Any],
    journal: Journal,
    label: str,
) -> tuple[NDArray[Any], Done]:
    """Compute the rows that `journal` lacks, one for each of `items`, and return all rows of `keys` as one array.

    Batches are padded to the size of `fitting`, which splits them, and are added to the journal one by one.
    """
    size, left = fitting.size, [key for key in keys if key not in journal.rows]
    fitting.size = journal.least_size(keys, size)
    waiting, bar = Waiting(), progress(len(left), label)
    end = 0
    for _, (batch, *_) in fetched(padded(waiting.of(items), size), compute):
        of_batch = left[end : end + size]
        # Copied, because a batch from a GPU lies in pinned memory, which the next ones need.
        journal.add(dict(zip(of_batch, batch.copy(), strict=False)), fitting.size)
        end += len(of_batch)
        bar.update(len(of_batch))
    bar.close()
    assert end == len(left)
    done = Done.after(len(left), waiting)
    payload = np.stack([journal.rows[key] for key in keys])
    journal.rows.clear()
    return payload, done


def made_on(device: torch.device) -> dict[str, str]:
    """What the bytes of a row depend on beside its settings and inputs: rows of two such places are not mixed in a shard."""
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
    else:
        kind = f"{device.type} {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    return {"device": kind, **versions("torch", "diffusers", "transformers", "numpy", "pillow")}


class Landing:
    """Tensors being copied to the host, asynchronously through pinned memory where they are on a GPU.

    Those of a CPU are taken as they are. Work that the device is given later may overwrite the originals.
    """

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

    def landed(self) -> tuple[torch.Tensor, ...]:
        """Wait for the copies and return them."""
        if self.event is not None:
            self.event.synchronize()
        return self.tensors

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Wait for the copies and return them as arrays."""
        return tuple(tensor.numpy() for tensor in self.landed())


def to_device(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """An array as a tensor on `device`; the copy to a GPU is asynchronous, through pinned memory."""
    # torch warns of memory that must not be written, such as a mapped file's; it is a batch of such at most, so it is copied.
    tensor = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
