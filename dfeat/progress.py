"""Progress of long work: a bar with rate and time left on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from typing import Any


def progress(total: int, label: str) -> Any:
    """A tqdm bar to update by hand; silent when standard error is no terminal."""
    from tqdm import tqdm

    return tqdm(total=total, desc=label, unit="img", disable=not sys.stderr.isatty())


def say(line: str) -> None:
    """One line for the job's log."""
    print(f"dfeat: {line}", file=sys.stderr, flush=True)
