"""Save and resume a training: weights, momentum, and the losses of the unfinished epoch.

A resumed training is bit-identical to an uninterrupted one: the random numbers of a step are seeded by its number, so a
checkpoint needs no generator state. A checkpoint is copied to main memory and written by a thread while the training goes
on, every few minutes; how often has no effect on the model.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from dfeat.diffusion.stream import Landing
from dfeat.errors import UserError
from dfeat.shortage import pass_on
from dfeat.storage.atomic import write_bytes
from dfeat.storage.records import check_file

TERMINATED = 128 + signal.SIGTERM
"""Exit status of a training that saved a checkpoint and stopped because of SIGTERM."""


@dataclass
class State:
    """Progress of a training: the next step, a row of metrics per finished epoch, and sums over the running epoch."""

    step: int = 0
    metrics: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    correct: int = 0
    images: int = 0
    accumulate: int = 0
    """The parts that a batch is computed in, where memory ran out and `training.halve` raised them; 0: as configured."""


class Checkpoints:
    """Writes `out`/checkpoint.safetensors every `minutes` (0: after every step), one at a time.

    `identity` identifies the training, so that no other one resumes from it. An error of the writing thread, as of a full
    disk, is raised by the next call of a method. With `writes` False nothing is ever due, for the members of a team that
    do not lead it. Leaving the context ends the writing.
    """

    def __init__(
        self, out: Path, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer, minutes: float, writes: bool = True
    ) -> None:  # fmt: skip
        self.path, self.identity = out / "checkpoint.safetensors", identity
        self.model, self.optimizer = model, optimizer
        self.minutes, self.writes = minutes, writes
        self._last = time.monotonic()
        self._pool = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def due(self) -> bool:
        """Whether it is time for another checkpoint."""
        if self._writing is not None and self._writing.done():
            self.finish()
        return self.writes and time.monotonic() - self._last >= 60 * self.minutes

    def begin(self, state: State) -> None:
        """Copy the training as it is after a step, and have it written. Waits where the one before is still being written."""
        self.finish()
        if not self.writes:
            return
        tensors, metadata = self._tensors(), {"identity": self.identity, "state": json.dumps(vars(state))}
        # A CPU changes its tensors in place at once; what a GPU is told to do comes after the copying.
        kept = (
            value.clone(memory_format=torch.contiguous_format) if value.is_cpu else value for value in tensors.values()
        )
        landing = Landing(tuple(kept))
        self._writing = self._pool.submit(self._write, list(tensors), landing, metadata)
        self._last = time.monotonic()

    def finish(self) -> None:
        """Wait until what was begun is written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, names: list[str], landing: Landing, metadata: dict[str, str]) -> None:
        from safetensors.torch import save

        write_bytes(self.path, save(dict(zip(names, landing.landed(), strict=True)), metadata))

    def _tensors(self) -> dict[str, Tensor]:
        names = [name for name, _ in self.model.named_parameters()]
        momenta = self.optimizer.state_dict()["state"]
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        return tensors | {f"momentum.{names[number]}": entry["momentum_buffer"] for number, entry in momenta.items()}


def resume(out: Path, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Load the checkpoint in `out` and return its state; a fresh `State` without a readable one of this training."""
    from safetensors import SafetensorError, safe_open

    path = out / "checkpoint.safetensors"
    if not path.is_file():
        return State()
    try:
        check_file(path, "train")
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            if metadata.get("identity") != identity:
                return State()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, UserError) as error:
        pass_on(error, str(path))
        return State()
    model.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
    for name, parameter in model.named_parameters():
        # A file stores contiguous tensors, but fused SGD pairs momentum and parameter by their place in memory: momentum
        # must regain its parameter's strides (channels last), or it is applied to other weights.
        momentum = torch.empty_like(parameter).copy_(tensors[f"momentum.{name}"])
        optimizer.state[parameter]["momentum_buffer"] = momentum.detach()
    return State(**json.loads(metadata["state"]))


@contextmanager
def deferred_sigterm() -> Iterator[Callable[[], bool]]:
    """Defer SIGTERM inside the block; yields a function that returns whether it came, so that training can save first."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set  # only the main thread can handle signals
        return
    before = signal.signal(signal.SIGTERM, lambda *_: came.set())
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


def ignore_sigterm(_worker: int) -> None:
    """Ignore SIGTERM in a data loader's worker: schedulers signal it too, and the training still needs its batches."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
