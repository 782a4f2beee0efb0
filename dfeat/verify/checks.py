"""What each kind of artifact is held to: its digest record, its place, its settings, and what stands beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dfeat.errors import UserError
from dfeat.methods import REFERENCE
from dfeat.places import OCCLUDED, TRAIN, Place, predicted_set, view_set
from dfeat.storage.expected import shards_in
from dfeat.storage.origin import Origin
from dfeat.storage.provenance import file_digest
from dfeat.storage.records import check_file, recorded_digests, refusal

_VERBS: Final = {
    "data": "index",
    "occlusion": "parts",
    "training": "train",
    "evaluation": "evaluate",
    "report": "table`, `dfeat figure` or `dfeat report",
}
_FORMER_ORIGIN: Final = "predictions.json"


@dataclass(frozen=True)
class Standing:
    """A run's folder, and what was read of it so far: a file that others refer to is hashed once."""

    folder: Path
    digests: dict[Path, str] = field(default_factory=dict)
    origins: dict[tuple[Path, str], Origin] = field(default_factory=dict)
    """By folder, and by set where it has a record for each."""
    payloads: dict[Path, str] = field(default_factory=dict)
    """The digest of the pixels of each cache that was opened."""
    diffusion: dict[str, tuple[Path, str]] = field(default_factory=dict)
    """The first shard of each kind that was opened, and the digest of the diffusion model that made it."""

    def digest(self, path: Path) -> str | None:
        """SHA-256 of a file as it stands now; None where it is missing."""
        if path not in self.digests and path.is_file():
            self.digests[path] = file_digest(path)
        return self.digests.get(path)

    def index_digest(self, set_name: str) -> str | None:
        """SHA-256 of a set's index.csv as it stands now; None where it is missing."""
        return self.digest(Place(self.folder).index(set_name))

    def own(self, path: Path, wanted: Path) -> Path:
        """The file that an artifact at `path` belongs to: its point's where there is one, else the run's."""
        home = _home(self, path)
        inside = wanted.relative_to(self.folder)
        return home / inside if (home / inside).is_file() else wanted

    def parts_digest(self, path: Path) -> str | None:
        """SHA-256 of the parts.json that an artifact belongs to; None where there is none."""
        return self.digest(self.own(path, Place(self.folder).parts()))

    def check_file(self, path: Path, verb: str) -> None:
        """`check_file`, whose digest is kept."""
        digest = check_file(path, verb)
        if digest is not None:
            self.digests[path] = digest


class LeftOver(Exception):
    """A whole file that nothing reads any more."""


def check(run: Standing, path: Path) -> None:
    """Raise UserError unless the artifact is whole and belongs to the artifacts beside it."""
    if path.parent == run.folder:
        run.check_file(path, "adopt")
        return
    step = path.relative_to(_home(run, path)).parts[0]
    if path.suffix == ".h5":
        _check_hdf5(run, path)
    if not recorded_digests(path):
        raise UserError(f"{path} has no digest record beside it, so nobody can tell whether it is what was written")
    if step == "data" and path.suffix != ".h5":
        _check_index(run, path)
    elif path.name == "parts.json":
        from dfeat.occlusion.parts import read_parts

        run.digests[path] = read_parts(path, index=run.index_digest(TRAIN)).digest
    elif step == "training":
        _check_model(run, path)
    elif step == "evaluation":
        _check_evaluation(run, path)
    elif path.suffix != ".h5":
        run.check_file(path, _VERBS.get(step, step))
        _check_published(run, path)


def _home(run: Standing, path: Path) -> Path:
    """The folder whose steps an artifact is of: the run, or a point of one of its ablations."""
    relative = path.relative_to(run.folder).parts
    return run.folder.joinpath(*relative[:3]) if relative[0] == "ablation" and len(relative) > 4 else run.folder


def _check_index(run: Standing, path: Path) -> None:
    """The files of an index: source.json as its readers read it, the others as it lists them."""
    from dfeat.data.index import read_index

    source = path.with_name("source.json")
    if path == source:
        read_index(path.parent)
        return
    run.check_file(path, _VERBS["data"])
    listed = _unchecked(source).get("files", {})
    if listed and path.name not in listed:
        raise LeftOver("by an earlier index; source.json beside it does not list it")
    if run.digest(path) != listed.get(path.name, run.digest(path)):
        raise refusal(path, "it is another file than source.json beside it lists", "index")


