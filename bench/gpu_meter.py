"""What a device does while it works: images a second, memory, energy, and the share of the time in which it idles.

What enters: endless work, batch after batch, of one kind. What leaves: a `Measured`. The clock runs from the arrival of one
batch to that of another with the next one in flight, so neither warming up, compiling nor draining counts.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from dfeat.diffusion.stream import Waiting

WARM_UP: Final = 3
"""Batches before the clock starts."""
PROFILED: Final = 2
"""Batches under the profiler."""


@dataclass
class Work:
    """Endless batches, each yielded as its number of images once its result is fetched; closed together.

    `brief` computes in the same shapes as `whole`, in less time where a batch takes many steps; they may be one.
    """

    whole: Iterator[int]
    brief: Iterator[int]
    waiting: Waiting | None = None
    """The time that `whole` waited for prepared images; None where it is not known."""

    def close(self) -> None:
        """Stop the threads and processes that prepare images."""
        for batches in {id(each): each for each in (self.brief, self.whole)}.values():
            getattr(batches, "close", lambda: None)()


@dataclass(frozen=True)
class Measured:
    """Figures of one row; None for what the device or its driver does not count."""

    images: int
    seconds: float
    waited: float | None
    """Share of the seconds spent waiting for prepared images."""
    first: float
    """Seconds of warming up before, compiling included."""
    megabytes: float | None
    """Most memory that torch reserved, the weights included."""
    joules: float | None
    """Energy of the device for one image."""
    idle: float | None
    """Share of the time in which no kernel ran."""

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.seconds


def measure(work: Work, device: torch.device, seconds: float, energy: Callable[[], Sequence[int]] = list) -> Measured:
    """Warm up, then measure whole batches for at least so many seconds, then profile some; 0 seconds: as few as can be.

    `energy` gives the devices' counters in millijoules, none where there is no such counter.
    """
    begun = time.perf_counter()
    for _ in range(WARM_UP if seconds else 1):
        next(work.brief)
    if work.whole is not work.brief:
        next(work.whole)
    first = time.perf_counter() - begun
    images, waited, before, started = 0, _waited(work), energy(), time.perf_counter()
    while images == 0 or time.perf_counter() - started < seconds:
        images += next(work.whole)
    passed = time.perf_counter() - started
    spent = [end - start for start, end in zip(before, energy(), strict=False)]
    return Measured(
        images=images,
        seconds=passed,
        waited=None if waited is None else min(1.0, ((_waited(work) or 0) - waited) / passed),
        first=first,
        megabytes=torch.cuda.max_memory_reserved(device) / 1e6 if device.type == "cuda" else None,
        joules=sum(spent) / 1000 / images if spent and min(spent) > 0 else None,
        idle=idle_share(lambda: [next(work.brief) for _ in range(PROFILED if seconds else 1)], device),
    )


def _waited(work: Work) -> float | None:
    return work.waiting.waited if work.waiting else None


def idle_share(call: Callable[[], object], device: torch.device) -> float | None:
    """The share of a call's time in which the device ran no kernel, by torch's profiler; None for a CPU.

    The profiler itself slows the launch of kernels, so where launching bounds the speed the true share is somewhat lower.
    """
    from torch.profiler import ProfilerActivity, profile

    on_device = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_device else ProfilerActivity.CPU]) as seen:
        _synchronize(device)
        started = time.perf_counter()
        call()
        _synchronize(device)
        passed = time.perf_counter() - started
    kernels = [(event.time_range.start, event.time_range.end) for event in seen.events() or () if _is_kernel(event)]
    return max(0.0, 1 - union(kernels) / 1e6 / passed) if kernels else None


def _is_kernel(event: Any) -> bool:
    """Whether a profiled event is a kernel: neither a copy or a fill, nor a span that the program named."""
    named = getattr(event, "is_user_annotation", False) or event.name.startswith(("Mem", "Optimizer."))
    return bool(event.device_type == torch.autograd.DeviceType.CUDA and not named)


def union(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals (start, end)."""
    length, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        length += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return length


def forget(device: torch.device) -> None:
    """Give the memory that torch keeps back to the device, and count the peak from here on; nothing on a CPU."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
