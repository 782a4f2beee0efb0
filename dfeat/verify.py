"""Whether everything a run has made is still what was written, and belongs together.

What enters: `results/<run>`. What leaves: a `Finding` for each artifact. Every file is compared with its digest
record; shards and pixel caches are opened as their readers open them; what is made from a set must be of the index
that stands there now, models and parts likewise; predictions and verdicts must be of the models that stand there. A point of an
ablation, `ablation/<name>/<point>`, has a run's folders as far as it differs from the run: what it lacks, and every
index, is the run's own. Input images, logs and benchmarks are nobody's artifacts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from dfeat.errors import UserError
from dfeat.methods import REFERENCE
from dfeat.places import TRAIN, Place, view_set
from dfeat.storage.origin import Origin
from dfeat.storage.provenance import file_digest
from dfeat.storage.records import FOLDER, check_file, read_json, recorded_digests, refusal

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


@dataclass(frozen=True)
class _Run:
    """A run's folder, and what was read of it so far: a file that others refer to is hashed once."""

    folder: Path
    digests: dict[Path, str] = field(default_factory=dict)
    origins: dict[Path, Origin] = field(default_factory=dict)

    def digest(self, path: Path) -> str | None:
        """SHA-256 of a file as it stands now; None where it is missing."""
        if path not in self.digests and path.is_file():
            self.digests[path] = file_digest(path)
        return self.digests.get(path)

    def index_digest(self, set_name: str) -> str | None:
        """SHA-256 of a set's index.csv as it stands now; None where it is missing."""
        return self.digest(Place(self.folder).index(set_name))

    def check_file(self, path: Path, verb: str) -> None:
        """`check_file`, whose digest is kept."""
        digest = check_file(path, verb)
        if digest is not None:
            self.digests[path] = digest


class _LeftOver(Exception):
    """A whole file that nothing reads any more."""


def verify_run(run: Path) -> Iterator[Finding]:
    """Look at every artifact of a run, in the order of the steps. UserError where there is no run."""
    if not any((run / step).is_dir() for step in STEPS):
        raise UserError(f"{run} holds no run: none of the folders {', '.join(STEPS)} is there; give results/<run>")
    seen = _Run(run)
    for step in STEPS:
        for path in sorted(path for path in (run / step).rglob("*") if path.is_file() and path.parent.name != FOLDER):
            yield _look_at(seen, path)


def _look_at(run: _Run, path: Path) -> Finding:
    name = path.relative_to(run.folder).as_posix()
    if ".tmp." in path.name:
        return Finding(name, "left over", "by a process that died; the next write of that file sweeps it")
    try:
        _check(run, path)
    except _LeftOver as found:
        return Finding(name, "left over", str(found))
    except UserError as error:
        return Finding(name, "bad", str(error))
    return Finding(name, "whole")


def _check(run: _Run, path: Path) -> None:
    """Raise UserError unless the artifact is whole and belongs to the artifacts beside it."""
    step = path.relative_to(_home(run, path)).parts[0]
    if path.suffix == ".h5":
        _check_hdf5(run, path)
    if not recorded_digests(path):
        raise UserError(f"{path} has no digest record beside it, so nobody can tell whether it is what was written")
    if path.name == "source.json" and step == "data":
        from dfeat.data.index import read_index

        read_index(path.parent)
    elif path.name == "parts.json":
        from dfeat.occlusion.parts import read_parts

        read_parts(path, index=run.index_digest("train"))
    elif path.name == "run.json" and step == "training":
        _check_model(run, path)
    elif step == "evaluation":
        _check_evaluation(run, path)
    elif path.suffix != ".h5":
        run.check_file(path, _VERBS.get(step, step))


def _home(run: _Run, path: Path) -> Path:
    """The folder whose steps an artifact is of: the run, or a point of one of its ablations."""
    relative = path.relative_to(run.folder).parts
    return run.folder.joinpath(*relative[:3]) if relative[0] == "ablation" and len(relative) > 4 else run.folder


