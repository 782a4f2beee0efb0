"""Whether the backbones can be built as configured, take images of the run's size, and have weights of their own.

What enters: the settings of a backbone. What leaves: one sentence for each fault. timm takes seconds to import, so a
backbone is built where a model of it is still to be trained, and once: a file in the user's cache stands for each that was
found right.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from dfeat.config import Settings
from dfeat.errors import UserError
from dfeat.places import RESULTS, Place
from dfeat.shortage import pass_on
from dfeat.storage.provenance import bytes_digest, versions
from dfeat.training.settings import Backbone
from dfeat.training.weights import weights_path

SHIPPED: Final = (
    (Backbone(name="convnext_base.fb_in1k"), 224),
    (Backbone(name="swin_base_patch4_window7_224.ms_in1k"), 224),
    (
        Backbone(
            name="convnext_atto", kwargs={"depths": [1, 2, 3, 1], "dims": [40, 80, 160, 240]}, weights="demo:convnext"
        ),
        64,
    ),
    (
        Backbone(
            name="swin_tiny_patch4_window7_224",
            kwargs={
                "img_size": 64, "patch_size": 4, "window_size": 4, "embed_dim": 32, "depths": [2, 2, 4],
                "num_heads": [2, 4, 8],
            },
            weights="demo:swin",
        ),
        64,
    ),
)  # fmt: skip
"""The backbones of config.yaml and config/demo.yaml with the size of their images, which a test builds."""


def is_trained(settings: Settings, name: str) -> bool:
    """Whether all models of a backbone stand as configured, so that nothing is to be asked of it."""
    training = settings.training
    return all(_stands(settings, name, method, seed) for method in training.methods for seed in training.seeds)


def _stands(settings: Settings, name: str, method: str, seed: int) -> bool:
    """Whether a model was trained from this backbone on images of this size."""
    path, training = Place(RESULTS / settings.run).weights(method, name, seed), settings.training
    try:
        made = json.loads(path.with_name("run.json").read_text(encoding="utf-8"))["settings"]
        trained = made["training"]
        return (
            path.is_file()
            and made["backbone"] == training.backbones[name].model_dump(mode="json")
            and (trained["image_size"], trained.get("drop_path", 0.0)) == (training.image_size, training.drop_path)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        pass_on(error, str(path))
        return False


def backbone_faults(backbone: Backbone, image_size: int, drop_path: float) -> list[str]:
    """What a training would refuse of a backbone and of a local file of its weights."""
    known = (backbone.model_copy(update={"revision": None}), image_size)
    mark = _mark(backbone, image_size, drop_path)
    if (known in SHIPPED and not drop_path) or (mark is not None and mark.exists()):
        return []
    from dfeat.training.probe import check_backbone, check_weights

    try:
        check_backbone(backbone, image_size, drop_path)
        if backbone.weights is not None:
            check_weights(backbone, drop_path)
    except UserError as error:
        return [str(error)]
    if mark is not None:
        with suppress(OSError):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
    return []


def _mark(backbone: Backbone, image_size: int, drop_path: float) -> Path | None:
    """The file that says that this backbone is right with these versions and this file of weights; None without a home."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    asked: dict[str, Any] = {
        "backbone": backbone.model_dump(mode="json"),
        "image_size": image_size,
        "drop_path": drop_path,
    }
    if backbone.weights is not None:
        path = weights_path(backbone.weights)
        seen = path.stat()
        asked |= {"weights": [str(path.absolute()), seen.st_size, seen.st_mtime_ns]}
    text = json.dumps(asked | versions("timm", "torch"), sort_keys=True)
    return cache / "dfeat" / "backbones" / bytes_digest(text.encode())
