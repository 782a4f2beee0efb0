"""Workers: one that dies is told of where its batch is awaited, and nowhere else; a small /dev/shm stops no training."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch

from dfeat.shortage import ShortageError
from dfeat.training import workers
from dfeat.training.dataset import Batch, TrainingBatches
from dfeat.training.settings import TrainingSettings
from dfeat.training.sources import Inputs, read_sources
from dfeat.training.workers import prepared_batches
from tests.conftest import World


@pytest.mark.parametrize(
    ("death", "said"),
    [
        (signal.SIGKILL, r"ended before its work \(killed by signal: Killed\); memory may have run out"),
        (signal.SIGBUS, r"shared memory ran out \(killed by signal: Bus error\); enlarge /dev/shm"),
        (signal.SIGSEGV, r"ended before its work \(killed by signal: Segmentation fault\)"),
    ],
)  # fmt: skip
def test_a_death_is_told_where_a_batch_is_awaited_and_breaks_in_nowhere_else(
    world: World, death: signal.Signals, said: str
) -> None:
    settings = TrainingSettings(batch_size=2, image_size=64, epochs=5)
    inputs = Inputs(world.train, world.train / "pixels.h5", world.parts)
    batches = TrainingBatches("none", read_sources("none", inputs, settings), settings, 0, 0)
    before = multiprocessing.active_children()
    with closing(prepared_batches(batches, 0, workers=2, pin_memory=False)) as coming:
        next(coming)
        started = [process for process in multiprocessing.active_children() if process not in before]
        assert len(started) == 2 and started[0].pid is not None
        os.kill(started[0].pid, death)
        until = time.monotonic() + 30
        while started[0].is_alive():  # a handler of SIGCHLD that raises would do so here
            assert time.monotonic() < until
            time.sleep(0.01)
        with pytest.raises(ShortageError, match=said):
            for _ in coming:
                pass
    assert not [process for process in multiprocessing.active_children() if process in started]


def batches_of(world: World) -> TrainingBatches:
    settings = TrainingSettings(batch_size=16, image_size=64, epochs=1)
    inputs = Inputs(world.train, world.train / "pixels.h5", world.parts)
    return TrainingBatches("replace", read_sources("replace", inputs, settings), settings, 0, 0)


def same(one: Batch, other: Batch) -> bool:
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return all(a is b is None or torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("room", ["nothing", "images"])
def test_what_shared_memory_does_not_hold_is_handed_on_in_files(
    room: str, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Workers are forked, so they have the memory of this process, which is full."""
    share = torch.Tensor.share_memory_

    def full(tensor: torch.Tensor) -> torch.Tensor:
        if room == "images" and tensor.ndim == 4:
            return share(tensor)
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_7_1>: No space left on device (28)")

    batches = batches_of(world)
    wanted = list(prepared_batches(batches, 1, workers=0, pin_memory=False))
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    coming = prepared_batches(batches, 1, workers=2, pin_memory=False)
    got = [next(coming)]
    until = time.monotonic() + 30
    while not (files := [path for path in tmp_path.rglob("*") if path.is_file()]) and time.monotonic() < until:
        time.sleep(0.01)  # the other worker is not there yet
    assert 0 < len(files) <= 4
    got += coming
    assert len(got) == len(wanted) > 2 and all(same(one, other) for one, other in zip(got, wanted, strict=True))
    assert got[0].masks is not None
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().err.count("shared memory ran out, so batches are handed on in files") == 1


def test_where_there_is_no_room_in_files_either_it_ends_with_a_sentence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensor: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_7_1>: No space left on device (28)")

    def no_file(batch: Batch, folder: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    monkeypatch.setattr(workers._InFile, "write", no_file)
    before = multiprocessing.active_children()
    with pytest.raises(ShortageError, match="shared memory ran out; enlarge /dev/shm") as error:
        list(prepared_batches(batches_of(world), 0, workers=2, pin_memory=False))
    assert multiprocessing.active_children() == before, error  # whose frames would hold the workers


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ENOENT])
def test_where_workers_cannot_share_locks_batches_are_prepared_here(
    number: int, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lock() -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(workers, "Lock", lock)
    before = multiprocessing.active_children()
    coming = prepared_batches(batches_of(world), 0, workers=2, pin_memory=False)
    next(coming)
    assert multiprocessing.active_children() == before
    assert f"no worker is started (/dev/shm: {os.strerror(number)})" in capsys.readouterr().err
