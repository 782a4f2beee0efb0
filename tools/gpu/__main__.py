"""`python -m tools.gpu`, or `make gpu`: machine, tests and benchmark one after another, within one time limit.

Each part is a process of its own with its own limit; one that fails, hangs or is ended leaves what it had written, and
the next begins. The summary is written anew every few seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tools.gpu import wheels
from tools.gpu.summary import Part, found, write

ROOT: Final = Path(__file__).resolve().parents[2]
SECONDS: Final = 540
MACHINE, TESTS = 1 / 9, 1 / 3
"""Shares of the time that these parts may take at most; what they leave is the benchmark's."""
ENDING: Final = 12
"""Seconds kept for ending processes and for the summary."""
EVERY: Final = 5.0
"""Seconds between two writings of the summary."""


def main(seconds: float, out: Path, dry: bool, workers: int) -> int:
    """Run all parts; returns 0 if all of them ended well."""
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="dfeat-gpu-") as folder:
        work = Path(folder)
        environment = environment_for(work, dry)
        parts = [Part("machine"), Part("tests"), Part("bench")]

        def left() -> float:
            return seconds - ENDING - (time.monotonic() - started)

        def run(number: int, command: Sequence[str], limit: float) -> None:
            _run(parts, number, [sys.executable, *command], min(limit, left()), work, out, environment)

        try:
            run(0, ["-m", "tools.gpu.machine"], MACHINE * seconds)
            if not dry and not (found(parts, work)["machine"] or {}).get("card"):
                print(write(parts, work, out))
                print(
                    "make gpu: torch finds no CUDA device here; to try the command itself: make gpu GPU_OPTIONS=--dry"
                )
                return 2
            run(1, ["-m", "pytest", *_pytest(work)], TESTS * seconds)
            options = ["--seconds", str(max(1, round(left() - 20))), "--workers", str(workers), *["--dry"] * dry]
            run(2, ["-m", "bench", "gpu", "--out", str(work / "bench.json"), *options], seconds)
        finally:
            print(write(parts, work, out))
        print(f"make gpu: {out}/summary.txt, summary.json and logs.txt, after {time.monotonic() - started:.0f} s")
        return 0 if all(part.ended == "done" for part in parts) else 1


def environment_for(work: Path, dry: bool) -> dict[str, str]:
    """The environment of all parts: no network, a device for the tests, and the packed wheels where they are needed.

    Exits with a sentence where packages are missing and none are packed.
    """
    site, path = work / "site", [str(ROOT)]
    missing = wheels.lacking()
    if missing:
        carried = wheels.unpack(ROOT / wheels.FOLDER, site)
        if not carried:
            sys.exit(
                f"make gpu: {sys.executable} has no {', '.join(missing)}. With a network, `make .venv/ready` installs all; "
                "without one, run `make gpu-pack` where there is one and copy .wheels here, beside the Makefile"
            )
        print(f"make gpu: {', '.join(missing)} missing here; taken from .wheels: {', '.join(carried)}")
        path.insert(0, str(site))
    others = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    taken = ("DFEAT_DEVICES", "DFEAT_SLOTS", "LOCAL_RANK")
    return {name: value for name, value in os.environ.items() if name not in taken} | {
        "PYTHONPATH": os.pathsep.join([*path, *others]),
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "300",  # for the reasons in pytest's list of failures
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor"),
        "DFEAT_LEASES": str(work / "leases") if dry else os.environ.get("DFEAT_LEASES", ""),
        "DFEAT_TEST_DEVICE": "cpu" if dry else "cuda",
    }


def _pytest(work: Path) -> list[str]:
    # -o: the project's own options leave the marked tests out.
    options = ["-v", "-m", "gpu", "-o", "addopts=--strict-markers", "-p", "no:cacheprovider", "--tb=short", "-rfE"]
    return [*options, f"--basetemp={work / 'pytest'}", "tests/gpu"]


def _run(
    parts: Sequence[Part], number: int, command: Sequence[str], limit: float, work: Path, out: Path,
    environment: Mapping[str, str],
) -> None:  # fmt: skip
    """Run a part until it ends or its limit is reached; its output lies in `work` as NAME.out and NAME.err."""
    part, started = parts[number], time.monotonic()
    if limit < 1:
        part.ended = "not begun: no time left"
        return
    part.ended = "under way"
    print(f"make gpu: {part.name}, up to {limit:.0f} s", flush=True)
    with (work / f"{part.name}.out").open("w") as said, (work / f"{part.name}.err").open("w") as logged:
        process = subprocess.Popen(
            command, cwd=ROOT, env=dict(environment), stdout=said, stderr=logged, start_new_session=True
        )
        try:
            while process.poll() is None and (passed := time.monotonic() - started) < limit:
                part.seconds = passed
                write(parts, work, out)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(min(EVERY, limit - passed))
            part.ended = {None: f"stopped at its limit of {limit:.0f} s", 0: "done"}.get(
                process.returncode, f"failed with status {process.returncode}"
            )
        finally:
            _end(process)
            part.seconds = time.monotonic() - started


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit of all parts together")
    parser.add_argument("--out", type=Path, default=Path("results/make-gpu"), help="folder of the summary")
    parser.add_argument("--dry", action="store_true", help="on the CPU with tiny networks; the figures mean nothing")
    parser.add_argument(
        "--workers", type=int, default=max(1, min(8, (os.cpu_count() or 2) - 1)), help="of the benchmark"
    )
    given = parser.parse_args()
    sys.exit(main(given.seconds, given.out, given.dry, given.workers))
