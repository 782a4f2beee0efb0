"""Configuration files as Snakemake reads them: YAML, one laid over the other, mappings merged key by key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dfeat.config.run import Settings
from dfeat.errors import UserError
from dfeat.section import parse


def read_settings(paths: Sequence[Path]) -> Settings:
    """The settings that the files make together; the later file wins. UserError names a file that is none."""
    import yaml

    merged: dict[str, Any] = {}
    for path in paths:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"cannot read the configuration {path} ({_why(error)}); give a YAML file") from None
        if not isinstance(content, dict):
            raise UserError(f"{path} is no configuration: it must hold keys with values, as config.yaml does")
        lay_over(merged, content)
    return parse(Settings, merged, " + ".join(map(str, paths)))


def _why(error: Exception) -> str:
    """An error in a line; those of YAML draw the place on several."""
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark else ""
    return where + (getattr(error, "problem", None) or " ".join(str(error).split()))


def lay_over(below: dict[str, Any], above: dict[str, Any]) -> None:
    """Change `below` to what the mapping `above`, laid over it key by key, makes of it."""
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            lay_over(below[key], value)
        else:
            below[key] = value