def _check_hdf5(run: _Run, path: Path) -> None:
    from dfeat.data.pixels import PixelCache
    from dfeat.storage.shards import read_shard

    relative = path.relative_to(_home(run, path)).parts
    if len(relative) != {"data": 3, "diffusion": 4}.get(relative[0]):
        raise UserError(f"{path} lies where no step keeps such a file; take it away")
    if path.name == "pixels.h5":
        PixelCache(path, index=run.index_digest(TRAIN if relative[0] == "diffusion" else relative[1]))
    else:
        read_shard(path, relative[1], index=run.index_digest(view_set(relative[2])))


def _check_model(run: _Run, path: Path) -> None:
    described: dict[str, Any] = read_json(path, "train")
    method, _, seed = path.parts[-4:-1]
    if (described.get("method"), f"seed{described.get('seed')}") != (method, seed):
        told = f"{described.get('method')} with seed {described.get('seed')}"
        raise refusal(path, f"it tells of {told}, not of {method} in {seed}", "train")
    weights = path.parent / "model.safetensors"
    if described.get("model") != run.digest(weights):
        raise UserError(f"{path} tells of another model than {weights}; make both again with `dfeat train`")
    inputs = described.get("inputs", {})
    parts = Place(_home(run, path)).parts()
    if not parts.is_file():
        parts = Place(run.folder).parts()
    for name, file in (("index", Place(run.folder).index(TRAIN)), ("parts", parts)):
        if run.digest(file) not in (None, inputs.get(name)):
            raise UserError(f"{path}: the model was trained with another {file.name} than {file}; make it again")


def _check_evaluation(run: _Run, path: Path) -> None:
    """Predictions and verdicts: what they say of themselves must be true of the models and indexes that stand there."""
    from dfeat.evaluation.origins import read_predictions_origin, read_verdicts_origin

    _, method, *folders = path.relative_to(_home(run, path)).parts
    if len(folders) != (2 if method == "labels" else 3):
        raise UserError(f"{path} lies where no step keeps such a file; take it away")
    if path.parent not in run.origins:
        read = read_verdicts_origin(path) if method == "labels" else read_predictions_origin(path.parent)
        run.origins[path.parent] = read
    origin = run.origins[path.parent]
    if path != origin.path:
        if path.name not in origin.said["files"]:
            raise _LeftOver(
                f"by an evaluation before that of {origin.path.name} beside it, as of a level that was dropped"
            )
        origin.read_text(path)
        return
    said = origin.said
    missing = next((name for name in said["files"] if not (path.parent / name).is_file()), None)
    if missing is not None:
        raise origin.refusal(f"it tells of {missing}, which is missing")
    if method == "labels":
        models = {(REFERENCE, folders[0], str(model["seed"])): model["model"] for model in said["models"]}
        _check_inputs(run, origin, {TRAIN: said["index"]}, models)
        return
    if (said["method"], f"seed{said['seed']}") != (method, folders[1]):
        raise origin.refusal(f"it tells of {said['method']} with seed {said['seed']}, not of {method} in {folders[1]}")
    _check_inputs(run, origin, said["indexes"], {(method, folders[0], str(said["seed"])): said["model"]})


def _check_inputs(run: _Run, origin: Origin, indexes: dict[str, str], models: dict[tuple[str, str, str], str]) -> None:
    """Raise UserError if the indexes (digests by set) or the models (by method, backbone, seed) are not the run's."""
    for model, digest in models.items():
        weights = Place(_home(run, origin.path)).weights(*model)
        if not weights.is_file():
            weights = Place(run.folder).weights(*model)
        if run.digest(weights) not in (None, digest):
            raise origin.refusal(f"it tells of another model than {weights}")
    for set_name, digest in indexes.items():
        if run.index_digest(set_name) not in (None, digest):
            raise origin.refusal(f"it tells of another index.csv than that of {Place(run.folder).data(set_name)}")
