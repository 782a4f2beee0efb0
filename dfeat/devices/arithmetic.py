"""How a GPU multiplies float32 numbers: exactly, or with factors rounded to TF32.

What enters: a precision by its name in the settings. What leaves: torch's flags for matrix products and for convolutions,
set alike. torch's own defaults allow TF32 in convolutions alone. On a CPU they change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


def set_arithmetic(precision: str) -> None:
    """Allow TF32 in products of float32 numbers if `precision` is "tf32", and forbid it otherwise."""
    allowed = precision == "tf32"
    # torch has two interfaces. The older one, which torch.compile reads, raises if the newer one alone was set; the newer
    # one else inherits what a program set for all of torch.
    for backend in _backends():
        backend.allow_tf32 = allowed
    for operator in _operators():
        operator.fp32_precision = "tf32" if allowed else "ieee"


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Compute with `set_arithmetic(precision)` inside, and as before outside, where other code may have its own."""
    before: list[tuple[Any, str, Any]] = []
    for backend in _backends():
        with suppress(RuntimeError):  # not readable where a program set the newer interface alone
            before.append((backend, "allow_tf32", backend.allow_tf32))
    before += [(operator, "fp32_precision", operator.fp32_precision) for operator in _operators()]
    set_arithmetic(precision)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def _backends() -> tuple[Any, ...]:
    import torch

    return torch.backends.cuda.matmul, torch.backends.cudnn


def _operators() -> list[Any]:
    """What has `fp32_precision` of its own; torch 2.8 has none."""
    import torch

    cudnn = torch.backends.cudnn
    found = (torch.backends.cuda.matmul, getattr(cudnn, "conv", None), getattr(cudnn, "rnn", None))
    return [operator for operator in found if operator is not None] if hasattr(cudnn, "fp32_precision") else []
