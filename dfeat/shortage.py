"""Shortages of this machine: memory, processes, threads, open files, and workers that were killed for want of them.

What enters: any exception. What leaves: a `ShortageError` whose sentence has what ran out, how much was wanted where the
exception has it, and what to lower. A shortage is the fault of no file and no setting, so code that takes an exception for
a fault of its input calls `pass_on` first; else a picture that did not fit the memory would count as damaged.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from typing import Final


class ShortageError(Exception):
    """This machine ran short of something for now. The command line prints it as one line and exits 1.

    No UserError: where one is caught, its file is dropped or named as bad.
    """

    status = 1
    of_memory = False
    """Whether main memory ran out, so that a smaller job would do."""
    of_device = False
    """Whether the device's memory ran out, or perhaps did."""
    certain = True
    """False where the exception tells of other faults as well, for want of a text of its own."""


_MEMORY: Final = "run fewer jobs at once (snakemake --cores, --resources), or give each more memory (resources.mem_mb)"
_DEVICE: Final = "use precision bfloat16, a smaller batch size, or a device with more memory"
_RAN_OUT: Final = "the device's memory ran out"
_PERHAPS: Final = "cuDNN or cuBLAS could not start, most often because the device's memory ran out"
_SHARED: Final = "enlarge /dev/shm (docker run --shm-size) or lower resources.workers; 0 needs none of it"
_FILES: Final = "raise the limit (ulimit -n) or lower resources.workers"
_PROCESSES: Final = "raise the limit (ulimit -u) or lower resources.workers, resources.threads or snakemake --cores"
_WORKER: Final = f"memory may have run out: lower resources.workers, {_MEMORY}"

_LOST: Final = "a worker process ended before its work"

_ERRNOS: Final = {
    errno.ENOMEM: ("main memory ran out", _MEMORY),
    errno.EMFILE: ("this process has too many files open", _FILES),
    errno.ENFILE: ("this machine has too many files open", _FILES),
    errno.EAGAIN: ("no further process or thread can be started", _PROCESSES),
}
_TEXTS: Final = tuple(
    (re.compile(pattern), what, remedy)
    for pattern, what, remedy in (
        (r"worker \(pid.*(killed by signal: Bus error|shared memory)", "shared memory ran out", _SHARED),
        (r"shared memory(?s:.*)No space left|No space left(?s:.*)shared memory|/torch_\d+_.*No space left", "shared memory ran out", _SHARED),
        (r"worker \(pid.*\) (is killed by signal|exited unexpectedly)", _LOST, _WORKER),
        (r"(?i)too many open files|received \d+ items of ancdata", *_ERRNOS[errno.EMFILE]),
        (r"can't start new thread|Resource temporarily unavailable|pthread_create failed", *_ERRNOS[errno.EAGAIN]),
        (r"CUDNN_\w*HOST_ALLOCATION_FAILED", *_ERRNOS[errno.ENOMEM]),
        # In turn: torch's allocators, the runtime (a kernel that is loaded at its first launch, too), the driver, Triton and
        # NCCL; the driver's own name; a limit set to the process; NVIDIA's and AMD's libraries.
        (r"(?i:\b(CUDA|HIP)\b[^\n]{0,40}\bout of memory)|(CUDA|HIP)_ERROR_OUT_OF_MEMORY|hipErrorOutOfMemory|cudaErrorMemoryAllocation"
         r"|would exceed (allowed memory|per_process_memory_fraction)|\b(CU|HIP|ROC|MIOPEN)\w*_ALLOC(ATION)?_FAILED", _RAN_OUT, _DEVICE),
        (r"unable to find an engine to execute this computation|CU(BLAS|DNN)_STATUS_NOT_INITIALIZED", _PERHAPS, _DEVICE),
        (r"(?i)(can't|cannot|could not|unable to|failed to) (allocate|mmap|map segment)|out of memory|memory allocation failed|bad_?\s?alloc"
         r"|not enough memory|could not create a (primitive|memory object)$|Error -4 while", *_ERRNOS[errno.ENOMEM]),
    )
)  # fmt: skip
_OTHERS: Final = {"SafetensorError", "error"}
"""Exceptions of libraries, zlib's `error` for one, that are Exceptions alone."""
_UNSET: Final = re.compile(r"error return without exception set|returned NULL without setting an exception")
_COMPILING: Final = re.compile(r"^field '\w+' is required for \w+$|can't load unicodedata module")
"""What Python's compiler may raise of a module that has no bytecode yet, where it was given no memory."""
_DETAIL: Final = re.compile(
    r"[Uu]nable to allocate (?P<array>[\d.]+ \w+ for an array with shape \(.*?\) and data type \S+)"
    r"|tried to allocate (?P<bytes>\d+) bytes"
    r"|(?:Tried to allocate|Requested(?: size)? *:) *(?P<device>[\d.]+ (?:bytes|[KMGTP]iB))"
    r"|(?P<end>killed by signal: \w[\w ]*|with exit code \d+)"
)


