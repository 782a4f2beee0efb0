"""The memory that a job took of its devices is a line of its log."""

from __future__ import annotations

import pytest
import torch

from dfeat.devices import memory
from dfeat.report.tables.measured import MEMORY


def test_the_most_of_any_device_is_told_in_the_form_that_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reserved = [1_500_000_000, 4_000_000]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(reserved))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", reserved.__getitem__)
    memory._tell()
    printed = capsys.readouterr()
    assert MEMORY.findall(printed.out + printed.err) == ["1500"]


def test_a_job_on_the_cpu_tells_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    memory._tell()
    printed = capsys.readouterr()
    assert printed.out + printed.err == ""
