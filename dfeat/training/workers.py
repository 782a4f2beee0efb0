"""The batches of a training, in order, prepared ahead by worker processes.

What enters: batches by step, and a number of workers. What leaves: each batch, the same for any number. A worker hands on
what it raises as a value, since torch would put a traceback into its text, and moves a batch to shared memory by itself:
torch does so in a thread whose error, as of a full /dev/shm, nobody hears, and the training would wait forever.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch.utils.data import DataLoader, get_worker_info

from dfeat.errors import UserError
from dfeat.shortage import ShortageError, lost_worker, shortage
from dfeat.training.checkpoint import ignore_sigterm
from dfeat.training.dataset import Batch, TrainingBatches
from dfeat.training.team import die_with_parent


@dataclass(frozen=True)
class _Raised:
    """What a worker raised in place of a batch."""

    error: UserError | ShortageError


@dataclass(frozen=True)
class _InWorker:
    """`batches`, as a worker hands them on."""

    batches: TrainingBatches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, step: int) -> Batch | _Raised:
        if get_worker_info() is None:
            return self.batches[step]
        try:
            return self.batches[step].shared()
        except Exception as error:
            failure = shortage(error, "a worker process") or error
            if not isinstance(failure, UserError | ShortageError):
                raise
            return _Raised(failure)


def _begin(worker: int) -> None:
    ignore_sigterm(worker)
    die_with_parent()


def prepared_batches(batches: TrainingBatches, start: int, workers: int, pin_memory: bool) -> Iterator[Batch]:
    """Yield the batches from step `start` on; 0 workers: prepared here. Raises ShortageError where a worker was killed."""
    loader: DataLoader[Batch | _Raised] = DataLoader(
        _InWorker(batches),  # type: ignore[arg-type]
        batch_size=None,
        sampler=range(start, len(batches)),
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_begin,
    )
    try:
        for batch in loader:
            if isinstance(batch, _Raised):
                raise batch.error
            yield batch
    except (ConnectionError, EOFError, FileNotFoundError) as error:
        raise lost_worker() from error  # it ended while it handed on a batch
