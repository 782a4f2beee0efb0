"""Progress of long work: a bar with rate and time left on a terminal or in a notebook, nothing elsewhere; and log lines.

Of the processes that train one model together only the first writes.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from traceback import clear_frames, print_exc
from typing import Any, Final

from dfeat.errors import UserError
from dfeat.shortage import ShortageError, shortage

_FINAL: Final = "the job is not tried again, since it would end so again:"
"""The line before the last of a job's log where the user or the program is at fault."""
_OF_THE_PROGRAM: Final = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NameError, NotImplementedError, TypeError, ValueError,
)  # fmt: skip
"""Exceptions that tell of a fault in code, a method of your own for example, and not of the machine it runs on."""
_TAIL: Final = 64 * 1024
"""Bytes of a log in which its last two lines are looked for."""


def progress(total: int, label: str, delay: float = 0) -> Any:
    """A tqdm bar that the caller updates, drawn after `delay` seconds; disabled unless `shows_bars`."""
    from tqdm import tqdm

    return tqdm(total=total, desc=label, unit="img", disable=not shows_bars(), delay=delay)


def shows_bars() -> bool:
    """Whether bars are drawn: on a terminal or in a notebook's kernel, by the first process."""
    return leads() and (sys.stderr.isatty() or "ipykernel" in sys.modules)


@contextmanager
def bars_of_libraries() -> Iterator[None]:
    """Disable the bars of transformers and diffusers inside the block unless `shows_bars`; restore them afterwards."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    shown = [log for log in (of_transformers, of_diffusers) if log.is_progress_bar_enabled() and not shows_bars()]
    for log in shown:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in shown:
            log.enable_progress_bar()


def say(line: str, always: bool = False) -> None:
    """Write one line to the job's log (standard error); `always`: where another process of a team meets it alone, too."""
    if always or leads():
        print(f"dfeat: {line}", file=sys.stderr, flush=True)


def ended_for_good(log: Path) -> bool:
    """Whether a job's log ends with a fault of the user or the program, which another attempt would only meet again."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return False
    return len(lines) > 1 and lines[-2] == f"dfeat: {_FINAL}"


def _is_logged() -> bool:
    """Whether standard error goes to a file, as that of a job does."""
    try:
        return stat.S_ISREG(os.fstat(sys.stderr.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):
        return False


def duration(seconds: float) -> str:
    """A time for people, in its two largest units: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    minutes, hours, days = round(seconds / 60), round(seconds / 3600), round(seconds / 86400)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h" if days < 100 else f"{days} d"


def leads() -> bool:
    """Whether this process is the only one or, of those started together, the first (LOCAL_RANK 0)."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


_RESERVE: Final = 1 << 20
"""Bytes that are kept for the line that says what ran out: what Python takes from the system at once."""


def exit_on_user_error(command: Callable[[], object], lower: Mapping[str, str] = {}) -> None:
    """Run a command; a UserError or a shortage ends the process with one line and its status, an interrupt with 130.

    A fault of the program leaves its traceback, and ends with 1. `lower` has for a verb what makes it take less memory.
    """
    reserve = None
    try:
        reserve = bytearray(_RESERVE)
        command()
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        reserve = None  # noqa: F841  (given back, so that there is memory for the line)
        if isinstance(error, MemoryError):
            clear_frames(error.__traceback__)  # what they hold may be the last of the memory
        verb = next((word for word in sys.argv[1:] if not word.startswith("-")), "dfeat")
        failure = shortage(error, verb) or error
        if not isinstance(failure, UserError | ShortageError):
            if isinstance(failure, _OF_THE_PROGRAM) and _is_logged():
                print_exc()
                say(_FINAL)
                say(f"{type(failure).__name__}: {' '.join(str(failure).split())}")
                sys.exit(1)
            raise
        less = lower.get(verb, "") if isinstance(failure, ShortageError) and failure.of_memory else ""
        with suppress(OSError):  # the log may lie on the same full disk
            if failure.status == UserError.status and _is_logged():
                say(_FINAL)
            say(f"{failure}{', or ' if less else ''}{less}", always=isinstance(failure, ShortageError))
        sys.exit(failure.status)
