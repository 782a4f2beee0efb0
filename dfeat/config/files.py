"""Configuration files as Snakemake reads them: YAML, one laid over the other, mappings merged key by key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dfeat.config.run import Settings
from dfeat.errors import UserError
from dfeat.section import parse


def read_settings(paths: Sequence[Path]) -> Settings:
    """The settings of the files laid over each other; later ones win. Raises UserError for a file that is no configuration."""
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
    """The error in one line; PyYAML's own text takes several."""
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark else ""
    return where + (getattr(error, "problem", None) or " ".join(str(error).split()))


def lay_over(below: dict[str, Any], above: dict[str, Any]) -> None:
    """Merge `above` into `below` in place, key by key; where both have a mapping, the two are merged likewise."""
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            lay_over(below[key], value)
        else:
            below[key] = value
