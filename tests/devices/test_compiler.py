"""A machine with nothing to compile with says what it lacks before anything is computed."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
import torch

from dfeat.config import Settings
from dfeat.devices.compiler import compiler_fault, prepare_to_compile
from dfeat.doctor.machine import compiler_faults
from dfeat.errors import MachineError
from dfeat.section import parse

PLACES = [("cuda", "CC", "gcc"), ("cpu", "CXX", "g++")]


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, on a machine that has Python's headers and names no compiler."""
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    for _, variable, _ in PLACES:
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def program(path: Path) -> None:
    path.touch()
    path.chmod(0o755)


@pytest.mark.parametrize(("device", "variable", "name"), PLACES)
def test_what_is_lacking_is_named_with_the_setting_and_the_remedy(
    tools: Path, monkeypatch: pytest.MonkeyPatch, device: str, variable: str, name: str
) -> None:
    fault = compiler_fault("training.compile", device)
    assert fault is not None and name in fault and variable in fault and "training.compile: false" in fault
    with pytest.raises(MachineError, match="wants a compiler"):
        prepare_to_compile("training.compile", device)
    monkeypatch.setenv(variable, "/nowhere/icc -O2")
    assert "/nowhere/icc" in str(compiler_fault("training.compile", device))
    program(tools / "icc")
    monkeypatch.setenv(variable, f"{tools}/icc -O2")
    assert compiler_fault("training.compile", device) is None
    monkeypatch.delenv(variable)
    program(tools / name)
    assert compiler_fault("training.compile", device) is None
    (tools / "Python.h").unlink()
    assert "python3-dev" in str(compiler_fault("diffusion.compile", device))


def test_other_devices_are_not_judged(tools: Path) -> None:
    assert compiler_fault("training.compile", "meta") is None


def test_doctor_names_each_setting_that_cannot_be_had_where_there_is_a_gpu(tools: Path) -> None:
    wanted = parse(Settings, {"training": {"compile": True}, "diffusion": {"compile": True}})
    assert [fault.split()[0] for fault in compiler_faults(wanted, ["H100"])] == [
        "diffusion.compile",
        "training.compile",
    ]
    assert compiler_faults(wanted, []) == compiler_faults(Settings(), ["H100"]) == []


def test_kernels_are_chosen_alike_each_time(tools: Path) -> None:
    import torch._inductor.config as compiler

    program(tools / "g++")
    prepare_to_compile("training.compile", torch.device("cpu").type)
    assert getattr(compiler, "deterministic", True)
