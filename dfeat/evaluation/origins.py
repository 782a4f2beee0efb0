"""Which model made the predictions of a folder, from which images and by which settings.

What enters: a loaded model, the stage's settings, the digests of the sets' indexes. What leaves: `predictions.json`
beside the predictions, that tells of all that one `dfeat evaluate` wrote there; and `verdicts.json`, which does so for
`dfeat judge`. Read back, they are refused where they tell of another model than the folder's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dfeat.storage.origin import Origin, read_origin
from dfeat.training.settings import Backbone

PREDICTIONS: Final = "predictions.json"
_OF_MODEL: Final = {"method": str, "backbone": dict, "seed": int, "model": str}
_OF_PREDICTIONS: Final = {**_OF_MODEL, "indexes": dict, "settings": dict}
_OF_VERDICTS: Final = {"models": list, "index": str, "settings": dict}


def model_identity(run: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of run.json that identify a model."""
    return {
        "method": run["method"],
        "backbone": run["settings"]["backbone"],
        "seed": run["seed"],
        "model": run["model"],
    }


def read_predictions_origin(folder: Path) -> Origin:
    """What the predictions of a folder are of."""
    return read_origin(folder / PREDICTIONS, "evaluate", _OF_PREDICTIONS)


def read_verdicts_origin(verdicts: Path) -> Origin:
    """What a file of verdicts is of."""
    origin = read_origin(verdicts.with_suffix(".json"), "judge", _OF_VERDICTS)
    if not all(isinstance(model, dict) and _OF_MODEL.keys() <= model.keys() for model in origin.said["models"]):
        raise origin.refusal("it does not say which models judged")
    return origin


def check_model(origin: Origin, method: str, backbone: Backbone, seed: int) -> None:
    """Refuse predictions in the folder of `method`, `backbone` and `seed` that another model made."""
    said = origin.said
    if (said["method"], said["seed"]) != (method, seed):
        raise origin.refusal(f"it tells of {said['method']} with seed {said['seed']}, not of {method} with seed {seed}")
    check_backbone(origin, said["backbone"], backbone)


def check_backbone(origin: Origin, said: Mapping[str, Any], backbone: Backbone) -> None:
    """Refuse what another backbone made, or the same one from other weights."""
    wanted = backbone.model_dump(mode="json")
    odd = [name for name in wanted if said.get(name) != wanted[name]]
    if odd:
        raise origin.refusal(
            f"it tells of a backbone of {odd[0]} {said.get(odd[0])!r}, and the settings have {wanted[odd[0]]!r}"
        )


def conditions(origin: Origin, set_name: str) -> tuple[Any, ...]:
    """What the predictions of all models on a set must agree in: its index, and how its images were shown."""
    settings = origin.said["settings"]
    shown = settings.get("occlusion"), settings.get("evaluation"), settings.get("studies", {}).get(set_name)
    return origin.said["indexes"].get(set_name), *shown
