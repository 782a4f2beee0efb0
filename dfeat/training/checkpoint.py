"""What a training keeps to go on later: weights, momentum, and the losses of an epoch that is not finished.

A training that goes on from a checkpoint ends with the bits of one that nothing interrupted.
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
from dfeat.storage.atomic import write_bytes
from dfeat.storage.records import check_file

TERMINATED = 128 + signal.SIGTERM
"""Exit status of a training that saved itself because it was told to stop."""


@dataclass
class State:
    """How far a training is: the next step, a row of metrics an epoch, and what the running epoch has seen."""

    step: int = 0
    metrics: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    correct: int = 0
    images: int = 0


def save_checkpoint(out: Path, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
    """Write `out`/checkpoint.safetensors. `identity` names the training, so that no other one goes on from it."""
    from safetensors.torch import save

    names = [name for name, _ in model.named_parameters()]
    momenta = optimizer.state_dict()["state"]
    tensors = {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    tensors |= {f"momentum.{names[number]}": entry["momentum_buffer"].contiguous() for number, entry in momenta.items()}
    metadata = {"identity": identity, "state": json.dumps(vars(state))}
    write_bytes(out / "checkpoint.safetensors", save(tensors, metadata))


def resume(out: Path, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Go on from the checkpoint of the same training where there is one; another training's is ignored."""
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
    except (SafetensorError, UserError):
        return State()
    model.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
    for name, parameter in model.named_parameters():
        momentum = torch.empty_like(parameter).copy_(tensors[f"momentum.{name}"])  # with the parameter's strides
        optimizer.state[parameter]["momentum_buffer"] = momentum.detach()
    return State(**json.loads(metadata["state"]))


@contextmanager
def told_to_stop() -> Iterator[Callable[[], bool]]:
    """In the block SIGTERM ends nothing: what is yielded says whether it came, so that the training can save first."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set  # only the main thread hears signals
        return
    before = signal.signal(signal.SIGTERM, lambda *_: came.set())
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


def ignore_stop(_worker: int) -> None:
    """For the processes that prepare batches: a scheduler signals them too, and the training must outlive that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
