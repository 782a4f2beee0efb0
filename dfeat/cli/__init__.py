"""The command line: one verb a rule, arguments in, one call out. No logic lives here.

Exit status 0 on success, 2 on a user's mistake (one line: what, where, what to do), 1 on a fault of the machine (one
line as well: a full disk) or of the program. Every heavy import stays in the verb that needs it, so `dfeat --help` answers at once.
"""

from __future__ import annotations

from dfeat.cli import data, diffusion, models, report, tools  # noqa: F401  (each registers its verbs)
from dfeat.cli.common import app
from dfeat.progress import exit_on_user_error


def main() -> None:
    """Run the command line."""
    exit_on_user_error(app)