def _unchecked(path: Path) -> dict[str, Any]:
    """The JSON object in a file that has a finding of its own; an empty one where it is damaged or missing."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _check_published(run: Standing, path: Path) -> None:
    """Tables, figures and the page: what their records list, made from the files that stand there."""
    if path.parent.name == ".made":
        said = _unchecked(path)
        if said.get("job") != path.stem:
            raise refusal(path, f"it records {said.get('job')}, not {path.stem}", _VERBS["report"])
        odd = [
            name for name, digest in said["files"].items() if run.digest(path.parents[1] / name) not in (None, digest)
        ]
        if odd:
            raise refusal(path, f"it records another {odd[0]} than stands there", _VERBS["report"])
    for record in sorted(path.parent.glob(".made/*.json")):
        said = _unchecked(record)
        if path.name not in said.get("files", {}):
            continue
        if said["files"][path.name] != run.digest(path):
            raise refusal(path, f"it is another file than .made/{record.name} beside it records", _VERBS["report"])
        for name, digest in said.get("inputs", {}).items():
            standing = recorded_digests(run.folder / name)
            if standing and digest not in standing:
                raise refusal(path, f"it was made from another {name} than stands there", _VERBS["report"])


def _check_hdf5(run: Standing, path: Path) -> None:
    from dfeat.data.pixels import PixelCache
    from dfeat.storage.shards import open_shard

    relative = path.relative_to(_home(run, path)).parts
    if len(relative) != {"data": 3, "diffusion": 4}.get(relative[0]):
        raise UserError(f"{path} lies where no step keeps such a file; take it away")
    kind, view = relative[1], relative[-2]
    hidden = kind == "inpaint" or view == OCCLUDED
    parts = run.parts_digest(path) if hidden else ""
    if path.name == "pixels.h5":
        set_name = TRAIN if relative[0] == "diffusion" else kind
        run.payloads[path] = PixelCache(path, index=run.index_digest(set_name), parts=parts).digest
        return
    with open_shard(path, kind, index=run.index_digest(view_set(view)), parts=parts) as file:
        model = str(file.attrs["model"])
    first, of_first = run.diffusion.setdefault("inpaint" if kind == "inpaint" else "latents", (path, model))
    if model != of_first:
        raise refusal(path, f"it was made with another diffusion model ({model[:12]}) than {first}", kind)
    standing = shards_in(path.parent)
    if standing and path not in standing:
        raise LeftOver(f"from another number of shards than the {len(standing)} that are read")


def _check_model(run: Standing, path: Path) -> None:
    from dfeat.training.trained import read_run

    described = read_run(path.parent) if path.name == "run.json" else _unchecked(path.with_name("run.json"))
    if path.name != "run.json":
        run.check_file(path, _VERBS["training"])
        if path.name == "metrics.jsonl" and described.get("metrics") not in (None, run.digest(path)):
            raise refusal(path, "it is another file than run.json beside it records", "train")
        return
    if run.digest(path.with_name("model.safetensors")) not in (None, described["model"]):
        weights = path.with_name("model.safetensors")
        raise UserError(f"{path} records another model than {weights}; make both again with `dfeat train`")
    inputs, place = described.get("inputs", {}), Place(run.folder)
    standing = {
        place.index(TRAIN): (run.index_digest(TRAIN), "index"),
        place.parts(): (run.parts_digest(path), "parts"),
        place.pixels(TRAIN): (run.payloads.get(place.pixels(TRAIN)), "pixels"),
        place.inpainted(): (run.payloads.get(run.own(path, place.inpainted())), "inpainted"),
    }
    for file, (digest, name) in standing.items():
        if digest is not None and inputs.get(name, digest) != digest:
            raise UserError(
                f"{path}: the model was trained with another {file.name} than {run.own(path, file)}; make it again with "
                "`dfeat train`"
            )


def _check_evaluation(run: Standing, path: Path) -> None:
    """Predictions and verdicts: what they record must hold of the models, indexes and images that stand there."""
    from dfeat.evaluation.origins import read_predictions_origin, read_verdicts_origin

    _, method, *folders = path.relative_to(_home(run, path)).parts
    if len(folders) != (2 if method == "labels" else 3) or not (method == "labels" or predicted_set(path)):
        raise UserError(f"{path} lies where no step keeps such a file; take it away")
    if path.name == _FORMER_ORIGIN and "indexes" in _unchecked(path):
        raise LeftOver("by an earlier version, which recorded the predictions on all sets in one file")
    set_name = "" if method == "labels" else predicted_set(path)
    if (path.parent, set_name) not in run.origins:
        read = read_predictions_origin(path.parent, set_name) if set_name else read_verdicts_origin(path)
        run.origins[path.parent, set_name] = read
    origin = run.origins[path.parent, set_name]
    if path != origin.path:
        if path.name not in origin.said["files"]:
            raise LeftOver(
                f"by an evaluation before that of {origin.path.name} beside it, as of a level that was dropped"
            )
        origin.read_text(path)
        return
    said = origin.said
    missing = next((name for name in said["files"] if not (path.parent / name).is_file()), None)
    if missing is not None:
        raise origin.refusal(f"it lists {missing}, which is missing")
    if method == "labels":
        models = {(REFERENCE, folders[0], str(model["seed"])): model["model"] for model in said["models"]}
        _check_inputs(run, origin, {TRAIN: said["index"]}, models)
        _check_judged(run, origin)
        return
    _check_inputs(run, origin, {said["set"]: said["index"]}, {(method, folders[0], str(said["seed"])): said["model"]})


def _check_inputs(
    run: Standing, origin: Origin, indexes: dict[str, str], models: dict[tuple[str, str, str], str]
) -> None:
    """Raise UserError if the indexes (digests by set) or the models (by method, backbone, seed) are not the run's."""
    for model, digest in models.items():
        weights = run.own(origin.path, Place(run.folder).weights(*model))
        if run.digest(weights) not in (None, digest):
            raise origin.refusal(f"it is of another model than {weights}")
    for set_name, digest in indexes.items():
        if run.index_digest(set_name) not in (None, digest):
            raise origin.refusal(f"it is of another index.csv than that of {Place(run.folder).data(set_name)}")


def _check_judged(run: Standing, origin: Origin) -> None:
    """Raise UserError if verdicts are on other parts or inpainted images than stand there."""
    said: dict[str, Any] = origin.said
    if run.parts_digest(origin.path) not in (None, said.get("parts")):
        raise origin.refusal("it is of another parts.json than stands there")
    cache = run.own(origin.path, Place(run.folder).inpainted())
    if run.payloads.get(cache, said.get("inpainted")) != said.get("inpainted"):
        raise origin.refusal(f"it is of other inpainted images than {cache}")
