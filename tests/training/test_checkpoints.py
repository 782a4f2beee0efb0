"""A checkpoint is the training as it was when it was begun, whatever the steps change while it is written."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest
import torch

from dfeat.training import checkpoint
from dfeat.training.checkpoint import Checkpoints, State, resume


def trained(steps: int) -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
    """A model and its optimiser after some steps."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    for _ in range(steps):
        step(model, optimizer)
    return model, optimizer


def step(model: torch.nn.Linear, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(1, 3)).square().sum().backward()
    optimizer.step()


def test_steps_taken_while_a_checkpoint_is_written_are_not_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = trained(2)
    state, goes_on, write = State(step=2, losses=[1.0, 0.5]), threading.Event(), checkpoint.write_bytes
    monkeypatch.setattr(checkpoint, "write_bytes", lambda *given: goes_on.wait(60) and write(*given))
    with Checkpoints(tmp_path, "this one", model, optimizer, 10) as checkpoints:
        checkpoints.begin(state)
        step(model, optimizer)
        state.step, state.losses = 3, []
        goes_on.set()
        checkpoints.finish()
    again, momenta = trained(1)
    assert vars(resume(tmp_path, "this one", again, momenta)) == vars(State(step=2, losses=[1.0, 0.5]))
    step(again, momenta)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_one_is_due_when_its_minutes_are_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = trained(1)
    with (
        Checkpoints(tmp_path, "", model, optimizer, 10) as every_ten,
        Checkpoints(tmp_path, "", model, optimizer, 0) as every_step,
        Checkpoints(tmp_path, "", model, optimizer, 0, writes=False) as follower,
    ):
        assert [one.due() for one in (every_ten, every_step, follower)] == [False, True, False]
        now = checkpoint.time.monotonic()
        monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now + 601)
        assert every_ten.due()
        every_ten.begin(State())
        assert not every_ten.due()
        follower.begin(State())
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["checkpoint.safetensors"]


def test_an_error_of_the_writing_reaches_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "checkpoint.safetensors")

    monkeypatch.setattr(checkpoint, "write_bytes", full)
    model, optimizer = trained(1)
    with Checkpoints(tmp_path, "", model, optimizer, 0) as checkpoints:
        checkpoints.begin(State())
        with pytest.raises(OSError, match="No space left"):
            while True:
                checkpoints.due()
        checkpoints.begin(State())
        with pytest.raises(OSError, match="No space left"):
            checkpoints.begin(State())
