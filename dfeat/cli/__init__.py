"""The command line: one verb a rule, arguments in, one call out. No logic lives here.

Exit status 0 on success, 2 on a user's mistake (one line: what, where, what to do), 1 on a fault of the machine (one
line as well: a full disk) or of the program. Every heavy import stays in the verb that needs it, so `dfeat --help` answers at once.
"""

from __future__ import annotations

import contextlib
import sys

from dfeat.cli import data, diffusion, models, report, tools  # noqa: F401  (each registers its verbs)
from dfeat.cli.common import app
from dfeat.errors import UserError
from dfeat.progress import say


def main() -> None:
    """Run the command line; what the user or the machine did wrong is one line on standard error."""
    try:
        app()
    except UserError as error:
        with contextlib.suppress(OSError):  # the log may lie on the same full disk
            say(str(error))
        sys.exit(error.status)
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(130)
