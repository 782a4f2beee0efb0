"""The batches of a training, in order, prepared ahead by worker processes.

What enters: batches by step, and a number of workers. What leaves: each batch, the same for any number. A worker hands on
what it raises as a value, since torch would put a traceback into its text, and moves a batch to shared memory by itself:
torch does so in a thread whose error, as of a full /dev/shm, nobody hears, and the training would wait forever.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import active_children
from multiprocessing.process import BaseProcess, current_process
from multiprocessing.util import Finalize
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import current_thread, main_thread
from traceback import clear_frames
from typing import Any

from torch.utils.data import DataLoader, get_worker_info

from dfeat.errors import UserError
from dfeat.shortage import ShortageError, lost_worker, shortage
from dfeat.training.checkpoint import ignore_sigterm
from dfeat.training.dataset import Batch, TrainingBatches


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


def prepared_batches(batches: TrainingBatches, start: int, workers: int, pin_memory: bool) -> Generator[Batch]:
    """Yield the batches from step `start` on; 0 workers: prepared here. Raises ShortageError where a worker was killed."""
    with _sockets() as folder:
        loader: DataLoader[Batch | _Raised] = DataLoader(
            _InWorker(batches),  # type: ignore[arg-type]
            batch_size=None,
            sampler=range(start, len(batches)),
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=partial(_begin, folder, os.getpid()),
        )
        before = active_children()
        coming: Iterator[Batch | _Raised] = iter(loader)
        started = [process for process in active_children() if process not in before]
        with _deaths_told_by_the_loader():
            try:
                for batch in coming:
                    if isinstance(batch, _Raised):
                        raise batch.error
                    yield batch
            except (ConnectionError, EOFError, FileNotFoundError) as error:
                clear_frames(error.__traceback__)
                raise lost_worker(_how_one_ended(started)) from error  # it ended while it handed on a batch
            except RuntimeError as error:
                clear_frames(error.__traceback__)  # they hold the other workers, which an exit would wait for
                if _how_one_ended(started):
                    raise lost_worker(_how_one_ended(started)) from error
                raise
            finally:
                del coming  # ends the workers


@contextmanager
def _deaths_told_by_the_loader() -> Iterator[None]:
    """Within, a worker's death raises where the loader waits for its batch: within 5 s, for the loader looks that often.

    torch's handler of SIGCHLD raises wherever the main thread is: in a `__del__`, where Python prints a traceback and goes
    on, or amid the writing of a checkpoint.
    """
    if current_thread() is not main_thread():  # where torch sets no handler either
        yield
        return
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)


def _how_one_ended(started: list[BaseProcess]) -> str:
    """How the first worker ended that was killed or failed; "" where none did."""
    codes = [worker.exitcode for worker in started if worker.exitcode]
    if not codes:
        return ""
    return f"killed by signal: {signal.strsignal(-codes[0])}" if codes[0] < 0 else f"with exit code {codes[0]}"


@contextmanager
def _sockets() -> Iterator[str]:
    """A folder for the sockets through which workers hand on memory, removed after the block.

    Each worker would make one of its own, and leave it where it is killed.
    """
    config: dict[str, Any] = current_process()._config  # type: ignore[attr-defined]  # what workers inherit
    before = config.get("tempdir")
    with TemporaryDirectory(prefix="dfeat-", ignore_cleanup_errors=True) as folder:
        config["tempdir"] = folder
        try:
            yield folder
        finally:
            config["tempdir"] = before


def _begin(folder: str, training: int, worker: int) -> None:
    """Begin a worker of the process `training`."""
    ignore_sigterm(worker)
    Finalize(None, _sweep, (folder, training), exitpriority=-1)


def _sweep(folder: str, training: int) -> None:
    """Remove the folder of a training that was killed: the last of its workers to end finds it empty."""
    if not Path(f"/proc/{training}").exists():
        with suppress(OSError):
            Path(folder).rmdir()
