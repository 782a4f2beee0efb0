"""A worker that dies: the training hears of it where it waits for a batch, and nowhere else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import closing

import pytest

from dfeat.shortage import ShortageError
from dfeat.training.dataset import TrainingBatches
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
        workers = [process for process in multiprocessing.active_children() if process not in before]
        assert len(workers) == 2 and workers[0].pid is not None
        os.kill(workers[0].pid, death)
        until = time.monotonic() + 30
        while workers[0].is_alive():  # a handler of SIGCHLD that raises would do so here
            assert time.monotonic() < until
            time.sleep(0.01)
        with pytest.raises(ShortageError, match=said):
            for _ in coming:
                pass
    assert not [process for process in multiprocessing.active_children() if process in workers]
