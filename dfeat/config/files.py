"""Configuration files as Snakemake reads them: one laid over the other, mappings merged key by key."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from dfeat.config.reading import check_bounds, read_mapping
from dfeat.config.run import Settings
from dfeat.errors import UserError, nearest
from dfeat.section import parse

PINNED: Final = Path("config/pinned.yaml")
"""The overlay that `dfeat fetch` writes in the working folder. Every configuration is laid over it."""

OWN: Final = Path("config.yaml")
LOCAL: Final = Path("local.yaml")
"""A user's own paths, in the working folder and outside git: laid over `OWN` where a command names no configuration."""


def own_files() -> list[Path]:
    """The files of a command that names none: `OWN`, and `LOCAL` where it is there."""
    return [OWN, *([LOCAL] if LOCAL.exists() else [])]


def unread_local(named: Sequence[Path]) -> list[str]:
    """A sentence where `LOCAL` is there and was not read, since the files of the command are `named` without it."""
    if not named or not LOCAL.exists() or any(path.exists() and path.samefile(LOCAL) for path in named):
        return []
    return [f"{LOCAL} was not read, since the command names its files: name it too, after {OWN}"]


def read_settings(paths: Sequence[Path]) -> Settings:
    """The settings of the files laid over each other; later ones win. Below them lies `PINNED`, where it is there.

    Raises UserError for a file that is no configuration.
    """
    merged: dict[str, Any] = {"pins": read_pins()} if PINNED.exists() else {}
    for path in paths:
        lay_over(merged, read_mapping(path))
    return parse(Settings, merged, " + ".join(map(str, paths)))


def read_pins() -> dict[str, Any]:
    """The commits in `PINNED`; none where it does not exist. Raises UserError if it holds anything else."""
    if not PINNED.exists():
        return {}
    content = read_mapping(PINNED)
    others = [key for key in content if key != "pins"]
    if others or not isinstance(content.get("pins"), dict):
        raise UserError(
            f"{PINNED} {f'has the key {others[0]!r}' if others else 'has no mapping `pins`'}; it is for the commits that "
            "`dfeat fetch` writes, by model, so move what you set there to an overlay of your own"
        )
    return dict(parse(Settings, content, str(PINNED)).pins)


def lay_over(below: dict[str, Any], above: dict[str, Any]) -> None:
    """Merge `above` into `below` in place, key by key; where both have a mapping, the two are merged likewise.

    Mappings are copied, so two keys that share one by an alias do not share what a later file lays over it.
    """
    for key, value in above.items():
        if isinstance(value, dict):
            under = below.get(key)
            below[key] = under if isinstance(under, dict) else {}
            lay_over(below[key], value)
        else:
            below[key] = value


def check_command_line(words: Sequence[str] | None = None) -> None:
    """Print a sentence and exit 2 where a command of Snakemake names a configuration that does not end or is ambiguous.

    Snakemake reads these files, and `--config`, before the first line of the Snakefile; a profile comes before both.

    Args:
        words: The command; by default the one that this process was started with.
    """
    words = sys.argv if words is None else words
    try:
        for option, value in _options(words):
            if option == "--config":
                _check_name(value)
                check_bounds(value.partition("=")[2], "--config")
            else:
                _check_there(value)
                read_mapping(Path(value))
    except UserError as error:
        print(f"dfeat: {error}", file=sys.stderr)
        sys.exit(2)


def _check_there(file: str) -> None:
    """Refuse a file that is missing, for which Snakemake has a traceback. Raises UserError."""
    if not Path(file).exists():
        here = (*Path().glob("*.yaml"), *Path("config").glob("*.yaml"))
        others = [str(path) for path in here if nearest(Path(file).stem, [path.stem])]
        target = "" if Path(file).suffix else "; if it is a target, put -- before it"
        raise UserError(f"no configuration file {file!r}{target or nearest(file, others)}")


def _check_name(entry: str) -> None:
    """Refuse a key of `--config` that is a path of keys. Raises UserError."""
    path, _, value = entry.partition("=")
    name, *below = re.split("[.:]", path)
    if below:
        for key in reversed(below):
            value = f"{{{key}: {value}}}"
        raise UserError(
            f"--config {path}: the key is no identifier, as Snakemake wants; write --config '{name}={value}'"
        )


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The values of `--configfile` and of `--config` in a command of Snakemake, each with its option."""
    names = {"--configfile": "--configfile", "--configfiles": "--configfile", "--config": "--config", "-C": "--config"}
    option = ""
    for word in words:
        name, equals, value = word.partition("=")
        if word.startswith("-"):
            option = "" if equals else names.get(word, "")
            if equals and name in names:
                yield names[name], value
        elif option:
            yield option, word
