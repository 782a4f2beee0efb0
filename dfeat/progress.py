"""Progress of long work: a bar with rate and time left on a terminal, nothing elsewhere; and lines for the log.

Of the processes that train one model together only the first writes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dfeat.errors import UserError


def progress(total: int, label: str) -> Any:
    """A tqdm bar that the caller updates; disabled unless standard error is a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, desc=label, unit="img", disable=not shows_bars())


def shows_bars() -> bool:
    """Whether bars are drawn: on a terminal, by the first process."""
    return leads() and sys.stderr.isatty()


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


def say(line: str) -> None:
    """Write one line to the job's log (standard error)."""
    if leads():
        print(f"dfeat: {line}", file=sys.stderr, flush=True)


def leads() -> bool:
    """Whether this process is the only one or, of those started together, the first (LOCAL_RANK 0)."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def exit_on_user_error(command: Callable[[], object]) -> None:
    """Run a command; a UserError ends the process with one line and its status, an interrupt or lost pipe with 130."""
    try:
        command()
    except UserError as error:
        with suppress(OSError):  # the log may lie on the same full disk
            say(str(error))
        sys.exit(error.status)
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(130)
