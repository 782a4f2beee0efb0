"""What the configuration of a run makes of each place: the settings that the artifact there must record, and how many
shards a view has.

What enters: `expected.json` in a run's folder, which a start of Snakemake writes from the configuration that it runs
(`dfeat.config.expected`). What leaves: an error for an artifact that was made with other settings. Without that file, and
at a path that is not one of a run, nothing is expected. A shard of the same name from another run, or a model of another
learning rate, has a digest record that fits its place; its settings do not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Final

from dfeat.places import place_of
from dfeat.storage.records import read_json, refusal

FILE: Final = "expected.json"


def check_settings(
    path: Path, recorded: Any, remake: str, part: Callable[[Any], Any] = lambda configured: configured
) -> None:
    """Raise UserError unless `recorded`, the settings that an artifact records (a mapping, or its JSON text), are those
    that its run is configured with, or the `part` of them that the artifact is made by."""
    configured = _wanted("settings", path)
    wanted = None if configured is None else part(configured)
    if wanted is None:
        return
    found = json.loads(recorded) if isinstance(recorded, str) else recorded
    odd = _first_difference(found, wanted)
    if odd is not None:
        key, there, here = odd
        raise refusal(path, f"it was made with {key} {there}, and the run is configured with {here}", remake)


def expected_settings(path: Path) -> Any:
    """The settings that the run is configured with at a path; None where nothing is expected."""
    return _wanted("settings", path)


def check_model_folder(path: Path, method: str, seed: int, remake: str) -> None:
    """Raise UserError if a file in a run's folder of one model records another method or seed than the folder's."""
    if place_of(path) is None:
        return
    wanted, _, folder = path.absolute().parts[-4:-1]
    if (method, f"seed{seed}") != (wanted, folder):
        raise refusal(path, f"it is of {method} with seed {seed}, not of {wanted} in {folder}", remake)


def shards_in(folder: Path) -> list[Path]:
    """The shards of a view in the order of their numbers: as many as the run expects, or else of the newest whole set.

    Others of the folder are left over from another number of shards. Empty if no set is whole.
    """
    wanted = _wanted("shards", folder / "0-of-1.h5")
    found = {int(path.stem.partition("-of-")[2]) for path in folder.glob("*-of-*.h5") if path.stem[-1].isdigit()}
    sets = [[folder / f"{number}-of-{count}.h5" for number in range(count)] for count in sorted(found)]
    whole = [shards for shards in sets if all(path.is_file() for path in shards)]
    if wanted is not None:
        return next((shards for shards in whole if len(shards) == wanted), [])
    return max(whole, key=lambda shards: max(path.stat().st_mtime_ns for path in shards), default=[])


def _wanted(what: str, path: Path) -> Any:
    """What the run expects at a path, listed there or at a folder above it; None if it expects nothing."""
    place = place_of(path)
    if place is None:
        return None
    run, inside = place
    try:
        seen = (run / FILE).stat()
    except OSError:
        return None
    listed = _read(run / FILE, seen.st_mtime_ns, seen.st_size, seen.st_ino).get(what, {})
    at = PurePosixPath(inside)
    return next((listed[str(name)] for name in (at, *at.parents) if str(name) in listed), None)


@lru_cache(maxsize=8)
def _read(path: Path, *state: int) -> Mapping[str, Any]:
    """What a run expects, read again when the file's `state` (time, size, inode) changes."""
    content = read_json(path, "adopt")
    return content if isinstance(content, dict) else {}


def _first_difference(found: Any, wanted: Any, key: str = "") -> tuple[str, str, str] | None:
    """The dotted key of the first setting that differs, with both values as text; None if all are equal."""
    if found == wanted:
        return None
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in sorted(found.keys() | wanted.keys()):
            odd = _first_difference(found.get(name), wanted.get(name), f"{key}.{name}" if key else name)
            if odd is not None:
                return odd
        return None  # null, which is as good as absent
    return key or "settings", _short(found), _short(wanted)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
