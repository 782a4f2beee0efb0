"""Whether everything a run has made is still what was written, and belongs together.

What enters: `results/<run>`. What leaves: a `Finding` for each artifact. Every file is compared with its digest
record; shards and pixel caches are opened as their readers open them; what is made from a set must be of the index
that stands there now, models and parts likewise. A point of an ablation, `ablation/<name>/<point>`, has a run's
folders as far as it differs from the run: what it lacks, and every index, is the run's own. Input images, logs and
benchmarks are nobody's artifacts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from dfeat.errors import UserError
from dfeat.storage.provenance import file_digest
from dfeat.storage.records import FOLDER, check_file, read_json, recorded_digests

State = Literal["whole", "bad", "left over"]
STEPS: Final = ("data", "occlusion", "diffusion", "training", "evaluation", "ablation", "report")
_VERBS: Final = {
    "data": "index",
    "occlusion": "parts",
    "training": "train",
    "evaluation": "evaluate",
    "report": "table`, `dfeat figure` or `dfeat report",
}


@dataclass(frozen=True)
class Finding:
    """What was found of one file: its path inside the run, its state, and what is wrong where something is."""

    path: str
    state: State
    why: str = ""


def verify_run(run: Path) -> Iterator[Finding]:
    """Look at every artifact of a run, in the order of the steps. UserError where there is no run."""
    if not any((run / step).is_dir() for step in STEPS):
        raise UserError(f"{run} holds no run: none of the folders {', '.join(STEPS)} is there; give results/<run>")
    for step in STEPS:
        for path in sorted(path for path in (run / step).rglob("*") if path.is_file() and path.parent.name != FOLDER):
            yield _look_at(run, path)


def _look_at(run: Path, path: Path) -> Finding:
    name = path.relative_to(run).as_posix()
    if ".tmp." in path.name:
        return Finding(name, "left over", "by a process that died; the next write of that file sweeps it")
    try:
        _check(run, path)
    except UserError as error:
        return Finding(name, "bad", str(error))
    return Finding(name, "whole")


def _check(run: Path, path: Path) -> None:
    """Raise UserError unless the artifact is whole and belongs to the artifacts beside it."""
    home = _home(run, path)
    step = path.relative_to(home).parts[0]
    if path.suffix == ".h5":
        _check_hdf5(run, path)
    else:
        check_file(path, _VERBS.get(step, step))
    if not recorded_digests(path):
        raise UserError(f"{path} has no digest record beside it, so nobody can tell whether it is what was written")
    if path.name == "source.json" and step == "data":
        from dfeat.data.index import read_index

        read_index(path.parent)
    elif path.name == "parts.json":
        from dfeat.occlusion.parts import read_parts

        read_parts(path, index=_index_digest(run, "train"))
    elif path.name == "run.json" and step == "training":
        _check_model(run, path)


def _home(run: Path, path: Path) -> Path:
    """The folder whose steps an artifact is of: the run, or a point of one of its ablations."""
    relative = path.relative_to(run).parts
    return run.joinpath(*relative[:3]) if relative[0] == "ablation" and len(relative) > 4 else run


def _check_hdf5(run: Path, path: Path) -> None:
    from dfeat.data.pixels import PixelCache
    from dfeat.storage.shards import read_shard

    relative = path.relative_to(_home(run, path)).parts
    if len(relative) != {"data": 3, "diffusion": 4}.get(relative[0]):
        raise UserError(f"{path} lies where no step keeps such a file; take it away")
    if path.name == "pixels.h5":
        PixelCache(path, check=True, index=_index_digest(run, "train" if relative[0] == "diffusion" else relative[1]))
    else:
        view = relative[2]
        set_name = "train" if view in ("train", "train-occluded") else view.rpartition("@")[0]
        read_shard(path, relative[1], index=_index_digest(run, set_name))


def _check_model(run: Path, path: Path) -> None:
    described: dict[str, Any] = read_json(path, "train")
    weights = path.parent / "model.safetensors"
    if described.get("model") != (file_digest(weights) if weights.is_file() else None):
        raise UserError(f"{path} tells of another model than {weights}; make both again with `dfeat train`")
    inputs = described.get("inputs", {})
    parts = _home(run, path) / "occlusion" / "parts.json"
    if not parts.is_file():
        parts = run / "occlusion" / "parts.json"
    for name, file in (("index", run / "data" / "train" / "index.csv"), ("parts", parts)):
        if file.is_file() and inputs.get(name) != file_digest(file):
            raise UserError(f"{path}: the model was trained with another {file.name} than {file}; make it again")


def _index_digest(run: Path, set_name: str) -> str | None:
    """The digest of a set's index as it stands now; None where there is none to compare with."""
    path = run / "data" / set_name / "index.csv"
    return file_digest(path) if path.is_file() else None
