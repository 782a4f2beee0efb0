"""Errors that are shown to the user as one sentence: the key or file, the value found, what is allowed, the remedy."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from typing import Final


class UserError(Exception):
    """A user's mistake or a user's broken input. The command line prints it as one line and exits 2."""

    status = 2


class MachineError(UserError):
    """The machine failed, not the user: a full disk, a device error. Printed as one line too; exits 1."""

    status = 1


MACHINE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EFBIG}
"""Errors of the machine rather than of the user, who is told of them by a MachineError."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the allowed word nearest to `word`, or nothing where none is near."""
    matches = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""
