"""Out of memory is one line and status 1, and so is a lost worker; nothing half-written stays, and then it goes on."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dfeat.data.sources import Source
from dfeat.errors import UserError
from dfeat.shortage import ShortageError, pass_on, shortage
from tests.conftest import World
from tests.workflow.test_snakemake import ROOT

from .conftest import Tried
from .jobs import Job, artifacts

VERBS = ("index", "parts", "pixels", "latents", "features", "inpaint", "train", "evaluate", "judge", "table", "efficiency",
         "figure", "gallery", "ablation", "report", "schema", "demo-model", "demo-data", "verify", "plan", "doctor")  # fmt: skip
FAST = ("index", "train", "figure")
"""Verbs that are given the lowest limits alone."""
LIMITS = (2, 8, 32, 128)
"""MB of address space that a verb may take beyond what the imported libraries have."""
FRUGAL = {"parts", "table", "ablation", "schema", "verify", "plan"}
"""Verbs that do with less, on data as small as these."""
PARTLY_WRITTEN = {"demo-model": ("training.jsonl",), "demo-data": ("PartImageNet/", "imagenet/", "dfeat_real/")}
"""Files and folders of a verb that writes each file when it is ready."""
NATIVE = (-6, -11)
"""How libraries of C and C++ may end a process where almost nothing is left; no sentence can be had then."""


def said_in_one_line(log: Path, what: str) -> bool:
    said = log.read_text().splitlines()
    return said[-1].startswith("dfeat: ") and what in said[-1] and not any("Traceback" in line for line in said)


def ended_by_python(log: Path) -> bool:
    """Whether multiprocessing, which started the verb here, had no memory for its own last lines: no frame is of this project."""
    said = log.read_text()
    return "MemoryError" in said and "multiprocessing" in said and "/dfeat/" not in said


@pytest.mark.parametrize(
    "name", ["index", *(pytest.param(name, marks=pytest.mark.slow) for name in VERBS if name != "index")]
)
def test_a_verb_short_of_memory_says_so_and_leaves_nothing(
    name: str, jobs: dict[str, Job], world: World, tmp_path: Path, tried: Tried
) -> None:
    beside = {
        "verify": Job("verify", ("verify", str(world.root))),
        "plan": Job("plan", ("plan", "--config", str(ROOT / "config.yaml"))),
        "doctor": Job("doctor", ("doctor", "--settings", world.settings.model_dump_json())),
    }
    job, log, out = (jobs | beside)[name], tmp_path / "log", tmp_path / "out"
    usual = job.run(tmp_path / "whole", log)
    whole, short = artifacts(tmp_path / "whole"), 0
    for limit in LIMITS[:2] if name in FAST else LIMITS:
        if name == "verify" and limit == LIMITS[0]:
            continue  # HDF5 itself may end with SIGSEGV where so little is left
        status = job.run(out, log, limit << 20)
        if status == usual:
            continue
        short += 1
        if not (status in NATIVE or ended_by_python(log)) or limit == LIMITS[-1]:
            assert status == 1, log.read_text()
            assert said_in_one_line(log, "main memory ran out"), log.read_text()
        assert all(made.startswith(PARTLY_WRITTEN.get(name, ())) for made in artifacts(out))
        assert not list(out.rglob("*.tmp.*"))
    assert short or name in FRUGAL, "no limit was too low"
    tried("no memory, then memory again", short, "one line, status 1; then as undisturbed")
    assert job.run(out, log) == usual, log.read_text()
    assert artifacts(out) == whole


def test_no_picture_is_dropped_because_memory_was_short(world: World, tmp_path: Path, tried: Tried) -> None:
    """A picture that has to be decoded to be indexed does not fit the memory: the index is not made without it."""
    wnid = json.loads((world.train / "classes.json").read_text())[0]["wnid"]
    (tmp_path / "set" / wnid).mkdir(parents=True)
    Image.new("P", (6000, 6000), 3).save(tmp_path / "set" / wnid / "large.png")
    settings = json.dumps({"kind": "folder", "root": str(tmp_path / "set")})
    classes = str(world.train / "classes.json")
    job = Job("index", ("index", "large", "--settings", settings, "--classes", classes, "--out", "{out}"))
    assert job.run(tmp_path / "out", tmp_path / "log", 48 << 20) == 1
    assert said_in_one_line(tmp_path / "log", "large.png: main memory ran out"), (tmp_path / "log").read_text()
    assert artifacts(tmp_path / "out") == {}
    assert job.run(tmp_path / "out", tmp_path / "log") == 0
    assert "large,0," in (tmp_path / "out/index.csv").read_text().replace(f"{wnid}/large.png,", "")
    tried("no memory for a picture", 1, "no index without it")


def test_no_folder_is_skipped_because_too_many_files_are_open(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").write_bytes(b"")
    code = (
        "import resource, sys; from pathlib import Path; from dfeat.data.sources import Source\n"
        "source = Source(Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "try: print(source.names())\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    printed = subprocess.run([sys.executable, "-c", code, tmp_path / "set"], capture_output=True, text=True, cwd=ROOT)
    assert "ShortageError" in printed.stdout and "too many files open" in printed.stdout, printed
    assert Source(tmp_path / "set").names() == ["a.png"]


def raised(do: Callable[[], object]) -> Exception:
    try:
        do()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


KINDS: Sequence[tuple[Exception, str]] = (
    (raised(lambda: np.empty(10**14)), "main memory ran out (728. TiB for an array with shape (100000000000000,)"),
    (raised(lambda: torch.empty(10**15)), "main memory ran out (4,000,000,000,000,000 bytes wanted)"),
    (MemoryError(), "main memory ran out; "),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), "main memory ran out; "),
    (OSError("out of memory when reading image file"), "main memory ran out; "),
    (ImportError("lib.so: failed to map segment from shared object"), "main memory ran out; "),
    (RuntimeError("Can't synchronously read data (memory allocation failed for 9 bytes)"), "main memory ran out"),
    (RuntimeError("could not create a primitive"), "main memory ran out"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has"), "device's memory ran out (20.00 GiB"),
    (torch.OutOfMemoryError(), "the device's memory ran out; "),
    *((RuntimeError(text), said) for text, said in {
        "CUDA out of memory. Tried to allocate more than 1EB memory.": "the device's memory ran out; ",
        "CUDA out of memory. Allocation was preemptively rejected because it would exceed per_process_memory_fraction limit. Requested size: 512.00 MiB": "the device's memory ran out (512.00 MiB wanted); ",
        "Allocation on device 0 would exceed allowed memory. (out of memory)\nCurrently allocated     : 22.43 GiB\nRequested               : 4.07 GiB\nDevice limit": "the device's memory ran out (4.07 GiB wanted); ",
        "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in https://docs.nvidia.com/cuda/": "the device's memory ran out; ",
        "CUDA driver error: out of memory": "the device's memory ran out; ",
        "cuda runtime error (2) : out of memory at /tmp/THCStorage.cu:65": "the device's memory ran out; ",
        "CUDA ran out of memory outside PyTorch's allocator. If this workload uses many dynamic shapes, cuDNN may need": "the device's memory ran out; ",
        "Triton Error [CUDA]: out of memory": "the device's memory ran out; ",
        "backend='inductor' raised:\nRuntimeError: Triton Error [CUDA]: out of memory\n\nSet TORCHDYNAMO_VERBOSE=1": "the device's memory ran out; ",
        "NCCL error in: ProcessGroupNCCL.cpp:94, unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'": "the device's memory ran out; ",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`": "the device's memory ran out; ",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED": "the device's memory ran out; ",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED": "the device's memory ran out; ",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED": "main memory ran out; ",
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling": "the device's memory ran out; ",
        "cuFFT error: CUFFT_ALLOC_FAILED": "the device's memory ran out; ",
        "HIP out of memory. Tried to allocate 2.00 GiB. GPU 0": "the device's memory ran out (2.00 GiB wanted); ",
        "CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling": "the device's memory ran out; ",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`": "most often because the device's memory ran out; ",
        "GET was unable to find an engine to execute this computation": "most often because the device's memory ran out; ",
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000 bytes.": "main memory ran out (4,000 bytes wanted); ",
    }.items()),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "ended before its work (killed by signal: Killed)"),
    (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "a worker process ended before its work"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that"), "shared memory ran out"),
    (RuntimeError("unable to allocate shared memory(shm) for file </torch_7_1>: No space left on device (28)"), "shared memory"),
    (BrokenProcessPool("A process in the process pool was terminated abruptly"), "a worker process ended before its work"),
    (RuntimeError("can't start new thread"), "no further process or thread"),
    (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "no further process or thread"),
    (OSError(errno.EMFILE, "Too many open files", "/a/b.h5"), "/a/b.h5: this process has too many files open"),
    (RuntimeError("received 0 items of ancdata"), "too many files open"),
    (ValueError("field 'target' is required for AnnAssign"), "main memory ran out; "),
    (SyntaxError("(unicode error) \\N escapes not supported (can't load unicodedata module)"), "main memory ran out; "),
)  # fmt: skip


@pytest.mark.parametrize(("error", "said"), KINDS, ids=lambda value: type(value).__name__)
def test_every_kind_of_shortage_is_told_with_what_was_wanted_and_a_remedy(error: Exception, said: str) -> None:
    found = shortage(error)
    assert found is not None and said in str(found) and "; " in str(found), found
    with pytest.raises(ShortageError):
        try:
            raise UserError("it is damaged; get it again") from None
        except UserError as blamed:
            blamed.__context__ = error
            pass_on(blamed)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("out of memory"), SyntaxError("expected ':'"), ValueError("field 'x' is required"), AssertionError("cannot allocate"), RuntimeError("shapes do not match"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "out of memory.jpg"),
        RuntimeError("out of resource: shared memory, Required: 163840, Hardware limit: 101376. Reducing block sizes may help."),
        RuntimeError("CUDA error: an illegal memory access was encountered"), RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"),
        RuntimeError("could not create a primitive descriptor for a convolution"), OSError(errno.ENOSPC, "No space left"),
    ],
)  # fmt: skip
def test_other_faults_are_no_shortage(error: Exception) -> None:
    assert shortage(error) is None


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def test_a_training_whose_worker_is_killed_says_so_and_goes_on(
    jobs: dict[str, Job], undisturbed: Callable[[str], Path], tmp_path: Path, tried: Tried
) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    job = Job("train", (*jobs["train"].arguments, "--workers", "2"))
    kills = 0
    for number in range(3):
        process = job.start(out, log)
        while process.exitcode is None and len(workers := children(process.pid)) < 2:  # one alone may be nvidia-smi
            time.sleep(0.001)
        if process.exitcode is None:
            os.kill(workers[number % 2], signal.SIGKILL)
        process.join(120)
        if process.exitcode:
            kills += 1
            assert process.exitcode == 1, log.read_text()
            assert said_in_one_line(log, "a worker process ended before its work"), log.read_text()
            assert artifacts(out).keys() <= {"checkpoint.safetensors"}
            assert not list(out.rglob("*.tmp.*"))
    assert kills
    tried("SIGKILL of a worker, then the same command", kills, "one line, status 1; then as undisturbed")
    assert job.run(out, log) == 0, log.read_text()
    assert artifacts(out) == artifacts(undisturbed("train"))


@pytest.mark.slow
@pytest.mark.parametrize(("size", "said"), [("64k", "handed on in files"), ("8k", "prepared one by one")])
def test_a_training_goes_on_with_a_small_shared_memory(
    size: str,
    said: str,
    jobs: dict[str, Job],
    undisturbed: Callable[[str], dict[str, bytes]],
    tmp_path: Path,
    tried: Tried,
) -> None:
    """Torch itself would wait for ever: it moves batches in a thread of the worker whose error nobody hears."""
    words = [word.replace("{out}", str(tmp_path / "out")) for word in jobs["train"].arguments]
    small = f"mount -t tmpfs -o size={size} none /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", small], capture_output=True).returncode:
        pytest.skip("a small /dev/shm cannot be mounted here, which wants root")
    command = ["unshare", "-m", "sh", "-c", f'{small} && exec "$@"', "sh", sys.executable, "-m", "dfeat.cli", *words]
    done = subprocess.run([*command, "--workers", "2"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert said in done.stderr and "enlarge /dev/shm" in done.stderr
    assert artifacts(tmp_path / "out") == artifacts(undisturbed("train"))
    tried("a small /dev/shm", 1, "one line; then as undisturbed")
