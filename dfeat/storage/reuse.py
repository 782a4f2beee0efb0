"""What was made from the same inputs by the same settings, by a base run or earlier at its place: not made again.

What enters: the folder of the base run, and what a job is to make, from what, and by which settings. What leaves: links
in the job's own run, with digest records, or nothing, and the job computes (`reused`); or whether a shard that a job of
several would make stands there already (`stands`). A run thus stays whole by itself as long as
its base is there, and what is made again replaces a link, never the base's file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dfeat.errors import UserError
from dfeat.progress import say
from dfeat.storage.atomic import link_files, remove
from dfeat.storage.journal import remove_journals
from dfeat.storage.provenance import settings_text
from dfeat.storage.records import check_file, read_json, recorded_digests

_UNKNOWN: Final[dict[str, Any]] = {"recipe": None, "settings": {}}
_FOLLOWS: Final = frozenset({"view", "latents", "copies"})
"""What records hold beyond the stage's settings: it follows from the path and from the inputs."""


def reused(
    base: Path, verb: str, outputs: Sequence[Path], inputs: Iterable[Path], recipe: int, settings: Any,
    same_model: Callable[[Mapping[str, Any]], bool],
) -> bool:  # fmt: skip
    """Link a job's outputs from the base run if it made them from equal inputs, settings and code; return whether.

    Raises UserError if the outputs lie in no run beside the base, or a file of the base is damaged.

    Args:
        base: results/<run> of the base run.
        verb: The `dfeat` verb that makes the outputs.
        outputs: The job's files, in a run beside the base; the last one records `recipe` and `settings`.
        inputs: The job's input files within its run; each must have the digest of the base's.
        recipe: The stage's RECIPE.
        settings: What the stage is given; the record must hold it and no other setting.
        same_model: Whether the weights that the record names are those of today.
    """
    run = _run_beside(base, outputs[0])

    def counterpart(path: Path) -> Path:
        return base / os.path.relpath(path, run)

    if not all(counterpart(path).is_file() for path in outputs):
        return False
    if not _made_so(recorded_making(counterpart(outputs[-1]), verb), recipe, settings, same_model):
        return False
    if not all(set(recorded_digests(path)) & set(recorded_digests(counterpart(path))) for path in inputs):
        return False
    digests = {path: check_file(counterpart(path), verb) for path in outputs}
    known = {path: (counterpart(path), digest) for path, digest in digests.items() if digest}
    if len(known) < len(outputs):
        return False
    link_files(known)
    for path in outputs:
        remove_journals(path)
    say(f"{', '.join(path.name for path in outputs)}: linked from {base}, which made the same from the same")
    return True


def stands(
    shard: Path, verb: str, inputs: Iterable[Path], recipe: int, settings: Any,
    same_model: Callable[[Mapping[str, Any]], bool],
) -> bool:  # fmt: skip
    """Whether a shard is whole and was made from its inputs as they are, by these settings, code and weights.

    The arguments are those of `reused`. A shard older than an input does not stand.
    """
    try:
        if check_file(shard, verb) is None:
            return False
    except UserError:  # missing, damaged, or of another place: made again
        return False
    recorded = recorded_making(shard, verb)
    return _made_so(recorded, recipe, settings, same_model) and all(
        _is_from(recorded, path, verb) and path.stat().st_mtime_ns <= shard.stat().st_mtime_ns for path in inputs
    )


def renew(shard: Path, inputs: Iterable[Path]) -> None:
    """Give a shard that stands a time that no input of its job is after, or Snakemake would plan the job again."""
    if any(path.stat().st_mtime_ns > shard.lstat().st_mtime_ns for path in inputs):
        os.utime(shard, follow_symlinks=False)


def _made_so(
    recorded: Mapping[str, Any], recipe: int, settings: Any, same_model: Callable[[Mapping[str, Any]], bool]
) -> bool:
    """Whether an artifact records this recipe, these settings and the weights of today."""
    own = {key: value for key, value in recorded["settings"].items() if key not in _FOLLOWS}
    return recorded["recipe"] == recipe and own == json.loads(settings_text(settings)) and same_model(recorded)


def _is_from(recorded: Mapping[str, Any], path: Path, verb: str) -> bool:
    """Whether an artifact records that it was made from this index, parts.json, or shard of latents."""
    if path.suffix != ".h5":
        return recorded.get("parts" if path.suffix == ".json" else "index") in recorded_digests(path)
    latents = recorded_making(path, verb)
    same = all(recorded.get(name) == latents.get(name) for name in ("index", "parts", "shard", "model"))
    return same and recorded["settings"].get("latents") == latents["settings"]


def remove_broken_links(run: Path) -> None:
    """Remove the links of a run whose files are gone, as when its base was deleted: their jobs then run again.

    Snakemake itself ends at a broken link.
    """
    for step in ("data", "occlusion", "diffusion"):
        for folder, _, names in os.walk(run / step):
            for path in (Path(folder, name) for name in names):
                if path.is_symlink() and not path.exists():
                    remove(path)


def _run_beside(base: Path, output: Path) -> Path:
    """The folder of the run that holds `output`."""
    inside = Path(os.path.relpath(output, base.parent)).parts
    if len(inside) < 2 or inside[0] in ("..", base.name):
        raise UserError(f"--base {base} is no run beside the one that {output} is in; give results/<another run>")
    return base.parent / inside[0]


def recorded_making(path: Path, verb: str) -> Mapping[str, Any]:
    """The recipe, settings and further words of an artifact's record; empty ones where it is no such file."""
    if path.suffix != ".h5":
        content = read_json(path, verb)
        return content if isinstance(content, dict) and {"recipe", "settings"} <= content.keys() else _UNKNOWN
    from dfeat.storage.shards import read_attributes

    try:
        attributes = read_attributes(path)
        return {**attributes, "settings": json.loads(attributes["settings"]), "recipe": int(attributes["recipe"])}
    except (OSError, KeyError, ValueError):
        return _UNKNOWN
