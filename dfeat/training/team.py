"""Train on several devices of one node: each process computes a part of every batch, DDP combines the gradients.

`launch` starts the processes as torchrun does, and `Team.join` makes each of them a member. The global batch, the steps
and the learning rate are those of a single process; only the order of sums, and so the last bits of a loss, differ.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any, Final, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dfeat.shortage import lost_worker

_LOST_PEER: Final = re.compile(r"NCCL.*(remote|peer|closed)|Connection (closed|reset) by")


@dataclass(frozen=True)
class Team:
    """This process's rank among the `size` processes that train one model; a team of one by default."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: torch.device) -> Team:
        """Join the team that `launch` started, else a team of one. NCCL reduces tensors on a GPU, gloo those on a CPU."""
        if not is_member():
            return cls()
        die_with_parent()
        if device.type == "cuda":
            torch.cuda.set_device(device)
            # Bound to its device, NCCL connects here, where a fault is a fault of joining, and `barrier` needs no guess.
            dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device)
        else:
            dist.init_process_group("gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this process writes the results."""
        return self.rank == 0

    def part_of(self, count: int) -> slice:
        """The rows of a batch of `count` rows that this process computes."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model, wrapped so that its gradients are averaged over the team."""
        if self.size == 1:
            return model
        # DDP: grad = (1 / size) * sum over ranks of grad_rank, see `loop._step` for the weights that make it the batch's.
        return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)

    def summed(self, values: Tensor) -> Tensor:
        """Sum a tensor over the team, in place and on its device; returns it."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any_of(self, here: bool) -> bool:
        """Whether `here` is True in any process of the team; the same in all of them."""
        return here if self.size == 1 else bool(self.summed(torch.tensor([int(here)])).item())

    def leave(self) -> None:
        """Wait for the others, then leave the team."""
        if self.size > 1:
            dist.barrier()
            dist.destroy_process_group()


def end(status: int) -> NoReturn:
    """End this process of a team at once, after all its files are written."""
    # An ordinary exit may abort in gloo's threads ("terminate called without an active exception", SIGABRT), which would
    # make a finished training look failed.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def lost_peer(error: BaseException) -> bool:
    """Whether a collective operation failed because another process of the team ended, which says why by itself."""
    return isinstance(error, RuntimeError) and _LOST_PEER.search(str(error)) is not None


def is_member() -> bool:
    """Whether `launch`, or torchrun itself, started this process."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent, which holds the lease of its device, ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run `dfeat` in `count` processes, which end and receive SIGTERM together; returns the exit status to end with."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # the members log their own errors
    with TemporaryDirectory(
        prefix="dfeat-", ignore_cleanup_errors=True
    ) as folder:  # elastic would leave one of its own
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=count, run_id=str(os.getpid()), rdzv_backend="c10d",
            rdzv_endpoint="localhost:0", local_addr="localhost", max_restarts=0, logs_specs=DefaultLogsSpecs(folder),
        )  # fmt: skip
        command: Any = elastic_launch(config, sys.executable)
        try:
            command("-m", "dfeat.cli", *arguments)
        except ChildFailedError as error:
            ended = {rank: failure.exitcode for rank, failure in error.failures.items()}
            for rank, status in ended.items():
                if status < 0 and status != -signal.SIGTERM:  # which the others were sent when one had ended
                    raise lost_worker(f"number {rank} of {count}, by {signal.Signals(-status).name}") from None
            return next((status for status in ended.values() if status > 0), 1)
        except SignalException as error:
            return 128 + int(error.sigval)
    return 0
