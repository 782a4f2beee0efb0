"""Save and resume a training: weights, momentum, and the losses of the unfinished epoch.

A resumed training is bit-identical to an uninterrupted one: the random numbers of a step are seeded by its number, so a
checkpoint needs no generator state.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

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


def save_checkpoint(out: Path, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
    """Write `out`/checkpoint.safetensors. `identity` identifies the training, so that no other one resumes from it."""
    from safetensors.torch import save

    names = [name for name, _ in model.named_parameters()]
    momenta = optimizer.state_dict()["state"]
    tensors = {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    tensors |= {f"momentum.{names[number]}": entry["momentum_buffer"].contiguous() for number, entry in momenta.items()}
    metadata = {"identity": identity, "state": json.dumps(vars(state))}
    write_bytes(out / "checkpoint.safetensors", save(tensors, metadata))


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
