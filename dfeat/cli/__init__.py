"""The command line: one verb a rule, arguments in, one call out. No logic lives here.

Exit status 0 on success, 2 on a user's mistake (one line: what, where, what to do), 1 on a fault of the machine (one
line as well: a full disk, memory that ran out) or of the program. Every heavy import stays in the verb that needs it, so `dfeat --help` answers at once.
"""

from __future__ import annotations

import sys
from typing import Final

from dfeat.cli import data, diffusion, models, report, tools  # noqa: F401  (each registers its verbs)
from dfeat.cli.common import app, one_config_each
from dfeat.progress import exit_on_user_error

LOWER: Final = {
    "train": "raise training.accumulate",
    "inpaint": "lower diffusion.batch_size",
    "latents": "lower diffusion.batch_size",
    "features": "lower diffusion.batch_size",
    "evaluate": "lower evaluation.batch_size",
    "judge": "lower evaluation.batch_size",
}
"""What makes a verb take less memory."""


def main() -> None:
    """Run the command line."""
    exit_on_user_error(_run, LOWER)


def _run() -> None:
    sys.argv[1:] = one_config_each(sys.argv[1:])
    app()
