"""The batches of a training, in order, prepared ahead by worker processes.

What enters: batches by step, and a number of workers. What leaves: each batch, the same for any number. A worker hands on
what it raises as a value, since torch would put a traceback into its text, and moves a batch to shared memory by itself:
torch does so in a thread whose error, as of a full /dev/shm, nobody hears, and the training would wait forever. Where
shared memory does not hold a batch, as in a container with 64 MB of it, the batch is handed on in a temporary file.
"""

from __future__ import annotations

import errno
import os
import pickle
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import Lock, active_children
from multiprocessing.process import BaseProcess, current_process
from multiprocessing.util import Finalize
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from threading import current_thread, main_thread
from traceback import clear_frames
from typing import Any, Final

import torch
from torch.utils.data import DataLoader, get_worker_info

from dfeat.errors import UserError
from dfeat.progress import say
from dfeat.shortage import ENLARGE_SHM, ShortageError, lost_worker, shortage
from dfeat.training.checkpoint import ignore_sigterm
from dfeat.training.dataset import Batch, TrainingBatches

_FILES: Final = "batch-"
_NO_SEMAPHORES: Final = (errno.ENOSPC, errno.EROFS, errno.ENOENT, errno.EACCES, errno.ENOSYS)
"""Errors of a /dev/shm that is full, read-only, missing or closed to us; processes share locks through it too."""


@dataclass(frozen=True)
class _Raised:
    """What a worker raised in place of a batch."""

    error: UserError | ShortageError


@dataclass(frozen=True)
class _InFile:
    """A batch in a file, which whoever reads it removes. A pipe would not do: a worker that is killed amid the writing of
    some megabytes leaves the reader waiting for the rest."""

    path: str

    @classmethod
    def write(cls, batch: Batch, folder: str) -> _InFile:
        with NamedTemporaryFile(dir=folder, prefix=_FILES, delete=False) as file:
            arrays = [None if tensor is None else tensor.numpy() for tensor in vars(batch).values()]
            pickle.dump(arrays, file, protocol=pickle.HIGHEST_PROTOCOL)
        return cls(file.name)

    def read(self) -> Batch:
        path = Path(self.path)
        with path.open("rb") as file:
            arrays = pickle.load(file)
        path.unlink()
        return Batch(*(None if array is None else torch.from_numpy(array) for array in arrays))


@dataclass(frozen=True)
class _InWorker:
    """`batches`, as a worker hands them on; `folder` is where it may write."""

    batches: TrainingBatches
    folder: str

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, step: int) -> Batch | _InFile | _Raised:
        if get_worker_info() is None:
            return self.batches[step]
        try:
            batch = self.batches[step]
            try:
                return batch.shared()
            except RuntimeError as error:
                short = shortage(error, "a worker process")
                if short is None or not short.of_shared:
                    raise
                with suppress(OSError):  # no room there either
                    return _InFile.write(batch, self.folder)
                raise
        except Exception as error:
            failure = shortage(error, "a worker process") or error
            if not isinstance(failure, UserError | ShortageError):
                raise
            return _Raised(failure)


def prepared_batches(batches: TrainingBatches, start: int, workers: int, pin_memory: bool) -> Generator[Batch]:
    """Yield the batches from step `start` on; 0 workers: prepared here. Raises ShortageError where a worker was killed."""
    lacking = _lacking_for(workers) if workers else ""
    if lacking:
        say(f"no worker is started ({lacking}), so batches are prepared one by one; {ENLARGE_SHM}")
        workers = 0
    with _temporary_folder() as folder:
        loader: DataLoader[Batch | _InFile | _Raised] = DataLoader(
            _InWorker(batches, folder),  # type: ignore[arg-type]
            batch_size=None,
            sampler=range(start, len(batches)),
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=partial(_begin, folder, os.getpid()),
        )
        before, said = active_children(), False
        coming: Iterator[Batch | _InFile | _Raised] = iter(loader)
        started = [process for process in active_children() if process not in before]
        with _deaths_told_by_the_loader():
            try:
                for item in coming:
                    if isinstance(item, _InFile) and not said:
                        said = True
                        say(
                            f"shared memory ran out, so batches are handed on in files, which takes longer; {ENLARGE_SHM}"
                        )
                    yield _batch_of(item)
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


def _lacking_for(workers: int) -> str:
    """Why /dev/shm does not hold the locks that so many workers share, if it does not."""
    try:
        # Three to a queue and five to an event: torch's loader has a queue for each worker, one for all, and an event.
        _ = [Lock() for _ in range(3 * workers + 8)]
    except OSError as error:
        if error.errno in _NO_SEMAPHORES:
            return f"/dev/shm: {error.strerror}"
        raise
    return ""


def _batch_of(item: Batch | _InFile | _Raised) -> Batch:
    """The batch that a worker handed on; raises what it raised."""
    if isinstance(item, _Raised):
        raise item.error
    return item.read() if isinstance(item, _InFile) else item


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
def _temporary_folder() -> Iterator[str]:
    """A folder for what workers hand on: the sockets of shared memory, and files; removed after the block.

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
    """Remove what a training that was killed leaves: the batches in files, and the folder once it is empty.

    The sockets in it belong to the other workers, which remove their own when they end; the last to end finds it empty.
    """
    if not Path(f"/proc/{training}").exists():
        with suppress(OSError):
            for path in Path(folder).glob(f"{_FILES}*"):
                path.unlink(missing_ok=True)
            Path(folder).rmdir()
