"""torch.compile on this machine: what it builds its code with, and that it chooses kernels alike each time.

What enters: the device type that is compiled for. What leaves: the settings of torch's compiler for a whole process, or the
sentence that says what the machine lacks. Inductor writes C++ for a CPU; Triton, for a GPU, builds its launchers in C.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path
from typing import Final

from dfeat.errors import MachineError

_COMPILERS: Final = {"cuda": ("CC", ("gcc", "clang")), "cpu": ("CXX", ("g++", "clang++"))}
"""The environment variable that names the compiler, and what is taken where it is not set."""


def prepare_to_compile(setting: str, device_type: str) -> None:
    """Have the compiler choose kernels by rules, not by timing them, which may choose others the next time.

    Raises MachineError, which names the `setting`, where the machine has nothing to compile with.
    """
    fault = compiler_fault(setting, device_type)
    if fault:
        raise MachineError(fault)
    import torch._inductor.config as compiler

    if hasattr(compiler, "deterministic"):  # since torch 2.9
        compiler.deterministic = True


def compiler_fault(setting: str, device_type: str) -> str | None:
    """What this machine lacks to compile for a "cuda" or "cpu" device; None if nothing, and for other devices."""
    if device_type not in _COMPILERS:
        return None
    variable, names = _COMPILERS[device_type]
    given = os.environ.get(variable)
    found = (
        shutil.which(given.split()[0])
        if given and given.strip()
        else next(filter(None, map(shutil.which, names)), None)
    )
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    remedy = f"or set {setting}: false"
    if found is None:
        looked = (
            f"{variable} is {given!r}"
            if given
            else f"neither {' nor '.join(names)} is on PATH, and {variable} is not set"
        )
        return f"{setting} wants a compiler on this machine, and {looked}; install one (Debian: apt-get install gcc g++), {remedy}"
    if not headers.is_file():
        return f"{setting} wants Python's headers, and {headers} is not there; install them (Debian: python3-dev), {remedy}"
    return None
