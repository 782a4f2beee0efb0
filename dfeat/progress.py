"""Progress of long work: a bar with rate and time left on a terminal, nothing elsewhere; and lines for the log.

Of the processes that train one model together only the first speaks.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def progress(total: int, label: str) -> Any:
    """A tqdm bar to update by hand; silent when standard error is no terminal."""
    from tqdm import tqdm

    return tqdm(total=total, desc=label, unit="img", disable=not (leads() and sys.stderr.isatty()))


def say(line: str) -> None:
    """One line for the job's log."""
    if leads():
        print(f"dfeat: {line}", file=sys.stderr, flush=True)


def leads() -> bool:
    """Whether this process is the first of those that were started together, or alone."""
    return os.environ.get("LOCAL_RANK", "0") == "0"
