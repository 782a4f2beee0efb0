"""Record which model made predictions, from which images and with which settings, and check these records.

What enters: a loaded model, the stage's settings, the digests of the sets' indexes. What leaves: the fields of
`<set>.json`, which records what a model's predictions on that set were made from, and of `verdicts.json`, its equivalent
for `dfeat judge`. Readers reject a record of another model than the folder's, and of another set than its name's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from dfeat.places import predictions_origin
from dfeat.storage.expected import check_model_folder, check_settings
from dfeat.storage.origin import Origin, read_origin
from dfeat.training.settings import Backbone

_OF_MODEL: Final = {"method": str, "backbone": dict, "seed": int, "model": str}
_OF_PREDICTIONS: Final = {**_OF_MODEL, "set": str, "index": str, "settings": dict}
_OF_VERDICTS: Final = {"models": list, "index": str, "settings": dict}


def model_identity(run: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of run.json that identify a model."""
    backbone = run["settings"]["backbone"]
    return {"method": run["method"], "backbone": backbone, "seed": run["seed"], "model": run["model"]}


def read_predictions_origin(folder: Path, set_name: str) -> Origin:
    """Read the record of a folder's predictions on a set.

    Raises UserError if it is missing, damaged, incomplete or of another set; and in a run's folder if it is of another
    method or seed than the folder, or of other settings than the run is configured with.
    """
    origin = read_origin(folder / predictions_origin(set_name), "evaluate", _OF_PREDICTIONS)
    if origin.said["set"] != set_name:
        raise origin.refusal(f"it is of {origin.said['set']}, not of {set_name}")
    check_model_folder(origin.path, origin.said["method"], origin.said["seed"], "evaluate")
    check_settings(origin.path, origin.said["settings"], "evaluate", partial(_of_set, set_name=set_name))
    return origin


def _of_set(configured: Any, set_name: str) -> Any:
    """What the settings of an evaluation of several sets are for one of them; None where it is none of theirs."""
    if set_name not in configured["levels"]:
        return None
    own = {
        name: {key: one for key, one in configured[name].items() if key == set_name} for name in ("levels", "studies")
    }
    return configured | own


def read_verdicts_origin(verdicts: Path) -> Origin:
    """Read the record beside a file of verdicts. Raises UserError if it is missing, damaged or incomplete."""
    origin = read_origin(verdicts.with_suffix(".json"), "judge", _OF_VERDICTS)
    if not all(isinstance(model, dict) and _OF_MODEL.keys() <= model.keys() for model in origin.said["models"]):
        raise origin.refusal("it does not record which models judged")
    check_settings(origin.path, origin.said["settings"], "judge")
    return origin


def check_model(origin: Origin, method: str, backbone: Backbone, seed: int) -> None:
    """Raise UserError unless `origin` records predictions of the model of `method`, `backbone` and `seed`."""
    record = origin.said
    if (record["method"], record["seed"]) != (method, seed):
        raise origin.refusal(f"it records {record['method']} with seed {record['seed']}, not {method} with seed {seed}")
    check_backbone(origin, record["backbone"], backbone)


def check_backbone(origin: Origin, recorded: Mapping[str, Any], backbone: Backbone) -> None:
    """Raise UserError unless the recorded settings of a backbone, its weights included, are those of `backbone`."""
    wanted = backbone.model_dump(mode="json")
    odd = [name for name in wanted if recorded.get(name) != wanted[name]]
    if odd:
        raise origin.refusal(
            f"it records a backbone with {odd[0]} {recorded.get(odd[0])!r}, but the settings have {wanted[odd[0]]!r}"
        )


def conditions(origin: Origin) -> tuple[Any, ...]:
    """What must be equal for models to be compared on a set: its index, and its occlusion, evaluation and study."""
    settings = origin.said["settings"]
    return origin.said["index"], *(settings.get(name) for name in ("occlusion", "evaluation", "studies"))