def shortage(error: BaseException, at: str = "", device: str = _DEVICE) -> ShortageError | None:
    """The shortage that an exception, or one that it came from, tells of; None for any other.

    Its sentence begins with the file that the exception names, else with `at`; `device` is what to do where the device's
    memory ran out.
    """
    for cause in _causes(error):
        if isinstance(cause, ShortageError):
            return cause
        found = _kind(cause)
        if found is not None:
            what, remedy = found
            remedy = device if remedy is _DEVICE else remedy
            return _short(getattr(cause, "filename", None) or at, f"{what}{_detail(str(cause))}", remedy)
    return None


def pass_on(error: BaseException, at: str = "", device: str = _DEVICE) -> None:
    """Raise the shortage that an exception tells of (see `shortage`); return for any other."""
    short = shortage(error, at, device)
    if short is not None:
        raise short from error


def lost_worker(how: str = "") -> ShortageError:
    """The error for a process that ended before its work, killed for want of memory or by anyone."""
    if "Bus error" in how:  # memory that is shared, and is not there when it is written
        return _short("", f"shared memory ran out ({how})", _SHARED)
    return _short("", f"{_LOST}{f' ({how})' if how else ''}", _WORKER)


def _short(place: str, what: str, remedy: str) -> ShortageError:
    short = ShortageError(f"{f'{place}: ' if place else ''}{what}; {remedy}")
    short.of_memory = remedy in (_MEMORY, _WORKER)
    short.of_device, short.certain = what.startswith((_RAN_OUT, _PERHAPS)), not what.startswith(_PERHAPS)
    return short


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and those it came from, nearest first."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        yield cause
        cause = cause.__cause__ or cause.__context__


def _kind(error: BaseException) -> tuple[str, str] | None:
    """What ran out, and the remedy."""
    if isinstance(error, OSError) and error.errno is not None:
        return _ERRNOS.get(error.errno)  # its text has a path, which may be of any words
    if isinstance(error, BrokenExecutor):
        return _LOST, _WORKER
    if type(error).__name__ == "OutOfMemoryError":  # torch's, whatever its text
        return _RAN_OUT, _DEVICE
    if isinstance(error, OSError | RuntimeError | ImportError) or type(error).__name__ in _OTHERS:
        text = str(error)
        return next(((what, remedy) for pattern, what, remedy in _TEXTS if pattern.search(text)), None)
    unset = isinstance(error, SystemError) and _UNSET.search(str(error))  # C code that was given no memory
    unset = unset or (isinstance(error, ValueError | SyntaxError) and _COMPILING.search(str(error)))
    return _ERRNOS[errno.ENOMEM] if isinstance(error, MemoryError) or unset else None


def _detail(text: str) -> str:
    """How much was wanted, or how a worker ended, where the exception's text has it."""
    found = _DETAIL.search(text)
    if found is None:
        return ""
    if found["end"]:
        return f" ({found['end']})"
    return (
        f" ({int(found['bytes']):,} bytes wanted)"
        if found["bytes"]
        else f" ({found['array'] or found['device']} wanted)"
    )
