"""Figures as PNG, PDF and SVG, in one style.

matplotlib is imported here first, as it is shipped. At its import it takes a backend from MPLBACKEND and settings from a
matplotlibrc: of the working folder, of MATPLOTLIBRC or of the user. One that it cannot read would stop every figure.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from pathlib import Path


def _import_as_shipped() -> None:
    """Import matplotlib without the user's backend and settings; nothing where it is imported already."""
    found = importlib.util.find_spec("matplotlib")
    if "matplotlib" in sys.modules or found is None or found.origin is None:
        return
    shipped, backend = Path(found.origin).with_name("mpl-data"), os.environ.pop("MPLBACKEND", None)
    # A matplotlibrc of the working folder precedes all others, and in this folder it is the one with the defaults.
    with contextlib.chdir(shipped) if shipped.is_dir() else contextlib.nullcontext():
        import matplotlib  # noqa: F401
    if backend is not None:
        os.environ["MPLBACKEND"] = backend


_import_as_shipped()
