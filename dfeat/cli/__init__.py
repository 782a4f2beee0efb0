"""The command line: one verb a rule, arguments in, one call out. No logic lives here.

Exit status 0 on success, 2 on a user's mistake (one line: what, where, what to do), 1 on the program's own
fault. Every heavy import stays in the verb that needs it, so `dfeat --help` answers at once.
"""

from __future__ import annotations

import sys

import typer

from dfeat.cli import data, diffusion, models, report, tools  # noqa: F401  (each registers its verbs)
from dfeat.cli.common import app
from dfeat.errors import UserError


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 2."""
    try:
        app()
    except UserError as error:
        typer.echo(f"dfeat: {error}", err=True)
        sys.exit(2)
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(130)
