"""What a trained model's folder records of it: run.json, read and held to the folder that it lies in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from dfeat.storage.expected import check_model_folder, check_settings
from dfeat.storage.records import read_json, refusal

_NEEDED: Final = {"method": str, "seed": int, "classes": int, "feature_width": int, "settings": dict, "model": str}


def read_run(folder: Path) -> dict[str, Any]:
    """The content of a model's run.json.

    Raises UserError if it is missing, damaged or incomplete; and in a run's folder if it is of another method or seed than
    the folder, or of a model that was trained with other settings than the run is configured with.
    """
    path = folder / "run.json"
    run = read_json(path, "train")
    lacking = [
        name for name, kind in _NEEDED.items() if not isinstance(run, dict) or not isinstance(run.get(name), kind)
    ]
    if lacking:
        raise refusal(path, f"it does not record {', '.join(lacking)}", "train")
    check_model_folder(path, run["method"], run["seed"], "train")
    check_settings(path, run["settings"], "train")
    return dict(run)
